"""Real graphs on PostgreSQL answer as they do with the in-memory saver."""

from __future__ import annotations

import asyncio
import operator
import os
import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, TypedDict

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import (
    AIMessage,
    AnyMessage,
    BaseMessage,
    HumanMessage,
    RemoveMessage,
    ToolMessage,
)
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import Command, RetryPolicy, Send, interrupt

from langgraph_pgsaga import PostgresSaver
from tests._graphs import Comparison, Normaliser, Run, normalised_history
from tests._limits import HANG_SECONDS


class Log(TypedDict):
    items: Annotated[list[Any], operator.add]


class Trip(TypedDict, total=False):
    city: str
    days: int
    log: Annotated[list[str], operator.add]


MODES = [
    ("sync", "invoke", ""),
    ("async", "ainvoke", ""),
    ("exit", "invoke", ""),
    ("async", "invoke", "single writer"),
]
if os.environ.get("PGSAGA_FULL"):
    MODES = [
        (durability, mode, writers)
        for durability in ("sync", "async", "exit")
        for mode in ("invoke", "ainvoke")
        for writers in ("", "single writer")
    ]


@pytest.fixture(params=MODES, ids="-".join)
def compare(request: pytest.FixtureRequest, dsn: str) -> Comparison:
    durability, mode, writers = request.param
    return Comparison(
        dsn=dsn,
        durability=durability,
        is_async=mode == "ainvoke",
        single_writer=bool(writers),
    )


def adds(*items: Any) -> Any:
    """A node that appends to `items`."""
    return lambda state: {"items": list(items)}


def chain(**nodes: Any) -> StateGraph[Any]:
    """The nodes one after the other."""
    builder: StateGraph[Any] = StateGraph(Log)
    for name, node in nodes.items():
        builder.add_node(name, node)
    for first, second in zip([START, *nodes], [*nodes, END], strict=True):
        builder.add_edge(first, second)
    return builder


def ask(*questions: str) -> Any:
    """A node that interrupts with each question and appends the answers."""
    return lambda state: {"items": [interrupt(question) for question in questions]}


def test_an_interrupt_is_resumed_by_a_new_saver(compare: Comparison) -> None:
    """What one saver interrupted, savers that never saw the thread resume, twice in one node."""

    async def scenario(run: Run) -> None:
        builder = chain(first=adds("a"), asks=ask("one?", "two?"), last=adds("z"))
        answer = await run.invoke(builder.compile(run.saver), {"items": ["in"]})
        assert [i.value for i in answer["__interrupt__"]] == ["one?"]
        run.restart()
        await run.state(builder.compile(run.saver))
        answer = await run.invoke(builder.compile(run.saver), Command(resume=1))
        assert [i.value for i in answer["__interrupt__"]] == ["two?"]
        run.restart()
        answer = await run.invoke(builder.compile(run.saver), Command(resume=2))
        assert answer == {"items": ["in", "a", 1, 2, "z"]}
        await run.history(builder.compile(run.saver))

    compare(scenario)


def test_static_breakpoints_stop_and_go_on(compare: Comparison) -> None:
    """interrupt_before and interrupt_after stop where they say, and None goes on."""

    async def scenario(run: Run) -> None:
        builder = chain(one=adds(1), two=adds(2), three=adds(3))
        for _ in range(3):
            graph = builder.compile(run.saver, interrupt_before=["two"], interrupt_after=["two"])
            state = await run.state(graph)
            await run.invoke(graph, None if state.next else {"items": [0]})
            run.restart()
        state = await run.state(builder.compile(run.saver))
        assert (state.values["items"], state.next) == ([0, 1, 2, 3], ())
        await run.history(builder.compile(run.saver))

    compare(scenario)


def parallel_questions() -> Any:
    builder: StateGraph[Any] = StateGraph(Log)
    builder.add_node("left", ask("left?"))
    builder.add_node("right", ask("right?"))
    builder.add_node("calm", adds("calm"))
    builder.add_node("join", lambda state: {"items": [f"joined {len(state['items'])}"]})
    for name in ("left", "right", "calm"):
        builder.add_edge(START, name)
    builder.add_edge(["left", "right", "calm"], "join")
    return builder


