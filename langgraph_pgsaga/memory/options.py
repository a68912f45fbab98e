"""The keywords that make a store, and those of the Database that it makes for itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict, cast

from langgraph.store.base import TTLConfig

from langgraph_pgsaga._arguments import (
    check_options,
    checked_flag,
    checked_mapping,
    checked_seconds,
)
from langgraph_pgsaga.database import DatabaseOptions
from langgraph_pgsaga.memory.index import StoreIndex
from langgraph_pgsaga.memory.operations import checked_minutes

DEFAULT_SWEEP_SECONDS = 300.0


class StoreOptions(TypedDict, total=False):
    """The keywords of `MemoryStore`."""

    index: StoreIndex | None
    ttl: TTLConfig | None


class MemoryStoreOptions(StoreOptions, DatabaseOptions):
    """Those of a store with a Database of its own."""


def split_options(given: Mapping[str, Any]) -> tuple[StoreOptions, DatabaseOptions]:
    """The store's options, and the Database's.

    Raises:
        UnknownOptionError: a keyword is none of them.
    """
    check_options("MemoryStore", given, list(MemoryStoreOptions.__annotations__))
    own, others = StoreOptions.__annotations__, DatabaseOptions.__annotations__
    return (
        cast("StoreOptions", {name: value for name, value in given.items() if name in own}),
        cast("DatabaseOptions", {name: value for name, value in given.items() if name in others}),
    )


def checked_ttl(given: Any) -> TTLConfig | None:
    """LangGraph's settings of how long items live."""
    if given is None:
        return None
    config = dict(checked_mapping("ttl", given))
    check_options("ttl", config, list(TTLConfig.__annotations__))
    checked_minutes("ttl['default_ttl']", config.get("default_ttl"))
    checked_minutes("ttl['sweep_interval_minutes']", config.get("sweep_interval_minutes"))
    for name in ("refresh_on_read", "omit_expired"):
        checked_flag(f"ttl[{name!r}]", config.get(name, True))
    return cast("TTLConfig", config)


def sweep_seconds(config: TTLConfig | None, given: float | None) -> float:
    """How far apart sweeps are: as given, else by the settings, else five minutes."""
    if given is not None:
        return checked_seconds("every_seconds", given, least=1)
    minutes = (config or {}).get("sweep_interval_minutes")
    return max(1.0, float(minutes) * 60) if minutes else DEFAULT_SWEEP_SECONDS
