"""The one door to PostgreSQL, shared by every system of the package."""

from __future__ import annotations

import asyncio
import atexit
import logging
import math
import os
import random
import threading
import time
import warnings
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import (
    AbstractContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack, cast

import asyncpg

from langgraph_pgsaga._arguments import checked_instance, checked_work, required_text
from langgraph_pgsaga._process_bound import ProcessBound
from langgraph_pgsaga.database.begun import Begun, Done
from langgraph_pgsaga.database.connection import (
    DEFAULT_STATEMENT_SECONDS,
    Connection,
    Limits,
    PlainConnection,
    set_default_limits,
    set_socket_options,
    transaction,
)
from langgraph_pgsaga.database.migrations import migrate
from langgraph_pgsaga.database.options import DatabaseOptions, Options
from langgraph_pgsaga.database.pool import LoopPool, Pool
from langgraph_pgsaga.database.portal import Portal
from langgraph_pgsaga.database.server_errors import (
    ARGUMENT_ERRORS,
    CALL_ERRORS,
    DRIVER_ERRORS,
    GaveUpError,
    chainable,
    is_connection_loss,
    is_of_connection,
    is_repeatable,
    note_of_caller,
    translated,
)
from langgraph_pgsaga.database.statements import (
    BoundStatement,
    Statement,
    load_statements,
    render,
)
from langgraph_pgsaga.database.target import Target
from langgraph_pgsaga.database.watch import FOR_CONNECTION, FOR_SERVER
from langgraph_pgsaga.errors import (
    ClosedError,
    ConnectionSetupError,
    InvalidArgumentError,
    LockTimeoutError,
    PgSagaError,
    PoolTimeoutError,
    TooManyRowsError,
)

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    from langgraph_pgsaga.embedded import EmbeddedServer

T = TypeVar("T")
Row = TypeVar("Row", bound=tuple[Any, ...])
# What a call was translated from, and what asking who holds a lock may end with.
_OF_CALLS: tuple[type[Exception], ...] = (*DRIVER_ERRORS, TimeoutError)
_OF_ASKING: tuple[type[Exception], ...] = (*CALL_ERRORS, PgSagaError)

_log = logging.getLogger("langgraph_pgsaga.database")
_OF_TEXT = (
    "Pass one of load_statements, bound; SQL of your own runs on the connection: "
    "async with db.transaction() as conn: await conn.fetch(...)"
)
_STATEMENTS = load_statements("database")
_ASK_SECONDS = 2.0
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


class Database(ProcessBound):
    """PostgreSQL as the systems of this package see it.

    One object serves every thread and every event loop of the process: each loop
    gets a pool of its own at its first use, and sync callers share one more, on a
    thread of the database's. It connects at the first use. After a fork the child
    starts with pools of its own.

    Statements that are safe to repeat are repeated when the connection is lost or
    the server asks for it, until `retry_seconds` are over; before the first
    connection, errors of connecting are raised at once.

    Dropped without `close` it warns (ResourceWarning) and lets go of its connections and thread;
    what is left at the end of the process is closed then.

    Blocking has an end: a statement's wait for a lock, a statement, and a server or network
    that stands still. See docs/database.md.

    Args:
        dsn: a URL or libpq key-value string; None takes the environment's PGSAGA_DSN.
        schema: the schema of the tables, any name; None leaves it to the search_path.
        min_size: connections a pool keeps open from its start.
        max_size: connections a pool opens at most, per event loop.
        pooler: set it when the DSN leads to pgbouncer (or the like) in transaction
            mode: no named prepared statements. Costs a round trip per statement.
        direct_dsn: the way to the same database past the pooler, for the one connection that
            listens for news; without it they are polled for.
        distributed: set it when Citus has the tables on several servers (`pgsaga migrate
            distribute`): each statement is then for one session, and planned with its values.
            None takes the environment's PGSAGA_DISTRIBUTED (1), else False.
        connect_timeout_seconds: for one attempt to connect to a host; None takes the DSN's
            connect_timeout, else 10.
        acquire_timeout_seconds: for a connection of the pool to become free.
        retry_seconds: how long statements are repeated across a lost connection.
        lock_timeout_seconds: how long a statement waits for a lock; None takes what the DSN,
            the role or the database sets, else 10; 0 is without end. Not through a pooler.
        statement_timeout_seconds: how long a statement takes; None takes what the DSN, the
            role or the database sets, else 60; 0 is without end.
        keepalives_idle_seconds, keepalives_interval_seconds, keepalives_count,
            tcp_user_timeout_seconds: libpq's, for a network that was cut; None takes the
            DSN's, else 30, 10, 3 and 30. 0 is the system's own.
        slow_seconds: a statement that takes longer is named in the log; None names none.
        on_connect: an async function that is given each new connection before its first
            use: for codecs of types, and for settings where there is no pooler.
        tenant: whose everything is that is called without a tenant; '' is no tenant.
        require_tenant: refuses calls that are of no tenant.

    Raises:
        UnknownOptionError: an option that there isn't.
        InvalidArgumentError: one that can't be used.
    """

    _closed = True  # until it is made

    def __init__(self, dsn: str | None = None, **options: Unpack[DatabaseOptions]) -> None:
        dsn = dsn if dsn is not None else os.environ.get("PGSAGA_DSN")
        self._options = Options.of(options)
        if not dsn:
            raise InvalidArgumentError(
                argument="dsn",
                problem="none given and PGSAGA_DSN isn't set; pass "
                "postgresql://user@host:5432/database, or use Database.embedded()",
            )
        required_text("dsn", dsn)
        self._target = Target.of(dsn, given=self._options.of_libpq())
        self.schema = self._options.schema
        self.pooler = self._options.pooler
        self._direct: Database | None = None
        if self._options.direct_dsn is not None:
            self._direct = Database(self._options.direct_dsn, **self._options.of_network())
        self.tenant = self._options.tenant
        self.require_tenant = self._options.require_tenant
        distributed = self._options.distributed
        self.distributed = (
            os.environ.get("PGSAGA_DISTRIBUTED") == "1" if distributed is None else distributed
        )
        self._connect_timeout_seconds = _first_given(
            self._options.connect_timeout_seconds, self._target.connect_timeout_seconds, 10.0
        )
        self._server: EmbeddedServer | None = None
        self._texts: dict[str, str] = {}
        self._forget_connections()
        self._closed = False
        _live.add(self)

    @classmethod
    def embedded(
        cls, path: str | os.PathLike[str] | None = None, **options: Unpack[DatabaseOptions]
    ) -> Database:
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

        Options.of(options)  # before a server is started for nothing
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
        prepare: Callable[[Connection], Awaitable[None]] | None = None,
    ) -> list[asyncpg.Record]:
        """The rows of one statement: of `statement.bind(...)`, or with arguments in order.

        Without `conn` it runs in a transaction of its own and is repeated as the
        class says; with `repeat=False`, for what isn't the same when done twice, only while
        it is certain that it wasn't done. With `conn` it joins the caller's transaction and
        runs once. `prepare` is given the connection before, for the codecs that its values need.

        Raises:
            ServerError, ServerConnectionError, MissingMigrationsError and the like.
            InvalidArgumentError: it is no statement, but SQL text, say.
        """
        if isinstance(statement, BoundStatement):
            statement, args = statement
        text = self.text(statement)
        if conn is not None:
            if callable(conn):
                problem = "must be a connection, not a function: call it, as in conn=this_step()"
                raise InvalidArgumentError(argument="conn", problem=problem)
            with self.translating(*ARGUMENT_ERRORS, TimeoutError), self.waiting(statement.name):
                if prepare is not None:
                    await prepare(conn)
                rows: list[asyncpg.Record] = await conn.fetch(text, *args)
                return rows

        async def run(connection: Connection) -> list[asyncpg.Record]:
            if prepare is not None:
                await prepare(connection)
            rows: list[asyncpg.Record] = await connection.fetch(text, *args)
            return rows

        return await self._repeating(run, name=statement.name, repeat=repeat)

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

    async def run(
        self,
        work: Callable[[Connection], Awaitable[T]],
        *,
        once: bool = False,
        limits: Limits | None = None,
    ) -> T:
        """The result of `work(connection)` in one read-committed transaction.

        Each statement of it sees what was committed before that statement. `once` says that
        a second run isn't the same as one: where the answer to a commit was lost, the server
        is asked first whether it had committed. That takes a round trip more. So do `limits`
        other than the connection's, for work that takes long by its nature.
        """
        return await self._run(work, "read_committed", once=once, limits=limits)

    async def snapshot(
        self, work: Callable[[Connection], Awaitable[T]], *, limits: Limits | None = None
    ) -> T:
        """The result of `work(connection)`, whose statements only read, and see one moment."""
        return await self._run(work, "repeatable_read", limits=limits)

    async def _run(
        self,
        work: Callable[[Connection], Awaitable[T]],
        isolation: Literal["read_committed", "repeatable_read"],
        *,
        once: bool = False,
        limits: Limits | None = None,
    ) -> T:
        checked_work("work", work)
        committing: list[tuple[str, T]] = []
        readonly = isolation == "repeatable_read"

        async def attempt(connection: Connection) -> T:
            if committing and await _is_committed(connection, committing[-1][0]):
                return committing[-1][1]
            committing.clear()
            try:
                async with transaction(
                    connection, isolation=isolation, readonly=readonly, limits=limits
                ):
                    number = await _begun_once(connection) if once else ""
                    result = await work(connection)
                    if once:
                        committing.append((number, result))
                    return result
            except asyncpg.PostgresError as error:  # of a statement that `fetch` didn't send
                note_of_caller(error)
                raise
            except PgSagaError as error:
                # `fetch` translated it inside the work: whether to repeat is told by the original.
                if isinstance(error.__cause__, _OF_CALLS):
                    raise error.__cause__ from None
                raise

        return await self._repeating(attempt)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection inside a transaction, to pass as `conn=` to several systems.

        It commits when the block ends and rolls back when the block raises.
        Nothing in it is repeated.
        """
        with self.translating(GaveUpError):
            async with AsyncExitStack() as stack:
                with self.translating(OSError):
                    pool = await self._pool()
                    connection = await stack.enter_async_context(self._connection(pool, keep=False))
                    await stack.enter_async_context(transaction(connection))
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

    def has_tables_of(self, other: Database) -> bool:
        """Whether one transaction can write to both: they are one database and schema."""
        return self is other or (self.dsn, self.schema) == (other.dsn, other.schema)

    def text(self, statement: Statement) -> str:
        """The statement's text with this database's schema."""
        if type(statement) is not Statement:
            checked_instance("statement", statement, Statement, _OF_TEXT)
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
        return self.begun("setup", self.asetup)

    def begun(self, name: str, work: Callable[[], Awaitable[None]]) -> Awaitable[None]:
        """`work()`, done by now; in a running loop begun in the background, to be awaited."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            self.portal.call(work)
            return Done()
        return Begun(name, self.portal.begin(work))

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

    def __del__(self) -> None:
        if self._closed:
            return
        self._closed = True
        is_open = any(entry.pool is not None for entry in self._pools.values())
        # Wherever the collector runs, it can't wait for other threads.
        self._terminate_pools()
        if self._portal.abandon() or is_open:
            told = f"unclosed {self!r}: close it, or use it in a `with` block"
            warnings.warn(told, ResourceWarning, stacklevel=2, source=self)

    def _close_elsewhere(self) -> None:
        if self._direct is not None:
            self._direct.close()
        self._portal.stop()
        self._terminate_pools()
        if self._server is not None:
            self._server.stop()

    def _terminate_pools(self) -> None:
        for loop, pool in list(self._pools.items()):
            if loop.is_running():
                with suppress(RuntimeError):  # it closed meanwhile, and the pool with it
                    loop.call_soon_threadsafe(pool.terminate)
            else:
                pool.terminate()
        self._pools.clear()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError

    def _forget_connections(self) -> None:
        self._portal = Portal("langgraph_pgsaga portal")
        self._pools: dict[asyncio.AbstractEventLoop, LoopPool] = {}
        self._pools_lock = threading.Lock()
        self._connected_once = False
        self._told_at = -math.inf
        self._is_waiting_told = False

    @contextmanager
    def translating(self, *more: type[Exception]) -> Iterator[None]:
        """Turns the driver's errors inside the block, and `more`, into this package's."""
        caught = (*DRIVER_ERRORS, *more)
        try:
            yield
        except caught as error:
            raise translated(error, self.dsn) from chainable(error)

    # Connections

    async def connect(self) -> PlainConnection:
        """A connection outside the pools, which the caller closes: for work that takes long.

        The server's limits of time count on it, the client's don't.
        """
        self._check_open()
        with self.translating(OSError):
            connection = await self._connected(**self._connect_options())
        connection.client_seconds = connection.answer_seconds = None
        return connection

    @property
    def can_listen(self) -> bool:
        """Whether there is a way to the server that isn't through a pooler."""
        return self._direct is not None or not self.pooler

    async def connect_to_listen(self) -> PlainConnection:
        """`connect`, past the pooler where there is a direct_dsn."""
        self._check_open()
        return await (self if self._direct is None else self._direct).connect()

    async def _connected(self, dsn: str | None = None, **options: Any) -> PlainConnection:
        connection: Any = await self._connected_to_one(dsn, **options)
        # The server answers, so that what is lost from here on is worth another try.
        self._connected_once = True
        seconds = self._connect_timeout_seconds
        try:
            async with asyncio.timeout(None if math.isinf(seconds) else seconds):
                await self._prepare(connection)
        except BaseException:
            connection.terminate()
            raise
        return cast("PlainConnection", connection)

    async def _prepare(self, connection: PlainConnection) -> None:
        """What a new connection needs before its first use."""
        if self._target.socket_options:
            set_socket_options(connection, self._target.socket_options)
        connection.is_pooled = self.pooler
        if self.pooler:
            connection.client_seconds = self._pooled_seconds()
        else:
            await set_default_limits(connection)
        if self._options.on_connect is not None:
            await self._call_on_connect(connection, self._options.on_connect)

    def _pooled_seconds(self) -> float | None:
        """The limit of a statement's time, for which a pooler leaves the client only."""
        given = self._options.statement_timeout_seconds
        if given is None and self._target.sets("statement_timeout"):
            return None
        return (DEFAULT_STATEMENT_SECONDS if given is None else given) or None

    async def _call_on_connect(
        self, connection: PlainConnection, on_connect: Callable[[Connection], Awaitable[None]]
    ) -> None:
        try:
            await on_connect(connection)
        except Exception as error:
            if isinstance(error, CALL_ERRORS) and is_connection_loss(error):
                raise
            problem = f"it raised {type(error).__name__}"
            raise ConnectionSetupError(dsn=self.dsn, problem=problem) from chainable(error)
        if connection.is_in_transaction():
            problem = "it left a transaction open"
            raise ConnectionSetupError(dsn=self.dsn, problem=problem)

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
        settings = {n: value for n, value in settings.items() if not self._target.sets(n)}
        limits = {} if self.pooler else self._options.server_limits()
        return {
            **self._target.arguments,
            "timeout": None if math.isinf(seconds) else seconds,
            "connection_class": PlainConnection,
            "server_settings": {**settings, **self._target.settings, **limits},
            **({"statement_cache_size": 0} if self.pooler else {}),
        }

    def _open_pool(self) -> LoopPool | None:
        """The running loop's pool, if it is open."""
        entry = None if self._closed else self._pools.get(asyncio.get_running_loop())
        return entry if entry is not None and entry.pool is not None else None

    async def _pool(self) -> LoopPool:
        entry = self._loop_pool()
        await entry.open()
        return entry

    def _loop_pool(self) -> LoopPool:
        """The running loop's pool, open or not."""
        self._check_open()
        loop = asyncio.get_running_loop()
        entry = self._pools.get(loop)
        if entry is None:
            with self._pools_lock:
                self._drop_pools_of_closed_loops()
                new_pool = _weakly(self._new_pool)
                entry = self._pools.setdefault(loop, LoopPool(new_pool, self._options.slow_seconds))
        return entry

    def _new_pool(self) -> Pool:
        connect: Any = _weakly(self._connected)
        return asyncpg.create_pool(
            **self._connect_options(),
            connect=connect,
            min_size=self._options.min_size,
            max_size=self._options.max_size,
            max_inactive_connection_lifetime=300.0,
        )

    def _drop_pools_of_closed_loops(self) -> None:
        for loop in [loop for loop in self._pools if loop.is_closed()]:
            self._pools.pop(loop).terminate()

    def _connection(self, pool: LoopPool, *, keep: bool = True) -> _Borrowed:
        """A connection for the length of a block; `keep` it at hand if the block succeeds."""
        return _Borrowed(self, pool, keep=keep)

    async def _acquired(self, pool: LoopPool) -> PoolConnectionProxy[asyncpg.Record]:
        seconds = self._options.acquire_timeout_seconds
        try:
            connection = await pool.acquire(seconds)
        except TimeoutError as error:
            if pool.has_room():
                raise  # it was the server that took too long
            raise PoolTimeoutError(
                dsn=self.dsn,
                detail=f"all {self._options.max_size} were busy for {seconds:g} s",
            ) from error
        self._connected_once = True
        return connection

    async def _repeating(
        self,
        work: Callable[[Connection], Awaitable[T]],
        *,
        name: str | None = None,
        repeat: bool = True,
    ) -> T:
        """The result of `work(connection)`; `name` is the statement's, where it is but one."""
        deadline: float | None = None  # counts from the first failure
        pause = _FIRST_PAUSE_SECONDS
        while True:
            begun = False
            try:
                pool = self._open_pool() or await self._pool()
                with pool.watch.wait(name or "a transaction", FOR_CONNECTION) as wait:
                    async with self._connection(pool) as connection:
                        begun = True
                        wait.begin(name, connection)
                        result = await wait.answered(work(connection))
            except CALL_ERRORS as error:
                lost = is_connection_loss(error) or (not begun and isinstance(error, TimeoutError))
                if lost and self._closed:
                    raise ClosedError from error
                is_renewed = deadline is None and is_of_connection(error)
                deadline = deadline or time.monotonic() + self._options.retry_seconds
                is_certain = repeat or not (lost and begun)  # whether it was done
                again = is_certain and (lost or is_renewed or is_repeatable(error))
                if not (again and self._connected_once) or time.monotonic() + pause > deadline:
                    raise await self._explained(error) from chainable(error)
                if pause > _FIRST_PAUSE_SECONDS:  # it wasn't over at once
                    self._tell_waiting(error)
            except AttributeError as error:
                # The driver's, of a connection that is closed between two parts of a call.
                if not self._closed:
                    raise
                raise ClosedError from error
            else:
                if self._is_waiting_told:
                    self._tell_again()
                return result
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    async def _explained(self, error: BaseException) -> PgSagaError:
        """The error of this package's, with who held the lock that wasn't had in time."""
        explained = translated(error, self.dsn)
        if isinstance(explained, LockTimeoutError):
            explained.holders = await self._lock_holders()
        return explained

    async def _lock_holders(self) -> str:
        """The transactions that may, by the locks they have on the tables; the oldest first."""
        text = self.text(_STATEMENTS["list_lock_holders"])
        try:
            async with asyncio.timeout(_ASK_SECONDS), self._connection(await self._pool()) as conn:
                rows = await conn.fetch(text, render("{schema}.agent_sessions", self.schema))
        except _OF_ASKING:
            return ""
        return "; ".join(
            f"pid {row['pid']} ({row['application_name'] or 'no name'}), {row['state'] or 'busy'}"
            f" since {row['since'] or 'an unknown time'}"
            for row in rows
        )

    def waiting(self, name: str) -> AbstractContextManager[object]:
        """A block that waits for the server: what takes long in it is told in the log."""
        return self._loop_pool().watch.wait(name, FOR_SERVER)

    def _tell_waiting(self, error: BaseException) -> None:
        """Now and then a line in the log, for all calls that wait."""
        now = time.monotonic()
        if now - self._told_at >= _TOLD_EVERY_SECONDS:
            self._told_at = now
            self._is_waiting_told = True
            said = (str(error) or type(error).__name__).splitlines()[0]
            seconds = self._options.retry_seconds
            _log.warning("calls are repeated, for up to %g s: %s", seconds, said)

    def _tell_again(self) -> None:
        self._is_waiting_told = False
        _log.info("calls go on: the server answers again")


