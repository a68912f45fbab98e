"""`pgsaga memory`, as a process."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from langgraph_pgsaga import Database
from langgraph_pgsaga.memory import SEMANTIC, Memory, MemoryType
from langgraph_pgsaga.sync import AgentMemory
from tests._cli import DANGEROUS, HOSTILE, answer, output, pgsaga
from tests._embedders import DIMS, hashed


@pytest.fixture
def memory(dsn: str) -> Iterator[AgentMemory]:
    """A memory by words."""
    with Database(dsn) as db:
        yield AgentMemory(db)


@pytest.fixture
def tea(memory: AgentMemory) -> Memory:
    """What Ann drinks, and where she lives; and that somebody else drinks something, too."""
    memory.remember("Ann lives in Oslo", user_id="ann", type=MemoryType.EPISODIC, importance=0.9)
    memory.remember("Bob drinks beer", user_id="bob")
    return memory.remember("Ann drinks tea", user_id="ann", metadata={"sure": True})


def texts(dsn: str, *words: str) -> list[str]:
    return [
        one["content_text"] for one in answer("memory", "list", *words, "--dsn", dsn)["memories"]
    ]


def test_search_finds_by_words_and_of_one_user(dsn: str, tea: Memory) -> None:
    """The best first, not counted as an access, as a table and as JSON."""
    given = ["memory", "search", "what does she drink?", "--user", "ann", "--dsn", dsn]
    (found,) = answer(*given)["found"]
    assert found["memory"]["memory_id"] == str(tea.memory_id)
    assert (found["memory"]["metadata"], "scope_id" in found["memory"]) == ({"sure": True}, False)
    assert "Ann drinks tea" in output(*given)
    nothing = pgsaga("memory", "search", "beer", "--user", "ann", "--dsn", dsn)
    assert (nothing.returncode, nothing.stdout, nothing.stderr) == (0, "", "no memories\n")
    assert (
        answer("memory", "show", str(tea.memory_id), "--user", "ann", "--dsn", dsn)["access_count"]
        == 0
    )


def test_list_goes_on_by_pages(dsn: str, tea: Memory) -> None:
    """In the order asked for, and of the type asked for."""
    assert texts(dsn, "--user", "ann") == ["Ann drinks tea", "Ann lives in Oslo"]
    assert texts(dsn, "--user", "ann", "--type", "semantic") == ["Ann drinks tea"]
    ordered = ["memory", "list", "--user", "ann", "--order", "importance", "--dsn", dsn]
    page = answer(*ordered, "--limit", "1")
    rest = answer(*ordered, "--after", page["next_cursor"])
    both = [*page["memories"], *rest["memories"]]
    assert [one["content_text"] for one in both] == ["Ann lives in Oslo", "Ann drinks tea"]
    assert "--after" in pgsaga(*ordered, "--limit", "1").stderr


def test_a_memory_is_shown_whole(dsn: str, memory: AgentMemory) -> None:
    """Nothing of it moves a terminal's cursor."""
    text = HOSTILE.replace("\x00", "").replace("\ud83d", "") + "x" * 500
    stored = memory.remember(text, user_id="ann")
    shown = output("memory", "show", str(stored.memory_id), "--user", "ann", "--dsn", dsn)
    assert "x" * 500 in shown
    assert not any(mark in shown for mark in DANGEROUS)
    listed = output("memory", "list", "--user", "ann", "--dsn", dsn)
    assert not any(mark in listed for mark in DANGEROUS)
    missing = pgsaga("memory", "show", str(stored.memory_id), "--user", "bob", "--dsn", dsn)
    assert (missing.returncode, missing.stdout) == (1, "")
    assert missing.stderr.startswith(f"pgsaga: there is no memory {stored.memory_id}")


def test_forgetting_and_deleting(dsn: str, tea: Memory) -> None:
    """What is forgotten is told as of a time before, and what is deleted isn't."""
    given = [str(tea.memory_id), "--user", "ann", "--dsn", dsn]
    asked = pgsaga("memory", "forget", *given)
    assert (asked.returncode, "--yes" in asked.stderr) == (2, True)
    other = pgsaga("memory", "forget", str(tea.memory_id), "--user", "bob", "-y", "--dsn", dsn)
    assert other.returncode == 1
    then = [
        "memory",
        "search",
        "tea",
        "--user",
        "ann",
        "--as-of",
        str(tea.recorded_at),
        "--dsn",
        dsn,
    ]
    assert output("memory", "forget", *given, "--yes") == "forgotten\n"
    assert texts(dsn, "--user", "ann") == ["Ann lives in Oslo"]
    assert len(answer(*then)["found"]) == 1
    assert output("memory", "forget", *given, "--erase", "--yes") == "deleted\n"
    assert answer(*then)["found"] == []


def test_a_sweep_goes_by_its_rules(dsn: str, memory: AgentMemory, tea: Memory) -> None:
    """It counts first, and leaves what is pinned."""
    memory.remember("Ann is vegan", user_id="ann", pinned=True)
    memory.remember("soon over", user_id="ann", ttl=timedelta(microseconds=1))
    rule = ["memory", "sweep", "--max-age", "0s", "--type", "semantic", "--dsn", dsn]
    assert answer(*rule, "--dry-run") == {"forgotten": 3, "erased": 0, "dry_run": True}
    assert output(*rule, "--yes") == "forgot 3 memories\n"
    assert texts(dsn, "--user", "ann") == ["Ann is vegan", "Ann lives in Oslo"]
    erase = ["memory", "sweep", "--max-age", "0s", "--erase", "--dsn", dsn]
    assert output(*erase, "--dry-run").startswith("would delete ")
    assert output(*erase, "--yes").startswith("deleted ")
    assert texts(dsn, "--user", "ann") == ["Ann is vegan"]


@pytest.mark.parametrize("words", [["search", "x"], ["list"], ["sweep"]])
def test_nobodys_memories_and_no_rule_are_mistakes(dsn: str, words: list[str]) -> None:
    """Rather than everybody's, or all."""
    done = pgsaga("memory", *words, "--dsn", dsn)
    assert (done.returncode, done.stdout) == (2, "")
    assert ("--user" in done.stderr) or ("--max-idle" in done.stderr)


def test_vectors_of_a_model_are_made(dsn: str, memory: AgentMemory, tea: Memory) -> None:
    """Of every memory that has none of it, once; an application with the model recalls by them."""
    AgentMemory(memory.db, embed=hashed, dims=DIMS).setup()
    made = ["memory", "reembed", "tests._embedders:hashed", "--dims", str(DIMS), "--dsn", dsn]
    assert output(*made) == "made vectors of 3 memories\n"
    assert answer(*made) == {"done": 0, "total": 0}
    assert answer(*made, "--model", "other") == {"done": 3, "total": 3}
    own = AgentMemory(memory.db, embed=hashed, dims=DIMS, model="other")
    best, *_ = own.recall("Ann drinks tea", user_id="ann", scoring=SEMANTIC)
    assert best.memory.memory_id == tea.memory_id
    assert best.semantic == pytest.approx(1, abs=0.01)
    short = pgsaga(*made[:3], "--dims", "3", "--model", "short", "--dsn", dsn)
    assert (short.returncode, "64" in short.stderr, "3" in short.stderr) == (1, True, True)
