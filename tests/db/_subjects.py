"""Events with personal data, and the keys of their subjects."""

from __future__ import annotations

import secrets
from typing import Any

from langgraph_pgsaga.events import AgentEvent, SubjectKeys
from tests._connections import connected

SECRET = "ada@example.org"
MASTER = secrets.token_bytes(32)
FIELDS = {"signed_up": ["email", "address"], "moved": ["address"]}


def keys(master: bytes = MASTER, *former: bytes, fields: Any = None) -> SubjectKeys:
    personal: Any = FIELDS if fields is None else fields
    return SubjectKeys(master_key=master, former_master_keys=former, personal=personal)


def signed_up(subject: str | None = "user-7", **more: Any) -> AgentEvent:
    data = {"email": SECRET, "address": {"street": SECRET, "no": 1.5}, "plan": "pro"}
    given = {"event_type": "signed_up", "event_data": data, "subject": subject, **more}
    return AgentEvent(**given)


async def stored_texts(dsn: str) -> str:
    async with connected(dsn) as conn:
        rows = await conn.fetch(
            "select e::text from agent_events e union all select s::text from event_snapshots s"
            " union all select k::text from event_subjects k"
        )
    return "\n".join(row[0] for row in rows)
