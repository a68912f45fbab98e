"""The store keeps LangGraph's contract, as its InMemoryStore does where it has the feature."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from langgraph.store.base import (
    BaseStore,
    GetOp,
    InvalidNamespaceError,
    ListNamespacesOp,
    MatchCondition,
    PutOp,
    SearchOp,
)
from langgraph.store.memory import InMemoryStore

from langgraph_pgsaga.database import load_statements
from langgraph_pgsaga.errors import InvalidArgumentError, UnstorableValueError
from langgraph_pgsaga.memory import FoundItem, MemoryStore, StoredItem
from tests._connections import connection_of
from tests.conftest import execute

pytestmark = pytest.mark.anyio


@pytest.fixture
async def store(dsn: str) -> AsyncIterator[MemoryStore]:
    async with MemoryStore.from_conn_string(dsn) as store:
        yield store


@pytest.fixture(params=["ours", "in memory"])
async def either(request: pytest.FixtureRequest, dsn: str) -> AsyncIterator[BaseStore]:
    """Our store, and the one that LangGraph has for tests."""
    if request.param == "in memory":
        yield InMemoryStore()
        return
    async with MemoryStore.from_conn_string(dsn) as store:
        yield store


async def fill(store: BaseStore, *places: tuple[tuple[str, ...], str]) -> None:
    for namespace, key in places:
        await store.aput(namespace, key, {"at": [*namespace, key]})


def keys_of(found: Any) -> list[str]:
    return [item.key for item in found]


# Batches


async def test_results_come_in_the_order_of_the_operations(either: BaseStore) -> None:
    """Whatever kinds they are of, and however they are mixed."""
    await fill(either, (("a",), "x"), (("b",), "y"))
    got = await either.abatch(
        [
            GetOp(("b",), "y"),
            PutOp(("c",), "z", {"n": 1}),
            SearchOp(("a",)),
            GetOp(("a",), "nobody's"),
            ListNamespacesOp(),
            GetOp(("a",), "x"),
        ]
    )
    y, put, search, missing, names, x = got
    assert getattr(y, "key", "") == "y"
    assert (put, missing) == (None, None)
    assert keys_of(search) == ["x"]
    assert names == [("a",), ("b",)]
    assert getattr(x, "value", None) == {"at": ["a", "x"]}


async def test_reads_of_a_batch_see_what_was_before_its_puts(either: BaseStore) -> None:
    """Also those that stand behind the put."""
    await either.aput(("a",), "k", {"n": 1})
    put = PutOp(("a",), "k", {"n": 2})
    _, found, listed = await either.abatch([put, GetOp(("a",), "k"), SearchOp(("a",))])
    assert getattr(found, "value", None) == {"n": 1}
    assert [item.value for item in listed] == [{"n": 1}]  # type: ignore[union-attr]
    item = await either.aget(("a",), "k")
    assert item is not None
    assert item.value == {"n": 2}


async def test_the_last_put_on_a_key_counts(either: BaseStore) -> None:
    """Of puts and deletions in one batch."""
    await either.abatch(
        [
            PutOp(("a",), "twice", {"n": 1}),
            PutOp(("a",), "gone", {"n": 1}),
            PutOp(("a",), "twice", {"n": 2}),
            PutOp(("a",), "gone", None),
            PutOp(("a",), "back", None),
            PutOp(("a",), "back", {"n": 3}),
        ]
    )
    found = await either.asearch(("a",))
    assert {item.key: item.value for item in found} == {"twice": {"n": 2}, "back": {"n": 3}}


async def test_an_empty_batch_is_nothing(either: BaseStore) -> None:
    """It has no results, and asks nobody."""
    assert await either.abatch([]) == []


async def test_one_bad_operation_fails_none_of_another_call(store: MemoryStore) -> None:
    """Calls that are made at once are statements of their own."""
    good = [store.aput(("a",), str(n), {"n": n}) for n in range(20)]
    bad = [
        store.aput(("a",), "bad", {"n": math.nan}),
        store.asearch(("a",), filter={"n": {"$x": 1}}),
    ]
    done = await asyncio.gather(*good, *bad, return_exceptions=True)
    assert [type(one).__name__ for one in done[20:]] == [
        "UnstorableValueError",
        "InvalidFilterError",
    ]
    assert done[:20] == [None] * 20
    assert len(await store.asearch(("a",), limit=100)) == 20


async def test_nothing_of_a_batch_is_stored_where_one_operation_cannot_be(
    store: MemoryStore,
) -> None:
    """All are checked before any is done."""
    for bad in (
        PutOp(("a.b",), "k", {}),
        PutOp(("a", ""), "k", {}),
        PutOp((), "k", {}),
        PutOp(("langgraph",), "k", {}),
        PutOp(("a",), "k", {"n": math.inf}),
        PutOp(("a",), "k\0", {}),
        GetOp(("a\0",), "k"),
        SearchOp((5,)),  # type: ignore[arg-type]
        ListNamespacesOp((MatchCondition("prefix", ("a.b",)),)),
        PutOp("users", "k", {}),  # type: ignore[arg-type]
        GetOp("users", "k"),  # type: ignore[arg-type]
        SearchOp("users"),  # type: ignore[arg-type]
        ListNamespacesOp((MatchCondition("suffix", "users"),)),  # type: ignore[arg-type]
    ):
        with pytest.raises((InvalidNamespaceError, InvalidArgumentError, UnstorableValueError)):
            await store.abatch([PutOp(("a",), "good", {"n": 1}), bad])
    assert await store.alist_namespaces() == []


def test_sync_callers_have_all_of_it(dsn: str) -> None:
    """On the same object, without a loop, and with one that runs."""
    with MemoryStore.from_conn_string(dsn) as store:
        store.setup()
        store.put(("a", "b"), "k", {"n": 1})
        assert store.get(("a", "b"), "k") == store.search(("a",))[0]
        assert store.list_namespaces(max_depth=1) == [("a",)]
        assert store.batch([GetOp(("a", "b"), "k")])[0] is not None

        async def both() -> Any:
            store.put(("a", "b"), "k", {"n": 2})
            return await store.aget(("a", "b"), "k")

        assert asyncio.run(both()).value == {"n": 2}
        store.delete(("a", "b"), "k")
        assert store.get(("a", "b"), "k") is None
        assert store.sweep_ttl() == 0


# Items


async def test_times_and_versions_of_an_item(store: MemoryStore) -> None:
    """created_at survives overwrites, updated_at doesn't, and each put is a version."""
    await store.aput(("a",), "k", {"n": 1})
    first = await store.aget(("a",), "k")
    await store.aput(("a",), "k", {"n": 2})
    second = await store.aget(("a",), "k")
    assert isinstance(first, StoredItem)
    assert isinstance(second, StoredItem)
    assert second.created_at == first.created_at == first.updated_at < second.updated_at
    assert (first.version, second.version) == (1, 2)
    (found,) = await store.asearch(("a",))
    assert isinstance(found, FoundItem)
    assert (found.version, found.score, found.value) == (2, None, {"n": 2})


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"text": 'Grüße 😀 \\u0000 "quoted" \'; drop table x; --', "": None},
        {"n": [0, -1, 2**63 - 1, -(2**63), 0.1, 1e-9, 1e300, 5e-324, 1e16]},
        {"deep": {"er": [{"and": [[], {}, None, True, False]}]}},
    ],
    ids=["empty", "text", "numbers", "nested"],
)
async def test_values_come_back_equal(either: BaseStore, value: dict[str, Any]) -> None:
    """All that JSON has, and numbers of 64 bits."""
    await either.aput(("a",), "k", value)
    item = await either.aget(("a",), "k")
    assert item is not None
    assert item.value == value


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({"a": "x\0y"}, "value['a']"),
        ({"x\0y": 1}, "a key of value"),
        ({"a": ["\ud800"]}, "value['a'][0]"),
        ({"a": {"b": math.nan}}, "value['a']['b']"),
        ({"a": -math.inf}, "value['a']"),
        ({"a": 2**64}, "value['a']"),
        ({"a": object()}, "value['a']"),
        ({"a": {1}}, "value['a']"),
        ({"a": b"x"}, "value['a']"),
        ({5: 1}, "a key of value"),
        ("text", "value"),
        ([1], "value"),
    ],
    ids=lambda part: part if isinstance(part, str) else None,
)
async def test_what_json_does_not_hold_is_refused(
    store: MemoryStore, value: Any, where: str
) -> None:
    """By an error that says where it is, and nothing is stored."""
    with pytest.raises(UnstorableValueError) as caught:
        await store.aput(("a",), "k", value)
    assert caught.value.where == where
    assert await store.aget(("a",), "k") is None


