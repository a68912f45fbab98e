"""Reading conversations: as LangChain messages, as rows, by search, as a tree, as a file.

Everything here reads; nothing writes or locks. Rows are *stored versions* of messages: an
edit adds a version, and one that was edited away or removed is still there for as long as
an older checkpoint holds it. What a thread says now is `conversation()`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TextIO
from uuid import UUID

import asyncpg
from langchain_core.load import dumpd
from langchain_core.messages import BaseMessage
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.serde.types import _DeltaSnapshot

from langgraph_pgsaga import _json, _sql
from langgraph_pgsaga.checkpoint import PostgresSaver
from langgraph_pgsaga.checkpoint.address import Address, ThreadId, checkpoint_config
from langgraph_pgsaga.errors import (
    CheckpointNotFoundError,
    InvalidArgumentError,
    MissingThreadError,
)

_STATEMENTS = _sql.load("messages")
_LARGEST_LIMIT = 1000
_LARGEST_NUMBER = 2**31 - 1
_LONGEST_SEARCH = 2000
_EXPORT_PAGE = 500

# Around what a search found, in a snippet. No snippet has them anywhere else, and escaping
# for HTML leaves them alone: escape the snippet first, then replace them by tags.
MATCH_START = "\x02"
MATCH_END = "\x03"


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageRow:
    """A stored version of a message, as SQL users see it.

    `message_no` counts the thread's stored versions. `parent_message_no` is the message
    before it in its list when it was stored. `content` is text for reading, cut after a
    million characters, and empty (as are message_id, role and metadata) where the saver
    encrypts.
    """

    thread_id: str
    message_no: int
    message_id: str | None
    parent_message_no: int | None
    message_type: str
    role: str
    content: str
    metadata: dict[str, Any]
    created_at: datetime

    @classmethod
    def from_row(cls, row: asyncpg.Record) -> MessageRow:
        return cls(
            thread_id=row["thread_id"],
            message_no=row["message_no"],
            message_id=row["message_id"],
            parent_message_no=row["parent_message_no"],
            message_type=row["message_type"],
            role=row["role"],
            content=row["content"],
            metadata=_json.load(row["metadata"]),
            created_at=row["created_at"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MessagePage:
    """Rows, and the cursor of those that follow; None where there are no more."""

    rows: list[MessageRow]
    next_cursor: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageHit:
    """What a search found.

    `rank` is PostgreSQL's ts_rank. `snippet` is an unescaped part of the content, with
    MATCH_START and MATCH_END around each word that was found.
    """

    message: MessageRow
    user_id: str
    rank: float
    snippet: str

    @classmethod
    def from_row(cls, row: asyncpg.Record) -> MessageHit:
        return cls(
            message=MessageRow.from_row(row),
            user_id=row["user_id"],
            rank=row["rank"],
            snippet=row["snippet"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageNode:
    """A message in its tree; `children` are the numbers of those that follow it, oldest first."""

    row: MessageRow
    depth: int
    children: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageTree:
    """A thread's stored messages, each below the one it followed when it was stored.

    `nodes` are by message number, in its order; flat, since a conversation may be thousands
    deep. A message whose parent was pruned is a root.
    """

    thread_id: str
    nodes: Mapping[int, MessageNode]
    roots: tuple[int, ...]

    @classmethod
    def of(cls, thread_id: str, rows: Sequence[MessageRow]) -> MessageTree:
        """The tree of a thread's rows, which are in the order of their numbers."""
        children: dict[int, list[int]] = {row.message_no: [] for row in rows}
        depths: dict[int, int] = {}
        roots: list[int] = []
        for row in rows:
            number, parent = row.message_no, row.parent_message_no
            # A parent was numbered before; what isn't (yet) here is no parent.
            if parent is None or parent not in depths:
                roots.append(number)
                depths[number] = 0
            else:
                children[parent].append(number)
                depths[number] = depths[parent] + 1
        nodes = {
            row.message_no: MessageNode(
                row=row,
                depth=depths[row.message_no],
                children=tuple(children[row.message_no]),
            )
            for row in rows
        }
        return cls(thread_id=thread_id, nodes=nodes, roots=tuple(roots))

    @property
    def leaves(self) -> list[MessageNode]:
        """The messages that nothing follows: the ends of the branches, oldest first."""
        return [node for node in self.nodes.values() if not node.children]

    def path(self, message_no: int) -> list[MessageNode]:
        """The branch that ends with the message, from its root on; KeyError where it isn't."""
        node: MessageNode | None = self.nodes[message_no]
        found: list[MessageNode] = []
        while node is not None:
            found.append(node)
            parent = node.row.parent_message_no
            node = self.nodes[parent] if parent is not None and node.depth else None
        return found[::-1]

    def walk(self) -> Iterator[MessageNode]:
        """Every node, parents first, one branch after the other."""
        waiting = list(reversed(self.roots))
        while waiting:
            node = self.nodes[waiting.pop()]
            yield node
            waiting.extend(reversed(node.children))


