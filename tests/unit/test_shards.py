"""Every statement says where its rows are, and keeps to what Citus takes.

The rules are what Citus 13.2 refuses in a statement on distributed tables, found by trying. They
are text rules: `make test-citus` runs the statements on a cluster.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import Any, TypeAlias

import pytest

from langgraph_pgsaga.database import Statement, load_migrations, load_statements, render
from tests._require import require_package

Node: TypeAlias = Mapping[str, Any]
Given: TypeAlias = Mapping[str, set[int | None]]

_SYSTEMS = sorted(
    file.name.removesuffix(".sql")
    for file in resources.files("langgraph_pgsaga").joinpath("sql").iterdir()
    if file.name.endswith(".sql")
)
_STATEMENTS = [s for system in _SYSTEMS for s in load_statements(system).values()]
_ROUTED = [s for s in _STATEMENTS if s.shard != "all"]
# They claim what a sweep takes, of any sessions. Sweeps aren't for distributed tables yet. Leases
# are renewed one by one there.
# Jobs of workers aren't distributed, nor are consumers of events and a store's items.
_LOCKS_ANYWHERE = {"claim_expired", "claim_idle", "renew_free_leases", "claim_job", "renew_jobs"}
_LOCKS_ANYWHERE |= {"claim_consumer", "renew_consumers", "refresh_items", "sweep_items"}
_MIGRATIONS = "".join(m.sql for m in load_migrations())
_TABLES = set(re.findall(r"create table {schema}\.(\w+)", _MIGRATIONS))
# They are where all of a tenant's events and memories are; their session is a column as others.
_ON_ONE_SERVER = {"agent_events", "agent_memory", "event_eras", "event_guards"}
# What these make of a time depends on settings.
_CLOCKS = {"now", "pgsaga_now"}
_STABLE_FUNCTIONS = {*_CLOCKS, "to_jsonb", "to_json", "to_char", "jsonb_build_object"}
_READING_FUNCTIONS = {
    name
    for name, body in re.findall(
        r"create function {schema}\.(\w+)\((.*?)\n\n", _MIGRATIONS, re.DOTALL
    )
    if re.search(r"(from|join) ({schema}\.|agent_|pgsaga_)", body)
}


def parsed(text: str) -> Node:
    pglast = require_package("pglast")
    (raw,) = pglast.parse_sql(render(text, "own").replace("{schema_name}", "own"))
    found: Node = raw.stmt(skip_none=True)
    return found


def refusals(statement: Statement) -> list[str]:
    """What of the statement Citus would refuse, in words."""
    names = [name for name, _ in statement.params]
    number = names.index(statement.shard) + 1
    kind = dict(statement.params)[statement.shard]
    tree = parsed(statement.text)
    rows = None if kind in ("uuid", "uuid[]") else number  # composite rows: inserted only
    return [
        *_unbound(tree, number, rows, {}, _given(tree)),
        *_functions(tree),
        *_unstable(tree),
        *_returned(tree),
        *_any_locks(tree, kind),
    ]


# The tree


def _nodes(node: Any) -> Iterator[Node]:
    """The node and all below it."""
    if isinstance(node, Mapping):
        yield node
        for value in node.values():
            yield from _nodes(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _nodes(value)


def _is_query(node: Any) -> bool:
    kinds = ("SelectStmt", "UpdateStmt", "DeleteStmt", "InsertStmt")
    return isinstance(node, Mapping) and node.get("@") in kinds


def _own_nodes(node: Any, *, top: bool = True) -> Iterator[Node]:
    """The node and all below it, without queries of their own."""
    if _is_query(node) and not top:
        return
    if isinstance(node, Mapping):
        yield node
        for value in node.values():
            yield from _own_nodes(value, top=False)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _own_nodes(value, top=False)


def _inner_queries(query: Any) -> Iterator[Node]:
    """The queries that stand directly in this one."""
    values = query.values() if isinstance(query, Mapping) else query
    for value in values:
        if _is_query(value):
            yield value
        elif isinstance(value, Mapping | list | tuple):
            yield from _inner_queries(value)


def _fields(node: Any) -> tuple[str, ...]:
    """The parts of a column's name; () for what is none."""
    if not isinstance(node, Mapping) or node.get("@") != "ColumnRef":
        return ()
    return tuple(field.get("sval", "*") for field in node["fields"])


