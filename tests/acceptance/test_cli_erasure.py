"""`pgsaga forget-user`, as a process."""

from __future__ import annotations

from tests._cli import answer, order, output, pgsaga


def threads(dsn: str) -> set[str]:
    page = answer("sessions", "list", "--dsn", dsn)
    return {session["thread_id"] for session in page["sessions"]}


def test_a_user_goes_and_another_one_stays(dsn: str) -> None:
    """As the dry run said; a second call finds nothing."""
    order(dsn, "hers", "tea", user="ada")
    order(dsn, "his", "tea", user="bob")
    dry = answer("forget-user", "ada", "--dry-run", "--dsn", dsn)
    assert (dry["rows"]["agent_sessions"], dry["dry_run"]) == (1, True)
    assert threads(dsn) == {"hers", "his"}
    done = answer("forget-user", "ada", "--yes", "--dsn", dsn)
    assert (done["rows"], done["dry_run"]) == (dry["rows"], False)
    assert threads(dsn) == {"his"}
    again = pgsaga("forget-user", "ada", "--yes", "--dsn", dsn)
    assert (again.returncode, again.stdout) == (0, "")
    assert "nothing is about this user" in again.stderr


def test_it_says_what_goes(dsn: str) -> None:
    """A table for people, and the sum."""
    order(dsn, "hers", "tea", user="ada")
    dry = output("forget-user", "ada", "--dry-run", "--dsn", dsn)
    assert "agent_sessions" in dry
    assert "would delete" in dry
    assert "deleted" in output("forget-user", "ada", "--yes", "--dsn", dsn)


def test_it_asks(dsn: str) -> None:
    """Without --yes nothing goes where nobody is there to ask."""
    order(dsn, "hers", "tea", user="ada")
    done = pgsaga("forget-user", "ada", "--dsn", dsn)
    assert (done.returncode, "--yes" in done.stderr) == (2, True)
    assert threads(dsn) == {"hers"}


def test_namespaces_are_named(dsn: str) -> None:
    """One that can't be one is a mistake, and nothing goes."""
    order(dsn, "hers", "tea", user="ada")
    done = pgsaga("forget-user", "ada", "--namespace", "users..ada", "--yes", "--dsn", dsn)
    assert done.returncode == 2, done.stderr
    assert threads(dsn) == {"hers"}
