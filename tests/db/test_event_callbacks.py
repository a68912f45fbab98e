"""EventCallbackHandler: calls of models and tools as events, appended in the background."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any
from uuid import uuid4

import pytest
from langchain_core.language_models import FakeListLLM, FakeMessagesListChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import interrupt

from langgraph_pgsaga import Database, PostgresSaver, sync
from langgraph_pgsaga.errors import EventsNotAppendedError, InvalidArgumentError
from langgraph_pgsaga.events import AgentEvent, EventCallbackHandler, EventStore
from langgraph_pgsaga.threads import session_id_of
from tests.conftest import execute

pytestmark = pytest.mark.anyio

USAGE = {"input_tokens": 7, "output_tokens": 3, "total_tokens": 10}


@tool
def weigh(what: str) -> str:
    """Weighs something."""
    if what == "air":
        raise ValueError("too light")
    if what == "gold":
        return str(interrupt("may I?"))
    return "2 kg"


def graph_of(saver: PostgresSaver | None, *weighed: str) -> Any:
    answer = AIMessage("a secret answer", usage_metadata=USAGE)
    model = FakeMessagesListChatModel(responses=[answer])

    async def asks_async(state: MessagesState) -> Any:
        answer = await model.ainvoke([("user", "a secret question")])
        for what in weighed:
            await weigh.ainvoke({"what": what})
        return {"messages": [answer]}

    def asks(state: MessagesState) -> Any:
        answer = model.invoke([("user", "a secret question")])
        for what in weighed:
            weigh.invoke({"what": what})
        return {"messages": [answer]}

    builder: StateGraph[Any] = StateGraph(MessagesState)
    builder.add_node("asks", RunnableLambda(asks, asks_async))
    return builder.add_edge(START, "asks").compile(checkpointer=saver)


async def run(graph: Any, mode: str, config: Any) -> Any:
    if mode == "invoke":
        return await asyncio.to_thread(graph.invoke, {"messages": []}, config)
    return await graph.ainvoke({"messages": []}, config)


def config_of(handler: EventCallbackHandler, **more: Any) -> RunnableConfig:
    return {"configurable": {"thread_id": "t", **more}, "callbacks": [handler]}


def told(events: list[AgentEvent]) -> list[tuple[str, dict[str, Any]]]:
    """Types, and what of the data isn't another in each run."""
    others = ("run_id", "execution_time_ms", "tool_call_id")
    return [
        (str(e.event_type), {k: v for k, v in e.event_data.items() if k not in others})
        for e in events
    ]


both = pytest.mark.parametrize("mode", ["invoke", "ainvoke"])


@both
async def test_calls_of_models_and_tools_are_told_of(saver: PostgresSaver, mode: str) -> None:
    """With tokens, and without words; when the run returns they are stored, each an effect of the
    begin before it, of the run's thread and tenant."""
    store = EventStore(saver.db)
    handler = EventCallbackHandler(store)
    await run(graph_of(saver, "stone"), mode, config_of(handler, tenant_id="acme"))
    assert handler.waiting == 0
    events = await EventStore(saver.db, tenant="acme").get_events("t", aggregate_type="session")
    model = {"step_name": "FakeMessagesListChatModel"}
    assert told(events) == [
        ("llm_started", {"node": "asks", **model}),
        ("llm_ended", {"status": "completed", **model, **USAGE}),
        ("tool_started", {"node": "asks", "tool_name": "weigh"}),
        ("tool_executed", {"status": "completed", "tool_name": "weigh"}),
    ]
    assert {e.session_id for e in events} == {session_id_of("t", "acme")}
    assert {e.correlation_id for e in events} == {"t"}
    assert [e.causation_id for e in events[1::2]] == [e.event_id for e in events[::2]]
    assert all(isinstance(e.event_data["execution_time_ms"], int) for e in events[1::2])
    assert "secret" not in repr(events)


