"""What a saver has to answer: InMemorySaver, and what it lacks or does otherwise."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import (
    BaseMessage,
)
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.types import (
    TASKS,
)

from langgraph_pgsaga.errors import ThreadExistsError
from langgraph_pgsaga.threads import session_id_of
from tests.db._model_calls import Place, config_of

# What must come back


def assert_same(got: Any, want: Any, where: str) -> None:
    """Equal and of the same types, all the way down."""
    assert type(got) is type(want), f"{where}: {got!r} is not a {type(want).__name__}"
    if isinstance(want, dict):
        assert list(got) == list(want), f"{where}: {list(got)}"
        for key in want:
            assert_same(got[key], want[key], f"{where}[{key!r}]")
    elif isinstance(want, list | tuple):
        assert len(got) == len(want), f"{where}: {len(got)} elements, not {len(want)}"
        for i, (one, other) in enumerate(zip(got, want, strict=True)):
            assert_same(one, other, f"{where}[{i}]")
    elif isinstance(want, BaseMessage):
        assert_same(vars(got), vars(want), f"{where} {type(want).__name__}")
        assert got.model_fields_set == want.model_fields_set, where
        assert_same(got.model_extra, want.model_extra, f"{where} extra")
    elif isinstance(want, float):
        # NaN is no NaN's equal, and -0.0 is 0.0's.
        assert repr(got) == repr(want), where
    else:
        assert got == want, f"{where}: {got!r} is not {want!r}"


def assert_same_tuple(got: CheckpointTuple | None, want: CheckpointTuple | None) -> None:
    if got is None or want is None:
        assert got is want
        return
    where = f"{want.config['configurable']}"
    assert_same(got.config, want.config, f"{where} config")
    assert_same(got.parent_config, want.parent_config, f"{where} parent_config")
    for part in ("channel_values", "versions_seen", "channel_versions"):
        one, other = _by_key(got.checkpoint[part]), _by_key(want.checkpoint[part])
        assert_same(one, other, f"{where} {part}")
    rest = {"channel_values": None, "versions_seen": None, "channel_versions": None}
    assert_same(_by_key({**got.checkpoint, **rest}), _by_key({**want.checkpoint, **rest}), where)
    assert_same(_json_types(got.metadata), _json_types(want.metadata), f"{where} metadata")
    assert_same(got.pending_writes, want.pending_writes, f"{where} pending_writes")


def _by_key(value: Mapping[str, Any]) -> dict[str, Any]:
    """What stands in jsonb comes back in another order of its keys."""
    return {
        key: dict(sorted(inner.items())) if key == "node" else inner
        for key, inner in sorted(value.items())
    }


def _json_types(metadata: Any) -> Any:
    """Metadata is JSON: no tuples (LangGraph's counters come back as lists), no order of keys."""
    if isinstance(metadata, dict):
        return {key: _json_types(value) for key, value in sorted(metadata.items())}
    if isinstance(metadata, list | tuple):
        return [_json_types(value) for value in metadata]
    return metadata


def _contains(have: Any, want: Any) -> bool:
    """JSON containment, as PostgreSQL's `have @> want` has it for objects."""
    if isinstance(want, dict):
        return isinstance(have, dict) and all(
            key in have and _contains(have[key], value) for key, value in want.items()
        )
    if isinstance(want, list):
        return isinstance(have, list) and all(any(_contains(h, w) for h in have) for w in want)
    if isinstance(want, bool) or isinstance(have, bool):
        return have is want
    return bool(have == want)


@dataclass
class Reference:
    """InMemorySaver with what it lacks, and without where it strays from the contract."""

    memory: InMemorySaver = field(default_factory=InMemorySaver)
    # A thread is there from its first checkpoint to its deletion, also when a run's
    # deletion empties it. Writes alone make none.
    there: set[str] = field(default_factory=set)
    # When each checkpoint was first put, by thread, namespace and id: the contract's order.
    # InMemorySaver goes by ids.
    positions: dict[tuple[str, str, str], int] = field(default_factory=dict)
    puts: Iterator[int] = field(default_factory=itertools.count)

    def put(self, place: Place, *arguments: Any) -> RunnableConfig:
        self.there.add(place.thread_id)
        self.positions.setdefault(place[:3], next(self.puts))
        return self.memory.put(*arguments)

    def named(self, config: RunnableConfig) -> RunnableConfig:
        """The config with the id of its namespace's latest checkpoint, if it has none."""
        given = config["configurable"]
        if "checkpoint_id" in given:
            return config
        thread_id, ns = given["thread_id"], given.get("checkpoint_ns", "")
        latest = max(
            ((position, key[2]) for key, position in self.placed(thread_id) if key[1] == ns),
            default=None,
        )
        return config if latest is None else config_of(thread_id, ns, latest[1])

    def placed(self, thread_id: str) -> list[tuple[tuple[str, str, str], int]]:
        """The thread's checkpoints, each with its position."""
        return [(key, position) for key, position in self.positions.items() if key[0] == thread_id]

    def position(self, found: CheckpointTuple) -> int:
        return self.positions[found.config["configurable"]["thread_id"], *_key(found)]

    def delta_histories(self, config: RunnableConfig, channels: list[str]) -> Any:
        return self.memory.get_delta_channel_history(config=self.named(config), channels=channels)

    def tuples(self, thread_id: str) -> dict[tuple[str, str], CheckpointTuple]:
        found = list(self.memory.list(config_of(thread_id)))
        return {_key(one): one for one in found}

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        found = self.memory.get_tuple(self.named(config))
        return found and self._with_sends(found)

    def listed(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> list[CheckpointTuple]:
        # InMemorySaver lists thread by thread and namespace by namespace; the contract
        # is newest first. It filters by ==, where metadata is contained in PostgreSQL
        # and a missing key is no null. So limit and filter are applied here. Copies of a
        # thread share ids: among equals the order is only that it never changes.
        fitting = [
            self._with_sends(found)
            for found in self.memory.list(config)
            if _contains(_json_types(found.metadata), filter or {})
            if before is None or self._is_before(found, config or before, before)
        ]
        fitting.sort(key=lambda found: (-self.position(found), _session_of(found)))
        return fitting[:limit]

    def _is_before(
        self, found: CheckpointTuple, listed: RunnableConfig, before: RunnableConfig
    ) -> bool:
        """Whether it was put before that one of the listed thread, or else has a lower id."""
        thread_id, checkpoint_id = (
            listed["configurable"]["thread_id"],
            before["configurable"]["checkpoint_id"],
        )
        positions = {
            ns: position
            for (_, ns, other_id), position in self.placed(thread_id)
            if other_id == checkpoint_id
        }
        if not positions:
            return bool(found.checkpoint["id"] < checkpoint_id)
        # No two namespaces of a thread have the same id here, but copies of threads have.
        (position,) = positions.values()
        place = -position, session_id_of(thread_id)
        return (-self.position(found), _session_of(found)) > place

    def _with_sends(self, found: CheckpointTuple) -> CheckpointTuple:
        """Before format 4 the Sends of a checkpoint are its parent's writes.

        InMemorySaver doesn't migrate them on reading, its PostgreSQL sibling does.
        """
        sends = self._sends_of_parent(found)
        versions = found.checkpoint["channel_versions"]
        if not sends:
            return found
        found.checkpoint["channel_values"][TASKS] = sends
        versions[TASKS] = max(versions.values())
        return found

    def _sends_of_parent(self, found: CheckpointTuple) -> list[Any]:
        if found.checkpoint["v"] >= 4 or found.parent_config is None:
            return []
        configurable = found.parent_config["configurable"]
        key = (
            configurable["thread_id"],
            configurable["checkpoint_ns"],
            configurable["checkpoint_id"],
        )
        writes = self.memory._ordered_writes(*key) if key in self.memory.writes else []
        load = self.memory.serde.loads_typed
        return [load(value) for _, channel, value, _ in writes if channel == TASKS]

    def holds(self, thread_id: str) -> bool:
        return any(self.memory.storage.get(thread_id, {}).values()) or any(
            key[0] == thread_id for key in self.memory.writes
        )

    def delete_thread(self, thread_id: str) -> None:
        self.memory.delete_thread(thread_id)
        self.there.discard(thread_id)
        self._forget_deleted()

    def _forget_deleted(self) -> None:
        storage = self.memory.storage
        self.positions = {
            (thread_id, ns, checkpoint_id): position
            for (thread_id, ns, checkpoint_id), position in self.positions.items()
            if checkpoint_id in storage.get(thread_id, {}).get(ns, {})
        }

    def forget_stray_writes(self, thread_id: str) -> None:
        """Writes of a thread that was deleted go when something else of it is refused."""
        if thread_id not in self.there:
            for key in [key for key in self.memory.writes if key[0] == thread_id]:
                del self.memory.writes[key]

    def copy_thread(self, source: str, target: str) -> None:
        if source not in self.there:
            return
        if self.holds(target):
            raise ThreadExistsError(thread_id=target)
        if source != target:
            self._copy(source, target)

    def _copy(self, source: str, target: str) -> None:
        self.there.add(target)
        memory = self.memory
        for ns, saved in list(memory.storage.get(source, {}).items()):
            memory.storage[target][ns] = dict(saved)
        for (_, ns, checkpoint_id), position in self.placed(source):
            self.positions[target, ns, checkpoint_id] = position
        for (thread_id, *rest), writes in list(memory.writes.items()):
            if thread_id == source:
                memory.writes[(target, rest[0], rest[1])] = dict(writes)
        for (thread_id, ns, channel, version), value in list(memory.blobs.items()):
            if thread_id == source:
                memory.blobs[(target, ns, channel, version)] = value

    def delete_for_runs(self, run_ids: Iterable[str]) -> None:
        runs = set(run_ids)
        for thread_id in list(self.memory.storage):
            there = self.tuples(thread_id)
            gone = {key for key, found in there.items() if found.metadata.get("run_id") in runs}
            if gone:
                self._keep(thread_id, set(there) - gone)

    def keep_latest(self, thread_id: str) -> None:
        there = self.tuples(thread_id)
        heads = {
            ns: max((self.position(found), key[1]) for key, found in there.items() if key[0] == ns)[
                1
            ]
            for ns, _ in there
        }
        kept = {key for head in heads.items() for key in self._needed(there, head)}
        for ns, head_id in heads.items():
            root = ("", there[ns, head_id].metadata.get("parents", {}).get("", ""))
            # A subgraph call is over when the checkpoint it began at goes. Where that one
            # isn't saved (yet), the call may be running.
            if ":" in ns and root in there and root not in kept:
                kept -= {key for key in kept if key[0] == ns}
        self._keep(thread_id, kept)

    def _needed(
        self, there: Mapping[tuple[str, str], CheckpointTuple], head: tuple[str, str]
    ) -> Iterator[tuple[str, str]]:
        """The head, the parent that has its Sends, and what its delta channels replay."""
        yield head
        found = there[head]
        if self._sends_of_parent(found):
            yield from parents_of(found)
        for channel in found.metadata.get("counters_since_delta_snapshot", {}):
            at = found
            while channel not in at.checkpoint["channel_values"]:
                parent = next((key for key in parents_of(at) if key in there), None)
                if parent is None:
                    break
                yield parent
                at = there[parent]

    def _keep(self, thread_id: str, kept: set[tuple[str, str]]) -> None:
        """Drops the other checkpoints with their writes; whose parent is gone is a root."""
        memory = self.memory
        for ns, saved in memory.storage[thread_id].items():
            for checkpoint_id in [i for i in saved if (ns, i) not in kept]:
                del saved[checkpoint_id]
                memory.writes.pop((thread_id, ns, checkpoint_id), None)
            for checkpoint_id, (checkpoint, metadata, parent_id) in saved.items():
                if parent_id not in saved:
                    saved[checkpoint_id] = (checkpoint, metadata, None)
        self._forget_deleted()


def _key(found: CheckpointTuple) -> tuple[str, str]:
    configurable = found.config["configurable"]
    return configurable["checkpoint_ns"], configurable["checkpoint_id"]


def parents_of(found: CheckpointTuple) -> Iterator[tuple[str, str]]:
    if found.parent_config is not None:
        configurable = found.parent_config["configurable"]
        yield configurable["checkpoint_ns"], configurable["checkpoint_id"]


def _session_of(found: CheckpointTuple) -> uuid.UUID:
    return session_id_of(found.config["configurable"]["thread_id"])
