"""Every error class: in the tree, picklable, and with a message made of its attributes."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import re
from typing import Any

import asyncpg
import pytest

from langgraph_pgsaga import errors
from langgraph_pgsaga.database.server_errors import chainable, is_repeatable, translated
from langgraph_pgsaga.errors import PgSagaError, copy_of

CLASSES = [
    found
    for found in vars(errors).values()
    if isinstance(found, type) and issubclass(found, PgSagaError)
]


def made(cls: type[PgSagaError]) -> PgSagaError:
    """An instance with a distinct value in every attribute."""
    values: dict[str, Any] = {f.name: f"<{f.name}>" for f in dataclasses.fields(cls)}
    return cls(**values)


@pytest.mark.parametrize("cls", CLASSES)
def test_errors_survive_pickling_and_copying(cls: type[PgSagaError]) -> None:
    """An error crosses processes with its class, attributes and message."""
    error = made(cls)
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(again) is cls
        assert dataclasses.asdict(again) == dataclasses.asdict(error)
        assert str(again) == str(error)


class OddError(Exception):
    """Made with other arguments than it holds."""

    def __init__(self, first: int, *, second: int) -> None:
        super().__init__(f"{first} and {second}")
        self.second = second


@pytest.mark.parametrize(
    "error",
    [
        made(errors.ServerError),
        asyncpg.UniqueViolationError("twice"),
        OSError(2, "gone"),
        UnicodeEncodeError("utf-8", "\ud800", 0, 1, "why"),
        OddError(1, second=2),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_copy_is_the_same_error_for_another_caller(error: Exception) -> None:
    """It has the class, the text, the attributes, the traceback and the cause of the first."""
    try:
        raise error from KeyError("cause")
    except Exception as raised:
        copied = copy_of(raised)
    assert copied is not error
    assert (type(copied), str(copied), vars(copied)) == (type(error), str(error), vars(error))
    assert copied.__cause__ is error.__cause__
    assert copied.__traceback__ is error.__traceback__


@pytest.mark.parametrize("cls", [c for c in CLASSES if dataclasses.fields(c)])
def test_messages_hold_what_was_wrong(cls: type[PgSagaError]) -> None:
    """Each attribute (a SQLSTATE where it says more than the class) is in the message."""
    message = str(made(cls))
    assert "\n" not in message
    for field in dataclasses.fields(cls):
        assert f"<{field.name}>" in message or field.name == "sqlstate"


@pytest.mark.parametrize("cls", CLASSES)
def test_messages_are_short(cls: type[PgSagaError]) -> None:
    """However long what somebody gave is, in whatever attribute; the error still has all of it."""
    values: dict[str, Any] = {f.name: "x" * 10_000_000 for f in dataclasses.fields(cls)}
    error = cls(**values)
    assert len(str(error)) < 10_000
    assert all(len(getattr(error, name)) == 10_000_000 for name in values)


def test_the_docstring_shows_the_tree() -> None:
    """The tree at the head of the module has every class, below its base."""
    parents: list[str] = []
    shown: dict[str, str] = {}
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"    ([\u2502\u251c\u2514\u2500 ]*)(\w+Error|PgSagaError)\b", line):
            depth = len(found[1]) // 4
            parents[depth:] = [found[2]]
            shown[found[2]] = parents[depth - 1] if depth else "Exception"
    assert shown == {cls.__name__: cls.__bases__[0].__name__ for cls in CLASSES}


def server_error(sqlstate: str, message: str = "said", detail: str | None = None) -> Exception:
    """What asyncpg raises for the server's answer."""
    fields = {"S": "ERROR", "C": sqlstate, "M": message, **({"D": detail} if detail else {})}
    error: Exception = asyncpg.PostgresError.new(fields)
    return error


