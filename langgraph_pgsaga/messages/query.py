"""What a listing of messages asks for, checked, and the places in it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from langgraph_pgsaga import _json
from langgraph_pgsaga._arguments import (
    checked_integer,
    checked_items,
    checked_text,
    checked_time,
    required_text,
)
from langgraph_pgsaga._cursor import cursor_of, place_of_cursor
from langgraph_pgsaga.errors import InvalidArgumentError, InvalidCursorError
from langgraph_pgsaga.tenants import AllTenants, single_tenant, stored_scope
from langgraph_pgsaga.threads import Address, ThreadId, checkpoint_config

_LARGEST_LIMIT = 1000
_LONGEST_SEARCH = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What a listing asks for, checked. `checkpoint` is the state whose messages are meant.

    `scope` is whose threads it goes over.
    """

    scope: str | AllTenants
    session_id: UUID | None
    types: list[str] | None
    roles: list[str] | None
    since: datetime | None
    until: datetime | None
    text: str | None
    checkpoint: Address | None

    @classmethod
    def of(
        cls,
        scope: str | AllTenants,
        thread_id: ThreadId | None,
        types: Sequence[str] | None = None,
        roles: Sequence[str] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        text: str | None = None,
        checkpoint_id: str | None = None,
        checkpoint_ns: str = "",
    ) -> Query:
        """The query of these arguments, or InvalidArgumentError."""
        argument = "checkpoint_id"
        if checkpoint_id is not None and thread_id is None:
            raise InvalidArgumentError(argument=argument, problem="needs the thread_id it is of")
        if checked_text(argument, checkpoint_id) == "":
            raise InvalidArgumentError(argument=argument, problem="must name a checkpoint")
        at, session_id = None, None
        if checkpoint_id is not None:
            at = address_of(scope, thread_id, checkpoint_ns, checkpoint_id)
        if thread_id is not None:
            session_id = address_of(scope, thread_id).session_id
        return cls(
            scope=scope,
            session_id=session_id,
            types=_names("types", types),
            roles=_names("roles", roles),
            since=checked_time("since", since),
            until=checked_time("until", until),
            text=None if text is None else searched(text),
            checkpoint=at,
        )

    def statement(self, place: tuple[UUID, int] | None) -> tuple[str, dict[str, Any]]:
        """The listing that fits, and its parameters but the page's size and payloads."""
        session, number = place or (None, None)
        tenant_id = stored_scope(self.scope)
        asked: dict[str, Any] = {
            "types": self.types,
            "roles": self.roles,
            "since": self.since,
            "until": self.until,
            "after_no": number,
        }
        if self.session_id is None and self.text is None:
            asked |= {"after_session": session, "tenant_id": tenant_id}
            return "list_tenant_messages" if tenant_id else "list_all_messages", asked
        asked["text"] = self.text
        if self.session_id is None:
            asked |= {"after_session": session, "tenant_id": tenant_id}
            return "list_matching_messages", asked
        asked["session_id"] = self.session_id
        if self.checkpoint is None:
            return "list_thread_messages", asked
        at = self.checkpoint
        place_of_state = {"checkpoint_ns": at.stored_ns, "checkpoint_id": at.checkpoint_id}
        return "list_checkpoint_messages", asked | place_of_state

    def cursor(self, place: tuple[UUID, int]) -> str:
        """The place as opaque text that is good for these filters only."""
        session_id, number = place
        return cursor_of(self._listing(), [str(session_id), number])

    def place(self, cursor: str) -> tuple[UUID, int]:
        """The inverse; InvalidCursorError where the cursor is of no such listing."""
        given = place_of_cursor(cursor, self._listing(), "a page with these filters")
        try:
            session_id, number = given
            return UUID(session_id), checked_integer("number", number, least=0)
        except (AttributeError, InvalidArgumentError, TypeError, ValueError):
            problem = "isn't a cursor of a listing"
            raise InvalidCursorError(cursor=cursor, problem=problem) from None

    def _listing(self) -> str:
        """What stands for all of the filters."""
        times = [time and time.timestamp() for time in (self.since, self.until)]
        at = self.checkpoint and (self.checkpoint.stored_ns, self.checkpoint.checkpoint_id)
        asked = repr([self.scope, self.session_id, self.types, self.roles, times, self.text, at])
        return hashlib.blake2b(asked.encode(), digest_size=8).hexdigest()


def address_of(
    scope: str | AllTenants, thread_id: Any, checkpoint_ns: str = "", checkpoint_id: str = ""
) -> Address:
    """The address of a tenant's thread, or of one of its checkpoints."""
    tenant_id = single_tenant(scope)
    return Address.of(checkpoint_config(thread_id, checkpoint_ns, checkpoint_id, tenant_id))


def place_of(row: asyncpg.Record) -> tuple[UUID, int]:
    """Where in a listing a row is."""
    return row["session_id"], row["message_no"]


def check_limit(limit: int) -> None:
    """InvalidArgumentError where a page can't have that size."""
    checked_integer("limit", limit, least=1, most=_LARGEST_LIMIT)


def _names(argument: str, names: Sequence[str] | None) -> list[str] | None:
    if names is None:
        return None
    return [_clean(argument, name) for name in checked_items(argument, names)]


def _clean(argument: str, text: Any) -> str:
    """The text as stored content has it: without what PostgreSQL can't hold."""
    return required_text(argument, _json.clean_text(text) if isinstance(text, str) else text)


def searched(text: str) -> str:
    """What to look for, of a length that can be looked for."""
    clean = _clean("text", text)
    if len(clean) > _LONGEST_SEARCH:
        problem = f"has {len(clean):,} characters; a search takes {_LONGEST_SEARCH:,} at most"
        raise InvalidArgumentError(argument="text", problem=problem)
    return clean
