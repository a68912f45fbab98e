"""A research assistant whose every step is in PostgreSQL: a tour of the saver.

A planner looks words up in the documentation on this machine (Python's own and that
of the installed packages), asks a person before it reads, and sums up what it read.
The model is a few deterministic functions, so the tour needs no API key.

    python examples/research_assistant.py ["your question"]

It runs in several processes on purpose: what one leaves behind, the next goes on with.
"""

from __future__ import annotations

import argparse
import ast
import json
import math
import os
import re
import subprocess
import sys
import sysconfig
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, TypedDict

import asyncpg
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolCall, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command, StateSnapshot, interrupt

from langgraph_pgsaga import PgSagaError, PostgresSaver

QUESTION = "How do I gather the results of several coroutines that run concurrently?"
FOLLOW_UP = "And when does a semaphore block, with its counter at zero?"
OTHER_QUESTION = "How do I run a function in a separate thread from asyncio?"

PACKAGES = ("asyncpg", "langgraph", "langgraph_pgsaga")
LIBRARY_PACKAGES = ("asyncio", "collections", "concurrent", "json", "logging", "urllib")
STOP_WORDS = set(
    re.findall(
        r"\w+",
        """
        a about all an and any are as at be by can could do does for from get give has have how i in
        into is it its may me must my not of on one or so than that the their them there these this
        to us use used using want was we what when where which who why will with without you your
        several same many much python way
        """,
    )
)


# The documentation of this machine


@cache
def documentation() -> dict[str, str]:
    """Docstrings by dotted name, read from source files; nothing is imported."""
    found: dict[str, str] = {}
    library = Path(sysconfig.get_paths()["stdlib"])
    for file in sorted(library.glob("[a-z]*.py")):
        found.update(docstrings(file, file.stem))
    for package in LIBRARY_PACKAGES:
        found.update(package_docstrings(package, library / package))
    for package in PACKAGES:
        spec = find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            found.update(package_docstrings(package, Path(folder)))
    return found


