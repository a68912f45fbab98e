"""Sealing: batches of the log are hashed, and chained, behind those who append."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator

import asyncpg

from langgraph_pgsaga.database import Database, load_statements
from langgraph_pgsaga.errors import BrokenSealError
from langgraph_pgsaga.events.merkle import Growing, leaf_hash, path_to, root_of
from langgraph_pgsaga.events.place import START, EventPlace
from langgraph_pgsaga.events.proving import InclusionProof, check_proof
from langgraph_pgsaga.events.seal import (
    COLUMNS,
    GENESIS,
    Seal,
    SealedRoot,
    leaf_of,
    seconds_of,
    split_leaves,
)
from langgraph_pgsaga.work import Periodic

STATEMENTS = load_statements("seals")
_log = logging.getLogger("langgraph_pgsaga.events")
MOST_EVENTS = 1000
# As they are stored, which may be compressed.
MOST_BYTES = 8 * 2**20
_HASHES_PER_PAGE = 10_000
_TENANTS_PER_PAGE = 1000


async def seal_log(db: Database, tenant_id: str) -> int:
    """Seals all of a tenant's events that can be; how many seals that took.

    Several may do so at once: each seal is stored by one of them.

    Raises:
        BrokenSealError: the last seal isn't as it was stored. Nothing is sealed behind it.
    """
    sealed = 0
    while True:
        head = await db.fetch_one(STATEMENTS["get_head"].bind(tenant_id=tenant_id))
        assert head is not None, "it gives a row always"
        _check_head(tenant_id, head)
        rows = await _read_page(db, tenant_id, _last_of(head))
        if not rows:
            return sealed
        sealed += await _store(db, tenant_id, head, rows)


async def seal_all_logs(db: Database) -> int:
    """`seal_log` of each tenant that has events. One whose chain is broken keeps no other back."""
    sealed, after = 0, None
    broken: BrokenSealError | None = None
    while True:
        statement = STATEMENTS["list_tenants"].bind(after_tenant=after, page=_TENANTS_PER_PAGE)
        rows = await db.fetch(statement)
        for row in rows:
            try:
                sealed += await seal_log(db, row["tenant_id"])
            except BrokenSealError as error:
                _log.error("a log can't be sealed on: %s", error)
                broken = error
        if len(rows) < _TENANTS_PER_PAGE:
            break
        after = rows[-1]["tenant_id"]
    if broken is not None:
        raise broken
    return sealed


def seal_job(
    db: Database, tenant_id: str | None, *, every_seconds: float, name: str | None
) -> Periodic:
    """The job that seals a tenant's log, or (None) those of all."""
    of = {None: " of all tenants", "": ""}.get(tenant_id, f" of {tenant_id}")

    async def work() -> int:
        sealed = await (seal_all_logs(db) if tenant_id is None else seal_log(db, tenant_id))
        if sealed:
            _log.info("sealed events%s: %d new seals", of, sealed)
        return sealed

    return Periodic(
        name=f"seal events{of}" if name is None else name,
        every_seconds=every_seconds,
        work=work,
        tenant_id=tenant_id or "",
    )


def _check_head(tenant_id: str, head: asyncpg.Record) -> None:
    number, greatest = head["number"], head["greatest"]
    if number != greatest:
        problem = f"{greatest or 'none'} is the last seal stored, and {number or 'none'} was made"
    elif head["hash"] != head["seal_hash"]:
        problem = "its hash isn't the one that was noted when it was made"
    else:
        return
    raise BrokenSealError(tenant_id=tenant_id, number=number or greatest, problem=problem)


def _last_of(head: asyncpg.Record) -> EventPlace:
    if head["number"] is None:
        return START
    return EventPlace.of_columns(head, "last")


async def _read_page(db: Database, tenant_id: str, start: EventPlace) -> list[asyncpg.Record]:
    pages = leaf_pages(db, tenant_id, start, None)
    try:
        return await anext(pages, [])
    finally:
        await pages.aclose()


async def leaf_pages(
    db: Database, tenant_id: str, start: EventPlace, end: EventPlace | None
) -> AsyncGenerator[list[asyncpg.Record]]:
    """The events behind a place, up to another or to the horizon, with what is hashed of them."""
    after, after_id = START, ""
    while True:
        statement = STATEMENTS["read_leaves"].bind(
            tenant_id=tenant_id,
            from_era=start.era,
            from_tx=start.tx,
            from_position=start.position,
            to_era=None if end is None else end.era,
            to_tx=None if end is None else end.tx,
            to_position=None if end is None else end.position,
            **after.after(),
            after_event_id=after_id,
            page=MOST_EVENTS,
            most_bytes=MOST_BYTES,
        )
        rows = await db.fetch(statement)
        if not rows:
            return
        yield rows
        after, after_id = EventPlace.of_row(rows[-1]), rows[-1]["event_id"]


