"""diagnose: whether a server is fit for what this package keeps there, and what to do if not."""

from __future__ import annotations

import shlex
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum

import asyncpg

from langgraph_pgsaga._arguments import checked_instance
from langgraph_pgsaga.database import (
    Connection,
    Database,
    load_statements,
    migration_status,
    render,
    table_schemas,
)
from langgraph_pgsaga.doctor import catalogue, privileges
from langgraph_pgsaga.errors import (
    InvalidArgumentError,
    MigrationError,
    MissingMigrationsError,
    OtherTablesError,
    ServerConnectionError,
    ServerError,
)

_STATEMENTS = load_statements("doctor")
_OLDEST_VERSION = 150000
_PINGS = 5
_SLOW_PING_SECONDS = 0.02
_IDLE_SECONDS, _ACTIVE_SECONDS = 60, 300
_OLD_TRANSACTIONS, _OLDEST_TRANSACTIONS = 1_000_000_000, 1_800_000_000
_MANY_DEAD, _LARGEST_DEAD_PART = 10_000, 0.4
_MANY_UPDATES, _SMALLEST_HOT_PART = 1_000, 0.9
_LARGEST_LAG_BYTES, _LARGEST_LAG_SECONDS = 128 * 2**20, 30
_LARGEST_KEPT_BYTES = 2**30
_FULL_PART = 0.8
_SMALL_BUFFERS_BYTES = 128 * 2**20
_LARGEST_TABLES = 3


class CheckStatus(Enum):
    """What a check says; the worst of all is the diagnosis's."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What was looked at, what was found, and what to do; `advice` is '' where nothing is."""

    name: str
    status: CheckStatus
    found: str
    advice: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """All checks, in a fixed order."""

    checks: tuple[Check, ...]

    @property
    def status(self) -> CheckStatus:
        """FAIL if a check failed, else WARN if one warns, else OK."""
        return max((check.status for check in self.checks), key=list(CheckStatus).index)


async def diagnose(db: Database) -> Diagnosis:
    """Looks at the server's statistics and settings, and at the tables. Writes nothing.

    What the user may not look at is a warning of that check. Statistics are those since the
    server's last reset of them.

    Raises:
        ServerConnectionError: the server can't be reached at all.
    """
    checked_instance("db", db, Database, "Pass a Database, such as saver.db")
    found: list[Check] = []
    for names, look in _GENERAL:
        found += await _looked(names, look, db)
    (migrations,) = await _looked(("migrations",), _migrations, db)
    found.append(migrations)
    if migrations.status is not CheckStatus.FAIL:
        for names, look in _OF_TABLES:
            found += await _looked(names, look, db)
    return Diagnosis(checks=tuple(found))


Look = Callable[[Database], Awaitable[list[Check]]]


async def _looked(names: Sequence[str], look: Look, db: Database) -> list[Check]:
    """What one look shows; where it isn't permitted, that, for each check that needs it."""
    try:
        return await look(db)
    except ServerConnectionError:
        raise
    except (ServerError, MissingMigrationsError) as error:
        found, advice = f"couldn't check: {error.detail}", "see what it says, or ask a user who may"
        return [_warn(name, found, advice) for name in names]


async def _server(db: Database) -> list[Check]:
    row = await _one(db, "describe_server")
    return [
        _version(row),
        _vector(row),
        _encoding(row["encoding"]),
        _words(row["character_types"]),
        _transaction_age(row["transaction_age"]),
    ]


def _version(row: asyncpg.Record) -> Check:
    if row["version_number"] < _OLDEST_VERSION:
        return _fail("server", f"PostgreSQL {row['version']}", "use PostgreSQL 15 or later")
    if row["is_standby"]:
        advice = "point the DSN at the primary: a standby takes no writes"
        return _warn("server", f"PostgreSQL {row['version']}, a standby", advice)
    if row["is_read_only"]:
        found = f"PostgreSQL {row['version']}, default_transaction_read_only is on"
        return _fail("server", found, "turn it off for this role and database: nothing is stored")
    return _ok("server", f"PostgreSQL {row['version']}")


def _vector(row: asyncpg.Record) -> Check:
    version = row["vector_version"]
    return _ok("pgvector", version or "not installed; nothing here needs it but vectors")


def _encoding(encoding: str) -> Check:
    if encoding == "UTF8":
        return _ok("encoding", encoding)
    if encoding == "SQL_ASCII":
        found = f"{encoding}: the server takes each byte for a character, and may cut one in two"
    else:
        found = f"{encoding}: messages, names and ids with other characters are refused"
    return _warn("encoding", found, "carry the rows to a database made with encoding 'UTF8'")


