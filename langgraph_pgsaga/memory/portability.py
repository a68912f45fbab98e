"""Memories as JSON Lines: written with all that is known of them, and stored again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from itertools import islice
from typing import Any, TextIO
from uuid import UUID

from langgraph_pgsaga import _json
from langgraph_pgsaga._arguments import checked_integer, checked_text, checked_time, shown
from langgraph_pgsaga._files import json_line
from langgraph_pgsaga.database import LONG, Connection, Database, load_statements
from langgraph_pgsaga.errors import (
    DimensionsError,
    InvalidArgumentError,
    PgSagaError,
    UnstorableValueError,
)
from langgraph_pgsaga.memory.reembedding import Embedding, Key
from langgraph_pgsaga.memory.remembering import NewMemory, checked_id
from langgraph_pgsaga.memory.row import Memory, MemorySource
from langgraph_pgsaga.memory.scope import Scope

_STATEMENTS = load_statements("memory")
_PAGE = 500
_MOST_CHARACTERS_OF_LINE = 20_000_000
_OF_LINES = [found.name for found in fields(Memory) if found.name != "scope_id"]
_TIMES = ("created_at", "last_accessed_at", "recorded_at")
_TEXTS = ("source_thread_id", "source_checkpoint_ns", "source_checkpoint_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportResult:
    """How many memories there were in the file, and how many of these are new here."""

    read: int = 0
    stored: int = 0


class Export:
    """Writes a tenant's memories, or a user's, as they are in one moment.

    Where the connection is lost it goes on behind the last one that was written, in another moment.
    """

    def __init__(
        self, db: Database, tenant_id: str, user_id: str | None, model: str | None
    ) -> None:
        self._db = db
        self._tenant_id = tenant_id
        self._user_id = user_id
        self._model = model
        self._place: Key | None = None
        self._count = 0

    async def write(self, file: TextIO) -> int:
        """How many were written; with vectors where a model is named."""

        async def work(conn: Connection) -> int:
            while rows := await self._page(conn):
                vectors = await self._vectors(rows, conn)
                for row in rows:
                    key = row["scope_id"], row["memory_id"]
                    file.write(json_line(self._line(row, vectors.get(key))))
                    self._place = key
                    self._count += 1
            return self._count

        return await self._db.snapshot(work, limits=LONG)

    async def _page(self, conn: Connection) -> list[Any]:
        statement = _STATEMENTS["export_memories"].bind(
            tenant_id=self._tenant_id,
            user_id=self._user_id,
            after_scope=self._place and self._place[0],
            after_id=self._place and self._place[1],
            page=_PAGE,
        )
        return await self._db.fetch(statement, conn=conn)

    async def _vectors(self, rows: Sequence[Any], conn: Connection) -> dict[Key, list[float]]:
        if self._model is None:
            return {}
        statement = load_statements("memory_vectors")["get_vectors"].bind(
            scope_ids=[row["scope_id"] for row in rows],
            memory_ids=[row["memory_id"] for row in rows],
            model=self._model,
        )
        found = await self._db.fetch(statement, conn=conn)
        return {(row["scope_id"], row["memory_id"]): row["vector"] for row in found}

    def _line(self, row: Any, vector: list[float] | None) -> dict[str, Any]:
        memory = Memory.from_row(row)
        line = {name: _plain(getattr(memory, name)) for name in _OF_LINES}
        line = {"tenant_id": self._tenant_id, **line, "forgotten_at": _plain(row["forgotten_at"])}
        if vector is not None:
            line["vector"] = {"model": self._model, "values": vector}
        return line


def _plain(value: Any) -> Any:
    """As JSON has it."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, MemorySource):
        return {name.name: _plain(getattr(value, name.name)) for name in fields(MemorySource)}
    return [_plain(part) for part in value] if isinstance(value, tuple) else value


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """A memory of a file, checked."""

    scope: Scope
    new: NewMemory
    values: Mapping[str, Any]
    vector: tuple[str, list[float]] | None

    @property
    def key(self) -> Key:
        return self.scope.scope_id, self.values["memory_ids"]


