"""Random sequences of calls give the same answers as InMemorySaver.

InMemorySaver stands for the contract where it implements it. `Reference` adds what it
lacks (copy_thread, prune, delete_for_runs, the Sends of old checkpoints), and says where
its answers differ from the contract.

The sequences keep one invariant of LangGraph: a (channel, version) has one value. Every
new value gets a version from `get_next_version`, whose random part differs on every
branch. InMemorySaver and the saver may then both store a value once per version.
"""

from __future__ import annotations

import asyncio
import datetime
import decimal
import itertools
import os
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import asyncpg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.types import (
    ERROR,
    INTERRUPT,
    RESUME,
    SCHEDULED,
    TASKS,
    _DeltaSnapshot,
)
from langgraph.types import Interrupt, Send

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.checkpoint.session_cache import is_same_session
from langgraph_pgsaga.errors import CheckpointDeletedError, ThreadDeletedError, ThreadExistsError
from langgraph_pgsaga.threads import session_id_of
from tests._tables import SESSION_TABLES

_FULL = os.environ.get("PGSAGA_FULL") == "1"
_SETTINGS = settings(
    max_examples=250 if _FULL else 25,
    stateful_step_count=50 if _FULL else 30,
    deadline=None,
    derandomize=False,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
# Every example has threads and runs of its own in the one database.
_examples = itertools.count(1)

_CHANNELS = ("a", "b", "messages")
_DELTA = "delta"
_ROOT_IDS_BEFORE_ANY = "00000000"


class Place(NamedTuple):
    """Where a checkpoint is, or will be; `parent_id` is what it is put under."""

    thread_id: str
    checkpoint_ns: str
    checkpoint_id: str
    parent_id: str | None

    @property
    def config(self) -> RunnableConfig:
        return _config(self.thread_id, self.checkpoint_ns, self.checkpoint_id)


def _config(
    thread_id: str, checkpoint_ns: str | None = None, checkpoint_id: str | None = None
) -> RunnableConfig:
    given = {"checkpoint_ns": checkpoint_ns, "checkpoint_id": checkpoint_id}
    there = {k: v for k, v in given.items() if v is not None}
    return {"configurable": {"thread_id": thread_id, **there}}


# What is stored


def _long_text(size: int) -> str:
    return "".join(chr(97 + i % 23) for i in range(size))


# Long ones are mapped and large strategies are functions: hypothesis prints strategies,
# and warns where that takes many lines. The sizes are on both sides of what stands
# inline (256) and of what goes by hash (2048).
_texts = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=8),
    st.sampled_from([0, 255, 256, 257, 2030, 2047, 2048, 9000]).map(_long_text),
)
_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([0.0, -0.0, 1.0, 1e300, float("nan"), float("inf"), 2**53, -(2**53) + 1]),
    st.floats(allow_nan=True),
    _texts,
    st.binary(max_size=5),
    st.just(3000).map(bytes),
    st.sampled_from(
        [
            uuid.UUID(int=7),
            decimal.Decimal("1.10"),
            datetime.datetime(2024, 5, 17, 12, tzinfo=datetime.UTC),
            Send("node", {"n": 1}),
            Interrupt(value="why?", id="i-1"),
        ]
    ),
)
_message_ids = st.sampled_from([None, "m1", "m2", "m3", "m4"])
_contents = st.one_of(
    st.sampled_from(["", "hello", "nul\0", "émoji 🎉"]),
    st.just(3000).map(_long_text),
    st.just([{"type": "text", "text": "look"}, {"type": "image_url", "image_url": "x"}]),
)
_some_message: st.SearchStrategy[BaseMessage] = st.one_of(
    st.builds(HumanMessage, content=_contents, id=_message_ids),
    st.builds(SystemMessage, content=_contents, id=_message_ids),
    st.builds(AIMessage, content=_contents, id=_message_ids),
    st.builds(AIMessageChunk, content=_contents, id=_message_ids),
    st.builds(ChatMessage, content=_contents, id=_message_ids, role=st.just("critic")),
    st.builds(ToolMessage, content=_contents, id=_message_ids, tool_call_id=st.just("c1")),
    st.builds(
        AIMessage,
        content=_contents,
        id=_message_ids,
        tool_calls=st.just([{"name": "search", "args": {"q": 1.5}, "id": "c1"}]),
    ),
    st.sampled_from(["m1", "m2"]).map(lambda id_: RemoveMessage(id=id_)),
)


@st.composite
def _message(draw: st.DrawFn) -> BaseMessage:
    return draw(_some_message)