class Messages:
    """Reads the messages that a saver stored.

    It takes the saver since payloads may be encrypted, and are loaded by its rules.
    """

    def __init__(self, saver: PostgresSaver) -> None:
        self.saver = saver
        self._db = saver.db

    async def conversation(
        self,
        thread_id: ThreadId,
        *,
        checkpoint_id: str | None = None,
        checkpoint_ns: str = "",
        channel: str = "messages",
    ) -> list[BaseMessage]:
        """The messages of a state, in order, as the saver reads them.

        The state is the namespace's latest, or the one that `checkpoint_id` names, of
        whatever branch. A channel without a value is an empty conversation.

        Raises:
            MissingThreadError, CheckpointNotFoundError: it isn't there.
            InvalidArgumentError: the channel holds something else than messages, or is a
                delta channel, whose value only its graph can make.
            BlockedTypeError, MissingTypeError, CorruptValueError: as the saver.
        """
        config = checkpoint_config(thread_id, checkpoint_ns, checkpoint_id or "")
        found = await self.saver.aget_tuple(config)
        if found is None:
            raise await self._missing(Address.of(config))
        return _messages_of(found, channel)

    async def rows(
        self,
        thread_id: ThreadId | None = None,
        *,
        types: Sequence[str] | None = None,
        roles: Sequence[str] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        text: str | None = None,
        branch: str | None = None,
        checkpoint_ns: str = "",
        limit: int = 100,
        after: str | None = None,
    ) -> MessagePage:
        """A page of stored versions, in the order of storing within each thread.

        Threads are one after the other, in an order of their own. No connection is held
        between pages; what is stored meanwhile in a thread comes after its cursor.

        Args:
            types: LangChain's (human, ai, tool, ...), any of them.
            roles: user, assistant, system, tool, or a ChatMessage's own, any of them.
            since, until: the time of storing, from `since` on and before `until`; aware.
            text: words that must all occur, as web searches have it: "a phrase", or, -not.
                They are looked for in the first 50,000 characters, whatever their case.
            branch: a checkpoint id of the thread; only messages that its state holds.
            checkpoint_ns: the namespace of `branch`.
            limit: 1 to 1000.
            after: the next_cursor of a page with the same filters.

        Raises:
            CheckpointNotFoundError, MissingThreadError: `branch` isn't there.
            InvalidArgumentError: an argument that can't be used.
        """
        _check_limit(limit)
        query = _Query.of(thread_id, types, roles, since, until, text, branch, checkpoint_ns)
        place = None if after is None else query.place(after)
        # One more shows whether there are more.
        found = await self._fetch(query, place, limit + 1)
        kept = found[:limit]
        return MessagePage(
            rows=[MessageRow.from_row(row) for row in kept],
            next_cursor=query.cursor(_place_of(kept[-1])) if len(found) > limit else None,
        )

    async def search(
        self,
        text: str,
        *,
        user_id: str | None = None,
        thread_id: ThreadId | None = None,
        order: Literal["best", "newest"] = "best",
        limit: int = 20,
    ) -> list[MessageHit]:
        """The stored versions that `text` (as in `rows`) finds, with rank and snippet.

        Text without a word finds nothing. The best first ranks every hit, which for a
        word that most messages hold is a while; the newest first doesn't.

        Args:
            user_id: only threads of this user.
            thread_id: only this thread.
            limit: 1 to 1000.

        Raises:
            InvalidArgumentError: an argument that can't be used.
        """
        _check_limit(limit)
        if order not in ("best", "newest"):
            raise InvalidArgumentError(argument="order", problem="must be 'best' or 'newest'")
        if user_id is not None and not _json.is_clean(user_id):
            return []  # no stored user can have it
        arguments = [_searched(text), order == "best", user_id, limit]
        if thread_id is None:
            rows = await self._db.fetch(_STATEMENTS["search_messages"], *arguments)
        else:
            session_id = _address(thread_id).session_id
            rows = await self._db.fetch(_STATEMENTS["search_thread"], *arguments, session_id)
        return [MessageHit.from_row(row) for row in rows]

    async def tree(self, thread_id: ThreadId) -> MessageTree:
        """All of a thread's stored versions by what they followed: edits and forks branch.

        A message keeps the parent it was stored after, so what was said before an edit
        stays below the older version.

        Raises:
            MissingThreadError: it isn't there.
        """
        query = _Query.of(thread_id)
        rows = [MessageRow.from_row(row) async for row in self._stream(query, _LARGEST_LIMIT)]
        address = _address(thread_id)
        if not rows and not await self._is_there(address):
            raise MissingThreadError(thread_id=address.thread_id)
        return MessageTree.of(address.thread_id, rows)

    async def export(
        self,
        file: str | os.PathLike[str] | TextIO,
        *,
        thread_id: ThreadId | None = None,
        types: Sequence[str] | None = None,
        roles: Sequence[str] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        text: str | None = None,
        branch: str | None = None,
        checkpoint_ns: str = "",
        full: bool = False,
    ) -> int:
        """Writes what `rows` would give as JSON Lines, and returns how many.

        A path is replaced as a whole once everything is written (by a file that only its
        owner reads), or left alone where something fails. A text file object is written
        to as the pages come, and not closed. Rows stored meanwhile may or may not be in it.

        Args:
            full: with LangChain's own form of each message under "message", which
                langchain_core.load.load takes; encrypted ones are decrypted for it.

        Raises:
            As `rows`; with `full` also BlockedTypeError, MissingTypeError, CorruptValueError.
        """
        query = _Query.of(thread_id, types, roles, since, until, text, branch, checkpoint_ns)
        if isinstance(file, str | os.PathLike):
            with _replacing(Path(file)) as opened:
                return await self._export(query, opened, full=full)
        return await self._export(query, file, full=full)

    async def _export(self, query: _Query, file: TextIO, *, full: bool) -> int:
        count = 0
        async for row in self._stream(query, _EXPORT_PAGE, with_payload=full):
            line: dict[str, Any] = _exported(MessageRow.from_row(row))
            if full:
                stored = self.saver._codec.of_row(row["payload_type"], row["payload"])
                line["message"] = dumpd(self.saver._codec.fresh(stored))
            file.write(_line(line))
            count += 1
        return count

    async def _stream(
        self, query: _Query, page: int, *, with_payload: bool = False
    ) -> AsyncIterator[asyncpg.Record]:
        place: tuple[UUID, int] | None = None
        while True:
            found = await self._fetch(query, place, page, with_payload=with_payload)
            for row in found:
                yield row
            if len(found) < page:
                return
            place = _place_of(found[-1])

    async def _fetch(
        self,
        query: _Query,
        place: tuple[UUID, int] | None,
        limit: int,
        *,
        with_payload: bool = False,
    ) -> list[asyncpg.Record]:
        name, arguments = query.statement(place)
        rows = await self._db.fetch(_STATEMENTS[name], *arguments, limit, with_payload)
        if not rows and place is None and query.branch is not None:
            await self._check_branch(query.branch)
        return rows

    async def _check_branch(self, branch: Address) -> None:
        arguments = branch.session_id, branch.stored_ns, branch.checkpoint_id
        (row,) = await self._db.fetch(_STATEMENTS["exists_checkpoint"], *arguments)
        if not row["is_there"]:
            raise await self._missing(branch)

    async def _missing(self, address: Address) -> MissingThreadError | CheckpointNotFoundError:
        if not await self._is_there(address):
            return MissingThreadError(thread_id=address.thread_id)
        return CheckpointNotFoundError(thread_id=address.thread_id)

    async def _is_there(self, address: Address) -> bool:
        (row,) = await self._db.fetch(_STATEMENTS["exists_thread"], address.session_id)
        return bool(row["is_there"])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Query:
    """What a listing asks for, checked. `branch` names a checkpoint."""

    session_id: UUID | None
    types: list[str] | None
    roles: list[str] | None
    since: datetime | None
    until: datetime | None
    text: str | None
    branch: Address | None

    @classmethod
    def of(
        cls,
        thread_id: ThreadId | None,
        types: Sequence[str] | None = None,
        roles: Sequence[str] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        text: str | None = None,
        branch: str | None = None,
        checkpoint_ns: str = "",
    ) -> _Query:
        if branch is not None and thread_id is None:
            raise InvalidArgumentError(argument="branch", problem="needs the thread_id it is of")
        if branch == "":
            raise InvalidArgumentError(argument="branch", problem="must name a checkpoint")
        return cls(
            session_id=None if thread_id is None else _address(thread_id).session_id,
            types=_names("types", types),
            roles=_names("roles", roles),
            since=_aware("since", since),
            until=_aware("until", until),
            text=None if text is None else _searched(text),
            branch=None if branch is None else _address(thread_id, checkpoint_ns, branch),
        )

    def statement(self, place: tuple[UUID, int] | None) -> tuple[str, list[Any]]:
        """The listing that fits, and its arguments but the page's size and payloads."""
        session, number = place or (None, None)
        filters = [self.types, self.roles, self.since, self.until]
        if self.branch is not None:
            at = [self.session_id, self.branch.stored_ns, self.branch.checkpoint_id]
            return "list_checkpoint_messages", [*at, *filters, self.text, number]
        if self.session_id is not None:
            return "list_thread_messages", [self.session_id, *filters, self.text, number]
        if self.text is not None:
            return "list_matching_messages", [*filters, self.text, session, number]
        return "list_all_messages", [*filters, session, number]

    def cursor(self, place: tuple[UUID, int]) -> str:
        """The place as opaque text that is good for these filters only."""
        session_id, number = place
        content = self._digest() + session_id.bytes + number.to_bytes(4, "big")
        return base64.urlsafe_b64encode(content).decode()

    def place(self, cursor: str) -> tuple[UUID, int]:
        """The inverse; InvalidArgumentError where the cursor is of no such listing."""
        try:
            content = base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True)
        except (ValueError, AttributeError):
            content = b""
        number = int.from_bytes(content[24:], "big")
        if len(content) != 28 or content[:8] != self._digest() or number > _LARGEST_NUMBER:
            problem = "isn't the next_cursor of a page with these filters"
            raise InvalidArgumentError(argument="after", problem=problem)
        return UUID(bytes=content[8:24]), number

    def _digest(self) -> bytes:
        times = [time and time.timestamp() for time in (self.since, self.until)]
        branch = self.branch and (self.branch.stored_ns, self.branch.checkpoint_id)
        asked = repr([self.session_id, self.types, self.roles, times, self.text, branch])
        return hashlib.blake2b(asked.encode(), digest_size=8).digest()