def test_several_interrupts_are_resumed_by_id(compare: Comparison) -> None:
    """Two interrupts of one step are answered one by one, by id."""

    async def scenario(run: Run) -> None:
        builder = parallel_questions()
        answer = await run.invoke(builder.compile(run.saver), {"items": ["in"]})
        left, right = sorted(answer["__interrupt__"], key=lambda i: str(i.value))
        run.restart()
        graph = builder.compile(run.saver)
        assert {i.id for i in (await run.state(graph)).interrupts} == {left.id, right.id}
        answer = await run.invoke(graph, Command(resume={right.id: "R"}))
        assert [i.id for i in answer["__interrupt__"]] == [left.id]
        run.restart()
        graph = builder.compile(run.saver)
        answer = await run.invoke(graph, Command(resume={left.id: "L"}))
        assert sorted(answer["items"]) == ["L", "R", "calm", "in", "joined 4"]
        await run.history(graph)

    compare(scenario)


def test_all_interrupts_are_resumed_at_once(compare: Comparison) -> None:
    """A mapping with every id resumes all in one call."""

    async def scenario(run: Run) -> None:
        graph = parallel_questions().compile(run.saver)
        answer = await run.invoke(graph, {"items": []})
        run.restart()
        graph = parallel_questions().compile(run.saver)
        resume = {i.id: str(i.value).upper() for i in answer["__interrupt__"]}
        answer = await run.invoke(graph, Command(resume=resume))
        assert answer["items"] == ["calm", "LEFT?", "RIGHT?", "joined 3"]
        await run.history(graph)

    compare(scenario)


def test_sends_fan_out_and_join(compare: Comparison) -> None:
    """Sends, of two nodes and with an interrupt in one of them, join in the order sent."""

    def work(item: Any) -> Any:
        value = interrupt("three?") if item == 3 else item * 10
        return {"items": [value]}

    def plan(state: Log) -> list[Send]:
        return [Send("work", n) for n in range(5)] + [Send("note", {"word": "w"})]

    async def scenario(run: Run) -> None:
        builder: Any = StateGraph(Log)
        builder.add_node("work", work)
        builder.add_node("note", lambda sent: {"items": [sent["word"]]})
        builder.add_node("join", lambda state: {"items": [len(state["items"])]})
        builder.add_conditional_edges(START, plan, ["work", "note"])
        builder.add_edge("work", "join")
        await run.invoke(builder.compile(run.saver), {"items": ["in"]})
        run.restart()
        graph = builder.compile(run.saver)
        await run.state(graph)
        answer = await run.invoke(graph, Command(resume="!"))
        assert answer["items"] == ["in", 0, 10, 20, "!", 40, "w", 7]
        await run.history(graph)

    compare(scenario)


def nested(checkpointer: Any, *, asks: bool) -> StateGraph[Any]:
    """A graph in a graph in a graph; the innermost asks."""
    inner = chain(deep=adds("deep"), asks=ask("inside?") if asks else adds("calm"))
    middle = chain(before=adds("before"), inner=inner.compile(checkpointer), after=adds("after"))
    return chain(top=adds("top"), middle=middle.compile(checkpointer), end=adds("end"))


@pytest.mark.parametrize("checkpointer", [None, True])
def test_subgraphs_are_interrupted_and_resumed(
    compare: Comparison, checkpointer: bool | None
) -> None:
    """A question two graphs deep stops all, shows in the subgraphs' states, and is resumed."""

    async def scenario(run: Run) -> None:
        builder = nested(checkpointer, asks=True)
        for turn in range(2):
            await run.invoke(builder.compile(run.saver), {"items": [turn]})
            run.restart()
            graph = builder.compile(run.saver)
            state = await run.state(graph, subgraphs=True)
            assert [i.value for i in state.interrupts] == ["inside?"]
            await run.invoke(graph, Command(resume=f"answer {turn}"))
            state = await run.state(graph, subgraphs=True)
            assert state.next == ()
            assert f"answer {turn}" in state.values["items"]
        await run.history(graph)

    compare(scenario)


