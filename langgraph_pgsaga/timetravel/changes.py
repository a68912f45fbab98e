"""What differs between two states: messages by their ids, everything else by its place."""

from __future__ import annotations

import dataclasses
import enum
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any, TypeAlias, overload

from langchain_core.messages import BaseMessage
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.types import StateSnapshot
from pydantic import BaseModel

from langgraph_pgsaga._arguments import shown
from langgraph_pgsaga._same import Numbers, is_same, key_of
from langgraph_pgsaga.errors import InvalidArgumentError
from langgraph_pgsaga.serde import Placeholder
from langgraph_pgsaga.timetravel import _diff_html, _text
from langgraph_pgsaga.timetravel.states import State

# A state, what LangGraph and a saver have for one, or a dict of values.
Comparable: TypeAlias = State | StateSnapshot | CheckpointTuple | Mapping[str, Any]
Path: TypeAlias = tuple[str | int, ...]
# Beyond so many pairs of elements, two lists are compared place by place.
_MOST_PAIRS = 1_000_000
# And beyond so many pairs of elements that are the same, each of which is looked at often.
_MOST_MATCHES = 50_000
# What nests deeper is compared as a whole.
_DEEPEST = 100


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
        return is_same(self._changes, other._changes)

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
    values = _values("before", before), _values("after", after)
    # A graph whose state is one value has no channel to name, also where that value is a dict.
    is_single = not all(isinstance(value, Mapping) for value in values)
    if is_single:
        values = _single(before, values[0]), _single(after, values[1])
    return Diff(list(_mappings((), *values)))


def _single(state: Comparable, value: Any) -> Mapping[str, Any]:
    """The one value by the name it has here; none where nothing was stored."""
    is_nothing = isinstance(state, State | StateSnapshot) and state.metadata is None
    return {} if is_nothing else {"state": value}


def _values(argument: str, state: Comparable) -> Any:
    if isinstance(state, State | StateSnapshot):
        return state.values
    if isinstance(state, CheckpointTuple):
        return state.checkpoint["channel_values"]
    if not isinstance(state, Mapping):
        problem = f"must be a State or a dict of values, not {shown(state)}"
        raise InvalidArgumentError(argument=argument, problem=problem)
    return state


def _changes(path: Path, before: Any, after: Any) -> Iterator[Change]:
    if before is after:
        return
    kind = type(before)
    parts = _parts(before) if kind is type(after) and len(path) < _DEEPEST else None
    if parts is not None:
        found = list(_mappings(path, parts, _parts(after) or {}))
        yield from found
        # Objects have more than the parts that they name: attributes of their own.
        if found or kind is dict or is_same(before, after):
            return
    elif (kind is list or kind is tuple) and kind is type(after) and len(path) < _DEEPEST:
        yield from _lists(path, before, after)
        return
    elif is_same(before, after):
        return
    yield Change(kind=ChangeKind.EDITED, path=path, before=before, after=after)


def _mappings(path: Path, before: Mapping[Any, Any], after: Mapping[Any, Any]) -> Iterator[Change]:
    # To a dict 1 is True.
    earlier = {key_of(key): key for key in before}
    later = {key_of(key): key for key in after}
    for kind, key in earlier.items():
        if kind in later:
            yield from _changes((*path, key), before[key], after[later[kind]])
        else:
            yield Change(kind=ChangeKind.REMOVED, path=(*path, key), before=before[key])
    for kind, key in later.items():
        if kind not in earlier:
            yield Change(kind=ChangeKind.ADDED, path=(*path, key), after=after[key])


def _lists(path: Path, before: Sequence[Any], after: Sequence[Any]) -> Iterator[Change]:
    """Elements that are the same belong together; those in between are paired in order.

    Messages belong together by their ids, too, and aren't paired otherwise.
    """
    are_messages = _are_messages(before) and _are_messages(after)
    for is_equal, first, last, new_first, new_last in _blocks(before, after, are_messages):
        are_paired = is_equal or not are_messages
        pairs = min(last - first, new_last - new_first) if are_paired else 0
        for offset in range(pairs):
            place = (*path, new_first + offset)
            yield from _changes(place, before[first + offset], after[new_first + offset])
        for index in range(first + pairs, last):
            yield Change(kind=ChangeKind.REMOVED, path=(*path, index), before=before[index])
        for index in range(new_first + pairs, new_last):
            yield Change(kind=ChangeKind.ADDED, path=(*path, index), after=after[index])


def _blocks(
    before: Sequence[Any], after: Sequence[Any], are_messages: bool
) -> Iterator[tuple[bool, int, int, int, int]]:
    """Where the elements belong together and where they don't, in order."""
    if len(before) == len(after) == 1 and not are_messages:
        yield False, 0, 1, 0, 1  # as they belong together in any case
        return
    are_one = _are_one_message if are_messages else is_same
    start = _common(before, after, are_one)
    end = _common(before[start:][::-1], after[start:][::-1], are_one)
    yield True, 0, start, 0, start
    old, new = before[start : len(before) - end], after[start : len(after) - end]
    matcher = _matcher(old, new, are_messages)
    if matcher is None:
        yield False, start, len(before) - end, start, len(after) - end
    else:
        for tag, *places in matcher.get_opcodes():
            first, last, new_first, new_last = (start + place for place in places)
            yield tag == "equal", first, last, new_first, new_last
    yield True, len(before) - end, len(before), len(after) - end, len(after)


def _matcher(
    old: Sequence[Any], new: Sequence[Any], are_messages: bool
) -> SequenceMatcher[Any] | None:
    """What finds the elements that belong together; None where that would take too long."""
    if min(len(old), len(new)) == 0 or len(old) * len(new) > _MOST_PAIRS:
        return None
    numbers = Numbers()
    keys = [[_key(numbers, item, are_messages) for item in some] for some in (old, new)]
    counts = [Counter(some) for some in keys]
    matches = sum(count * counts[1][key] for key, count in counts[0].items())
    if numbers.is_exhausted or matches > _MOST_MATCHES:
        return None
    return SequenceMatcher(None, keys[0], keys[1], autojunk=False)


def _common(
    before: Sequence[Any], after: Sequence[Any], are_one: Callable[[Any, Any], bool]
) -> int:
    count = 0
    for one, other in zip(before, after, strict=False):
        if not are_one(one, other):
            break
        count += 1
    return count


def _are_messages(values: Sequence[Any]) -> bool:
    return all(isinstance(value, BaseMessage) for value in values)


def _are_one_message(one: BaseMessage, other: BaseMessage) -> bool:
    return one.id == other.id if one.id or other.id else is_same(one, other)


def _key(numbers: Numbers, value: Any, is_message: bool) -> Any:
    return ("id", value.id) if is_message and value.id else numbers.of(value)


def _parts(value: Any) -> Mapping[Any, Any] | None:
    """What a value is made of, by name; None for what has no named parts, or is one."""
    if isinstance(value, BaseMessage):
        return None
    if isinstance(value, Mapping):
        return value
    if isinstance(value, BaseModel):
        return {**value.__dict__, **(value.__pydantic_extra__ or {})}
    if isinstance(value, Placeholder):
        return {"type_name": value.type_name, "content": value.content}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name, None) for f in dataclasses.fields(value)}
    return None
