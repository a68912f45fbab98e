"""What a Database can be told: the keywords, their defaults, and what each may be."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypedDict

from langgraph_pgsaga import _json
from langgraph_pgsaga._arguments import (
    check_options,
    checked_flag,
    checked_integer,
    checked_seconds,
    checked_text,
)
from langgraph_pgsaga.errors import InvalidArgumentError
from langgraph_pgsaga.tenants import checked_tenant

if TYPE_CHECKING:
    from langgraph_pgsaga.database.connection import Connection

_LARGEST_KEEPALIVE = 32_767


class DatabaseOptions(TypedDict, total=False):
    """The keywords of `Database`, and of whatever makes one."""

    schema: str | None
    min_size: int
    max_size: int
    pooler: bool
    direct_dsn: str | None
    distributed: bool | None
    connect_timeout_seconds: float | None
    acquire_timeout_seconds: float
    retry_seconds: float
    lock_timeout_seconds: float | None
    statement_timeout_seconds: float | None
    keepalives_idle_seconds: int | None
    keepalives_interval_seconds: int | None
    keepalives_count: int | None
    tcp_user_timeout_seconds: float | None
    slow_seconds: float | None
    on_connect: Callable[[Connection], Awaitable[None]] | None
    tenant: str
    require_tenant: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of a Database, checked; its docstring says what they mean."""

    schema: str | None = None
    min_size: int = 0
    max_size: int = 10
    pooler: bool = False
    direct_dsn: str | None = None
    distributed: bool | None = None
    connect_timeout_seconds: float | None = None
    acquire_timeout_seconds: float = 30.0
    retry_seconds: float = 30.0
    lock_timeout_seconds: float | None = None
    statement_timeout_seconds: float | None = None
    keepalives_idle_seconds: int | None = None
    keepalives_interval_seconds: int | None = None
    keepalives_count: int | None = None
    tcp_user_timeout_seconds: float | None = None
    slow_seconds: float | None = 1.0
    on_connect: Callable[[Connection], Awaitable[None]] | None = None
    tenant: str = ""
    require_tenant: bool = False

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Options:
        """The options of these keywords.

        Raises:
            UnknownOptionError: a keyword is none of them.
            InvalidArgumentError: one can't be used.
        """
        check_options("Database", given, [field.name for field in fields(cls)])
        return cls(**given)

    def __post_init__(self) -> None:
        if self.schema is not None and not _is_identifier(self.schema):
            problem = "must be text of 1 to 63 bytes, without NUL or lone surrogates"
            raise InvalidArgumentError(argument="schema", problem=problem)
        checked_integer("min_size", self.min_size)
        checked_integer("max_size", self.max_size)
        if not 0 <= self.min_size <= self.max_size or self.max_size < 1:
            raise InvalidArgumentError(
                argument="max_size", problem="needs 0 <= min_size <= max_size and 1 <= max_size"
            )
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            if name.startswith("keepalives_") and value is not None:
                checked_integer(name, value, least=0, most=_LARGEST_KEEPALIVE)
            elif name.endswith("_seconds") and (value is not None or name in _NEVER_NONE):
                checked_seconds(name, value, least=0)
        checked_flag("pooler", self.pooler)
        if checked_text("direct_dsn", self.direct_dsn) == "":
            problem = "is empty; leave it out where there is no way past the pooler"
            raise InvalidArgumentError(argument="direct_dsn", problem=problem)
        checked_flag("require_tenant", self.require_tenant)
        if self.distributed is not None:
            checked_flag("distributed", self.distributed)
        if self.on_connect is not None and not callable(self.on_connect):
            problem = "must be a function that takes a connection: async def prepare(conn): ..."
            raise InvalidArgumentError(argument="on_connect", problem=problem)

        checked_tenant("tenant", self.tenant)

    def server_limits(self) -> dict[str, str]:
        """The settings of the server, in milliseconds, for the limits of time that are given."""
        given = {
            "lock_timeout": self.lock_timeout_seconds,
            "statement_timeout": self.statement_timeout_seconds,
        }
        return {name: str(round(s * 1000)) for name, s in given.items() if s is not None}

    def of_network(self) -> DatabaseOptions:
        """What counts for every connection, whatever way it goes."""
        return {
            "connect_timeout_seconds": self.connect_timeout_seconds,
            "keepalives_idle_seconds": self.keepalives_idle_seconds,
            "keepalives_interval_seconds": self.keepalives_interval_seconds,
            "keepalives_count": self.keepalives_count,
            "tcp_user_timeout_seconds": self.tcp_user_timeout_seconds,
            "on_connect": self.on_connect,
        }

    def of_libpq(self) -> dict[str, str]:
        """What is given of the network's parameters, in libpq's words."""
        user_timeout = self.tcp_user_timeout_seconds
        numbers = {
            "keepalives_idle": self.keepalives_idle_seconds,
            "keepalives_interval": self.keepalives_interval_seconds,
            "keepalives_count": self.keepalives_count,
            "tcp_user_timeout": None if user_timeout is None else round(user_timeout * 1000),
        }
        return {name: str(number) for name, number in numbers.items() if number is not None}


_NEVER_NONE = {"acquire_timeout_seconds", "retry_seconds"}


def _is_identifier(name: object) -> bool:
    return isinstance(name, str) and _json.is_clean(name) and 0 < len(name.encode()) < 64
