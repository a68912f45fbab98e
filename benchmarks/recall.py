"""How well `AgentMemory.recall` finds what answers a question, on labelled conversations.

    python -m benchmarks.recall [FILE ...] [--turns-alone] [--dsn URL]

Without a file these are the project's own, benchmarks/data/conversations.json; the format is
described in benchmarks/labelled.py. Each turn is a memory of its conversation's user, "Speaker:
text", with the turn before it in the session as context, or, with --turns-alone, without. No model
judges anything: of a question's evidence recall@5 is the share among the first five memories,
averaged over the questions; nDCG@10 and MRR, within the first hundred, count the places, too.

Embedders are those of benchmarks/embedders.py that are installed. Without --dsn it is a new
embedded server.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import math
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import asyncpg

from benchmarks.embedders import EMBEDDERS, Embedder
from benchmarks.labelled import OURS, Conversation, LabelledFileError, Question, read_conversations
from langgraph_pgsaga import AgentMemory, Database
from langgraph_pgsaga.embedded import EmbeddedServer
from langgraph_pgsaga.memory import HYBRID, RANKS, SEMANTIC, TEXT, Scoring

_DEEPEST = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to recall: by which model, if any, and how it is scored."""

    name: str
    embedder: Embedder | None
    scoring: Scoring


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """At which places, from 1, the memories that a question needs were found."""

    question: Question
    places: tuple[int, ...]
    needed: int

    def recall(self, k: int) -> float:
        return sum(place <= k for place in self.places) / self.needed

    def ndcg(self, k: int) -> float:
        gained = sum(1 / math.log2(place + 1) for place in self.places if place <= k)
        return gained / sum(1 / math.log2(n + 2) for n in range(min(self.needed, k)))

    def reciprocal_rank(self) -> float:
        return 1 / min(self.places) if self.places else 0.0


FIGURES: Mapping[str, Callable[[Ranking], float]] = {
    "recall@5": lambda one: one.recall(5),
    "recall@10": lambda one: one.recall(10),
    "nDCG@10": lambda one: one.ndcg(10),
    "MRR": Ranking.reciprocal_rank,
}


def ways(embedders: Sequence[Embedder]) -> list[Way]:
    """Words, and of each model vectors alone, both, and both by their ranks."""
    found = [Way(name="words", embedder=None, scoring=TEXT)]
    for one in embedders:
        for name, scoring in (("vectors", SEMANTIC), ("hybrid", HYBRID), ("ranks", RANKS)):
            found.append(Way(name=f"{one.name} {name}", embedder=one, scoring=scoring))
    return found


async def measured(
    db: Database, conversations: Sequence[Conversation], chosen: Sequence[Way], *, is_alone: bool
) -> dict[str, list[Ranking]]:
    """What each way found for each question.

    The memories of each model, and those of none, are a tenant's of their own.
    """
    found: dict[str, list[Ranking]] = {}
    for embedder, group in itertools.groupby(chosen, key=lambda way: way.embedder):
        memory = await _memory(db, embedder)
        kept = [await _remembered(memory, one, is_alone=is_alone) for one in conversations]
        for way in group:
            found[way.name] = [
                await _ranked(memory, one.conversation_id, question, memories, way.scoring)
                for one, memories in zip(conversations, kept, strict=True)
                for question in one.questions
            ]
    return found


async def _memory(db: Database, embedder: Embedder | None) -> AgentMemory:
    if embedder is None:
        memory = AgentMemory(db, tenant="words")
    else:
        memory = AgentMemory(db, embed=embedder.load(), dims=embedder.dims, tenant=embedder.name)
    await memory.setup()
    return memory


async def _remembered(
    memory: AgentMemory, conversation: Conversation, *, is_alone: bool
) -> dict[str, UUID]:
    """The memory of each turn, by its id; what somebody says twice is one.

    One after the other, as they come: of those that score alike the newest is first, where the
    order among those of one call is chance.
    """
    found = {}
    for turn in conversation.turns:
        stored = await memory.remember(
            turn.said,
            user_id=conversation.conversation_id,
            context=turn.before.said if turn.before and not is_alone else None,
            metadata={"turn": turn.turn_id, "when": turn.when},
        )
        found[turn.turn_id] = stored.memory_id
    return found


