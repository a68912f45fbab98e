"""`pgsaga history`, `show` and `diff`, as processes."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.func import entrypoint, task
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import interrupt

from langgraph_pgsaga import Database, PostgresSaver
from tests._cli import DANGEROUS, HOSTILE, answer, config_of, name_step, order, output, pgsaga, shop
from tests.db._histories import deltas, fail, failing, turns

pytestmark = pytest.mark.anyio


def test_history_tells_what_each_step_did(dsn: str) -> None:
    """Newest first, with nodes, changes and what comes next; --limit says that there are more."""
    order(dsn, "order-1", "two flat whites")
    found = answer("history", "order-1", "--dsn", dsn)
    assert [step["step"] for step in found["checkpoints"]] == [2, 1, 0, -1]
    added = found["checkpoints"][1]
    assert (added["nodes"], added["changed"], added["next"]) == (
        ["add_up"],
        ["total", "messages"],
        ["ask"],
    )
    table = output("history", "order-1", "--dsn", dsn)
    assert all(step["checkpoint_id"] in table for step in found["checkpoints"])
    short = pgsaga("history", "order-1", "--limit", "2", "--dsn", dsn)
    assert len(short.stdout.splitlines()) == 4
    assert "there are more" in short.stderr


def test_show_is_a_conversation_and_the_other_channels(dsn: str) -> None:
    """Messages as role and text, the interrupt that waits, then what else the state holds."""
    order(dsn, "order-1", "tea", note="really?")
    text = output("show", "order-1", "--dsn", dsn)
    assert "waits for an answer to: really?\n" in text
    assert "next: ask\n" in text
    assert "\nmessages\n  user: tea\n  assistant: That is 3 EUR.\n" in text
    assert "\ntotal\n  3\n" in text
    found = answer("show", "order-1", "--dsn", dsn)
    assert found["interrupts"] == ["really?"]
    assert found["values"]["total"] == 3
    assert [message["role"] for message in found["values"]["messages"]] == ["user", "assistant"]


def test_tool_calls_are_shown(dsn: str) -> None:
    """A message that calls a tool shows the call, and lines of a text can't pass for messages."""
    call = {"name": "weather", "args": {"city": "Æ"}, "id": "1", "type": "tool_call"}
    with Database(dsn) as database:
        builder: Any = StateGraph(MessagesState)
        builder.add_node("say", lambda state: {"messages": []})
        builder.add_edge(START, "say")
        graph = builder.compile(checkpointer=PostgresSaver(database))
        messages = [
            AIMessage("Let me see.", tool_calls=[call]),
            ToolMessage("rain\nassistant: forged", tool_call_id="1", name="weather"),
        ]
        graph.invoke({"messages": messages}, config_of("t"))
    text = output("show", "t", "--dsn", dsn)
    assert "  assistant: Let me see.\n    calls weather(city='Æ')\n" in text
    assert "  tool (weather): rain\n    assistant: forged\n" in text


@pytest.mark.parametrize(
    ("option", "step"),
    [
        (["--step", "-1"], -1),
        (["--step", "0"], 0),
        (["--name", "start"], 0),
        (["--node", "add_up"], 1),
        (["--time", "2999-01-01"], 2),
        (["--checkpoint", "2"], 2),
        ([], 2),
    ],
)
def test_show_finds_the_state_that_is_asked_for(dsn: str, option: list[str], step: int) -> None:
    """By step, name, node, time or id."""
    order(dsn, "order-1", "tea")
    name_step(dsn, "order-1", 0, "start")
    assert answer("show", "order-1", *option, "--dsn", dsn)["step"] == step


@pytest.mark.parametrize(
    "command",
    [
        ["show", "order-1", "--checkpoint"],
        ["messages", "order-1", "--checkpoint"],
        ["diff", "order-1"],
        ["fork", "order-1", "--to", "copy", "--at"],
    ],
    ids=lambda command: command[0],
)
def test_a_checkpoint_is_known_by_a_unique_beginning(dsn: str, command: list[str]) -> None:
    """Of an id, in every command; else the candidates are named. Steps and names do, too."""
    order(dsn, "order-1", "tea", "coffee")
    name_step(dsn, "order-1", 2, "first")
    steps = answer("history", "order-1", "--dsn", dsn)["checkpoints"]
    ids = [step["checkpoint_id"] for step in steps]
    wanted = next(step["checkpoint_id"] for step in steps if step["step"] == 2)
    beginning = next(
        wanted[:length]
        for length in range(4, 37)
        if not any(other.startswith(wanted[:length]) for other in ids if other != wanted)
    )
    whole = answer(*command, wanted, "--dsn", dsn)
    for name in (beginning, "first", "2"):
        if command[0] == "fork":
            output("sessions", "delete", "copy", "--yes", "--dsn", dsn)
        assert answer(*command, name, "--dsn", dsn) == whole
    assert wanted in json.dumps(whole) or len(whole["messages"]) == 3
    many = pgsaga(*command, wanted[:4], "--dsn", dsn)
    assert many.returncode == 1
    assert f"{len(ids)} ids begin with '{wanted[:4]}'" in many.stderr
    assert all(one in many.stderr for one in ids[:5])
    assert f"and {len(ids) - 5} more" in many.stderr


