"""Small values: they stand in their checkpoint's own row, and go on from there to the next.

LangGraph gives a put the values of those channels that the graph has. A thread may have more,
of another release on the same thread during a deployment, and those are named by channel and
version only. A larger value is found by these. A small one has to be repeated from the row of
the parent, where it stands under the same version.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any, TypeAlias

from langgraph.checkpoint.base import Checkpoint

from langgraph_pgsaga import _fork, _json
from langgraph_pgsaga.threads import Address

# What may stand in a checkpoint's own row; of texts, those of up to so many characters.
SMALL_TYPES = frozenset({str, int, bool, type(None)})
_MOST_CHARACTERS = 256
_MOST_CHECKPOINTS = 10_000

# Thread, namespace as it is stored, and id: text, since a UUID takes long to hash.
_Key: TypeAlias = tuple[str, str, str]
# By channel, its version and value.
_Versioned: TypeAlias = dict[str, tuple[Any, Any]]


def small_values(checkpoint: Checkpoint) -> dict[str, Any]:
    """Those of the checkpoint's values that stand in its row."""
    versions = checkpoint["channel_versions"]
    return {
        channel: value
        for channel, value in checkpoint["channel_values"].items()
        if channel in versions and _is_small(value)
    }


def _is_small(value: Any) -> bool:
    kind = type(value)
    if kind is str:
        return len(value) <= _MOST_CHARACTERS and _json.is_clean(value)
    if kind is int:
        return bool(-_json.JSON_INT_LIMIT < value < _json.JSON_INT_LIMIT)
    return value is None or kind is bool


class SmallValueCache:
    """The small values of the ten thousand checkpoints that this process read or put last.

    Safe to use from several threads.
    """

    def __init__(self) -> None:
        self.after_fork()
        _fork.watch(self)

    def after_fork(self) -> None:
        self._lock = threading.Lock()
        self._found: OrderedDict[_Key, _Versioned] = OrderedDict()

    def learn(self, address: Address, checkpoint: Checkpoint) -> None:
        """Remembers those of a checkpoint that was read."""
        self._set(address, checkpoint, small_values(checkpoint))

    def of_put(self, address: Address, checkpoint: Checkpoint) -> dict[str, Any]:
        """Those that a checkpoint is to be stored with: its own, and what it has of its parent."""
        small = small_values(checkpoint)
        if address.checkpoint_id is not None:
            parent = self._found.get(_key(address, address.checkpoint_id))
            if parent is not None:
                _inherit(small, checkpoint, parent)
        self._set(address, checkpoint, small)
        return small

    def _set(self, address: Address, checkpoint: Checkpoint, small: dict[str, Any]) -> None:
        if not small:
            return
        versions = checkpoint["channel_versions"]
        versioned = {channel: (versions[channel], value) for channel, value in small.items()}
        key = _key(address, checkpoint["id"])
        with self._lock:
            self._found[key] = versioned
            self._found.move_to_end(key)
            if len(self._found) > _MOST_CHECKPOINTS:
                self._found.popitem(last=False)


def _key(address: Address, checkpoint_id: str) -> _Key:
    return address.thread_id, address.stored_ns, checkpoint_id


def _inherit(small: dict[str, Any], checkpoint: Checkpoint, parent: _Versioned) -> None:
    """Adds the parent's values that the checkpoint has by their versions, and doesn't bring."""
    versions, own = checkpoint["channel_versions"], checkpoint["channel_values"]
    for channel, (version, value) in parent.items():
        if channel not in own and versions.get(channel) == version:
            small[channel] = value
