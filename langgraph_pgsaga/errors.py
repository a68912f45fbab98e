"""Every error that langgraph_pgsaga raises.

    PgSagaError
    ├── InvalidArgumentError          a config, thread id, filter or option that can't be used
    │   ├── MissingThreadIdError      config["configurable"]["thread_id"] is absent
    │   └── InvalidCursorError        a page's cursor that no listing gave
    ├── ThreadExistsError             the target of copy_thread already holds state
    ├── SessionExistsError            the thread that is to be created has a session already
    ├── MissingThreadError            the thread isn't there
    ├── ThreadDeletedError            the thread was deleted while a run of it went on
    ├── LeaseError                    a run, or whoever else, may not write to the thread
    │   ├── ThreadLeasedError         somebody else may
    │   └── LeaseLostError            it could, until somebody else did
    ├── CheckpointNotFoundError       the thread has no checkpoint like the one asked for
    │   └── CheckpointDeletedError    it had, when it was read
    ├── NameTakenError                another checkpoint of the thread has the name
    ├── TakeoverError                 a thread can't be taken over from another saver
    │   ├── ThreadDivergedError       here and there it went on, each its own way
    │   ├── TakeoverMismatchError     a checkpoint isn't what the other saver has
    │   └── UnreadableThreadError     the other saver can't read it
    ├── ClosedError                   the database object was closed
    ├── BlockingCallError             a sync call from the loop that would have to answer it
    ├── ServerError                   the server refused a statement (sqlstate)
    │   ├── ReadOnlyServerError       a standby, or a database set to take no writes
    │   └── ServerConnectionError     the server can't be reached, or went away
    │       ├── LockLostError         the connection that kept others out went away
    │       ├── AuthenticationError   wrong user or password
    │       ├── MissingDatabaseError  the database doesn't exist
    │       └── PoolTimeoutError      no connection became free in time
    ├── MigrationError
    │   ├── MissingMigrationsError    the tables aren't there yet
    │   ├── ChangedMigrationError     an applied file's text is no longer the same
    │   ├── UnknownMigrationError     the database has a migration this package doesn't
    │   └── OtherTablesError          another schema of the database has the tables
    ├── SerializationError
    │   ├── UnstorableValueError      refused when written: it couldn't be loaded again
    │   └── UnloadableValueError      a stored value may not, or can't, be loaded, and where it is
    │       ├── BlockedTypeError      its type isn't allowed
    │       ├── MissingTypeError      its type's module or name isn't there
    │       ├── ChangedClassError     its class has changed since, and no longer fits
    │       └── CorruptValueError     its bytes can't be decoded
    └── EmbeddedServerError           the development server can't be used

Messages name what was wrong, with the value (of a long one a part), and what to do. They
never hold a password or a payload. Every error can be pickled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import datetime
from functools import wraps
from typing import Any, Self

_LONGEST_PART = 500


def _rebuild(cls: Callable[..., PgSagaError], attributes: dict[str, Any]) -> PgSagaError:
    return cls(**attributes)


def _of_short_parts(message: Callable[[Any], str]) -> Callable[[Any], str]:
    @wraps(message)
    def short_message(error: PgSagaError) -> str:
        parts = {name: _short(value) for name, value in vars(error).items()}
        shown = type(error).__new__(type(error))
        vars(shown).update(parts)
        return message(shown)

    return short_message


def _short(value: Any) -> Any:
    """The beginning and, since that says what to do, the end of a long text."""
    if not isinstance(value, str) or len(value) <= _LONGEST_PART:
        return value
    return f"{value[: _LONGEST_PART - 200]} ... {value[-200:]}"


@dataclass(kw_only=True, eq=False)
class PgSagaError(Exception):
    """The root: `except PgSagaError` catches everything this package raises."""

    def __init_subclass__(cls) -> None:
        # What callers gave may be of any length, and so may what quotes it.
        if "__str__" in vars(cls):
            cls.__str__ = _of_short_parts(cls.__str__)  # type: ignore[method-assign]

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), {f.name: getattr(self, f.name) for f in fields(self)})


@dataclass(kw_only=True, eq=False)
class InvalidArgumentError(PgSagaError):
    """An argument that can't be used: `argument` is its name, `problem` says why."""

    argument: str
    problem: str

    def __str__(self) -> str:
        return f"{self.argument}: {self.problem}"