# Few enough that deleted messages come again.
_common_messages = st.sampled_from(
    [
        HumanMessage("hello", id="m1"),
        HumanMessage("hello", id="m2"),
        AIMessage("hello", id="m1"),
        HumanMessage("hello"),
    ]
)
_messages = st.one_of(_common_messages, _message())
_message_lists = st.lists(_messages, max_size=5)
_some_value = st.one_of(
    _scalars,
    st.lists(_scalars, max_size=3),
    st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=3), _scalars, max_size=3),
    st.tuples(_scalars, _scalars),
    st.sets(st.integers(0, 5)),
    _message_lists,
    _messages,
    st.fixed_dictionaries({"inside": _message_lists}),
)


@st.composite
def _value(draw: st.DrawFn) -> Any:
    return draw(_some_value)


_values = _value()

# How a channel changes. Edits say what happens to the list of messages that is there.
_places_in_list = st.integers(0, 40)
_edits = st.lists(
    st.one_of(
        st.tuples(st.just("append"), _messages),
        st.tuples(st.just("extend"), _message_lists),
        st.tuples(st.just("edit"), _places_in_list, _messages),
        st.tuples(st.just("remove"), _places_in_list),
        st.tuples(st.just("duplicate"), _places_in_list),
        st.tuples(st.just("trim"), _places_in_list),
        st.tuples(st.just("reverse")),
    ),
    min_size=1,
    max_size=4,
)
_GONE = "no value"
_updates = st.fixed_dictionaries(
    {},
    optional={
        "a": st.one_of(_values, st.just(_DeltaSnapshot(True))),
        "b": st.one_of(_values, st.just(_GONE)),
        "messages": st.one_of(_edits, st.just(_GONE)),
        _DELTA: st.one_of(
            st.just(_GONE), _values.map(_DeltaSnapshot), _message_lists.map(_DeltaSnapshot)
        ),
    },
)
_metadata = st.fixed_dictionaries(
    {
        "source": st.sampled_from(["input", "loop", "update", "fork"]),
        "step": st.integers(-1, 3),
    },
    optional={
        "flag": st.booleans(),
        "nothing": st.none(),
        "score": st.sampled_from([0.5, 1.0, 2]),
        "tags": st.lists(st.sampled_from(["x", "y", 1]), max_size=3),
        "nested": st.fixed_dictionaries(
            {}, optional={"k": st.integers(0, 1), "l": st.lists(st.integers(0, 1), max_size=2)}
        ),
        # JSON can't hold these, so the whole goes to bytes.
        "odd": st.sampled_from([float("nan"), ["nul\0"], {"deep": float("inf")}, 2**60]),
        "text": st.sampled_from(["nul\0 is dropped", "quote ' percent % \\"]),
    },
)
_filters = st.fixed_dictionaries(
    {},
    optional={
        "source": st.sampled_from(["input", "loop", "no such"]),
        "step": st.one_of(st.integers(-1, 3), st.sampled_from([True, 1.0])),
        "flag": st.one_of(st.booleans(), st.just(1)),
        "nothing": st.none(),
        "score": st.sampled_from([0.5, 1, 2.0]),
        "tags": st.lists(st.sampled_from(["x", "y", 1]), max_size=2),
        "nested": st.sampled_from([{}, {"k": 1}, {"l": []}, {"l": [1]}, {"k": 0, "l": [0]}]),
        "absent": st.just("x"),
    },
)
_few_filters: st.SearchStrategy[dict[str, Any]] = st.one_of(st.just({}), _filters)
_runs = st.sampled_from(["r1", "r2", "r3"])
_namespaces = st.sampled_from(["", "", "", "kept", "child:1", "child:2", "child:1|grand:1"])
_threads = st.sampled_from(["t1", 't\'2 %s "é"', "t3"])
# Some large ones, since these go by another statement.
_written = st.one_of(_values, _texts, st.sampled_from([2048, 9000]).map(_long_text))
_writes = st.lists(
    st.tuples(
        st.sampled_from(
            ["a", "messages", _DELTA, _DELTA, ERROR, INTERRUPT, RESUME, SCHEDULED, TASKS, TASKS]
        ),
        _written,
    ),
    max_size=4,
)
_task_ids = st.sampled_from(["task-1", "0-task", "ffff-task"])
_task_paths = st.sampled_from(["", "~__pregel_pull, a", "~__pregel_push, é"])


def _edited(messages: Any, edits: Iterable[tuple[Any, ...]]) -> list[Any]:
    """`messages` (or none, where the channel holds no list) after the edits."""
    result = list(messages) if isinstance(messages, list) else []
    for edit in edits:
        _edit(result, *edit)
    return result


