"""The one place where the driver's errors become this package's, by SQLSTATE and class."""

from __future__ import annotations

import asyncpg

from langgraph_pgsaga.errors import (
    AuthenticationError,
    CorruptValueError,
    MissingDatabaseError,
    MissingMigrationsError,
    PgSagaError,
    ReadOnlyServerError,
    ServerConnectionError,
    ServerError,
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
_TEXT_REFUSED = {"22021", "22P05"}
_TOO_LARGE = {"54000", "54001"}
# Not connected any more, or about to be: shutdown, crash, starting up, idle for too long.
_GOING_AWAY = {"57P01", "57P02", "57P03", "57P05"}
# A standby, which after a failover may be the wrong server: another connection may do.
_READ_ONLY = {"25006"}
# What a pooler in transaction mode leads to: a setting it doesn't take when connecting; a
# prepared statement that isn't there, or already is, on another server connection.
_POOLED = {"08P01", "26000", "42P05"}
# Bad data and broken constraints: the server's DETAIL quotes the row or the value.
_QUOTING = {"22", "23"}
# The server rolled the statement back and asks for it again.
_TRY_AGAIN = {"40001", "40P01"}
# No room for another connection just now.
_FULL = {"53300"}


def is_connection_loss(error: BaseException) -> bool:
    """Whether the connection, not the statement, is to blame."""
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


def is_repeatable(error: BaseException) -> bool:
    """Whether a statement that is safe to repeat may succeed when sent again."""
    if isinstance(error, asyncpg.PostgresError) and error.sqlstate in _TRY_AGAIN | _FULL:
        return True
    return is_connection_loss(error)


def translated(error: BaseException, dsn: str) -> PgSagaError:
    """The error to raise `from error`. `dsn` must be redacted already."""
    if _quotes_a_parameter(error):
        return UnstorableValueError(where="a parameter", problem="PostgreSQL has no such value")
    if isinstance(error, OverflowError):
        problem = "it is in none of the years 1 to 9999"
        return CorruptValueError(what="a stored time", problem=problem)
    if isinstance(error, asyncpg.PostgresError):
        return _of_server(error, dsn)
    if is_connection_loss(error):
        return ServerConnectionError(dsn=dsn, detail=str(error) or type(error).__name__)
    if isinstance(error, TimeoutError):
        return ServerConnectionError(dsn=dsn, detail="no answer in time")
    return ServerError(dsn=dsn, sqlstate=None, detail=str(error) or type(error).__name__)


def chainable(error: BaseException) -> BaseException | None:
    """What the translated error may be raised from: nothing whose text quotes a value."""
    if _quotes_a_parameter(error):
        return None
    if isinstance(error, asyncpg.PostgresError) and (error.sqlstate or "")[:2] in _QUOTING:
        error.detail = None
    return error


def _quotes_a_parameter(error: BaseException) -> bool:
    # The driver itself raises DataError, the server only its subclasses.
    return type(error) is asyncpg.DataError or isinstance(error, UnicodeEncodeError)


def _of_server(error: asyncpg.PostgresError, dsn: str) -> PgSagaError:
    state, detail = error.sqlstate or "", str(error.args[0]) if error.args else "unknown error"
    if state in _LOGIN_REFUSED:
        return AuthenticationError(dsn=dsn, detail=detail, sqlstate=state)
    if state in _DATABASE_MISSING:
        return MissingDatabaseError(dsn=dsn, detail=detail, sqlstate=state)
    if state in _SCHEMA_OUTDATED:
        return MissingMigrationsError(dsn=dsn, detail=detail)
    if state in _TEXT_REFUSED:
        return UnstorableValueError(where="a text", problem=detail)
    if state in _TOO_LARGE:
        return UnstorableValueError(where="a value", problem=detail)
    if state in _POOLED:
        detail += (
            ". Behind pgbouncer or another pooler in transaction mode, pass pooler=True, "
            "and no settings of the server with the DSN"
        )
    if state in _READ_ONLY:
        return ReadOnlyServerError(dsn=dsn, detail=detail, sqlstate=state)
    if is_connection_loss(error):
        return ServerConnectionError(dsn=dsn, detail=detail, sqlstate=state)
    return ServerError(dsn=dsn, sqlstate=state, detail=detail)
