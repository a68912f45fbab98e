"""What a forged row may not do, and what may be loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from langgraph_pgsaga import Database, PostgresSaver
from langgraph_pgsaga.errors import (
    BlockedTypeError,
    CorruptValueError,
    MissingTypeError,
    UnstorableValueError,
)
from langgraph_pgsaga.serde.serializer import SafeSerializer
from langgraph_pgsaga.takeover import ReadThroughSaver
from tests.db._puts import config_of, put, stored
from tests.db._secrets import (
    ROOT,
    SECRET,
    SetRow,
    columns_with,
    forged,
    read_all,
)


@dataclass
class Order:
    number: int


@dataclass
class Refund:
    number: int


class Empty:
    """A user's serializer of the kind that counts things, and has none yet."""

    def __len__(self) -> int:
        return 0

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        return "own", SafeSerializer().dumps_typed(obj)[1][::-1]

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        return SafeSerializer().loads_typed(("msgpack", data[1][::-1]))


class EmptyCipher:
    """A user's cipher that says of itself that it is false."""

    def __bool__(self) -> bool:
        return False

    def encrypt(self, plaintext: bytes) -> tuple[str, bytes]:
        return "xor", bytes(byte ^ 255 for byte in plaintext)

    def decrypt(self, ciphername: str, ciphertext: bytes) -> bytes:
        return bytes(byte ^ 255 for byte in ciphertext)


class EmptyEncrypted(EncryptedSerializer):
    """A user's own kind, and of length 0."""

    def __len__(self) -> int:
        return 0


@pytest.mark.parametrize(
    "serde",
    [Empty(), EncryptedSerializer(EmptyCipher()), EmptyEncrypted(EmptyCipher(), SafeSerializer())],
    ids=["serializer", "cipher", "encrypted"],
)
def test_a_serializer_that_counts_as_false_is_used(dsn: str, serde: Any) -> None:
    """What a user passed as serializer or cipher is used, whatever it says of its own truth."""
    with PostgresSaver.from_conn_string(dsn, serde=serde) as own:
        put(own, config_of("t"), {"c": [SECRET] * 500, "m": [HumanMessage(SECRET)]})
        through = ReadThroughSaver(own, InMemorySaver())

        assert columns_with(dsn, SECRET) == set()
        assert SECRET.encode() not in through.serde.dumps_typed([SECRET])[1]
        assert stored(own, config_of("t")).checkpoint["channel_values"]["c"] == [SECRET] * 500


def attacks(marker: Path) -> dict[str, tuple[str, str, Any, str | None]]:
    """Module, name, arguments and method of calls that would make the file."""
    code = f"open({str(marker)!r}, 'w').close()"
    return {
        "os.system": ("os", "system", f"touch {marker}", None),
        "subprocess.Popen": ("subprocess", "Popen", [["touch", str(marker)]], None),
        "subprocess.Popen by name": (
            "subprocess",
            "Popen",
            {"args": ["touch", str(marker)]},
            None,
        ),
        "builtins.eval": ("builtins", "eval", code, None),
        "own function": (__name__, "touch", str(marker), None),
        "method": ("pathlib", "Path", [str(marker)], "touch"),
    }


def test_no_row_calls_anything(dsn: str, forge: SetRow, tmp_path: Path) -> None:
    """Whatever callable an extension code names, wherever: a typed error, and nothing ran."""
    marker = tmp_path / "ran"
    with PostgresSaver.from_conn_string(dsn) as saver:
        for body in attack_bodies(marker):
            forge("msgpack", body)
            for read in read_all(saver):
                with pytest.raises((BlockedTypeError, MissingTypeError, CorruptValueError)):
                    read()
    assert not marker.exists()


def attack_bodies(marker: Path) -> Iterator[bytes]:
    for code in range(7):
        for module, name, payload, method in attacks(marker).values():
            # Without its method, a path is a value like any other.
            if method and code != 3:
                continue
            for arguments in (payload, [payload], {"path": payload, "command": payload}):
                yield forged(code, module, name, arguments, method)


