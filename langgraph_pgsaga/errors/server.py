"""What the server answers, and ways to it that are cut."""

from __future__ import annotations

from dataclasses import dataclass

from langgraph_pgsaga.errors.root import PgSagaError

# What a pooler in transaction mode leads to: a setting it doesn't take when connecting; a
# prepared statement that isn't there, or already is, on another server connection. One in
# statement mode takes no transactions.
_POOLED = (
    ". Behind pgbouncer or another pooler in transaction mode, pass pooler=True, and no settings "
    "of the server with the DSN; statement mode is too little"
)
# What to do where the server's own words don't say it, by SQLSTATE.
_ADVICE = {
    **dict.fromkeys(("08P01", "26000", "42P05"), _POOLED),
    "08003": ". The network ended it, or the server, which does so to transactions that idle or "
    "last too long (idle_in_transaction_session_timeout, transaction_timeout): do less in each, or "
    "raise these",
    "25P03": ". Do less between the statements of a transaction, or raise "
    "idle_in_transaction_session_timeout for this user",
    "25P04": ". Do less in one transaction, or raise transaction_timeout for this user",
    "42501": ". Grant it to the user of the DSN, or connect as one who may: calls need usage of "
    "the schema, and select, insert, update and delete on its tables; migrations create objects",
    "53100": ". Make room on the server's disk",
    "53200": ". Give the server more memory, or lower its work_mem or max_connections",
    "53300": ". Raise max_connections, lower max_size, or put a pooler in between",
    "53400": ". Raise the limit that it names",
    "57P01": ". It is being shut down, or somebody ended the session with pg_terminate_backend: "
    "try again",
    "57P02": ". A process of the server crashed, and its log says why: try again",
    "57P03": ". It is starting or being shut down: try again",
    "57P05": ". Raise idle_session_timeout for this user: connections are kept for the next call",
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
class LockTimeoutError(ServerError):
    """Another transaction held a lock for longer than a statement may wait. Nothing was done.

    `holders` tells, where that could be found out, which transactions have locks on the
    tables: process id, application_name, and since when.
    """

    holders: str = ""

    def __str__(self) -> str:
        who = f": {self.holders}" if self.holders else " (pg_locks shows which)"
        return (
            f"PostgreSQL at {self.dsn}: {self.detail}. Another transaction holds the lock{who}. "
            "End that, or raise lock_timeout_seconds"
        )


@dataclass(kw_only=True, eq=False)
class StatementTimeoutError(ServerError):
    """A statement took longer than it may, or was cancelled by somebody.

    With a `sqlstate` it was the server who ended it, and nothing was done. Without one it
    was the client's limit, and whether it was done isn't known; a saver's calls may be repeated.
    """

    def __str__(self) -> str:
        return (
            f"PostgreSQL at {self.dsn}: {self.detail}. Raise statement_timeout_seconds (or "
            "statement_timeout of the role), unless somebody cancelled it on purpose"
        )


@dataclass(kw_only=True, eq=False)
class ServerConnectionError(ServerError):
    """The server can't be reached, or went away and didn't come back in time."""

    sqlstate: str | None = None

    def __str__(self) -> str:
        if self.sqlstate in _ADVICE:  # it was reached
            return super().__str__()
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
class NoAnswerError(ServerConnectionError):
    """The server, or the network, stood still under a statement; the connection was closed.

    Whether the statement was done isn't known. A saver's calls may be repeated.
    """

    def __str__(self) -> str:
        return (
            f"PostgreSQL at {self.dsn} gives no answer: {self.detail}, and none to the request to "
            "cancel either. Whether the statement was done isn't known. Look at the server and the "
            "network between; repeat the call once it answers"
        )


@dataclass(kw_only=True, eq=False)
class ConnectionSetupError(PgSagaError):
    """`on_connect` failed, so that the new connection was closed again."""

    dsn: str
    problem: str

    def __str__(self) -> str:
        return (
            f"on_connect failed for a new connection to {self.dsn}: {self.problem}. "
            "Mend the function that was passed as on_connect"
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