def _address(thread_id: Any, checkpoint_ns: str = "", checkpoint_id: str = "") -> Address:
    return Address.of(checkpoint_config(thread_id, checkpoint_ns, checkpoint_id))


def _place_of(row: asyncpg.Record) -> tuple[UUID, int]:
    return row["session_id"], row["message_no"]


def _check_limit(limit: int) -> None:
    if not 1 <= limit <= _LARGEST_LIMIT:
        raise InvalidArgumentError(argument="limit", problem=f"must be 1 to {_LARGEST_LIMIT}")


def _names(argument: str, names: Sequence[str] | None) -> list[str] | None:
    if names is None:
        return None
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise InvalidArgumentError(argument=argument, problem="must be a sequence of str")
    return [_json.clean_text(name) for name in names]


def _aware(argument: str, time: datetime | None) -> datetime | None:
    if time is not None and time.utcoffset() is None:
        problem = f"{time.isoformat()} has no time zone; pass an aware datetime"
        raise InvalidArgumentError(argument=argument, problem=problem)
    return time


def _searched(text: str) -> str:
    """The text as the stored content has it: without what PostgreSQL can't hold."""
    if not isinstance(text, str):
        problem = f"must be a str, not {type(text).__name__}"
        raise InvalidArgumentError(argument="text", problem=problem)
    if len(text) > _LONGEST_SEARCH:
        problem = f"has {len(text):,} characters; a search takes {_LONGEST_SEARCH:,} at most"
        raise InvalidArgumentError(argument="text", problem=problem)
    return _json.clean_text(text)


