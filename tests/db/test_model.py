"""Random sequences of calls give the same answers as InMemorySaver.

InMemorySaver stands for the contract where it implements it. `Reference` adds what it
lacks (copy_thread, prune, delete_for_runs, the Sends of old checkpoints), and says where
its answers differ from the contract.

The sequences keep one invariant of LangGraph: a (channel, version) has one value. Every
new value gets a version from `get_next_version`, whose random part differs on every
branch. InMemorySaver and the saver may then both store a value once per version.
"""

from __future__ import annotations

import os
from typing import cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    run_state_machine_as_test,
)
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer

from tests.db._model_machine import Driver, SaverMachine, driven

_FULL = os.environ.get("PGSAGA_FULL") == "1"
_SETTINGS = settings(
    max_examples=250 if _FULL else 25,
    stateful_step_count=50 if _FULL else 30,
    deadline=None,
    derandomize=False,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)


def run_machine(driver: Driver) -> None:
    def machine() -> SaverMachine:
        return SaverMachine(driver)

    # It wants a class, and only ever calls it.
    run_state_machine_as_test(cast("type[RuleBasedStateMachine]", machine), settings=_SETTINGS)


@pytest.mark.slow
@pytest.mark.parametrize("is_async", [True, False], ids=["async", "sync"])
def test_answers_like_the_in_memory_saver(dsn: str, is_async: bool) -> None:
    """Whatever is put, forked, deleted, copied and pruned, every read is the reference's."""
    with driven(dsn, is_async=is_async) as driver:
        run_machine(driver)


@pytest.mark.slow
def test_answers_like_the_in_memory_saver_with_encryption(dsn: str) -> None:
    """Encryption changes no answer."""
    serde = EncryptedSerializer.from_pycryptodome_aes(key=b"0" * 16)
    with driven(dsn, is_async=True, serde=serde) as driver:
        run_machine(driver)
