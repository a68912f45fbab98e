"""Random sequences of calls to a saver and to the reference, whose answers are compared."""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    multiple,
    precondition,
    rule,
)
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.checkpoint.session_cache import is_same_session
from langgraph_pgsaga.errors import CheckpointDeletedError, ThreadDeletedError, ThreadExistsError
from langgraph_pgsaga.threads import session_id_of
from tests._tables import SESSION_TABLES
from tests.db._model_calls import (
    CHANNELS,
    DELTA,
    GONE,
    ROOT_IDS_BEFORE_ANY,
    Place,
    config_of,
    edited_by,
    few_filters,
    some_edits,
    some_metadata,
    some_namespaces,
    some_runs,
    some_task_ids,
    some_task_paths,
    some_threads,
    some_updates,
    some_writes,
)
from tests.db._model_reference import Reference, assert_same, assert_same_tuple, parents_of

# Every example has threads and runs of its own in the one database.
_examples = itertools.count(1)


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

    @rule(
        target=saved,
        thread=some_threads,
        ns=some_namespaces,
        updates=some_updates,
        metadata=some_metadata,
    )
    def put_first(
        self, thread: str, ns: str, updates: dict[str, Any], metadata: dict[str, Any]
    ) -> Place:
        place = self.new_place(self.thread(thread), ns, None)
        return self.put(place, updates, metadata, root=0)

    @rule(
        target=saved,
        parent=saved,
        updates=some_updates,
        metadata=some_metadata,
        root=st.integers(0, 9),
        run=some_runs,
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
        self.compare_histories(place.config, [*CHANNELS, DELTA])
        return place

    @rule(target=announced, thread=some_threads, ns=some_namespaces)
    def announce_first(self, thread: str, ns: str) -> Place:
        return self.new_place(self.thread(thread), ns, None)

    @rule(target=announced, parent=saved)
    def announce_child(self, parent: Place) -> Place:
        """A checkpoint whose writes may come before it, and which may be put twice."""
        return self.new_place(parent.thread_id, parent.checkpoint_ns, parent.checkpoint_id)

    @rule(
        target=saved,
        place=announced,
        updates=some_updates,
        metadata=some_metadata,
        root=st.integers(0, 9),
    )
    def put_announced(
        self, place: Place, updates: dict[str, Any], metadata: dict[str, Any], root: int
    ) -> Place:
        return self.put(place, updates, metadata, root=root)

    @precondition(lambda self: not self.has_chain)
    @rule(target=saved, parent=saved, length=st.integers(20, 45), edits=some_edits)
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
            if update == GONE and isinstance(update, str):
                values.pop(channel, None)
            elif channel == "messages":
                values[channel] = edited_by(values.get(channel), update)
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
            **self.delta_counters(place, values, versions, DELTA in updates),
        }
        config = self.put_config(place)
        # The first of a namespace is no sign that it goes on from what was deleted.
        if self.was_deleted(place.thread_id) and place.parent_id:
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
        config = config_of(place.thread_id, place.checkpoint_ns, place.parent_id)
        # What LangGraph's own configs hold beside the address: some of it becomes
        # metadata, and live objects are never stored.
        config["configurable"].update({"user_id": "u-1", "__pregel_runtime": object()})
        config["metadata"] = {"example": self.example, "langgraph_step": 1}
        return config

    def state_of_parent(self, place: Place) -> tuple[dict[str, Any], dict[str, Any]]:
        """What a graph that resumed from the parent holds; nothing where that is gone."""
        config = config_of(place.thread_id, place.checkpoint_ns, place.parent_id)
        found = self.reference.memory.get_tuple(config) if place.parent_id else None
        if found is None:
            return {}, {}
        values = found.checkpoint["channel_values"]
        # A delta channel is stored where it makes a snapshot, and replayed elsewhere.
        values.pop(DELTA, None)
        return values, found.checkpoint["channel_versions"]

    def lineage(self, place: Place, root: int) -> dict[str, Any]:
        """`parents` as LangGraph writes them: a subgraph's begins at a root checkpoint."""
        if not place.checkpoint_ns:
            return {"parents": {}}
        placed = self.reference.placed(place.thread_id)
        roots = [key[2] for key, _ in sorted(placed, key=lambda pair: pair[1]) if not key[1]]
        choices = [*reversed(roots), ROOT_IDS_BEFORE_ANY]
        return {"parents": {"": choices[min(root, len(choices) - 1)]}}

    def delta_counters(
        self, place: Place, values: dict[str, Any], versions: dict[str, Any], is_updated: bool
    ) -> dict[str, Any]:
        """The counter that LangGraph keeps while a delta channel has no snapshot."""
        if DELTA not in versions or DELTA in values:
            return {}
        return {"counters_since_delta_snapshot": {DELTA: (int(is_updated), 1)}}

    def run(self, name: str) -> str:
        return f"{self.example} {name}"

    @rule(
        place=st.one_of(saved, announced),
        calls=st.lists(
            st.tuples(some_writes, some_task_ids, some_task_paths), min_size=1, max_size=5
        ),
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
        except CheckpointDeletedError:
            # Of those that need to look at the session, as others' calls come in between.
            assert self.is_gone(place.thread_id, place.checkpoint_ns, place.checkpoint_id)
        else:
            self.reference_call("put_writes", place.config, writes, task_id, task_path)

    def reference_call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.reference.memory, method)(*args, **kwargs)

    # Reading

    @rule(place=st.one_of(saved, announced), by_id=st.booleans())
    def get_tuple(self, place: Place, by_id: bool) -> None:
        config = config_of(
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
            want = want._replace(config=config_of(place.thread_id, ns, checkpoint_id))
        assert_same_tuple(self.driver.call("get_tuple", config), want)

    @rule(
        thread=some_threads, ns=some_namespaces, checkpoint_id=st.sampled_from([None, "99999999"])
    )
    def get_anything(self, thread: str, ns: str, checkpoint_id: str | None) -> None:
        config = config_of(self.thread(thread), ns, checkpoint_id)
        assert_same_tuple(self.driver.call("get_tuple", config), self.reference.get_tuple(config))

    @rule(
        place=saved,
        before=st.one_of(st.none(), saved),
        is_before_itself=st.booleans(),
        limit=st.one_of(st.none(), st.none(), st.integers(0, 40)),
        metadata=few_filters,
        run=st.one_of(st.none(), st.none(), some_runs),
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
            config_of(place.thread_id),
            config_of(place.thread_id, place.checkpoint_ns),
            place.config,
            config_of(place.thread_id, None, place.checkpoint_id),
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
        channels=st.lists(st.sampled_from([DELTA, "messages", "a", "no such"]), max_size=3),
    )
    def get_delta_channel_history(self, place: Place, by_id: bool, channels: list[str]) -> None:
        config = config_of(
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
    @rule(thread=some_threads, by_pruning=st.booleans())
    def delete_thread(self, thread: str, by_pruning: bool) -> None:
        thread_id = self.thread(thread)
        if by_pruning:
            self.driver.call("prune", [thread_id], strategy="delete")
        else:
            self.driver.call("delete_thread", thread_id)
        self.reference.delete_thread(thread_id)
        self.assert_no_rows([thread_id])

    @rule(target=saved, source=some_threads, target_thread=some_threads)
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
        self.compare_lists(config_of(target_id))
        if target_id not in self.reference.there and not self.reference.holds(target_id):
            self.assert_no_rows([target_id])
        return multiple(
            *(
                Place(target_id, ns, checkpoint_id, next((i for _, i in parents_of(found)), None))
                for (ns, checkpoint_id), found in self.reference.tuples(target_id).items()
                if (ns, checkpoint_id) not in before
            )
        )

    @rule(threads=st.lists(some_threads, max_size=3))
    def prune(self, threads: list[str]) -> None:
        thread_ids = [self.thread(name) for name in threads]
        self.driver.call("prune", thread_ids)
        for thread_id in thread_ids:
            self.reference.keep_latest(thread_id)
            self.compare_lists(config_of(thread_id))
        # Without a session to lock, what writes replaced waits for the first prune with one.
        self.assert_all_referenced([t for t in thread_ids if t in self.reference.there])

    @rule(runs=st.lists(some_runs, max_size=2))
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
