"""Statements that do a part of what another one does say it in the same words."""

from __future__ import annotations

import re

import pytest

from langgraph_pgsaga.database import Statement, load_statements
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


def conditions(statement: Statement, part: str) -> dict[str, str]:
    """What the part sets, and asks of the session's row, each by its column or first word.

    Where the statement is for one session, its parameters are what a row's columns are for many.
    """
    text = statement.text
    for number, (name, kind) in reversed([*enumerate(statement.params, 1)]):
        if not kind.endswith("[]"):
            text = re.sub(rf"\${number}\b(?:::\w+)?", f"i.{name}", text)
    body = parts(text)[part].replace("k.", "i.")
    sets, _, rest = body.partition("\n  from ")
    asked = rest[rest.index("    and s.message_epoch") :]
    found = re.split(r"\n {4}(?=\w+ = )", sets)[1:] + re.split(r"\n {4}and ", "\n" + asked)[1:]
    return {text.split(maxsplit=1)[0]: text for text in found}


@pytest.mark.parametrize("name", ["write_states", "write_turns", "write_dependent"])
def test_a_smaller_statement_asks_and_sets_what_the_whole_one_does(name: str) -> None:
    """Who may write to a session, and what becomes of its row, is the same by each.

    The smaller ones are for one session, of which no message or blob has to be looked for, and
    find its last checkpoint by a join, where a row for each session takes a query.
    """
    whole, own = conditions(_WHOLE, "kept"), conditions(_STATEMENTS[name], "live")
    looked_up = {first for first in whole if first.startswith("(i.known_")}
    assert looked_up == {"(i.known_id", "(i.known_no", "(i.known_hash"}
    assert own.pop("(i.known_id") == "(i.known_id is null or p.checkpoint_id is not null)"
    assert own == {first: text for first, text in whole.items() if first not in looked_up}
    assert len(own) > 14


@pytest.mark.parametrize("name", ["write_states", "write_turns", "write_dependent"])
def test_a_smaller_statement_stores_what_the_whole_one_does(name: str) -> None:
    """The rows have the same columns, from the same columns, and the same conflicts."""
    whole, own = parts(_WHOLE.text), parts(_STATEMENTS[name].text)
    assert own.keys() <= {"clock", *whole}
    for part in own.keys() - {"clock", "live"}:
        rows = [re.split(r"\n  from ", body[part]) for body in (whole, own)]
        assert rows[1][0].replace("l.session_id", "i.session_id") == rows[0][0], part
        ends = [body[1].partition("  on conflict")[2] for body in rows]
        assert ends[0] == ends[1], part


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
