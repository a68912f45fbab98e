"""Events: a complete record of what agents did, that others can follow."""

from langgraph_pgsaga.events.batch import ANY, EXISTS, NONE, Expected, ExpectedVersion
from langgraph_pgsaga.events.callbacks import EventCallbackHandler
from langgraph_pgsaga.events.condition import Condition
from langgraph_pgsaga.events.consumer import Consumer, Projection
from langgraph_pgsaga.events.consumer_info import ConsumerInfo, Swap
from langgraph_pgsaga.events.dead_letters import DeadLetter, DeadLetterPage, DeadLetters
from langgraph_pgsaga.events.erasure import erase_subject
from langgraph_pgsaga.events.event import AgentEvent, EventType
from langgraph_pgsaga.events.events import EventStore
from langgraph_pgsaga.events.folding import Aggregate, Folded, StateT
from langgraph_pgsaga.events.nodes import event_node, recorded
from langgraph_pgsaga.events.place import EventPlace
from langgraph_pgsaga.events.proving import InclusionProof, check_proof
from langgraph_pgsaga.events.row import EventPage, Lag, Matching
from langgraph_pgsaga.events.seal import Seal, SealedRoot
from langgraph_pgsaga.events.subjects import SubjectKeys
from langgraph_pgsaga.events.upcasting import Upcaster
from langgraph_pgsaga.events.verifying import Finding, Tampering, Verification, VerifyProgress

__all__ = [
    "ANY",
    "EXISTS",
    "NONE",
    "AgentEvent",
    "Aggregate",
    "Condition",
    "Consumer",
    "ConsumerInfo",
    "DeadLetter",
    "DeadLetterPage",
    "DeadLetters",
    "EventCallbackHandler",
    "EventPage",
    "EventPlace",
    "EventStore",
    "EventType",
    "Expected",
    "ExpectedVersion",
    "Finding",
    "Folded",
    "InclusionProof",
    "Lag",
    "Matching",
    "Projection",
    "Seal",
    "SealedRoot",
    "StateT",
    "SubjectKeys",
    "Swap",
    "Tampering",
    "Upcaster",
    "Verification",
    "VerifyProgress",
    "check_proof",
    "erase_subject",
    "event_node",
    "recorded",
]
