"""Secrets, and graphs that say them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ormsgpack
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer

from langgraph_pgsaga import PostgresSaver
from tests.conftest import fetch
from tests.db._puts import config_of

ROOT = Path(__file__).parents[2]
KEY = b"0123456789abcdef"
SECRET = "plaintext-nobody-may-read"


SetRow = Callable[[str, bytes], None]


def encrypted(key: bytes = KEY) -> EncryptedSerializer:
    return EncryptedSerializer.from_pycryptodome_aes(key=key)


def forged(code: int, *parts: Any) -> bytes:
    """An extension of msgpack as LangGraph's serializer would have written it."""
    return ormsgpack.packb(ormsgpack.Ext(code, ormsgpack.packb(parts)))


PLACES = {
    "value": "update agent_state_values set type = $1, payload = $2, message_runs = null, "
    "blob_hashes = null where channel = 'c'",
    "blob": "with typed as (update agent_state_values set type = $1 where channel = 'big') "
    "update agent_state_blobs set payload = $2",
    "message": "update agent_messages set payload_type = $1, payload = $2",
    "write": "update agent_state_writes set type = $1, payload = $2, blob_hashes = null",
    "exact": "update agent_states set exact_type = $1, exact = $2",
}


def read_all(saver: PostgresSaver) -> list[Callable[[], Any]]:
    return [
        lambda: saver.get_tuple(config_of("t")),
        lambda: list(saver.list(None)),
    ]


def touch(path: str) -> None:
    """A function of an imported module, for rows to name."""
    Path(path).touch()


def columns_of(dsn: str) -> set[tuple[str, str]]:
    rows = fetch(
        dsn,
        "select c.relname, a.attname from pg_attribute a"
        " join pg_class c on c.oid = a.attrelid and c.relkind = 'r' and a.attnum > 0"
        " and not a.attisdropped"
        " where c.relnamespace = 'public'::regnamespace and c.relname like 'agent%'",
    )
    return {(row[0], row[1]) for row in rows}


def columns_with(dsn: str, text: str) -> set[tuple[str, str]]:
    """The columns in which the text is found, as it is or as bytes in hexadecimal."""
    forms = (text, text.encode().hex())
    return {
        (table, column)
        for table, column in columns_of(dsn)
        for row in fetch(dsn, f'select string_agg("{column}"::text, chr(10)) from {table}')
        if any(form in (row[0] or "") for form in forms)
    }