def _words(character_types: str) -> Check:
    if character_types not in ("C", "POSIX"):
        return _ok("words", f"LC_CTYPE is {character_types}")
    found = f"LC_CTYPE is {character_types}: a search finds no word next to “ ” « » or —"
    advice = "carry the rows to a database made with lc_ctype 'C.UTF-8', or that of a language"
    return _warn("words", found, advice)


async def _connections(db: Database) -> list[Check]:
    row = await _one(db, "count_connections")
    used, most = row["connections"], row["max_connections"]
    found = f"{used} of {most} in use, {row['own_connections']} by langgraph_pgsaga"
    if used > _FULL_PART * most:
        advice = (
            "raise max_connections, lower Database(max_size=...), or put a pooler in between: "
            "each event loop of each process opens up to max_size (10)"
        )
        return [_warn("connections", found, advice)]
    return [_ok("connections", found)]


def _transaction_age(age: int) -> Check:
    found = f"{age:,} transactions since the oldest row was frozen"
    advice = "let autovacuum freeze, or run VACUUM (FREEZE): at 2,147,483,648 the server stops"
    if age > _OLDEST_TRANSACTIONS:
        return _fail("wraparound", found, advice)
    return (
        _warn("wraparound", found, advice) if age > _OLD_TRANSACTIONS else _ok("wraparound", found)
    )


async def _connection(db: Database) -> list[Check]:
    text = db.text(_STATEMENTS["ping"])

    async def ping(conn: Connection) -> tuple[float, bool]:
        taken: list[float] = []
        for _ in range(_PINGS):
            begun = time.perf_counter()
            pid = await conn.fetchval(text)
            taken.append(time.perf_counter() - begun)
        # A pooler tells its clients a process id of its own making.
        return min(taken), conn.get_server_pid() != pid

    seconds, is_pooled = await db.run(ping)
    return [_round_trip(seconds), await _pooler(db, is_pooled=is_pooled)]


def _round_trip(seconds: float) -> Check:
    found = f"{seconds * 1000:.1f} ms"
    if seconds > _SLOW_PING_SECONDS:
        return _warn("round trip", found, "run closer to the server: each superstep takes one")
    return _ok("round trip", found)


async def _pooler(db: Database, *, is_pooled: bool) -> Check:
    if not is_pooled:
        return _ok("pooler", "none: the connection is direct")
    advice = "if it is in transaction mode, use Database(pooler=True)"
    if (await _settings(db, "jit"))["jit"] == "on":
        advice += "; and turn jit off for this user or database, since it takes no setting"
    return _warn("pooler", "one is in between", advice)


_UNSAFE = {
    "fsync": (CheckStatus.FAIL, "turn it on: a crash of the machine can destroy the database"),
    "full_page_writes": (CheckStatus.FAIL, "turn it on: a crash can leave torn pages"),
    "autovacuum": (CheckStatus.FAIL, "turn it on: tables grow and transaction ids run out"),
    "track_counts": (CheckStatus.FAIL, "turn it on: autovacuum works by these counts"),
    "synchronous_commit": (
        CheckStatus.WARN,
        "turn it on, or accept that a crash loses the last acknowledged states",
    ),
}


async def _durability(db: Database) -> list[Check]:
    settings = await _settings(db, *_UNSAFE)
    return [
        Check(name=name, status=status, found="off", advice=advice)
        if settings[name] == "off"
        else _ok(name, settings[name])
        for name, (status, advice) in _UNSAFE.items()
    ]


async def _memory(db: Database) -> list[Check]:
    settings = await _settings(db, "shared_buffers", "random_page_cost")
    buffers = int(settings["shared_buffers"])
    cost = float(settings["random_page_cost"])
    hint = "on SSDs 1.1 fits better; this package's connections don't depend on it"
    return [
        _warn("shared_buffers", _bytes(buffers), "raise it: a quarter of the memory is usual")
        if buffers < _SMALL_BUFFERS_BYTES
        else _ok("shared_buffers", _bytes(buffers)),
        Check(
            name="random_page_cost",
            status=CheckStatus.OK,
            found=f"{cost:g}",
            advice=hint if cost >= 4 else "",
        ),
    ]


async def _transactions(db: Database) -> list[Check]:
    statement = _STATEMENTS["list_long_transactions"]
    rows = await db.fetch(
        statement.bind(idle_seconds=_IDLE_SECONDS, active_seconds=_ACTIVE_SECONDS)
    )
    idle = [row for row in rows if row["is_idle"]]
    return [
        _long(
            "idle in transaction",
            idle,
            "end it with pg_terminate_backend(pid), and set idle_in_transaction_session_timeout: "
            "it holds locks, and keeps vacuum from cleaning up",
        ),
        _long(
            "long transactions",
            [row for row in rows if not row["is_idle"]],
            "see what it does in pg_stat_activity: it keeps vacuum from cleaning up",
        ),
    ]