def _edit(messages: list[Any], kind: str, *arguments: Any) -> None:
    match kind:
        case "append":
            messages.append(arguments[0])
        case "extend":
            messages.extend(arguments[0])
        case _ if not messages:
            return
        case "edit":
            messages[arguments[0] % len(messages)] = arguments[1]
        case "remove":
            del messages[arguments[0] % len(messages)]
        case "duplicate":
            messages.append(messages[arguments[0] % len(messages)])
        case "trim":
            del messages[: arguments[0] % len(messages)]
        case _:
            messages.reverse()


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
        return config if latest is None else _config(thread_id, ns, latest[1])

    def placed(self, thread_id: str) -> list[tuple[tuple[str, str, str], int]]:
        """The thread's checkpoints, each with its position."""
        return [(key, position) for key, position in self.positions.items() if key[0] == thread_id]

    def position(self, found: CheckpointTuple) -> int:
        return self.positions[found.config["configurable"]["thread_id"], *_key(found)]

    def delta_histories(self, config: RunnableConfig, channels: list[str]) -> Any:
        return self.memory.get_delta_channel_history(config=self.named(config), channels=channels)

    def tuples(self, thread_id: str) -> dict[tuple[str, str], CheckpointTuple]:
        found = list(self.memory.list(_config(thread_id)))
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
            yield from _parents(found)
        for channel in found.metadata.get("counters_since_delta_snapshot", {}):
            at = found
            while channel not in at.checkpoint["channel_values"]:
                parent = next((key for key in _parents(at) if key in there), None)
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


def _parents(found: CheckpointTuple) -> Iterator[tuple[str, str]]:
    if found.parent_config is not None:
        configurable = found.parent_config["configurable"]
        yield configurable["checkpoint_ns"], configurable["checkpoint_id"]


def _session_of(found: CheckpointTuple) -> uuid.UUID:
    return session_id_of(found.config["configurable"]["thread_id"])


# The saver, driven one way or the other


@dataclass
class Driver:
    """The saver's methods by their sync names, through its sync or its async API."""

    saver: PostgresSaver
    runner: asyncio.Runner
    conn: asyncpg.Connection[asyncpg.Record]
    is_async: bool

    def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        if self.is_async:
            return self.runner.run(getattr(self.saver, f"a{method}")(*args, **kwargs))
        return getattr(self.saver, method)(*args, **kwargs)

    def listed(self, config: RunnableConfig | None, **kwargs: Any) -> list[CheckpointTuple]:
        async def everything() -> list[CheckpointTuple]:
            return [found async for found in self.saver.alist(config, **kwargs)]

        return (
            self.runner.run(everything()) if self.is_async else [*self.saver.list(config, **kwargs)]
        )

    def count(self, query: str, *args: Any) -> int:
        number = self.runner.run(self.conn.fetchval(query, *args))
        assert isinstance(number, int)
        return number


_ROWS_OF = " + ".join(
    f"(select count(*) from {table} where session_id = any($1::uuid[]))" for table in SESSION_TABLES
)
_UNREFERENCED = """
select
  (select count(*) from agent_state_blobs b where b.session_id = any($1::uuid[])
    and not exists (select from agent_state_values v
      where v.session_id = b.session_id and b.hash = any(v.blob_hashes))
    and not exists (select from agent_state_writes w
      where w.session_id = b.session_id and b.hash = any(w.blob_hashes)))
  + (select count(*) from agent_messages m where m.session_id = any($1::uuid[])
    and not exists (select from agent_state_values v, generate_subscripts(v.message_runs, 1) i
      where v.session_id = m.session_id and i % 2 = 1
        and m.message_no between v.message_runs[i] and v.message_runs[i + 1])
    and not exists (select from agent_state_writes w, generate_subscripts(w.message_runs, 1) i
      where w.session_id = m.session_id and i % 2 = 1
        and m.message_no between w.message_runs[i] and w.message_runs[i + 1]))
  + (select count(*) from agent_state_values v where v.session_id = any($1::uuid[])
    and not exists (select from agent_states s
      where s.session_id = v.session_id and s.checkpoint_ns = v.checkpoint_ns
        and s.state_data -> 'channel_versions' ->> v.channel = v.version))
"""


