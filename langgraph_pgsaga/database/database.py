"""The one door to PostgreSQL, shared by every system of the package."""

from __future__ import annotations

import asyncio
import atexit
import logging
import math
import os
import random
import socket
import threading
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

import asyncpg

from langgraph_pgsaga import _json
from langgraph_pgsaga._arguments import checked_integer, checked_seconds, required_text
from langgraph_pgsaga.database.begun import Begun, Done
from langgraph_pgsaga.database.migrations import migrate
from langgraph_pgsaga.database.pool import LoopPool, Pool
from langgraph_pgsaga.database.portal import Portal
from langgraph_pgsaga.database.server_errors import (
    ARGUMENT_ERRORS,
    CALL_ERRORS,
    DRIVER_ERRORS,
    chainable,
    is_connection_loss,
    is_repeatable,
    translated,
)
from langgraph_pgsaga.database.statements import (
    BoundStatement,
    Statement,
    load_statements,
    render,
)
from langgraph_pgsaga.database.target import Target
from langgraph_pgsaga.errors import (
    ClosedError,
    InvalidArgumentError,
    PgSagaError,
    PoolTimeoutError,
    TooManyRowsError,
)

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    from langgraph_pgsaga.embedded import EmbeddedServer

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"
T = TypeVar("T")
Row = TypeVar("Row", bound=tuple[Any, ...])

_log = logging.getLogger("langgraph_pgsaga.database")
_STATEMENTS = load_statements("database")
_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 1.0
_TOLD_EVERY_SECONDS = 10.0
_DEFAULT_APPLICATION_NAME = "langgraph_pgsaga"
# A plan that was made while the tables were small is kept for the life of a connection,
# or until they are analyzed. Every statement here has its index: so that it is taken from
# the first row on, and found without planning anew at each call.
_PLANNER_SETTINGS = {
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    # Compiling takes longer than any of them runs.
    "jit": "off",
}


_PINNED = {"array_agg(": "pg_catalog.array_agg(", " != ": " operator(pg_catalog.<>) "}


