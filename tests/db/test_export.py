"""Conversations are exported to a file, and come back."""

from __future__ import annotations

import asyncio
import io
import json
import os
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from langchain_core.messages import (
    HumanMessage,
    ToolMessage,
)

from langgraph_pgsaga import PostgresSaver, sync
from langgraph_pgsaga.errors import (
    InvalidArgumentError,
)
from langgraph_pgsaga.messages import Messages
from tests.db._said import loaded, put_messages, say

pytestmark = pytest.mark.anyio


def files_of(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text("utf-8") for path in folder.iterdir()}


async def test_an_export_comes_back_whole(
    saver: PostgresSaver, messages: Messages, tmp_path: Path
) -> None:
    """Every row is a line with its facts, and with `full` the message itself, equal again."""
    odd = HumanMessage("line\nbreak \u2028 nul \0 and \ud800", id="odd", name="Ann")
    many = [HumanMessage(f"m{n}", id=f"m{n}") for n in range(250)]
    await put_messages(saver, "t", [odd, *many])
    await say(saver, "elsewhere", "u")
    path = tmp_path / "messages.jsonl"
    assert await messages.export(path, full=True) == 253
    lines = [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]
    own = [line for line in lines if line["thread_id"] == "t"]
    assert [loaded(json.dumps(line)) for line in own] == [odd, *many]
    rows = (await messages.rows("t", limit=1000)).rows
    facts = [
        (r.message_no, r.message_id, r.message_type, r.role, r.content, r.metadata, r.created_at)
        for r in rows
    ]
    assert facts == [
        (
            line["message_no"],
            line["message_id"],
            line["type"],
            line["role"],
            line["content"],
            line["metadata"],
            datetime.fromisoformat(line["created_at"]),
        )
        for line in own
    ]
    buffer = io.StringIO()
    assert await messages.export(buffer, thread_id="u", roles=["user"]) == 1
    assert set(json.loads(buffer.getvalue())) == set(own[0]) - {"message"}
    assert not buffer.closed


async def test_a_failed_export_leaves_the_file_alone(
    saver: PostgresSaver, messages: Messages, tmp_path: Path
) -> None:
    """The file is the old one or the whole new one, and no other is left behind."""
    path = tmp_path / "messages.jsonl"
    path.write_text("old")
    await put_messages(saver, "t", [HumanMessage(f"m{n}") for n in range(150)])
    async with saver.db.transaction() as conn:
        await conn.execute("update agent_messages set payload = '\\xc1' where message_no = 140")
    with pytest.raises(Exception, match="can't be loaded"):
        await Messages(PostgresSaver(saver.db)).export(path, full=True)
    assert files_of(tmp_path) == {"messages.jsonl": "old"}
    assert await messages.export(path) == 150
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(files_of(tmp_path)) == ["messages.jsonl"]


async def test_what_a_full_export_keeps_of_values(saver: PostgresSaver, messages: Messages) -> None:
    """Equal messages where JSON has the values; of other objects the repr, which load refuses."""
    kept = [{"a": [1, 2.5, None, "x"]}, 2**70, {"lc": 1, "type": "constructor"}]
    lost = [b"ab", datetime(2026, 1, 31, tzinfo=UTC), {1, 2}]
    values = [*kept, (1, 2), {1: "a"}, *lost]
    said = [ToolMessage("t", tool_call_id="1", artifact=value) for value in values]
    await put_messages(saver, "t", [*said])
    out = io.StringIO()
    await messages.export(out, full=True)
    lines = out.getvalue().splitlines()
    assert [loaded(line).artifact for line in lines[:5]] == [*kept, [1, 2], {"1": "a"}]
    assert [loaded(line) for line in lines[:3]] == said[:3]
    for line in lines[5:]:
        assert json.loads(line)["message"]["kwargs"]["artifact"]["repr"]
        with pytest.raises(NotImplementedError):
            loaded(line)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes and links")
async def test_an_export_replaces_files_only(
    saver: PostgresSaver, messages: Messages, tmp_path: Path
) -> None:
    """What a link leads to is replaced; a pipe (or a device) is written to, and stays one."""
    await say(saver, "hi")
    link, file, pipe = tmp_path / "link", tmp_path / "file", tmp_path / "pipe"
    file.write_text("old")
    link.symlink_to(file)
    assert await messages.export(link) == 2
    assert link.is_symlink()
    os.mkfifo(pipe)
    reading = asyncio.ensure_future(asyncio.to_thread(pipe.read_text))
    assert await asyncio.to_thread(sync_export, saver, pipe) == 2
    assert await reading == file.read_text()
    assert pipe.is_fifo()
    with pytest.raises(InvalidArgumentError):
        await messages.export(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["file", "link", "pipe"]  # noqa: PTH208


def sync_export(saver: PostgresSaver, path: Path) -> int:
    return sync.Messages(saver).export(path)