def test_subgraph_histories_are_read_and_forked(compare: Comparison) -> None:
    """An interrupted subgraph's own history is listed, and its state updated from outside."""

    async def scenario(run: Run) -> None:
        builder = nested(None, asks=True)
        await run.invoke(builder.compile(run.saver), {"items": []})
        run.restart()
        graph = builder.compile(run.saver)
        outer = await run.state(graph, subgraphs=True)
        middle = outer.tasks[0].state
        await run.history(graph, {"configurable": dict(middle.config["configurable"])})  # type: ignore[union-attr]
        inner = middle.tasks[0].state  # type: ignore[union-attr]
        await run.update(graph, {"items": ["patched"]}, inner.config)  # type: ignore[union-attr]
        answer = await run.invoke(graph, Command(resume="yes"))
        assert "patched" in answer["items"]
        await run.history(graph)

    compare(scenario)


def test_a_subgraph_with_its_own_persistence_remembers(compare: Comparison) -> None:
    """compile(checkpointer=True) keeps a subgraph's state between calls; False keeps nothing."""

    async def scenario(run: Run) -> None:
        counts: dict[Any, Any] = {}
        # LangGraph itself fails on False with durability "sync".
        for checkpointer in (True, None) if run.durability == "sync" else (True, None, False):
            inner = chain(one=adds("x")).compile(checkpointer, name=f"inner{checkpointer}")

            def call(state: Log, inner: Any = inner) -> dict[str, Any]:
                return {"items": [len(inner.invoke({"items": ["i"]})["items"])]}

            builder = chain(call=call)
            for _ in range(3):
                thread = f"thread {checkpointer}"
                await run.invoke(builder.compile(run.saver), {"items": []}, thread)
                run.restart()
            graph = builder.compile(run.saver)
            counts[checkpointer] = (await run.state(graph, thread)).values["items"]
            await run.history(graph, thread)
        assert counts.pop(True) == [2, 4, 6]
        assert all(found == [2, 2, 2] for found in counts.values())

    compare(scenario)


def test_commands_update_and_go_also_to_the_parent(compare: Comparison) -> None:
    """A Command from a node updates and jumps; from a subgraph it reaches the parent's node."""

    def choose(state: Trip) -> Command[Any]:
        return Command(update={"city": "Graz", "log": ["choose"]}, goto="sub")

    def leave(state: Trip) -> Command[Any]:
        update = {"days": 3, "log": [f"leave {state['city']}"]}
        return Command(graph=Command.PARENT, update=update, goto=["pack", Send("note", "sent")])

    def approve(state: Trip) -> Command[Any]:
        answer = interrupt({"days": state["days"], "log": state["log"]})
        return Command(update={"days": answer}, goto=END if answer > 2 else "choose")

    async def scenario(run: Run) -> None:
        sub: StateGraph[Any] = StateGraph(Trip)
        sub.add_node("leave", leave)
        sub.add_edge(START, "leave")
        builder: StateGraph[Any] = StateGraph(Trip)
        builder.add_node("choose", choose, destinations=("sub",))
        builder.add_node("sub", sub.compile(), destinations=("pack", "note"))
        builder.add_node("pack", lambda state: {"log": ["pack"]})
        builder.add_node("note", lambda sent: {"log": [sent]})
        builder.add_node("approve", approve, destinations=("choose", END))
        builder.add_edge(START, "choose")
        builder.add_edge("pack", "approve")
        await run.invoke(builder.compile(run.saver), {"log": ["in"]})
        run.restart()
        again: Command[Any] = Command(resume=1, update={"log": ["from outside"]})
        await run.invoke(builder.compile(run.saver), again)
        run.restart()
        graph = builder.compile(run.saver)
        answer = await run.invoke(graph, Command(resume=7))
        assert (answer["days"], answer["city"], answer["log"].count("leave Graz")) == (7, "Graz", 2)
        answer = await run.invoke(graph, Command(goto="pack", update={"days": 1}))
        assert answer["__interrupt__"][0].value["days"] == 1
        await run.history(graph)

    compare(scenario)


