"""The keywords that make a saver, and those of the Database that it makes for itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypedDict, cast

from langgraph.checkpoint.serde.base import SerializerProtocol

from langgraph_pgsaga._arguments import check_options
from langgraph_pgsaga.database import DatabaseOptions
from langgraph_pgsaga.work import RecordsSteps


class SaverOptions(TypedDict, total=False):
    """The keywords of `PostgresSaver`."""

    serde: SerializerProtocol | None
    allow: Iterable[type | tuple[str, str]]
    strict: bool
    lenient: bool
    single_writer: bool
    lease_seconds: float
    events: RecordsSteps | None


class PostgresSaverOptions(SaverOptions, DatabaseOptions):
    """Those of a saver with a Database of its own."""


def split_options(given: Mapping[str, Any]) -> tuple[SaverOptions, DatabaseOptions]:
    """The saver's options, and the Database's.

    Raises:
        UnknownOptionError: a keyword is none of them.
    """
    check_options("PostgresSaver", given, list(PostgresSaverOptions.__annotations__))
    own, others = SaverOptions.__annotations__, DatabaseOptions.__annotations__
    return (
        cast("SaverOptions", {name: value for name, value in given.items() if name in own}),
        cast("DatabaseOptions", {name: value for name, value in given.items() if name in others}),
    )
