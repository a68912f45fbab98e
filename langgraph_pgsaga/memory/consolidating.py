"""Consolidation: memories that say nearly the same become one, or what a function makes of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from uuid import UUID

from langgraph_pgsaga._arguments import checked_items, shown
from langgraph_pgsaga.database import LONG, Connection, Database, load_statements
from langgraph_pgsaga.errors import InvalidArgumentError
from langgraph_pgsaga.memory.calling import called
from langgraph_pgsaga.memory.remembering import Batch, NewMemory, Vectors
from langgraph_pgsaga.memory.row import Memory
from langgraph_pgsaga.memory.scope import Scope
from langgraph_pgsaga.memory.scoring import checked_number

_STATEMENTS = load_statements("memory")
_SCOPES_PER_PAGE = 500
# Of so many memories the others that are near are looked for at once, and so many pairs are taken.
_PROBES, _MOST_PAIRS = 200, 5_000
# What a function is given at once.
_MOST_IN_CLUSTER = 50

Made: TypeAlias = Iterable[NewMemory | str] | NewMemory | str | None
# What becomes of memories that say nearly the same: new ones in their place, None leaves them.
Merge: TypeAlias = (
    Callable[[tuple[Memory, ...]], Made] | Callable[[tuple[Memory, ...]], Awaitable[Made]]
)
# The vectors of texts, one after the other.
EmbedTexts: TypeAlias = Callable[[Sequence[str]], Awaitable[Vectors | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsolidationResult:
    """How many clusters were merged, how many memories of them were superseded, and by how many
    new ones."""

    clusters: int = 0
    superseded: int = 0
    created: int = 0


@dataclass(slots=True)
class _Count:
    clusters: int = 0
    superseded: int = 0
    created: int = 0
    # Pairs that the function leaves as they are.
    left: set[tuple[UUID, UUID]] = field(default_factory=set)


@dataclass(frozen=True, slots=True, kw_only=True)
class Consolidation:
    """What is to be consolidated, and how near it has to be."""

    db: Database
    tenant_id: str
    scope_ids: Sequence[UUID] | None
    types: Sequence[str] | None
    model: str
    language: str
    threshold: float
    merge: Merge | None
    embed: EmbedTexts

    async def run(self) -> ConsolidationResult:
        """Goes over all of it, cluster by cluster, each of which is done or not."""
        count = _Count()
        async for scope_id, memory_type in self._scopes():
            count.left.clear()
            while await self._pass(scope_id, memory_type, count) and self.merge is not None:
                pass  # what is new may be near others
        return ConsolidationResult(
            clusters=count.clusters, superseded=count.superseded, created=count.created
        )

    async def _scopes(self) -> AsyncIterator[tuple[UUID, str]]:
        after: tuple[UUID, str] | None = None
        while True:
            statement = _STATEMENTS["list_consolidated"].bind(
                tenant_id=self.tenant_id,
                scope_ids=self.scope_ids,
                types=self.types,
                after_scope=after and after[0],
                after_type=after and after[1],
                page=_SCOPES_PER_PAGE,
            )
            rows = await self.db.fetch(statement)
            for row in rows:
                yield row["scope_id"], row["memory_type"]
            if len(rows) < _SCOPES_PER_PAGE:
                return
            after = rows[-1]["scope_id"], rows[-1]["memory_type"]

    async def _pass(self, scope_id: UUID, memory_type: str, count: _Count) -> bool:
        """Whether it changed something of a scope's memories of a type."""
        before, after_id = count.superseded, None
        while True:
            statement = load_statements("memory_vectors")["find_duplicates"].bind(
                scope_id=scope_id,
                memory_type=memory_type,
                model=self.model,
                threshold=self.threshold,
                is_rewritten=self.merge is not None,
                after_id=after_id,
                probes=_PROBES,
                most=_MOST_PAIRS,
            )
            (row,) = await self.db.fetch(statement)
            pairs = list(zip(row["memory_ids"] or (), row["other_ids"] or (), strict=True))
            pairs = [pair for pair in pairs if pair not in count.left]
            if pairs and await self._merged(scope_id, pairs, count):
                continue
            if row["probes"] < _PROBES:
                return count.superseded > before
            after_id = row["last_id"]

    async def _merged(
        self, scope_id: UUID, pairs: Sequence[tuple[UUID, UUID]], count: _Count
    ) -> bool:
        """Whether some of these pairs became one."""
        ids = sorted({memory_id for pair in pairs for memory_id in pair})
        statement = _STATEMENTS["get_memories"].bind(scope_id=scope_id, memory_ids=ids)
        memories = [Memory.from_row(row) for row in await self.db.fetch(statement)]
        clusters = clustered(memories, pairs)
        if self.merge is None:
            return await self._united(scope_id, clusters, count)
        before = count.superseded
        for cluster in clusters:
            await self._rewritten(cluster[:_MOST_IN_CLUSTER], self.merge, count)
        return count.superseded > before

    async def _united(
        self, scope_id: UUID, clusters: Sequence[Sequence[Memory]], count: _Count
    ) -> bool:
        """Merges clusters without a function, in one transaction."""
        statement = _STATEMENTS["merge_memories"].bind(
            scope_id=scope_id,
            survivor_ids=[c[0].memory_id for c in clusters for _ in c[1:]],
            merged_ids=[one.memory_id for c in clusters for one in c[1:]],
        )

        async def work(conn: Connection) -> int:
            (row,) = await self.db.fetch(statement, conn=conn)
            merged: int = row["merged"]
            return merged

        merged = await self.db.run(work, limits=LONG)
        count.clusters += len(clusters) if merged else 0
        count.superseded += merged
        return merged > 0

    async def _rewritten(self, cluster: Sequence[Memory], merge: Merge, count: _Count) -> None:
        """Has what the function makes of a cluster take its place, in one transaction."""
        by_age = sorted(cluster, key=lambda one: (one.created_at, one.memory_id))
        given = new_memories(await called(merge, tuple(by_age)), cluster)
        ids = sorted(one.memory_id for one in cluster)
        if not given:
            count.left |= {(first, second) for first in ids for second in ids if first < second}
            return
        first = cluster[0]
        scope = Scope.of(self.tenant_id, first.user_id, first.thread_id)
        batch = Batch(given, scope, self.language)
        vectors = await self.embed([one.text for one in batch.memories])

        async def work(conn: Connection) -> int:
            lock = _STATEMENTS["lock_memories"].bind(scope_id=scope.scope_id, memory_ids=ids)
            if len(await self.db.fetch(lock, conn=conn)) < len(ids):
                return 0  # somebody else changed one of them; the next run sees what is left
            stored = await batch.store(self.db, vectors, conn)
            statement = _STATEMENTS["supersede_memories"].bind(
                scope_id=scope.scope_id,
                source_ids=ids,
                new_ids=[one.memory_id for one in stored],
            )
            (row,) = await self.db.fetch(statement, conn=conn)
            superseded: int = row["superseded"]
            return superseded

        superseded = await self.db.run(work, limits=LONG)
        if superseded:
            count.clusters += 1
            count.superseded += superseded
            count.created += len(batch.memories)
        else:
            count.left |= {(first, second) for first in ids for second in ids if first < second}


