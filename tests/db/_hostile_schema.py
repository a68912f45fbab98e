"""Functions and operators in `public` that a statement could resolve to by mistake.

PostgreSQL looks through the whole search_path for the function whose argument types fit
best, and takes one that fits exactly over a polymorphic one of its own. So for whatever
our SQL names, this makes overloads for the types that occur: each raises when it is called.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import asyncpg

_NATURAL = ("text", "name", "int4", "int8", "jsonb", "bytea", "uuid", "timestamptz", "interval")
_CONCRETE = (
    *(*_NATURAL, '"char"', "bool", "int2", "float4", "float8", "numeric", "varchar", "oid", "xid8"),
    *("pg_lsn", "tsvector", "tsquery", "regconfig", "regclass", "int4range", "int4multirange"),
)
_ELEMENTS = {"anyelement", "anycompatible", "anynonarray", "any", "anyenum"}
_ARRAYS = {"anyarray", "anycompatiblearray"}
_RANGES = {"anyrange", "anymultirange", "anycompatiblerange", "anycompatiblemultirange"}
_NAMED = re.compile(r"([a-z_][a-z0-9_]*)\s*\(")
_SYMBOL = re.compile(r"[-+*/<>=~!@#%^&|`?]+")
# What SQL's own words stand for: in, any, between, like, nullif, is distinct from.
_WORDS = {"=", "<>", "<", "<=", ">", ">=", "~~", "!~~", "~~*"}
_BOOLEAN = _WORDS | {"~", "!~", "~*", "@>", "<@", "?", "?|", "?&", "@@", "&&"}

_FUNCTIONS = """
  select p.proname as name, p.proretset as is_set, format_type(p.prorettype, null) as result,
    p.provariadic <> 0 as is_variadic,
    array(
      select format_type(a, null) from unnest(p.proargtypes) with ordinality t (a, i) order by i
    ) as arguments
  from pg_proc p
  where p.pronamespace = 'pg_catalog'::regnamespace and p.proname = any ($1::text[])
    and p.pronargs between 1 and 5
"""
_BODY = "language plpgsql as $$begin raise exception 'hostile % ran', '{name}'; end$$"


async def plant(dsn: str, texts: Iterable[str], rows: Iterable[str] = ()) -> int:
    """Makes the overloads for what `texts` name, or those for `rows` alone; says how many."""
    plain = [re.sub(r"'(?:[^']|'')*'", "''", re.sub(r"--.*", "", text)) for text in texts]
    names = sorted({name for text in plain for name in _NAMED.findall(text)})
    symbols = sorted({s for text in plain for s in _SYMBOL.findall(text)} | _WORDS - {"=>"})
    types = [form for name in rows or _CONCRETE for form in (name, f"{name}[]")]
    conn = await asyncpg.connect(dsn, server_settings={"search_path": "pg_catalog"})
    try:
        made = _functions(await conn.fetch(_FUNCTIONS, names), types)
        made += _operators(symbols, types)
        await conn.execute("set check_function_bodies = off")
        await conn.execute(_TRY)
        for start in range(0, len(made), 2000):
            await conn.execute("select pg_temp.try($1)", made[start : start + 2000])
        return int(await conn.fetchval(_COUNT))
    finally:
        await conn.close()


# What PostgreSQL refuses (a pair that has no such operator) is no danger.
_TRY = """
  create function pg_temp.try(texts text[]) returns void language plpgsql as $body$
  declare line text;
  begin
    foreach line in array texts loop
      begin execute line; exception when others then null; end;
    end loop;
  end $body$
"""
_COUNT = """
  select (select count(*) from pg_proc where pronamespace = 'public'::regnamespace)
    + (select count(*) from pg_operator where oprnamespace = 'public'::regnamespace)
"""


def _functions(known: Iterable[asyncpg.Record], types: list[str]) -> list[str]:
    made: dict[str, None] = {}
    for row in known:
        for arguments, element in _signatures(row, types):
            result = _result(row["result"], element)
            result = f"setof {result}" if row["is_set"] else result
            made[
                f"create function public.{row['name']}({', '.join(arguments)}) returns {result} "
                + _BODY.format(name=row["name"])
            ] = None
    return list(made)


def _signatures(row: asyncpg.Record, types: list[str]) -> Iterator[tuple[list[str], str]]:
    """Arguments that would fit better than the polymorphic, variadic or converted ones."""
    arguments = list(row["arguments"])
    loose = [i for i, a in enumerate(arguments) if a.strip('"') in _ELEMENTS | _ARRAYS | _RANGES]
    for concrete in types if loose else ():
        yield [_instance(a, concrete) for a in arguments], concrete
    if row["is_variadic"]:
        for size in range(9):
            yield [*arguments[:-1], *["text"] * size], "text"
        for concrete in types:
            for size in (1, 2, 3):
                yield [*arguments[:-1], *[concrete] * size], concrete
    for place in range(len(arguments)) if not loose else ():
        for concrete in types:
            yield [*arguments[:place], concrete, *arguments[place + 1 :]], concrete


def _instance(argument: str, concrete: str) -> str:
    name = argument.strip('"')
    if name in _ELEMENTS:
        return concrete
    if name in _ARRAYS:
        return concrete if concrete.endswith("[]") else f"{concrete}[]"
    if name in _RANGES:
        return concrete if "range" in concrete else "int4range"
    return argument


def _result(result: str, element: str) -> str:
    name = result.strip('"')
    if name in _ELEMENTS | _RANGES | {"any"}:
        return element.removesuffix("[]")
    if name in _ARRAYS:
        return element if element.endswith("[]") else f"{element}[]"
    return result


def _operators(symbols: list[str], types: list[str]) -> list[str]:
    made: list[str] = []
    for left, right in _pairs(types):
        name = f"hostile_{len(made)}"
        results: dict[str, str] = {}
        for symbol in symbols:
            result = "boolean" if symbol in _BOOLEAN else left
            result = "text" if symbol in ("->>", "#>>") else result
            if result not in results:
                results[result] = f"{name}_{len(results)}"
                made.append(
                    f"create function public.{results[result]}({left}, {right}) "
                    f"returns {result} " + _BODY.format(name=f"{left} {symbol} {right}")
                )
            made.append(
                f"create operator public.{symbol} (leftarg = {left}, rightarg = {right}, "
                f"function = public.{results[result]})"
            )
    return made


def _pairs(types: list[str]) -> list[tuple[str, str]]:
    found = {(one, one) for one in types}
    for one in types:
        for other in (*_NATURAL, one.removesuffix("[]"), f"{one.removesuffix('[]')}[]", "text[]"):
            found |= {(one, other), (other, one)}
    return sorted(found)