async def test_a_value_that_nests_too_deeply_is_refused(store: MemoryStore) -> None:
    """Also one without an end."""
    value: dict[str, Any] = {}
    value["self"] = value
    with pytest.raises(UnstorableValueError, match="200 deep"):
        await store.aput(("a",), "k", value)


async def test_a_deleted_item_is_gone_and_begins_anew(either: BaseStore) -> None:
    """Deleting what isn't there is no error."""
    await either.adelete(("a",), "k")
    await either.aput(("a",), "k", {"n": 1})
    await either.adelete(("a",), "k")
    assert await either.aget(("a",), "k") is None
    assert await either.asearch(("a",)) == []


# Namespaces


async def test_a_prefix_has_what_is_below_it_and_no_neighbour(either: BaseStore) -> None:
    """('a', 'bc') begins like ('a', 'b') only as text."""
    places = [("a",), ("a", "b"), ("a", "b", "c"), ("a", "bc"), ("a", "b-c"), ("a", "b/c"),
              ("ab",), ("a", "B"), ("a", "b!", "c")]  # fmt: skip
    await fill(either, *((place, "k") for place in places))
    found = await either.asearch(("a", "b"))
    assert {item.namespace for item in found} == {("a", "b"), ("a", "b", "c")}
    assert len(await either.asearch(("a",), limit=100)) == 8
    assert len(await either.asearch((), limit=100)) == 9
    assert await either.alist_namespaces(prefix=("a", "b")) == [("a", "b"), ("a", "b", "c")]


