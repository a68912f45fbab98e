"""An agent that remembers its user across threads and processes, and what it knew before.

Each conversation is a process and a thread of its own. What Ada says on Monday is known on Friday;
what she corrects takes the place of what was known; and what the agent knew on Monday can still
be asked. Facts are stored with the step that learned them, so once, or not at all.

    python examples/memory_agent.py

The model is a plain function, so it needs no API key. Memories are found by their words and, with
`pip install wordllama`, by what they mean. It uses PGSAGA_DSN's server, else the embedded one.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from importlib.util import find_spec
from typing import Any

from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.graph.state import CompiledStateGraph

from langgraph_pgsaga import AgentMemory, Database, PgSagaError, PostgresSaver
from langgraph_pgsaga.memory import NewMemory

USER, CORRECTS = "ada", "Actually, "
MONDAY = ("I drink green tea", "My dog is called Rex", "I live in Porto")
FRIDAY = ("What do I drink?", "Actually, I drink coffee now", "What do I drink?", "Any pets?")


# The agent: recall -> answer -> remember


class State(MessagesState):
    memories: list[dict[str, Any]]


def answer(state: State) -> dict[str, Any]:
    """What a model would say: about what was recalled, or that it takes note."""
    said, best = said_last(state), next(iter(state["memories"]), None)
    if not said.endswith("?"):
        reply = (
            "I've changed that." if best and said.startswith(CORRECTS) else "I'll remember that."
        )
    elif best is None or not best["score"]:
        reply = "I don't know."
    else:
        reply = f'"{best["text"]}", you said ({best["source_thread_id"]})'
    return {"messages": [AIMessage(reply)]}


def facts(state: State) -> list[NewMemory]:
    """What is to be remembered, and which memory it takes the place of."""
    said, memories = said_last(state), state["memories"]
    if said.endswith("?"):
        return []
    corrected = memories[0]["memory_id"] if memories and said.startswith(CORRECTS) else None
    return [NewMemory(text=said.removeprefix(CORRECTS), supersedes=corrected)]


def said_last(state: State) -> str:
    return [one.text for one in state["messages"] if isinstance(one, HumanMessage)][-1]


def build(saver: PostgresSaver, memory: AgentMemory) -> CompiledStateGraph[Any, Any, Any, Any]:
    workflow = StateGraph(State)
    workflow.add_node("recall", memory.recall_node(k=3))
    workflow.add_node("answer", answer)
    workflow.add_node("remember", memory.remember_node(facts))
    workflow.add_edge(START, "recall")
    workflow.add_edge("recall", "answer")
    workflow.add_edge("answer", "remember")
    return workflow.compile(checkpointer=saver)


# The processes


def open_database() -> Database:
    """PGSAGA_DSN's server, else the embedded one."""
    return Database() if os.environ.get("PGSAGA_DSN") else Database.embedded()


def open_memory(db: Database) -> AgentMemory:
    """By words and meaning where wordllama is installed, else by words."""
    if find_spec("wordllama") is None:
        return AgentMemory(db)
    logging.basicConfig()  # else the package has everything logged
    wordllama = importlib.import_module("wordllama")
    [folder] = wordllama.__path__  # where its weights are
    model = wordllama.WordLlama.load(cache_dir=folder, disable_download=True)

    def embed(texts: Sequence[str]) -> list[list[float]]:
        found: list[list[float]] = model.embed(list(texts), norm=True).tolist()
        return found

    return AgentMemory(db, embed=embed, dims=256, model="wordllama")


async def talk(thread: str, sentences: Sequence[str]) -> None:
    """One conversation, as a process has it."""
    async with open_database() as db:
        memory = open_memory(db)
        graph = build(PostgresSaver(db), memory)
        config: RunnableConfig = {"configurable": {"thread_id": thread, "user_id": USER}}
        for sentence in sentences:
            state = await graph.ainvoke({"messages": [HumanMessage(sentence)]}, config)
            say(f"{USER}: {sentence}")
            say(f"agent: {state['messages'][-1].text}")
        await memory.flush()  # what was recalled is counted, a moment later or here


def talk_in_a_process(thread: str, sentences: Sequence[str]) -> None:
    subprocess.run([sys.executable, __file__, "--thread", thread, *sentences], check=True)


# The tour


async def tour() -> None:
    run = time.strftime("%H%M%S")
    async with open_database() as db:  # keeps the server up between the processes
        memory = open_memory(db)
        await memory.setup()
        await memory.forget_user(USER)  # of an earlier run
        title("On Monday, a process")
        await asyncio.to_thread(talk_in_a_process, f"monday {run}", MONDAY)
        monday = (await memory.list(user_id=USER)).memories[0].recorded_at
        title("On Friday, another process, another thread")
        await asyncio.to_thread(talk_in_a_process, f"friday {run}", FRIDAY)
        title("What does it know, and what did it know on Monday?")
        await compare(memory, "drink", monday)


async def compare(memory: AgentMemory, query: str, moment: datetime) -> None:
    """Nothing is overwritten: a correction ends what was known, and says from when on."""
    for when, as_of in (("now", None), ("then", moment)):
        [found] = await memory.recall(query, user_id=USER, k=1, as_of=as_of, touch=False)
        say(f"{when}: {found.memory.content_text}")
    assert found.memory.superseded_at is not None
    say(f"which held from {found.memory.recorded_at:%X} to {found.memory.superseded_at:%X}")


def say(text: str) -> None:
    print(f"   {text}", flush=True)


def title(text: str) -> None:
    print(f"\n{text}\n{'-' * len(text)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="An agent that remembers.")
    parser.add_argument("--thread", help=argparse.SUPPRESS)
    parser.add_argument("sentences", nargs="*", help=argparse.SUPPRESS)
    given = parser.parse_args()
    asyncio.run(talk(given.thread, given.sentences) if given.thread else tour())


if __name__ == "__main__":
    try:
        main()
    except PgSagaError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
