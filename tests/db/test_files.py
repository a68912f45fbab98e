"""deepagents' files on the store: as on LangGraph's own, found by one statement, none lost."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langgraph.store.memory import InMemoryStore

from langgraph_pgsaga import memory
from langgraph_pgsaga.database import Database, load_statements
from langgraph_pgsaga.errors import InvalidArgumentError, PgSagaError
from langgraph_pgsaga.memory import MemoryStore
from tests._proxy import Proxy
from tests._require import require_package
from tests.db.test_plans import nodes

backends: Any = require_package("deepagents.backends.store")
files: Any = require_package("langgraph_pgsaga.memory.files")
paths: Any = require_package("langgraph_pgsaga.memory.paths")

pytestmark = pytest.mark.anyio

_PLACE = ("files",)
# How often each statement looks for paths in the primary key.
_BY_KEY = {"list_directory": 3, "find_files": 2, "find_lines": 2, "delete_files": 2}


@pytest.fixture
async def store(dsn: str) -> AsyncIterator[MemoryStore]:
    async with MemoryStore.from_conn_string(dsn) as store:
        await store.asetup()
        yield store


def backend_of(store: Any, kind: str) -> Any:
    """deepagents' own, or ours."""
    if kind == "theirs":
        return backends.StoreBackend(namespace=lambda _: _PLACE, store=store)
    return files.FileBackend(namespace=_PLACE, store=store)


def plain(result: Any) -> Any:
    """What a call gave, without the times."""
    if isinstance(result, list):
        return [plain(part) for part in result]
    if isinstance(result, dict):
        return {k: plain(v) for k, v in result.items() if k not in ("modified_at", "created_at")}
    return plain(vars(result)) if hasattr(result, "__dataclass_fields__") else result


# Calls in their order: what each gives is compared.
CALLS: list[tuple[Any, ...]] = [
    ("ls", "/"),
    ("read", "/a.md"),
    ("write", "/a.md", "one\ntwo\nthree"),
    ("write", "/src/app/main.py", "import os\nprint('ünï')\n"),
    ("write", "/src/app/test_main.py", "import os\n"),
    ("write", "/src/util.py", ""),
    ("write", "/src/.hidden/x.py", "import sys"),
    ("write", "/src-old/main.py", "import os"),
    ("write", "/src0", "no directory"),
    ("write", "/docs/one two.md", "tea\n\ncake tea"),
    ("write", "/docs/100%_[x].md", "tea"),
    ("upload_files", [("/img/a.png", b"\x89PNG\xff\x00tea"), ("/img/b.txt", b"tea\n")]),
    ("write", "/a.md", "one\ntwo\nfour"),
    *(("ls", path) for path in ("/", "/src", "/src/", "/src/app", "/docs", "/none", "/a.md", "")),
    *(("read", path) for path in ("/a.md", "/src/util.py", "/img/a.png", "/nowhere")),
    ("read", "/a.md", 1, 1),
    *(
        ("glob", pattern, path)
        for pattern in (
            "*.py", "/*.md", "**/*.py", "src/**/*.py", "src/app/main.py", "app/*.py", "*", "**",
            "*.{py,md}", "src/{app,.hidden}/*.py", "[!a]*.md", "m?in.py", ".hidden/*", "main.py",
            "*.p\\y", "src/[a]pp/*", "../*.py", "{1..100000}", "*[x].md", "src//*.py", "./a.md",
        )
        for path in (None, "/", "/src", "src/", "/a.md", "/nowhere", " ")
    ),
    *(
        ("grep", text, path, glob)
        for text in ("tea", "import", "ünï", "t", "", "100%", "no such", "two\nfour", "'")
        for path, glob in (
            (None, None), ("/src", None), ("/src", "*.py"), ("/", "src/**/*.py"), ("/a.md", None),
            ("/a.md", "*.md"), ("/docs", "*.md"), (" ", None), ("/", "../x"),
        )
    ),
    ("edit", "/a.md", "two", "2"),
    ("edit", "/a.md", "o", "0"),
    ("edit", "/a.md", "o", "0", True),
    ("edit", "/a.md", "absent", "x"),
    ("edit", "/a.md", "", "x"),
    ("edit", "/nowhere", "a", "b"),
    ("edit", "/img/a.png", "a", "b"),
    ("read", "/a.md"),
    ("download_files", ["/a.md", "/img/a.png", "/nowhere"]),
    ("delete", "/src"),
    ("delete", "/src"),
    ("delete", "/docs/"),
    ("delete", "/a.md"),
    ("ls", "/"),
    ("delete", "/"),
    ("ls", "/"),
]  # fmt: skip


