"""A connection as this package needs it: without session state, and with an end to its waiting."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import asyncpg

from langgraph_pgsaga.database.packed import passing
from langgraph_pgsaga.database.server_errors import CALL_ERRORS
from langgraph_pgsaga.database.statements import load_statements
from langgraph_pgsaga.errors import TransactionEndedError

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"

_STATEMENTS = load_statements("database")
# A server that answers at all does so within this after the request to cancel a statement.
CANCEL_SECONDS = 2.0
# The client waits for so much longer than the server's own limit: by then it doesn't answer.
_GRACE_SECONDS = 5.0
DEFAULT_LOCK_SECONDS = 10.0
DEFAULT_STATEMENT_SECONDS = 60.0

_PINNED = {"array_agg(": "pg_catalog.array_agg(", " != ": " operator(pg_catalog.<>) "}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long a transaction's statements may wait for a lock, and take, in seconds.

    None leaves it as the connection has it, 0 is without end. What the user set (by option,
    DSN, role or database) is never raised.
    """

    lock_seconds: float | None = None
    statement_seconds: float | None = None


# For work that lifts the server's limits itself.
NO_LIMITS = Limits()
# For what goes through much of a thread or of a table: sweeps, copies, deletions, exports.
LONG = Limits(statement_seconds=600.0)


class PlainConnection(asyncpg.Connection):
    """A connection that carries no session state, so that giving it back costs no round trip."""

    is_pooled = False
    # Whether the limit of a statement's time is this package's default.
    has_own_limit = True
    # What the server has; None where that isn't known.
    lock_seconds: float | None = None
    # How long the client waits for the answer to a single statement; None where that is the
    # driver's to end, by `client_seconds`, or nobody's.
    answer_seconds: float | None = None
    # Of what is done once: the number of its transaction.
    transaction_number: str | None = None

    _config: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Of which types, by schema and name, somebody has set a codec.
        self.codecs: set[tuple[str, str]] = set()
        # The driver asks for types in words that could mean something of the search_path.
        question: str = self._intro_query  # type: ignore[has-type]
        for word, pinned in _PINNED.items():
            question = question.replace(word, pinned)
        self._intro_query = question

    async def set_type_codec(
        self,
        typename: str,
        *,
        schema: str = "public",
        encoder: Callable[[Any], Any],
        decoder: Callable[[Any], Any],
        format: str = "text",
    ) -> None:
        """The driver's; what is `Packed` goes by any codec as it is."""
        given: Any = {"encoder": passing(encoder, format), "decoder": decoder, "format": format}
        await super().set_type_codec(typename, schema=schema, **given)
        self.codecs.add((schema, typename))

    async def reset_type_codec(self, typename: str, *, schema: str = "public") -> None:
        """The driver's."""
        await super().reset_type_codec(typename, schema=schema)
        self.codecs.discard((schema, typename))

    def get_reset_query(self) -> str:
        """Nothing: what a connection was set up with stays for its next user."""
        return ""

    @property
    def client_seconds(self) -> float | None:
        """How long the client waits for an answer before it cancels the statement."""
        seconds: float | None = self._config.command_timeout
        return seconds

    @client_seconds.setter
    def client_seconds(self, seconds: float | None) -> None:
        self._config = self._config._replace(command_timeout=seconds)

    async def _reset(self) -> None:
        # A begin that was cancelled, or a rollback in its turn: the driver makes up for both, but
        # tells the loop.
        if self.is_in_transaction():
            await self.execute("rollback")
        self._top_xact = None
        await super()._reset()

    async def _cancel(self, waiter: Any, cancel_waiter: Any = None) -> None:
        # The driver gives the server as long again as the statement had.
        with suppress(TimeoutError):
            async with asyncio.timeout(CANCEL_SECONDS):
                await super()._cancel(waiter, cancel_waiter)  # type: ignore[misc]
        if cancel_waiter is not None and not cancel_waiter.done() and not self.is_closed():
            self.terminate()

    def _get_unique_id(self, prefix: str) -> str:
        # The driver counts from 1 in every process. Behind a pooler that changes the server
        # connection, without `pooler=True`, a name would then be another process's statement.
        name: str = super()._get_unique_id(prefix)  # type: ignore[misc]
        return f"{name}{os.urandom(8).hex()}"

    # Through the pool's proxies only methods reach this object.

    def plain(self) -> PlainConnection:
        """This connection, also of a pool's proxy."""
        return self

    def is_cancelling(self) -> bool:
        """Whether the client gave up waiting for an answer."""
        return bool(self._protocol._is_cancelling())  # type: ignore[attr-defined]