def _parameter(node: Any) -> int | None:
    while isinstance(node, Mapping) and node.get("@") == "TypeCast":
        node = node["arg"]
    is_parameter = isinstance(node, Mapping) and node.get("@") == "ParamRef"
    return int(node["number"]) if is_parameter else None


# Rule: each table is bound to the parameter, by itself or by a table that is


def _unbound(
    query: Node, number: int, rows: int | None, outer: Mapping[str, bool], given: Given
) -> Iterator[str]:
    tables = {
        node.get("alias", {}).get("aliasname", node["relname"]): False
        for node in _own_nodes(query)
        if node.get("@") == "RangeVar" and node.get("schemaname") == "own"
    }
    target = query.get("relation", {}) if query["@"] == "InsertStmt" else {}
    if target:
        tables.pop(target.get("alias", {}).get("aliasname", target.get("relname")), None)
        if not _inserts_bound(query, number, rows, given):
            yield f"rows of {target['relname']} don't say by ${number} where they go"
    bound = {**outer, **tables}
    for _ in bound:  # as long as one may bind the next
        for left, right in _equalities(query):
            name = left[0] if len(left) == 2 else next(iter(tables), None)
            if name is None or left[-1:] != ("session_id",) or name not in bound:
                continue
            other = _fields(right)
            is_bound = other[-1:] == ("session_id",) and bound.get(other[0], False)
            if _parameter(right) == number or is_bound:
                bound[name] = True
    for name in tables:
        if not bound[name]:
            yield f"{name} isn't bound to ${number}"
    for inner in _inner_queries(query):
        yield from _unbound(inner, number, rows, bound, given)


