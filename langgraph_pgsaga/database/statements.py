"""The run-time statements: every one stands in sql/<system>.sql, none is assembled.

A file is a sequence of statements, each below a header:

    -- name: select_thing
    -- What it is for, in a sentence or more.
    -- params: session_id uuid, labels text[]
    -- columns: label text, payload bytea
    -- shard: session_id
    select ...

`params` and `columns` are what a migrated database must agree to when the
statement is prepared there. `shard` is the parameter that says on which server its rows
are where the tables are distributed (session_ids: of one session then), or `all` and why:
a test holds such a statement to what Citus takes. `{schema}` is the one marker; `render`
replaces it.
Callers give the values of `params` by name (`Statement.bind`), and by position only in
what the saver does at every step.

Functions and operators of which somebody could make a better fitting overload on the
search_path are qualified (`pg_catalog.unnest`), or their arguments have their exact type
(`->> 'step'::text`). A test shows which.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

from langgraph_pgsaga.errors import BindingError

_HEADER = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_FIELD = re.compile(r"^-- (params|columns|shard): ((?:.*\n)(?:--   .*\n)*)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One named statement; `params` and `columns` are (name, SQL type) pairs in order.

    `shard` names a parameter, or is "all"; "" where the header doesn't say.
    """

    name: str
    text: str
    params: tuple[tuple[str, str], ...]
    columns: tuple[tuple[str, str], ...]
    shard: str

    def bind(self, **values: Any) -> BoundStatement:
        """The statement with a value for each of its parameters.

        Raises:
            BindingError: a parameter has no value, or a value no parameter.
        """
        names = [name for name, _ in self.params]
        if len(names) != len(values) or not values.keys() >= set(names):
            problems = [f"no value for {name}" for name in names if name not in values]
            problems += [f"no parameter {name}" for name in values if name not in names]
            raise BindingError(statement=self.name, problem=", ".join(problems))
        return BoundStatement(self, tuple(values[name] for name in names))


class BoundStatement(NamedTuple):
    """A statement and the values of its parameters, in their order."""

    statement: Statement
    values: tuple[Any, ...]

    @property
    def name(self) -> str:
        """The statement's."""
        return self.statement.name


@cache
def load_statements(system: str) -> dict[str, Statement]:
    """The statements of sql/<system>.sql by name; a name used twice is a ValueError."""
    source = resources.files("langgraph_pgsaga").joinpath("sql", f"{system}.sql").read_text("utf-8")
    names, bodies = _HEADER.findall(source), _HEADER.split(source)[2::2]
    if len(set(names)) != len(names):
        raise ValueError(f"sql/{system}.sql names a statement twice: {sorted(names)}")
    return {name: _parse(name, body) for name, body in zip(names, bodies, strict=True)}


def render(text: str, schema: str | None) -> str:
    """`text` with its tables in `schema`; None leaves them to the search_path."""
    prefix = "" if schema is None else f"{quote_identifier(schema)}."
    return text.replace("{schema}.", prefix)


def quote_identifier(name: str) -> str:
    """`name` as a quoted SQL identifier: the one place where a name becomes SQL text."""
    return '"' + name.replace('"', '""') + '"'


def _parse(name: str, body: str) -> Statement:
    fields = dict(_FIELD.findall(body))
    text = "\n".join(line for line in body.strip().splitlines() if not line.startswith("--"))
    return Statement(
        name=name,
        text=text.strip().rstrip(";"),
        params=_pairs(fields.get("params", "")),
        columns=_pairs(fields.get("columns", "")),
        shard=_shard(name, fields.get("shard", "")),
    )


def _pairs(field: str) -> tuple[tuple[str, str], ...]:
    words = (pair.split() for pair in field.replace("--", "").split(","))
    return tuple((pair[0], " ".join(pair[1:])) for pair in words if pair)


def _shard(name: str, field: str) -> str:
    shard, _, reason = field.strip().partition(", ")
    if (shard == "all") != bool(reason):
        raise ValueError(f"statement {name} says of its shard neither a parameter nor all, and why")
    return shard