def test_update_state_writes_as_a_node_now_and_earlier(compare: Comparison) -> None:
    """update_state continues from the node it names, at the head and at an earlier checkpoint."""

    async def scenario(run: Run) -> None:
        builder = chain(one=adds(1), two=adds(2), three=adds(3))
        graph = builder.compile(run.saver, interrupt_before=["two"])
        await run.invoke(graph, {"items": [0]})
        run.restart()
        graph = builder.compile(run.saver)
        await run.update(graph, {"items": ["as two"]}, as_node="two")
        assert (await run.state(graph)).next == ("three",)
        assert (await run.invoke(graph, None))["items"] == [0, 1, "as two", 3]
        history = await run.history(graph)
        earliest = next(s for s in history if s.next == ("two",))
        forked = await run.update(graph, {"items": ["fork"]}, earliest.config, "one")
        assert (await run.invoke(graph, None, forked))["items"] == [0, 1, "fork", 2, 3]
        await run.update(graph, None, as_node="one")
        await run.update(graph, {"items": ["in"]}, "empty thread", "__start__")
        await run.history(graph, "empty thread")
        await run.history(graph)

    compare(scenario)


def test_forks_leave_both_branches_readable(compare: Comparison) -> None:
    """Replays and forks from an earlier checkpoint change no checkpoint that was there."""

    async def scenario(run: Run) -> None:
        builder = chain(one=adds(1), two=adds(2))
        graph = builder.compile(run.saver)
        for turn in range(3):
            await run.invoke(graph, {"items": [f"turn {turn}"]})
        before = await run.history(graph)
        start = before[-1] if run.durability == "exit" else before[5]
        run.restart()
        graph = builder.compile(run.saver)
        await run.invoke(graph, {"items": ["branch a"]}, start.config)
        await run.invoke(graph, {"items": ["branch b"]}, start.config)
        await run.invoke(graph, None, start.config)
        await run.invoke(graph, {"items": ["on the newest"]})
        run.restart()
        graph = builder.compile(run.saver)
        await run.history(graph)
        normaliser = Normaliser()
        for snapshot in before:
            again = await run.state(graph, snapshot.config)
            assert normaliser.plain(again) == normaliser.plain(snapshot)

    compare(scenario)


class ScriptedModel(BaseChatModel):
    """Answers by what it was asked: `get NAME` calls a tool, a tool's answer is repeated."""

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Any:
        return self

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        reply = AIMessage(f"Reply {len(messages)} to: {messages[-1].content}")
        words = str(messages[-1].content).split()
        if isinstance(messages[-1], HumanMessage) and words[0] == "get":
            calls = [
                {"name": "look_up", "args": {"name": word}, "id": f"call {len(messages)} {word}"}
                for word in words[1:]
            ]
            usage = {"input_tokens": 3, "output_tokens": 5, "total_tokens": 8}
            reply = AIMessage("", tool_calls=calls, usage_metadata=usage)
        return ChatResult(generations=[ChatGeneration(message=reply)])


@tool(response_format="content_and_artifact")
def look_up(name: str) -> tuple[str, dict[str, Any]]:
    """Look a name up."""
    return f"{name} is {len(name)}", {"name": name, "size": len(name), "raw": b"\x00\xff"}


@tool("look_up")
def ask_first(name: str) -> str:
    """Look a name up once a human allows it."""
    return f"{name}: {interrupt(f'look up {name}?')}"


def test_an_agent_calls_tools_over_several_turns(compare: Comparison) -> None:
    """create_agent's conversation with parallel tool calls and artifacts is kept turn by turn."""

    async def scenario(run: Run) -> None:
        for question in ("hello", "get ann bob", "thanks", "get dora"):
            agent = create_agent(ScriptedModel(), [look_up], checkpointer=run.saver)
            await run.invoke(agent, {"messages": [HumanMessage(question, id=question)]})
            run.restart()
        agent = create_agent(ScriptedModel(), [look_up], checkpointer=run.saver)
        messages = (await run.state(agent)).values["messages"]
        tools = [m for m in messages if isinstance(m, ToolMessage)]
        assert [m.artifact["name"] for m in tools] == ["ann", "bob", "dora"]
        await run.history(agent)

    compare(scenario)