NAMESPACES = [
    ("a",), ("a", "b"), ("a", "b", "c"), ("a", "b", "d", "e"), ("a", "b", "d", "i"),
    ("a", "b", "f"),
    ("a", "c", "f"), ("a-b",), ("a-b", "c"), ("a", "b-c", "f"), ("b", "a", "f"), ("b", "ä", "*"),
]  # fmt: skip
LISTINGS: list[dict[str, Any]] = [
    {},
    {"prefix": ("a", "b")},
    {"prefix": ("a", "b"), "max_depth": 3},
    {"prefix": ("*", "b")},
    {"prefix": ("*", "b"), "max_depth": 1},
    {"prefix": ("a", "*", "f")},
    {"prefix": ("a", "*", "f"), "max_depth": 2},
    {"suffix": ("f",)},
    {"suffix": ("f",), "max_depth": 1},
    {"suffix": ("*", "f")},
    {"suffix": ("d", "*"), "prefix": ("a",)},
    {"prefix": ("a",), "suffix": ("f",), "max_depth": 2},
    {"prefix": ("nobody",)},
    {"max_depth": 1},
    {"max_depth": 2},
    {"max_depth": 2, "limit": 2, "offset": 1},
    {"limit": 3, "offset": 2},
    {"limit": 0},
    {"offset": 50},
]


