"""What the tables for notebooks have in common: self-contained, without script, light and dark."""

from __future__ import annotations

from langgraph_pgsaga._text import shown_html

# Of branches, in turn: as marks, and below white numbers. No text has them: nothing that is dark
# enough for white is bright enough for black, too.
COLOURS = ("#2a7f62", "#b25d17", "#6b5fc7", "#b03a6f", "#2b79ad")
_LONGEST_HEAD = 200


def style(kind: str, *rules: str) -> str:
    """The style block of what has the class `pgsaga-<kind>`; each rule is of a part of it.

    No colour of text or ground is set but for marks: a notebook has its own.
    """
    # Three times, to count for more than what a notebook says of tables.
    scope = 3 * f".pgsaga-{kind}"
    common = (
        f"{scope} {{color-scheme: light dark; font: 13px/1.45 sans-serif}}",
        f"table{scope} {{border-collapse: collapse}}",
        f"{scope} tr {{background: none}}",
        f"{scope} td, {scope} th {{text-align: left; vertical-align: top; padding: 3px 8px}}",
        f"{scope} td, {scope} th {{border: 0; color: inherit; background: none}}",
    )
    own = (f"{scope} {rule}" for rule in rules)
    return "\n".join(["<style>", *common, *own, "</style>"])


def folded(value: str, longest: int, most: int) -> str:
    """A text of more than `longest` characters folded, and of more than `most` cut.

    What was cut is counted.
    """
    shown = shown_html(value[:most])
    if len(value) > most:
        shown += f'<span class="cut">… {len(value) - most:,} more characters</span>'
    if len(value) <= longest:
        return shown
    head = shown_html(" ".join(value[:_LONGEST_HEAD].split()))
    return f"<details><summary>{head}…</summary>{shown}</details>"
