"""The part of a message that shows what a search found."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

# Around what a search found, in a snippet. No snippet has them anywhere else, and escaping
# for HTML leaves them alone: escape the snippet first, then replace them by tags.
MATCH_START = "\x02"
MATCH_END = "\x03"

_WIDTH = 90
_MOST_PARTS = 2
_MOST_MATCHES = 2000
_CUT = "…"
_MATCH = re.compile(f"{MATCH_START}([^{MATCH_END}]*){MATCH_END}")
# A word at the edge of a part is left out, unless it is so long that it may be no word.
_FIRST_SPACE, _LAST_SPACE = re.compile(r"\S{0,20}\s+"), re.compile(r"\s+\S{0,20}\Z")


class _Span(NamedTuple):
    start: int
    end: int


def snippet_of(marked: str, *, is_cut: bool = False) -> str:
    """A short text as it is, of a longer one up to two parts with what was found.

    `marked` is the text with marks around every word that was found; `is_cut` says that the
    message goes on after it. The parts are those with the most words of the search, the
    earliest of equals. An ellipsis stands where text was left out.
    """
    text, matches = _unmarked(marked)
    if len(text) <= _MOST_PARTS * _WIDTH:
        return f"{marked} {_CUT}" if is_cut else marked
    parts = _parts(text, matches)
    shown = f" {_CUT} ".join(_marked(text, part, matches) for part in parts)
    before = f"{_CUT} " if parts[0].start else ""
    after = f" {_CUT}" if is_cut or parts[-1].end < len(text) else ""
    return f"{before}{shown}{after}"


def _unmarked(marked: str) -> tuple[str, list[_Span]]:
    """The text without its marks, and where in it they were."""
    found = enumerate(islice(_MATCH.finditer(marked), _MOST_MATCHES))
    matches = [_Span(m.start() - 2 * number, m.end() - 2 * number - 2) for number, m in found]
    return _MATCH.sub(r"\1", marked), matches


def _parts(text: str, matches: Sequence[_Span]) -> list[_Span]:
    """The parts to show, in their order, none overlapping another."""
    found: list[_Span] = []
    shown: set[str] = set()
    for _ in range(_MOST_PARTS):
        rest = [m for m in matches if all(m.end <= p.start or m.start >= p.end for p in found)]
        words = [text[match.start : match.end].casefold() for match in rest]
        part = _around(text, _densest(rest, words, shown))
        shown.update(
            w for w, m in zip(words, rest, strict=True) if part.start <= m.start < part.end
        )
        found.append(part)
        if len(rest) < 2:
            break
    first, last = min(found), max(found)
    return [first, last] if first.end < last.start else [_Span(first.start, last.end)]


def _densest(matches: Sequence[_Span], words: Sequence[str], shown: set[str]) -> _Span:
    """The place of a part's width with the most different words that aren't shown yet."""
    best, most = _Span(0, 0), -1
    counts: Counter[str] = Counter()
    first = 0
    for last, match in enumerate(matches):
        counts[words[last]] += 1
        while match.end - matches[first].start > _WIDTH and first < last:
            counts[words[first]] -= 1
            if not counts[words[first]]:
                del counts[words[first]]
            first += 1
        new = len(counts.keys() - shown)
        if new > most:
            best, most = _Span(matches[first].start, match.end), new
    return _Span(best.start, min(best.end, best.start + _WIDTH))


def _around(text: str, span: _Span) -> _Span:
    """The span with what is around it, from word to word where there are spaces."""
    start = max(0, span.start - (_WIDTH - (span.end - span.start)) // 2)
    end = min(len(text), start + _WIDTH)
    start = max(0, end - _WIDTH)
    if start and (space := _FIRST_SPACE.match(text, start, span.start)):
        start = space.end()
    if end < len(text) and (space := _LAST_SPACE.search(text, span.end, end)):
        end = space.start()
    while start < span.start and unicodedata.category(text[start]).startswith("M"):
        start += 1  # an accent of a letter that is left out
    return _Span(start, end)


def _marked(text: str, part: _Span, matches: Sequence[_Span]) -> str:
    pieces: list[str] = []
    at = part.start
    for match in matches:
        start, end = max(match.start, part.start), min(match.end, part.end)
        if start < end:
            pieces += [text[at:start], MATCH_START, text[start:end], MATCH_END]
            at = end
    return "".join([*pieces, text[at : part.end]])