@both
async def test_words_are_told_where_asked_for(saver: PostgresSaver, mode: str) -> None:
    """What went in by `prompts`, what came out by `outputs`."""
    store = EventStore(saver.db)
    handler = EventCallbackHandler(store, prompts=True, outputs=True, aggregate_id="desk")
    await run(graph_of(saver, "stone"), mode, config_of(handler))
    data = [e.event_data for e in await store.get_events("desk")]
    assert data[0]["prompts"] == [{"role": "user", "text": "a secret question"}]
    assert data[1]["outputs"] == [{"role": "assistant", "text": "a secret answer"}]
    assert data[2]["input_data"] == "{'what': 'stone'}"
    assert data[3]["output_data"] == "2 kg"


@both
async def test_what_fails_is_told_of(saver: PostgresSaver, mode: str) -> None:
    """A tool that asks has not failed."""
    store = EventStore(saver.db)
    handler = EventCallbackHandler(store)
    with pytest.raises(ValueError, match="too light"):
        await run(graph_of(saver, "air"), mode, config_of(handler))
    await run(graph_of(saver, "gold"), mode, config_of(handler, thread_id="u"))
    [*_, failed] = await store.get_events("t")
    assert told([failed])[0][1] == {
        "tool_name": "weigh",
        "status": "failed",
        "error_message": "ValueError: too light",
    }
    [*_, asked] = await store.get_events("u")
    assert told([asked])[0][1] == {"tool_name": "weigh", "status": "asked"}


async def test_a_model_outside_of_graphs_is_an_aggregate_of_its_run(saver: PostgresSaver) -> None:
    """Its errors, too; a model that is no chat model has prompts."""
    store = EventStore(saver.db)
    handler = EventCallbackHandler(store, prompts=True)
    run_id = uuid4()
    model = FakeListLLM(responses=["yes"])
    await model.ainvoke("well?", {"callbacks": [handler], "run_id": run_id})
    events = await store.get_events(str(run_id), aggregate_type="run")
    assert told(events)[0] == ("llm_started", {"step_name": "FakeListLLM", "prompts": ["well?"]})
    assert told(events)[1][0] == "llm_ended"
    broken = FakeListLLM(responses=[])
    run_id = uuid4()
    with pytest.raises(IndexError):
        await broken.ainvoke("well?", {"callbacks": [handler], "run_id": run_id})
    [_, error] = await store.get_events(str(run_id))
    assert told([error])[0][0] == "error_occurred"
    assert error.event_data["error"].startswith("IndexError")
    assert error.event_data["step_id"] == str(run_id)


async def test_a_run_id_may_be_of_several_calls(saver: PostgresSaver) -> None:
    """Each call's events are stored."""
    store = EventStore(saver.db)
    handler = EventCallbackHandler(store, prompts=True, outputs=True)
    run_id = uuid4()
    model = FakeListLLM(responses=["1", "2", "3"])
    for question in ("a", "b", "c"):
        await model.ainvoke(question, {"callbacks": [handler], "run_id": run_id})
    events = await store.get_events(str(run_id), aggregate_type="run")
    assert [one.event_data.get("prompts", one.event_data.get("outputs")) for one in events] == [
        *(["a"], ["1"], ["b"], ["2"], ["c"], ["3"]),
    ]


def call(handler: EventCallbackHandler, text: str = "?", parent: Any = True) -> None:
    """A begin of a model, of some run that goes on."""
    handler.on_llm_start(
        {"name": "m"}, [text], run_id=uuid4(), parent_run_id=uuid4() if parent else None
    )


