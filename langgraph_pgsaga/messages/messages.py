"""The messages that a saver stored, for reading."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any, Literal, TextIO
from uuid import UUID

import asyncpg
from langchain_core.load import dumpd
from langchain_core.messages import BaseMessage
from langgraph.checkpoint.base import CheckpointTuple

from langgraph_pgsaga._arguments import (
    checked_choice,
    checked_instance,
    checked_integer,
    checked_text,
    required_text,
)
from langgraph_pgsaga._files import json_line, written_file
from langgraph_pgsaga._langgraph import DeltaSnapshot
from langgraph_pgsaga.checkpoint import PostgresSaver
from langgraph_pgsaga.database import LONG, Connection, Limits, load_statements
from langgraph_pgsaga.errors import (
    InvalidArgumentError,
    MissingCheckpointError,
    MissingThreadError,
    UnloadableValueError,
)
from langgraph_pgsaga.messages.query import Query, address_of, check_limit, place_of, searched
from langgraph_pgsaga.messages.row import MessageHit, MessagePage, MessageRow
from langgraph_pgsaga.messages.tree import MessageTree
from langgraph_pgsaga.tenants import TenantScope, single_tenant, stored_scope
from langgraph_pgsaga.threads import Address, ThreadId, checkpoint_config

_STATEMENTS = load_statements("messages")
_PAGE = 1000
_EXPORT_PAGE = 500


class Messages:
    """Reads the messages that a saver stored of a tenant's threads.

    It takes the saver since payloads may be encrypted, and are loaded by its rules.

    Args:
        saver: the one that stored them.
        tenant: whose messages they are; None is the Database's. With ALL `rows`, `search` and
            `export` go over everybody's, and what takes a thread id is refused.

    Raises:
        MissingTenantError: no tenant is given, and one is needed.
    """

    def __init__(self, saver: PostgresSaver, *, tenant: TenantScope = None) -> None:
        hint = "Pass the saver that stored them; of a ReadThroughSaver, its new"
        self.saver = checked_instance("saver", saver, PostgresSaver, hint)
        self.db = saver.db
        self._scope = self.saver.tenants.of_listing(tenant)

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
            MissingThreadError, MissingCheckpointError: it isn't there.
            InvalidArgumentError: the channel holds something else than messages, or is a
                delta channel, whose value only its graph can make.
            UnloadableValueError: as the saver.
        """
        required_text("channel", channel)
        config = checkpoint_config(
            thread_id,
            checkpoint_ns,
            "" if checkpoint_id is None else checkpoint_id,
            single_tenant(self._scope),
        )
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
        checkpoint_id: str | None = None,
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
            checkpoint_id: of the thread; only messages that its state holds.
            checkpoint_ns: the namespace of the checkpoint.
            limit: 1 to 1000.
            after: the next_cursor of a page with the same filters.

        Raises:
            MissingCheckpointError, MissingThreadError: `checkpoint_id` isn't there.
            InvalidArgumentError: an argument that can't be used.
        """
        check_limit(limit)
        query = self._query(
            thread_id, types, roles, since, until, text, checkpoint_id, checkpoint_ns
        )
        place = None if after is None else query.place(after)
        # One more shows whether there are more.
        found = await self._fetch(query, place, limit + 1)
        kept = found[:limit]
        return MessagePage(
            rows=[MessageRow.from_row(row) for row in kept],
            next_cursor=query.cursor(place_of(kept[-1])) if len(found) > limit else None,
        )

    async def children_of(self, thread_id: ThreadId, message_no: int) -> list[MessageRow]:
        """The stored versions that were said after a message, the oldest first.

        There is more than one where what follows was edited, or the thread was forked. All
        that the thread stored later is read for it: for many of them, take `tree`.

        Raises:
            InvalidArgumentError: an argument that can't be used.
        """
        number = checked_integer("message_no", message_no, least=1)
        session_id = address_of(self._scope, thread_id).session_id
        listing = _STATEMENTS["list_children"].bind(session_id=session_id, message_no=number)
        rows = await self.db.fetch(listing)
        return [MessageRow.from_row(row) for row in rows]

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
        check_limit(limit)
        checked_choice("order", order, ("best", "newest"))
        checked_text("user_id", user_id)
        asked = {
            "text": searched(text),
            "best_first": order == "best",
            "user_id": user_id,
            "page": limit,
        }
        if thread_id is None:
            tenant_id = stored_scope(self._scope)
            search = _STATEMENTS["search_messages"].bind(**asked, tenant_id=tenant_id)
        else:
            session_id = address_of(self._scope, thread_id).session_id
            search = _STATEMENTS["search_thread"].bind(**asked, session_id=session_id)
        rows = await self.db.fetch(search)
        return [MessageHit.from_row(row) for row in rows]

    async def tree(self, thread_id: ThreadId) -> MessageTree:
        """All of a thread's stored versions by what they followed: edits and forks branch.

        A message keeps the parent it was stored after, so what was said before an edit
        stays below the older version.

        Raises:
            MissingThreadError: it isn't there.
        """
        query, address = self._query(thread_id), address_of(self._scope, thread_id)

        async def work(conn: Connection) -> list[asyncpg.Record]:
            rows = [row async for row in self._stream(query, _PAGE, conn=conn)]
            if not rows and not await self._is_there(address, conn):
                raise MissingThreadError(thread_id=address.thread_id)
            return rows

        rows = await self.db.snapshot(work, limits=LONG)
        return MessageTree.of(address.thread_id, [MessageRow.from_row(row) for row in rows])

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
        checkpoint_id: str | None = None,
        checkpoint_ns: str = "",
        full: bool = False,
    ) -> int:
        """Writes what `rows` would give as JSON Lines, and returns how many.

        A path is replaced as a whole once everything is written (by a file that only its
        owner reads), or left alone where something fails. A text file object is written
        to as the pages come, and not closed. Rows stored or deleted meanwhile may or may not
        be in it.

        Args:
            full: with LangChain's own form of each message under "message", decrypted. Its
                load makes an equal message of one of LangChain's classes that holds what
                JSON holds; objects (in an artifact, say) are there as their repr only.

        Raises:
            As `rows`, also where `checkpoint_id` is deleted meanwhile; with `full` also
                UnloadableValueError.
        """
        query = self._query(
            thread_id, types, roles, since, until, text, checkpoint_id, checkpoint_ns
        )
        with written_file(file) as opened:
            return await self._export(query, opened, full=full)

    def _query(self, *asked: Any) -> Query:
        return Query.of(self._scope, *asked)

    async def _export(self, query: Query, file: TextIO, *, full: bool) -> int:
        count = 0
        async for row in self._stream(query, _EXPORT_PAGE, with_payload=full, limits=LONG):
            line: dict[str, Any] = _exported(MessageRow.from_row(row))
            if full:
                line["message"] = self._dumped(row)
            file.write(json_line(line))
            count += 1
        return count

    def _dumped(self, row: asyncpg.Record) -> Any:
        try:
            stored = self.saver.codec.of_row(row["payload_type"], row["payload"])
            return dumpd(self.saver.codec.fresh(stored))
        except UnloadableValueError as error:
            error.at(thread_id=row["thread_id"], path=f"message {row['message_no']}")
            raise

    async def _stream(
        self,
        query: Query,
        page: int,
        *,
        with_payload: bool = False,
        conn: Connection | None = None,
        limits: Limits | None = None,
    ) -> AsyncIterator[asyncpg.Record]:
        place: tuple[UUID, int] | None = None
        while True:
            found = await self._fetch(
                query, place, page, with_payload=with_payload, conn=conn, limits=limits
            )
            for row in found:
                yield row
            if len(found) < page:
                return
            place = place_of(found[-1])

    async def _fetch(
        self,
        query: Query,
        place: tuple[UUID, int] | None,
        limit: int,
        *,
        with_payload: bool = False,
        conn: Connection | None = None,
        limits: Limits | None = None,
    ) -> list[asyncpg.Record]:
        name, asked = query.statement(place)
        listing = _STATEMENTS[name].bind(**asked, page=limit, with_payload=with_payload)
        checkpoint = query.checkpoint
        if checkpoint is None and limits is None:
            return await self.db.fetch(listing, conn=conn)

        async def work(conn: Connection) -> list[asyncpg.Record]:
            rows = await self.db.fetch(listing, conn=conn)
            if checkpoint is not None and len(rows) < limit:
                # It ends here, or else it is gone.
                await self._check_is_there(checkpoint, conn)
            return rows

        return await self.db.snapshot(work, limits=limits)

    async def _check_is_there(self, address: Address, conn: Connection) -> None:
        look = _STATEMENTS["exists_checkpoint"].bind(
            session_id=address.session_id,
            checkpoint_ns=address.stored_ns,
            checkpoint_id=address.checkpoint_id,
        )
        (row,) = await self.db.fetch(look, conn=conn)
        if not row["is_there"]:
            raise await self._missing(address, conn)

    async def _missing(
        self, address: Address, conn: Connection | None = None
    ) -> MissingThreadError | MissingCheckpointError:
        if not await self._is_there(address, conn):
            return MissingThreadError(thread_id=address.thread_id)
        return MissingCheckpointError(thread_id=address.thread_id)

    async def _is_there(self, address: Address, conn: Connection | None = None) -> bool:
        look = _STATEMENTS["exists_thread"].bind(session_id=address.session_id)
        (row,) = await self.db.fetch(look, conn=conn)
        return bool(row["is_there"])


def _messages_of(found: CheckpointTuple, channel: str) -> list[BaseMessage]:
    values = found.checkpoint["channel_values"]
    if channel not in values:
        counters: Any = found.metadata.get("counters_since_delta_snapshot")
        if isinstance(counters, dict) and channel in counters:
            problem = f"{channel!r} is a delta channel; only its graph (aget_state) can make it"
            raise InvalidArgumentError(argument="channel", problem=problem)
        return []
    value = values[channel]
    if type(value) is DeltaSnapshot:
        value = value.value
    if not isinstance(value, list) or not all(isinstance(m, BaseMessage) for m in value):
        problem = f"{channel!r} holds something else than a list of messages"
        raise InvalidArgumentError(argument="channel", problem=problem)
    return value


def _exported(row: MessageRow) -> dict[str, Any]:
    return {
        "thread_id": row.thread_id,
        "tenant_id": row.tenant_id,
        "message_no": row.message_no,
        "message_id": row.message_id,
        "parent_message_no": row.parent_message_no,
        "type": row.message_type,
        "role": row.role,
        "content": row.content,
        "metadata": row.metadata,
        "created_at": row.created_at.isoformat(),
    }
