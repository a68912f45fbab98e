"""Going on from a past state: forks, and runs that start there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.types import Command

from langgraph_pgsaga._langgraph import COPY
from langgraph_pgsaga.errors import InvalidArgumentError, MissingCheckpointError
from langgraph_pgsaga.threads import Address
from langgraph_pgsaga.timetravel.states import (
    State,
    aget_state,
    aupdate_state,
    checked_state,
    get_state,
    moved,
    update_state,
)
from langgraph_pgsaga.timetravel.steps import saver_of


def fork(
    state: State, values: Any = None, *, as_node: str | None = None, thread_id: str | None = None
) -> State:
    """A new branch from a past state; with `thread_id`, a new thread that begins with it.

    A new branch is LangGraph's `update_state`: with values a child of `state`, without any
    (and no `as_node`) a copy beside it, whose tasks have yet to run. It becomes the
    thread's latest state.

    A new thread is a copy of the old one up to `state`, to which `values` are applied if
    there are any; the old one isn't touched. From the old thread's latest state it goes on
    just like that, answers of tasks that are done and open questions included, also those
    asked inside subgraphs. From an earlier one the tasks run again.

    A Command for `values` runs what was begun so, as `replay` does, and gives the state in
    which that run ended: `Command(resume=...)` answers the state's question.

    Raises:
        MissingCheckpointError: `state` has no checkpoint, or it was deleted.
        ThreadExistsError: `thread_id` holds state already.
        InvalidArgumentError: a new thread can't begin with the state of a subgraph, or the
            Command can't be used.
        InvalidUpdateError: LangGraph's, of values without a clear `as_node`; a new thread
            is then there all the same, as it was copied.
    """
    if isinstance(values, Command):
        command = command_of(state, values, as_node, thread_id)
        return replay(fork(state, thread_id=thread_id), command)
    checkpoint_id = fork_point_of(state, thread_id)
    is_copy = values is None and as_node is None
    if thread_id is None:
        here = get_state(state.graph, state)  # LangGraph would update one that is gone, too
        return update_state(state.graph, here, values, COPY if is_copy else as_node)
    saver_of(state.graph).copy_thread(
        state.thread_id, thread_id, checkpoint_id=checkpoint_id, tenant=tenant_of(state)
    )
    begun = get_state(state.graph, latest_of(state, thread_id))
    return begun if is_copy else update_state(state.graph, begun, values, as_node)


async def afork(
    state: State, values: Any = None, *, as_node: str | None = None, thread_id: str | None = None
) -> State:
    """`fork` for async callers."""
    if isinstance(values, Command):
        command = command_of(state, values, as_node, thread_id)
        return await areplay(await afork(state, thread_id=thread_id), command)
    checkpoint_id = fork_point_of(state, thread_id)
    is_copy = values is None and as_node is None
    if thread_id is None:
        here = await aget_state(state.graph, state)
        return await aupdate_state(state.graph, here, values, COPY if is_copy else as_node)
    await saver_of(state.graph).acopy_thread(
        state.thread_id, thread_id, checkpoint_id=checkpoint_id, tenant=tenant_of(state)
    )
    begun = await aget_state(state.graph, latest_of(state, thread_id))
    return begun if is_copy else await aupdate_state(state.graph, begun, values, as_node)


def replay(state: State, input: Any = None, *, context: Any = None) -> State:
    """Runs the graph on from a state; the state in which that run ended, or was interrupted.

    As LangGraph's `invoke(input, state.config)`. Without input the tasks of the state run
    again, in a new branch: also those that were done, and every question is asked again.
    With an input the graph starts anew on these values. `Command(resume=...)` answers a
    question of a thread's latest state; answers from before aren't forgotten, so of an
    earlier state, fork first.

    Raises:
        MissingCheckpointError: the state was deleted; or it has no checkpoint, and there is no
            input.
        Exception: what a node raised; the branch stands as far as it came.
    """
    ended = _Ended(state, input)
    config, graph = state.config, state.graph
    if state.checkpoint_id is not None:  # LangGraph would begin anew where that is gone
        get_state(graph, state)
    for chunk in graph.stream(input, config, context=context, stream_mode="checkpoints"):
        ended.saw(chunk)
    latest = get_state(state.graph, ended.thread)
    return latest if ended.is_at(latest) else get_state(state.graph, ended.config)


async def areplay(state: State, input: Any = None, *, context: Any = None) -> State:
    """`replay` for async callers."""
    ended = _Ended(state, input)
    config, graph = state.config, state.graph
    if state.checkpoint_id is not None:
        await aget_state(graph, state)
    async for chunk in graph.astream(input, config, context=context, stream_mode="checkpoints"):
        ended.saw(chunk)
    latest = await aget_state(state.graph, ended.thread)
    return latest if ended.is_at(latest) else await aget_state(state.graph, ended.config)


class _Ended:
    """Where a run ended: somebody else's may have made the thread's latest checkpoint.

    The latest state is the better one to give, though: it knows which tasks are done.
    """

    def __init__(self, state: State, input: Any) -> None:
        if checked_state(state).checkpoint_id is None and (
            input is None or isinstance(input, Command)
        ):
            raise MissingCheckpointError(thread_id=state.thread_id)
        self.thread = latest_of(state)
        self.config = self.thread

    def saw(self, chunk: Any) -> None:
        """Takes note of a checkpoint of the root graph: where it is, and each that it made."""
        self.config = moved(self.thread, chunk["config"])

    def is_at(self, latest: State) -> bool:
        """Whether the thread's latest state is where the run ended."""
        ended = Address.of(self.config).checkpoint_id
        return ended is None or ended == latest.checkpoint_id


def latest_of(state: State, thread_id: str | None = None) -> RunnableConfig:
    """The config of the latest state of the root graph, in this thread or another."""
    to: RunnableConfig = {"configurable": {"thread_id": thread_id or state.thread_id}}
    return moved(state.config, to)


def tenant_of(state: State) -> str:
    """Whose thread it is a state of."""
    return Address.of(state.config, saver_of(state.graph).tenants).tenant_id


def fork_point_of(state: State, thread_id: str | None) -> str:
    """The checkpoint that a fork begins with."""
    address = Address.of(checked_state(state).config)
    if address.checkpoint_id is None:
        raise MissingCheckpointError(thread_id=address.thread_id)
    if thread_id is not None and address.checkpoint_ns:
        problem = "is of a subgraph. Fork the state of the graph around it"
        raise InvalidArgumentError(argument="state", problem=problem)
    return address.checkpoint_id


def command_of(
    state: State, command: Command[Any], as_node: str | None, thread_id: str | None
) -> Command[Any]:
    """The Command as a fork of the state takes it.

    Raises:
        InvalidArgumentError: it can't be told what it is to do there.
    """
    if as_node is not None:
        problem = "goes with values. A Command is the graph's input, and no node's"
        raise InvalidArgumentError(argument="as_node", problem=problem)
    if command.graph is not None:
        problem = "a Command for another graph is for nodes. Fork the state of that graph"
        raise InvalidArgumentError(argument="values", problem=problem)
    asked = {question.id: question for question in checked_state(state).interrupts}
    resume = command.resume
    if thread_id is not None or not isinstance(resume, dict) or not resume.keys() <= asked.keys():
        return command
    if len(asked) > 1 or not resume:
        problem = "in a branch the questions have new ids. Pass thread_id, where they keep them"
        raise InvalidArgumentError(argument="values", problem=problem)
    return replace(command, resume=next(iter(resume.values())))
