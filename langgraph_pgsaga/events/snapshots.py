"""Snapshots of aggregates, whose personal data is encrypted by the keys of those it is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from langgraph_pgsaga import _json
from langgraph_pgsaga.database import Connection, Database, load_statements
from langgraph_pgsaga.errors import AmbiguousAggregateError, MissingVersionError
from langgraph_pgsaga.events.erasure import KeyRing, ring_for
from langgraph_pgsaga.events.seal import framed
from langgraph_pgsaga.events.subjects import Mark, SubjectKey, SubjectKeys, decrypted, encrypted

_STATEMENTS = load_statements("events")


class SnapshotName(NamedTuple):
    """Which snapshot it is, of a tenant's."""

    aggregate_type: str
    aggregate_id: str
    version: int


class Snapshot(NamedTuple):
    """A snapshot as it was read, and the keys that it needed."""

    data: dict[str, Any]
    version: int
    keys: Mapping[UUID, SubjectKey]


async def store_snapshot(
    db: Database,
    tenant_id: str,
    name: SnapshotName,
    data: str,
    schema_version: int,
    keys: Sequence[SubjectKey],
    conn: Connection | None = None,
) -> None:
    """Stores a snapshot, whose data is this text; readable as long as all of the keys are there.

    Raises:
        MissingVersionError: the aggregate has no event of that version.
    """
    statement = _STATEMENTS["save_snapshot"].bind(
        tenant_id=tenant_id,
        aggregate_id=name.aggregate_id,
        aggregate_type=name.aggregate_type,
        version=name.version,
        snapshot_id=uuid4(),
        schema_version=schema_version,
        snapshot_data=_encrypted(keys, data, tenant_id, name) if keys else data,
    )
    row = await db.fetch_one(statement, conn=conn)
    assert row is not None, "it gives one always"
    if row["last_version"] < name.version:
        raise MissingVersionError(
            aggregate_type=name.aggregate_type,
            aggregate_id=name.aggregate_id,
            version=name.version,
            last_version=row["last_version"],
        )


async def latest_snapshot(
    db: Database,
    subjects: SubjectKeys | None,
    tenant_id: str,
    aggregate_id: str,
    aggregate_type: str | None,
    schema_version: int | None,
    to_version: int,
) -> Snapshot | None:
    """The one of the greatest version up to one, of a type and form (None: any), if it can be read.

    Raises:
        AmbiguousAggregateError: without a type, there are some of several.
    """
    statement = _STATEMENTS["get_latest_snapshot"].bind(
        tenant_id=tenant_id,
        aggregate_id=aggregate_id,
        aggregate_type=aggregate_type,
        schema_version=schema_version,
        to_version=to_version,
    )
    rows = await db.fetch(statement)
    if len(rows) > 1:
        types = tuple(row["aggregate_type"] for row in rows)
        raise AmbiguousAggregateError(aggregate_id=aggregate_id, aggregate_types=types)
    if not rows:
        return None
    [row] = rows
    ring = await ring_for(db, subjects, tenant_id, [row["snapshot_data"]])
    name = SnapshotName(row["aggregate_type"], aggregate_id, row["version"])
    return _read(ring, _json.load(row["snapshot_data"]), name)


def _encrypted(keys: Sequence[SubjectKey], data: str, tenant_id: str, name: SnapshotName) -> str:
    return _json.dump(encrypted(keys, _json.load(data), _bound_to(tenant_id, name)))


def _read(ring: KeyRing | None, stored: dict[str, Any], name: SnapshotName) -> Snapshot | None:
    """A snapshot in clear; None where it can't be read any more."""
    mark = Mark.of(stored)
    if mark is None:
        return Snapshot(stored, name.version, {})
    if ring is None:
        return None
    bound_to = _bound_to(ring.tenant_id, name)
    data, is_there = decrypted(mark, ring.keys, bound_to, f"snapshot of {name.aggregate_id!r}")
    if not is_there:
        return None
    return Snapshot(data, name.version, {key_id: ring.keys[key_id] for key_id in mark.key_ids})


def _bound_to(tenant_id: str, name: SnapshotName) -> bytes:
    """What an encrypted snapshot is bound to."""
    return framed(("pgsaga snapshot 1", tenant_id, *map(str, name)))