def test_an_agents_tools_wait_for_a_human(compare: Comparison) -> None:
    """Interrupts inside tools, and by the middleware before them, are resumed later."""

    async def scenario(run: Run) -> None:
        def agent(*middleware: Any) -> Any:
            return create_agent(
                ScriptedModel(), [ask_first], checkpointer=run.saver, middleware=middleware
            )

        answer = await run.invoke(agent(), {"messages": [HumanMessage("get ann bob", id="1")]})
        resume = {i.id: f"yes to {i.value}" for i in answer["__interrupt__"]}
        assert len(resume) == 2
        run.restart()
        await run.state(agent())
        await run.invoke(agent(), Command(resume=resume))
        watch = HumanInTheLoopMiddleware(interrupt_on={"look_up": True})
        await run.invoke(agent(watch), {"messages": [HumanMessage("get dora", id="2")]})
        run.restart()
        reject = {"decisions": [{"type": "reject", "message": "not her"}]}
        answer = await run.invoke(agent(watch), Command(resume=reject))
        assert "not her" in str(answer["messages"][-1].content)
        await run.history(agent(watch))

    compare(scenario)


def fold_messages(state: list[AnyMessage], writes: Sequence[Any]) -> list[AnyMessage]:
    """add_messages for a delta channel: one call for a batch of writes."""
    for write in writes:
        state = add_messages(state, write)  # type: ignore[assignment, arg-type]
    return state


class DeltaState(TypedDict, total=False):
    messages: Annotated[list[AnyMessage], DeltaChannel(fold_messages, snapshot_frequency=3)]
    facts: Annotated[
        list[int],
        DeltaChannel(lambda state, writes: state + [n for w in writes for n in w], list),
    ]
    turn: int


def delta_builder() -> StateGraph[Any]:
    def talk(state: DeltaState) -> dict[str, Any]:
        turn = state.get("turn", 0) + 1
        said: list[BaseMessage] = [AIMessage(f"reply {turn} " * 20, id=f"ai {turn}")]
        if turn == 4:
            said += [RemoveMessage(id="ai 1"), HumanMessage("edited", id="human 2")]
        return {"messages": said, "turn": turn, "facts": [turn]}

    builder: StateGraph[Any] = StateGraph(DeltaState)
    builder.add_node("talk", talk)
    builder.add_node("think", lambda state: {"facts": [len(state["messages"]), 0]})
    builder.add_edge(START, "talk")
    builder.add_edge(START, "think")
    return builder


class Wide(Log, total=False):
    """What another release has beside `Log`."""

    plan: str
    count: int
    sure: bool
    told: None
    long: str
    parts: dict[str, Any]


def test_channels_of_another_release_keep_their_values(compare: Comparison) -> None:
    """What a release put in channels that another one lacks is there when it comes back."""
    asks = {"first": adds("a"), "asks": ask("one?")}

    def wide(run: Run) -> Any:
        builder: StateGraph[Any] = StateGraph(Wide)
        for name, node in asks.items():
            builder.add_node(name, node)
        builder.add_edge(START, "first")
        builder.add_edge("first", "asks")
        return builder.compile(run.saver)

    async def scenario(run: Run) -> None:
        values = {"plan": "p", "count": 7, "sure": True, "told": None, "long": "l" * 300}
        await run.invoke(wide(run), {"items": ["in"], **values, "parts": {"a": 1}})
        run.restart()
        old = chain(**asks).compile(run.saver)
        await run.invoke(old, Command(resume="yes"))
        await run.update(old, {"items": ["by hand"]}, as_node="asks")
        run.restart()
        await run.invoke(chain(**asks).compile(run.saver), {"items": ["again"]})
        run.restart()
        state = await run.state(wide(run))
        assert state.values.items() >= values.items()
        await run.invoke(wide(run), Command(resume="yes", update={"count": 8}))
        await run.history(wide(run))

    compare(scenario)


def delta_turns(first: int, last: int) -> list[dict[str, Any]]:
    return [
        {"messages": [HumanMessage(f"question {n}", id=f"human {n}")]} for n in range(first, last)
    ]


def test_delta_channels_are_rebuilt(compare: Comparison) -> None:
    """State behind deltas and snapshots equals the in-memory run's at each checkpoint and fork."""

    async def scenario(run: Run) -> None:
        for turn in delta_turns(1, 8):
            await run.invoke(delta_builder().compile(run.saver), turn)
            run.restart()
        graph = delta_builder().compile(run.saver)
        history = await run.history(graph)
        for snapshot in history:
            await run.state(graph, snapshot.config)
        await run.invoke(graph, {"messages": [HumanMessage("fork", id="f")]}, history[4].config)
        forked = await run.update(graph, {"facts": [99]}, history[7].config, "think")
        await run.invoke(graph, None, forked)
        await run.history(graph)

    compare(scenario)


