"""The keywords of a Database and of a saver: typed, checked, and told from others."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import pytest

from langgraph_pgsaga import Database, PostgresSaver
from langgraph_pgsaga.checkpoint.options import PostgresSaverOptions, SaverOptions, split_options
from langgraph_pgsaga.database import DatabaseOptions
from langgraph_pgsaga.database.options import Options
from langgraph_pgsaga.errors import InvalidArgumentError, UnknownOptionError

DSN = "postgresql://app@localhost/app"


def _written(options: Any) -> dict[str, str]:
    """The types of a TypedDict's keys as they are written."""
    return {name: of.__forward_arg__ for name, of in options.__annotations__.items()}


def test_the_types_of_a_databases_options_are_its_options() -> None:
    """What the type checker allows is what there is."""
    fields = {field.name: field.type for field in dataclasses.fields(Options)}
    assert _written(DatabaseOptions) == fields
    assert all(field.default is not dataclasses.MISSING for field in dataclasses.fields(Options))
    for name in fields:
        assert name in (Database.__doc__ or ""), f"the docstring says nothing of {name}"


def test_the_types_of_a_savers_options_are_its_keywords() -> None:
    """And of a saver with a Database of its own, both."""
    parameters = inspect.signature(PostgresSaver.__init__).parameters.values()
    keywords = {p.name: p.annotation for p in parameters if p.kind is p.KEYWORD_ONLY}
    assert _written(SaverOptions) == keywords
    assert not SaverOptions.__annotations__.keys() & DatabaseOptions.__annotations__.keys()
    both = SaverOptions.__annotations__ | DatabaseOptions.__annotations__
    assert PostgresSaverOptions.__annotations__.keys() == both.keys()
    assert split_options({"strict": True, "max_size": 3}) == ({"strict": True}, {"max_size": 3})


@pytest.mark.parametrize(
    ("make", "wrong", "nearest"),
    [
        (Database, "max_sise", "max_size"),
        (Database, "lock_timeout", "lock_timeout_seconds"),
        (Database.embedded, "scheme", "schema"),
        (PostgresSaver.from_conn_string, "single_writers", "single_writer"),
        (PostgresSaver.from_conn_string, "poolers", "pooler"),
        (PostgresSaver.embedded, "leniant", "lenient"),
    ],
)
def test_an_unknown_option_is_told_with_the_nearest(
    make: Callable[..., object], wrong: str, nearest: str
) -> None:
    """Before anything is started or connected to; as Python's, it is a TypeError."""
    with pytest.raises(UnknownOptionError, match=f"^{wrong}: .* mean {nearest}\\?$") as caught:
        make(DSN, **{wrong: 1})
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, InvalidArgumentError)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lock_timeout_seconds", -1),
        ("statement_timeout_seconds", "5s"),
        ("keepalives_count", 1.5),
        ("keepalives_idle_seconds", 100_000),
        ("tcp_user_timeout_seconds", float("nan")),
        ("slow_seconds", -0.1),
        ("retry_seconds", None),
        ("on_connect", "select 1"),
        ("pooler", "false"),
        ("distributed", "0"),
        ("require_tenant", None),
    ],
)
def test_an_option_that_cannot_be_used_is_named(name: str, value: object) -> None:
    """Whatever is wrong with it."""
    with pytest.raises(InvalidArgumentError, match=f"^{name}: "):
        Database(DSN, **{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["strict", "lenient", "single_writer"])
def test_a_savers_flag_is_true_or_false(name: str) -> None:
    """Any text is true, "false" from the environment, too: it is refused."""
    given: dict[str, Any] = {name: "false"}
    with pytest.raises(InvalidArgumentError, match=f"^{name}: must be True or False, not 'false'"):
        PostgresSaver.from_conn_string(DSN, **given)


def test_options_of_the_network_count_more_than_the_dsns() -> None:
    """They are libpq's, by other names."""
    given = Options(keepalives_idle_seconds=7, tcp_user_timeout_seconds=1.5).of_libpq()
    assert given == {"keepalives_idle": "7", "tcp_user_timeout": "1500"}