@pytest.mark.parametrize("kind", ["theirs", "ours"])
@pytest.mark.parametrize("form", ["sync", "async"])
async def test_files_are_as_on_langgraphs_own_store(
    store: MemoryStore, kind: str, form: str
) -> None:
    """Each call gives what StoreBackend on InMemoryStore gives, in both forms."""
    reference, tested = backend_of(InMemoryStore(), "theirs"), backend_of(store, kind)
    wrong = []
    for name, *args in CALLS:
        wanted = plain(getattr(reference, name)(*args))
        if form == "async":
            given = plain(await getattr(tested, f"a{name}")(*args))
        else:
            given = plain(await asyncio.to_thread(getattr(tested, name), *args))
        if name in ("glob", "grep"):  # the order is of the time they were put at
            key = "matches"
            for one in (wanted, given):
                one[key] = one[key] and sorted(one[key], key=json.dumps)
        if wanted != given:
            wrong.append((name, args, wanted, given))
    assert wrong == []


_PARTS = st.sampled_from(["a", "b", ".", "..", "/", "*", "**", "?", "[ab]", "[", "]", "{a,b}", "{",
                          "}", ",", "!", "\\", "-", " ", "é"])  # fmt: skip


@given(
    st.lists(_PARTS, min_size=1, max_size=6),
    st.lists(st.sampled_from("ab./-é ["), min_size=1, max_size=8),
)
def test_what_the_server_is_asked_for_has_all_that_fits(parts: list[str], path: list[str]) -> None:
    """The ends of a pattern narrow what is read, never what is found."""
    pattern, relative = "".join(parts), "".join(path)
    try:
        fits = files.compile_grep_include_glob(pattern)
    except files.InvalidGlobPatternError:
        return
    root = paths.Root("/in")
    narrowed = paths.Narrowed.of(root, pattern)
    whole = root.directory + relative
    if fits(relative):
        assert narrowed.after <= whole < narrowed.values()["before"]
        assert whole.rstrip("/.").endswith(narrowed.suffix)


async def test_the_last_changed_come_first_and_lines_in_their_order(store: MemoryStore) -> None:
    """Of a grep that is cut the first remain, and it says that there is more."""
    backend = backend_of(store, "ours")
    for name in ("/1", "/2", "/3"):
        await backend.awrite(name, "tea\nx\ntea")
    await backend.aedit("/1", "x", "y")
    assert [one["path"] for one in (await backend.aglob("*")).matches] == ["/1", "/3", "/2"]
    found = await backend.agrep("tea", max_count=3)
    assert [(one["path"], one["line"]) for one in found.matches] == [
        ("/1", 1),
        ("/1", 3),
        ("/3", 1),
    ]
    assert found.truncated
    assert not (await backend.agrep("tea", max_count=6)).truncated
    assert (await backend.agrep("tea", glob="[12]", max_count=3)).truncated
    assert len((await backend.agrep("tea", glob="[12]", max_count=4)).matches) == 4


async def test_files_of_before_lists_of_lines_are_read(store: MemoryStore) -> None:
    """As older deepagents stored them; and what is no file isn't one."""
    await store.aput(_PLACE, "/old", {"content": ["one", "tea", ""]})
    await store.aput(_PLACE, "/none", {"text": "tea"})
    await store.aput(_PLACE, "/empty", {"content": []})
    for kind in ("ours", "theirs"):
        backend = backend_of(store, kind)
        entries = (await backend.als("/")).entries
        assert [(one["path"], one["size"]) for one in entries] == [("/empty", 0), ("/old", 8)]
        assert [one["line"] for one in (await backend.agrep("tea")).matches] == [2]
        assert {one["path"] for one in (await backend.aglob("*")).matches} == {"/old", "/empty"}
    assert (await backend_of(store, "ours").aedit("/old", "tea", "cake")).error is None


async def test_what_has_expired_is_no_file(store: MemoryStore) -> None:
    """Nor is what another tenant, or a namespace below it, has."""
    other = backend_of(MemoryStore(store.db, tenant="other"), "ours")
    await other.awrite("/others", "tea")
    await store.aput((*_PLACE, "below"), "/below", {"content": "tea"})
    await store.aput(_PLACE, "/gone", {"content": "tea"}, ttl=1)
    async with store.db.transaction() as conn:
        await conn.execute("update agent_store_items set expires_at = now() where key = '/gone'")
    backend = backend_of(store, "ours")
    assert (await backend.als("/")).entries == []
    assert (await backend.aglob("*")).matches == (await backend.agrep("tea")).matches == []
    assert (await backend.adelete("/")).error
    assert [one["path"] for one in (await other.aglob("*")).matches] == ["/others"]


