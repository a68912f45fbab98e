"""Looking at what an agent did, after it ran."""

from langgraph_pgsaga.timetravel.bisection import abisect, bisect
from langgraph_pgsaga.timetravel.branch_tree import Branch, BranchTree, abranches, branches
from langgraph_pgsaga.timetravel.changes import Change, ChangeKind, Diff, diff
from langgraph_pgsaga.timetravel.comparison import Comparison, Outcome, Variant, acompare, compare
from langgraph_pgsaga.timetravel.forking import afork, areplay, fork, replay
from langgraph_pgsaga.timetravel.states import (
    State,
    aat,
    aget_state,
    alist_states,
    at,
    aupdate_state,
    get_state,
    list_states,
    update_state,
)
from langgraph_pgsaga.timetravel.steps import (
    History,
    Step,
    aname_checkpoint,
    anamespaces,
    aopen_errors,
    history,
    name_checkpoint,
)

__all__ = [
    "Branch",
    "BranchTree",
    "Change",
    "ChangeKind",
    "Comparison",
    "Diff",
    "History",
    "Outcome",
    "State",
    "Step",
    "Variant",
    "aat",
    "abisect",
    "abranches",
    "acompare",
    "afork",
    "aget_state",
    "alist_states",
    "aname_checkpoint",
    "anamespaces",
    "aopen_errors",
    "areplay",
    "at",
    "aupdate_state",
    "bisect",
    "branches",
    "compare",
    "diff",
    "fork",
    "get_state",
    "history",
    "list_states",
    "name_checkpoint",
    "replay",
    "update_state",
]
