"""Text that people are shown: of what was stored, nothing is obeyed and nothing is hidden.

Escaped are the characters that a terminal or a browser would do something with, or that
can't be seen: controls, what turns the direction of writing, lone surrogates, separators of
lines, spaces without width, tags. What scripts and emoji need stays: joiners, soft hyphens.
"""

from __future__ import annotations

import json
import re
from html import escape

# All but tabs and line breaks.
_OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\ud800-\udfff\U0001d173-\U0001d17a\U000e0000-\U000e007f]"
)
_LINE_BREAKS = {"\n": "\\n", "\t": "\\t"}


def shown_block(text: str) -> str:
    """`text` with what would be obeyed, or not be seen, written as escapes; lines stay lines."""
    return _OBEYED.sub(_escape, text)


def shown(text: str, longest: int | None = None) -> str:
    """`text` as one line, safe to print; beyond `longest` characters an ellipsis."""
    if longest is not None and len(text) > longest:
        text = f"{text[: longest - 1]}…"
    return re.sub("[\n\t]", lambda match: _LINE_BREAKS[match[0]], shown_block(text))


def shown_html(text: str) -> str:
    """`shown_block` for HTML, in elements and in quoted attributes."""
    return escape(shown_block(text))


def safe_json(text: str) -> str:
    """JSON text with such characters, which only its strings can have, as JSON's own escapes."""
    return _OBEYED.sub(lambda match: json.dumps(match[0])[1:-1], text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
