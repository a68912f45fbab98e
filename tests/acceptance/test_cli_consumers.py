"""`pgsaga events consumers` and `dead-letters`: what they show, and what they have done."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from langgraph_pgsaga import Database
from langgraph_pgsaga.events import AgentEvent, Consumer, EventStore
from langgraph_pgsaga.work import Retry, Worker
from tests._cli import pgsaga
from tests.db._consumers import caught_up, letters

SECRET = "a card's number"


async def fail(dsn: str, names: str) -> list[str]:
    """A dead letter for each of these aggregates: the ids of the events."""

    async def handle(event: AgentEvent) -> None:
        raise ValueError(SECRET)

    async with Database(dsn) as db:
        store = EventStore(db)
        for name in names:
            await store.append(name, [AgentEvent(event_type="paid")], aggregate_type="order")
        made = Consumer(name="mails", handler=handle, retry=Retry(attempts=1))
        async with Worker(db, store.job(made)):
            await caught_up(store, "mails")
        return [str(letter.event_id) for letter in await letters(store)]


def shown(dsn: str, *words: str) -> Any:
    done = pgsaga("events", *words, "--json", "--dsn", dsn)
    assert done.returncode == 0, done.stderr
    assert SECRET not in done.stdout
    return json.loads(done.stdout)


def test_what_failed_is_shown_tried_again_and_skipped(dsn: str) -> None:
    """By consumer and event; what isn't there is told, with the exit code 1."""
    empty = pgsaga("events", "consumers", "--dsn", dsn)
    assert (empty.returncode, empty.stdout) == (0, "")
    ids = asyncio.run(fail(dsn, "abc"))
    [consumer] = shown(dsn, "consumers")["consumers"]
    assert (consumer["name"], consumer["behind"], consumer["dead"]) == ("mails", 0, 3)
    page = shown(dsn, "dead-letters", "list", "--limit", "2")
    assert [letter["aggregate_id"] for letter in page["dead_letters"]] == ["a", "b"]
    rest = shown(dsn, "dead-letters", "list", "mails", "--after", page["next_cursor"])
    assert [letter["event_id"] for letter in rest["dead_letters"]] == ids[2:]
    done = pgsaga("events", "dead-letters", "skip", "mails", ids[0], "--dsn", dsn)
    assert (done.returncode, done.stdout) == (0, f"mails: event {ids[0]} is skipped\n")
    done = pgsaga("events", "dead-letters", "retry", "mails", "--dsn", dsn)
    assert (done.returncode, done.stdout) == (0, "mails: 3 aggregates to be tried again\n")
    for words in (("skip", "mails", ids[0]), ("retry", "others"), ("retry", "mails", "none")):
        done = pgsaga("events", "dead-letters", *words, "--dsn", dsn)
        assert (done.returncode, done.stdout) == (1, "")
        assert repr(words[-1]) in done.stderr
    for more in ([], ["--json"]):
        done = pgsaga("events", "show", "d", "--dsn", dsn, *more)
        assert (done.returncode, "no events of 'd'. Check the id" in done.stderr) == (1, True)


def test_a_retired_consumer_is_late_for_nothing(dsn: str) -> None:
    """It never goes on: only the one in its place is behind."""

    async def replaced() -> None:
        async with Database(dsn) as db:
            store = EventStore(db)
            old, new = (Consumer(name=name, handler=print) for name in ("old", "new"))
            job: Any = store.job(old, new)
            await job.prepare(db)
            await store.replace_consumer("old", "new")
            await store.append("a", [AgentEvent(event_type="paid")], aggregate_type="order")

    asyncio.run(replaced())
    done = pgsaga("events", "consumers", "--dsn", dsn)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["old", "1/1", "0", "0", "retired"] in rows
    assert [row[:3] for row in rows if row[0] == "new"] == [["new", "1/1", "1"]]
