"""Where a config's rows are: thread, session, namespace and checkpoint."""

from __future__ import annotations

import enum
import hashlib
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langgraph_pgsaga.errors import InvalidArgumentError, MissingThreadIdError
from langgraph_pgsaga.threads import (
    Address,
    checkpoint_config,
    optional_checkpoint_id,
    session_id_of,
    stored_namespace,
    thread_id_text,
)

CLEAN = st.text(st.characters(codec="utf-8", exclude_characters="\0"))


class Known(str, enum.Enum):  # noqa: UP042 - StrEnum is the kind that makes no trouble
    THREAD = "a"


@pytest.mark.parametrize(
    ("given_id", "text"),
    [
        ("a", "a"),
        (Known.THREAD, "a"),
        (" ", " "),
        (0, "0"),
        (-7, "-7"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    ],
)
def test_thread_ids_are_text_ints_or_uuids(given_id: Any, text: str) -> None:
    """What LangGraph users pass as a thread id has one text form."""
    assert thread_id_text(given_id) == text


def test_a_huge_int_is_a_thread_id_too() -> None:
    """An int beyond the digits that Python writes out is no other int's thread."""
    assert thread_id_text(10**5000) != thread_id_text(10**5000 + 1)


@pytest.mark.parametrize("given_id", [None, ""])
def test_no_thread_id_is_missing(given_id: Any) -> None:
    """The error shows what to pass, and blames no config: most calls have none."""
    with pytest.raises(
        MissingThreadIdError, match=r"no thread is named\. .* config=.*configurable"
    ):
        thread_id_text(given_id)


@pytest.mark.parametrize("given_id", [True, 1.5, b"a", ["a"], object()])
def test_other_types_are_no_thread_ids(given_id: Any) -> None:
    """The error names the type that was given."""
    with pytest.raises(InvalidArgumentError, match=type(given_id).__name__) as caught:
        thread_id_text(given_id)
    assert caught.value.argument == "thread_id"


@pytest.mark.parametrize("key", ["thread_id", "checkpoint_ns", "checkpoint_id"])
@pytest.mark.parametrize("text", ["a\0b", "\ud800", "x\udfff"])
def test_text_that_postgresql_cannot_hold_is_refused(key: str, text: str) -> None:
    """NUL and lone surrogates are named as the problem, with the key they stand in."""
    with pytest.raises(InvalidArgumentError, match="NUL") as caught:
        Address.of({"configurable": {"thread_id": "t", key: text}})
    assert caught.value.argument == key


def test_a_namespace_is_text() -> None:
    """A namespace of another type isn't taken for the root one."""
    with pytest.raises(InvalidArgumentError, match="int"):
        Address.of({"configurable": {"thread_id": "t", "checkpoint_ns": 5}})


@pytest.mark.parametrize(
    "rest",
    [
        {},
        {"checkpoint_ns": None, "checkpoint_id": None},
        {"checkpoint_ns": "", "checkpoint_id": ""},
    ],
)
def test_namespace_and_checkpoint_may_be_absent(rest: dict[str, Any]) -> None:
    """Absent, None and '' are the root namespace and no checkpoint."""
    address = Address.of({"configurable": {"thread_id": 5, **rest}})
    assert (address.checkpoint_ns, address.stored_ns, address.checkpoint_id) == ("", "", None)
    assert (address.given_thread_id, address.thread_id) == (5, "5")


def test_the_config_given_back_has_the_callers_own_thread_id() -> None:
    """An int stays an int, and a long namespace stays whole."""
    namespace = "n" * 10_000
    address = Address.of({"configurable": {"thread_id": 5, "checkpoint_ns": namespace}})
    assert address.config("c") == checkpoint_config(5, namespace, "c")


def test_an_empty_config_has_no_checkpoint() -> None:
    """A config without `configurable` is no error here."""
    assert optional_checkpoint_id({}) is None


@given(CLEAN)
def test_a_session_id_is_a_version_8_uuid_of_the_hash(thread_id: str) -> None:
    """All bits but version and variant are those of the SHA-256."""
    session = session_id_of(thread_id)
    assert (session.version, session.variant) == (8, uuid.RFC_4122)
    digest = int.from_bytes(hashlib.sha256(thread_id.encode()).digest()[:16], "big")
    fixed = (0xF << 76) | (0x3 << 62)
    assert session.int & ~fixed == digest & ~fixed


def test_the_session_id_rule_never_changes() -> None:
    """Rows written by earlier versions are found by later ones."""
    assert str(session_id_of("thread-1")) == "4b0a5fef-c328-86b9-a57b-c535e3c5d26f"


@given(CLEAN, CLEAN)
def test_stored_namespaces_fit_an_index_and_stay_apart(one: str, other: str) -> None:
    """Long ones are cut to a beginning and a hash; two never meet."""
    long = one * (600 // max(1, len(one.encode())) + 1)
    for namespace in (one, other, long, f"{long}{other}"):
        assert len(stored_namespace(namespace).encode()) <= 512
    assert (stored_namespace(f"{long}{one}") == stored_namespace(f"{long}{other}")) == (
        one == other
    )


@pytest.mark.parametrize("character", ["x", "\u00e9", "\U0001f600"])
def test_a_long_namespace_keeps_beginning_and_colon(character: str) -> None:
    """Pruning tells a subgraph's call by the colon, and people tell it by its beginning."""
    call = stored_namespace(f"{character * 600}:task")
    assert call.startswith(character * 50)
    assert ":" in call
    assert ":" not in stored_namespace(character * 600)


@pytest.mark.parametrize("length", [511, 512])
def test_a_namespace_that_fits_is_stored_as_it_is(length: int) -> None:
    """Only what an index couldn't hold is changed."""
    assert stored_namespace("n" * length) == "n" * length
