"""The one place where the driver's errors become this package's, by SQLSTATE and class."""

from __future__ import annotations

import asyncpg

from langgraph_pgsaga.errors import (
    AuthenticationError,
    CorruptValueError,
    LockTimeoutError,
    MissingDatabaseError,
    MissingMigrationsError,
    NoAnswerError,
    PgSagaError,
    ReadOnlyServerError,
    ServerConnectionError,
    ServerError,
    StatementTimeoutError,
    UnstorableValueError,
)

DRIVER_ERRORS: tuple[type[Exception], ...] = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
# What encoding an argument raises, and decoding an answer: a time that Python doesn't have.
ARGUMENT_ERRORS: tuple[type[Exception], ...] = (UnicodeEncodeError, OverflowError)
# With the network's: a call's, rather than a caller's own.
CALL_ERRORS: tuple[type[Exception], ...] = (*DRIVER_ERRORS, OSError, EOFError, *ARGUMENT_ERRORS)

_LOGIN_REFUSED = {"28000", "28P01"}
_DATABASE_MISSING = {"3D000"}
_SCHEMA_OUTDATED = {"3F000", "42P01", "42703", "42883"}
# A type that isn't there; also a setting, at a connection's start, which is fatal then.
_TYPE_MISSING = "42704"
_TEXT_REFUSED = {"22021", "22P05"}
_NO_SUCH_CHARACTER = (
    "the database hasn't one of its characters. In encoding UTF8 it has all but NUL; "
    "`pgsaga doctor` shows the encoding of this one"
)
_TOO_LARGE = {"54000", "54001"}
_IN_AN_INDEX = (
    ". Of a store's item it is its namespace and key: shorten them. Of a thread it is a channel's "
    "name, as a join's, which has those of all nodes that it waits for: shorten these, or join in "
    "several steps"
)
# Not connected any more, or about to be: shutdown, crash, starting up, idle for too long (within
# a transaction, or without). A transaction that took too long (25P04) would take so again.
_GOING_AWAY = {"57P01", "57P02", "57P03", "57P05", "25P03"}
_NOT_CONNECTED = "08003"
_OF_CALLER = "is_of_caller"
# A standby, which after a failover may be the wrong server: another connection may do.
_READ_ONLY = {"25006"}
# Bad data and broken constraints: the server's DETAIL quotes the row or the value.
_QUOTING = {"22", "23"}
# The server rolled the statement back and asks for it again.
_TRY_AGAIN = {"40001", "40P01"}
_LOCK_TIMEOUT = {"55P03"}
# By the server's limit of time, or by somebody.
_CANCELLED = {"57014"}
# Of the server's own making: as a rule a prepared statement that has types which were made anew.
_INTERNAL = "XX000"
# No room for another connection just now.
_FULL = {"53300"}


class GaveUpError(TimeoutError):
    """The client waited for as long as it may, and cancelled the statement."""

    def __init__(self, *, is_answered: bool) -> None:
        super().__init__("no answer in time")
        # Whether the server said that it was cancelled, so that the connection can be used.
        self.is_answered = is_answered


def is_connection_loss(error: BaseException) -> bool:
    """Whether the connection, not the statement, is to blame."""
    error = _last_word(error)
    if isinstance(error, asyncpg.PostgresError):
        state = error.sqlstate or ""
        return state.startswith("08") or state in _GOING_AWAY | _READ_ONLY
    if isinstance(error, asyncpg.InterfaceError):
        return "clos" in str(error) or "released" in str(error)
    if isinstance(error, asyncpg.InternalClientError):
        # What a connection answers between the server's goodbye and the end of its
        # stream, and what connecting answers while no server is what the DSN asks for.
        return True
    return isinstance(error, OSError | EOFError) and not isinstance(error, TimeoutError)


def note_of_caller(error: asyncpg.PostgresError) -> None:
    """Notes that it comes of a statement of the application's own, in one of our transactions."""
    error.__dict__[_OF_CALLER] = True


def is_of_caller(error: BaseException) -> bool:
    """Whether that was noted: then what isn't there is none of our tables."""
    return _OF_CALLER in error.__dict__


def is_repeatable(error: BaseException) -> bool:
    """Whether a statement that is safe to repeat may succeed when sent again."""
    error = _last_word(error)
    if isinstance(error, asyncpg.PostgresError) and error.sqlstate in _TRY_AGAIN | _FULL:
        return True
    return is_connection_loss(error)