class SaverMachine(RuleBasedStateMachine):
    """Calls the saver and the reference alike, and compares what they answer."""

    saved = Bundle("saved")
    announced = Bundle("announced")

    def __init__(self, driver: Driver) -> None:
        super().__init__()
        self.driver = driver
        self.reference = Reference()
        self.example = f"example-{next(_examples)}"
        self.ids = itertools.count(1)
        self.threads: set[str] = set()
        self.has_chain = False

    def thread(self, name: str) -> str:
        thread_id = f"{self.example} {name}"
        self.threads.add(thread_id)
        return thread_id

    def new_place(self, thread_id: str, ns: str, parent_id: str | None) -> Place:
        # By clocks that disagree: three of four ids are lower than some before them.
        number = next(self.ids)
        return Place(thread_id, ns, f"{1000 + 10 * number - 173 * (number % 4):08d}", parent_id)

    # Writing

    @rule(target=saved, thread=_threads, ns=_namespaces, updates=_updates, metadata=_metadata)
    def put_first(
        self, thread: str, ns: str, updates: dict[str, Any], metadata: dict[str, Any]
    ) -> Place:
        place = self.new_place(self.thread(thread), ns, None)
        return self.put(place, updates, metadata, root=0)

    @rule(
        target=saved,
        parent=saved,
        updates=_updates,
        metadata=_metadata,
        root=st.integers(0, 9),
        run=_runs,
        v=st.sampled_from([4, 4, 3, 1]),
    )
    def put_child(
        self,
        parent: Place,
        updates: dict[str, Any],
        metadata: dict[str, Any],
        root: int,
        run: str,
        v: int,
    ) -> Place:
        """A next step, or a fork where `parent` isn't the latest; `parent` may be gone."""
        if v < 4:
            # Without any version, the migrated Sends would get a random one.
            updates = {"a": v, **updates}
        place = self.new_place(parent.thread_id, parent.checkpoint_ns, parent.checkpoint_id)
        self.put(place, updates, {**metadata, "run_id": self.run(run)}, root=root, v=v)
        self.compare_tuples(place.config, place)
        self.compare_histories(place.config, [*_CHANNELS, _DELTA])
        return place

    @rule(target=announced, thread=_threads, ns=_namespaces)
    def announce_first(self, thread: str, ns: str) -> Place:
        return self.new_place(self.thread(thread), ns, None)

    @rule(target=announced, parent=saved)
    def announce_child(self, parent: Place) -> Place:
        """A checkpoint whose writes may come before it, and which may be put twice."""
        return self.new_place(parent.thread_id, parent.checkpoint_ns, parent.checkpoint_id)

    @rule(
        target=saved,
        place=announced,
        updates=_updates,
        metadata=_metadata,
        root=st.integers(0, 9),
    )
    def put_announced(
        self, place: Place, updates: dict[str, Any], metadata: dict[str, Any], root: int
    ) -> Place:
        return self.put(place, updates, metadata, root=root)

    @precondition(lambda self: not self.has_chain)
    @rule(target=saved, parent=saved, length=st.integers(20, 45), edits=_edits)
    def put_chain(self, parent: Place, length: int, edits: list[Any]) -> Place:
        """So many steps that listings take several pages."""
        self.has_chain = True
        place = parent
        for step in range(length):
            updates: dict[str, Any] = {"a": step}
            if step % 5 == 0:
                updates["messages"] = edits
            next_place = self.new_place(parent.thread_id, parent.checkpoint_ns, place.checkpoint_id)
            place = self.put(next_place, updates, {"source": "loop", "step": step}, root=0)
        return place

    def put(
        self,
        place: Place,
        updates: dict[str, Any],
        metadata: dict[str, Any],
        *,
        root: int,
        v: int = 4,
    ) -> Place:
        values, versions = self.state_of_parent(place)
        new_versions: dict[str, Any] = {}
        for channel, update in updates.items():
            next_version = self.driver.saver.get_next_version(versions.get(channel), None)
            versions[channel] = new_versions[channel] = next_version
            if update == _GONE and isinstance(update, str):
                values.pop(channel, None)
            elif channel == "messages":
                values[channel] = _edited(values.get(channel), update)
            else:
                values[channel] = update
        checkpoint: Any = {
            "v": v,
            "id": place.checkpoint_id,
            "ts": "2024-05-17T12:00:00+00:00",
            "channel_values": values,
            "channel_versions": versions,
            "versions_seen": {"node": dict(versions), "__input__": {}},
            "updated_channels": sorted(updates),
        }
        described: Any = {
            **metadata,
            **self.lineage(place, root),
            **self.delta_counters(place, values, versions, _DELTA in updates),
        }
        config = self.put_config(place)
        if self.was_deleted(place.thread_id) and (place.parent_id or place.checkpoint_ns):
            with pytest.raises(ThreadDeletedError):
                self.driver.call("put", config, checkpoint, described, new_versions)
            self.reference.forget_stray_writes(place.thread_id)
            return place
        if place.parent_id and self.is_gone(place.thread_id, place.checkpoint_ns, place.parent_id):
            with pytest.raises(CheckpointDeletedError):
                self.driver.call("put", config, checkpoint, described, new_versions)
            return place
        got = self.driver.call("put", config, checkpoint, described, new_versions)
        want = self.reference.put(place, config, checkpoint, described, new_versions)
        assert_same(got, want, "put")
        return place

    def is_gone(self, thread_id: str, ns: str, checkpoint_id: str) -> bool:
        """Whether the saver has read or written the checkpoint, and it was deleted since."""
        known = self.driver.saver._cache.known(session_id_of(thread_id))
        is_there = (thread_id, ns, checkpoint_id) in self.reference.positions
        return known is not None and (ns, checkpoint_id) in known.states and not is_there

    def was_deleted(self, thread_id: str) -> bool:
        """Whether the saver has worked with the thread, and it is gone, or another one."""
        known = self.driver.saver._cache.known(session_id_of(thread_id))
        query = "select coalesce(max(message_epoch), -1) from agent_sessions where thread_id = $1"
        epoch = self.driver.count(query, thread_id)
        return known is not None and not is_same_session(known.epoch, epoch)

    def put_config(self, place: Place) -> RunnableConfig:
        config = _config(place.thread_id, place.checkpoint_ns, place.parent_id)
        # What LangGraph's own configs hold beside the address: some of it becomes
        # metadata, and live objects are never stored.
        config["configurable"].update({"user_id": "u-1", "__pregel_runtime": object()})
        config["metadata"] = {"example": self.example, "langgraph_step": 1}
        return config

    def state_of_parent(self, place: Place) -> tuple[dict[str, Any], dict[str, Any]]:
        """What a graph that resumed from the parent holds; nothing where that is gone."""
        config = _config(place.thread_id, place.checkpoint_ns, place.parent_id)
        found = self.reference.memory.get_tuple(config) if place.parent_id else None
        if found is None:
            return {}, {}
        values = found.checkpoint["channel_values"]
        # A delta channel is stored where it makes a snapshot, and replayed elsewhere.
        values.pop(_DELTA, None)
        return values, found.checkpoint["channel_versions"]

    def lineage(self, place: Place, root: int) -> dict[str, Any]:
        """`parents` as LangGraph writes them: a subgraph's begins at a root checkpoint."""
        if not place.checkpoint_ns:
            return {"parents": {}}
        placed = self.reference.placed(place.thread_id)
        roots = [key[2] for key, _ in sorted(placed, key=lambda pair: pair[1]) if not key[1]]
        choices = [*reversed(roots), _ROOT_IDS_BEFORE_ANY]
        return {"parents": {"": choices[min(root, len(choices) - 1)]}}

    def delta_counters(
        self, place: Place, values: dict[str, Any], versions: dict[str, Any], is_updated: bool
    ) -> dict[str, Any]:
        """The counter that LangGraph keeps while a delta channel has no snapshot."""
        if _DELTA not in versions or _DELTA in values:
            return {}
        return {"counters_since_delta_snapshot": {_DELTA: (int(is_updated), 1)}}

    def run(self, name: str) -> str:
        return f"{self.example} {name}"

    @rule(
        place=st.one_of(saved, announced),
        calls=st.lists(st.tuples(_writes, _task_ids, _task_paths), min_size=1, max_size=5),
    )
    def put_writes_of_a_step(
        self, place: Place, calls: list[tuple[list[tuple[str, Any]], str, str]]
    ) -> None:
        """Several tasks; one that comes again has other values, as on a second run."""
        for call in calls:
            self.put_writes(place, *call)
        self.compare_tuples(place.config, place)

    def put_writes(
        self, place: Place, writes: list[tuple[str, Any]], task_id: str, task_path: str
    ) -> None:
        try:
            self.driver.call("put_writes", place.config, writes, task_id, task_path)
        except ThreadDeletedError:
            # Those that need the thread; the others do no harm until a checkpoint follows.
            assert self.was_deleted(place.thread_id)
            self.reference.forget_stray_writes(place.thread_id)
        else:
            self.reference_call("put_writes", place.config, writes, task_id, task_path)

    def reference_call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.reference.memory, method)(*args, **kwargs)

    # Reading

    @rule(place=st.one_of(saved, announced), by_id=st.booleans())
    def get_tuple(self, place: Place, by_id: bool) -> None:
        config = _config(
            place.thread_id,
            # The root namespace may be left out.
            place.checkpoint_ns or None,
            place.checkpoint_id if by_id else None,
        )
        self.compare_tuples(config, place)

    def compare_tuples(self, config: RunnableConfig, place: Place) -> None:
        want = self.reference.get_tuple(config)
        if want is not None:
            # InMemorySaver hands back the caller's own config, whatever else is in it.
            ns, checkpoint_id = place.checkpoint_ns, want.checkpoint["id"]
            want = want._replace(config=_config(place.thread_id, ns, checkpoint_id))
        assert_same_tuple(self.driver.call("get_tuple", config), want)

    @rule(thread=_threads, ns=_namespaces, checkpoint_id=st.sampled_from([None, "99999999"]))
    def get_anything(self, thread: str, ns: str, checkpoint_id: str | None) -> None:
        config = _config(self.thread(thread), ns, checkpoint_id)
        assert_same_tuple(self.driver.call("get_tuple", config), self.reference.get_tuple(config))

    @rule(
        place=saved,
        before=st.one_of(st.none(), saved),
        is_before_itself=st.booleans(),
        limit=st.one_of(st.none(), st.none(), st.integers(0, 40)),
        metadata=_few_filters,
        run=st.one_of(st.none(), st.none(), _runs),
    )
    def list_some(
        self,
        place: Place,
        before: Place | None,
        is_before_itself: bool,
        limit: int | None,
        metadata: dict[str, Any],
        run: str | None,
    ) -> None:
        filter_ = dict(metadata) if run is None else {**metadata, "run_id": self.run(run)}
        before = place if is_before_itself else before
        arguments: Any = {"before": before and before.config, "limit": limit}
        for config in (
            _config(place.thread_id),
            _config(place.thread_id, place.checkpoint_ns),
            place.config,
            _config(place.thread_id, None, place.checkpoint_id),
            # The database holds no other example's threads: each deletes its own.
            None,
        ):
            self.compare_lists(config, filter=filter_, **arguments)
        self.compare_lists(None, filter={**filter_, "example": self.example}, **arguments)

    def compare_lists(self, config: RunnableConfig | None, **arguments: Any) -> None:
        got = self.driver.listed(config, **arguments)
        want = self.reference.listed(config, **arguments)
        assert [found.config for found in got] == [found.config for found in want]
        for one, other in zip(got, want, strict=True):
            assert_same_tuple(one, other)

    @rule(
        place=saved,
        by_id=st.booleans(),
        channels=st.lists(st.sampled_from([_DELTA, "messages", "a", "no such"]), max_size=3),
    )
    def get_delta_channel_history(self, place: Place, by_id: bool, channels: list[str]) -> None:
        config = _config(
            place.thread_id, place.checkpoint_ns, place.checkpoint_id if by_id else None
        )
        self.compare_histories(config, channels)

    def compare_histories(self, config: RunnableConfig, channels: list[str]) -> None:
        want = self.reference.delta_histories(config, channels)
        place = {"checkpoint_ns": "", "checkpoint_id": "", **config["configurable"]}
        is_gone = channels and self.is_gone(
            place["thread_id"], place["checkpoint_ns"], place["checkpoint_id"]
        )
        try:
            got = self.driver.call("get_delta_channel_history", config=config, channels=channels)
        except CheckpointDeletedError:
            # What it is built on may be gone, too, where something of the thread is.
            assert is_gone or any("seed" not in found for found in want.values())
        else:
            assert not is_gone
            assert_same(got, want, f"history of {config}")

    # Deleting and copying

    @precondition(lambda self: len(self.reference.memory.writes) > 3)
    @rule(thread=_threads, by_pruning=st.booleans())
    def delete_thread(self, thread: str, by_pruning: bool) -> None:
        thread_id = self.thread(thread)
        if by_pruning:
            self.driver.call("prune", [thread_id], strategy="delete")
        else:
            self.driver.call("delete_thread", thread_id)
        self.reference.delete_thread(thread_id)
        self.assert_no_rows([thread_id])

    @rule(target=saved, source=_threads, target_thread=_threads)
    def copy_thread(self, source: str, target_thread: str) -> Any:
        source_id, target_id = self.thread(source), self.thread(target_thread)
        before = self.reference.tuples(target_id)
        try:
            self.reference.copy_thread(source_id, target_id)
        except ThreadExistsError:
            with pytest.raises(ThreadExistsError):
                self.driver.call("copy_thread", source_id, target_id)
            return multiple()
        self.driver.call("copy_thread", source_id, target_id)
        self.compare_lists(_config(target_id))
        if target_id not in self.reference.there and not self.reference.holds(target_id):
            self.assert_no_rows([target_id])
        return multiple(
            *(
                Place(target_id, ns, checkpoint_id, next((i for _, i in _parents(found)), None))
                for (ns, checkpoint_id), found in self.reference.tuples(target_id).items()
                if (ns, checkpoint_id) not in before
            )
        )

    @rule(threads=st.lists(_threads, max_size=3))
    def prune(self, threads: list[str]) -> None:
        thread_ids = [self.thread(name) for name in threads]
        self.driver.call("prune", thread_ids)
        for thread_id in thread_ids:
            self.reference.keep_latest(thread_id)
            self.compare_lists(_config(thread_id))
        # Without a session to lock, what writes replaced waits for the first prune with one.
        self.assert_all_referenced([t for t in thread_ids if t in self.reference.there])

    @rule(runs=st.lists(_runs, max_size=2))
    def delete_for_runs(self, runs: list[str]) -> None:
        run_ids = [self.run(name) for name in runs]
        before = {thread_id: len(self.reference.tuples(thread_id)) for thread_id in self.threads}
        self.driver.call("delete_for_runs", run_ids)
        self.reference.delete_for_runs(run_ids)
        self.assert_all_referenced(
            [t for t, count in before.items() if len(self.reference.tuples(t)) != count]
        )

    def assert_all_referenced(self, thread_ids: list[str]) -> None:
        """No value, blob or message of the threads is left that nothing names."""
        assert self.driver.count(_UNREFERENCED, [session_id_of(t) for t in thread_ids]) == 0

    def assert_no_rows(self, thread_ids: Iterable[str]) -> None:
        sessions = [session_id_of(t) for t in thread_ids]
        assert self.driver.count(f"select {_ROWS_OF}", sessions) == 0

    def teardown(self) -> None:
        """Everything still agrees, and deleting the threads leaves nothing of them."""
        # After a failed step this would fail again, and hide how.
        if sys.exception() is None:
            self.compare_lists(None, filter={"example": self.example})
        for thread_id in self.threads:
            self.driver.call("delete_thread", thread_id)
        self.assert_no_rows(self.threads)