def _long(name: str, rows: Sequence[asyncpg.Record], advice: str) -> Check:
    if not rows:
        return _ok(name, "none")
    told = "; ".join(
        f"pid {row['pid']} of {row['user_name'] or '?'}"
        f" ({row['application_name'] or 'no name'}) for {row['seconds']} s"
        for row in rows
    )
    return _warn(name, told, advice)


async def _replicas(db: Database) -> list[Check]:
    rows = await db.fetch(_STATEMENTS["list_replicas"])
    if not rows:
        return [_ok("replicas", "none")]
    behind = [
        row
        for row in rows
        if (row["lag_bytes"] or 0) > _LARGEST_LAG_BYTES
        or (row["lag_seconds"] or 0) > _LARGEST_LAG_SECONDS
    ]
    told = "; ".join(
        f"{row['application_name']} {row['state']}, {_bytes(row['lag_bytes'] or 0)}"
        f" and {row['lag_seconds'] or 0} s behind"
        for row in behind or rows
    )
    if behind:
        return [_warn("replicas", told, "don't read state there until it has caught up")]
    return [_ok("replicas", told)]


async def _slots(db: Database) -> list[Check]:
    rows = await db.fetch(_STATEMENTS["list_idle_slots"])
    if not rows:
        return [_ok("idle slots", "none")]
    told = "; ".join(f"{row['slot_name']} keeps {_bytes(row['kept_bytes'] or 0)}" for row in rows)
    if any((row["kept_bytes"] or 0) > _LARGEST_KEPT_BYTES for row in rows):
        advice = "start its reader or pg_drop_replication_slot() it: the kept WAL fills the disk"
        return [_warn("idle slots", told, advice)]
    return [_ok("idle slots", told)]


async def _migrations(db: Database) -> list[Check]:
    try:
        found = await migration_status(db)
    except OtherTablesError as error:
        return [_fail("migrations", str(error), "on the command line it is --schema")]
    except (MigrationError, InvalidArgumentError) as error:
        advice = "restore what was changed, or use the right version"
        return [_fail("migrations", str(error), advice)]
    newer = [status.name for status in found if status.migration is None]
    pending = [status.name for status in found if status.applied_at is None]
    advice = "run `pgsaga migrate up`"
    if db.schema is not None:
        advice = f"run `pgsaga migrate up --schema {shlex.quote(db.schema)}`"
    if len(pending) == len(found):
        where = "the search_path" if db.schema is None else f"schema {db.schema!r}"
        return [_fail("migrations", f"there are no tables in {where}", advice)]
    if pending:
        return [_fail("migrations", f"pending: {', '.join(pending)}", advice)]
    if newer:
        told = f"a newer release applied {', '.join(newer)}, still serving this one"
        return [_ok("migrations", told)]
    return [_ok("migrations", f"all {len(found)} are applied")]


async def _schemas(db: Database) -> list[Check]:
    used, every = await table_schemas(db)
    others = ", ".join(name for name in every if name != used)
    if others and db.schema is None:
        advice = f"pass schema={used!r}: a change of the search_path could lead to the others"
        found = f"the search_path finds {used}; there are tables in {others}, too"
        return [_warn("schema", found, advice)]
    return [_ok("schema", used + (f"; there are tables in {others}, too" if others else ""))]


async def _objects(db: Database) -> list[Check]:
    told = catalogue.differences(await catalogue.found(db))
    if not told:
        return [_ok("objects", "all that the migrations made is there")]
    if any(status.migration is None for status in await migration_status(db)):
        return [_ok("objects", "not compared: they are a newer release's")]
    advice = "make it again by its statement in migrations/, or restore it from a backup"
    if all(text.endswith(catalogue.INVALID) for text in told):
        advice = "its building failed: reindex index concurrently"
    return [_fail("objects", "; ".join(told), advice)]


async def _privileges(db: Database) -> list[Check]:
    used, _ = await table_schemas(db)
    rows = await privileges.missing(db, used)
    if not rows:
        return [_ok("privileges", "all that the saver needs")]
    lacks: dict[str, list[str]] = {}
    for row in rows:
        lacks.setdefault(f"{row['kind']} {row['name']}", []).append(row["privilege"])
    alike: dict[str, list[str]] = {}
    for name, lacking in lacks.items():
        alike.setdefault(", ".join(lacking), []).append(name)
    told = "; ".join(f"no {lack} on {', '.join(names)}" for lack, names in alike.items())
    advice = (
        "grant usage of the schema, and select, insert, update and delete on all its tables, and "
        "execute on its functions"
    )
    if privileges.WRITING.issuperset(row["privilege"] for row in rows):
        advice += "; to read only, as `pgsaga history` does, what it has is enough"
    return [_fail("privileges", f"role {rows[0]['role']} has {told}", advice)]