class Import:
    """Stores the memories of a file for a tenant, or for one user of it alone."""

    def __init__(
        self,
        db: Database,
        tenant_id: str,
        user_id: str | None,
        language: str,
        embedding: Embedding | None,
    ) -> None:
        self._db = db
        self._tenant_id = tenant_id
        self._user_id = user_id
        self._language = language
        self._embedding = embedding

    async def read(self, file: TextIO) -> ImportResult:
        """Stores the lines, some at once; who is interrupted reads them again.

        Raises:
            InvalidArgumentError: a line can't be stored, or is somebody else's. Those before it
                may be stored.
            DimensionsError: a vector of this model has other dimensions.
        """
        result = ImportResult()
        lines = self._lines(file)
        while batch := list(islice(lines, _PAGE)):
            stored = await self._store(batch)
            result = replace(result, read=result.read + len(batch), stored=result.stored + stored)
        return result

    def _lines(self, file: TextIO) -> Iterator[_Line]:
        number = 0
        while text := self._text(number + 1, file):
            number += 1
            if not isinstance(text, str):
                problem = "gives bytes: open it as text"
                raise InvalidArgumentError(argument="file", problem=problem)
            if text.strip():
                yield self._line(number, text)

    def _text(self, number: int, file: TextIO) -> str:
        try:
            return file.readline(_MOST_CHARACTERS_OF_LINE)
        except UnicodeDecodeError as error:
            # What is read ahead may stand some lines further on.
            problem = f"line {number}, or one behind it, is no text in UTF-8 ({error})"
            raise InvalidArgumentError(argument="file", problem=problem) from error

    def _line(self, number: int, text: str) -> _Line:
        try:
            found = json.loads(text)
            if not isinstance(found, dict):
                raise TypeError("it is no object")
            made = self._checked(found)
        except KeyError as error:
            problem = f"it has no {error.args[0]!r}"
        except (PgSagaError, RecursionError, TypeError, ValueError) as error:
            problem = str(error) or type(error).__name__
        else:
            return made
        raise InvalidArgumentError(argument="file", problem=f"line {number}: {problem}")

    def _checked(self, found: Mapping[str, Any]) -> _Line:
        self._check_owner(found)
        new = NewMemory(
            text=found["content_text"],
            type=_text("memory_type", found["memory_type"]),
            importance=found["importance_score"],
            pinned=found["pinned"],
            expires_at=_time(found, "expires_at"),
            metadata=found["metadata"],
            context=found["context_text"],
            valid_from=_time(found, "valid_from"),
            valid_to=_time(found, "valid_to"),
            message_no=found["source_message_no"],
        )
        sources = [MemorySource.of(one) for one in _list(found["sources"])]
        values = {
            "memory_ids": checked_id("memory_id", found["memory_id"]),
            "access_counts": checked_integer("access_count", found["access_count"], least=0),
            **{name: _needed_time(found, name) for name in _TIMES},
            **{f"{name}s": checked_text(name, found[name]) for name in _TEXTS},
            "superseded_at": _time(found, "superseded_at"),
            "superseded_by": _id(found, "superseded_by"),
            "forgotten_at": _time(found, "forgotten_at"),
            "sources": _stored_sources(sources),
        }
        scope = Scope.of(self._tenant_id, found["user_id"], found["thread_id"])
        return _Line(scope=scope, new=new, values=values, vector=_vector(found.get("vector")))

    def _check_owner(self, found: Mapping[str, Any]) -> None:
        """Refuses what is of another tenant, or of another user than was named."""
        if found["tenant_id"] != self._tenant_id:
            of = shown(found["tenant_id"])
            problem = f"it is of the tenant {of}, and this memory's is {self._tenant_id!r}"
            raise InvalidArgumentError(argument="tenant_id", problem=problem)
        if self._user_id is not None and found["user_id"] != self._user_id:
            problem = f"it is of the user {shown(found['user_id'])}, not of {self._user_id!r}"
            raise InvalidArgumentError(argument="user_id", problem=problem)

    async def _store(self, lines: Sequence[_Line]) -> int:
        statement = _STATEMENTS["import_memories"].bind(
            language=self._language,
            tenant_id=self._tenant_id,
            user_ids=[one.scope.user_id for one in lines],
            session_ids=[one.scope.session_id for one in lines],
            thread_ids=[one.scope.thread_id for one in lines],
            types=[one.new.key[0] for one in lines],
            texts=[one.new.text for one in lines],
            hashes=[one.new.key[1] for one in lines],
            contexts=[one.new.context for one in lines],
            importances=[float(one.new.importance) for one in lines],
            expires_at=[one.new.expires_at for one in lines],
            pinned=[one.new.pinned for one in lines],
            metadata=[one.new.dump_metadata() for one in lines],
            source_message_nos=[one.new.message_no for one in lines],
            valid_from=[one.new.valid_from for one in lines],
            valid_to=[one.new.valid_to for one in lines],
            **{name: [one.values[name] for one in lines] for name in lines[0].values},
        )
        # A repeat stores nothing more, and would count what was stored as there.
        (row,) = await self._db.fetch(statement)
        if self._embedding is not None:
            await self._embedding.fill_these([one.key for one in lines], self._known(lines))
        stored: int = row["memories"]
        return stored

    def _known(self, lines: Sequence[_Line]) -> dict[Key, list[float]]:
        """The vectors of this model that stand in the file."""
        assert self._embedding is not None
        dims = self._embedding.embedder.dims
        known = {}
        for one in lines:
            if one.vector is None or one.vector[0] != self._embedding.model:
                continue
            if len(one.vector[1]) != dims:
                raise DimensionsError(given=len(one.vector[1]), expected=dims)
            known[one.key] = one.vector[1]
        return known


def _text(name: str, given: Any) -> str:
    if not isinstance(given, str):
        raise TypeError(f"{name} must be a str, not {shown(given)}")
    return given


def _list(given: Any) -> list[Any]:
    if not isinstance(given, list):
        raise TypeError(f"sources must be a list, not {shown(given)}")
    return given


def _time(found: Mapping[str, Any], name: str) -> datetime | None:
    value = found[name]
    if value is None:
        return None
    return checked_time(name, datetime.fromisoformat(_text(name, value)))


def _needed_time(found: Mapping[str, Any], name: str) -> datetime:
    time = _time(found, name)
    if time is None:
        raise TypeError(f"{name} must be a time, not None")
    return time


def _id(found: Mapping[str, Any], name: str) -> UUID | None:
    return None if found[name] is None else checked_id(name, found[name])


def _stored_sources(sources: Sequence[MemorySource]) -> str:
    text = _json.dump_exact([_plain(one) for one in sources])
    if text is None:
        problem = "it isn't JSON as it is: text, finite numbers, lists and dicts"
        raise UnstorableValueError(where="sources", problem=problem)
    return text


def _vector(given: Any) -> tuple[str, list[float]] | None:
    if given is None:
        return None
    values = [float(value) for value in given["values"]]
    # What half a float holds, which a vector of either type takes.
    if not values or not all(abs(value) <= 65_504 for value in values):
        raise ValueError("its vector is empty, or a number of it can't be stored")
    return _text("model", given["model"]), values