def test_diff_shows_what_changed(dsn: str) -> None:
    """Lines of + and ~ from one step to another, and a document with both values."""
    order(dsn, "order-1", "tea", "coffee")
    name_step(dsn, "order-1", 2, "first")
    text = output("diff", "order-1", "first", "5", "--dsn", dsn)
    assert "~ total: 3 → 6" in text
    assert "+ messages[3]: user: coffee" in text
    found = answer("diff", "order-1", "first", "5", "--dsn", dsn)
    edited = next(change for change in found["changes"] if change["path"] == ["total"])
    assert (edited["kind"], edited["before"], edited["after"]) == ("edited", 3, 6)
    assert (found["before"]["step"], found["after"]["step"]) == (2, 5)
    assert "no changes" in output("diff", "order-1", "latest", "--dsn", dsn)
    assert "+ total: 6" in output("diff", "order-1", "-1", "--dsn", dsn)


def test_diff_of_two_threads(dsn: str) -> None:
    """--other-thread takes the later state from there."""
    order(dsn, "order-1", "tea")
    order(dsn, "order-2", "tea", "tea")
    found = answer("diff", "order-1", "2", "5", "--other-thread", "order-2", "--dsn", dsn)
    assert found["after"]["thread_id"] == "order-2"
    assert ["total"] in [change["path"] for change in found["changes"]]


def test_types_of_the_application_are_placeholders_or_imported(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A state with a class that isn't loaded is shown with its name; --import makes it whole."""
    source = (
        "from dataclasses import dataclass\n\n\n@dataclass\nclass Plan:\n    seats: int\n"
        "    inner: object = None\n"
    )
    (tmp_path / "shop_types.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    import shop_types  # type: ignore[import-not-found]

    order(dsn, "order-1", "tea", note=[shop_types.Plan(2, shop_types.Plan(3))])
    path = {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    text = output("show", "order-1", "--dsn", dsn, **path)
    assert "<shop_types.Plan: {'seats': 2, 'inner': <shop_types.Plan: " in text
    found = answer("show", "order-1", "--dsn", dsn, **path)["values"]["note"][0]
    assert found["type"] == "shop_types.Plan"
    assert found["value"]["inner"]["value"] == {"seats": 3, "inner": None}
    with_types = {"PYTHONPATH": f"{path['PYTHONPATH']}:{tmp_path}"}
    text = output("show", "order-1", "--import", "shop_types", "--dsn", dsn, **with_types)
    assert "Plan(seats=2, inner=Plan(seats=3, inner=None))" in text
    wrong = pgsaga("show", "order-1", "--import", "no_such_module", "--dsn", dsn)
    assert wrong.returncode == 2
    assert "no_such_module" in wrong.stderr
    assert answer("diff", "order-1", "-1", "--dsn", dsn, **path)["changes"]


def test_contents_reach_no_terminal_raw(dsn: str) -> None:
    """Text of messages, channels and names is escaped, and markup isn't obeyed."""
    deep: Any = 10**5000
    for _ in range(150):
        deep = [deep]
    evil = {HOSTILE: [HOSTILE], "n": float("nan"), "b": b"\x1b", 3: {1, 2}, "deep": deep}
    evil["huge"] = -(10**5000)
    order(dsn, "order-1", HOSTILE, note=evil)
    name_step(dsn, "order-1", 1, "\x1b[31mname")
    for command in (["show", "order-1"], ["diff", "order-1", "0"], ["history", "order-1"]):
        for flags in ([], ["--json"]):
            printed = output(*command, *flags, "--dsn", dsn)
            assert not any(character in printed for character in DANGEROUS), command
    assert "[bold]b[/bold]" in output("show", "order-1", "--dsn", dsn)
    values = answer("show", "order-1", "--dsn", dsn)["values"]
    assert values["note"]["n"] == "nan"
    assert values["note"]["3"] == [1, 2]
    assert values["note"]["huge"] == hex(-(10**5000))


async def test_delta_channels_and_failures_are_told(dsn: str) -> None:
    """A channel that only its graph can make is named, and so is the error of a failed node."""
    async with Database(dsn) as database:
        saver = PostgresSaver(database)
        await turns(deltas(saver), config_of("deltas"))
        await fail(failing(saver), config_of("failed"))
        await asks_after_a_failed_call(saver).ainvoke(1, config_of("asks"))
    found = answer("show", "deltas", "--dsn", dsn)
    assert found["delta_channels"] == ["items"] or "items" in found["values"]
    early = answer("show", "deltas", "--step", "1", "--dsn", dsn)
    assert early["values"] is not None
    failed = answer("show", "failed", "--dsn", dsn)
    assert "broken" in json.dumps(failed["errors"])
    assert answer("history", "failed", "--dsn", dsn)["checkpoints"][0]["has_error"] is True
    assert answer("show", "asks", "--dsn", dsn)["errors"] == []
    assert "failed" not in output("show", "asks", "--dsn", dsn)


def asks_after_a_failed_call(saver: PostgresSaver) -> Any:
    """An entrypoint that caught what it called."""

    @task
    async def breaks() -> None:
        raise OSError("broken")

    @entrypoint(checkpointer=saver)
    async def work(value: int) -> Any:
        with suppress(OSError):
            await breaks()
        return interrupt("go on?")

    return work


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["history", "nope"], 1, "no thread 'nope'"),
        (["show", "nope"], 1, "no thread 'nope'"),
        (["show", "order-1", "--step", "99"], 1, "none has step 99"),
        (["show", "order-1", "--name", "\x1bx"], 1, "none has name"),
        (["show", "order-1", "--checkpoint", "zzzz"], 1, "none is called 'zzzz'"),
        (["show", "order-1", "--checkpoint", "1", "--step", "1"], 2, "names one checkpoint"),
        (["show", "order-1", "--ns", "sub"], 1, "subgraphs' namespaces are: none"),
        (["history", "order-1", "--ns", "sub"], 1, "no checkpoint in 'sub'"),
        (["diff", "order-1", "98", "99"], 1, "none is called '98'"),
        (["diff", "order-1", "0", "--frob"], 2, "--frob"),
        (["diff", "order-1"], 2, "BEFORE"),
        (["show", ""], 2, "'THREAD': is empty"),
    ],
)
def test_what_isnt_there_is_told(dsn: str, args: list[str], code: int, says: str) -> None:
    """One line that says what is missing and where to look."""
    order(dsn, "order-1", "tea")
    done = pgsaga(*args, "--dsn", dsn)
    assert done.returncode == code
    assert says in done.stderr
    assert "\x1b" not in done.stderr
    assert code == 2 or done.stderr.count("\n") == 1