async def test_many_go_together_and_the_loop_goes_on(saver: PostgresSaver) -> None:
    """A thousand events take a few statements; each is there once, in order."""
    store = EventStore(saver.db)
    statements: list[str] = []
    real = saver.db.fetch_one

    async def counted(statement: Any, *args: Any, **options: Any) -> Any:
        statements.append(statement.name)
        return await real(statement, *args, **options)

    saver.db.fetch_one = counted  # type: ignore[method-assign]
    handler = EventCallbackHandler(store, aggregate_id="desk", prompts=True)
    for number in range(1000):
        call(handler, str(number))
    await handler.aflush()
    prompts = [e.event_data["prompts"][0] for e in await store.get_events("desk")]
    assert prompts == [str(number) for number in range(1000)]
    assert len(statements) < 100


async def test_what_fails_is_tried_again_and_waits(
    saver: PostgresSaver, dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The log tells of it; the buffer has an end, and who adds more waits, then hears of it."""
    caplog.set_level(logging.WARNING, "langgraph_pgsaga.events")
    store = EventStore(saver.db)
    handler = EventCallbackHandler(
        store, aggregate_id="desk", prompts=True, most_waiting=3, longest_seconds=1
    )
    await execute(dsn, "alter table agent_events add constraint no check (version < 0)")
    for number in range(3):
        call(handler, f"secret {number}")
    with pytest.raises(EventsNotAppendedError, match="3 events wait"):
        await asyncio.to_thread(call, handler)
    with pytest.raises(EventsNotAppendedError):
        await handler.aflush()
    assert "wait 0." in caplog.text
    assert "secret" not in caplog.text
    waits = threading.Thread(target=call, args=(handler, "secret 3"))
    handler._outbox._longest_seconds = 60
    waits.start()
    await execute(dsn, "alter table agent_events drop constraint no")
    await asyncio.to_thread(waits.join)
    await handler.aflush()
    found = [e.event_data["prompts"][0] for e in await store.get_events("desk")]
    assert found == [f"secret {number}" for number in range(4)]


async def test_an_answer_that_is_lost_adds_nothing(saver: PostgresSaver) -> None:
    """What is tried again has its ids."""
    store = EventStore(saver.db)
    real = saver.db.fetch
    failed: list[int] = []

    async def lost(statement: Any, *args: Any, **options: Any) -> Any:
        row = await real(statement, *args, **options)
        if statement.name.startswith("append") and not failed:
            failed.append(1)
            raise ConnectionError
        return row

    saver.db.fetch = lost  # type: ignore[method-assign]
    handler = EventCallbackHandler(store, aggregate_id="desk")
    call(handler)
    await handler.aflush()
    assert failed
    assert len(await store.get_events("desk")) == 1


async def test_a_database_that_closes_before_says_so(
    dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    """How many events are lost by it."""
    await execute(dsn, "alter table agent_events add check (version < 0)")
    db = Database(dsn)
    handler = EventCallbackHandler(EventStore(db), aggregate_id="desk")
    call(handler)
    async with asyncio.timeout(60):
        while "wait 0." not in caplog.text:  # it has been tried
            await asyncio.sleep(0.01)
    await db.aclose()
    assert "1 events weren't appended" in caplog.text


async def test_what_cant_be_a_handlers_is_told(saver: PostgresSaver) -> None:
    """Before any run."""
    store = EventStore(saver.db)
    wrong: list[dict[str, Any]] = [
        {"prompts": "no"},
        {"outputs": 1},
        {"aggregate_id": ""},
        {"most_waiting": 0},
        {"longest_seconds": -1},
    ]
    for given in wrong:
        with pytest.raises(InvalidArgumentError, match=f"^{next(iter(given))}: "):
            EventCallbackHandler(store, **given)
    with pytest.raises(InvalidArgumentError, match="must be an EventStore, not Database"):
        EventCallbackHandler(saver.db)  # type: ignore[arg-type]
    twins = r"must be a langgraph_pgsaga.events.EventStore, not langgraph_pgsaga.sync.EventStore"
    with pytest.raises(InvalidArgumentError, match=twins):
        EventCallbackHandler(sync.EventStore(saver.db))  # type: ignore[arg-type]
