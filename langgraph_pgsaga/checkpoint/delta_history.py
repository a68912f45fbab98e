"""The history of delta channels: what their ancestors wrote, and the Sends of old formats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg
from langgraph.checkpoint.base import (
    DeltaChannelHistory,
    PendingWrite,
)
from langgraph.checkpoint.serde.types import TASKS

from langgraph_pgsaga import _json
from langgraph_pgsaga.checkpoint.contents import Contents, ValueKey
from langgraph_pgsaga.checkpoint.decode import (
    decode_value,
    inline_values,
    placed,
    reading,
    value_of,
)
from langgraph_pgsaga.checkpoint.session_cache import SessionCache
from langgraph_pgsaga.checkpoint.stored_message import MessageCodec
from langgraph_pgsaga.database import Connection, Database, load_statements
from langgraph_pgsaga.errors import CheckpointDeletedError, CorruptValueError
from langgraph_pgsaga.threads import Address

_STATEMENTS = load_statements("history")


_HOT = load_statements("checkpoint")


async def delta_channel_history(
    db: Database,
    codec: MessageCodec,
    cache: SessionCache,
    address: Address,
    channels: Sequence[str],
) -> dict[str, DeltaChannelHistory]:
    """What each channel's ancestors wrote, oldest first, back to its nearest stored value.

    The contract is BaseCheckpointSaver.get_delta_channel_history's. Takes three or
    four statements, however long the way is, which see one moment.

    Raises:
        CheckpointDeletedError: the checkpoint was deleted since it was read by this process,
            or may be what it is built on.
        CorruptValueError: a checkpoint is its own ancestor.
    """
    names = list(dict.fromkeys(channels))
    if not names:
        return {}
    known = cache.known(address.session_id)
    key = address.stored_ns, address.checkpoint_id or ""

    async def work(conn: Connection) -> dict[str, DeltaChannelHistory]:
        steps = _STATEMENTS["walk_delta_channels"].bind(
            session_id=address.session_id,
            checkpoint_ns=address.stored_ns,
            checkpoint_id=address.checkpoint_id,
            channels=names,
        )
        walk = await db.fetch(steps, conn=conn)
        _check_walk(address, walk, known.states.get(key) if known else None)
        seeds = await _seeds(db, codec, address, walk, conn)
        writes = await _channel_writes(db, codec, address, walk, names, conn)
        return {name: _delta_history(writes[name], name, seeds) for name in names}

    return await db.snapshot(work)


def _check_walk(address: Address, walk: list[asyncpg.Record], seen: int | None) -> None:
    """`seen` is the session's deletion_count of when the checkpoint was there."""
    first, last = walk[0], walk[-1]
    if last["is_again"]:
        with placed(address.given_thread_id, address.stored_ns, last["checkpoint_id"]):
            raise CorruptValueError(what="its history", problem="it is its own ancestor")
    # Where an ancestor is gone, its child is a root: the walk then ends without a value.
    is_cut = first["deletion_count"] != seen and set(last["open_channels"]) > set(
        last["found_channels"]
    )
    if seen is not None and (first["checkpoint_id"] is None or is_cut):
        raise CheckpointDeletedError(
            thread_id=address.thread_id, checkpoint_id=address.checkpoint_id or ""
        )


async def _channel_writes(
    db: Database,
    codec: MessageCodec,
    address: Address,
    walk: list[asyncpg.Record],
    names: list[str],
    conn: Connection,
) -> dict[str, list[PendingWrite]]:
    """What was written to each channel at the checkpoints of the walk, oldest first."""
    ancestors = walk[1:]
    open_at = {row["checkpoint_id"]: set(row["open_channels"]) for row in ancestors}
    select = _STATEMENTS["select_channel_writes"].bind(
        session_id=address.session_id,
        checkpoint_ns=address.stored_ns,
        checkpoint_ids=[row["checkpoint_id"] for row in reversed(ancestors)],
        channels=names,
    )
    with reading(thread_id=address.thread_id):
        rows = await db.fetch(select, conn=conn)
    contents = Contents(db, codec)
    await contents.fetch_messages(((address.session_id, row["message_runs"]) for row in rows), conn)
    messages = contents.messages(address.session_id)
    writes: dict[str, list[PendingWrite]] = {name: [] for name in names}
    for row in rows:
        if row["channel"] in open_at[row["checkpoint_id"]]:
            with placed(address.given_thread_id, address.stored_ns, row["checkpoint_id"]):
                value = decode_value(codec.values, row["channel"], value_of(row), messages)
            writes[row["channel"]].append((row["task_id"], row["channel"], value))
    return writes


async def pending_sends(
    db: Database, codec: MessageCodec, address: Address, checkpoint_id: str, conn: Connection
) -> list[Any]:
    """The Sends among a checkpoint's writes, in order."""
    select = _HOT["select_pending_sends"].bind(
        session_id=address.session_id,
        checkpoint_ns=address.stored_ns,
        checkpoint_id=checkpoint_id,
        channel=TASKS,
    )
    with reading(thread_id=address.thread_id):
        rows = await db.fetch(select, conn=conn)
    contents = Contents(db, codec)
    runs = ((address.session_id, row["message_runs"]) for row in rows)
    await contents.fetch_messages(runs, conn)
    messages = contents.messages(address.session_id)
    with placed(address.given_thread_id, address.stored_ns, checkpoint_id):
        return [decode_value(codec.values, TASKS, value_of(row), messages) for row in rows]


async def _seeds(
    db: Database,
    codec: MessageCodec,
    address: Address,
    walk: list[asyncpg.Record],
    conn: Connection,
) -> dict[str, Any]:
    seeds: dict[str, Any] = {}
    keys: list[ValueKey] = []
    for row in walk:
        for channel in row["found_channels"]:
            inline = inline_values(row["state_data"])
            if channel in inline and not codec.values.encrypts:
                seeds[channel] = inline[channel]
            else:
                version = str(_json.load(row["state_data"])["channel_versions"][channel])
                keys.append(ValueKey(address.session_id, address.stored_ns, channel, version))
    contents = Contents(db, codec)
    await contents.fetch(keys, conn)
    with placed(address.given_thread_id, address.stored_ns, address.checkpoint_id or ""):
        return {**seeds, **contents.values(keys)}


def _delta_history(
    writes: list[PendingWrite], channel: str, seeds: Mapping[str, Any]
) -> DeltaChannelHistory:
    if channel in seeds:
        return {"writes": writes, "seed": seeds[channel]}
    return {"writes": writes}
