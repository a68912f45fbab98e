"""Claims: rows that one process at a time works at.

A claim has an end (the lease), by the server's clock, and is renewed until the work is done. It has
a fence, which rises with each claim of the row. Every write says both who has the row and by which
fence, and changes nothing where somebody else has it by now. So no late write counts, whatever
stopped the process that makes it; that it stops in time only saves work.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from langgraph_pgsaga import _fork
from langgraph_pgsaga._arguments import checked_integer, checked_seconds
from langgraph_pgsaga._process_bound import ProcessBound
from langgraph_pgsaga.database import Connection, Database, Statement
from langgraph_pgsaga.errors import ClaimLostError, InvalidArgumentError
from langgraph_pgsaga.work.error_text import described
from langgraph_pgsaga.work.own_connection import OwnConnection

_log = logging.getLogger("langgraph_pgsaga.work")
_MOST_AT_ONCE = 1000
# A lease is renewed so often within its time; what isn't renewed is given up so much before its
# end, for the work to stop in.
_RENEWALS = 3
_LEFT_TO_STOP = 1 / 6
_LOOKS = 12
# Of a short lease a third may be less than it takes to connect.
_LEAST_ANSWER_SECONDS = 1.0
# A forked child keeps the parent's connections here: collecting them would close them.
_inherited: list[object] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimTable:
    """The statements by which the rows of a table are claimed. docs/worker.md has the contract.

    Args:
        key: the columns that name a row.
        claim: takes up to `page` rows that are due for `claimed_by`, for lease_seconds. Gives of
            each the key, fence, attempts, and whatever else the work needs.
        renew: makes claims last for lease_seconds from now. Gives the key of each that is still
            had, and is_renewed: false where somebody has the row locked.
        release: gives claims back as if they hadn't been made.
        fail: ends a claim whose work failed, and makes the row due after delay_seconds; null is
            that there is no further attempt. Gives the fence.
        given: values of what other parameters `claim` has.
    """

    key: Sequence[str]
    claim: Statement
    renew: Statement
    release: Statement
    fail: Statement
    given: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        keys, key_arrays = set(self.key), {f"{name}s" for name in self.key}
        mine = {"claimed_by"}
        _check_header(
            self.claim,
            {*mine, "lease_seconds", "page", *self.given},
            {*keys, "fence", "attempts"},
        )
        many = {*mine, *key_arrays, "fences"}
        _check_header(self.renew, {*many, "lease_seconds"}, {*keys, "is_renewed"})
        _check_header(self.release, many, set())
        one = {*mine, *keys, "fence"}
        _check_header(self.fail, {*one, "delay_seconds", "error"}, {"fence"})


def _check_header(statement: Statement, params: set[str], columns: set[str]) -> None:
    has_params = {name for name, _ in statement.params}
    has_columns = {name for name, _ in statement.columns}
    if has_params != params or not columns <= has_columns:
        problem = (
            f"statement {statement.name} must have the parameters {', '.join(sorted(params))} and "
            f"the columns {', '.join(sorted(columns)) or '(any)'}; docs/worker.md has the contract"
        )
        raise InvalidArgumentError(argument="statement", problem=problem)


class Claim:
    """A row that this process has. `Claims.claim` makes it, and renews it until it is over.

    Attributes:
        row: what the table's `claim` statement gave.
        fence: how often the row had been claimed, with this time.
        attempt: the number of this attempt, from 1.
        draining: set when the process takes on nothing new, and waits for what it has. Work that
            can stop in between, and go on elsewhere, may end by it.
    """

    def __init__(self, claims: Claims, table: ClaimTable, row: asyncpg.Record, until: float):
        self.row = row
        self.fence: int = row["fence"]
        self.attempt: int = row["attempts"]
        self.table = table
        self.key = {name: row[name] for name in table.key}
        self.is_lost = False
        # Its last write was made, or is being made: renewing tells nothing of it any more.
        self.is_ended = False
        self.until = until
        self.draining = claims.draining
        self._claims = claims
        self._task: asyncio.Task[Any] | None = None

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.key.items())

    def cancels(self, task: asyncio.Task[Any]) -> None:
        """Has the task cancelled when the claim is lost."""
        self._task = task
        if self.is_lost:
            task.cancel()

    def check(self) -> None:
        """ClaimLostError where the claim is over, by this process's clock.

        It asks nobody: what is written afterwards needs the fence all the same.
        """
        if self.is_lost or time.monotonic() >= self.until:
            raise self._lost()

    async def write(
        self, statement: Statement, *, conn: Connection | None = None, **values: Any
    ) -> asyncpg.Record:
        """The row that a statement gives which writes about the claimed row.

        The statement has the key's columns, `fence` and `claimed_by` among its parameters, which
        are given here, and changes and gives no row where these aren't the row's. With `conn` it
        joins that connection's transaction.

        Raises:
            ClaimLostError: the claim was lost. Nothing was written; of a transaction, let the
                error end it.
        """
        self.check()
        bound = statement.bind(
            **self.key, fence=self.fence, claimed_by=self._claims.owner, **values
        )
        db = self._claims.db

        async def work(conn: Connection) -> asyncpg.Record | None:
            return await db.fetch_one(bound, conn=conn)

        # The same write again would find the claim ended: it is asked whether the first was made.
        row = await (db.run(work, once=True) if conn is None else work(conn))
        if row is None:
            self.lose()
            raise self._lost()
        return row

    async def end(
        self, statement: Statement, *, conn: Connection | None = None, **values: Any
    ) -> asyncpg.Record:
        """`write` of the outcome, by a statement that also ends the claim."""
        self.check()
        self.is_ended = True
        try:
            return await self.write(statement, conn=conn, **values)
        except BaseException:
            self.is_ended = False
            raise

    def lose(self) -> None:
        """The claim is lost: whoever works at it is told."""
        if self.is_lost:
            return
        self.is_lost = True
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()

    def _lost(self) -> ClaimLostError:
        return ClaimLostError(claim=str(self), fence=self.fence)


class Claims(ProcessBound):
    """What a process has claimed, in one event loop, and its renewal.

    All claims of a table are renewed by one statement, three times in lease_seconds. What couldn't
    be renewed is given up a sixth of lease_seconds before it ends. Claiming (by `line`) and
    renewing have a connection of their own each, so that neither waits for the other, or for work
    that has all of the pool's.
    """

    def __init__(self, db: Database, *, lease_seconds: float = 30.0) -> None:
        self.db = db
        self.owner: UUID = uuid4()
        self.draining = asyncio.Event()
        self.lease_seconds = checked_seconds("lease_seconds", lease_seconds, least=0.1)
        self._held: set[Claim] = set()
        self._connect()
        self._timer: asyncio.TimerHandle | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._renewed_at = 0.0
        _fork.watch(self)

    def _connect(self) -> None:
        seconds = max(self.lease_seconds / _RENEWALS, _LEAST_ANSWER_SECONDS)
        self.line = OwnConnection(self.db, seconds)
        self._renewals = OwnConnection(self.db, seconds)

    @property
    def held(self) -> int:
        """How many claims there are."""
        return len(self._held)

    async def claim(self, table: ClaimTable, limit: int) -> list[Claim]:
        """Claims up to `limit` rows that are due. Who calls it answers for them: see `drop`.

        Where the connection is lost it isn't repeated: what was claimed unheard is due again when
        its lease has ended.
        """
        checked_integer("limit", limit, least=1, most=_MOST_AT_ONCE)
        bound = table.claim.bind(
            claimed_by=self.owner, lease_seconds=self.lease_seconds, page=limit, **table.given
        )
        sent_at, rows = await self.line.fetch(bound)
        until = sent_at + self.lease_seconds
        claims = [Claim(self, table, row, until) for row in rows]
        if time.monotonic() >= until:  # this process stood still
            return []
        self._held.update(claims)
        self._look_later()
        return claims

    def drop(self, claim: Claim) -> None:
        """The work at it is over, and its outcome written: it is renewed no more."""
        self._held.discard(claim)

    async def release(self, claims: Iterable[Claim]) -> None:
        """Gives claims back, to be claimed again at once. Those that were lost stay as they are."""
        for table, these in _by_table(claims):
            for part in self._routed(these):
                await self.db.fetch(table.release.bind(**self._named(table, part)))
                self._held.difference_update(part)

    async def fail(self, claim: Claim, *, error: str, delay_seconds: float | None) -> bool:
        """Ends a claim whose work failed. False where it wasn't this process's any more."""
        bound = claim.table.fail.bind(
            **claim.key,
            fence=claim.fence,
            claimed_by=self.owner,
            error=error,
            delay_seconds=delay_seconds,
        )
        rows = await self.db.fetch(bound)
        self.drop(claim)
        return bool(rows)

    async def aclose(self) -> None:
        """Ends the renewal. What is still claimed is due again when its lease has ended."""
        self._held.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait([self._renewing])
        self.line.close()
        self._renewals.close()

    def after_fork(self) -> None:
        """In a forked child: the claims are the parent's."""
        for claim in self._held:
            claim.is_lost = True
        _inherited.append((self.line, self._renewals, self._timer, self._renewing))
        self.owner = uuid4()
        self._held = set()
        self._timer = self._renewing = None
        self._connect()

    # Renewal

    def _look_later(self) -> None:
        if self._timer is None and self._held:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self.lease_seconds / _LOOKS, self._look)

    def _look(self) -> None:
        self._timer = None
        now = time.monotonic()
        for claim in list(self._held):
            if not claim.is_ended and now >= claim.until - self.lease_seconds * _LEFT_TO_STOP:
                _log.warning("a claim is given up: it couldn't be renewed in time")
                self._lose(claim)
        is_idle = self._renewing is None or self._renewing.done()
        if is_idle and now - self._renewed_at >= self.lease_seconds / _RENEWALS:
            self._renewed_at = now
            self._renewing = asyncio.create_task(self._renew_all())
        self._look_later()

    async def _renew_all(self) -> None:
        """One statement for each table; one that fails is tried again at the next look."""
        try:
            for table, these in _by_table(self._held):
                for part in self._routed(these):
                    await self._renew(table, part)
        except Exception as error:
            self._renewed_at = 0.0
            _log.warning("claims couldn't be renewed: %s", described(error))

    async def _renew(self, table: ClaimTable, claims: Sequence[Claim]) -> None:
        bound = table.renew.bind(lease_seconds=self.lease_seconds, **self._named(table, claims))
        sent_at, rows = await self._renewals.fetch(bound)
        found = {tuple(row[name] for name in table.key): row["is_renewed"] for row in rows}
        for claim in claims:
            is_renewed = found.get(tuple(claim.key.values()))
            if is_renewed:
                claim.until = sent_at + self.lease_seconds
            elif is_renewed is None and claim in self._held and not claim.is_ended:
                _log.warning("a claim was lost: somebody else has the row, or it is gone")
                self._lose(claim)

    def _lose(self, claim: Claim) -> None:
        self._held.discard(claim)
        claim.lose()

    def _named(self, table: ClaimTable, claims: Sequence[Claim]) -> dict[str, Any]:
        """The claims as arrays: a column of the key each, and the fences."""
        keys = {f"{name}s": [claim.key[name] for claim in claims] for name in table.key}
        return {**keys, "fences": [claim.fence for claim in claims], "claimed_by": self.owner}

    def _routed(self, claims: Sequence[Claim]) -> list[list[Claim]]:
        """In parts for one statement each: where tables are distributed, row by row."""
        parts = self.db.routed([(tuple(claim.key.values()), claim) for claim in claims])
        return [[claim for _, claim in part] for part in parts]


def _by_table(claims: Iterable[Claim]) -> list[tuple[ClaimTable, list[Claim]]]:
    found: dict[str, tuple[ClaimTable, list[Claim]]] = {}
    for claim in claims:
        found.setdefault(claim.table.renew.text, (claim.table, []))[1].append(claim)
    return list(found.values())
