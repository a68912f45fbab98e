"""The `pgsaga` command as a process, and threads for it to show."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import Annotated, Any

from langchain_core.messages import AIMessage, HumanMessage
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import interrupt
from typing_extensions import TypedDict

from langgraph_pgsaga import Database, PostgresSaver
from langgraph_pgsaga.timetravel import history, name_checkpoint
from tests._limits import HANG_SECONDS
from tests._prepared import run_prepared

NO_DSN = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "PGSAGA_DSN"))}
# Moves the cursor, colours, rings, sets the window's title; markup of the table's library.
HOSTILE = "a\x1b[31mred\x1b]0;title\x07 [bold]b[/bold] \x9b2J\u202edlrow \x00\ud83d end"
# On a busy machine, work takes long enough to say how far it is.
_PROGRESS = re.compile(r"^(deleted |[\d,]+ checkpoints?, thread ).*\n", re.MULTILINE)
DANGEROUS = ("\x1b", "\x07", "\x9b", "\u202e", "\x00")


def pgsaga(*args: str, stdin: str | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    """Runs the command to its end, without a terminal."""
    environment = {**NO_DSN, "COLUMNS": "100", **env}
    if not any(name.startswith("PYTHON") for name in env):
        return run_prepared("-m", "langgraph_pgsaga", *args, env=environment, stdin=stdin)
    return subprocess.run(
        [sys.executable, "-m", "langgraph_pgsaga", *args],
        env=environment,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=HANG_SECONDS,
        check=False,
    )


def answer(*args: str, **env: str) -> Any:
    """The JSON document that the command prints."""
    return json.loads(output(*args, "--json", **env))


def output(*args: str, **env: str) -> str:
    """What the command prints where all is well."""
    done = pgsaga(*args, **env)
    assert (done.returncode, _PROGRESS.sub("", done.stderr)) == (0, ""), done.stderr
    return done.stdout


class Order(TypedDict, total=False):
    messages: Annotated[list[Any], add_messages]
    total: int
    note: Any


def shop(saver: PostgresSaver) -> Any:
    """A shop that adds up, and asks where there is a note."""

    def add_up(state: Order) -> Order:
        return {"total": state.get("total", 0) + 3, "messages": [AIMessage("That is 3 EUR.")]}

    def ask(state: Order) -> Order:
        if state.get("note"):
            interrupt(state["note"])
        return {"messages": [AIMessage("Ordered.")]}

    builder: Any = StateGraph(Order)
    builder.add_node("add_up", add_up)
    builder.add_node("ask", ask)
    builder.add_edge(START, "add_up")
    builder.add_edge("add_up", "ask")
    return builder.compile(checkpointer=saver)


def config_of(thread_id: str, user: str = "ann") -> Any:
    return {"configurable": {"thread_id": thread_id, "user_id": user, "agent_type": "shop"}}


def order(dsn: str, thread_id: str, *texts: str, note: Any = None, user: str = "ann") -> None:
    """A thread in which a customer said these things; the last one with a note."""
    with Database(dsn) as database:
        graph = shop(PostgresSaver(database))
        for number, text in enumerate(texts):
            given: Order = {"messages": [HumanMessage(text, id=f"{thread_id}-{number}")]}
            if note is not None and number == len(texts) - 1:
                given["note"] = note
            graph.invoke(given, config_of(thread_id, user))


def name_step(dsn: str, thread_id: str, step: int, name: str) -> str:
    """Names the checkpoint of a step, and returns its id."""
    with Database(dsn) as database:
        saver = PostgresSaver(database)
        found = history(saver, config_of(thread_id)).at(step=step)
        name_checkpoint(saver, found.config, name)
        return found.checkpoint_id