@pytest.mark.parametrize("turns", range(1, 9))
def test_pruned_delta_channels_keep_their_state(sync_saver: PostgresSaver, turns: int) -> None:
    """prune(keep_latest) at any distance from a snapshot leaves the state as it is."""
    graph = delta_builder().compile(sync_saver)
    memory = delta_builder().compile(InMemorySaver())
    config: RunnableConfig = {"configurable": {"thread_id": "t"}}
    for turn in delta_turns(1, turns + 1):
        graph.invoke(turn, config)
        memory.invoke(turn, config)
    sync_saver.prune(["t"], strategy="keep_latest")
    assert graph.get_state(config).values == memory.get_state(config).values
    for turn in delta_turns(turns + 1, turns + 4):
        assert graph.invoke(turn, config) == memory.invoke(turn, config)
        sync_saver.prune(["t"], strategy="keep_latest")
        assert graph.get_state(config).values == memory.get_state(config).values


@pytest.mark.anyio
async def test_delta_history_equals_the_base_class_walk(saver: PostgresSaver) -> None:
    """The fast path finds, at every checkpoint of a forked thread, what the walk finds."""
    graph = delta_builder().compile(saver)
    config: RunnableConfig = {"configurable": {"thread_id": "t"}}
    for turn in delta_turns(1, 8):
        await graph.ainvoke(turn, config)
    middle = [s async for s in graph.aget_state_history(config)][9].config
    for turn in delta_turns(20, 24):
        await graph.ainvoke(turn, middle)
    channels = ["facts", "messages", "turn", "no such channel"]
    seeds = 0
    async for found in saver.alist(config):
        fast = await saver.aget_delta_channel_history(config=found.config, channels=channels)
        slow = await BaseCheckpointSaver.aget_delta_channel_history(
            saver, config=found.config, channels=channels
        )
        assert fast == slow
        if "seed" in fast["messages"]:
            assert type(fast["messages"]["seed"]) is _DeltaSnapshot
            seeds += 1
    assert seeds > 5


def test_functional_api_keeps_previous_and_task_results(compare: Comparison) -> None:
    """Finished tasks of an interrupted entrypoint aren't run again; `previous` is the last save."""

    async def scenario(run: Run) -> None:
        calls: list[str] = []

        @task
        def draft(word: str) -> str:
            calls.append(word)
            return f"draft of {word}"

        def flow() -> Any:
            @entrypoint(checkpointer=run.saver)
            def write(word: str, *, previous: Any = None) -> entrypoint.final[Any, Any]:
                drafts = [f.result() for f in [draft(word), draft(word + "!")]]
                verdict = interrupt({"drafts": drafts})
                saved = [*(previous or []), word]
                return entrypoint.final(value=[drafts, verdict, previous], save=saved)

            return write

        for word in ("oak", "elm"):
            await run.invoke(flow(), word)
            run.restart()
            await run.state(flow())
            answer = await run.invoke(flow(), Command(resume=f"good {word}"))
            run.restart()
        assert answer == [["draft of elm", "draft of elm!"], "good elm", ["oak"]]
        # A task's result that waits in the checkpoint isn't computed twice.
        assert sorted(calls) == ["elm", "elm!", "oak", "oak!"]
        await run.history(flow())

    compare(scenario)


def test_errors_and_retries(compare: Comparison) -> None:
    """A failed node leaves its error and its siblings' writes; the next call only runs it again."""

    async def scenario(run: Run) -> None:
        calls: list[str] = []

        def flaky(state: Log) -> dict[str, Any]:
            calls.append("flaky")
            if calls.count("flaky") % 3:
                raise ConnectionError(f"try {calls.count('flaky')}")
            return {"items": ["flaky worked"]}

        def broken(state: Log) -> dict[str, Any]:
            calls.append("broken")
            if calls.count("broken") == 1:
                raise ValueError("it broke")
            return {"items": ["mended"]}

        builder: StateGraph[Any] = StateGraph(Log)
        retry = RetryPolicy(initial_interval=0.001, max_attempts=3, jitter=False)
        builder.add_node("flaky", flaky, retry_policy=retry)
        builder.add_node("broken", broken)
        builder.add_edge(START, "flaky")
        builder.add_edge("flaky", "broken")
        await run.failing(builder.compile(run.saver), {"items": []}, ValueError)
        run.restart()
        graph = builder.compile(run.saver)
        state = await run.state(graph)
        assert state.next == ("broken",)
        assert "it broke" in str(state.tasks[0].error)
        answer = await run.invoke(graph, None)
        assert answer["items"] == ["flaky worked", "mended"]
        assert calls == ["flaky"] * 3 + ["broken"] * 2
        await run.history(graph)

    compare(scenario)


