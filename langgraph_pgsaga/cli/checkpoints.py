"""Finding the checkpoints that people mean."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import typer

from langgraph_pgsaga.errors import (
    MissingCheckpointError,
    MissingThreadError,
    PgSagaError,
)

if TYPE_CHECKING:
    from langchain_core.runnables import RunnableConfig

    from langgraph_pgsaga.checkpoint import PostgresSaver
    from langgraph_pgsaga.timetravel import History, Step

_SHORTEST_PREFIX = 4
_MOST_NAMED = 5


def history_of(saver: PostgresSaver, thread: str, namespace: str = "") -> History:
    """The thread's history in the namespace.

    Raises:
        MissingThreadError: there is no such thread.
        UnknownNamespaceError: it has no checkpoint in this namespace, but may have some in others.
    """
    from langgraph_pgsaga.sync import Sessions
    from langgraph_pgsaga.timetravel import anamespaces, history

    config: RunnableConfig = {"configurable": {"thread_id": thread}}
    found = history(saver, {"configurable": {"thread_id": thread, "checkpoint_ns": namespace}})
    if found[:1]:
        return found
    if Sessions(saver.db).get(thread) is None:
        raise MissingThreadError(thread_id=thread)
    if namespace:
        there = saver.db.portal.call(anamespaces, saver, config, _MOST_NAMED + 2)
        raise UnknownNamespaceError(
            thread_id=thread, namespace=namespace, others=tuple(filter(None, there))
        )
    return found


def latest(steps: History, thread: str) -> Step:
    """The newest checkpoint."""
    if not steps[:1]:
        raise _missing("there is none", thread)
    return steps[0]


def chosen(
    steps: History,
    thread: str,
    *,
    checkpoint: str | None,
    step: int | None,
    name: str | None,
    node: str | None,
    time: datetime | None,
) -> Step:
    """The checkpoint that a command's options ask for; without any, the latest."""
    asked = {"step": step, "name": name, "node": node, "time": time}
    given: dict[str, Any] = {key: value for key, value in asked.items() if value is not None}
    if checkpoint is not None:
        if given:
            raise typer.BadParameter(
                "names one checkpoint; leave the other options out", param_hint="--checkpoint"
            )
        return named(steps, thread, checkpoint)
    if not given:
        return latest(steps, thread)
    return _found(steps, thread, given)


def _found(steps: History, thread: str, given: dict[str, Any]) -> Step:
    try:
        return steps.at(**given)
    except MissingCheckpointError as error:
        said = ", ".join(f"{key} {value}" for key, value in given.items())
        raise _missing(f"none has {said}", thread) from error


def named(steps: History, thread: str, text: str) -> Step:
    """The checkpoint of this id, name, step number or unique beginning of an id; `latest`."""
    if text == "latest":
        return latest(steps, thread)
    every = list(steps)
    exact = [s for s in every if s.checkpoint_id == text] or [s for s in every if s.name == text]
    if exact:
        return exact[0]
    if re.fullmatch(r"-?\d{1,9}", text):
        numbered = [s for s in every if s.step == int(text)]
        if numbered:
            return min(numbered, key=lambda s: s.branch)
    begun = [s for s in every if s.checkpoint_id.startswith(text)] if text else []
    if len(text) < _SHORTEST_PREFIX and begun:
        least = f"the beginning of an id has {_SHORTEST_PREFIX} characters or more"
        raise _missing(f"none is called {text!r}, and {least}", thread)
    if len(begun) > 1:
        ids = ", ".join(s.checkpoint_id for s in begun[:_MOST_NAMED])
        more = f" and {len(begun) - _MOST_NAMED} more" if len(begun) > _MOST_NAMED else ""
        raise _missing(f"{len(begun)} ids begin with {text!r}: {ids}{more}", thread)
    if not begun:
        raise _missing(f"none is called {text!r}", thread)
    return begun[0]


@dataclass(kw_only=True, eq=False)
class UnknownCheckpointError(PgSagaError):
    """The thread has no checkpoint of that name, or several."""

    thread_id: str
    problem: str

    def __str__(self) -> str:
        hint = f"`pgsaga history` lists those of thread {self.thread_id!r}"
        return f"checkpoint: {self.problem}; {hint}"


@dataclass(kw_only=True, eq=False)
class UnknownNamespaceError(PgSagaError):
    """The thread has no checkpoint in the namespace. `others`, of subgraphs, have some."""

    thread_id: str
    namespace: str
    others: tuple[str, ...]

    def __str__(self) -> str:
        named = ", ".join(map(repr, self.others[:_MOST_NAMED])) or "none"
        more = " and more" if len(self.others) > _MOST_NAMED else ""
        return (
            f"--ns: thread {self.thread_id!r} has no checkpoint in {self.namespace!r}; its "
            f"subgraphs' namespaces are: {named}{more}"
        )


def _missing(problem: str, thread: str) -> UnknownCheckpointError:
    return UnknownCheckpointError(thread_id=thread, problem=problem)