@contextmanager
def driven(dsn: str, *, is_async: bool, **options: Any) -> Iterator[Driver]:
    with asyncio.Runner() as runner:
        conn = runner.run(asyncpg.connect(dsn))
        saver = PostgresSaver.from_conn_string(dsn, **options)
        try:
            yield Driver(saver, runner, conn, is_async)
        finally:
            runner.run(saver.aclose())
            runner.run(conn.close())


def run_machine(driver: Driver) -> None:
    def machine() -> SaverMachine:
        return SaverMachine(driver)

    # It wants a class, and only ever calls it.
    run_state_machine_as_test(cast("type[RuleBasedStateMachine]", machine), settings=_SETTINGS)


@pytest.mark.slow
@pytest.mark.parametrize("is_async", [True, False], ids=["async", "sync"])
def test_answers_like_the_in_memory_saver(dsn: str, is_async: bool) -> None:
    """Whatever is put, forked, deleted, copied and pruned, every read is the reference's."""
    with driven(dsn, is_async=is_async) as driver:
        run_machine(driver)


@pytest.mark.slow
def test_answers_like_the_in_memory_saver_with_encryption(dsn: str) -> None:
    """Encryption changes no answer."""
    serde = EncryptedSerializer.from_pycryptodome_aes(key=b"0" * 16)
    with driven(dsn, is_async=True, serde=serde) as driver:
        run_machine(driver)