def _weakly(method: Callable[..., T]) -> Callable[..., T]:
    """The method of an object that isn't kept by it: what a running loop has is never dropped."""
    found = weakref.WeakMethod(method)

    def call(*args: Any, **kwargs: Any) -> T:
        if (bound := found()) is None:
            raise ClosedError
        return bound(*args, **kwargs)

    return call


def _first_given(*values: float | None) -> float:
    return next(value for value in values if value is not None)


async def _fetch_value(connection: Connection, statement: str, *args: Any) -> Any:
    return await connection.fetchval(_STATEMENTS[statement].text, *args)


async def _begun_once(connection: Connection) -> str:
    """The number of a transaction that is done once, which its connection knows, too."""
    plain: PlainConnection = connection.plain()  # type: ignore[union-attr]
    number: str = await _fetch_value(connection, "begin_transaction")
    plain.transaction_number = number
    return number


async def _is_committed(connection: Connection, transaction: str) -> bool:
    """What became of a transaction whose connection was lost while it was committed."""
    outcome = await _fetch_value(connection, "get_outcome", transaction)
    if outcome == "in progress":  # as long as the server hasn't noticed the loss: asked again
        raise ConnectionResetError("it isn't known yet whether a lost transaction was committed")
    return bool(outcome == "committed")


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
        plain: PlainConnection | None = getattr(connection, "plain", lambda: None)()
        is_lost = plain is None or plain.is_closed() or plain.is_cancelling()
        gave_up = isinstance(error, TimeoutError) and is_lost
        with suppress(*CALL_ERRORS):
            if is_of_connection(error):
                await self._pool.expire()
            if error is not None and isinstance(error, DRIVER_ERRORS) and is_connection_loss(error):
                # Or it would go back to the pool: the server's goodbye comes before the
                # end of the stream. Not expire_connections() for all: asyncpg then closes
                # them in tasks of its own, whose errors nobody hears.
                connection.terminate()
            await self._pool.release(connection)
        if gave_up:
            is_answered = plain is not None and not plain.is_closed()
            raise GaveUpError(is_answered=is_answered) from error


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
