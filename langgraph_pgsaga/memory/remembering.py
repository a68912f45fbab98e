"""What is to be remembered, and how it is stored: all of a call or none."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from langgraph_pgsaga import _json
from langgraph_pgsaga._arguments import (
    checked_flag,
    checked_instance,
    checked_integer,
    checked_items,
    checked_mapping,
    checked_seconds,
    checked_text,
    checked_time,
    required_text,
    shown,
)
from langgraph_pgsaga.database import BoundStatement, Connection, Database, load_statements
from langgraph_pgsaga.errors import (
    DimensionsError,
    InvalidArgumentError,
    MissingMemoryError,
    UnstorableValueError,
)
from langgraph_pgsaga.memory.row import Memory, MemoryType
from langgraph_pgsaga.memory.scope import Scope, checked_name
from langgraph_pgsaga.memory.scoring import checked_number
from langgraph_pgsaga.work import RunContext

_STATEMENTS = load_statements("memory")
_MOST_CHARACTERS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class NewMemory:
    """A memory to be stored. It is checked when it is made; see `AgentMemory.remember`."""

    text: str
    type: MemoryType | str = MemoryType.SEMANTIC
    importance: float = 0.0
    pinned: bool = False
    ttl: timedelta | None = None
    expires_at: datetime | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    context: str | None = None
    supersedes: UUID | str | None = None
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    message_no: int | None = None

    def __post_init__(self) -> None:
        _check_text("text", self.text)
        checked_text("context", self.context)
        type_name(self.type)
        checked_number("importance", self.importance)
        checked_flag("pinned", self.pinned)
        self.dump_metadata()
        for name in ("expires_at", "valid_from", "valid_to"):
            checked_time(name, getattr(self, name))
        if self.valid_from is not None and self.valid_to is not None:
            _check_order(self.valid_from, self.valid_to)
        if self.lifetime is not None and self.expires_at is not None:
            raise InvalidArgumentError(argument="ttl", problem="goes without expires_at")
        if self.message_no is not None:
            checked_integer("message_no", self.message_no, least=0)
        if self.supersedes is not None:
            checked_id("supersedes", self.supersedes)

    @property
    def lifetime(self) -> float | None:
        """Its `ttl` in seconds."""
        if self.ttl is None:
            return None
        checked_instance("ttl", self.ttl, timedelta, "Pass timedelta(days=...)")
        return checked_seconds("ttl", self.ttl.total_seconds(), least=0)

    @property
    def key(self) -> tuple[str, bytes]:
        """What a scope has once: the type and the hash of the text."""
        return type_name(self.type), hashlib.sha256(self.text.encode()).digest()

    def dump_metadata(self) -> str:
        """Its metadata as JSON text."""
        given = dict(checked_mapping("metadata", self.metadata))
        text = _json.dump_exact(given)
        if text is None:
            problem = "it isn't JSON as it is: text, finite numbers, lists and dicts"
            raise UnstorableValueError(where="metadata", problem=problem)
        return text


def _check_order(valid_from: datetime, valid_to: datetime) -> None:
    if valid_to <= valid_from:
        problem = f"must be after valid_from ({valid_from}), not {valid_to}: it would never hold"
        raise InvalidArgumentError(argument="valid_to", problem=problem)


def _check_text(argument: str, text: Any) -> None:
    required_text(argument, text)
    if not text.strip() or len(text) > _MOST_CHARACTERS:
        problem = f"must have 1 to {_MOST_CHARACTERS:,} characters and not be blank"
        raise InvalidArgumentError(argument=argument, problem=problem)


def type_name(given: MemoryType | str) -> str:
    """The name of a type of memories."""
    return given.value if isinstance(given, MemoryType) else checked_name("type", given)


def type_names(types: Sequence[MemoryType | str] | None) -> list[str] | None:
    """The names of types; None is any."""
    return None if types is None else [type_name(one) for one in checked_items("types", types)]


def checked_id(argument: str, given: Any) -> UUID:
    """A memory's id."""
    if isinstance(given, UUID):
        return given
    try:
        return UUID(given if isinstance(given, str) else None)
    except (TypeError, ValueError):
        problem = f"must be a memory's id, a UUID, not {shown(given)}"
        raise InvalidArgumentError(argument=argument, problem=problem) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Vectors:
    """The vectors of a batch, in its order, one after the other."""

    values: Sequence[float]
    dims: int
    model: str
    is_half: bool


