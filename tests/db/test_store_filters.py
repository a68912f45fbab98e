"""Filters of the store's searches, as InMemoryStore has them where it has them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langgraph.store.base import PutOp
from langgraph.store.memory import InMemoryStore

from langgraph_pgsaga.errors import InvalidFilterError
from langgraph_pgsaga.memory import MemoryStore

ITEMS: list[dict[str, Any]] = [
    *({"n": n} for n in (0, 1, 5, 9, 10, 15, 59)),
    {"n": 9.5, "color": "red"},
    {"n": -1, "color": "blue", "none": None},
    {"color": "red", "tags": ["a", "b"], "meta": {"lang": "de", "size": {"x": 1, "y": 2}}},
    {"color": "", "tags": ["a"], "meta": {"lang": "en"}},
    {"tags": [], "meta": {}},
    {"tags": "a", "meta": "de"},
    {"flag": True},
    {"flag": False, "day": "2026-01-02"},
    {"day": "2025-12-31", "odd 'key\" \\{,}": [1, {"x": [2, None]}]},
]
# What InMemoryStore answers, too.
FILTERS: list[dict[str, Any]] = [
    {},
    {"n": 9},
    {"n": 9.0},
    {"n": {"$eq": 9}},
    {"n": {"$ne": 9}},
    {"color": "red"},
    {"color": "red", "n": 9.5},
    {"color": None},
    {"none": None},
    {"color": {"$eq": None}},
    {"color": {"$ne": None}},
    {"color": {"$ne": "red"}},
    {"nobody": {"$ne": 1}},
    {"nobody": None},
    {"meta": {"lang": "de"}},
    {"meta": {"lang": None}},
    {"meta": {"lang": {"$ne": "de"}}},
    {"meta": {"size": {"x": 1}}},
    {"meta": {"size": {"x": 1, "y": {"$eq": 2}}}},
    {"meta": {"size": {"x": 1, "y": 3}}},
    {"meta": {}},
    {"meta": {"$eq": {"lang": "en"}}},
    {"meta": {"$ne": {"lang": "en"}}},
    {"tags": ["a", "b"]},
    {"tags": ["a"]},
    {"tags": []},
    {"tags": "a"},
    {"tags": {"$eq": ["a"]}},
    {"tags": ["a", {"$ne": "c"}]},
    {"flag": True},
    {"odd 'key\" \\{,}": [1, {"x": [2, None]}]},
]


@pytest.fixture(scope="module")
def stores(server_dsn: str, template_database: str) -> Iterator[tuple[MemoryStore, InMemoryStore]]:
    """Both, with the same items, on a database that is only read."""
    from tests.conftest import execute, with_database

    name = f"{template_database}_filters"
    asyncio.run(execute(server_dsn, f'create database "{name}" template "{template_database}"'))
    memory = InMemoryStore()
    puts = [PutOp(("a",), f"{number:02}", item) for number, item in enumerate(ITEMS)]
    with MemoryStore.from_conn_string(with_database(server_dsn, name)) as store:
        store.batch(puts)
        memory.batch(puts)
        yield store, memory
    asyncio.run(execute(server_dsn, f'drop database "{name}" with (force)'))


def found(store: Any, wanted: Any) -> list[int]:
    return sorted(int(item.key) for item in store.search(("a",), filter=wanted, limit=100))


Stores = tuple[MemoryStore, InMemoryStore]


@pytest.mark.parametrize("wanted", FILTERS, ids=str)
def test_a_filter_finds_what_it_finds_in_memory(stores: Stores, wanted: Any) -> None:
    """Equality, fields of fields, lists, and what is missing."""
    store, memory = stores
    assert found(store, wanted) == found(memory, wanted)


@pytest.mark.parametrize("wanted", FILTERS, ids=str)
def test_not_finds_the_others(stores: Stores, wanted: Any) -> None:
    """Nothing is neither in a filter nor in its `$not`."""
    store, _ = stores
    rest = found(store, {"$not": wanted})
    assert sorted(rest + found(store, wanted)) == list(range(len(ITEMS)))


@pytest.mark.parametrize("name", ["$gt", "$gte", "$lt", "$lte"])
@pytest.mark.parametrize("bound", [9, 9.5, 10, "10", -1, 0, True])
def test_numbers_are_compared_as_numbers(name: str, bound: Any, dsn: str) -> None:
    """9 is less than 10 and 59; a text that says a number is one; as in memory."""
    memory = InMemoryStore()
    values = [*range(60), 9.5, "9", "100", " 7 ", "1e2", ".5", True, False]
    puts = [PutOp(("a",), str(place), {"n": value}) for place, value in enumerate(values)]
    with MemoryStore.from_conn_string(dsn) as store:
        store.batch(puts)
        memory.batch(puts)
        wanted = {"n": {name: bound}}
        assert found(store, wanted) == found(memory, wanted)


@pytest.mark.parametrize(
    ("wanted", "keys"),
    [
        ({"n": {"$gt": 9}}, [4, 5, 6, 7]),
        ({"n": {"$gt": 9, "$lt": 15}}, [4, 7]),
        ({"n": {"$gte": 9, "$ne": 10}, "color": "red"}, [7]),
        ({"day": {"$lt": "2026"}}, [15]),
        ({"day": {"$gte": "2026-01-02"}}, [14]),
        ({"color": {"$gt": 5}}, []),
        ({"n": {"$lt": "text"}}, []),
        ({"nobody": {"$gt": 0}}, []),
        ({"color": {"$in": ["red", "blue"]}}, [7, 8, 9]),
        ({"n": {"$in": [1, 5.0, None]}, "flag": None, "color": None, "tags": None}, [1, 2, 15]),
        ({"color": {"$nin": ["red", None]}}, [8, 10]),
        ({"n": {"$in": []}}, []),
        ({"none": {"$exists": True}}, [8]),
        ({"flag": {"$exists": False}, "tags": {"$exists": True}}, [9, 10, 11, 12]),
        ({"$or": [{"n": 9}, {"color": "blue"}]}, [3, 8]),
        ({"$or": []}, []),
        ({"$and": [{"color": "red"}, {"$or": [{"n": 9.5}, {"n": 1}]}]}, [7]),
        ({"$and": []}, list(range(len(ITEMS)))),
        ({"n": {"$or": [{"$lt": 0}, {"$gt": 50}]}}, [6, 8]),
        ({"n": {"$and": [{"$gt": 0}, {"$lt": 6}]}}, [1, 2]),
        ({"n": {"$not": {"$lt": 50}}, "color": None, "tags": None, "flag": None, "day": None}, [6]),
        ({"meta": {"size": {"y": {"$gt": 1}}}}, [9]),
        ({"tags": ["a", {"$in": ["b"]}]}, [9]),
    ],
    ids=str,
)
def test_operators_beyond_memory(stores: Stores, wanted: Any, keys: list[int]) -> None:
    """Comparisons of what isn't there or no number find nothing; the extensions."""
    store, _ = stores
    assert found(store, wanted) == keys