@pytest.mark.parametrize("listing", LISTINGS, ids=str)
async def test_namespaces_are_listed_as_in_memory(store: MemoryStore, listing: Any) -> None:
    """Prefix and suffix ANDed, '*' is one label, cut to max_depth before the limit."""
    memory = InMemoryStore()
    puts = [PutOp(namespace, "k", {"n": 1}) for namespace in NAMESPACES]
    await store.abatch(puts)
    await memory.abatch(puts)
    assert await store.alist_namespaces(**listing) == memory.list_namespaces(**listing)


async def test_conditions_of_one_kind_are_anded(either: BaseStore) -> None:
    """As a batch may have several prefixes and suffixes."""
    await fill(either, *((namespace, "k") for namespace in NAMESPACES))

    async def listed(*conditions: tuple[str, tuple[str, ...]]) -> Any:
        made = tuple(MatchCondition(kind, path) for kind, path in conditions)  # type: ignore[arg-type]
        return (await either.abatch([ListNamespacesOp(made)]))[0]

    assert await listed(("prefix", ("a", "*", "d")), ("prefix", ("*", "b"))) == [
        ("a", "b", "d", "e"), ("a", "b", "d", "i"),
    ]  # fmt: skip
    assert await listed(("prefix", ("a",)), ("prefix", ("b",))) == []
    assert await listed(("suffix", ("f",)), ("suffix", ("b", "*"))) == [("a", "b", "f")]


async def explained(store: MemoryStore, name: str, **values: Any) -> dict[str, Any]:
    """The plan of a statement, which was run."""
    statement = load_statements("store")[name]
    async with connection_of(store.db) as conn:
        text = store.db.text(statement)
        got = await conn.fetchval(
            f"explain (analyze, buffers, format json) {text}", *statement.bind(**values).values
        )
    plan: dict[str, Any] = json.loads(got)[0]["Plan"]
    return plan


def scanned(plan: dict[str, Any]) -> int:
    """How many rows were read from the table."""
    own = plan["Actual Rows"] * plan["Actual Loops"] if "Relation Name" in plan else 0
    own += plan.get("Rows Removed by Filter", 0) * plan["Actual Loops"]
    return int(own) + sum(map(scanned, plan.get("Plans", [])))


async def test_listing_namespaces_reads_no_items_but_the_first_of_each(
    store: MemoryStore, dsn: str
) -> None:
    """Of 5,000 items in 5 namespaces some 5 are read, and cut to one label fewer."""
    puts = [PutOp(("a", str(n % 5)), str(n), {"n": n}) for n in range(5000)]
    await store.abatch(puts)
    await execute(dsn, "analyze agent_store_items")
    given: dict[str, Any] = {
        "tenant_id": "", "namespace": None, "after": "", "before": "\U0010ffff", "prefix": [],
        "suffix": None, "max_depth": None, "limit_count": 100, "offset_count": 0,
    }  # fmt: skip
    assert scanned(await explained(store, "list_namespaces", **given)) <= 6
    assert scanned(await explained(store, "list_namespaces", **{**given, "max_depth": 1})) <= 2


# Searches


async def test_a_search_gives_the_newest_first(store: MemoryStore) -> None:
    """Those that were put at once by namespace and key; a put makes an item new again."""
    await fill(store, (("a",), "1"), (("a", "b"), "2"), (("a",), "3"), (("a", "b"), "4"))
    await store.abatch([PutOp(("a", "c"), "b", {}), PutOp(("a",), "z", {}), PutOp(("a",), "a", {})])
    await store.aput(("a",), "1", {"n": 1})
    assert keys_of(await store.asearch(("a",))) == ["1", "a", "z", "b", "4", "3", "2"]


async def test_pages_joined_are_one_big_search(store: MemoryStore) -> None:
    """Also where all were put at once, over namespaces."""
    await store.abatch([PutOp(("a", str(n % 7)), str(n), {"n": n}) for n in range(60)])
    whole = await store.asearch(("a",), limit=100)
    pages = [await store.asearch(("a",), limit=10, offset=n) for n in range(0, 60, 10)]
    assert list(itertools.chain.from_iterable(pages)) == whole
    assert len(whole) == 60


