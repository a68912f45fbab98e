"""Namespaces as text, and the ranges of those that are below one another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from langgraph.store.base import (
    GetOp,
    InvalidNamespaceError,
    ListNamespacesOp,
    MatchCondition,
    Op,
    PutOp,
    SearchOp,
)
from langgraph.store.base import validate_op_namespace as check_labels

from langgraph_pgsaga._arguments import checked_items, checked_texts, required_text
from langgraph_pgsaga.errors import InvalidArgumentError

ANY_LABEL = "*"
# No text is behind it: Unicode's last code point, which is no character.
_LAST = "\U0010ffff"


class Scope(NamedTuple):
    """A namespace and the bounds of those below it; of the root there is no namespace."""

    namespace: str | None
    after: str
    before: str

    def values(self) -> dict[str, str | None]:
        """Those of a statement's parameters."""
        return {"namespace": self.namespace, "after": self.after, "before": self.before}


def check_namespaces(op: Op) -> None:
    """Refuses labels that the namespaces of an operation can't have.

    Raises:
        InvalidNamespaceError: LangGraph's: a label is empty, no str, or holds a dot or NUL; a put
            without a namespace, or below "langgraph".
        InvalidArgumentError: PostgreSQL can't hold it, or it is a str, of which each character
            would be a label.
    """
    for path in _paths(op):
        if isinstance(path, str | bytes):
            problem = f"is a {type(path).__name__}; pass a tuple, also of one label: ({path!r},)"
            raise InvalidArgumentError(argument="namespace", problem=problem)
    check_labels(op)
    for path in _paths(op):
        for label in path:
            required_text("namespace", label)
            if label.startswith(_LAST):
                problem = "a label begins with U+10FFFF, which is no character"
                raise InvalidArgumentError(argument="namespace", problem=problem)
    if isinstance(op, PutOp) and op.value is not None:
        if not op.namespace:
            raise InvalidNamespaceError("Namespace cannot be empty.")
        if op.namespace[0] == "langgraph":
            raise InvalidNamespaceError('Root label for namespace cannot be "langgraph".')


def _paths(op: Op) -> Iterable[Iterable[str]]:
    if isinstance(op, GetOp | PutOp):
        return [op.namespace]
    if isinstance(op, SearchOp):
        return [op.namespace_prefix]
    return [condition.path for condition in op.match_conditions or ()]


def stored_namespace(labels: Iterable[str]) -> str:
    """The text that a namespace is stored as."""
    return ".".join(labels)


def labels_of(stored: str) -> tuple[str, ...]:
    """The labels of a stored namespace."""
    return tuple(stored.split("."))


def scope_of(labels: Sequence[str]) -> Scope:
    """All that is in a namespace and below it."""
    if not labels:
        return Scope(None, "", _LAST)
    stored = stored_namespace(labels)
    # '/' is the character behind '.'.
    return Scope(stored, f"{stored}.", f"{stored}/")


def scopes_of_namespaces(argument: str, given: Iterable[Iterable[str]]) -> list[Scope]:
    """Of each namespace all that is in it and below it.

    Raises:
        InvalidArgumentError: one has no labels, isn't a sequence of them, or has one that can't be.
    """
    scopes = []
    for one in checked_items(argument, given):
        labels = tuple(checked_texts(argument, one))
        if not labels:
            raise InvalidArgumentError(argument=argument, problem="has one without labels")
        try:
            check_namespaces(SearchOp(labels))
        except InvalidNamespaceError as error:
            raise InvalidArgumentError(
                argument=argument, problem=f"has {labels}: {error}"
            ) from error
        scopes.append(scope_of(labels))
    return scopes


class Paths(NamedTuple):
    """What namespaces must begin and end with; a label of '*' is any."""

    prefix: list[str]
    suffix: list[str]

    @property
    def scope(self) -> Scope:
        """Where they are: below the labels that the prefix begins with."""
        named = self.prefix
        if ANY_LABEL in named:
            named = named[: named.index(ANY_LABEL)]
        return scope_of(named)


def paths_of(op: ListNamespacesOp) -> Paths | None:
    """All the conditions of a listing as one; None where no namespace fits all of them.

    Raises:
        InvalidArgumentError: a condition that is neither of a prefix nor of a suffix.
    """
    prefix: list[str] | None = []
    suffix: list[str] | None = []
    for condition in op.match_conditions or ():
        path = [str(label) for label in condition.path]
        if _is_of_prefix(condition):
            prefix = _both(prefix, path)
        else:
            suffix = _both(suffix, path[::-1])
        if prefix is None or suffix is None:
            return None
    return Paths(prefix or [], (suffix or [])[::-1])


def _is_of_prefix(condition: MatchCondition) -> bool:
    if condition.match_type not in ("prefix", "suffix"):
        problem = f"has match_type {condition.match_type!r}, which is neither prefix nor suffix"
        raise InvalidArgumentError(argument="match_conditions", problem=problem)
    return condition.match_type == "prefix"


def _both(first: list[str] | None, second: list[str]) -> list[str] | None:
    """The path of what fits two paths."""
    if first is None or len(first) < len(second):
        first, second = second, first or []
    both = list(first)
    for place, label in enumerate(second):
        if both[place] == ANY_LABEL:
            both[place] = label
        elif label not in (ANY_LABEL, both[place]):
            return None
    return both
