"""Text that people are shown: nothing in it is obeyed, on any surface."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from langchain_core.messages import AIMessage, ToolMessage

from langgraph_pgsaga._text import safe_json, shown, shown_block, shown_html
from langgraph_pgsaga.cli.plain import plain, text
from langgraph_pgsaga.timetravel import (
    BranchTree,
    Step,
    _compare_html,
    _history_html,
    _state_html,
    _state_text,
    diff,
)
from langgraph_pgsaga.timetravel.steps import _cells, _line
from tests._html import tags_of

# What writing and emoji need, and what is to be seen.
STAY = {
    *"\t\n\u00ad\u200c\u200d",
    *map(chr, range(0x600, 0x606)),
    *"\u06dd\u070f\u0890\u0891\u08e2",
}
STAY |= {"\U000110bd", "\U000110cd", *map(chr, range(0x13430, 0x13440))}
STAY |= {*map(chr, range(0x1BCA0, 0x1BCA4))}
EVERY = [
    char
    for char in map(chr, range(sys.maxunicode + 1))
    if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")
]
OBEYED = frozenset(EVERY) - STAY
STAY &= {*EVERY}
PRIVATE = "\ue000\uf8ff\U000f0000\U000ffffd\U00100000\U0010fffd"
# From the end, or two halves of a character would make a whole one.
EVIL = "".join(reversed(EVERY)) + PRIVATE + "<b title='\"'>&"


class Evil:
    """Its text is its own."""

    def __repr__(self) -> str:
        return EVIL


def test_every_character_that_would_be_obeyed_is_an_escape() -> None:
    """In each of the four forms; the others stay, and JSON means the same."""
    for made in (shown_block(EVIL), shown(EVIL), shown_html(EVIL), safe_json(json.dumps(EVIL))):
        assert OBEYED.isdisjoint(made)
    assert "\n" not in shown(EVIL)
    assert set(PRIVATE) | STAY - {"\t", "\n"} <= set(shown(EVIL))
    assert json.loads(safe_json(json.dumps(EVIL, ensure_ascii=False))) == EVIL
    assert shown("\x1b[2J \u202e \U000e0041") == "\\x1b[2J \\u202e \\U000e0041"
    family = "\U0001f469\u200d\U0001f469\u200d\U0001f467"
    assert shown(family) == family


def a_step(**changes: Any) -> Step:
    given: dict[str, Any] = {
        "config": {"configurable": {"thread_id": EVIL}},
        "checkpoint_id": EVIL,
        "parent_checkpoint_id": None,
        "step": 1,
        "source": EVIL,
        "created_at": datetime.now(UTC),
        "name": EVIL,
        "nodes": (EVIL,),
        "changed": (EVIL,),
        "next": (EVIL,),
        "is_interrupted": True,
        "has_error": True,
        "branch": 0,
    }
    return Step(**{**given, **changes})


def messages() -> list[Any]:
    call = {"name": EVIL, "args": {EVIL: Evil()}, "id": EVIL}
    block: Any = [{"type": "text", "text": EVIL}, {"type": EVIL}]
    return [
        AIMessage(EVIL, id="1", name=EVIL, tool_calls=[call]),
        ToolMessage(block, id="2", tool_call_id=EVIL, status="error"),
    ]


def a_state() -> _state_text.Shown:
    return _state_text.Shown(
        thread_id=EVIL,
        checkpoint_id=EVIL,
        step=1,
        source=EVIL,
        created_at=EVIL,
        channels={EVIL: EVIL, "e": Evil(), "d": {EVIL: Evil()}, "messages": messages()},
        next=(EVIL,),
        interrupts=(EVIL, Evil()),
        errors=((EVIL, EVIL),),
    )


def a_diff() -> Any:
    before = {EVIL: 1, "e": Evil(), "t": EVIL, "m": messages()}
    edited = messages()
    edited[0].content += "more"
    return diff(before, {"new": EVIL, "e": [Evil()], "t": EVIL + "x", "m": edited})


def a_page() -> str:
    columns = [
        _compare_html.Column(name=EVIL, told=EVIL, is_failed=failed, channels=channels)
        for failed, channels in ((True, a_state().channels), (False, {EVIL: 1, "e": Evil()}))
    ]
    return _compare_html.page(columns)


STEPS = [a_step(), *(a_step(checkpoint_id=f"{EVIL}{n}", branch=n) for n in range(1, 3))]
SURFACES: dict[str, Callable[[], str]] = {
    "a diff's page": lambda: a_diff()._repr_html_(),
    "a diff's text": lambda: str(a_diff()),
    "a history's page": lambda: _history_html.table([_cells(a_step())], True),
    "a history's text": lambda: _line(a_step()),
    "a state's page": lambda: _state_html.page(a_state()),
    "a state's text": lambda: _state_text.text(a_state()),
    "a comparison's page": a_page,
    "a tree's drawing": lambda: BranchTree(EVIL, STEPS)._repr_html_(),
    "a tree's text": lambda: str(BranchTree(EVIL, STEPS)),
    "a tree's own text": lambda: repr(BranchTree(EVIL, STEPS)),
    "the command's text": lambda: text(messages()) + text({EVIL: EVIL}) + text(Evil()),
    "the command's JSON": lambda: safe_json(json.dumps(plain([messages(), Evil(), EVIL]))),
}


@pytest.mark.parametrize("surface", SURFACES.values(), ids=SURFACES)
def test_no_surface_passes_what_would_be_obeyed(surface: Callable[[], str]) -> None:
    """Whatever is named or held by it; and it can be written to a file."""
    made = surface()
    assert OBEYED.isdisjoint(made)
    assert made.encode()
    if made.startswith(("<style", "<table", "<div")):
        assert "b" not in tags_of(made)
