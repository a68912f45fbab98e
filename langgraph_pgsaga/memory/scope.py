"""Scope: whose a memory is, and which memories a call may see."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from langgraph_pgsaga._arguments import required_text
from langgraph_pgsaga.errors import InvalidArgumentError
from langgraph_pgsaga.threads import ThreadId, session_id_of, thread_id_text

LONGEST_NAME_BYTES = 255
# Between the parts of a scope: a byte that UTF-8 hasn't got.
_BETWEEN = b"\xff"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """A tenant's user, a thread, or a user in a thread."""

    tenant_id: str
    user_id: str | None
    thread_id: str | None

    @classmethod
    def of(cls, tenant_id: str, user_id: str | None, thread_id: ThreadId | None) -> Scope:
        """The scope of a call.

        Raises:
            InvalidArgumentError: neither a user nor a thread is given, or what can't be one.
        """
        if user_id is None and thread_id is None:
            problem = "neither a user nor a thread is named. Pass user_id=, thread_id=, or both"
            raise InvalidArgumentError(argument="user_id", problem=problem)
        return cls(
            tenant_id=tenant_id,
            user_id=None if user_id is None else checked_name("user_id", user_id),
            thread_id=None if thread_id is None else thread_id_text(thread_id),
        )

    @property
    def session_id(self) -> UUID | None:
        """The session of its thread."""
        return None if self.thread_id is None else session_id_of(self.thread_id, self.tenant_id)

    @property
    def scope_id(self) -> UUID:
        """What its memories are read by; the SQL function pgsaga_memory_scope gives the same."""
        return _scope_id(self.tenant_id, self.user_id, self.session_id)

    @property
    def visible(self) -> list[UUID]:
        """The scopes that who names this one sees: its own, that of its user and that of its
        thread. What is of another user isn't among them, in the same thread neither."""
        whole = (self.tenant_id, self.user_id, self.session_id)
        parts = [whole, (self.tenant_id, self.user_id, None), (self.tenant_id, None, whole[2])]
        return list({_scope_id(*part): None for part in parts if part[1:] != (None, None)})


def checked_name(argument: str, given: Any) -> str:
    """Text that an index holds, and that isn't empty."""
    name = str.__str__(required_text(argument, given))
    if not name or len(name.encode()) > LONGEST_NAME_BYTES:
        problem = f"must have 1 to {LONGEST_NAME_BYTES} bytes in UTF-8, not {len(name.encode())}"
        raise InvalidArgumentError(argument=argument, problem=problem)
    return name


def _scope_id(tenant_id: str, user_id: str | None, session_id: UUID | None) -> UUID:
    parts = (
        tenant_id.encode(),
        b"" if user_id is None else user_id.encode(),
        b"" if session_id is None else session_id.bytes,
    )
    digest = bytearray(hashlib.sha256(_BETWEEN.join(parts)).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x80
    digest[8] = digest[8] & 0x3F | 0x80
    return UUID(bytes=bytes(digest))
