"""What the log says of an error in somebody's code."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest

from langgraph_pgsaga._arguments import required_text
from langgraph_pgsaga.errors import PgSagaError
from langgraph_pgsaga.work import described


def of_a_library() -> None:
    json.loads("a secret payload")


def of_this_package() -> None:
    required_text("name", 5)


def of_its_own() -> None:
    raise ValueError("a secret payload")


def raised(function: Callable[[], None]) -> BaseException:
    with pytest.raises((ValueError, PgSagaError)) as caught:
        function()
    return caught.value


def test_the_place_is_the_applications() -> None:
    """Of what a library raised the line that called it comes first; no text is told."""
    told = described(raised(of_a_library))
    assert re.fullmatch(
        r"JSONDecodeError at \S+test_error_text\.py:\d+ in of_a_library, "
        r"raised at \S+decoder\.py:\d+ in raw_decode",
        told,
    )
    assert re.fullmatch(
        r"ValueError at \S+test_error_text\.py:\d+ in of_its_own", described(raised(of_its_own))
    )


def test_of_our_own_errors_it_is_the_text() -> None:
    """They quote no payload."""
    assert described(raised(of_this_package)).startswith("InvalidArgumentError: name")


def test_an_error_that_was_never_raised_has_no_place() -> None:
    """Its class is all there is."""
    assert described(ValueError("a secret payload")) == "ValueError"