@pytest.mark.parametrize(
    ("sqlstate", "cls"),
    [
        ("28P01", errors.AuthenticationError),
        ("28000", errors.AuthenticationError),
        ("3D000", errors.MissingDatabaseError),
        ("42P01", errors.MissingMigrationsError),
        ("42703", errors.MissingMigrationsError),
        ("42883", errors.MissingMigrationsError),
        ("3F000", errors.MissingMigrationsError),
        ("22021", errors.UnstorableValueError),
        ("22P05", errors.UnstorableValueError),
        ("54000", errors.UnstorableValueError),
        ("57P01", errors.ServerConnectionError),
        ("25P03", errors.ServerConnectionError),
        ("25P04", errors.ServerError),
        ("08006", errors.ServerConnectionError),
        ("40001", errors.ServerError),
        ("23514", errors.ServerError),
        ("XX000", errors.ServerError),
    ],
)
def test_server_errors_are_told_by_sqlstate(sqlstate: str, cls: type[PgSagaError]) -> None:
    """The code decides, whatever the text says."""
    assert type(translated(server_error(sqlstate), "postgresql://h/db")) is cls


@pytest.mark.parametrize("sqlstate", ["40001", "40P01", "57P01", "57P03", "08006", "25P03"])
def test_what_may_succeed_when_sent_again(sqlstate: str) -> None:
    """Conflicts, shutdowns and lost connections are repeatable, broken constraints aren't."""
    assert is_repeatable(server_error(sqlstate))
    assert not is_repeatable(server_error("23514"))


@pytest.mark.parametrize(
    "error",
    [
        server_error("23514", "violates", "Failing row contains (payload)."),
        server_error("22P02", "invalid input", 'Token "payload" is invalid.'),
        server_error("22P05", 'character of payload in "UTF8" has no equivalent in "LATIN1"'),
        server_error("22021", "invalid byte sequence: payload"),
        asyncpg.DataError("invalid input for query argument $1: 'payload'"),
        UnicodeEncodeError("utf-8", "payload\ud800", 7, 8, "surrogates not allowed"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_no_cause_quotes_what_was_to_be_stored(error: Exception) -> None:
    """The driver's text about a value, and the server's about a row, aren't passed on."""
    assert "payload" not in str(translated(error, "postgresql://h/db"))
    assert "payload" not in str(chainable(error))


@pytest.mark.parametrize(
    ("server", "advice"),
    [
        (asyncpg.InsufficientPrivilegeError, "Grant"),
        (asyncpg.DiskFullError, "Make room"),
        (asyncpg.OutOfMemoryError, "work_mem"),
        (asyncpg.TooManyConnectionsError, "max_size"),
        (asyncpg.LockNotAvailableError, "lock_timeout"),
        (asyncpg.QueryCanceledError, "statement_timeout"),
        (asyncpg.ConfigurationLimitExceededError, "limit that it names"),
        (asyncpg.IdleInTransactionSessionTimeoutError, "idle_in_transaction_session_timeout"),
        (asyncpg.TransactionTimeoutError, "transaction_timeout"),
        (asyncpg.IdleSessionTimeoutError, "idle_session_timeout"),
        (asyncpg.AdminShutdownError, "try again"),
        (asyncpg.CrashShutdownError, "its log"),
        (asyncpg.CannotConnectNowError, "try again"),
        (asyncpg.ProtocolViolationError, "no settings"),
    ],
)
def test_what_the_server_only_names_comes_with_what_to_do(
    server: type[asyncpg.PostgresError], advice: str
) -> None:
    """The server's own words are followed by a way out, also where pooler=True was passed."""
    told = str(translated(server("its words"), "postgresql://u@h/d"))
    assert "its words" in told
    assert advice in told.partition("its words")[2]
    assert "Check the host" not in told


def test_what_the_server_said_last_counts() -> None:
    """A driver that only says that the connection was closed keeps it as the cause."""
    closed = asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of it")
    assert is_repeatable(closed)
    closed.__cause__ = asyncpg.TransactionTimeoutError("its words")
    told = translated(closed, "postgresql://u@h/d")
    assert isinstance(told, errors.ServerError)
    assert (told.sqlstate, told.detail) == ("25P04", "its words")
    assert not is_repeatable(closed)


def test_a_lost_connection_is_told_without_the_drivers_words() -> None:
    """A call between the server's goodbye and the end of its stream fails with the driver's
    states; that no server is what the DSN asks for is said in its words."""
    told = str(translated(asyncpg.InternalClientError("cannot switch to state 11"), "postgresql:"))
    assert "the connection was lost" in told
    assert "idle_in_transaction_session_timeout" in told
    unfit = asyncpg.TargetServerAttributeNotMatched("none of the hosts match primary")
    assert "none of the hosts match primary" in str(translated(unfit, "postgresql:"))
