"""Events: a complete record of what agents did, that others can follow."""

from langgraph_pgsaga.events.batch import ANY, EXISTS, NONE, Expected, ExpectedVersion
from langgraph_pgsaga.events.callbacks import EventCallbackHandler
from langgraph_pgsaga.events.condition import Condition
from langgraph_pgsaga.events.event import AgentEvent, EventType
from langgraph_pgsaga.events.events import EventStore
from langgraph_pgsaga.events.folding import Aggregate, Folded, StateT
from langgraph_pgsaga.events.nodes import event_node, recorded
from langgraph_pgsaga.events.place import EventPlace
from langgraph_pgsaga.events.row import EventPage, Lag, Matching
from langgraph_pgsaga.events.upcasting import Upcaster

__all__ = [
    "ANY",
    "EXISTS",
    "NONE",
    "AgentEvent",
    "Aggregate",
    "Condition",
    "EventCallbackHandler",
    "EventPage",
    "EventPlace",
    "EventStore",
    "EventType",
    "Expected",
    "ExpectedVersion",
    "Folded",
    "Lag",
    "Matching",
    "StateT",
    "Upcaster",
    "event_node",
    "recorded",
]