async def test_no_edit_of_many_at_once_is_lost(store: MemoryStore) -> None:
    """Each is done to what the others left; and none is done to what a write put in its place."""
    backend = backend_of(store, "ours")
    await backend.awrite("/list", "".join(f"[{n}]" for n in range(24)))
    done = await asyncio.gather(
        *(backend.aedit("/list", f"[{n}]", f"<{n}>") for n in random.sample(range(24), 24))
    )
    assert [one.error for one in done] == [None] * 24
    item = await store.aget(_PLACE, "/list")
    assert item is not None
    assert item.value["content"] == "".join(f"<{n}>" for n in range(24))


@pytest.mark.parametrize(
    ("call", "at_most"),
    [
        (lambda b: b.als("/"), 1),
        (lambda b: b.aglob("**/*7.py"), 1),
        (lambda b: b.agrep("line 7", glob="*.py"), 1),
        (lambda b: b.adelete("/d7"), 1),
    ],
    ids=["ls", "glob", "grep", "delete"],
)
async def test_a_search_of_ten_thousand_files_is_one_statement(
    dsn: str, call: Callable[[Any], Any], at_most: int
) -> None:
    """And reads the primary key: a listing no more than it has entries."""
    with Proxy(dsn) as proxy:
        async with Database(proxy.dsn(), max_size=1) as db:
            store = MemoryStore(db)
            await store.asetup()
            async with db.transaction() as conn:
                await conn.execute(
                    "insert into agent_store_items (namespace, key, value) "
                    "select 'files', format('/d%s/f%s.py', n % 20, n), "
                    "jsonb_build_object('content', 'line ' || n) from generate_series(1, 10000) n"
                )
            backend = backend_of(store, "ours")
            await call(backend)  # prepares
            with proxy.recording() as traffic:
                result = await call(backend)
    assert (traffic.round_trips, traffic.statements) == (at_most, at_most)
    found = getattr(result, "entries", None) or getattr(result, "matches", None) or [result]
    assert len(found) in (1, 20, 1000, 1111)


@pytest.mark.parametrize("name", _BY_KEY)
async def test_paths_are_ranges_of_the_primary_key(store: MemoryStore, name: str) -> None:
    """In the plan that a connection keeps from its first call on."""
    statement = load_statements("files")[name]
    types = ", ".join(sql_type for _, sql_type in statement.params)
    async with store.db.transaction() as conn:
        await conn.execute(f"prepare probe ({types}) as {store.db.text(statement)}")
        nothing = ", ".join("null" for _ in statement.params)
        answer = await conn.fetchval(f"explain (format json) execute probe ({nothing})")
    reads = [node for node in nodes(json.loads(answer)[0]["Plan"]) if "Index Name" in node]
    assert {node["Index Name"] for node in reads} == {"agent_store_items_pkey"}
    assert sum("key" in node["Index Cond"] for node in reads) >= _BY_KEY[name]
    assert "Seq Scan" not in answer


async def test_a_listing_reads_one_item_of_each_entry(store: MemoryStore) -> None:
    """Not all that is in its directories."""
    async with store.db.transaction() as conn:
        await conn.execute(
            "insert into agent_store_items (namespace, key, value) select 'files', "
            "format('/d%s/%s', n % 10, n), '{\"content\": \"x\"}' from generate_series(1, 5000) n"
        )
        statement = load_statements("files")["list_directory"]
        types = ", ".join(sql_type for _, sql_type in statement.params)
        await conn.execute(f"prepare probe ({types}) as {store.db.text(statement)}")
        answer = await conn.fetchval(
            "explain (analyze, format json) execute probe ('', 'files', '/', '0')"
        )
    reads = [node for node in nodes(json.loads(answer)[0]["Plan"]) if "Index Name" in node]
    assert sum(node["Actual Rows"] * node["Actual Loops"] for node in reads) <= 10


def test_without_deepagents_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing else needs it."""
    monkeypatch.delitem(sys.modules, "langgraph_pgsaga.memory.files")
    monkeypatch.setitem(sys.modules, "deepagents.backends.protocol", None)
    with pytest.raises(ImportError, match=r"langgraph-pgsaga\[files\]"):
        _ = memory.FileBackend


async def test_it_is_for_this_store_alone(store: MemoryStore) -> None:
    """Any other is refused, also where the graph has it; so are paths that can't be."""
    with pytest.raises(InvalidArgumentError, match="MemoryStore"):
        files.FileBackend(namespace=_PLACE, store=InMemoryStore())
    with pytest.raises(RuntimeError, match="graph"):
        await files.FileBackend(namespace=_PLACE).als("/")
    backend = backend_of(store, "ours")
    for name, *args in (
        ("als", "/a\0"),
        ("aglob", "*", "/a\0"),
        ("adelete", "/a\0"),
        ("agrep", "x", "/a\0"),
        ("awrite", "/a\0", "x"),
    ):
        with pytest.raises(PgSagaError):
            await getattr(backend, name)(*args)
    assert (await backend.agrep("a\0")).matches == []
    assert (await backend.aglob("*\0")).matches == []