def a_thread(driver: Driver) -> tuple[SaverMachine, Place]:
    """A machine with one checkpoint."""
    machine = SaverMachine(driver)
    first = machine.new_place(machine.thread("t1"), "", None)
    return machine, machine.put(first, {"a": 1}, {"source": "input", "step": -1}, root=0)


def next_step(machine: SaverMachine, parent: Place, updates: dict[str, Any], v: int = 4) -> Place:
    place = machine.new_place(parent.thread_id, parent.checkpoint_ns, parent.checkpoint_id)
    return machine.put(place, updates, {"source": "loop", "step": 0}, root=0, v=v)


def ids_of(driver: Driver, place: Place) -> list[str]:
    """The ids of all of the place's thread, newest first."""
    return [found.checkpoint["id"] for found in driver.listed(_config(place.thread_id))]


# What the machine finds too, but not in every short run of it.


@pytest.mark.parametrize("options", [{}, {"serde": "encrypted"}], ids=["clear", "encrypted"])
def test_old_checkpoints_have_the_sends_of_their_parents(dsn: str, options: dict[str, Any]) -> None:
    """Before format 4 a Send is a write of the parent: get_tuple, list and prune know it."""
    if options:
        options = {"serde": EncryptedSerializer.from_pycryptodome_aes(key=b"0" * 16)}
    with driven(dsn, is_async=True, **options) as driver:
        machine, parent = a_thread(driver)
        machine.put_writes(parent, [("a", 2), (TASKS, Send("late", 1))], "task-1", "path b")
        machine.put_writes(parent, [(TASKS, Send("early", 2))], "task-2", "path a")
        child = next_step(machine, parent, {"b": 1}, v=3)
        newest, oldest = driver.listed(_config(child.thread_id))
        got = driver.call("get_tuple", child.config)
        machine.prune(["t1"])
        kept = driver.call("get_tuple", child.config)
    assert newest.checkpoint["channel_values"][TASKS] == [Send("early", 2), Send("late", 1)]
    assert TASKS not in oldest.checkpoint["channel_values"]
    assert got.checkpoint == kept.checkpoint == newest.checkpoint


