"""Looking at what an agent did, after it ran."""

from langgraph_pgsaga.timetravel.bisect import abisect, bisect
from langgraph_pgsaga.timetravel.diff import Change, ChangeKind, Diff, diff
from langgraph_pgsaga.timetravel.history import (
    History,
    Step,
    aname_checkpoint,
    history,
    name_checkpoint,
)

__all__ = [
    "Change",
    "ChangeKind",
    "Diff",
    "History",
    "Step",
    "abisect",
    "aname_checkpoint",
    "bisect",
    "diff",
    "history",
    "name_checkpoint",
]