def _messages_of(found: CheckpointTuple, channel: str) -> list[BaseMessage]:
    values = found.checkpoint["channel_values"]
    if channel not in values:
        counters: Any = found.metadata.get("counters_since_delta_snapshot")
        if isinstance(counters, dict) and channel in counters:
            problem = f"{channel!r} is a delta channel; only its graph (aget_state) can make it"
            raise InvalidArgumentError(argument="channel", problem=problem)
        return []
    value = values[channel]
    if isinstance(value, _DeltaSnapshot):
        value = value.value
    if not isinstance(value, list) or not all(isinstance(m, BaseMessage) for m in value):
        problem = f"{channel!r} holds something else than a list of messages"
        raise InvalidArgumentError(argument="channel", problem=problem)
    return value


def _exported(row: MessageRow) -> dict[str, Any]:
    return {
        "thread_id": row.thread_id,
        "message_no": row.message_no,
        "message_id": row.message_id,
        "parent_message_no": row.parent_message_no,
        "type": row.message_type,
        "role": row.role,
        "content": row.content,
        "metadata": row.metadata,
        "created_at": row.created_at.isoformat(),
    }


def _line(value: dict[str, Any]) -> str:
    text = json.dumps(value, ensure_ascii=False)
    # A lone surrogate can't be written as UTF-8, but as an escape.
    return f"{text if _json.is_clean(text) else json.dumps(value)}\n"


@contextmanager
def _replacing(path: Path) -> Iterator[TextIO]:
    """A new file beside `path` that takes its place when the block ends, if it ends well."""
    number, name = tempfile.mkstemp(prefix=f".{path.name[:100]}.", dir=path.parent)
    try:
        with os.fdopen(number, "w", encoding="utf-8", newline="\n") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