async def set_default_limits(connection: PlainConnection) -> None:
    """Sets the limits of time that neither the DSN nor the role nor the database sets."""
    rows = await connection.fetch(
        _STATEMENTS["set_default_limits"].text,
        _milliseconds(DEFAULT_LOCK_SECONDS),
        _milliseconds(DEFAULT_STATEMENT_SECONDS),
    )
    found = {row["name"]: row for row in rows}
    statement = found["statement_timeout"]
    connection.has_own_limit = statement["is_own"]
    connection.lock_seconds = int(found["lock_timeout"]["milliseconds"]) / 1000
    connection.answer_seconds = with_grace(int(statement["milliseconds"]) / 1000)


def with_grace(seconds: float) -> float | None:
    """How long the client waits where the server ends a statement after so many seconds."""
    return seconds + _GRACE_SECONDS if seconds else None


@asynccontextmanager
async def transaction(
    connection: Connection,
    *,
    isolation: Literal["read_committed", "repeatable_read"] | None = None,
    readonly: bool = False,
    limits: Limits | None = None,
) -> AsyncIterator[None]:
    """A transaction, with limits of its own where some are given.

    What its block raises is raised, also where the connection is lost.
    """
    plain = _plain(connection)
    before = plain.client_seconds
    begun = connection.transaction(isolation=isolation, readonly=readonly)
    try:
        plain.client_seconds = _client_seconds(plain, limits)
        await begun.start()
        try:
            if limits is not None:
                await _limit(plain, limits)
            yield
            check_in_transaction(connection)
        except BaseException:
            with suppress(*CALL_ERRORS):
                await begun.rollback()
            raise
        await begun.commit()
    finally:
        plain.client_seconds = before


def check_in_transaction(connection: Connection, number: str | None = None) -> None:
    """TransactionEndedError where somebody has ended the connection's transaction; with the number
    of the one that it is in, also where somebody has begun another."""
    if not connection.is_closed() and not connection.is_in_transaction():
        raise TransactionEndedError
    if number is not None and number != _plain(connection).transaction_number:
        raise TransactionEndedError


def _plain(connection: Connection) -> PlainConnection:
    return connection.plain()  # type: ignore[union-attr,no-any-return]


def _client_seconds(plain: PlainConnection, limits: Limits | None) -> float | None:
    """How long the client waits for each answer in a transaction."""
    if limits is NO_LIMITS:
        return None
    seconds = limits.statement_seconds if limits is not None else None
    if seconds is not None and plain.has_own_limit:
        return with_grace(seconds)
    return plain.client_seconds if plain.answer_seconds is None else plain.answer_seconds


async def _limit(plain: PlainConnection, limits: Limits) -> None:
    """To the end of the transaction."""
    lock, statement = limits.lock_seconds, limits.statement_seconds
    if lock is not None and plain.lock_seconds:
        lock = min(lock, plain.lock_seconds)
    if plain.is_pooled or not plain.has_own_limit:
        statement = None  # the client's limit alone, or the user's own
    if lock is not None or statement is not None:
        await plain.fetch(
            _STATEMENTS["limit_transaction"].text,
            None if lock is None else _milliseconds(lock),
            None if statement is None else _milliseconds(statement),
        )


def set_socket_options(
    connection: asyncpg.Connection[asyncpg.Record], options: Sequence[tuple[int, int, int]]
) -> None:
    """Sets options of a TCP connection's socket."""
    end = connection._transport.get_extra_info("socket")  # type: ignore[attr-defined]
    if end is not None and end.family in (socket.AF_INET, socket.AF_INET6):
        # Another object for the same socket: those of some event loops take no options.
        with socket.socket(end.family, end.type, fileno=os.dup(end.fileno())) as own:
            for option in options:
                own.setsockopt(*option)


def _milliseconds(seconds: float) -> str:
    return str(round(seconds * 1000))