@dataclass(kw_only=True, eq=False)
class MissingThreadIdError(InvalidArgumentError):
    """The config names no thread."""

    argument: str = "thread_id"
    problem: str = (
        "the config names no thread. Pass "
        'config={"configurable": {"thread_id": "..."}} when calling the graph'
    )


@dataclass(kw_only=True, eq=False)
class ThreadExistsError(PgSagaError):
    """`copy_thread` never merges into, or overwrites, a thread that holds state."""

    thread_id: str

    def __str__(self) -> str:
        return (
            f"thread {self.thread_id!r} already holds state. "
            "Copy to a new thread id, or delete_thread() it first"
        )


@dataclass(kw_only=True, eq=False)
class InvalidCursorError(InvalidArgumentError):
    """A cursor that doesn't come from the `next_cursor` of a page of the same order."""

    argument: str = "after"
    problem: str
    cursor: str

    def __str__(self) -> str:
        return (
            f"{self.argument}: {self.problem}: {self.cursor!r}. "
            "Pass the next_cursor of the page before, with the same order"
        )


@dataclass(kw_only=True, eq=False)
class SessionExistsError(PgSagaError):
    """A session is created once; a run of the thread makes it, too."""

    thread_id: str

    def __str__(self) -> str:
        return f"thread {self.thread_id!r} has a session already. Change it with update()"


@dataclass(kw_only=True, eq=False)
class MissingThreadError(PgSagaError):
    """The thread isn't there: it never ran, no session was created for it, or it was deleted."""

    thread_id: str

    def __str__(self) -> str:
        return (
            f"there is no thread {self.thread_id!r}. Check the id, the database and the schema; "
            "a thread is there once a graph has run with its id"
        )


@dataclass(kw_only=True, eq=False)
class TakeoverError(PgSagaError):
    """A thread can't be taken over from another saver. There it is as it was."""

    thread_id: str

    def __str__(self) -> str:
        return f"thread {self.thread_id!r} can't be taken over"


@dataclass(kw_only=True, eq=False)
class ThreadDivergedError(TakeoverError):
    """Each saver has checkpoints of the thread that the other lacks. Nothing was mixed."""

    def __str__(self) -> str:
        return (
            f"thread {self.thread_id!r} went on in both savers, each its own way. "
            "Keep one: delete_thread() it here and import it again, or leave it out"
        )


@dataclass(kw_only=True, eq=False)
class TakeoverMismatchError(TakeoverError):
    """A checkpoint here isn't what the other saver has; `place` says where in it."""

    checkpoint_ns: str
    checkpoint_id: str
    place: str

    def __str__(self) -> str:
        return (
            f"thread {self.thread_id!r}, namespace {self.checkpoint_ns!r}, checkpoint "
            f"{self.checkpoint_id!r}: {self.place} differs from the saver it was taken from"
        )


@dataclass(kw_only=True, eq=False)
class UnreadableThreadError(TakeoverError):
    """The other saver raised, or lost the thread meanwhile. The cause is chained."""

    problem: str

    def __str__(self) -> str:
        return f"thread {self.thread_id!r} can't be read from the other saver: {self.problem}"


@dataclass(kw_only=True, eq=False)
class ClosedError(PgSagaError):
    """The object was closed. Open a new one."""

    what: str = "database"

    def __str__(self) -> str:
        return f"this {self.what} was closed. Make a new one, or leave its `with` block later"


@dataclass(kw_only=True, eq=False)
class BlockingCallError(PgSagaError):
    """A sync call from the very loop that would have to answer it."""

    call: str

    def __str__(self) -> str:
        return (
            f"{self.call} would wait for the event loop it is called from, for ever. "
            "Await its async form here"
        )


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


@dataclass(kw_only=True, eq=False)
class MigrationError(PgSagaError):
    """The schema in the database and the migration files don't fit."""