def test_other_formats_are_refused(dsn: str, forge: SetRow, tmp_path: Path) -> None:
    """A pickle that would make a file isn't loaded, nor is LangGraph's old JSON."""
    marker = tmp_path / "ran"
    bodies = {
        "pickle": f"cos\nsystem\n(S'touch {marker}'\ntR.".encode(),
        "json": json.dumps(
            {"lc": 2, "type": "constructor", "id": ["os", "system"], "args": [f"touch {marker}"]}
        ).encode(),
    }
    with PostgresSaver.from_conn_string(dsn) as saver:
        for type_ in ("pickle", "json", "yaml", "msgpack+aes"):
            forge(type_, bodies.get(type_, b"x"))
            for read in read_all(saver):
                with pytest.raises(CorruptValueError):
                    read()
    assert not marker.exists()


def test_a_row_imports_nothing(
    dsn: str, forge: SetRow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module that could be imported, but wasn't, stays so; the error says to import it."""
    (tmp_path / "row_named_this.py").write_text("class Thing: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    with PostgresSaver.from_conn_string(dsn) as saver:
        for code in (0, 1, 2, 4, 5):
            forge("msgpack", forged(code, "row_named_this", "Thing", [] if code == 1 else {}))
            for read in read_all(saver):
                with pytest.raises(MissingTypeError, match="Import row_named_this"):
                    read()
    assert "row_named_this" not in sys.modules


# --- what may be loaded ---------------------------------------------------------


def test_strict_keeps_to_the_list(dsn: str) -> None:
    """An imported dataclass is a value by default; strict savers need it allowed to do either."""
    with PostgresSaver.from_conn_string(dsn) as saver:
        config = put(saver, config_of("t"), {"c": Order(1)})
        assert stored(saver, config).checkpoint["channel_values"] == {"c": Order(1)}
        strict = PostgresSaver(saver.db, strict=True)
        with pytest.raises(BlockedTypeError, match=r"Order.*allow=\[Order\]"):
            strict.get_tuple(config)
        with pytest.raises(UnstorableValueError, match=r"allow=\[Order\]"):
            put(strict, config_of("u"), {"c": Order(1)})
        for allow in ([Order], [(__name__, "Order")]):
            allowing = PostgresSaver(saver.db, strict=True, allow=allow)
            assert stored(allowing, config).checkpoint["channel_values"] == {"c": Order(1)}
            put(allowing, config_of("u"), {"c": Order(1)})
            with pytest.raises(UnstorableValueError):
                put(allowing, config_of("u"), {"c": Refund(1)})


def test_an_allowlist_is_a_view_of_the_same_saver(dsn: str) -> None:
    """with_allowlist shares the live pool, allows what it names, and leaves the saver strict."""
    with PostgresSaver.from_conn_string(dsn, strict=True, allow=[Refund]) as saver:
        put(saver, config_of("t"), {"c": Refund(1)})
        wider = saver.with_allowlist([(__name__, "Order")])
        assert wider.db is saver.db
        config = put(wider, config_of("t"), {"c": [Order(1), Refund(2)]})
        assert stored(wider, config).checkpoint["channel_values"]["c"] == [Order(1), Refund(2)]
        with pytest.raises(BlockedTypeError):
            saver.get_tuple(config)
        wider.close()
        assert saver.with_allowlist([]) is saver
        put(saver, config_of("t"), {"c": Refund(3)})


def test_a_missing_class_is_told(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A class that was renamed never becomes None: the error says to keep an alias."""
    with PostgresSaver.from_conn_string(dsn) as saver:
        config = put(saver, config_of("t"), {"c": Order(1)})
        monkeypatch.delattr(sys.modules[__name__], "Order")
        with pytest.raises(MissingTypeError, match="alias"):
            saver.get_tuple(config)


_STRICT_GRAPH = """
import sys
from dataclasses import dataclass
from typing import Any, TypedDict
from langgraph.graph import END, START, StateGraph
from langgraph_pgsaga import PostgresSaver
from langgraph_pgsaga.errors import BlockedTypeError, UnstorableValueError

@dataclass
class Declared:
    n: int

@dataclass
class Undeclared:
    n: int

class State(TypedDict, total=False):
    declared: Declared
    anything: Any

def run(saver, value, thread_id):
    builder = StateGraph(State)
    builder.add_node("a", lambda state: value)
    builder.add_edge(START, "a")
    builder.add_edge("a", END)
    graph = builder.compile(checkpointer=saver)
    config = {"configurable": {"thread_id": thread_id}}
    graph.invoke({"anything": 1}, config)
    assert {k: graph.get_state(config).values[k] for k in value} == value

with PostgresSaver.from_conn_string(sys.argv[1], strict=True) as saver:
    run(saver, {"declared": Declared(1)}, "t")
    try:
        run(saver, {"anything": Undeclared(1)}, "u")
    except (BlockedTypeError, UnstorableValueError) as error:
        assert "allow=[Undeclared]" in str(error)
    else:
        raise AssertionError("it was stored")
    run(PostgresSaver(saver.db, strict=True, allow=[Undeclared]), {"anything": Undeclared(1)}, "v")
print("done")
"""


def test_langgraphs_strict_mode_allows_the_graphs_own_types(dsn: str) -> None:
    """With LANGGRAPH_STRICT_MSGPACK the types of the state's schema pass, others need allow."""
    done = subprocess.run(
        [sys.executable, "-c", _STRICT_GRAPH, dsn],
        env=os.environ | {"LANGGRAPH_STRICT_MSGPACK": "true", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.strip(), done.returncode) == ("done", 0), done.stderr


class Frame:
    """What only a pickle could hold."""

    def __init__(self, rows: list[int]) -> None:
        self.rows = rows


class Described(Frame):
    """LangGraph writes it by what `.dict()` gives."""

    def dict(self) -> dict[str, Any]:
        return {"rows": self.rows}


class Pickling(JsonPlusSerializer):
    """A serializer of the user's own."""


@pytest.mark.parametrize(
    "wrap", [lambda serde: serde, lambda serde: EncryptedSerializer(EmptyCipher(), serde)]
)
def test_a_pickle_fallback_is_told_to_have_no_effect(dsn: str, wrap: Callable[[Any], Any]) -> None:
    """A serializer that falls back on pickles warns once it is passed; what isn't pickled, not."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PostgresSaver(Database(dsn), serde=wrap(JsonPlusSerializer()))
    with pytest.warns(UserWarning, match="stores and loads no pickles"):
        PostgresSaver(Database(dsn), serde=wrap(JsonPlusSerializer(pickle_fallback=True)))


@pytest.mark.parametrize("value", [Frame([1]), Described([1])], ids=["pickle", "dict"])
@pytest.mark.filterwarnings("ignore:pickle_fallback")
def test_what_only_a_pickle_could_hold_is_refused(dsn: str, value: Frame) -> None:
    """It is refused when it is written, as an object is that is known by its `.dict()` alone."""
    serde = JsonPlusSerializer(pickle_fallback=True)
    with PostgresSaver.from_conn_string(dsn, serde=serde) as saver:
        with pytest.raises(UnstorableValueError):
            put(saver, config_of("t"), {"frame": [value]})
        assert saver.get_tuple(config_of("t")) is None


def test_a_serializer_of_the_users_own_may_pickle(dsn: str) -> None:
    """A subclass isn't replaced: it stores and loads what it likes."""
    with PostgresSaver.from_conn_string(dsn, serde=Pickling(pickle_fallback=True)) as saver:
        config = put(saver, config_of("t"), {"frame": Frame([1])})
        assert stored(saver, config).checkpoint["channel_values"]["frame"].rows == [1]