class Batch:
    """Memories of one scope, each content once, and the statement that stores them.

    `places` says for each that was given which of them it is.
    """

    def __init__(self, given: Sequence[NewMemory], scope: Scope, language: str) -> None:
        found: dict[tuple[str, bytes], NewMemory] = {}
        for one in given:
            before = found.get(one.key)
            found[one.key] = one if before is None else _united(before, one)
        self.scope = scope
        self.memories = list(found.values())
        self.places = [list(found).index(one.key) for one in given] if len(given) > 1 else [0]
        self.ids = [uuid4() for _ in self.memories]
        self._run = RunContext.current()
        self.statement = self._bound(language)

    def _bound(self, language: str) -> BoundStatement:
        run, memories = self._run, self.memories
        return _STATEMENTS["insert_memories"].bind(
            scope_id=self.scope.scope_id,
            tenant_id=self.scope.tenant_id,
            user_id=self.scope.user_id,
            session_id=self.scope.session_id,
            thread_id=self.scope.thread_id,
            language=language,
            memory_ids=self.ids,
            types=[one.key[0] for one in memories],
            texts=[one.text for one in memories],
            hashes=[one.key[1] for one in memories],
            contexts=[one.context for one in memories],
            importances=[float(one.importance) for one in memories],
            pinned=[one.pinned for one in memories],
            expires_at=[one.expires_at for one in memories],
            lifetimes=[one.lifetime for one in memories],
            metadata=[one.dump_metadata() for one in memories],
            source_thread_id=self.scope.thread_id if run is None else run.thread_id,
            source_checkpoint_ns=None if run is None else run.checkpoint_ns,
            source_checkpoint_id=None if run is None else run.checkpoint_id,
            source_message_nos=[one.message_no for one in memories],
            valid_from=[one.valid_from for one in memories],
            valid_to=[one.valid_to for one in memories],
            superseded_ids=[_id_or_none(one.supersedes) for one in memories],
        )

    async def store(
        self, db: Database, vectors: Vectors | None, conn: Connection | None
    ) -> tuple[Memory, ...]:
        """The memories as they are stored, in the order they were given."""
        if vectors is None:
            rows = await db.fetch(self.statement, conn=conn)
            return self._stored(rows)

        async def work(conn: Connection) -> tuple[Memory, ...]:
            rows = await db.fetch(self.statement, conn=conn)
            found = self._stored(rows)
            await _store_vectors(db, self.scope, [row["memory_id"] for row in rows], vectors, conn)
            return found

        if conn is None:
            return await db.run(work)
        # What is refused leaves the caller's transaction as it was.
        with db.translating():
            async with conn.transaction():
                return await work(conn)

    def as_new(self) -> tuple[Memory, ...]:
        """The memories as they are stored where they are new, by the clock of this process."""
        found = [
            _new_memory(one, memory_id, self.scope, self._run)
            for one, memory_id in zip(self.memories, self.ids, strict=True)
        ]
        return tuple(found[place] for place in self.places)

    def _stored(self, rows: Sequence[asyncpg.Record]) -> tuple[Memory, ...]:
        for one, row in zip(self.memories, rows, strict=True):
            if row["memory_id"] is None and one.supersedes is not None:
                raise MissingMemoryError(memory_id=str(one.supersedes))
        # One of the others' was missing.
        found = [Memory.from_row(row) for row in rows if row["memory_id"] is not None]
        return tuple(found[place] for place in self.places)


async def _store_vectors(
    db: Database, scope: Scope, ids: Sequence[UUID], vectors: Vectors, conn: Connection
) -> None:
    statement = load_statements("memory_vectors")["store_vectors"].bind(
        scope_id=scope.scope_id,
        memory_ids=ids,
        model=vectors.model,
        dims=vectors.dims,
        vectors=vectors.values,
        is_half=vectors.is_half,
    )
    for row in await db.fetch(statement, conn=conn):
        raise DimensionsError(given=vectors.dims, expected=row["other_dims"])


def _new_memory(new: NewMemory, memory_id: UUID, scope: Scope, run: RunContext | None) -> Memory:
    now = datetime.now(UTC)
    return Memory(
        memory_id=memory_id,
        user_id=scope.user_id,
        thread_id=scope.thread_id,
        memory_type=type_name(new.type),
        content_text=new.text,
        context_text=new.context,
        importance_score=float(new.importance),
        access_count=0,
        created_at=now,
        last_accessed_at=now,
        expires_at=new.expires_at if new.ttl is None else now + new.ttl,
        pinned=new.pinned,
        metadata=dict(new.metadata),
        source_thread_id=scope.thread_id if run is None else run.thread_id,
        source_checkpoint_ns=None if run is None else run.checkpoint_ns,
        source_checkpoint_id=None if run is None else run.checkpoint_id,
        source_message_no=new.message_no,
        valid_from=new.valid_from,
        valid_to=new.valid_to,
        recorded_at=now,
        superseded_at=None,
        superseded_by=None,
        scope_id=scope.scope_id,
    )


def _united(first: NewMemory, second: NewMemory) -> NewMemory:
    """Of two with one content: the second one, which takes nothing of what the first has."""
    return replace(
        second,
        importance=max(first.importance, second.importance),
        pinned=first.pinned or second.pinned,
        metadata={**first.metadata, **second.metadata},
        supersedes=second.supersedes or first.supersedes,
    )


def _id_or_none(given: UUID | str | None) -> UUID | None:
    return None if given is None else checked_id("supersedes", given)