class _PlainConnection(asyncpg.Connection):
    """A connection that carries no session state, so that giving it back costs no round trip."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The driver asks for types in words that could mean something of the search_path.
        question: str = self._intro_query  # type: ignore[has-type]
        for word, pinned in _PINNED.items():
            question = question.replace(word, pinned)
        self._intro_query = question

    def get_reset_query(self) -> str:
        return ""

    async def _reset(self) -> None:
        # A rollback that was cancelled in its turn: the driver makes up for it, but tells the loop.
        if self.is_in_transaction() and self._top_xact is None:  # type: ignore[attr-defined]
            await self.execute("rollback")
        await super()._reset()

    def _get_unique_id(self, prefix: str) -> str:
        # The driver counts from 1 in every process. Behind a pooler that changes the server
        # connection, without `pooler=True`, a name would then be another process's statement.
        name: str = super()._get_unique_id(prefix)  # type: ignore[misc]
        return f"{name}{os.urandom(8).hex()}"


class Database:
    """PostgreSQL as the systems of this package see it.

    One object serves every thread and every event loop of the process: each loop
    gets a pool of its own at its first use, and sync callers share one more, on a
    thread of the database's. It connects at the first use. After a fork the child
    starts with pools of its own.

    Statements that are safe to repeat are repeated when the connection is lost or
    the server asks for it, until `retry_seconds` are over; before the first
    success, errors of connecting are raised at once.

    Args:
        dsn: a URL or libpq key-value string; None takes the environment's PGSAGA_DSN.
        schema: the schema of the tables, any name; None leaves it to the search_path.
        min_size: connections a pool keeps open from its start.
        max_size: connections a pool opens at most, per event loop.
        pooler: set it when the DSN leads to pgbouncer (or the like) in transaction
            mode: no named prepared statements. Costs a round trip per statement.
        distributed: set it when Citus has the tables on several servers (`pgsaga migrate
            distribute`): each statement is then for one session, and planned with its values.
            None takes the environment's PGSAGA_DISTRIBUTED (1), else False.
        connect_timeout_seconds: for one attempt to connect to a host; None takes the DSN's
            connect_timeout, else 10.
        acquire_timeout_seconds: for a connection of the pool to become free.
        retry_seconds: how long statements are repeated across a lost connection.
    """

    def __init__(
        self,
        dsn: str | None = None,
        *,
        schema: str | None = None,
        min_size: int = 0,
        max_size: int = 10,
        pooler: bool = False,
        distributed: bool | None = None,
        connect_timeout_seconds: float | None = None,
        acquire_timeout_seconds: float = 30.0,
        retry_seconds: float = 30.0,
    ) -> None:
        dsn = dsn if dsn is not None else os.environ.get("PGSAGA_DSN")
        if not dsn:
            raise InvalidArgumentError(
                argument="dsn",
                problem="none given and PGSAGA_DSN isn't set; pass "
                "postgresql://user:password@host:5432/database, or use Database.embedded()",
            )
        if schema is not None and not _is_identifier(schema):
            problem = "must be text of 1 to 63 bytes, without NUL or lone surrogates"
            raise InvalidArgumentError(argument="schema", problem=problem)
        required_text("dsn", dsn)
        checked_integer("min_size", min_size)
        checked_integer("max_size", max_size)
        if connect_timeout_seconds is not None:
            checked_seconds("connect_timeout_seconds", connect_timeout_seconds, least=0)
        checked_seconds("acquire_timeout_seconds", acquire_timeout_seconds, least=0)
        checked_seconds("retry_seconds", retry_seconds, least=0)
        if not 0 <= min_size <= max_size or max_size < 1:
            raise InvalidArgumentError(
                argument="max_size", problem="needs 0 <= min_size <= max_size and 1 <= max_size"
            )
        self._target = Target.of(dsn)
        self.schema = schema
        self.pooler = pooler
        self.distributed = (
            os.environ.get("PGSAGA_DISTRIBUTED") == "1" if distributed is None else distributed
        )
        self._sizes = (min_size, max_size)
        self._connect_timeout_seconds = _first_given(
            connect_timeout_seconds, self._target.connect_timeout_seconds, 10.0
        )
        self._acquire_timeout_seconds = acquire_timeout_seconds
        self._retry_seconds = retry_seconds
        self._server: EmbeddedServer | None = None
        self._texts: dict[str, str] = {}
        self._closed = False
        self._forget_connections()
        _live.add(self)

    @classmethod
    def embedded(cls, path: str | os.PathLike[str] | None = None, **options: Any) -> Database:
        """A database on the embedded development server, which starts if need be.

        Args:
            path: the server's folder, made if it isn't there; None takes the
                environment's PGSAGA_EMBEDDED_PATH, else `.pgsaga` (where no server can
                have that, a folder elsewhere, which is logged).
            options: those of the constructor.

        Raises:
            EmbeddedServerError: the folder can't be used, or the `embedded` extra is missing.
        """
        from langgraph_pgsaga.embedded import EmbeddedServer

        server = EmbeddedServer.start_default() if path is None else EmbeddedServer.start(path)
        try:
            db = cls(server.dsn, **options)
        except BaseException:
            server.stop()
            raise
        db._server = server
        return db

    # Statements

    async def fetch(
        self,
        statement: Statement | BoundStatement,
        *args: Any,
        conn: Connection | None = None,
        repeat: bool = True,
    ) -> list[asyncpg.Record]:
        """The rows of one statement: of `statement.bind(...)`, or with arguments in order.

        Without `conn` it runs in a transaction of its own and is repeated as the
        class says; with `repeat=False`, for what isn't the same when done twice, only while
        it is certain that it wasn't done. With `conn` it joins the caller's transaction and
        runs once.

        Raises:
            ServerError, ServerConnectionError, MissingMigrationsError and the like.
        """
        if isinstance(statement, BoundStatement):
            statement, args = statement
        text = self.text(statement)
        if conn is not None:
            with self.translating(*ARGUMENT_ERRORS):
                rows: list[asyncpg.Record] = await conn.fetch(text, *args)
                return rows

        async def run(connection: Connection) -> list[asyncpg.Record]:
            rows: list[asyncpg.Record] = await connection.fetch(text, *args)
            return rows

        return await self._repeating(run, repeat=repeat)

    async def fetch_one(
        self,
        statement: Statement | BoundStatement,
        *,
        conn: Connection | None = None,
        repeat: bool = True,
    ) -> asyncpg.Record | None:
        """The row of a statement that gives one, or None where it gives none; as `fetch`.

        Raises:
            TooManyRowsError: it gave more.
        """
        rows = await self.fetch(statement, conn=conn, repeat=repeat)
        if len(rows) > 1:
            raise TooManyRowsError(statement=statement.name, rows=len(rows))
        return rows[0] if rows else None

    async def run(self, work: Callable[[Connection], Awaitable[T]], *, once: bool = False) -> T:
        """The result of `work(connection)` in one read-committed transaction.

        Each statement of it sees what was committed before that statement. `once` says that
        a second run isn't the same as one: where the answer to a commit was lost, the server
        is asked first whether it had committed. That takes a round trip more.
        """
        return await self._run(work, isolation="read_committed", readonly=False, once=once)

    async def snapshot(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """The result of `work(connection)`, whose statements only read, and see one moment."""
        return await self._run(work, isolation="repeatable_read", readonly=True, once=False)

    async def _run(
        self,
        work: Callable[[Connection], Awaitable[T]],
        *,
        isolation: Literal["read_committed", "repeatable_read"],
        readonly: bool,
        once: bool,
    ) -> T:
        committing: list[tuple[str, T]] = []

        async def transaction(connection: Connection) -> T:
            if committing and await _is_committed(connection, committing[-1][0]):
                return committing[-1][1]
            committing.clear()
            try:
                async with _in_transaction(connection, isolation=isolation, readonly=readonly):
                    number = await _fetch_value(connection, "begin_transaction") if once else ""
                    result = await work(connection)
                    if once:
                        committing.append((number, result))
                    return result
            except PgSagaError as error:
                # `fetch` translated it inside the work: whether to repeat is told by the original.
                if isinstance(error.__cause__, DRIVER_ERRORS):
                    raise error.__cause__ from None
                raise

        return await self._repeating(transaction)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection inside a transaction, to pass as `conn=` to several systems.

        It commits when the block ends and rolls back when the block raises.
        Nothing in it is repeated.
        """
        with self.translating():
            async with AsyncExitStack() as stack:
                with self.translating(OSError):
                    pool = await self._pool()
                    connection = await stack.enter_async_context(self._connection(pool, keep=False))
                    await stack.enter_async_context(_in_transaction(connection))
                yield connection

    def routed(self, rows: Sequence[Row]) -> list[Sequence[Row]]:
        """The rows, each with its session first, in parts for one statement each.

        All at once; where the tables are distributed, session by session in their order.
        """
        if not self.distributed:
            return [rows] if rows else []
        parts: dict[Any, list[Row]] = {}
        for row in rows:
            parts.setdefault(row[0], []).append(row)
        return list(parts.values())

    def text(self, statement: Statement) -> str:
        """The statement's text with this database's schema."""
        text = self._texts.get(statement.text)
        if text is None:
            text = self._texts[statement.text] = render(statement.text, self.schema)
        return text

    # Life

    def setup(self) -> Awaitable[None]:
        """Makes or updates the tables. Safe to call at every start, by many processes at once.

        In a running event loop it doesn't block: write `await db.setup()` there. The work begins
        at once, in the background, and sync calls that follow wait for it; one that is never
        awaited warns, and logs what failed.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            self.portal.call(self.asetup)
            return Done()
        return Begun("setup", self.portal.begin(self.asetup))

    async def asetup(self) -> None:
        """`setup` for async callers."""
        await migrate(self)

    @property
    def dsn(self) -> str:
        """The server's URL: user, hosts, ports and database, and no password."""
        return self._target.shown

    def __repr__(self) -> str:
        return f"Database({self.dsn!r}, schema={self.schema!r})"

    @property
    def portal(self) -> Portal:
        """The way from sync code into the database's own event loop."""
        self._check_open()
        return self._portal

    async def aclose(self) -> None:
        """Closes every pool, the portal and, if it is the last user, the embedded server.

        Idempotent. Statements still running in other loops lose their connection.
        """
        if self._closed:
            return
        self._closed = True
        here = asyncio.get_running_loop()
        try:
            if (own := self._pools.get(here)) is not None:
                await own.aclose()
        finally:
            await here.run_in_executor(None, self._close_elsewhere)

    def close(self) -> None:
        """`aclose` for sync callers."""
        if not self._closed:
            self._closed = True
            self._close_elsewhere()

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Database:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _close_elsewhere(self) -> None:
        self._portal.stop()
        for loop, pool in list(self._pools.items()):
            if loop.is_running():
                with suppress(RuntimeError):  # it closed meanwhile, and the pool with it
                    loop.call_soon_threadsafe(pool.terminate)
            else:
                pool.terminate()
        self._pools.clear()
        if self._server is not None:
            self._server.stop()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError

    def _forget_connections(self) -> None:
        self._portal = Portal("langgraph_pgsaga portal")
        self._pools: dict[asyncio.AbstractEventLoop, LoopPool] = {}
        self._pools_lock = threading.Lock()
        self._connected_once = False
        self._told_at = -math.inf

    @contextmanager
    def translating(self, *more: type[Exception]) -> Iterator[None]:
        """Turns the driver's errors inside the block, and `more`, into this package's."""
        caught = (*DRIVER_ERRORS, *more)
        try:
            yield
        except caught as error:
            raise translated(error, self.dsn) from chainable(error)

    # Connections

    async def connect(self) -> asyncpg.Connection[asyncpg.Record]:
        """A connection outside the pools, which the caller closes: for migrations."""
        self._check_open()
        with self.translating(OSError):
            return await self._connected(**self._connect_options())

    async def _connected(
        self, dsn: str | None = None, **options: Any
    ) -> asyncpg.Connection[asyncpg.Record]:
        connection = await self._connected_to_one(dsn, **options)
        if self._target.socket_options:
            try:
                _set_socket_options(connection, self._target.socket_options)
            except BaseException:
                connection.terminate()
                raise
        return connection

    async def _connected_to_one(
        self, dsn: str | None, **options: Any
    ) -> asyncpg.Connection[asyncpg.Record]:
        """A connection to the first host that answers in its time as what was asked for."""
        *others, last = self._target.attempts()
        for one in others:
            with suppress(OSError, asyncpg.TargetServerAttributeNotMatched):
                return await asyncpg.connect(dsn, **{**options, **one})
        try:
            return await asyncpg.connect(dsn, **{**options, **last})
        except (FileNotFoundError, PermissionError) as error:
            if name := self._target.unreadable_file():
                raise OSError(f"{name} names no file that can be read") from error
            raise

    def _connect_options(self) -> dict[str, Any]:
        seconds = self._connect_timeout_seconds
        settings = {"application_name": _DEFAULT_APPLICATION_NAME}
        settings |= {} if self.pooler else _PLANNER_SETTINGS
        if self.distributed:  # Citus has no plan for a statement without its values
            settings.pop("plan_cache_mode", None)
        given = {name.lower() for name in self._target.settings}
        settings = {name: value for name, value in settings.items() if name not in given}
        return {
            **self._target.arguments,
            "timeout": None if math.isinf(seconds) else seconds,
            "connection_class": _PlainConnection,
            "server_settings": {**settings, **self._target.settings},
            **({"statement_cache_size": 0} if self.pooler else {}),
        }

    def _open_pool(self) -> LoopPool | None:
        """The running loop's pool, if it is open."""
        entry = None if self._closed else self._pools.get(asyncio.get_running_loop())
        return entry if entry is not None and entry.pool is not None else None

    async def _pool(self) -> LoopPool:
        self._check_open()
        loop = asyncio.get_running_loop()
        entry = self._pools.get(loop)
        if entry is None:
            with self._pools_lock:
                self._drop_pools_of_closed_loops()
                entry = self._pools.setdefault(loop, LoopPool(self._new_pool))
        await entry.open()
        return entry

    def _new_pool(self) -> Pool:
        min_size, max_size = self._sizes
        connect: Any = self._connected
        return asyncpg.create_pool(
            **self._connect_options(),
            connect=connect,
            min_size=min_size,
            max_size=max_size,
            max_inactive_connection_lifetime=300.0,
        )

    def _drop_pools_of_closed_loops(self) -> None:
        for loop in [loop for loop in self._pools if loop.is_closed()]:
            self._pools.pop(loop).terminate()

    def _connection(self, pool: LoopPool, *, keep: bool = True) -> _Borrowed:
        """A connection for the length of a block; `keep` it at hand if the block succeeds."""
        return _Borrowed(self, pool, keep=keep)

    async def _acquired(self, pool: LoopPool) -> PoolConnectionProxy[asyncpg.Record]:
        try:
            connection = await pool.acquire(self._acquire_timeout_seconds)
        except TimeoutError as error:
            if pool.has_room():
                raise  # it was the server that took too long
            raise PoolTimeoutError(
                dsn=self.dsn,
                detail=f"all {self._sizes[1]} were busy for {self._acquire_timeout_seconds:g} s",
            ) from error
        self._connected_once = True
        return connection

    async def _repeating(
        self, work: Callable[[Connection], Awaitable[T]], *, repeat: bool = True
    ) -> T:
        deadline: float | None = None  # counts from the first failure
        pause = _FIRST_PAUSE_SECONDS
        while True:
            begun = False
            try:
                pool = self._open_pool() or await self._pool()
                async with self._connection(pool) as connection:
                    begun = True
                    return await work(connection)
            except CALL_ERRORS as error:
                lost = is_connection_loss(error) or (not begun and isinstance(error, TimeoutError))
                if lost and self._closed:
                    raise ClosedError from error
                deadline = deadline or time.monotonic() + self._retry_seconds
                is_certain = repeat or not (lost and begun)  # whether it was done
                again = is_certain and (lost or is_repeatable(error))
                if not (again and self._connected_once) or time.monotonic() + pause > deadline:
                    raise translated(error, self.dsn) from chainable(error)
                if pause > _FIRST_PAUSE_SECONDS:  # it wasn't over at once
                    self._tell_waiting(error)
            except AttributeError as error:
                # The driver's, of a connection that is closed between two parts of a call.
                if not self._closed:
                    raise
                raise ClosedError from error
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def _tell_waiting(self, error: BaseException) -> None:
        """Now and then a line in the log, for all calls that wait."""
        now = time.monotonic()
        if now - self._told_at >= _TOLD_EVERY_SECONDS:
            self._told_at = now
            said = (str(error) or type(error).__name__).splitlines()[0]
            _log.warning("calls are repeated, for up to %g s: %s", self._retry_seconds, said)


