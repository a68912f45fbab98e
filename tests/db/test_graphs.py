"""Real graphs on PostgreSQL answer as they do with the in-memory saver."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Annotated, Any, TypedDict

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    HumanMessage,
    ToolMessage,
)
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.errors import GraphRecursionError
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, interrupt

from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.sessions import Sessions, SessionStatus
from tests._graphs import Comparison, Normaliser, Run
from tests.db._chains import Log, adds, ask, chain, nested
from tests.db._puts import config_of


class Trip(TypedDict, total=False):
    city: str
    days: int
    log: Annotated[list[str], operator.add]


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


@pytest.mark.parametrize("namespace", ["middle", "middle|inner"])
def test_a_run_from_the_config_of_a_subgraphs_state(compare: Comparison, namespace: str) -> None:
    """It begins at the checkpoints of the graphs above, be they stored or not: of a run with
    durability "exit" only the last is."""

    async def scenario(run: Run) -> None:
        graph = nested(True, asks=False).compile(run.saver)
        await run.invoke(graph, {"items": ["first"]})
        where = {"configurable": {"thread_id": "t", "checkpoint_ns": namespace}}
        config = (await run.state(graph, where)).config
        await run.invoke(graph, {"items": ["second"]}, config)
        await run.invoke(graph, {"items": ["third"]})
        await run.history(graph)

    compare(scenario)


@pytest.mark.anyio
async def test_a_run_from_an_unstored_checkpoint_ends_at_the_limit(
    saver: PostgresSaver, durability: Any
) -> None:
    """Of steps, and the session says so."""
    graph = chain(one=adds(1), two=adds(2)).compile(saver)
    await graph.ainvoke({"items": []}, config_of("t"))
    where: RunnableConfig = {**config_of("t", checkpoint_id="never stored"), "recursion_limit": 1}
    with pytest.raises(GraphRecursionError):
        await graph.ainvoke({"items": []}, where, durability=durability)
    session = await Sessions(saver.db).get("t")
    assert session is not None
    assert session.status is SessionStatus.FAILED