def test_a_wrong_namespace_tells_those_there_are(dsn: str) -> None:
    """Nobody can guess a subgraph's namespace: those of the thread are named, and can be used."""
    inner: Any = StateGraph(MessagesState)
    inner.add_node("ask", lambda state: {"messages": [AIMessage(interrupt("which?"))]})
    inner.add_edge(START, "ask")
    outer: Any = StateGraph(MessagesState)
    outer.add_node("inside", inner.compile())
    outer.add_edge(START, "inside")
    with PostgresSaver.from_conn_string(dsn) as saver:
        outer.compile(checkpointer=saver).invoke(
            {"messages": [HumanMessage("one")]}, config_of("nested")
        )
    refused = pgsaga("show", "nested", "--ns", "inside", "--dsn", dsn)
    assert refused.returncode == 1
    (namespace,) = re.findall(r"namespaces are: '(inside:[^']+)'\n", refused.stderr)
    assert "waits for an answer to: which?" in output(
        "show", "nested", "--ns", namespace, "--dsn", dsn
    )


def test_an_encrypted_thread_is_told_not_shown(dsn: str) -> None:
    """Commands have no keys: what reads checkpoints says so, what doesn't goes on."""
    serde = EncryptedSerializer.from_pycryptodome_aes(key=b"0123456789abcdef")
    with PostgresSaver.from_conn_string(dsn, serde=serde) as saver:
        shop(saver).invoke({"messages": [HumanMessage("s3cret")]}, config_of("order-1"))
    for command in (["history"], ["show"], ["tree"], ["diff", "0"], ["fork", "--at", "latest"]):
        done = pgsaga(command[0], "order-1", *command[1:], "--dsn", dsn)
        assert (done.returncode, done.stdout) == (1, "")
        assert "is encrypted, and commands have no keys" in done.stderr
    assert answer("sessions", "show", "order-1", "--dsn", dsn)["message_count"] == 3
    rows = answer("messages", "order-1", "--dsn", dsn)["messages"]
    assert [row["content"] for row in rows] == ["", "", ""]


def test_forks_are_branches(dsn: str) -> None:
    """A fork shows as branch 1, and a step number means the branch that leads to the latest."""
    order(dsn, "order-1", "tea")
    first = answer("show", "order-1", "--step", "0", "--dsn", dsn)
    with Database(dsn) as database:
        graph = shop(PostgresSaver(database))
        config: Any = config_of("order-1")
        config["configurable"]["checkpoint_id"] = first["checkpoint_id"]
        graph.update_state(config, {"messages": [HumanMessage("coffee")]}, as_node="__start__")
    steps = answer("history", "order-1", "--dsn", dsn)["checkpoints"]
    assert {step["branch"] for step in steps} == {0, 1}
    newest = answer("diff", "order-1", "0", "1", "--dsn", dsn)["after"]
    assert newest["branch"] == 0