@pytest.mark.parametrize(
    "wanted",
    [
        {"n": {"$regex": "x"}},
        {"n": {"$gt": 1, "less": 2}},
        {"$nor": [{"n": 1}]},
        {"n": {"$gt": None}},
        {"n": {"$gt": [1]}},
        {"n": {"$gt": math.nan}},
        {"n": {"$in": 5}},
        {"n": {"$exists": 1}},
        {"$or": {"n": 1}},
        {"$or": [1]},
        {"$not": 5},
        {"n": {1}},
        {"n\0": 1},
        {5: 1},
        ["n"],
        "n",
    ],
    ids=str,
)
def test_a_filter_that_cannot_be_is_refused(stores: Stores, wanted: Any) -> None:
    """By an error that says where, and is a ValueError as in memory."""
    store, _ = stores
    with pytest.raises(InvalidFilterError, match="filter") as caught:
        store.search(("a",), filter=wanted)
    assert isinstance(caught.value, ValueError)


JSON = st.recursive(
    st.none() | st.integers(-3, 3) | st.sampled_from(["", "a", "1", "b"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner),
    max_leaves=4,
)
OPERATED = st.dictionaries(st.sampled_from(["$eq", "$ne"]), JSON, min_size=1, max_size=2)
WANTED = st.dictionaries(st.sampled_from("abc"), JSON | OPERATED, max_size=2)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.dictionaries(st.sampled_from("abc"), JSON, max_size=3), wanted=WANTED)
def test_any_filter_finds_what_it_finds_in_memory(
    stores: Stores, value: dict[str, Any], wanted: dict[str, Any]
) -> None:
    """Whatever nests in it."""
    store, memory = stores
    for one in (store, memory):
        one.put(("any",), "k", value)
    assert bool(store.search(("any",), filter=wanted)) == bool(
        memory.search(("any",), filter=wanted)
    )
