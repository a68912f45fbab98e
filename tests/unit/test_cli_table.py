"""How wide a table's columns are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from langgraph_pgsaga.cli.table import _GAP, _UNBROKEN, _widths

CELLS = st.text(st.sampled_from("ab 好"), max_size=60)


@given(
    st.integers(1, 6).flatmap(
        lambda n: st.lists(st.lists(CELLS, min_size=2, max_size=2), min_size=n, max_size=n)
    ),
    st.integers(1, 200),
)
def test_columns_fit_and_break_no_word(columns: list[list[str]], room: int) -> None:
    """The room is never exceeded, and used where cells want it; long words alone are folded."""

    def cells(text: str) -> int:
        return sum(2 if character == "好" else 1 for character in text)

    wanted = [max(map(cells, column)) for column in columns]
    assert _widths(columns, None) == wanted
    widths = _widths(columns, room)
    longest = [
        max(min(cells(word), _UNBROKEN) for cell in column for word in [*cell.split(), ""])
        for column in columns
    ]
    gaps = _GAP * (len(columns) - 1)
    if widths is None:
        assert sum(longest) + gaps > room
        return
    assert all(least <= width for least, width in zip(longest, widths, strict=True))
    assert sum(widths) + gaps == min(room, sum(wanted) + gaps)
