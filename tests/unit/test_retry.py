"""Retry: how often, how long in between, and after which errors."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langgraph_pgsaga.errors import InvalidArgumentError
from langgraph_pgsaga.work import Retry


def test_each_wait_is_longer_by_the_factor_up_to_the_longest() -> None:
    """The first is backoff_seconds; after the last attempt there is none."""
    retry = Retry(attempts=6, backoff_seconds=2, factor=3, longest_seconds=50, jitter=0)
    assert [retry.delay(n) for n in range(1, 8)] == [2, 6, 18, 50, 50, None, None]


def test_without_end_means_at_any_attempt() -> None:
    """A number that no float has is the longest wait, not an error."""
    retry = Retry(attempts=None, backoff_seconds=1, longest_seconds=60, jitter=0)
    assert retry.delay(2**31 - 1) == 60


@given(st.integers(1, 60), st.floats(0, 1), st.floats(0, 1000), st.floats(1, 100))
def test_jitter_only_shortens_and_by_its_part_at_most(
    attempt: int, jitter: float, backoff: float, factor: float
) -> None:
    """A wait is between (1 - jitter) of what it would be, and that."""
    plain = Retry(attempts=None, backoff_seconds=backoff, factor=factor, jitter=0)
    retry = dataclasses.replace(plain, jitter=jitter)
    whole, found = plain.delay(attempt), retry.delay(attempt)
    assert whole is not None
    assert found is not None
    assert whole * (1 - jitter) - 1e-9 <= found <= whole + 1e-9


def test_jitter_spreads() -> None:
    """What failed together isn't tried again together."""
    retry = Retry(backoff_seconds=100, jitter=0.5)
    assert len({retry.delay(1) for _ in range(20)}) > 10


def test_only_errors_that_are_worth_it_are_tried_again() -> None:
    """Subclasses too; what isn't an Exception never."""
    retry = Retry(on=(OSError, KeyError), jitter=0)
    assert retry.delay_after(ConnectionResetError(), 1) == 1
    assert retry.delay_after(ValueError(), 1) is None
    assert retry.delay_after(OSError(), 10) is None
    assert not Retry().retries(KeyboardInterrupt())
    assert Retry(on=OSError) == Retry(on=[OSError])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("attempts", 0),
        ("attempts", 1.5),
        ("attempts", True),
        ("backoff_seconds", -1),
        ("backoff_seconds", math.nan),
        ("backoff_seconds", "1"),
        ("longest_seconds", math.inf),
        ("factor", 0.5),
        ("factor", None),
        ("jitter", 1.1),
        ("jitter", math.nan),
        ("on", "OSError"),
        ("on", [OSError()]),
        ("on", BaseException),
        ("on", None),
    ],
)
def test_what_makes_no_sense_is_refused(name: str, value: Any) -> None:
    """When it is made, by the name of the argument."""
    with pytest.raises(InvalidArgumentError) as caught:
        Retry(**{name: value})
    assert caught.value.argument == name


def test_it_is_a_value() -> None:
    """Frozen, comparable, and the same in another process."""
    retry = Retry(on=[OSError], attempts=3)
    assert pickle.loads(pickle.dumps(retry)) == retry == copy.deepcopy(retry)
    assert hash(retry) == hash(Retry(on=(OSError,), attempts=3))
    with pytest.raises(dataclasses.FrozenInstanceError):
        retry.attempts = 4  # type: ignore[misc]
