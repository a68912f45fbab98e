"""Events are found by the index that is there for it, from the first row on."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

import pytest

from langgraph_pgsaga import Database
from langgraph_pgsaga.database import load_statements
from langgraph_pgsaga.events import Condition, EventStore
from tests._connections import connected
from tests.db._events import noted
from tests.db.test_plans import nodes

pytestmark = pytest.mark.anyio

_KEY = "agent_events_pkey"
_ORDER = "agent_events_order_idx"
_ALL = {
    "agent_events_causation_idx": "causation_id",
    "agent_events_correlation_idx": "correlation_id",
    "agent_events_time_idx": "timestamp",
    "agent_events_type_idx": "event_type",
    _ORDER: "era",
}
# By statement: of each index that it reads, a column that it looks for in it.
EXPECTED: dict[str, dict[str, str]] = {
    "append_events": {
        _KEY: "aggregate_id",
        "agent_events_event_id_key": "event_id",
        "event_guards_pkey": "event_type",
        "event_eras_pkey": "",
    },
    "append_one": {
        _KEY: "aggregate_id",
        "agent_events_event_id_key": "event_id",
        "event_guards_pkey": "event_type",
        "event_eras_pkey": "",
    },
    "append_alone": {
        _KEY: "aggregate_id",
        "event_guards_pkey": "event_type",
        "event_eras_pkey": "",
    },
    "append_together": {
        _KEY: "aggregate_id",
        "event_guards_pkey": "event_type",
        "event_eras_pkey": "",
    },
    "find_resent": {"agent_events_event_id_key": "event_id"},
    "list_types_of": {_KEY: "aggregate_id"},
    "read_stream": {_KEY: "version"},
    "get_event": {"agent_events_event_id_key": "event_id"},
    "read_page": {_ORDER: "ROW(era, tx, ", "event_eras_pkey": ""},
    "read_narrowed": {**_ALL, "event_eras_pkey": ""},
    "read_matching": {_ORDER: "position"},
    "measure_lag": {_ORDER: "ROW(era, tx, ", "event_eras_pkey": ""},
    "get_latest_snapshot": {"event_snapshots_pkey": "aggregate_id"},
    "read_leaves": {_ORDER: "ROW(era, tx, ", "event_eras_pkey": ""},
    "read_leaf": {"agent_events_event_id_key": "event_id"},
    "list_seals": {"event_seals_pkey": "number"},
    "list_seal_hashes": {"event_seals_pkey": "number"},
    "get_current_keys": {"event_subjects_pkey": "subject"},
    "get_keys": {"event_subjects_key_id_key": "key_id"},
    "delete_keys": {"event_subjects_pkey": "subject"},
    "list_stored_data": {"agent_events_event_id_key": "event_id"},
    "find_seal": {"event_seals_last_idx": "ROW(last_era, last_tx, "},
}
_SYSTEMS = ("events", "seals", "subjects")
_STATEMENTS = {name: one for system in _SYSTEMS for name, one in load_statements(system).items()}


@pytest.fixture
async def store(dsn: str) -> AsyncIterator[EventStore]:
    async with Database(dsn) as db:
        yield EventStore(db)


# How many batches of a hundred are there; what is planned while it is small is kept as it grows.
_FILLED = {"": 0, "begun": 1, "growing": 2, "more": 4, "filled": 20, "analyzed": 20}


@pytest.mark.parametrize("filled", _FILLED)
@pytest.mark.parametrize("name", EXPECTED)
async def test_a_statement_looks_where_it_should(store: EventStore, name: str, filled: str) -> None:
    """By the columns that its index begins with; no table and no index is read from end to end."""
    for part in range(_FILLED[filled]):
        batch = [noted(n, correlation_id=f"{n}", tags=[f"{n}"]) for n in range(100)]
        await store.append(f"{part}", batch, aggregate_type="desk")
    statement = _STATEMENTS[name]
    async with store.db.transaction() as conn:
        if filled == "analyzed":
            await conn.execute("analyze agent_events")
        types = ", ".join(sql_type for _, sql_type in statement.params)
        nothing = ", ".join("null" for _ in statement.params)
        await conn.execute(f"prepare probe ({types}) as {store.db.text(statement)}")
        answer = await conn.fetchval(f"explain (format json) execute probe ({nothing})")
    found = list(nodes(json.loads(answer)[0]["Plan"]))
    assert [n for n in found if n["Node Type"] == "Seq Scan"] == []
    looked: dict[str, list[str]] = defaultdict(list)
    for node in found:
        # Which indexes of its own catalogue the server takes is its release's.
        if not node.get("Index Name", "pg_").startswith("pg_"):
            looked[node["Index Name"]].append(node.get("Index Cond", ""))
    assert set(looked) == set(EXPECTED[name])
    for index, column in EXPECTED[name].items():
        assert [cond for cond in looked[index] if column not in cond] == []


_SCANS = """
  select indexrelname, idx_scan from pg_stat_user_indexes where relname = 'agent_events'
"""


_READ = "select idx_tup_read from pg_stat_user_indexes where indexrelname = 'agent_events_pkey'"
_APPEND_EACH = """
  select pgsaga_append_each(array[row(
    null, false, '', $1, 'desk', $1, 'noted', '{}', null, null, null, now()
  )::pgsaga_new_event])
"""


async def test_a_steps_events_are_stored_without_going_through_others(
    store: EventStore, dsn: str
) -> None:
    """Also by a plan that was made while there were a few, at which others look as good."""
    for part in range(2):
        batch = [noted(number) for number in range(100)]
        await store.append(f"{part}", batch, aggregate_type="desk")
    async with store.db.transaction() as conn:

        async def read() -> int:
            await conn.execute("select pg_stat_force_next_flush()")
            async with connected(dsn) as other:
                return int(await other.fetchval(_READ))

        before = await read()
        for number in range(8):
            assert await conn.fetchval(_APPEND_EACH, f"new {number}") == 1
    async with connected(dsn) as other:
        assert int(await other.fetchval(_READ)) - before <= 16


@pytest.mark.parametrize("filled", [False, True], ids=["empty", "filled"])
async def test_tags_are_found_by_their_index(store: EventStore, dsn: str, filled: bool) -> None:
    """Inside of the function, whose plan no statement shows: no other index is gone through."""
    if filled:
        batch = [noted(n, tags=[f"{n}"]) for n in range(1000)]
        await store.append("a", batch, aggregate_type="desk")

    async with connected(dsn) as conn:

        async def scans() -> dict[str, int]:
            await conn.execute("select pg_stat_force_next_flush()")
            return dict(await conn.fetch(_SCANS))  # type: ignore[arg-type]

        if filled:
            await conn.execute("analyze agent_events")
        before = await scans()
        asked: Any = ("", ["noted"], ["5"], 0)
        for _ in range(8):  # beyond which a plan is a generic one
            await conn.fetch("select * from pgsaga_event_matches($1, $2, $3, $4)", *asked)
        after = await scans()
    more = {name: after[name] - before[name] for name in after if after[name] != before[name]}
    assert more == {"agent_events_tags_idx": 8}
    assert len((await store.read_matching(Condition(types=["noted"], tags=["5"]))).events) == filled
