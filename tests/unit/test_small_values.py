"""Values that stand in a checkpoint's row, and those that it has of its parent."""

from __future__ import annotations

from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import Checkpoint, empty_checkpoint

from langgraph_pgsaga.checkpoint import small_values
from langgraph_pgsaga.checkpoint.small_values import SmallValueCache
from langgraph_pgsaga.threads import Address, checkpoint_config


def checkpoint(values: dict[str, Any], versions: dict[str, str]) -> Checkpoint:
    made = empty_checkpoint()
    made["channel_values"], made["channel_versions"] = dict(values), dict(versions)
    return made


THREAD: RunnableConfig = {"configurable": {"thread_id": "t"}}


def below(parent: Checkpoint | None) -> Address:
    """Where a put below the parent goes; of None, the thread itself."""
    return Address.of(checkpoint_config("t", "", parent["id"]) if parent else THREAD)


def test_a_value_is_inherited_under_its_version_only() -> None:
    """A checkpoint has its parent's value if it names its version and brings none."""
    cache = SmallValueCache()
    first = checkpoint(
        {"kept": 1, "emptied": 2, "renewed": 3, "gone": 4},
        dict.fromkeys(("kept", "emptied", "renewed", "gone"), "1"),
    )
    cache.learn(below(None), first, first["channel_values"])
    second = checkpoint({"renewed": 5}, {"kept": "1", "emptied": "2", "renewed": "2"})
    assert cache.of_put(below(first), second, {}) == {"kept": 1, "renewed": 5}
    third = checkpoint({"large": [1]}, {"kept": "1", "emptied": "2", "renewed": "3", "large": "3"})
    assert cache.of_put(below(second), third, {}) == {"kept": 1}
    assert cache.of_put(below(first), third, {}) == {"kept": 1}
    assert cache.of_put(below(first), third, {"kept": "1"}) == {}, "a new version without a value"


def test_those_of_another_thread_or_namespace_are_not_inherited() -> None:
    """Checkpoints are told by thread, namespace and id."""
    cache = SmallValueCache()
    parent = checkpoint({"kept": 1}, {"kept": "1"})
    cache.learn(below(None), parent, parent["channel_values"])
    child = checkpoint({}, {"kept": "1"})
    for thread, namespace in (("u", ""), ("t", "sub")):
        address = Address.of(checkpoint_config(thread, namespace, parent["id"]))
        assert cache.of_put(address, child, {}) == {}


def test_the_checkpoints_used_last_are_remembered(monkeypatch: Any) -> None:
    """Of more checkpoints than are remembered, the one that was read again stays."""
    monkeypatch.setattr(small_values, "_MOST_CHECKPOINTS", 2)
    cache = SmallValueCache()
    first, second, third = (checkpoint({"a": n}, {"a": "1"}) for n in range(3))
    for one in (first, second, first, third):
        cache.learn(below(None), one, one["channel_values"])
    child = checkpoint({}, {"a": "1"})
    assert cache.of_put(below(first), child, {}) == {"a": 0}
    assert cache.of_put(below(second), child, {}) == {}
