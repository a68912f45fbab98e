"""The systems for sync callers: the same methods, each waiting for its result."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime
from typing import Literal, TextIO
from uuid import UUID

from langchain_core.messages import BaseMessage

from langgraph_pgsaga import messages
from langgraph_pgsaga.checkpoint import PostgresSaver
from langgraph_pgsaga.messages import MessageHit, MessagePage, MessageTree


class Messages:
    """`messages.Messages` for sync callers."""

    def __init__(self, saver: PostgresSaver) -> None:
        self.saver = saver
        self._messages = messages.Messages(saver)

    def conversation(
        self,
        thread_id: str | int | UUID,
        *,
        checkpoint_id: str | None = None,
        checkpoint_ns: str = "",
        channel: str = "messages",
    ) -> list[BaseMessage]:
        """As `messages.Messages.conversation`."""
        return self.saver.db.portal.call(
            self._messages.conversation,
            thread_id,
            checkpoint_id=checkpoint_id,
            checkpoint_ns=checkpoint_ns,
            channel=channel,
        )

    def rows(
        self,
        thread_id: str | int | UUID | None = None,
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
        """As `messages.Messages.rows`."""
        return self.saver.db.portal.call(
            self._messages.rows,
            thread_id,
            types=types,
            roles=roles,
            since=since,
            until=until,
            text=text,
            branch=branch,
            checkpoint_ns=checkpoint_ns,
            limit=limit,
            after=after,
        )

    def search(
        self,
        text: str,
        *,
        user_id: str | None = None,
        thread_id: str | int | UUID | None = None,
        order: Literal["best", "newest"] = "best",
        limit: int = 20,
    ) -> list[MessageHit]:
        """As `messages.Messages.search`."""
        return self.saver.db.portal.call(
            self._messages.search,
            text,
            user_id=user_id,
            thread_id=thread_id,
            order=order,
            limit=limit,
        )

    def tree(self, thread_id: str | int | UUID) -> MessageTree:
        """As `messages.Messages.tree`."""
        return self.saver.db.portal.call(self._messages.tree, thread_id)

    def export(
        self,
        file: str | os.PathLike[str] | TextIO,
        *,
        thread_id: str | int | UUID | None = None,
        types: Sequence[str] | None = None,
        roles: Sequence[str] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        text: str | None = None,
        branch: str | None = None,
        checkpoint_ns: str = "",
        full: bool = False,
    ) -> int:
        """As `messages.Messages.export`; a file object is written to on another thread."""
        return self.saver.db.portal.call(
            self._messages.export,
            file,
            thread_id=thread_id,
            types=types,
            roles=roles,
            since=since,
            until=until,
            text=text,
            branch=branch,
            checkpoint_ns=checkpoint_ns,
            full=full,
        )
