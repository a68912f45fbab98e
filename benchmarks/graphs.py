"""The agents that the contenders keep the state of, and the text they speak.

The text is random words from a seed: the same for all, and nothing that repeats itself,
which would flatter compression.
"""

from __future__ import annotations

import operator
import random
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Send

FILES = 200
FAN_WIDTH = 8
SENDS = 4


def _vocabulary() -> list[str]:
    rng = random.Random(1)
    return ["".join(rng.choices("etaoinshrdlucmfwyp", k=rng.randint(2, 10))) for _ in range(4000)]


_WORDS = _vocabulary()


def text(rng: random.Random, fewest: int, most: int) -> str:
    """So many words."""
    return " ".join(rng.choices(_WORDS, k=rng.randint(fewest, most)))


def chat(saver: Any) -> Any:
    """A model that calls a tool and then answers, at every turn: five checkpoints."""
    workflow = StateGraph(MessagesState)
    workflow.add_node("model", _model)
    workflow.add_node("tools", _tools)
    workflow.add_edge(START, "model")
    workflow.add_conditional_edges("model", _next_node, ["tools", END])
    workflow.add_edge("tools", "model")
    return workflow.compile(checkpointer=saver)


def question(rng: random.Random) -> dict[str, Any]:
    return {"messages": [HumanMessage(text(rng, 5, 40))]}


def _model(state: MessagesState) -> dict[str, Any]:
    last = state["messages"][-1]
    rng = random.Random(str(last.content))
    if isinstance(last, ToolMessage):
        return {"messages": [AIMessage(text(rng, 20, 150))]}
    arguments = {"query": text(rng, 2, 8), "limit": rng.randint(1, 20)}
    call = {"name": "search", "args": arguments, "id": f"call_{rng.getrandbits(64):x}"}
    return {"messages": [AIMessage("", tool_calls=[call])]}


def _tools(state: MessagesState) -> dict[str, Any]:
    (call,) = state["messages"][-1].tool_calls  # type: ignore[union-attr]
    found = text(random.Random(call["args"]["query"]), 20, 200)
    return {"messages": [ToolMessage(found, tool_call_id=call["id"])]}


def _next_node(state: MessagesState) -> str:
    return "tools" if state["messages"][-1].tool_calls else END  # type: ignore[union-attr]


class _FanState(TypedDict):
    found: Annotated[list[dict[str, Any]], operator.add]
    left: int


def fan(saver: Any) -> Any:
    """Eight workers at once and a join, again and again: `left` times, three checkpoints each."""
    workflow: Any = StateGraph(_FanState)
    workflow.add_node("plan", lambda state: {"left": state["left"] - 1})
    for number in range(FAN_WIDTH):
        name = f"worker {number}"
        workflow.add_node(name, _worker(number))
        workflow.add_edge("plan", name)
    workflow.add_node("join", lambda state: {})
    workflow.add_edge([f"worker {number}" for number in range(FAN_WIDTH)], "join")
    workflow.add_edge(START, "plan")
    workflow.add_conditional_edges("join", lambda s: "plan" if s["left"] else END, ["plan", END])
    return workflow.compile(checkpointer=saver)


def _worker(number: int) -> Any:
    def work(state: _FanState) -> dict[str, Any]:
        words = text(random.Random(f"{number} {state['left']}"), 10, 60)
        return {"found": [{"by": number, "words": words}]}

    return work


class _SendState(MessagesState):
    notes: Annotated[list[str], operator.add]


def send(saver: Any) -> Any:
    """A model, and four workers that each are sent the whole conversation: four checkpoints."""
    workflow: Any = StateGraph(_SendState)
    workflow.add_node("model", _answer)
    workflow.add_node("work", lambda state: {"notes": [f"read {len(state['messages'])}"]})
    workflow.add_edge(START, "model")
    workflow.add_conditional_edges(
        "model",
        lambda s: [Send("work", {"messages": s["messages"], "n": n}) for n in range(SENDS)],
        ["work"],
    )
    return workflow.compile(checkpointer=saver)


def _answer(state: MessagesState) -> dict[str, Any]:
    rng = random.Random(str(state["messages"][-1].content))
    return {"messages": [AIMessage(text(rng, 20, 150))]}


class _FilesState(TypedDict):
    files: dict[str, str]
    left: int


def files(saver: Any) -> Any:
    """Rewrites one of two hundred files per step, `left` times."""
    workflow: Any = StateGraph(_FilesState)
    workflow.add_node("edit", _edit)
    workflow.add_edge(START, "edit")
    workflow.add_conditional_edges("edit", lambda s: "edit" if s["left"] else END, ["edit", END])
    return workflow.compile(checkpointer=saver)


def new_files(rng: random.Random) -> dict[str, str]:
    return {f"/src/{n:03}.py": text(rng, 50, 150) for n in range(FILES)}


def _edit(state: _FilesState) -> dict[str, Any]:
    rng = random.Random(state["left"])
    name = rng.choice(list(state["files"]))
    return {"files": {**state["files"], name: text(rng, 50, 150)}, "left": state["left"] - 1}