@dataclass(kw_only=True, eq=False)
class MissingMigrationsError(MigrationError):
    """The tables (or a column of them) aren't there yet."""

    dsn: str
    detail: str

    def __str__(self) -> str:
        return (
            f"{self.detail} in {self.dsn}: the schema isn't there or isn't up to date. "
            "If its name is right, call saver.setup() (in async code: await saver.setup()), or run "
            "`pgsaga migrate up` with its --dsn and --schema"
        )


@dataclass(kw_only=True, eq=False)
class ChangedMigrationError(MigrationError):
    """An applied migration's file was edited afterwards."""

    name: str

    def __str__(self) -> str:
        return (
            f"migration {self.name} was applied with another text than the file has now. "
            "Restore the file, or reinstall the package"
        )


@dataclass(kw_only=True, eq=False)
class UnknownMigrationError(MigrationError):
    """The database has a migration that this release hasn't, and that doesn't serve it.

    `release` is the one that applied it, as far as that was recorded.
    """

    name: str
    release: str | None = None

    def __str__(self) -> str:
        needed = f"{self.release} or later" if self.release else "the version that made it"
        return (
            f"the database has migration {self.name}, whose file is missing here, and which "
            f"doesn't serve this release. Upgrade langgraph_pgsaga to {needed}, or restore the file"
        )


@dataclass(kw_only=True, eq=False)
class OtherTablesError(MigrationError):
    """No schema was named, and the tables aren't on the search_path but in another schema.

    New ones would be empty, and look as if everything was lost. Nothing was made.
    """

    schema: str
    new_schema: str

    def __str__(self) -> str:
        return (
            f"no schema on the search_path has the tables, but {self.schema!r} has. Pass "
            f"schema={self.schema!r} to use those, or schema={self.new_schema!r} to make new, "
            "empty ones on purpose"
        )


@dataclass(kw_only=True, eq=False)
class SerializationError(PgSagaError):
    """A value can't be stored or can't be loaded."""


@dataclass(kw_only=True, eq=False)
class UnstorableValueError(SerializationError):
    """Refused when written, because it couldn't be loaded again. Nothing was stored."""

    where: str
    problem: str

    def __str__(self) -> str:
        return f"{self.where} can't be stored: {self.problem}"


@dataclass(kw_only=True, eq=False)
class UnloadableValueError(SerializationError):
    """A stored value may not, or can't, be loaded.

    The attributes say where it is, as far as that is known: `path` leads to it within the
    value of `channel`, in Python's notation (`['items'][2].plan`).
    """

    thread_id: str | None = None
    checkpoint_ns: str | None = None
    checkpoint_id: str | None = None
    channel: str | None = None
    path: str = ""

    def at(self, **place: Any) -> Self:
        """This error, which now says where, too; what it says already stays."""
        for name, value in place.items():
            if not getattr(self, name):
                setattr(self, name, value)
        return self

    def __str__(self) -> str:
        return f"{self._place()}{self._problem()}"

    def _problem(self) -> str:
        return "a stored value can't be loaded"

    def _place(self) -> str:
        named = {
            "thread": self.thread_id,
            "namespace": self.checkpoint_ns,
            "checkpoint": self.checkpoint_id,
            "channel": self.channel,
        }
        parts = [f"{name} {value!r}" for name, value in named.items() if value]
        if self.path:
            parts.append(f"at {self.path}")
        return f"{', '.join(parts)}: " if parts else ""


_LENIENTLY = (
    "A saver with lenient=True loads a placeholder in its place, and lets update_state replace it"
)


@dataclass(kw_only=True, eq=False)
class BlockedTypeError(UnloadableValueError):
    """A stored value names a type that isn't allowed here."""

    module: str
    name: str

    def _problem(self) -> str:
        return (
            f"a stored value wants to become {self.module}.{self.name}, which isn't allowed. "
            f"If it is a type of yours, pass allow=[{self.name}] (the class itself) to the saver"
        )


