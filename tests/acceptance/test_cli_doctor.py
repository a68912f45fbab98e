"""`pgsaga doctor`, as a process."""

from __future__ import annotations

import asyncio
import json
from urllib.parse import urlsplit

from tests._cli import order, pgsaga
from tests.conftest import execute


def test_the_exit_code_is_the_worst_check(dsn: str, empty_dsn: str) -> None:
    """0 where all is well, 3 for warnings, 1 for failures; the document says which."""
    order(dsn, "order-1", "tea")
    well = pgsaga("doctor", "--json", "--dsn", dsn)
    document = json.loads(well.stdout)
    assert well.returncode == {"ok": 0, "warn": 3}[document["status"]]
    assert {tuple(check) for check in document["checks"]} == {("name", "status", "found", "advice")}
    name = urlsplit(dsn).path.removeprefix("/")
    asyncio.run(execute(dsn, f'alter database "{name}" set synchronous_commit = off'))
    warned = pgsaga("doctor", "--dsn", dsn)
    assert warned.returncode == 3
    assert "synchronous_commit" in warned.stdout
    failed = pgsaga("doctor", "--dsn", empty_dsn)
    assert failed.returncode == 1
    assert "run `pgsaga migrate up`" in failed.stdout
    assert failed.stderr == ""


def test_a_server_that_isnt_there_is_one_line() -> None:
    """Nothing to look at is an error, without the password."""
    done = pgsaga("doctor", "--dsn", "postgresql://u:s3cret@127.0.0.1:1/x")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "can't reach" in done.stderr
    assert "s3cret" not in done.stderr