def test_pruning_keeps_no_ancestor_of_a_snapshot_that_the_head_still_has(dsn: str) -> None:
    """A delta channel that didn't change since its snapshot needs no ancestor."""
    with driven(dsn, is_async=True) as driver:
        machine, first = a_thread(driver)
        snapshot = next_step(machine, first, {_DELTA: _DeltaSnapshot([1, 2])})
        head = next_step(machine, snapshot, {"a": 2})
        machine.prune(["t1"])
        kept = driver.call("get_tuple", head.config)
        ids = ids_of(driver, head)
    assert ids == [head.checkpoint_id]
    assert kept.checkpoint["channel_values"][_DELTA] == _DeltaSnapshot([1, 2])


def test_pruning_keeps_the_subgraph_calls_that_can_be_resumed(dsn: str) -> None:
    """A call goes with the root checkpoint it began at, unless that one isn't saved yet."""
    with driven(dsn, is_async=True) as driver:
        machine, first = a_thread(driver)
        over = Place(first.thread_id, "child:1", "00000010", None)
        running = Place(first.thread_id, "child:2", "00000011", None)
        early = Place(first.thread_id, "child:3", "00000012", None)
        machine.put(over, {"a": 1}, {"source": "loop"}, root=0)
        head = next_step(machine, first, {"a": 2})
        machine.put(running, {"a": 1}, {"source": "loop"}, root=0)
        machine.put(early, {"a": 1}, {"source": "loop"}, root=9)
        machine.prune(["t1"])
        ids = ids_of(driver, head)
    assert ids == [early.checkpoint_id, running.checkpoint_id, head.checkpoint_id]


