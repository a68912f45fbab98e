"""Small values of channels that a put gives no value for, where the parent isn't remembered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint, empty_checkpoint
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.graph import START, StateGraph
from typing_extensions import TypedDict

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.checkpoint import small_values
from langgraph_pgsaga.errors import CorruptValueError
from langgraph_pgsaga.takeover import ReadThroughSaver, import_threads
from tests._graphs import Saver
from tests._proxy import Proxy
from tests.conftest import execute
from tests.db._puts import config_of, put, stored

pytestmark = pytest.mark.anyio

KEPT = {"plan": "p", "count": 7, "sure": True, "told": None}


class Narrow(TypedDict):
    turn: int


class Wide(Narrow):
    plan: str
    count: int


def graph(state: type[Any], saver: Saver) -> Any:
    """One release's graph: its channels are those of `state`."""
    builder: Any = StateGraph(state)
    builder.add_node("node", lambda given: {"turn": given["turn"] + 1})
    builder.add_edge(START, "node")
    return builder.compile(checkpointer=saver)


def put_below(
    saver: Saver, config: RunnableConfig, parent: Checkpoint, values: Mapping[str, Any]
) -> RunnableConfig:
    new = {channel: saver.get_next_version("00000009", None) for channel in values}
    child = empty_checkpoint()
    child["channel_values"] = dict(values)
    child["channel_versions"] = {**parent["channel_versions"], **new}
    return saver.put(config, child, {"source": "loop", "step": 1, "parents": {}}, new)


@pytest.fixture
def proxied(dsn: str) -> Iterator[tuple[Proxy, PostgresSaver]]:
    """A saver with one connection, and what counts its round trips."""
    with Proxy(dsn) as proxy, PostgresSaver.from_conn_string(proxy.dsn(), max_size=1) as saver:
        yield proxy, saver


def test_a_put_by_a_saver_that_read_nothing_keeps_them(sync_saver: PostgresSaver) -> None:
    """A put names versions that only its parent's row has the values of: they are asked for."""
    first = put(sync_saver, config_of("t"), KEPT)
    parent = stored(sync_saver, first).checkpoint
    second = put_below(sync_saver.anew(), first, parent, {"own": 1})
    assert stored(sync_saver, second).checkpoint["channel_values"] == {**KEPT, "own": 1}


