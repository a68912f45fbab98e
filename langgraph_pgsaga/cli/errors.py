"""Errors in the words of the command line: options instead of arguments, commands instead of calls.

Nothing of a connection string that somebody put in the wrong place is shown.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from langgraph_pgsaga import errors
from langgraph_pgsaga._json import shortened
from langgraph_pgsaga.cli.output import ExitCode

# The options whose names aren't those of the arguments that they become.
_OPTIONS = {
    "dsn": "--dsn (or PGSAGA_DSN)",
    "checkpoint_ns": "--ns",
    "user_id": "--user",
    "aggregate_id": "AGGREGATE",
    "consumer": "CONSUMER",
    "event_id": "EVENT",
    "types": "--type",
    "roles": "--role",
    "query": "--search",
}
_LONGEST_ID = 200
_SECRET = re.compile(
    # Of a URL what follows the user, but for a port; of key-value pairs a password.
    r"(?<=://)[^\s@/:]*:(?!\d+(?:[/,?\s'\"]|$))[^\s'\"]*|(?<=passw)(?:ord|d)\s*=\s*(?:'[^']*'?|[^\s'\"]+)"
)


def exit_code(error: errors.PgSagaError) -> ExitCode:
    """A value that can't be used whatever is there is a mistake in the command."""
    is_mistake = isinstance(error, errors.InvalidArgumentError)
    return ExitCode.USAGE if is_mistake else ExitCode.ERROR


def told(error: errors.PgSagaError) -> str:
    """What the error says, for who typed a command."""
    for kind in type(error).__mro__:
        if kind in _WORDS:
            return _WORDS[kind](error)
    return str(error)


def of_usage(error: Any) -> str:
    """What the parser's error says; of an option that stands before its command, where it goes."""
    text: str = error.format_message()
    group = error.ctx.command if error.ctx else None
    option: str = getattr(error, "option_name", "")
    is_commands = option in _options_below(group)
    return f"{text}. It goes behind the command" if is_commands else text


def _options_below(group: Any) -> Iterator[str]:
    """The options of a group's commands."""
    for command in getattr(group, "commands", {}).values():
        for parameter in command.params:
            yield from parameter.opts
        yield from _options_below(command)


def without_secrets(text: str, words: Sequence[str]) -> str:
    """The text without what looks like the secret part of a connection string.

    `words` are those of the command: of one that holds a secret, nothing is shown.
    """
    for value in sorted(_secret_values(words), key=len, reverse=True):
        for form in (value, repr(value)[1:-1]):
            text = text.replace(form, "...")
    return _SECRET.sub("...", text)


def _secret_values(words: Sequence[str]) -> Iterator[str]:
    for word in words:
        if _SECRET.search(word):
            yield word
            if word.startswith("-"):
                yield word.partition("=")[2]


def _of_argument(error: errors.InvalidArgumentError) -> str:
    option = _OPTIONS.get(error.argument, f"--{error.argument.lstrip('-').replace('_', '-')}")
    return f"{option}: {error.problem}"


def _of_cursor(error: errors.InvalidCursorError) -> str:
    cursor = shortened(error.cursor, _LONGEST_ID)
    return (
        f"--after: {error.problem}: {cursor!r}. Pass what the page before printed, with the same "
        "--order"
    )


def _of_missing_memory(error: errors.MissingMemoryError) -> str:
    return f"there is no memory {error.memory_id} of this user and thread; `pgsaga memory list`"


def _of_missing_thread(error: errors.MissingThreadError) -> str:
    return (
        f"there is no thread {_shown(error.thread_id)!r}. Check the id, --dsn, --schema and "
        "--tenant; a thread is there once a graph has run with its id"
    )


def _of_taken(error: errors.ThreadExistsError) -> str:
    thread = _shown(error.thread_id)
    return (
        f"thread {thread!r} already holds state. Choose another, or delete it first: "
        f"pgsaga sessions delete {shlex.quote(thread)}"
    )


def _of_diverged(error: errors.ThreadDivergedError) -> str:
    thread = _shown(error.thread_id)
    return (
        f"thread {thread!r} went on in both savers, each its own way. Keep one: leave it out, or "
        f"import it again after pgsaga sessions delete {shlex.quote(thread)}"
    )


def _of_migrations(error: errors.MissingMigrationsError) -> str:
    return (
        f"{error.detail} in {error.dsn}: the schema isn't there or isn't up to date. "
        "If --dsn and --schema are right, run `pgsaga migrate up` with them"
    )


def _of_other_tables(error: errors.OtherTablesError) -> str:
    return (
        f"no schema on the search_path has the tables, but {error.schema!r} has. Pass "
        f"--schema {shlex.quote(error.schema)} to use those, or "
        f"--schema {shlex.quote(error.new_schema)} to make new, empty ones on purpose"
    )


def _of_checkpoint(error: errors.MissingCheckpointError) -> str:
    thread = _shown(error.thread_id)
    return (
        f"thread {thread!r} has no such checkpoint. `pgsaga history {shlex.quote(thread)}` "
        "lists those it has"
    )


def _of_deleted(error: errors.CheckpointDeletedError) -> str:
    return (
        f"checkpoint {error.checkpoint_id!r} of thread {_shown(error.thread_id)!r}, or what it is "
        "built on, was deleted meanwhile. Try again"
    )


def _of_blocked(error: errors.BlockedTypeError) -> str:
    return (
        f"{error.place()}a stored value wants to become {error.module}.{error.name}, which isn't "
        f"allowed. If it is a type of yours, pass --import {error.module}"
    )


def _of_missing(error: errors.MissingTypeError) -> str:
    return (
        f"{error.place()}a stored value needs {error.module}.{error.name}, which isn't loaded "
        f"here. --import {error.module} imports it"
    )


def _of_changed(error: errors.ChangedClassError) -> str:
    return (
        f"{error.place()}{error.module}.{error.name} has changed since a value of it was stored: "
        f"{error.problem}"
    )


def _of_encrypted(error: errors.EncryptedValueError) -> str:
    return (
        f"{error.place()}what is stored is encrypted, and commands have no keys. Read it in "
        "Python, with the serializer that encrypted it"
    )


def _shown(thread_id: str) -> str:
    return shortened(thread_id, _LONGEST_ID)


# Of an error, the nearest of its classes counts.
_WORDS: dict[type[BaseException], Callable[[Any], str]] = {
    errors.InvalidArgumentError: _of_argument,
    errors.InvalidCursorError: _of_cursor,
    errors.MissingThreadError: _of_missing_thread,
    errors.MissingMemoryError: _of_missing_memory,
    errors.ThreadExistsError: _of_taken,
    errors.ThreadDivergedError: _of_diverged,
    errors.MissingMigrationsError: _of_migrations,
    errors.OtherTablesError: _of_other_tables,
    errors.MissingCheckpointError: _of_checkpoint,
    errors.CheckpointDeletedError: _of_deleted,
    errors.BlockedTypeError: _of_blocked,
    errors.MissingTypeError: _of_missing,
    errors.ChangedClassError: _of_changed,
    errors.EncryptedValueError: _of_encrypted,
}
