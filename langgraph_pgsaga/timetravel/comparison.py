"""What would have happened: one past state, several ways to go on from it."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.types import Command

from langgraph_pgsaga._arguments import checked_instance, checked_integer, checked_mapping
from langgraph_pgsaga.errors import InvalidArgumentError
from langgraph_pgsaga.threads import configurable_of
from langgraph_pgsaga.timetravel import _compare_html, _text
from langgraph_pgsaga.timetravel.changes import Diff, diff
from langgraph_pgsaga.timetravel.forking import (
    afork,
    areplay,
    command_of,
    fork_point_of,
    latest_of,
    tenant_of,
)
from langgraph_pgsaga.timetravel.states import State, aget_state, checked_state, shown_of
from langgraph_pgsaga.timetravel.steps import call, saver_of

_MOST_CHANGES = 20
_LONGEST_LINE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A way to go on: `values` and `as_node` as `fork` takes them, `input` as `replay`.

    A Command for values is the input.
    """

    values: Any = None
    as_node: str | None = None
    input: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a variant.

    `state` is where its run ended, was interrupted or failed; None where it never began.
    `error` is what it failed with. `seconds` is how long it ran. `config` names its thread.
    """

    state: State | None
    error: Exception | None
    seconds: float
    config: RunnableConfig


class Comparison:
    """The outcomes of variants by name. It prints as text, and shows itself in a notebook.

    Each variant ran in a thread of its own, which stays until `discard()`.
    """

    def __init__(self, start: State, outcomes: Mapping[str, Outcome]) -> None:
        self.start = start
        self.outcomes = dict(outcomes)

    def diff(self, one: str, other: str) -> Diff:
        """What differs between the outcomes of two variants.

        Raises:
            InvalidArgumentError: there is no such variant, or it never began.
        """
        return diff(self._state(one), self._state(other))

    def discard(self) -> None:
        """Deletes the threads of the variants. What was read of them stays here."""
        call(saver_of(self.start.graph), self.adiscard)

    async def adiscard(self) -> None:
        """`discard` for async callers."""
        saver = saver_of(self.start.graph)
        for outcome in self.outcomes.values():
            thread_id = configurable_of(outcome.config)["thread_id"]
            await saver.adelete_thread(thread_id, tenant=tenant_of(self.start))

    def _state(self, name: str) -> State:
        outcome = self.outcomes.get(name)
        if outcome is None or outcome.state is None:
            problem = f"{name!r} has no state" if outcome else f"there is no variant {name!r}"
            raise InvalidArgumentError(argument="diff", problem=problem)
        return outcome.state

    def __str__(self) -> str:
        return "\n".join(_text.one_line(line) for line in self._lines())

    def _lines(self) -> Iterator[str]:
        for name, outcome in self.outcomes.items():
            yield f"{name}: {_told(outcome)}"
            changes = diff(self.start, outcome.state) if outcome.state else ()
            yield from (f"  {change}" for change in changes[:_MOST_CHANGES])
            if len(changes) > _MOST_CHANGES:
                yield f"  … {len(changes) - _MOST_CHANGES:,} more changes"

    def __repr__(self) -> str:
        return f"<Comparison of {', '.join(map(repr, self.outcomes))}>"

    def _repr_html_(self) -> str:
        columns = [
            _compare_html.Column(
                name=name,
                told=_told(outcome),
                is_failed=outcome.error is not None,
                channels=shown_of(outcome.state).channels if outcome.state else {},
            )
            for name, outcome in self.outcomes.items()
        ]
        return _compare_html.page(columns)


def compare(
    state: State,
    variants: Mapping[str, Any],
    *,
    max_concurrency: int | None = None,
    context: Any = None,
) -> Comparison:
    """`acompare` for sync callers; nodes may be sync or async all the same."""
    saver = saver_of(checked_state(state).graph)
    options = {"max_concurrency": max_concurrency, "context": context}
    return call(saver, acompare, state, variants, **options)


async def acompare(
    state: State,
    variants: Mapping[str, Any],
    *,
    max_concurrency: int | None = None,
    context: Any = None,
) -> Comparison:
    """Forks a state once for each variant, runs all of them, and compares where they end.

    Each runs in a new thread, `<thread id>:<name>:<six hex digits>`; the thread of `state`
    isn't touched. An exception in one is its outcome, and doesn't end the others.

    Args:
        state: where all of them begin.
        variants: by name, the values as `fork` takes them (None for the state as it is), a
            Command (as `Command(resume=...)`, an answer) or a Variant.
        max_concurrency: how many run at a time; None for all.
        context: LangGraph's, of all runs.

    Raises:
        MissingCheckpointError: `state` has no checkpoint.
        InvalidArgumentError: there is no variant, `max_concurrency` is below 1, or `state`
            is of a subgraph.
    """
    fork_point_of(state, checked_state(state).thread_id)
    for name in checked_mapping("variants", variants):
        checked_instance("variants", name, str, "Name each by a text")
    if not variants:
        raise InvalidArgumentError(argument="variants", problem="names no variant")
    if max_concurrency is not None:
        checked_integer("max_concurrency", max_concurrency, least=1)
    room = asyncio.Semaphore(max_concurrency or len(variants))

    async def run(name: str, given: Any) -> Outcome:
        variant = given if isinstance(given, Variant) else Variant(values=given)
        thread_id = f"{state.thread_id}:{name}:{secrets.token_hex(3)}"
        async with room:
            return await _outcome(state, variant, thread_id, context)

    async with asyncio.TaskGroup() as group:
        tasks = {name: group.create_task(run(name, given)) for name, given in variants.items()}
    return Comparison(state, {name: task.result() for name, task in tasks.items()})


async def _outcome(state: State, variant: Variant, thread_id: str, context: Any) -> Outcome:
    config = latest_of(state, thread_id)
    started = None
    found: State | None = None
    error: Exception | None = None
    try:
        values, given = _parts(state, variant, thread_id)
        begun = await afork(state, values, as_node=variant.as_node, thread_id=thread_id)
        started = time.monotonic()
        found = await areplay(begun, given, context=context)
    except Exception as raised:
        error = raised
    seconds = 0.0 if started is None else time.monotonic() - started
    if started is not None and found is None:
        found = await aget_state(state.graph, config)
    return Outcome(state=found, error=error, seconds=seconds, config=config)


def _parts(state: State, variant: Variant, thread_id: str) -> tuple[Any, Any]:
    """What to fork with, and what to run on with."""
    if not isinstance(variant.values, Command):
        return variant.values, variant.input
    if variant.input is not None:
        problem = "goes with values. A Command is the input itself"
        raise InvalidArgumentError(argument="input", problem=problem)
    return None, command_of(state, variant.values, variant.as_node, thread_id)


def _told(outcome: Outcome) -> str:
    """What became of it, in one line."""
    if outcome.error is not None:
        error = _text.summary(outcome.error, _LONGEST_LINE)
        return f"failed after {outcome.seconds:.2f} s: {error}"
    state = outcome.state
    asked = [_text.summary(i.value, _LONGEST_LINE) for i in state.interrupts] if state else []
    if asked:
        return f"interrupted after {outcome.seconds:.2f} s: {', '.join(asked)}"
    return f"ended after {outcome.seconds:.2f} s"