def test_a_failed_step_keeps_its_finished_siblings(compare: Comparison) -> None:
    """Of a step with a failing task, the stored result of the other one isn't computed again."""

    async def scenario(run: Run) -> None:
        calls: list[str] = []

        def good(state: Log) -> dict[str, Any]:
            calls.append("good")
            return {"items": ["good"]}

        def bad(state: Log) -> dict[str, Any]:
            if run.durability != "exit":
                wait_for(lambda: holds_write(run.saver, ["good"]))
            calls.append("bad")
            if calls.count("bad") == 1:
                raise ValueError("bad once")
            return {"items": ["bad came good"]}

        builder: StateGraph[Any] = StateGraph(Log)
        for node in (good, bad):
            builder.add_node(node.__name__, node)
            builder.add_edge(START, node.__name__)
        await run.failing(builder.compile(run.saver), {"items": []}, ValueError)
        run.restart()
        answer = await run.invoke(builder.compile(run.saver), None)
        assert sorted(answer["items"]) == ["bad came good", "good"]
        assert run.durability == "exit" or calls.count("good") == 1

    compare(scenario)


def holds_write(saver: BaseCheckpointSaver[Any], value: Any) -> bool:
    found = saver.get_tuple(thread_config("t"))
    return found is not None and value in [w[2] for w in found.pending_writes or ()]


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + HANG_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_streams_are_the_same(compare: Comparison) -> None:
    """values, updates and checkpoints stream the same parts, over an interrupt and on resuming."""

    async def scenario(run: Run) -> None:
        builder = nested(None, asks=True)
        modes = ["values", "updates"]
        await run.stream(builder.compile(run.saver), {"items": []}, modes, subgraphs=True)
        run.restart()
        graph = builder.compile(run.saver)
        parts = await run.stream(graph, Command(resume="r"), modes, subgraphs=True)
        assert parts
        await run.stream(graph, {"items": ["again"]}, "values")
        await run.history(graph)

    compare(scenario)


# Concurrency


def counting_graph(saver: BaseCheckpointSaver[Any]) -> Any:
    """Two steps a turn; the answer's length says how many turns the thread has had."""
    return chain(
        one=lambda state: {"items": [f"one {len(state['items'])}"]},
        two=lambda state: {"items": [f"two {len(state['items'])}"]},
    ).compile(saver)


def expected_items(thread: str, turns: int) -> list[str]:
    items: list[str] = []
    for turn in range(turns):
        items += [f"{thread} says {turn}"]
        items += [f"one {len(items)}", f"two {len(items) + 1}"]
    return items


def thread_config(thread: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread}}


async def talk_async(graph: Any, thread: str, turns: int) -> list[str]:
    for turn in range(turns):
        await graph.ainvoke({"items": [f"{thread} says {turn}"]}, thread_config(thread))
    found: list[str] = (await graph.aget_state(thread_config(thread))).values["items"]
    return found


def talk_sync(graph: Any, thread: str, turns: int) -> list[str]:
    for turn in range(turns):
        graph.invoke({"items": [f"{thread} says {turn}"]}, thread_config(thread))
    found: list[str] = graph.get_state(thread_config(thread)).values["items"]
    return found


@pytest.mark.anyio
async def test_fifty_threads_at_once_in_one_loop(saver: PostgresSaver) -> None:
    """Fifty conversations on one saver never see each other's items."""
    graph = counting_graph(saver)
    names = [f"thread {n}" for n in range(50)]
    found = await asyncio.gather(*(talk_async(graph, name, 3) for name in names))
    assert found == [expected_items(name, 3) for name in names]


