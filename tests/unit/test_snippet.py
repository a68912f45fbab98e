"""The part of a message that a search shows, whatever the message is made of."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from langgraph_pgsaga.messages.snippet import MATCH_END, MATCH_START, snippet_of

WORDS = st.sampled_from(
    ["tea", "a", "of", "coffee", "\n", "  ", "我想喝一杯白咖啡" * 30, "e\u0301" * 100, "x" * 500]
)


def marked(words: list[tuple[str, bool]]) -> str:
    return " ".join(f"{MATCH_START}{w}{MATCH_END}" if hit else w for w, hit in words)


def plain(text: str) -> str:
    return text.replace(MATCH_START, "").replace(MATCH_END, "")


@given(st.lists(st.tuples(WORDS, st.booleans()), max_size=60), st.booleans())
def test_a_snippet_is_short_and_shows_a_hit(words: list[tuple[str, bool]], is_cut: bool) -> None:
    """Its parts are the text's, at most two of them, with balanced marks around something."""
    text = marked(words)
    snippet = snippet_of(text, is_cut=is_cut)
    parts = [part.removeprefix("… ").removesuffix(" …") for part in snippet.split(" … ")]
    assert len(parts) <= 2
    assert all(plain(part) in plain(text) for part in parts)
    assert len(plain(snippet)) <= 200
    inside = False
    for character in snippet:
        if character in (MATCH_START, MATCH_END):
            assert inside == (character == MATCH_END)
            inside = not inside
    assert not inside
    assert (MATCH_START in snippet) == (MATCH_START in text)


def test_what_was_left_out_is_told() -> None:
    """An ellipsis before, between and behind, and none where nothing is missing."""
    some = "word " * 60
    hit = f"{MATCH_START}tea{MATCH_END}"
    assert snippet_of(f"a {hit}") == f"a {hit}"
    assert snippet_of(f"{some[:120]}{hit} {some[:50]}") == f"{some[:120]}{hit} {some[:50]}"
    assert snippet_of(f"a {hit}", is_cut=True) == f"a {hit} …"
    assert snippet_of(f"{hit} {some}").startswith(hit)
    assert snippet_of(f"{hit} {some}").endswith("word …")
    assert snippet_of(f"{some}{hit}").startswith("… word")
    assert snippet_of(f"{some}{hit}").endswith(hit)
    assert snippet_of(f"{some}{hit} {some}{hit} {some}").count("…") == 3


def test_a_part_begins_with_no_accent_of_what_is_left_out() -> None:
    """Where words are too long to begin with one, letters stay whole."""
    long = "e\u0301" * 60
    for shift in range(3):
        snippet = snippet_of(f"{'x' * shift}{long}{MATCH_START}tea{MATCH_END}{long}{long}")
        assert not snippet.startswith("… \u0301")
