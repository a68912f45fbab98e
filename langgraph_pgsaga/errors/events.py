"""Events: what can't be appended, and what can't be told apart."""

from __future__ import annotations

from dataclasses import dataclass

from langgraph_pgsaga.errors.root import PgSagaError


@dataclass(kw_only=True, eq=False)
class EventError(PgSagaError):
    """Events weren't appended, or can't be read. Nothing was stored."""


@dataclass(kw_only=True, eq=False)
class VersionConflictError(EventError):
    """The aggregate isn't at the version that was expected: somebody else appended, or nobody.

    `expected` is a version, or "any", "none" or "exists"; `actual` is 0 where there are no events.
    """

    aggregate_type: str
    aggregate_id: str
    expected: int | str
    actual: int

    def __str__(self) -> str:
        return (
            f"{self.aggregate_type} {self.aggregate_id!r} is at version {self.actual}, and "
            f"expected was {self.expected}. Read its events again, decide anew, and append with "
            "the version that it then has"
        )


@dataclass(kw_only=True, eq=False)
class MissingVersionError(EventError):
    """A snapshot is of a version that the aggregate hasn't reached: folds would pass over events.

    `last_version` is that of its last event, 0 without any.
    """

    aggregate_type: str
    aggregate_id: str
    version: int
    last_version: int

    def __str__(self) -> str:
        return (
            f"{self.aggregate_type} {self.aggregate_id!r} is at version {self.last_version}, and "
            f"has no version {self.version} to save a snapshot of. Pass the version of the last "
            "event that went into it"
        )


@dataclass(kw_only=True, eq=False)
class EventIdConflictError(EventError):
    """An event of this id is stored already, and it isn't the one to be appended."""

    event_id: str
    problem: str

    def __str__(self) -> str:
        return (
            f"event {self.event_id!r} is stored already, {self.problem}. An id is an event's for "
            "ever: append the same events again, or give new ones ids of their own"
        )


@dataclass(kw_only=True, eq=False)
class EventsNotAppendedError(EventError):
    """Events of callbacks wait to be appended, for too long; they are tried on."""

    count: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.count} events wait to be appended, and weren't for {self.seconds} s; they "
            "are tried on while the process lives. The log has the reason; see to the server, or "
            "raise most_waiting and longest_seconds"
        )


@dataclass(kw_only=True, eq=False)
class ConditionFailedError(EventError):
    """An event that the condition speaks of came after the position that was decided at."""

    types: tuple[str, ...]
    tags: tuple[str, ...]
    after: int

    def __str__(self) -> str:
        return (
            f"after position {self.after} came an event of one of the types {self.types} with the "
            f"tags {self.tags}. Read what matches again (read_matching), and decide anew"
        )


@dataclass(kw_only=True, eq=False)
class AmbiguousAggregateError(EventError):
    """An id without a type, and aggregates of several types have it."""

    aggregate_id: str
    aggregate_types: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"{self.aggregate_id!r} is the id of aggregates of several types: "
            f"{self.aggregate_types}. Pass aggregate_type="
        )


@dataclass(kw_only=True, eq=False)
class MasterKeyError(EventError):
    """A subject's key is wrapped by a master key that the store hasn't got.

    `master_id` is that one's, `known` are those of the store's. They tell nothing of the keys.
    """

    master_id: str
    known: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"personal data needs the master key {self.master_id!r}, and the store has "
            f"{self.known}. Pass that key as SubjectKeys(master_key=...), or "
            "among its former_master_keys; nothing was erased"
        )


@dataclass(kw_only=True, eq=False)
class BrokenSealError(EventError):
    """A seal of the log, or an event that it has, isn't as it was sealed.

    `number` is the seal's; None where it isn't known.
    """

    tenant_id: str
    number: int | None
    problem: str

    def __str__(self) -> str:
        of = f" of tenant {self.tenant_id!r}" if self.tenant_id else ""
        return (
            f"seal {self.number}{of} is broken: {self.problem}. Somebody changed the log, or its "
            "seals: find what with EventStore.verify() or pgsaga events verify"
        )
