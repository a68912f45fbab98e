"""What can't be used: exit code 2, and a message in the words of the command line."""

from __future__ import annotations

import ast
import asyncio
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from langgraph_pgsaga import cli, errors
from langgraph_pgsaga.cli import errors as errors_of_cli
from langgraph_pgsaga.cli.errors import told, without_secrets
from tests._cli import order, pgsaga
from tests.acceptance.test_cli import every_command
from tests.conftest import execute, with_database

NOT_UTF8 = "\udcff"
# Of options and arguments by name, what can't be used whatever is there.
UNUSABLE: dict[str, list[str]] = {
    "thread": ["", NOT_UTF8],
    "threads": ["", NOT_UTF8],
    "other_thread": ["", NOT_UTF8],
    "tenant": ["", NOT_UTF8, "t" * 256],
    "to": ["", NOT_UTF8],
    "user_id": ["", NOT_UTF8],
    "query": ["", NOT_UTF8],
    "language": ["", NOT_UTF8],
    "memory_id": ["", "x", NOT_UTF8],
    "embedder": ["", "x", "no_such_module:x", "os:no_such_name", "app/models.py:x"],
    "model": [NOT_UTF8],
    "namespace": ["", "a..b", ".", NOT_UTF8],
    "dsn": ["", "nonsense", "mysql://h/d", NOT_UTF8],
    "schema": ["", "x" * 64, NOT_UTF8],
    "source": ["", "mongo:x", "sqlite:/no/such/file", "postgres:nonsense"],
    "after": ["x", NOT_UTF8],
    "imports": ["no_such_module"],
    "export": ["/no/such/folder/file"],
    **{name: [NOT_UTF8] for name in ("ns", "user", "agent_type", "text", "tag")},
    **{
        name: [NOT_UTF8] for name in ("checkpoint", "name", "node", "at", "search", "type_", "role")
    },
    "aggregate": ["", NOT_UTF8],
    "consumer": ["", NOT_UTF8],
    "event": ["", NOT_UTF8],
    "aggregate_type": ["", NOT_UTF8],
}
# What finds or makes something, or doesn't find it, which is no mistake in the command.
USABLE = {"branch", "path", "host"}
# A text that no message has.
FILTERS = [(["messages"], "text"), (["messages"], "ns")]
REQUIRED = {
    "THREAD": "t",
    "USER": "u",
    "TEXT": "x",
    "MODULE:ATTRIBUTE": "json:dumps",
    "--dims": "2",
    "MEMORY": "0198c3a4-5b6c-7d8e-9fa0-b1c2d3e4f506",
    "BEFORE": "1",
    "--at": "1",
    "--from": "sqlite:/no/such/file",
    "AGGREGATE": "a",
    "CONSUMER": "c",
    "EVENT": "e",
    "MODULE:ATTRIBUTE|list": "list",
}
# What a value needs beside it to mean something.
BESIDE = {"user": ["--search", "x"]}
# Options that a command can't do without, though each alone isn't required.
NEEDED = {"memory": ["--user", "ann"], "memory sweep": ["--max-age", "1d"], "memory reembed": []}
PYTHONS_WORDS = re.compile(
    r"config=|schema=|dsn=|max_size|pooler=|\bsaver\b|\w\(\)|\bNone\b|\bdict\b|next_cursor|\bint\b"
)


def params_of(words: list[str]) -> list[Any]:
    """The options and arguments of a command."""
    command: Any = typer.main.get_command(cli.app)
    for word in words:
        command = command.commands[word]
    return list(command.params)


def cases() -> Iterator[Any]:
    """Each command with each of its parameters of which some value can't be used."""
    for words in every_command():
        for param in params_of(words):
            if values_of(param) and (words, param.name) not in FILTERS:
                yield pytest.param(words, param.name, id=f"{' '.join(words)} {param.name}")


def values_of(param: Any) -> list[str]:
    if getattr(param, "is_flag", False) or param.name in {"help", *USABLE}:
        return []
    if param.param_type_name == "argument" and param.name in {"before", "after"}:
        return [NOT_UTF8]
    if param.name in UNUSABLE:
        return UNUSABLE[param.name]
    bounds = [(getattr(param, "min", None), -1), (getattr(param, "max", None), 1)]
    beyond = [str(bound + step) for bound, step in bounds if bound is not None]
    return ["frob", "", *beyond, *(["9" * 25] if beyond else [])]


def shown_name(param: Any) -> str:
    """An option's longest form, an argument's metavar."""
    if param.param_type_name == "argument":
        return str(param.metavar or param.name)
    return str(max(param.opts, key=len))


def typed(words: list[str], params: list[Any], param: Any, value: str) -> list[str]:
    """The command with what it needs, and this value."""
    needed = NEEDED.get(" ".join(words), NEEDED.get(words[0], []))
    typed = [*words, *BESIDE.get(param.name, []), *(needed if needed[:1] != param.opts else [])]
    for other in params:
        name = shown_name(other)
        if other.name == param.name:
            typed += [value] if param.param_type_name == "argument" else [name, value]
        elif other.required:
            given = REQUIRED[name]
            typed += [given] if other.param_type_name == "argument" else [name, given]
    return typed