@dataclass(kw_only=True, eq=False)
class MissingTypeError(UnloadableValueError):
    """A stored value names a type that this process hasn't imported or no longer has."""

    module: str
    name: str

    def _problem(self) -> str:
        needs = f"a stored value needs {self.module}.{self.name}, which"
        if "<locals>" in self.name:
            function = self.name.partition(".<locals>")[0]
            return (
                f"{needs} is defined inside a function that didn't run here, or whose class is "
                f"gone. Call {function}() first, or define the class at the top level of its "
                f"module. {_LENIENTLY}"
            )
        return (
            f"{needs} isn't loaded here. Import {self.module} before the graph runs, or, if the "
            f"class was renamed or moved, keep its old name as an alias. {_LENIENTLY}"
        )


@dataclass(kw_only=True, eq=False)
class ChangedClassError(UnloadableValueError):
    """The class of a stored value has changed since, so that the value no longer fits it.

    `problem` names fields, never what is in them.
    """

    module: str
    name: str
    problem: str

    def _problem(self) -> str:
        return (
            f"{self.module}.{self.name} has changed since a value of it was stored: "
            f"{self.problem}. {_LENIENTLY}"
        )


@dataclass(kw_only=True, eq=False)
class CorruptValueError(UnloadableValueError):
    """Stored bytes that can't be decoded. `problem` never holds the bytes themselves."""

    what: str
    problem: str

    def _problem(self) -> str:
        return f"{self.what} can't be loaded: {self.problem}"


@dataclass(kw_only=True, eq=False)
class ThreadDeletedError(PgSagaError):
    """The thread was deleted while a run of it went on. Nothing of it comes back."""

    thread_id: str

    def __str__(self) -> str:
        return (
            f"thread {self.thread_id!r} was deleted while this run of it went on: what the run "
            "would store now is refused. Begin anew with an input"
        )


@dataclass(kw_only=True, eq=False)
class LeaseError(PgSagaError):
    """A thread has one writer at a time. Nothing was stored."""

    thread_id: str

    def __str__(self) -> str:
        return f"thread {self.thread_id!r} is somebody else's to write to"


@dataclass(kw_only=True, eq=False)
class ThreadLeasedError(LeaseError):
    """Somebody else has the lease: `holder` (host and process) until `expires_at`, or longer."""

    holder: str | None
    expires_at: datetime | None

    def __str__(self) -> str:
        until = f" until {self.expires_at}" if self.expires_at else ""
        return (
            f"thread {self.thread_id!r} is being written to by {self.holder or 'somebody else'}, "
            f"whose lease lasts{until} and is renewed as it goes on. Try again when it has ended"
        )


@dataclass(kw_only=True, eq=False)
class LeaseLostError(LeaseError):
    """Somebody else has written to the thread, or may, since this run or block began."""

    def __str__(self) -> str:
        return (
            f"this run may not write to thread {self.thread_id!r} any more: its lease ended, or "
            "another run came first. Begin anew from the thread's latest state"
        )


@dataclass(kw_only=True, eq=False)
class CheckpointNotFoundError(PgSagaError):
    """The thread has no checkpoint like the one asked for."""

    thread_id: str

    def __str__(self) -> str:
        return (
            f"thread {self.thread_id!r} has no such checkpoint. "
            "list(history(graph, config)) shows those it has"
        )


@dataclass(kw_only=True, eq=False)
class CheckpointDeletedError(CheckpointNotFoundError):
    """A checkpoint that this process read, or wrote, was deleted since, or what it is built on."""

    checkpoint_id: str

    def __str__(self) -> str:
        return (
            f"checkpoint {self.checkpoint_id!r} of thread {self.thread_id!r}, or what it is built "
            "on, was deleted since it was read here (by prune, sweep or delete_for_runs): nothing "
            "can be read or stored below it. Begin with the thread's latest state"
        )


@dataclass(kw_only=True, eq=False)
class NameTakenError(PgSagaError):
    """Another checkpoint of the thread has this name already."""

    thread_id: str
    name: str

    def __str__(self) -> str:
        return (
            f"thread {self.thread_id!r} has a checkpoint named {self.name!r} already. "
            "Choose another name, or take it away from that one: name_checkpoint(..., None)"
        )


@dataclass(kw_only=True, eq=False)
class EmbeddedServerError(PgSagaError):
    """The embedded development server can't be used at this path."""

    path: str
    problem: str

    def __str__(self) -> str:
        return f"embedded PostgreSQL at {self.path}: {self.problem}"