def clustered(memories: Sequence[Memory], pairs: Sequence[tuple[UUID, UUID]]) -> list[list[Memory]]:
    """The memories of pairs as clusters: in each, all are near the first, which is the one that
    stays: what is pinned, more important, more often accessed, or newer comes first."""
    near: dict[UUID, set[UUID]] = {}
    for one, other in pairs:
        near.setdefault(one, set()).add(other)
        near.setdefault(other, set()).add(one)
    left = {
        one.memory_id: one for one in sorted(memories, key=_standing, reverse=True)
    }  # in this order
    clusters = []
    for memory_id in list(left):
        first = left.pop(memory_id, None)
        others = [left.pop(other) for other in list(left) if other in near[memory_id]]
        if first is not None and others:
            clusters.append([first, *others])
    return clusters


def _standing(memory: Memory) -> tuple[Any, ...]:
    return (
        memory.pinned,
        memory.importance_score,
        memory.access_count,
        memory.created_at,
        memory.memory_id,
    )


def new_memories(made: Any, cluster: Sequence[Memory]) -> list[NewMemory]:
    """What a function made of a cluster; a text has its type, and its greatest importance."""
    if made is None:
        return []
    given = [made] if isinstance(made, str | NewMemory) else checked_items("merge", made)
    return [_new_memory(one, cluster) for one in given]


def _new_memory(made: Any, cluster: Sequence[Memory]) -> NewMemory:
    if isinstance(made, NewMemory):
        return made
    if not isinstance(made, str):
        problem = f"gives NewMemory, or texts, not {shown(made)}"
        raise InvalidArgumentError(argument="merge", problem=problem)
    first = cluster[0]
    return NewMemory(
        text=made,
        type=first.memory_type,
        importance=max(one.importance_score for one in cluster),
        valid_from=first.valid_from,
        valid_to=first.valid_to,
    )


def checked_threshold(threshold: Any) -> float:
    """A cosine similarity above 0."""
    if not 0 < checked_number("threshold", threshold) <= 1:
        problem = f"must be above 0 and up to 1, not {threshold}"
        raise InvalidArgumentError(argument="threshold", problem=problem)
    return float(threshold)