def test_a_parent_that_was_forgotten_is_asked(
    sync_saver: PostgresSaver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of more checkpoints than are remembered, none loses what its parent held."""
    monkeypatch.setattr(small_values, "_MOST_CHECKPOINTS", 2)
    threads = [config_of(str(number)) for number in range(5)]
    configs = [put(sync_saver, thread, KEPT) for thread in threads]
    for turn in range(3):
        parents = [stored(sync_saver, config).checkpoint for config in configs]
        configs = [
            put_below(sync_saver, config, parent, {"own": turn})
            for config, parent in zip(configs, parents, strict=True)
        ]
    for config in configs:
        assert stored(sync_saver, config).checkpoint["channel_values"] == {**KEPT, "own": 2}


def test_a_renewed_or_removed_channel_inherits_nothing(sync_saver: PostgresSaver) -> None:
    """Only what the put names by the parent's version, and doesn't bring, is the parent's."""
    first = put(sync_saver, config_of("t"), {"kept": 1, "emptied": 2, "renewed": 3, "gone": 4})
    parent = stored(sync_saver, first).checkpoint
    del parent["channel_versions"]["gone"]
    parent["channel_versions"]["emptied"] = sync_saver.get_next_version("00000009", None)
    second = put_below(sync_saver.anew(), first, parent, {"renewed": 5})
    assert stored(sync_saver, second).checkpoint["channel_values"] == {"kept": 1, "renewed": 5}


async def test_the_run_that_moves_a_thread_keeps_them(saver: PostgresSaver) -> None:
    """A run begins in the old saver and goes on in the new one, which never read the parent."""
    config, old = config_of("t"), InMemorySaver()
    await graph(Wide, old).ainvoke({"turn": 1, "plan": "p", "count": 7}, config)
    read_through = ReadThroughSaver(saver, old)
    await graph(Narrow, read_through).ainvoke({"turn": 5}, config)
    state = await graph(Wide, saver.anew()).aget_state(config)
    assert state.values == {"turn": 6, "plan": "p", "count": 7}


async def test_an_import_stores_what_the_source_has(
    saver: PostgresSaver, new_database: Callable[..., str]
) -> None:
    """Of a source that lost such values each checkpoint is as it stands there, and no more."""
    config = config_of("t")
    made = await asyncio.to_thread(new_database)
    async with AsyncPostgresSaver.from_conn_string(made) as source:
        await source.setup()
        await graph(Wide, source).ainvoke({"turn": 1, "plan": "p", "count": 7}, config)
        await graph(Narrow, source).ainvoke({"turn": 5}, config)
        assert "plan" not in (await graph(Wide, source).aget_state(config)).values
        for _ in range(2):
            report = await import_threads(source, saver)
            report.raise_first()
            state = await graph(Wide, saver.anew()).aget_state(config)
            expected = await graph(Wide, source).aget_state(config)
            assert state.values == expected.values
            await graph(Narrow, source).ainvoke({"turn": 8}, config)


def test_what_is_known_or_new_asks_nothing(proxied: tuple[Proxy, PostgresSaver]) -> None:
    """One round trip where the parent was read or put, even if it had nothing; where no
    version is inherited; where there is no parent; one more where all of it is otherwise."""
    proxy, saver = proxied
    config = put(saver, config_of("warm-up"), {"text": "t"})
    put_below(saver.anew(), config, stored(saver, config).checkpoint, {})

    configs = [config_of("t")]

    def cost(saver: PostgresSaver, parent: Checkpoint, **values: Any) -> int:
        """The round trips of a put below the last one."""
        with proxy.recording() as traffic:
            configs.append(put_below(saver, configs[-1], parent, values))
        return traffic.round_trips

    assert cost(saver, empty_checkpoint(), large=[1]) == 1, "no parent"
    parent = stored(saver, configs[-1]).checkpoint
    assert cost(saver, parent) == 1, "its parent was put here, and held nothing small"
    again = saver.anew()
    assert again.get_tuple(configs[-1])
    assert cost(again, parent) == 1, "its parent was read"
    writer = saver.anew()
    assert cost(writer, parent) == 1 + 2 + 1, "its session and its parent's row are asked"
    assert cost(writer, parent) == 1, "now it has put its parent"
    assert cost(saver.anew(), empty_checkpoint(), large=[2]) == 1 + 2, "its session alone is asked"


def test_under_encryption_nothing_is_asked(dsn: str) -> None:
    """Where values are encrypted none stands in a row: each is found by its version."""
    serde = EncryptedSerializer.from_pycryptodome_aes(key=b"0123456789abcdef")
    with (
        Proxy(dsn) as proxy,
        PostgresSaver.from_conn_string(proxy.dsn(), serde=serde, max_size=1) as saver,
    ):
        first = put(saver, config_of("t"), KEPT)
        parent = stored(saver, first).checkpoint
        put_below(saver.anew(), first, parent, {})
        with proxy.recording() as traffic:
            second = put_below(saver.anew(), first, parent, {"own": 1})
        assert traffic.round_trips == 1 + 2, "its session alone is asked"
        assert stored(saver, second).checkpoint["channel_values"] == {**KEPT, "own": 1}


@pytest.mark.parametrize("part", ["channel_values", "channel_versions"])
async def test_a_damaged_parent_is_told(saver: PostgresSaver, dsn: str, part: str) -> None:
    """Whoever asks a row that was altered is told so, as its reader is; nothing is stored."""
    first = await saver.aput(
        config_of("t"), empty_checkpoint(), {"source": "loop", "step": 0, "parents": {}}, {}
    )
    await execute(dsn, f"update agent_states set state_data = state_data || '{{\"{part}\": 3}}'")
    child = {**empty_checkpoint(), "channel_versions": {"a": "1"}}
    with pytest.raises(CorruptValueError, match=f"its {part} was altered"):
        await saver.anew().aput(first, child, {"source": "loop", "step": 1, "parents": {}}, {})  # type: ignore[arg-type]