def is_of_connection(error: BaseException | None) -> bool:
    """Whether another connection may do, since this one was made before the tables were.

    A copy of the database that is put in its place beneath open connections makes its types anew.
    """
    return getattr(error, "sqlstate", None) == _INTERNAL


def translated(error: BaseException, dsn: str) -> PgSagaError:
    """The error to raise `from error`. `dsn` must be redacted already."""
    error = _last_word(error)
    if _quotes_a_parameter(error):
        return UnstorableValueError(where="a parameter", problem="PostgreSQL has no such value")
    if isinstance(error, OverflowError):
        problem = "it is in none of the years 1 to 9999"
        return CorruptValueError(what="a stored time", problem=problem)
    if isinstance(error, asyncpg.PostgresError):
        return _of_server(error, dsn)
    # Of its subclasses one says that no server is what the DSN asks for.
    is_of_driver = type(error) is asyncpg.InternalClientError
    if is_of_driver or (isinstance(error, asyncpg.InterfaceError) and is_connection_loss(error)):
        # The driver's words are about its own methods and states.
        detail = "the connection was lost"
        return ServerConnectionError(dsn=dsn, detail=detail, sqlstate=_NOT_CONNECTED)
    if is_connection_loss(error):
        return ServerConnectionError(dsn=dsn, detail=str(error) or type(error).__name__)
    if isinstance(error, GaveUpError) and error.is_answered:
        detail = f"{error}, and so it was cancelled; whether it was done isn't known"
        return StatementTimeoutError(dsn=dsn, sqlstate=None, detail=detail)
    if isinstance(error, GaveUpError):
        return NoAnswerError(dsn=dsn, detail=str(error))
    if isinstance(error, TimeoutError):
        return ServerConnectionError(dsn=dsn, detail="no answer in time")
    return ServerError(dsn=dsn, sqlstate=None, detail=str(error) or type(error).__name__)


def _last_word(error: BaseException) -> BaseException:
    """What the server said before it ended the connection, where the driver tells only that."""
    if isinstance(error, asyncpg.ConnectionDoesNotExistError):
        return error.__cause__ if isinstance(error.__cause__, asyncpg.PostgresError) else error
    return error


def chainable(error: BaseException) -> BaseException | None:
    """What the translated error may be raised from: nothing whose text quotes a value."""
    if _quotes_a_parameter(error):
        return None
    state = (error.sqlstate or "") if isinstance(error, asyncpg.PostgresError) else ""
    if state in _TEXT_REFUSED:
        return None
    if isinstance(error, asyncpg.PostgresError) and state[:2] in _QUOTING:
        error.detail = None
    return error


def _quotes_a_parameter(error: BaseException) -> bool:
    # The driver's own is of the class that stands for the server's 22000, but has no severity.
    is_of_driver = type(error) is asyncpg.DataError and error.severity is None
    return is_of_driver or isinstance(error, UnicodeEncodeError)


def _of_server(error: asyncpg.PostgresError, dsn: str) -> PgSagaError:
    state, detail = error.sqlstate or "", str(error.args[0]) if error.args else "unknown error"
    if state in _LOGIN_REFUSED:
        return AuthenticationError(dsn=dsn, detail=detail, sqlstate=state)
    if state in _DATABASE_MISSING:
        return MissingDatabaseError(dsn=dsn, detail=detail, sqlstate=state)
    is_type = state == _TYPE_MISSING and error.severity_en == "ERROR"
    if (state in _SCHEMA_OUTDATED or is_type) and not is_of_caller(error):
        return MissingMigrationsError(dsn=dsn, detail=detail)
    if state in _TEXT_REFUSED:
        return UnstorableValueError(where="a text", problem=_NO_SUCH_CHARACTER)
    if state in _TOO_LARGE:
        advice = _IN_AN_INDEX if state == "54000" else ""
        return UnstorableValueError(where="a value", problem=f"{detail}{advice}")
    if state in _LOCK_TIMEOUT:
        return LockTimeoutError(dsn=dsn, detail=detail, sqlstate=state)
    if state in _CANCELLED:
        return StatementTimeoutError(dsn=dsn, detail=detail, sqlstate=state)
    if state in _READ_ONLY:
        return ReadOnlyServerError(dsn=dsn, detail=detail, sqlstate=state)
    if is_connection_loss(error):
        return ServerConnectionError(dsn=dsn, detail=detail, sqlstate=state)
    return ServerError(dsn=dsn, sqlstate=state, detail=detail)
