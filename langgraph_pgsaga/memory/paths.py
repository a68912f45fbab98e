"""Files in the store: the range of keys that a directory or a pattern is, and what is in it."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import asyncpg
from langgraph.store.base import GetOp

from langgraph_pgsaga._arguments import required_text
from langgraph_pgsaga.database import BoundStatement, load_statements
from langgraph_pgsaga.memory.namespaces import check_namespaces, stored_namespace
from langgraph_pgsaga.memory.store import MemoryStore

_STATEMENTS = load_statements("files")
# What of a pattern means itself.
_PLAIN = re.compile(r"[\w.-]+")
_PLAIN_END = re.compile(r"[\w.-]*$")


class Root(NamedTuple):
    """Where files are looked for: at a path, and where there is none in it."""

    path: str

    @classmethod
    def of(cls, path: str | None) -> Root | None:
        """The root of a path as tools give it; None where it is blank, and names nothing."""
        path = path or "/"
        if not path.strip():
            return None
        absolute = path if path.startswith("/") else f"/{path}"
        return cls(required_text("path", absolute.rstrip("/") or "/"))

    @property
    def directory(self) -> str:
        """What the paths in it begin with."""
        return self.path if self.path == "/" else f"{self.path}/"

    def relative(self, path: str) -> str:
        """The path of one of its files as patterns see it."""
        if path == self.path:
            return path.rpartition("/")[2]
        return path[len(self.directory) :]


class Narrowed(NamedTuple):
    """What the paths begin and end with that a pattern may fit; what it doesn't fit may do, too."""

    after: str
    suffix: str

    @classmethod
    def of(cls, root: Root, pattern: str | None) -> Narrowed:
        """Those of a pattern below a root; None is all."""
        after = root.directory
        if pattern is None:
            return cls(after, "")
        *parents, name = pattern.lstrip("/").split("/")
        for parent in parents:
            if not _PLAIN.fullmatch(parent) or parent == ".":
                break
            after += f"{parent}/"
        end = _PLAIN_END.search(name)
        # Patterns see no '/' and '/.' at the end of a path.
        return cls(after, end[0].rstrip(".") if end else "")

    def values(self) -> dict[str, str]:
        """Those of a statement's parameters."""
        return {"after": self.after, "before": behind(self.after), "suffix": self.suffix}


def behind(directory: str) -> str:
    """The first text behind all that begins with a directory's path, which ends with '/'."""
    return f"{directory[:-1]}0"


class Files:
    """The files of a namespace; each method is one statement.

    Raises:
        InvalidNamespaceError: LangGraph's: there can't be such a namespace.
        InvalidArgumentError: a path or pattern that PostgreSQL can't hold.
    """

    def __init__(self, store: MemoryStore, namespace: tuple[str, ...]) -> None:
        check_namespaces(GetOp(namespace, "/"))
        self.store = store
        self.namespace = namespace
        self._place = {"tenant_id": store.tenant_id, "namespace": stored_namespace(namespace)}

    async def entries(self, directory: str) -> list[asyncpg.Record]:
        """What is in a directory, whose path ends with '/', but not in another in it."""
        required_text("path", directory)
        return await self.store.db.fetch(
            self._bound("list_directory", directory=directory, before=behind(directory))
        )

    async def found(self, root: Root, pattern: str) -> list[asyncpg.Record]:
        """The files that may fit a pattern, newest first."""
        narrowed = Narrowed.of(root, pattern).values()
        return await self.store.db.fetch(self._bound("find_files", path=root.path, **narrowed))

    async def lines(
        self, root: Root, text: str, pattern: str | None, most: int | None
    ) -> list[asyncpg.Record]:
        """The lines that a text is in, of files that may fit a pattern; at most so many."""
        if "\0" in text:
            return []
        narrowed = Narrowed.of(root, pattern).values()
        return await self.store.db.fetch(
            self._bound("find_lines", path=root.path, pattern=text, limit_count=most, **narrowed)
        )

    async def delete(self, path: str) -> int:
        """Deletes what is at a path and in it, and returns how many files that were."""
        base = path.rstrip("/")
        required_text("path", f"{base}/")
        rows = await self.store.db.fetch(
            self._bound("delete_files", path=base, after=f"{base}/", before=behind(f"{base}/"))
        )
        return len(rows)

    def _bound(self, name: str, **values: Any) -> BoundStatement:
        return _STATEMENTS[name].bind(**self._place, **values)
