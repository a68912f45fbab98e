"""Reading conversations: as LangChain messages, as rows, by search, as a tree, as a file.

Everything here reads; nothing writes or locks. Rows are *stored versions* of messages: an
edit adds a version, and one that was edited away or removed is still there for as long as
an older checkpoint holds it. What a thread says now is `conversation()`.
"""

from __future__ import annotations

from langgraph_pgsaga.messages.messages import Messages
from langgraph_pgsaga.messages.row import MessageHit, MessagePage, MessageRow
from langgraph_pgsaga.messages.snippet import MATCH_END, MATCH_START
from langgraph_pgsaga.messages.tree import MessageNode, MessageTree

__all__ = [
    "MATCH_END",
    "MATCH_START",
    "MessageHit",
    "MessageNode",
    "MessagePage",
    "MessageRow",
    "MessageTree",
    "Messages",
]
