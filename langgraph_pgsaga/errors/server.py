"""What the server answers, and ways to it that are cut."""

from __future__ import annotations

from dataclasses import dataclass

from langgraph_pgsaga.errors.root import PgSagaError

# What to do where the server's own words don't say it, by SQLSTATE.
_ADVICE = {
    "42501": ". Grant it to the user of the DSN, or connect as one who may: calls need usage of "
    "the schema, and select, insert, update and delete on its tables; migrations create objects",
    "53100": ". Make room on the server's disk",
    "53200": ". Give the server more memory, or lower its work_mem or max_connections",
    "53300": ". Raise max_connections, lower max_size, or put a pooler in between",
    "55P03": ". Another transaction holds the lock (pg_locks shows which): end that, or raise "
    "lock_timeout",
    "57014": ". Raise statement_timeout for this user, unless somebody cancelled it on purpose",
}


@dataclass(kw_only=True, eq=False)
class ServerError(PgSagaError):
    """The server refused a statement. `sqlstate` is PostgreSQL's code for the reason."""

    dsn: str
    sqlstate: str | None
    detail: str

    def __str__(self) -> str:
        code = f" (SQLSTATE {self.sqlstate})" if self.sqlstate else ""
        advice = _ADVICE.get(self.sqlstate or "", "")
        return f"PostgreSQL at {self.dsn}: {self.detail}{code}{advice}"


@dataclass(kw_only=True, eq=False)
class ReadOnlyServerError(ServerError):
    """The server is a standby, or set to take no writes."""

    def __str__(self) -> str:
        return (
            f"PostgreSQL at {self.dsn} takes no writes: {self.detail}. Point the DSN at the "
            "primary (target_session_attrs=read-write), or turn default_transaction_read_only off"
        )


@dataclass(kw_only=True, eq=False)
class ServerConnectionError(ServerError):
    """The server can't be reached, or went away and didn't come back in time."""

    sqlstate: str | None = None

    def __str__(self) -> str:
        return (
            f"can't reach PostgreSQL at {self.dsn}: {self.detail}. "
            "Check the host, port and ssl parameters of the DSN, and that the server runs"
        )


@dataclass(kw_only=True, eq=False)
class AuthenticationError(ServerConnectionError):
    """The server refused the user or the password."""

    def __str__(self) -> str:
        return (
            f"PostgreSQL at {self.dsn} refused the login: {self.detail}. "
            "Check the user and password in the DSN, PGPASSWORD or ~/.pgpass"
        )


@dataclass(kw_only=True, eq=False)
class MissingDatabaseError(ServerConnectionError):
    """The server is there, the database isn't."""

    def __str__(self) -> str:
        return (
            f"PostgreSQL at {self.dsn}: {self.detail}. "
            "Create the database first (createdb), or correct its name in the DSN"
        )


@dataclass(kw_only=True, eq=False)
class LockLostError(ServerConnectionError):
    """The connection whose lock kept other takers of a thread out was lost. It ends there."""

    def __str__(self) -> str:
        return (
            f"the connection to {self.dsn} that kept other imports out was lost: {self.detail}. "
            "Import again: it goes on from what is stored"
        )


@dataclass(kw_only=True, eq=False)
class PoolTimeoutError(ServerConnectionError):
    """No connection of the pool became free in time."""

    def __str__(self) -> str:
        return (
            f"no connection to {self.dsn} became free: {self.detail}. "
            "Raise max_size, or look for transactions that stay open"
        )
