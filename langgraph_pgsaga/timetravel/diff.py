"""What differs between two states: messages by their ids, everything else by its place."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any, TypeAlias, overload

from langchain_core.messages import BaseMessage
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.types import StateSnapshot
from pydantic import BaseModel

from langgraph_pgsaga._arguments import checked_mapping
from langgraph_pgsaga.timetravel import _diff_html, _text
from langgraph_pgsaga.timetravel.state import State

# A state, what LangGraph and a saver have for one, or a dict of values.
Comparable: TypeAlias = State | StateSnapshot | CheckpointTuple | Mapping[str, Any]
Path: TypeAlias = tuple[str | int, ...]
# Beyond so many pairs of elements, two lists are compared place by place.
_MOST_PAIRS = 1_000_000


class ChangeKind(enum.Enum):
    """What happened to a part of a state."""

    ADDED = "added"
    REMOVED = "removed"
    EDITED = "edited"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A part that differs.

    `path` leads to it: channel, then keys, attributes and positions. A position counts in
    the later state, but where the part was removed, in the earlier one. `before` is None
    for what was added, `after` for what was removed.
    """

    kind: ChangeKind
    path: Path
    before: Any = None
    after: Any = None

    @property
    def place(self) -> str:
        """The path as one would write it: `files['a.py'][3]`."""
        return _text.place(self.path)

    def __str__(self) -> str:
        return _text.change_line(self.kind.value, self.path, self.before, self.after)


class Diff(Sequence[Change]):
    """The changes from one state to another, channel by channel; false where there are none.

    It prints as lines of `+`, `-` and `~`, and shows itself in a notebook.
    """

    def __init__(self, changes: Sequence[Change]) -> None:
        self._changes = tuple(changes)

    @overload
    def __getitem__(self, index: int) -> Change: ...

    @overload
    def __getitem__(self, index: slice) -> Diff: ...

    def __getitem__(self, index: int | slice) -> Change | Diff:
        found = self._changes[index]
        return found if isinstance(found, Change) else Diff(found)

    def __len__(self) -> int:
        return len(self._changes)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Diff):
            return NotImplemented
        return bool(key_of(self._changes) == key_of(other._changes))

    __hash__ = None  # type: ignore[assignment]

    def within(self, *path: str | int) -> Diff:
        """The changes below a path: `within("files", "a.py")`."""
        return Diff([change for change in self if change.path[: len(path)] == path])

    def __str__(self) -> str:
        return "\n".join(map(str, self)) or "no changes"

    def __repr__(self) -> str:
        return f"<Diff of {len(self)} changes>"

    def _repr_html_(self) -> str:
        rows = [(c.kind.value, c.path, c.before, c.after) for c in self]
        return _diff_html.table(rows)


def diff(
    before: Comparable,
    after: Comparable,
) -> Diff:
    """What changed from one state to the other, of whatever branches or threads.

    Takes a State, what `graph.get_state` or a saver gives, or a dict of values. In a
    list of messages, messages are found again by id, those without one by what they hold;
    one that moved counts as removed and added. Other lists are compared as a text
    editor compares lines. Dicts, dataclasses and pydantic models are compared part by
    part. Values of different types differ, also where Python holds them for equal.
    """
    return Diff(list(_mappings((), _values(before), _values(after))))


def _values(state: Comparable) -> Mapping[str, Any]:
    if isinstance(state, State | StateSnapshot):
        values = state.values
        # A graph whose state is one value has no channel to name.
        return values if isinstance(values, Mapping) else {"state": values}
    if isinstance(state, CheckpointTuple):
        return state.checkpoint["channel_values"]
    return checked_mapping("diff", state)


def _changes(path: Path, before: Any, after: Any) -> Iterator[Change]:
    if key_of(before) == key_of(after):
        return
    kinds = type(before), type(after)
    if kinds == (list, list) and _are_messages(before) and _are_messages(after):
        yield from _lists(path, before, after, _identity)
    elif kinds in ((list, list), (tuple, tuple)):
        yield from _lists(path, before, after, key_of)
    elif (
        kinds[0] is kinds[1] and not isinstance(before, BaseMessage) and _parts(before) is not None
    ):
        yield from _mappings(path, _parts(before) or {}, _parts(after) or {})
    else:
        yield Change(kind=ChangeKind.EDITED, path=path, before=before, after=after)


def _mappings(path: Path, before: Mapping[Any, Any], after: Mapping[Any, Any]) -> Iterator[Change]:
    for key, value in before.items():
        if key in after:
            yield from _changes((*path, key), value, after[key])
        else:
            yield Change(kind=ChangeKind.REMOVED, path=(*path, key), before=value)
    for key, value in after.items():
        if key not in before:
            yield Change(kind=ChangeKind.ADDED, path=(*path, key), after=value)


def _lists(
    path: Path, before: Sequence[Any], after: Sequence[Any], identity: Any
) -> Iterator[Change]:
    """Elements of equal identity belong together; those in between are paired in order."""
    keys = [identity(item) for item in before], [identity(item) for item in after]
    for first, last, new_first, new_last in _blocks(*keys):
        same = keys[0][first:last] == keys[1][new_first:new_last]
        pairs = min(last - first, new_last - new_first) if same or identity is key_of else 0
        for offset in range(pairs):
            place = (*path, new_first + offset)
            yield from _changes(place, before[first + offset], after[new_first + offset])
        for index in range(first + pairs, last):
            yield Change(kind=ChangeKind.REMOVED, path=(*path, index), before=before[index])
        for index in range(new_first + pairs, new_last):
            yield Change(kind=ChangeKind.ADDED, path=(*path, index), after=after[index])


def _blocks(before: Sequence[Any], after: Sequence[Any]) -> Iterator[tuple[int, int, int, int]]:
    """Where the lists are equal and where they aren't, in order."""
    start = _common(before, after)
    end = _common(before[start:][::-1], after[start:][::-1])
    yield 0, start, 0, start
    middle = before[start : len(before) - end], after[start : len(after) - end]
    if len(middle[0]) * len(middle[1]) > _MOST_PAIRS:
        yield start, len(before) - end, start, len(after) - end
    else:
        matcher = SequenceMatcher(None, *middle, autojunk=False)
        for _, first, last, new_first, new_last in matcher.get_opcodes():
            yield start + first, start + last, start + new_first, start + new_last
    yield len(before) - end, len(before), len(after) - end, len(after)


def _common(before: Sequence[Any], after: Sequence[Any]) -> int:
    count = 0
    for one, other in zip(before, after, strict=False):
        if one != other:
            break
        count += 1
    return count


def _are_messages(values: Sequence[Any]) -> bool:
    return all(isinstance(value, BaseMessage) for value in values)


def _identity(message: BaseMessage) -> Any:
    return ("id", message.id) if message.id else key_of(message)


def _parts(value: Any) -> Mapping[Any, Any] | None:
    """What a value is made of, by name; None for what has no named parts."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, BaseModel):
        return {**value.__dict__, **(value.__pydantic_extra__ or {})}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name, None) for f in dataclasses.fields(value)}
    return None


def key_of(value: Any) -> Any:
    """Something hashable that is equal for values without a difference, and only for these."""
    kind = type(value)
    if kind is float and math.isnan(value):
        return kind, "nan"
    if kind in (list, tuple):
        return kind, tuple(map(key_of, value))
    if kind in (set, frozenset):
        return kind, frozenset(map(key_of, value))
    parts = _parts(value)
    if parts is not None:
        return kind, frozenset((key_of(name), key_of(part)) for name, part in parts.items())
    try:
        hash(value)
    except TypeError:
        return kind, repr(value)
    return kind, value