def _equalities(query: Node) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Column and other side of each equality that all rows of the query fulfil."""
    conditions = [query.get("whereClause")]
    conditions += [n.get("quals") for n in _own_nodes(query) if n.get("@") == "JoinExpr"]
    while conditions:
        node = conditions.pop()
        if not isinstance(node, Mapping):
            continue
        if node.get("@") == "BoolExpr" and node["boolop"]["name"] == "AND_EXPR":
            conditions += node["args"]
        elif node.get("@") == "A_Expr" and node["name"][-1]["sval"] == "=":
            yield _fields(node["lexpr"]), node["rexpr"]
            yield _fields(node["rexpr"]), node["lexpr"]


def _inserts_bound(query: Node, number: int, rows: int | None, given: Given) -> bool:
    """Whether session_id is the parameter, or comes from rows that have their own."""
    place = [column["name"] for column in query["cols"]].index("session_id")
    source = query["selectStmt"]
    if "valuesLists" in source:
        return all(_parameter(values[place]) == number for values in source["valuesLists"])
    value = source["targetList"][place]["val"]
    read = (node["relname"] for node in _own_nodes(source) if node.get("@") == "RangeVar")
    unnested = _unnested(source).union(*(given.get(name, set()) for name in read))
    is_of_rows = _fields(value)[-1:] == ("session_id",) and bool(unnested)
    return _parameter(value) == number or (is_of_rows and (rows is None or rows in unnested))


def _unnested(query: Node) -> set[int | None]:
    """The parameters whose elements are rows of the query."""
    return {
        _parameter(argument)
        for node in _own_nodes(query)
        if node.get("@") == "FuncCall" and node["funcname"][-1]["sval"] == "unnest"
        for argument in node["args"]
    }


def _given(tree: Node) -> Given:
    """The CTEs that read no table: the parameters whose elements are their rows."""
    ctes = [node for node in _nodes(tree) if node.get("@") == "CommonTableExpr"]
    return {
        cte["ctename"]: _unnested(cte["ctequery"])
        for cte in ctes
        if not any(node.get("@") == "RangeVar" for node in _nodes(cte["ctequery"]))
    }


# Rule: no function that reads tables, and none over a table's row


def _functions(tree: Node) -> Iterator[str]:
    aliases = {
        node.get("alias", {}).get("aliasname", node["relname"])
        for node in _nodes(tree)
        if node.get("@") == "RangeVar" and node.get("schemaname") == "own"
    }
    for node in _nodes(tree):
        if node.get("@") != "FuncCall":
            continue
        name = node["funcname"][-1]["sval"]
        if name in _READING_FUNCTIONS:
            yield f"{name} reads tables"
        if any(_fields(arg)[:1] and set(_fields(arg)) <= aliases for arg in node.get("args", ())):
            yield f"{name} takes a table's row"


# Rule: what changes rows computes nothing by functions that are merely stable


def _unstable(tree: Node) -> Iterator[str]:
    for query in _nodes(tree):
        changes: list[Any] = []
        if query.get("@") == "UpdateStmt":
            changes = [query["targetList"], query.get("whereClause")]
        elif query.get("@") == "OnConflictClause":
            changes = [query.get("targetList"), query.get("whereClause")]
            if any(_is_now(node) for node in _nodes(changes)):
                yield "ON CONFLICT reads the clock"
        nodes = [node for part in changes for node in _own_nodes(part, top=False)]
        if any(_adds_interval(node) for node in nodes):
            yield "a time is computed by an interval"
        choices = (node for node in nodes if node.get("@") in ("CaseExpr", "CoalesceExpr"))
        if any(_is_now(below) for node in choices for below in _nodes(node)):
            yield "CASE or COALESCE reads the clock"


def _is_now(node: Node) -> bool:
    return node.get("@") == "FuncCall" and node["funcname"][-1]["sval"] in _CLOCKS


def _adds_interval(node: Node) -> bool:
    if node.get("@") != "A_Expr" or node["name"][-1].get("sval") not in ("+", "-"):
        return False
    types = (n["typeName"] for n in _nodes(node) if n.get("@") == "TypeCast")
    return any(type_["names"][-1]["sval"] == "interval" for type_ in types)


# Rule: what changes rows gives them back as they are, or by functions that are immutable


def _returned(tree: Node) -> Iterator[str]:
    for query in _nodes(tree):
        for node in _nodes(query.get("returningClause", ())):
            name = node["funcname"][-1]["sval"] if node.get("@") == "FuncCall" else ""
            if name in _STABLE_FUNCTIONS:
                yield f"RETURNING computes {name}"


# Rule: locks that pass over others are of one session


def _any_locks(tree: Node, kind: str) -> Iterator[str]:
    for node in _nodes(tree):
        is_skipping = node.get("@") == "LockingClause" and "Skip" in node["waitPolicy"]["name"]
        if is_skipping and kind != "uuid":
            yield "SKIP LOCKED over sessions of any shard"


# Tests


@pytest.mark.parametrize("statement", _STATEMENTS, ids=lambda s: s.name)
def test_a_statement_names_the_parameter_that_says_where_its_rows_are(statement: Statement) -> None:
    """Or says that they may be anywhere; then it is none of those that need a parameter."""
    names = [name for name, _ in statement.params]
    assert statement.shard in (*names, "all")
    tree = parsed(statement.text)
    named = [n["relname"] for n in _nodes(tree) if n.get("@") == "RangeVar"]
    tables = _TABLES & set(named) - _ON_ONE_SERVER
    takes_one = ("session_id", "uuid") in statement.params and tables
    assert not (statement.shard == "all" and takes_one)
    skips = any("Skip" in str(n.get("waitPolicy")) for n in _nodes(tree))
    assert not (skips and statement.shard == "all") or statement.name in _LOCKS_ANYWHERE


@pytest.mark.parametrize("statement", _ROUTED, ids=lambda s: s.name)
def test_a_statement_with_a_shard_is_one_that_citus_takes(statement: Statement) -> None:
    """Every rule, for every statement that goes to one server."""
    assert refusals(statement) == []


def _statement(text: str, params: Sequence[tuple[str, str]] = ()) -> Statement:
    return Statement(
        name="made_up",
        text=text,
        params=(("session_id", "uuid"), *params),
        columns=(),
        shard="session_id",
    )


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("select from {schema}.agent_states s where s.checkpoint_id = $2", "s isn't bound to $1"),
        (
            (
                "select from {schema}.agent_states s join {schema}.agent_messages m"
                " on m.message_no = 1 where s.session_id = $1"
            ),
            "m isn't bound to $1",
        ),
        (
            (
                "select from {schema}.agent_states s"
                " where s.session_id = $1 or s.checkpoint_id = 'other'"
            ),
            "s isn't bound to $1",
        ),
        (
            (
                "select from unnest($2::uuid[]) k (session_id)"
                " join {schema}.agent_states s on s.session_id = k.session_id"
            ),
            "s isn't bound to $1",
        ),
        (
            (
                "select (select count(*) from {schema}.agent_messages m)"
                " from {schema}.agent_states s where s.session_id = $1"
            ),
            "m isn't bound to $1",
        ),
        (
            "insert into {schema}.agent_sessions (session_id, thread_id) values ($2, 't')",
            "rows of agent_sessions don't say by $1 where they go",
        ),
        (
            (
                "select {schema}.pgsaga_joined_blobs($1, v.blob_hashes)"
                " from {schema}.agent_state_values v where v.session_id = $1"
            ),
            "pgsaga_joined_blobs reads tables",
        ),
        (
            "select to_jsonb(s) from {schema}.agent_states s where s.session_id = $1",
            "to_jsonb takes a table's row",
        ),
        (
            (
                "delete from {schema}.agent_sessions s where s.session_id = $1"
                " returning to_jsonb(s.created_at)"
            ),
            "RETURNING computes to_jsonb",
        ),
        (
            (
                "update {schema}.agent_sessions s set expires_at = now() + interval '1 day'"
                " where s.session_id = $1"
            ),
            "a time is computed by an interval",
        ),
        (
            (
                "update {schema}.agent_sessions s set expires_at = coalesce(s.expires_at, now())"
                " where s.session_id = $1"
            ),
            "CASE or COALESCE reads the clock",
        ),
        (
            (
                "update {schema}.agent_sessions s"
                " set expires_at = coalesce(s.expires_at, {schema}.pgsaga_now())"
                " where s.session_id = $1"
            ),
            "CASE or COALESCE reads the clock",
        ),
        (
            (
                "insert into {schema}.agent_sessions as s (session_id, thread_id) values ($1, 't')"
                " on conflict (session_id) do update set status = 'active'"
                " where s.expires_at <= now()"
            ),
            "ON CONFLICT reads the clock",
        ),
        (
            (
                "select from {schema}.agent_sessions s where s.session_id = any($1) for update"
                " skip locked"
            ),
            "SKIP LOCKED over sessions of any shard",
        ),
    ],
    ids=lambda value: value if " " in value and len(value) < 60 else "",
)
def test_each_rule_sees_what_it_is_about(text: str, refusal: str) -> None:
    """A made-up statement that breaks one rule is told by that rule, and by no other."""
    statement = _statement(text, [("others", "uuid[]")])
    if refusal.startswith("SKIP"):
        statement = Statement(
            name="made_up",
            text=text,
            params=(("session_ids", "uuid[]"),),
            columns=(),
            shard="session_ids",
        )
    assert refusals(statement) == [refusal]


def test_what_reads_tables_is_known() -> None:
    """The functions of the migrations that no routed statement may call."""
    of_events = {
        "pgsaga_append_each",
        "pgsaga_append_is_allowed",
        "pgsaga_event_matches",
    }
    of_stores = {"pgsaga_create_store_vectors", "pgsaga_keep_vectors"}
    others = _READING_FUNCTIONS - of_events - of_stores
    assert others == {"pgsaga_joined_blobs", "pgsaga_stored_channels"}
    assert of_events | of_stores <= _READING_FUNCTIONS
    assert "agent_states" in _TABLES