@pytest.fixture(scope="module")
def shop_dsn(server_dsn: str, template_database: str) -> Iterator[str]:
    """A database with a thread, for all of them: none of them writes."""
    name = f"{template_database}_mistakes"
    asyncio.run(execute(server_dsn, f'create database "{name}" template "{template_database}"'))
    dsn = with_database(server_dsn, name)
    order(dsn, "t", "tea")
    yield dsn
    asyncio.run(execute(server_dsn, f'drop database "{name}" with (force)'))


@pytest.mark.parametrize(("words", "name"), list(cases()))
def test_a_value_that_cant_be_used_is_a_usage_error(
    shop_dsn: str,
    words: list[str],
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit code 2, the option's name, nothing of Python's, and nothing on stdout."""
    monkeypatch.setenv("PGSAGA_DSN", shop_dsn)
    params = params_of(words)
    (param,) = (one for one in params if one.name == name)
    for value in values_of(param):
        monkeypatch.setattr(sys, "argv", ["pgsaga", *typed(words, params, param, value)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        assert (ended.value.code, out) == (2, ""), (value, err)
        told = err.splitlines()[-1]
        assert shown_name(param) in told, (value, err)
        assert not PYTHONS_WORDS.search(told), (value, err)


SECRETS = (
    "postgresql://u:s3cret@h/db",
    "postgresql+psycopg://u:s3cret@h:5432/db",
    "postgresql://u:a@s3cret/x@h/db",
    "postgresql://h/db?password=s3cret",
    "host=h password=s3cret",
    "host=h passwd = 's3cret x'",
    f"postgresql://u:{'s3cret' * 20}@h/db",
)


@pytest.mark.parametrize(
    "command",
    [
        ["history", "t"],
        ["history"],
        [],
        ["history", "t", "--limit"],
        ["messages", "--since"],
        ["messages", "--order"],
        ["messages", "--after"],
        ["sessions", "list", "--metadata"],
        ["diff", "t", "1", "2"],
        ["show", "t", "--checkpoint"],
        ["import", "--from"],
    ],
    ids=" ".join,
)
def test_a_connection_string_in_the_wrong_place_is_not_shown(
    shop_dsn: str,
    command: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Neither what parses the command nor what looks for a thread of that name shows a password."""
    monkeypatch.setenv("PGSAGA_DSN", shop_dsn)
    for secret in SECRETS:
        for words in ([*command, secret], [*command[:-1], f"{''.join(command[-1:])}={secret}"]):
            monkeypatch.setattr(sys, "argv", ["pgsaga", *words])
            with pytest.raises(SystemExit) as ended:
                cli.main()
            said = "".join(capsys.readouterr())
            assert ended.value.code in (1, 2), words
            assert "s3cret" not in said, words


def test_what_is_no_secret_is_shown() -> None:
    """Ports, connection strings without a password, and advice about one."""
    for text in (
        "at postgresql://h:5432/db: x",
        "postgresql://u@h:5432/db",
        "at http://x/a:b",
        "it is called password=",
    ):
        assert without_secrets(text, []) == text


def _texts() -> Iterator[str]:
    """Every text in the package's code, docstrings among them."""
    for path in Path(cli.__file__).parents[1].rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_no_advice_of_the_package_looks_like_a_secret() -> None:
    """What the package says itself comes out whole: its examples have no password in them."""
    pattern = errors_of_cli._SECRET.pattern
    cut = [text for text in _texts() if text not in pattern and without_secrets(text, []) != text]
    assert cut == []


DSN = "postgresql://u@h/d"


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (errors.MissingThreadError(thread_id="t"), "--tenant"),
        (errors.EncryptedValueError(what="w", problem="p"), "commands have no keys"),
        (errors.ThreadExistsError(thread_id="a b"), "pgsaga sessions delete 'a b'"),
        (errors.ThreadDivergedError(thread_id="t"), "pgsaga sessions delete t"),
        (errors.MissingMigrationsError(dsn=DSN, detail="d"), "`pgsaga migrate up`"),
        (errors.OtherTablesError(schema="a", new_schema="b"), "--schema a"),
        (errors.MissingCheckpointError(thread_id="t"), "`pgsaga history t`"),
        (errors.CheckpointDeletedError(thread_id="t", checkpoint_id="c"), "Try again"),
        (errors.BlockedTypeError(module="shop.state", name="Plan"), "--import shop.state"),
        (errors.MissingTypeError(module="shop.state", name="Plan"), "--import shop.state"),
        (errors.ChangedClassError(module="m", name="C", problem="p"), "m.C has changed"),
        (errors.InvalidArgumentError(argument="user_id", problem="p"), "--user: p"),
        (errors.InvalidArgumentError(argument="dsn", problem="p"), "--dsn (or PGSAGA_DSN): p"),
        (errors.InvalidCursorError(problem="p", cursor="c"), "--order"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_name_what_one_types(error: errors.PgSagaError, says: str) -> None:
    """Commands and options in the place of calls and arguments."""
    assert says in told(error)
    assert not PYTHONS_WORDS.search(told(error))
    assert not re.search(r"allow=|lenient=|history\(", told(error))


def test_a_word_that_isnt_there_is_no_usage_error(shop_dsn: str) -> None:
    """A thread, a checkpoint, a session that could be there: exit code 1."""
    for command in (["history", "nope"], ["show", "t", "--step", "77"], ["diff", "t", "nope"]):
        done = pgsaga(*command, "--dsn", shop_dsn)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done.stderr