async def test_a_search_in_one_namespace_reads_its_page_only(store: MemoryStore, dsn: str) -> None:
    """By the index of the newest."""
    await store.abatch([PutOp(("a",), str(n), {"n": n}) for n in range(2000)])
    await execute(dsn, "analyze agent_store_items")
    plan = await explained(
        store, "search_items", tenant_id="", namespace="a", after="a.", before="a/",
        contained=None, steps=None, limit_count=10, offset_count=0,
    )  # fmt: skip
    assert scanned(plan) <= 20


async def test_bounds_of_pages_are_checked(store: MemoryStore) -> None:
    """A limit or an offset below 0 is no page, and a depth of 0 has no namespaces."""
    wrong: list[dict[str, Any]] = [{"limit": -1}, {"offset": -1}, {"limit": 1.5}]
    for search in wrong:
        with pytest.raises(InvalidArgumentError):
            await store.asearch(("a",), **search)
    for listing in [*wrong, {"max_depth": 0}]:
        with pytest.raises(InvalidArgumentError):
            await store.alist_namespaces(**listing)


# Transactions, tenants


async def test_a_put_joins_a_transaction(store: MemoryStore) -> None:
    """It is committed, or rolled back, with it."""

    async def fail() -> None:
        async with store.db.transaction() as conn:
            await store.aput(("a",), "k", {"n": 1}, conn=conn)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await store.aget(("a",), "k") is None
    async with store.db.transaction() as conn:
        await store.aput(("a",), "k", {"n": 1}, conn=conn)
        await store.adelete(("a",), "other", conn=conn)
        assert await store.aget(("a",), "k") is None
    assert await store.aget(("a",), "k") is not None


async def test_tenants_have_nothing_in_common(dsn: str) -> None:
    """What has the same namespace and key is another item."""
    async with (
        MemoryStore.from_conn_string(dsn, tenant="a") as of_a,
        MemoryStore.from_conn_string(dsn, tenant="b") as of_b,
        MemoryStore.from_conn_string(dsn) as nobodys,
    ):
        await of_a.aput(("n",), "k", {"whose": "a"})
        for other in (of_b, nobodys):
            assert await other.aget(("n",), "k") is None
            assert await other.asearch(()) == []
            assert await other.alist_namespaces() == []
            await other.adelete(("n",), "k")
            await other.aput(("n",), "k", {"whose": "another"})
        item = await of_a.aget(("n",), "k")
        assert item is not None
        assert item.value == {"whose": "a"}


async def test_batches_that_cross_each_other_are_stored(store: MemoryStore) -> None:
    """Each locks its items in one order, whatever the order of its operations."""
    keys = [str(n) for n in range(20)]

    async def put(turn: int) -> None:
        order = keys if turn % 2 else keys[::-1]
        await store.abatch([PutOp(("a",), key, {"turn": turn}) for key in order])

    await asyncio.gather(*map(put, range(20)))
    found = await store.asearch(("a",), limit=50)
    assert len({item.value["turn"] for item in found}) == 1
    assert {item.version for item in found if isinstance(item, FoundItem)} == {20}


async def test_rows_of_the_table_are_as_the_page_says(store: MemoryStore, dsn: str) -> None:
    """Namespaces are labels joined by dots, values jsonb."""
    await store.aput(("users", "1"), "k", {"n": 1}, ttl=1.5)
    conn = await asyncpg.connect(dsn)
    row = await conn.fetchrow("select * from agent_store_items")
    await conn.close()
    assert row is not None
    assert (row["namespace"], row["key"], row["value"]) == ("users.1", "k", '{"n": 1}')
    assert row["ttl_minutes"] == 1.5
    assert (row["expires_at"] - row["updated_at"]).total_seconds() == 90
