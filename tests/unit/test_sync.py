"""The classes for sync callers: generated, current, and the same as the async ones."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from langgraph_pgsaga import sync
from langgraph_pgsaga.database.portal import Portal
from langgraph_pgsaga.errors import BlockingCallError, ClosedError
from langgraph_pgsaga.sync import generate

SAMPLE = '''
"""A room."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from types import SimpleNamespace as Database

MOST = 9


class Shelf:
    """Things on a shelf.

    Methods with `conn` join its transaction.
    """

    def __init__(self, db: Database, *, width: int = 3) -> None:
        self.db = db
        self.width = width
        self._closed: list[str] = []

    @classmethod
    def of_width(cls, width: int) -> Shelf:
        return cls(Database(portal=None), width=width)

    @property
    def label(self) -> str:
        """What stands on it."""
        return f"{self.width} wide"

    def fits(self, *things: str) -> bool:
        return len(things) <= self.width

    async def put(
        self, thing: str, /, price: Decimal, *, conn: object = None, **marks: int
    ) -> list[object]:
        """Puts a thing there.

        Args:
            price: of one.
            conn: the connection of a
                transaction.
            marks: any.
        """
        return [thing, price, conn, marks]

    async def clear(self) -> None:
        self._closed.append("cleared")

    async def things(self, most: int = MOST) -> AsyncIterator[int]:
        """Numbers, as things."""
        try:
            for number in range(most):
                yield number
        finally:
            self._closed.append("closed")

    async def _secret(self) -> None: ...
