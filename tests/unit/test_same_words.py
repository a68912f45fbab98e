"""Statements that do a part of what another one does say it in the same words."""

from __future__ import annotations

import re

import pytest

from langgraph_pgsaga.database import load_statements
from langgraph_pgsaga.events.append_queue import GroupedEvent

_STATEMENTS = load_statements("checkpoint")
_WHOLE = _STATEMENTS["write_batch"]
_EVENTS = load_statements("events")


def parts(text: str) -> dict[str, str]:
    """The CTEs by name."""
    found = re.findall(
        r"^(?:with )?(\w+) as (?:materialized )?\(\n(.*?)^\)", text, re.MULTILINE | re.DOTALL
    )
    return {name: re.sub(r"\$\d+", "$", body) for name, body in found}


@pytest.mark.parametrize("name", ["write_states", "write_turns", "write_dependent"])
def test_a_smaller_statement_has_the_parts_of_the_whole_one(name: str) -> None:
    """What may write to a session, and what is stored of it, is the same by each."""
    whole, own = parts(_WHOLE.text), parts(_STATEMENTS[name].text)
    assert {"items", "live"} < own.keys() < {"live", *whole}
    assert own.pop("live") == whole["kept"]
    for part, body in own.items():
        assert body == whole[part], part


def test_what_is_stored_with_events_is_what_is_stored_without() -> None:
    """The statement with events has the whole one's parts, and one more."""
    whole, told = parts(_WHOLE.text), parts(_STATEMENTS["write_batch_with_events"].text)
    assert told.keys() - whole.keys() == {"told"}
    assert {name: told[name] for name in whole} == whole


def test_one_event_is_appended_where_several_are() -> None:
    """Who may append, behind which version and transaction, is asked in the same words."""
    whole, one = (parts(_EVENTS[name].text) for name in ("append_events", "append_one"))
    for part in ("era", "allowed", "stream", "place", "due"):
        assert one[part] == whole[part], part
    columns = [
        re.findall(r"insert into {schema}.agent_events \((.*?)\)", _EVENTS[name].text, re.DOTALL)
        for name in ("append_events", "append_one", "append_alone", "append_together")
    ]
    assert len({" ".join(text.split()) for found in columns for text in found}) == 1
    ended = [_EVENTS[name].text.rpartition("\n)\n")[2] for name in ("append_events", "append_one")]
    assert [text.partition("case when")[0] for text in ended] == [
        ended[0].partition("case when")[0]
    ] * 2
    assert ended[0].rpartition("positions,")[2] == ended[1].rpartition("positions,")[2]


def test_an_event_alone_is_given_as_one_of_many() -> None:
    """Its statement takes the first fields, in their order, of what a statement for many does."""
    taken = [name for name, _ in _EVENTS["append_alone"].params]
    assert taken == [*GroupedEvent.__annotations__][: len(taken)]


def test_what_readers_may_see_ends_at_the_same_place() -> None:
    """Pages, consumers and the sealer go as far as each other: nothing comes in front of that."""
    consumers, seals = load_statements("consumers"), load_statements("seals")
    statements = [_EVENTS[name] for name in ("read_page", "read_narrowed", "measure_lag")]
    statements += [consumers[name] for name in ("claim_consumer", "list_consumers")]
    statements += [consumers["insert_consumer"], seals["read_leaves"]]
    assert len({parts(statement.text)["horizon"] for statement in statements}) == 1