async def _tables(db: Database) -> list[Check]:
    rows = await db.fetch(_STATEMENTS["list_tables"].bind(sessions_table=_sessions_table(db)))
    size = sum(row["total_bytes"] for row in rows)
    largest = sorted(rows, key=lambda row: -row["total_bytes"])[:_LARGEST_TABLES]
    told = ", ".join(f"{row['name']} {_bytes(row['total_bytes'])}" for row in largest)
    return [_ok("size", f"{_bytes(size)} in {len(rows)} tables: {told}"), _bloat(rows), _hot(rows)]


def _bloat(rows: Sequence[asyncpg.Record]) -> Check:
    bloated = [
        row
        for row in rows
        if row["dead_rows"] > _MANY_DEAD
        and row["dead_rows"] > _LARGEST_DEAD_PART * (row["live_rows"] + row["dead_rows"])
    ]
    if not bloated:
        dead, live = (sum(row[f"{kind}_rows"] for row in rows) for kind in ("dead", "live"))
        return _ok("dead rows", f"{dead:,} beside {live:,} live ones")
    told = "; ".join(
        f"{row['name']} has {row['dead_rows']:,} dead rows beside {row['live_rows']:,}"
        for row in bloated
    )
    advice = "run VACUUM ANALYZE, and look for what holds autovacuum off: an old transaction"
    return _warn("dead rows", told, advice)


def _hot(rows: Sequence[asyncpg.Record]) -> Check:
    """A superstep's update of its session must touch no index."""
    updates, hot = (
        sum(row[key] for row in rows if row["name"] == "agent_sessions")
        for key in ("updates", "hot_updates")
    )
    if updates < _MANY_UPDATES:
        return _ok("HOT updates", f"{updates:,} updates of agent_sessions, too few to say")
    found = f"{hot / updates:.0%} of {updates:,} updates of agent_sessions"
    if hot < _SMALLEST_HOT_PART * updates:
        advice = (
            "drop indexes of your own on last_activity_at or message_count; "
            "end old transactions, which keep room on its pages from being used again"
        )
        return _warn("HOT updates", found, advice)
    return _ok("HOT updates", found)


async def _row_security(db: Database) -> list[Check]:
    """A row that a policy hides isn't read, and stays where its thread is deleted."""
    statement = _STATEMENTS["list_filtered_tables"]
    rows = await db.fetch(statement.bind(sessions_table=_sessions_table(db)))
    if not rows:
        return [_ok("row security", "none that counts for this user")]
    advice = "give the user bypassrls, or make sure that its policies show it all it wrote"
    names = ", ".join(row["name"] for row in rows)
    return [_warn("row security", f"on for {names}", advice)]


async def _sessions(db: Database) -> list[Check]:
    row = await _one(db, "count_sessions")
    found = f"{row['sessions']:,}, of which {row['expired']:,} have expired"
    if row["overdue"]:
        advice = "run `pgsaga sweep` regularly: some have waited for more than a day"
        return [_warn("sessions", found, advice)]
    return [_ok("sessions", found)]


# The names of the checks that each of them makes.
_GENERAL: tuple[tuple[tuple[str, ...], Look], ...] = (
    (("server", "pgvector", "encoding", "words", "wraparound"), _server),
    (("connections",), _connections),
    (("round trip", "pooler"), _connection),
    (tuple(_UNSAFE), _durability),
    (("shared_buffers", "random_page_cost"), _memory),
    (("idle in transaction", "long transactions"), _transactions),
    (("replicas",), _replicas),
    (("idle slots",), _slots),
)
_OF_TABLES: tuple[tuple[tuple[str, ...], Look], ...] = (
    (("schema",), _schemas),
    (("objects",), _objects),
    (("privileges",), _privileges),
    (("size", "dead rows", "HOT updates"), _tables),
    (("row security",), _row_security),
    (("sessions",), _sessions),
)


async def _one(db: Database, name: str) -> asyncpg.Record:
    (row,) = await db.fetch(_STATEMENTS[name])
    return row


async def _settings(db: Database, *names: str) -> dict[str, str]:
    """Settings as text, sizes in bytes."""
    rows = await db.fetch(_STATEMENTS["list_settings"].bind(names=list(names)))
    return {
        row["name"]: str(int(row["setting"]) * 8192) if row["unit"] == "8kB" else row["setting"]
        for row in rows
    }


def _sessions_table(db: Database) -> str:
    return render("{schema}.agent_sessions", db.schema)


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TB"


def _ok(name: str, found: str) -> Check:
    return Check(name=name, status=CheckStatus.OK, found=found)


def _warn(name: str, found: str, advice: str) -> Check:
    return Check(name=name, status=CheckStatus.WARN, found=found, advice=advice)


def _fail(name: str, found: str, advice: str) -> Check:
    return Check(name=name, status=CheckStatus.FAIL, found=found, advice=advice)