def _first_given(*values: float | None) -> float:
    return next(value for value in values if value is not None)


def _set_socket_options(
    connection: asyncpg.Connection[asyncpg.Record], options: Sequence[tuple[int, int, int]]
) -> None:
    end = connection._transport.get_extra_info("socket")  # type: ignore[attr-defined]
    if end is not None and end.family in (socket.AF_INET, socket.AF_INET6):
        # Another object for the same socket: those of some event loops take no options.
        with socket.socket(end.family, end.type, fileno=os.dup(end.fileno())) as own:
            for option in options:
                own.setsockopt(*option)


@asynccontextmanager
async def _in_transaction(connection: Connection, **options: Any) -> AsyncIterator[None]:
    """A transaction. What its block raises is raised, also where the connection is lost."""
    transaction = connection.transaction(**options)
    await transaction.start()
    try:
        yield
    except BaseException:
        with suppress(*CALL_ERRORS):
            await transaction.rollback()
        raise
    await transaction.commit()


async def _fetch_value(connection: Connection, statement: str, *args: Any) -> Any:
    return await connection.fetchval(_STATEMENTS[statement].text, *args)


async def _is_committed(connection: Connection, transaction: str) -> bool:
    """What became of a transaction whose connection was lost while it was committed."""
    outcome = await _fetch_value(connection, "get_outcome", transaction)
    if outcome == "in progress":  # as long as the server hasn't noticed the loss: asked again
        raise ConnectionResetError("it isn't known yet whether a lost transaction was committed")
    return bool(outcome == "committed")


