"""Reading HTML as a browser does."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any


class _Balanced(HTMLParser):
    """Notes the tags; every one has to be closed, in its turn, and none listens to events."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        assert not [name for name, _ in attrs if name.startswith("on")]
        self.seen.add(tag)
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text.append(data)


def tags_of(html: str) -> set[str]:
    """The tags of the page, which has to close each of them."""
    return _read(html).seen


def text_of(html: str) -> str:
    """What a reader sees of the page, folded parts included."""
    return "".join(_read(html).text)


def _read(html: str) -> _Balanced:
    parser = _Balanced()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    return parser