def package_docstrings(package: str, folder: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for file in sorted(folder.rglob("*.py")):
        parts = [package, *file.relative_to(folder).with_suffix("").parts]
        if not any(part.startswith(("_", "test")) for part in parts if part != "__init__"):
            found.update(docstrings(file, ".".join(p for p in parts if p != "__init__")))
    return found


def docstrings(file: Path, module: str) -> Iterator[tuple[str, str]]:
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in [tree, *(n for n in tree.body if isinstance(n, documented))]:
        text = ast.get_docstring(node)
        name = getattr(node, "name", "")
        if text and len(text) > 40 and not name.startswith("_"):
            yield (f"{module}.{name}" if name else module), text


def words_of(text: str) -> list[str]:
    words = re.findall(r"[a-z]{2,}", text.lower().replace("_", " "))
    stems = (w[:-1] if w.endswith("s") and not w.endswith("ss") else w for w in words)
    return [w for w in stems if w not in STOP_WORDS]


@cache
def word_counts() -> dict[str, Counter[str]]:
    return {
        name: Counter(words_of(text) + 3 * words_of(name)) for name, text in documentation().items()
    }


def search_docs(query: str) -> list[dict[str, str]]:
    """The four entries that fit best, by word frequency weighed with rarity."""
    counts, wanted = word_counts(), set(words_of(query))
    holders = {w: sum(w in c for c in counts.values()) for w in wanted}
    rarity = {w: math.log(len(counts) / n) for w, n in holders.items() if n}

    def score(name: str) -> float:
        count = counts[name]
        met = [r * (1 + math.log(count[w])) for w, r in rarity.items() if w in count]
        return len(met) * sum(met) / (1 + math.log(1 + count.total() / 100))

    best = sorted(counts, key=lambda name: (-score(name), name))[:4]
    return [{"name": n, "about": documentation()[n].splitlines()[0]} for n in best if score(n) > 0]


def read_docs(name: str) -> str:
    """The whole entry."""
    return documentation().get(name, f"nothing is documented under {name}")


TOOLS: dict[str, Callable[..., Any]] = {"search_docs": search_docs, "read_docs": read_docs}


# The agent: planner -> approval -> tool_executor -> planner -> ... -> summary


class State(TypedDict):
    input_question: str
    messages: Annotated[list[AnyMessage], add_messages]
    next_node: str
    summary: str


def planner(state: State) -> dict[str, Any]:
    """First search, then read the two best hits, then sum up."""
    results = [m for m in messages_since_question(state) if isinstance(m, ToolMessage)]
    if not results:
        wanted = {"query": " ".join(words_of(state["input_question"]))}
        calls = new_calls(state, "search_docs", [wanted])
        plan = AIMessage("I'll look for this in the documentation.", tool_calls=calls)
        return {"messages": [plan], "next_node": "approval"}
    if results[-1].name == "search_docs" and (hits := json.loads(str(results[-1].content))):
        calls = new_calls(state, "read_docs", [{"name": hit["name"]} for hit in hits[:2]])
        plan = AIMessage("These look right; I'll read the first two.", tool_calls=calls)
        return {"messages": [plan], "next_node": "tool_executor"}
    return {"next_node": "summary"}


def approval(state: State) -> dict[str, Any]:
    """Stops the run until a person has answered, however long that takes."""
    call = last_tool_calls(state)[0]
    answer = interrupt({"may I run": call["name"], "with": call["args"]})
    return {"next_node": "tool_executor" if answer == "yes" else "summary"}


def tool_executor(state: State) -> dict[str, Any]:
    results = [
        ToolMessage(
            json.dumps(TOOLS[call["name"]](**call["args"])),
            name=call["name"],
            tool_call_id=call["id"],
        )
        for call in last_tool_calls(state)
    ]
    return {"messages": results, "next_node": "planner"}


def summary(state: State) -> dict[str, Any]:
    """The paragraph of each entry that has most to do with the question."""
    wanted = set(words_of(state["input_question"]))
    found: list[str] = []
    names = {c["id"]: c["args"].get("name") for m in state["messages"] for c in calls_of(m)}
    for message in messages_since_question(state):
        if isinstance(message, ToolMessage) and message.name == "read_docs":
            paragraphs = re.split(r"\n\s*\n", json.loads(str(message.content)))
            best = max(paragraphs, key=lambda p: len(wanted & set(words_of(p))))
            found.append(f"{names[message.tool_call_id]}: {' '.join(best.split())[:400]}")
    text = "\n".join(found) or "I found nothing about that in the documentation here."
    return {"messages": [AIMessage(text)], "summary": text, "next_node": END}


def new_calls(state: State, name: str, arguments: list[dict[str, str]]) -> list[ToolCall]:
    first = 1 + sum(len(calls_of(m)) for m in state["messages"])
    return [ToolCall(name=name, args=a, id=f"call-{n}") for n, a in enumerate(arguments, first)]


def calls_of(message: AnyMessage) -> list[ToolCall]:
    return message.tool_calls if isinstance(message, AIMessage) else []


def last_tool_calls(state: State) -> list[ToolCall]:
    return calls_of(state["messages"][-1])


def messages_since_question(state: State) -> list[AnyMessage]:
    asked = [i for i, m in enumerate(state["messages"]) if isinstance(m, HumanMessage)]
    return state["messages"][asked[-1] :]


def build(saver: PostgresSaver) -> CompiledStateGraph[Any, Any, Any, Any]:
    workflow = StateGraph(State)
    for node in (planner, approval, tool_executor, summary):
        workflow.add_node(node)
    workflow.add_edge(START, "planner")
    for name in ("planner", "approval", "tool_executor"):
        workflow.add_conditional_edges(name, lambda s: s["next_node"])
    workflow.add_edge("summary", END)
    return workflow.compile(checkpointer=saver)


# The tour


def open_saver() -> PostgresSaver:
    """PGSAGA_DSN's server, else the embedded one."""
    if os.environ.get("PGSAGA_DSN"):
        return PostgresSaver.from_conn_string()
    return PostgresSaver.embedded()


def ask(thread: RunnableConfig, question: str) -> None:
    """A question, up to the point where a person must approve."""
    with open_saver() as saver:
        graph = build(saver)
        graph.invoke({"input_question": question, "messages": [HumanMessage(question)]}, thread)
        show_interrupt(graph.get_state(thread))


def approve(thread: RunnableConfig) -> None:
    """Goes on where another process stopped."""
    with open_saver() as saver:
        graph = build(saver)
        show_interrupt(graph.get_state(thread))
        say("answer: yes")
        for update in graph.stream(Command(resume="yes"), thread, stream_mode="updates"):
            for node in update:
                say(f"ran {node}")
        show("summary", graph.get_state(thread).values["summary"])


def look_back(thread: RunnableConfig, thread_id: str) -> None:
    with open_saver() as saver:
        graph = build(saver)
        title("The conversation, by plain SQL")
        say("select position, role, content from agent_conversations where thread_id = ...")
        for row in saver.db.portal.call(conversation, saver, thread_id):
            say(f"{row['position']:>3}  {row['role']:<9}  {shortened(row['content'], 96)}")

        title("The history: every superstep is a checkpoint")
        history = list(graph.get_state_history(thread))
        for state in reversed(history):
            step, source = state.metadata["step"], state.metadata["source"]
            coming = ", ".join(state.next) or "done"
            held = f"{len(messages(state)):>2} messages"
            say(f"step {step:>3}  {source:<6}  next: {coming:<13}  {held}")

        title("A fork: the first question again, asked differently")
        asked = next(s for s in reversed(history) if s.next == ("planner",))
        answered = next(s for s in reversed(history) if not s.next)
        fork(graph, thread, asked, answered)


def fork(
    graph: CompiledStateGraph[Any, Any, Any, Any],
    thread: RunnableConfig,
    asked: StateSnapshot,
    answered: StateSnapshot,
) -> None:
    step = (asked.metadata or {}).get("step")
    say(f"from step {step}: {OTHER_QUESTION}")
    reworded = HumanMessage(OTHER_QUESTION, id=messages(asked)[0].id)
    update = {"input_question": OTHER_QUESTION, "messages": [reworded]}
    branch = graph.update_state(asked.config, update, as_node=START)
    graph.invoke(None, branch)
    graph.invoke(Command(resume="yes"), thread)

    title("Both branches stand side by side")
    for branch_name, config in (("first", answered.config), ("fork", thread)):
        state = graph.get_state(config)
        say(f"{branch_name}: {messages(state)[0].content}")
        show("summary", state.values["summary"])


async def conversation(saver: PostgresSaver, thread_id: str) -> list[asyncpg.Record]:
    async with saver.db.transaction() as conn:
        return await conn.fetch(
            "select position, role, content from agent_conversations"
            " where thread_id = $1 order by position",
            thread_id,
        )


def messages(state: StateSnapshot) -> list[AnyMessage]:
    found: list[AnyMessage] = state.values.get("messages", [])
    return found


def show_interrupt(state: StateSnapshot) -> None:
    for pending in state.interrupts:
        request = pending.value
        say(f"waits for approval: {request['may I run']}({request['with']})")


def shortened(text: str, width: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else f"{line[: width - 1]}…"


def show(label: str, text: str) -> None:
    say(f"{label}:")
    for line in text.splitlines():
        print(textwrap.fill(line, 92, initial_indent="     ", subsequent_indent="       "))


def say(text: str) -> None:
    print(f"   {text}", flush=True)


def title(text: str) -> None:
    print(f"\n{text}\n{'-' * len(text)}", flush=True)


def in_new_process(stage: str, thread_id: str, question: str = "") -> None:
    command = [sys.executable, __file__, question, "--stage", stage, "--thread", thread_id]
    subprocess.run(command, check=True)


def tour(question: str, thread_id: str) -> None:
    started = time.perf_counter()
    with open_saver() as saver:  # keeps the server up between the processes
        title("PostgreSQL")
        say(f"{saver.db.dsn}")
        saver.setup()
        say("the tables are there and up to date")
        title(f"A first process asks, and stops for approval (thread {thread_id})")
        say(f"question: {question}")
        in_new_process("ask", thread_id, question)
        title("A second process finds it waiting, approves, and goes on")
        in_new_process("approve", thread_id)
        title("A follow-up on the same thread")
        say(f"question: {FOLLOW_UP}")
        in_new_process("ask", thread_id, FOLLOW_UP)
        in_new_process("approve", thread_id)
        in_new_process("look-back", thread_id)
    print(f"\nAll of it is still in the database. ({time.perf_counter() - started:.0f} s)")


def main() -> None:
    parser = argparse.ArgumentParser(description="A tour of langgraph_pgsaga.")
    parser.add_argument("question", nargs="?", default=QUESTION)
    parser.add_argument("--stage", default="tour", help=argparse.SUPPRESS)
    parser.add_argument("--thread", default=f"tour-{time.time_ns()}", help=argparse.SUPPRESS)
    given = parser.parse_args()
    thread: RunnableConfig = {"configurable": {"thread_id": given.thread, "user_id": "you"}}
    if given.stage == "ask":
        ask(thread, given.question)
    elif given.stage == "approve":
        approve(thread)
    elif given.stage == "look-back":
        look_back(thread, given.thread)
    else:
        tour(given.question or QUESTION, given.thread)


if __name__ == "__main__":
    try:
        main()
    except PgSagaError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
