"""A function that makes graphs whose classes are its own.

Without `from __future__ import annotations`: LangGraph couldn't find such classes by their names.
"""

import dataclasses
import operator
from enum import Enum
from typing import Annotated, Any

from langgraph.graph import START, StateGraph
from langgraph.types import Send
from pydantic import BaseModel

from langgraph_pgsaga import PostgresSaver


def counting(saver: PostgresSaver, name: str) -> Any:
    """Each turn adds a step, and then checks, after a pause, that all are of its own class."""

    class Kind(Enum):
        ODD = 1
        EVEN = 0

    @dataclasses.dataclass
    class Note:
        kind: Kind

    class Step(BaseModel):
        number: int
        by: str
        note: Note

    class Inside(BaseModel):
        steps: Annotated[list[Step], operator.add] = []
        last: Step | None = None

    def work(state: Inside) -> dict[str, Any]:
        number = len(state.steps)
        step = Step(number=number, by=name, note=Note(Kind(number % 2)))
        return {"steps": [step], "last": step}

    def check(step: Any) -> dict[str, Any]:
        assert type(step) is Step
        assert type(step.note) is Note
        assert step.note.kind is Kind(step.number % 2)
        assert step.by == name
        return {}

    builder: Any = StateGraph(Inside)
    builder.add_node("work", work)
    builder.add_node("check", check)
    builder.add_edge(START, "work")
    builder.add_conditional_edges(
        "work", lambda state: [Send("check", step) for step in state.steps], ["check"]
    )
    return builder.compile(checkpointer=saver, interrupt_before=["check"])
