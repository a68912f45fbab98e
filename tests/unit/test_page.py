"""What notebooks show can be read on a light ground and on a dark one."""

from __future__ import annotations

import pytest

from langgraph_pgsaga.timetravel._page import COLOURS

DARK = "#121212"


def luminance(colour: str) -> float:
    """That of WCAG 2.1."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    darker, brighter = sorted((luminance(one), luminance(other)))
    return (brighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("colour", COLOURS)
def test_branches_can_be_told_on_any_ground(colour: str) -> None:
    """White numbers on a branch's colour have the contrast of text, its lines that of graphics."""
    assert contrast(colour, "#ffffff") >= 4.5
    assert contrast(colour, DARK) >= 3
