"""Messages for sync callers, made from `langgraph_pgsaga.messages` by `make docs`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from typing import Literal, TextIO

from langchain_core.messages import BaseMessage

from langgraph_pgsaga.checkpoint import PostgresSaver
from langgraph_pgsaga.messages import MessageHit, MessagePage, MessageRow, MessageTree
from langgraph_pgsaga.messages import Messages as AsyncMessages
from langgraph_pgsaga.tenants import TenantScope
from langgraph_pgsaga.threads import ThreadId


class Messages:
    """Reads the messages that a saver stored of a tenant's threads.

    `langgraph_pgsaga.messages.Messages` for sync callers.
    """

    def __init__(self, saver: PostgresSaver, *, tenant: TenantScope = None) -> None:
        self._async = AsyncMessages(saver, tenant=tenant)
        self.saver = self._async.saver
        self.db = self._async.db

    def conversation(
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
        return self.db.portal.call(
            self._async.conversation,
            thread_id,
            checkpoint_id=checkpoint_id,
            checkpoint_ns=checkpoint_ns,
            channel=channel,
        )

    def rows(
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
        return self.db.portal.call(
            self._async.rows,
            thread_id,
            types=types,
            roles=roles,
            since=since,
            until=until,
            text=text,
            checkpoint_id=checkpoint_id,
            checkpoint_ns=checkpoint_ns,
            limit=limit,
            after=after,
        )

    def children_of(self, thread_id: ThreadId, message_no: int) -> list[MessageRow]:
        """The stored versions that were said after a message, the oldest first.

        There is more than one where what follows was edited, or the thread was forked. All
        that the thread stored later is read for it: for many of them, take `tree`.

        Raises:
            InvalidArgumentError: an argument that can't be used.
        """
        return self.db.portal.call(self._async.children_of, thread_id, message_no)

    def search(
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
        return self.db.portal.call(
            self._async.search, text, user_id=user_id, thread_id=thread_id, order=order, limit=limit
        )

    def tree(self, thread_id: ThreadId) -> MessageTree:
        """All of a thread's stored versions by what they followed: edits and forks branch.

        A message keeps the parent it was stored after, so what was said before an edit
        stays below the older version.

        Raises:
            MissingThreadError: it isn't there.
        """
        return self.db.portal.call(self._async.tree, thread_id)

    def export(
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
        return self.db.portal.call(
            self._async.export,
            file,
            thread_id=thread_id,
            types=types,
            roles=roles,
            since=since,
            until=until,
            text=text,
            checkpoint_id=checkpoint_id,
            checkpoint_ns=checkpoint_ns,
            full=full,
        )