async def _ranked(
    memory: AgentMemory,
    user_id: str,
    question: Question,
    memories: Mapping[str, UUID],
    scoring: Scoring,
) -> Ranking:
    found = await memory.recall(
        question.text, user_id=user_id, k=_DEEPEST, scoring=scoring, touch=False
    )
    needed = {memories[turn_id] for turn_id in question.evidence}
    places = [n for n, one in enumerate(found, start=1) if one.memory.memory_id in needed]
    return Ranking(question=question, places=tuple(places), needed=len(needed))


# What is printed


def figures(rankings: Sequence[Ranking]) -> dict[str, float]:
    return {name: mean(map(figure, rankings)) for name, figure in FIGURES.items()}


def report(found: Mapping[str, Sequence[Ranking]]) -> Iterator[str]:
    """The lines of the table, of the ratios, and of recall@5 by kind."""
    averages = {name: figures(rankings) for name, rankings in found.items()}
    yield _row("", FIGURES)
    for name, values in averages.items():
        yield _row(name, [f"{value:.3f}" for value in values.values()])
    for name in averages:
        model, _, way = name.rpartition(" ")
        if way == "hybrid":
            for part in ("words", f"{model} vectors"):
                ratios = [averages[name][one] / (averages[part][one] or 1e-9) for one in FIGURES]
                yield _row(f"{name} / {part}", [f"{ratio:.2f}" for ratio in ratios])
    yield ""
    rankings = next(iter(found.values()))
    kinds = sorted({one.question.kind for one in rankings})
    counts = [sum(one.question.kind == kind for one in rankings) for kind in kinds]
    labels = [f"{kind} ({count})" for kind, count in zip(kinds, counts, strict=True)]
    yield _row("recall@5 by kind", labels)
    for name, rankings in found.items():
        shares = [mean(r.recall(5) for r in rankings if r.question.kind == k) for k in kinds]
        yield _row(name, [f"{share:.3f}" for share in shares])


def _row(name: str, cells: Sequence[str] | Mapping[str, object]) -> str:
    return f"{name:36}" + "".join(f"{cell:>15}" for cell in cells)


# The run


async def run(dsn: str, conversations: Sequence[Conversation], *, is_alone: bool) -> None:
    there = [one for one in EMBEDDERS if not one.missing]
    for one in EMBEDDERS:
        if one.missing:
            print(f"without {one.name}: {', '.join(one.missing)} isn't installed")
    turns = sum(len(one.turns) for one in conversations)
    questions = sum(len(one.questions) for one in conversations)
    print(f"{len(conversations)} conversations, {turns} turns, {questions} questions\n")
    async with _database(dsn) as db:
        found = await measured(db, conversations, ways(there), is_alone=is_alone)
    print("\n".join(report(found)))


@asynccontextmanager
async def _database(server_dsn: str) -> AsyncIterator[Database]:
    """A database of its own, for as long."""
    name = f"pgsaga_bench_{os.getpid()}_recall"
    admin = await asyncpg.connect(server_dsn)
    try:
        await admin.execute(f'create database "{name}"')
        try:
            async with Database(urlunsplit(urlsplit(server_dsn)._replace(path=f"/{name}"))) as db:
                yield db
        finally:
            await admin.execute(f'drop database "{name}" with (force)')
    finally:
        await admin.close()


@contextmanager
def _server(dsn: str | None) -> Iterator[str]:
    if dsn is not None:
        yield dsn
        return
    folder = Path(tempfile.mkdtemp(prefix="pgsaga-bench-"))
    try:
        folder.chmod(0o755)  # run by root, the server is another user's
        with EmbeddedServer.start(folder / "server") as server:
            yield server.dsn
    finally:
        shutil.rmtree(folder)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recall")
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", default=[OURS])
    parser.add_argument("--turns-alone", action="store_true", help="without the turn before")
    parser.add_argument("--dsn", help="a URL of a server to make a database on")
    given = parser.parse_args()
    try:
        read = [one for path in given.files for one in read_conversations(path)]
    except LabelledFileError as error:
        print(error, file=sys.stderr)
        return 2
    with _server(given.dsn) as dsn:
        asyncio.run(run(dsn, read, is_alone=given.turns_alone))
    return 0


if __name__ == "__main__":
    sys.exit(main())
