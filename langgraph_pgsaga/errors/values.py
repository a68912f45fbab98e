"""Values that may not, or can't, be stored or loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from langgraph_pgsaga.errors.root import PgSagaError


@dataclass(kw_only=True, eq=False)
class SerializationError(PgSagaError):
    """A value can't be stored or can't be loaded."""


@dataclass(kw_only=True, eq=False)
class UnstorableValueError(SerializationError):
    """Refused when written, because it couldn't be loaded again. Nothing was stored."""

    where: str
    problem: str

    def __str__(self) -> str:
        return f"{self.where} can't be stored: {self.problem}"


@dataclass(kw_only=True, eq=False)
class UnloadableValueError(SerializationError):
    """A stored value may not, or can't, be loaded.

    The attributes say where it is, as far as that is known: `path` leads to it within the
    value of `channel`, in Python's notation (`['items'][2].plan`).
    """

    thread_id: str | None = None
    checkpoint_ns: str | None = None
    checkpoint_id: str | None = None
    channel: str | None = None
    path: str = ""

    def at(self, **place: Any) -> Self:
        """This error, which now says where, too; what it says already stays."""
        for name, value in place.items():
            if not getattr(self, name):
                setattr(self, name, value)
        return self

    def __str__(self) -> str:
        return f"{self.place()}{self._problem()}"

    def _problem(self) -> str:
        return "a stored value can't be loaded"

    def place(self) -> str:
        """Where it is, as the beginning of a message; '' where that isn't known."""
        named = {
            "thread": self.thread_id,
            "namespace": self.checkpoint_ns,
            "checkpoint": self.checkpoint_id,
            "channel": self.channel,
        }
        parts = [f"{name} {value!r}" for name, value in named.items() if value]
        if self.path:
            parts.append(f"at {self.path}")
        return f"{', '.join(parts)}: " if parts else ""


_LENIENTLY = (
    "A saver with lenient=True loads a placeholder in its place, and lets update_state replace it"
)


@dataclass(kw_only=True, eq=False)
class BlockedTypeError(UnloadableValueError):
    """A stored value names a type that isn't allowed here."""

    module: str
    name: str

    def _problem(self) -> str:
        return (
            f"a stored value wants to become {self.module}.{self.name}, which isn't allowed. "
            f"If it is a type of yours, pass allow=[{self.name}] (the class itself) to the saver"
        )


@dataclass(kw_only=True, eq=False)
class MissingTypeError(UnloadableValueError):
    """A stored value names a type that this process hasn't imported or no longer has."""

    module: str
    name: str

    def _problem(self) -> str:
        needs = f"a stored value needs {self.module}.{self.name}, which"
        if "<locals>" in self.name:
            function = self.name.partition(".<locals>")[0]
            return (
                f"{needs} is defined inside a function that didn't run here, or whose class is "
                f"gone. Call {function}() first, or define the class at the top level of its "
                f"module. {_LENIENTLY}"
            )
        return (
            f"{needs} isn't loaded here. Import {self.module} before the graph runs, or, if the "
            f"class was renamed or moved, keep its old name as an alias. {_LENIENTLY}"
        )


@dataclass(kw_only=True, eq=False)
class ChangedClassError(UnloadableValueError):
    """The class of a stored value has changed since, so that the value no longer fits it.

    `problem` names fields, never what is in them.
    """

    module: str
    name: str
    problem: str

    def _problem(self) -> str:
        return (
            f"{self.module}.{self.name} has changed since a value of it was stored: "
            f"{self.problem}. {_LENIENTLY}"
        )


@dataclass(kw_only=True, eq=False)
class CorruptValueError(UnloadableValueError):
    """Stored bytes that can't be decoded. `problem` never holds the bytes themselves."""

    what: str
    problem: str

    def _problem(self) -> str:
        return f"{self.what} can't be loaded: {self.problem}"


@dataclass(kw_only=True, eq=False)
class CorruptSessionError(CorruptValueError):
    """A number by which agent_sessions counts a thread's rows was damaged or forged.

    `what` is its column. Nothing can be added to the thread until that is put right.
    """

    def _problem(self) -> str:
        return f"{self.what} in agent_sessions can't be right: {self.problem}"


@dataclass(kw_only=True, eq=False)
class EncryptedValueError(CorruptValueError):
    """A stored value is encrypted, and whoever reads it has no key."""