def test_sixteen_os_threads_at_once(sync_saver: PostgresSaver) -> None:
    """Sixteen OS threads invoke on one saver at the same moment."""
    graph = counting_graph(sync_saver)
    barrier = threading.Barrier(16)

    def work(name: str) -> list[str]:
        barrier.wait(HANG_SECONDS)
        return talk_sync(graph, name, 3)

    names = [f"thread {n}" for n in range(16)]
    with ThreadPoolExecutor(16) as executor:
        assert list(executor.map(work, names)) == [expected_items(name, 3) for name in names]


@pytest.mark.anyio
async def test_invoke_and_ainvoke_mixed(saver: PostgresSaver) -> None:
    """OS threads, the loop, and a thread with a loop of its own share one saver at once."""
    graph = counting_graph(saver)
    names = [f"thread {n}" for n in range(24)]

    def in_own_loop(name: str) -> list[str]:
        return asyncio.run(talk_async(graph, name, 2))

    def start(n: int, name: str) -> Any:
        if n % 3 == 0:
            return talk_async(graph, name, 2)
        return asyncio.to_thread(talk_sync if n % 3 == 1 else in_own_loop, *_args(n, graph, name))

    found = await asyncio.gather(*(start(n, name) for n, name in enumerate(names)))
    assert found == [expected_items(name, 2) for name in names]


def _args(n: int, graph: Any, name: str) -> tuple[Any, ...]:
    return (graph, name, 2) if n % 3 == 1 else (name,)


@pytest.mark.anyio
async def test_invoke_inside_a_running_loop(saver: PostgresSaver) -> None:
    """A notebook cell may call invoke, get_state and stream, and await ainvoke, in any order."""
    graph = counting_graph(saver)
    config = thread_config("t")
    await graph.ainvoke({"items": ["t says 0"]}, config)
    graph.invoke({"items": ["t says 1"]}, config)
    assert len(list(graph.stream({"items": ["t says 2"]}, config, stream_mode="updates"))) == 2
    assert await talk_async(graph, "u", 1) == expected_items("u", 1)
    assert graph.get_state(config).values["items"] == expected_items("t", 3)
    synced = list(graph.get_state_history(config))
    awaited = [s async for s in graph.aget_state_history(config)]
    assert normalised_history(synced) == normalised_history(awaited)


@pytest.mark.anyio
async def test_a_cancelled_run_goes_on_later(saver: PostgresSaver) -> None:
    """A run cancelled inside its second node keeps the first node's result and is resumed."""
    entered = asyncio.Event()
    calls: list[str] = []

    async def first(state: Log) -> dict[str, Any]:
        calls.append("first")
        return {"items": ["first"]}

    async def second(state: Log) -> dict[str, Any]:
        calls.append("second")
        if calls.count("second") == 1:
            entered.set()
            await asyncio.Event().wait()
        return {"items": ["second"]}

    graph = chain(first=first, second=second).compile(saver)
    running = asyncio.create_task(graph.ainvoke({"items": []}, thread_config("t")))
    await asyncio.wait_for(entered.wait(), HANG_SECONDS)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (await graph.aget_state(thread_config("t"))).next == ("second",)
    answer = await graph.ainvoke(None, thread_config("t"))
    assert answer == {"items": ["first", "second"]}
    assert calls == ["first", "second", "second"]


@pytest.mark.anyio
async def test_cancelling_anywhere_poisons_nothing(dsn: str) -> None:
    """Runs cancelled after any number of the loop's turns leave the pool's one connection usable,
    and a state that is a prefix of the whole run's."""
    rng = random.Random(7)
    whole = expected_items("t", 1)
    finished = 0
    async with PostgresSaver.from_conn_string(dsn, max_size=1) as saver:
        graph = counting_graph(saver)
        for n in range(40):
            config = thread_config(f"thread {n}")
            running = asyncio.create_task(graph.ainvoke({"items": whole[:1]}, config))
            for _ in range(rng.randrange(600)):
                await asyncio.sleep(0)
            running.cancel()
            outcomes = await asyncio.gather(running, return_exceptions=True)
            finished += not isinstance(outcomes[0], asyncio.CancelledError)
            state = await graph.aget_state(config)
            items = state.values.get("items", [])
            assert items == whole[: len(items)]
            left: Any = {"items": whole[:1]} if state.metadata is None else None
            if len(items) < 3:
                assert await graph.ainvoke(left, config) == {"items": whole}
    assert finished < 40
