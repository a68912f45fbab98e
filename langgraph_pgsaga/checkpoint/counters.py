"""The numbers that agent_sessions counts a thread's rows by, and which of them can't be right."""

from __future__ import annotations

import asyncpg

from langgraph_pgsaga.errors import CorruptSessionError

# So many are never stored: what a session counts beyond has been forged, and its next row may
# have no number.
MOST_MESSAGES = 2**31 - 2**20
_LAST_POSITION = 2**63 - 2**20

_COUNT_ADVICE = "Set it to the highest message_no that the session has in agent_messages"
_POSITION_ADVICE = "Set it to the highest position that the session has in agent_states"


def check_counters(thread_id: str, row: asyncpg.Record, *, numbers_messages: bool) -> None:
    """CorruptSessionError where nothing can be counted on from the session that was found."""
    count, position = row["message_count"], row["last_position"]
    if count > MOST_MESSAGES or (numbers_messages and count < 0):
        problem = f"it is {count}. {_COUNT_ADVICE}"
        raise CorruptSessionError(thread_id=thread_id, what="message_count", problem=problem)
    if position > _LAST_POSITION:
        problem = f"it is {position}. {_POSITION_ADVICE}"
        raise CorruptSessionError(thread_id=thread_id, what="last_position", problem=problem)


def of_taken_number(thread_id: str, count: int | None) -> CorruptSessionError:
    """The error of a message whose number, or digest, the locked session has already.

    `count` is its message_count; None where the thread has messages and no session.
    """
    problem = f"it is {count}, and there are messages after that. {_COUNT_ADVICE}"
    if count is None:
        problem = "it has no row, but the thread has messages. delete_thread deletes these"
    return CorruptSessionError(thread_id=thread_id, what="message_count", problem=problem)