def _is_identifier(name: object) -> bool:
    return isinstance(name, str) and _json.is_clean(name) and 0 < len(name.encode()) < 64


class _Borrowed:
    """A connection of a pool, for the length of a block."""

    __slots__ = ("_connection", "_database", "_keep", "_pool")

    def __init__(self, db: Database, pool: LoopPool, *, keep: bool) -> None:
        self._database = db
        self._pool = pool
        self._keep = keep

    async def __aenter__(self) -> PoolConnectionProxy[asyncpg.Record]:
        # At hand, most of the time: then there is nothing to wait for.
        at_hand = self._pool.take_at_hand()
        self._connection = at_hand or await self._database._acquired(self._pool)
        return self._connection

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        connection = self._connection
        if error is None and self._keep and self._pool.keep_at_hand(connection):
            return
        # What goes wrong here ends the connection, and changes nothing of what the block did.
        with suppress(*CALL_ERRORS):
            if error is not None and isinstance(error, DRIVER_ERRORS) and is_connection_loss(error):
                # Or it would go back to the pool: the server's goodbye comes before the
                # end of the stream. Not expire_connections() for all: asyncpg then closes
                # them in tasks of its own, whose errors nobody hears.
                connection.terminate()
            await self._pool.release(connection)


_live: weakref.WeakSet[Database] = weakref.WeakSet()
# A forked child keeps the parent's connections here for ever: closing them, or letting
# them be collected, would write to sockets and selectors that the parent still uses.
_inherited: list[object] = []


def _after_fork_in_child() -> None:
    for db in list(_live):
        _inherited.append((db._portal, db._pools, db._server))
        db._server = None
        db._forget_connections()


def _at_exit() -> None:
    for db in list(_live):
        db.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