'''


def require_ruff() -> None:
    pytest.importorskip("ruff", reason="what is generated is formatted by ruff, a tool of `dev`")


@pytest.fixture
def sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Makes a room of the given text."""
    monkeypatch.syspath_prepend(tmp_path)
    names: list[str] = []

    def make(source: str) -> str:
        name = f"pgsaga_sample_room_{len(names)}"
        names.append(name)
        (tmp_path / f"{name}.py").write_text(source, "utf-8")
        importlib.invalidate_caches()
        return name

    yield make
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture
def portal() -> Iterator[Portal]:
    portal = Portal("test")
    yield portal
    portal.stop()


def made(room: str) -> tuple[str, dict[str, Any]]:
    text = generate.module(room, ["Shelf"])
    names: dict[str, Any] = {"__name__": "made"}
    exec(compile(text, "made.py", "exec"), names)
    return text, names


def test_what_is_generated_is_current() -> None:
    """langgraph_pgsaga/sync is made anew by `make docs`, and holds nothing else."""
    require_ruff()
    pages = generate.pages()
    folder = Path(generate.__file__).parent
    assert {path: path.read_text("utf-8") for path in pages} == pages
    by_hand = {folder / f"{module}.py" for module in generate.FUNCTIONS.values()}
    assert set(folder.glob("*.py")) == {*pages, *by_hand, folder / "generate.py"}


@pytest.mark.parametrize("room", generate.CLASSES)
def test_the_sync_classes_have_the_same_methods(room: str) -> None:
    """Names, parameters, defaults and results are those of the async class, but for conn."""
    for name in generate.CLASSES[room]:
        there, here = getattr(importlib.import_module(room), name), getattr(sync, name)
        assert signatures(here) == signatures(there)
        assert len(signatures(here)) > 3
        assert here.__module__ == f"langgraph_pgsaga.sync.{room.rpartition('.')[2]}"


def signatures(cls: type) -> dict[str, inspect.Signature]:
    found = {}
    for name, method in inspect.getmembers(cls, inspect.isfunction):
        if not name.startswith("_") or name == "__init__":
            whole = inspect.signature(method)
            kept = [param for param in whole.parameters.values() if param.name != "conn"]
            given = str(whole.return_annotation).replace("AsyncIterator[", "Iterator[")
            found[name] = whole.replace(parameters=kept, return_annotation=given)
    return found


def test_no_docstring_speaks_of_what_sync_callers_lack() -> None:
    """`conn` is for those who have a transaction's connection, which is async."""
    for names in generate.CLASSES.values():
        for cls in (getattr(sync, name) for name in names):
            told = [cls.__doc__, *(method.__doc__ for method in vars(cls).values())]
            assert not [text for text in told if "conn`" in (text or "")]


def test_the_front_gives_its_classes_and_no_more() -> None:
    """The README names them. A name that isn't there is an AttributeError, as with any module."""
    classes = sorted(name for every in generate.CLASSES.values() for name in every)
    assert sync.__all__ == sorted([*classes, *generate.FUNCTIONS])
    readme = (Path(generate.__file__).parents[2] / "README.md").read_text("utf-8")
    *names, last = [f"`{name}`" for name in classes]
    told = f"{', '.join(names)} and {last}"
    assert f"All else is async; {told} are in `langgraph_pgsaga.sync`, too." in readme
    with pytest.raises(AttributeError, match="Nothing"):
        sync.Nothing  # type: ignore[attr-defined]  # noqa: B018


def test_a_step_is_taken_from_sync_nodes() -> None:
    """A method that takes `this_step()` takes it of sync callers, too, and nothing else as conn."""
    append = inspect.signature(sync.EventStore.append).parameters
    assert append["conn"].annotation == "Step | None"
    assert "conn" not in inspect.signature(sync.EventStore.save_snapshot).parameters


def test_a_class_is_generated(sample: Any, portal: Portal) -> None:
    """Coroutines are called, async iterators are iterators, conn is gone, the rest passes on."""
    require_ruff()
    text, names = made(sample(SAMPLE))
    shelf = names["Shelf"](type("Db", (), {"portal": portal})(), width=2)
    assert (shelf.label, shelf.width, shelf.fits("a", "b", "c")) == ("2 wide", 2, False)
    assert shelf.put("cup", names["Decimal"](3), red=1) == ["cup", 3, None, {"red": 1}]
    assert shelf.clear() is None
    assert list(shelf.things(3)) == [0, 1, 2]
    assert list(shelf.things()) == list(range(9))
    assert shelf._async._closed == ["cleared", "closed", "closed"]
    other = names["Shelf"].of_width(5)
    assert (type(other), other.label, other.width) == (names["Shelf"], "5 wide", 5)
    assert "conn" not in text
    assert "transaction" not in text
    assert "_secret" not in text
    assert "marks: any." in text


def test_an_iterator_that_is_left_is_closed(sample: Any, portal: Portal) -> None:
    """What the async generator holds is given back when the caller's loop ends."""
    require_ruff()
    _, names = made(sample(SAMPLE))
    shelf = names["Shelf"](type("Db", (), {"portal": portal})())
    things = shelf.things()
    assert next(things) == 0
    assert shelf._async._closed == []
    things.close()
    assert shelf._async._closed == ["closed"]


@pytest.mark.parametrize(
    ("method", "problem"),
    [
        ("async def __aenter__(self) -> None: ...", "__aenter__"),
        ("@classmethod\n    def make(cls) -> None: ...", "classmethod"),
        ("async def all(self) -> AsyncIterator[int]:\n        return self.things()", "generator"),
    ],
)
def test_what_has_no_sync_form_isn_t_left_out_silently(
    sample: Any, method: str, problem: str
) -> None:
    """The generator says which method it can't write."""
    room = sample(f"{SAMPLE}\n    {method}\n")
    with pytest.raises(TypeError, match=problem):
        generate.module(room, ["Shelf"])


def test_a_class_without_a_database_is_refused(sample: Any) -> None:
    """Its `db` is what every call goes through."""
    room = sample(SAMPLE.replace("self.db =", "self._db ="))
    with pytest.raises(TypeError, match="`db`"):
        generate.module(room, ["Shelf"])


def test_iterating_on_the_portals_own_thread_is_refused(portal: Portal) -> None:
    """It would wait for itself; the error names the call."""

    async def numbers() -> Any:
        yield 1

    async def ask() -> None:
        with pytest.raises(BlockingCallError, match="numbers"):
            next(portal.iterate(numbers))

    portal.call(ask)
    items = portal.iterate(numbers)
    assert next(items) == 1
    portal.stop()
    with pytest.raises(ClosedError):
        next(items)