async def _store(
    db: Database, tenant_id: str, head: asyncpg.Record, rows: list[asyncpg.Record]
) -> int:
    """Stores the seal of some events behind the head: 1, or 0 where somebody else did."""
    leaves = [leaf_of(row["columns"]) for row in rows]
    sealed_at = rows[0]["now"]
    seal = Seal(
        tenant_id=tenant_id,
        number=(head["number"] or 0) + 1,
        first=EventPlace.of_row(rows[0]),
        last=EventPlace.of_row(rows[-1]),
        events=len(rows),
        root=root_of(leaves),
        previous=head["hash"] or GENESIS,
        sealed_at=seconds_of(sealed_at),
    )
    statement = STATEMENTS["insert_seal"].bind(
        tenant_id=tenant_id,
        number=seal.number,
        first_era=seal.first.era,
        first_tx=seal.first.tx,
        first_position=seal.first.position,
        last_era=seal.last.era,
        last_tx=seal.last.tx,
        last_position=seal.last.position,
        events=seal.events,
        leaves=b"".join(leaves),
        root=seal.root,
        previous=seal.previous,
        hash=seal.hash(),
        sealed_at=sealed_at,
    )
    return 0 if await db.fetch_one(statement) is None else 1


# Roots and proofs


async def sealed_root(db: Database, tenant_id: str) -> SealedRoot | None:
    """The root of all seals of a tenant; None without any."""
    head = await db.fetch_one(STATEMENTS["get_head"].bind(tenant_id=tenant_id))
    assert head is not None
    _check_head(tenant_id, head)
    if head["number"] is None:
        return None
    tree = Growing()
    async for hashed in _hashes(db, tenant_id, head["number"]):
        tree.append(leaf_hash(hashed))
    return SealedRoot.of(tenant_id, tree.size, tree.root())


async def _hashes(db: Database, tenant_id: str, seals: int) -> AsyncIterator[bytes]:
    """The hashes of the first so many seals."""
    number = 0
    while number < seals:
        statement = STATEMENTS["list_seal_hashes"].bind(
            tenant_id=tenant_id, after_number=number, to_number=seals, page=_HASHES_PER_PAGE
        )
        rows = await db.fetch(statement)
        for row in rows:
            number += 1
            if row["number"] != number:
                break
            yield row["hash"]
        if not rows or rows[-1]["number"] != number:
            raise BrokenSealError(tenant_id=tenant_id, number=number, problem="it isn't there")


async def prove(
    db: Database, tenant_id: str, event_id: str, root: SealedRoot | None
) -> InclusionProof | None:
    """The way from an event to a root (None: of all seals); None where it has none."""
    event = await db.fetch_one(STATEMENTS["read_leaf"].bind(tenant_id=tenant_id, event_id=event_id))
    if event is None:
        return None
    place = EventPlace.of_row(event).named()
    row = await db.fetch_one(STATEMENTS["find_seal"].bind(tenant_id=tenant_id, **place))
    if row is None:
        return None
    seal, leaf = Seal.from_row(tenant_id, row), leaf_of(event["columns"])
    leaves = split_leaves(row["leaves"])
    if leaf not in leaves:
        problem = f"event {event_id!r} isn't as it was sealed"
        raise BrokenSealError(tenant_id=tenant_id, number=seal.number, problem=problem)
    if root is None:
        root = await sealed_root(db, tenant_id)
    if root is None or seal.number > root.seals:
        return None
    hashes = [leaf_hash(hashed) async for hashed in _hashes(db, tenant_id, root.seals)]
    index = leaves.index(leaf)
    proof = InclusionProof(
        columns=dict(zip(COLUMNS, event["columns"], strict=True)),
        index=index,
        path=path_to(leaves, index),
        seal=seal,
        seal_path=path_to(hashes, seal.number - 1),
        seals=root.seals,
    )
    if not check_proof(proof, root):
        problem = (
            "the way from it to the root doesn't hold: it, or another one, isn't as it was made"
        )
        raise BrokenSealError(tenant_id=tenant_id, number=seal.number, problem=problem)
    return proof