def test_a_message_that_was_deleted_can_come_again(dsn: str) -> None:
    """What the saver remembers of a session's messages ends when some are deleted."""
    message = HumanMessage("hello", id="m1")
    with driven(dsn, is_async=True) as driver:
        machine, first = a_thread(driver)
        there = next_step(machine, first, {"messages": [("append", message)]})
        gone = next_step(machine, there, {"messages": [("remove", 0)]})
        machine.prune(["t1"])
        again = next_step(machine, gone, {"messages": [("append", message)]})
        found = driver.call("get_tuple", again.config)
    assert found.checkpoint["channel_values"]["messages"] == [message]


def test_a_regular_write_stays_and_a_special_one_is_replaced(dsn: str) -> None:
    """Of a task that writes again, small or large values, only the special writes are new."""
    with driven(dsn, is_async=True) as driver:
        machine, place = a_thread(driver)
        for text in ("x", _long_text(9000), "y"):
            writes = [("a", text), (INTERRUPT, text), ("b", text)]
            machine.put_writes(place, writes, "task-1", "")
        found = driver.call("get_tuple", place.config)
    assert found.pending_writes == [
        ("task-1", INTERRUPT, "y"),
        ("task-1", "a", "x"),
        ("task-1", "b", "x"),
    ]


def test_a_copy_answers_as_the_thread_does(dsn: str) -> None:
    """The order of writes, values by hash and messages are the original's in the copy."""
    with driven(dsn, is_async=True) as driver:
        machine, first = a_thread(driver)
        updates = {"b": _long_text(9000), "messages": [("append", HumanMessage("hello"))]}
        head = next_step(machine, first, updates)
        machine.put_writes(head, [("a", "second")], "task-1", "path b")
        machine.put_writes(head, [("a", "first"), ("b", _long_text(9000))], "task-2", "path a")
        machine.copy_thread("t1", "t2")
        copy = driver.call("get_tuple", _config(machine.thread("t2")))
        original = driver.call("get_tuple", head.config)
    assert copy.pending_writes == original.pending_writes
    assert [value for _, _, value in copy.pending_writes][::2] == ["first", "second"]
    assert copy.checkpoint == original.checkpoint


def test_every_table_of_a_session_is_counted(dsn: str) -> None:
    """A table with a session_id that the checks above don't know fails here."""
    with driven(dsn, is_async=True) as driver:
        known = driver.count(
            "select count(*) from information_schema.columns c "
            "join information_schema.tables t using (table_schema, table_name) "
            "where t.table_type = 'BASE TABLE' and t.table_schema = current_schema() "
            "and c.column_name = 'session_id'"
        )
    assert known == len(SESSION_TABLES)
