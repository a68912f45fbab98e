"""Small values: they stand in their checkpoint's own row, and go on from there to the next.

LangGraph gives a put the values of those channels that the graph has. A thread may have more,
of another release on the same thread during a deployment, and those are named by channel and
version only. A larger value is found by these. A small one has to be repeated from the row of
the parent, where it stands under the same version.

LangGraph also names versions of channels that hold nothing, at nearly every step. These are told
from the others by what the parent's row holds, so it is remembered of each checkpoint that was
read or put, also where that is nothing. The row of a parent that isn't remembered is asked for.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, TypeAlias

from langgraph.checkpoint.base import ChannelVersions, Checkpoint

from langgraph_pgsaga import _fork, _json
from langgraph_pgsaga.threads import Address

# What may stand in a checkpoint's own row; of texts, those of up to so many characters.
SMALL_TYPES = frozenset({str, int, bool, type(None)})
_MOST_CHARACTERS = 256
_MOST_CHECKPOINTS = 10_000

# Tenant, thread, namespace as it is stored, and id: text, since a UUID takes long to hash.
_Key: TypeAlias = tuple[str, str, str, str]
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
        """Begins anew: the parent's lock may have been held halfway through a change."""
        self._lock = threading.Lock()
        self._found: OrderedDict[_Key, _Versioned] = OrderedDict()

    def learn(self, address: Address, checkpoint: Checkpoint, inline: Mapping[str, Any]) -> None:
        """Remembers those of a checkpoint that was read; `inline` are the values of its row."""
        versions = checkpoint["channel_versions"]
        small = {channel: inline[channel] for channel in inline if channel in versions}
        self._set(_key(address, checkpoint["id"]), versions, small)

    def learn_parent(
        self, address: Address, parent_id: str, versions: Mapping[str, Any], small: dict[str, Any]
    ) -> None:
        """Remembers those of a row that was asked for."""
        self._set(_key(address, parent_id), versions, small)

    def lacks_parent(
        self, address: Address, checkpoint: Checkpoint, new_versions: ChannelVersions
    ) -> bool:
        """Whether a put may have values of its parent's row, of which nothing is remembered."""
        parent_id = address.checkpoint_id
        if parent_id is None or _key(address, parent_id) in self._found:
            return False
        own = checkpoint["channel_values"]
        named = checkpoint["channel_versions"]
        return any(channel not in own and channel not in new_versions for channel in named)

    def of_put(
        self, address: Address, checkpoint: Checkpoint, new_versions: ChannelVersions
    ) -> dict[str, Any]:
        """Those that a checkpoint is to be stored with: its own, and what it has of its parent.

        A new version without a value says that the channel has none now.
        """
        small = small_values(checkpoint)
        if address.checkpoint_id is not None:
            parent = self._found.get(_key(address, address.checkpoint_id))
            if parent:
                _inherit(small, checkpoint, new_versions, parent)
        self._set(_key(address, checkpoint["id"]), checkpoint["channel_versions"], small)
        return small

    def _set(self, key: _Key, versions: Mapping[str, Any], small: dict[str, Any]) -> None:
        versioned = {channel: (versions[channel], value) for channel, value in small.items()}
        with self._lock:
            self._found[key] = versioned
            self._found.move_to_end(key)
            if len(self._found) > _MOST_CHECKPOINTS:
                self._found.popitem(last=False)


def _key(address: Address, checkpoint_id: str) -> _Key:
    return address.tenant_id, address.thread_id, address.stored_ns, checkpoint_id


def _inherit(
    small: dict[str, Any],
    checkpoint: Checkpoint,
    new_versions: ChannelVersions,
    parent: _Versioned,
) -> None:
    """Adds the parent's values that the checkpoint has by their versions, and doesn't bring."""
    versions, own = checkpoint["channel_versions"], checkpoint["channel_values"]
    for channel, (version, value) in parent.items():
        if channel in own or channel in new_versions:
            continue
        if versions.get(channel) == version:
            small[channel] = value
