"""Connection strings become URLs for asyncpg, and are shown without their password."""

from __future__ import annotations

import string
from urllib.parse import quote, unquote, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from langgraph_pgsaga._dsn import normalize, redact
from langgraph_pgsaga.errors import InvalidArgumentError

SECRET = "s3cr3t"

PASSWORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)


@pytest.mark.parametrize(
    ("given_dsn", "url"),
    [
        ("postgresql://u:p@h:5432/db", "postgresql://u:p@h:5432/db"),
        ("postgres://u:p@h/db", "postgresql://u:p@h/db"),
        ("postgresql+asyncpg://u:p@h/db", "postgresql://u:p@h/db"),
        ("postgres+psycopg://u@h/db?sslmode=require", "postgresql://u@h/db?sslmode=require"),
        ("postgresql:///db?host=/run/pg", "postgresql://@/db?host=%2Frun%2Fpg"),
        ("postgresql://h1:1,h2:2/db", "postgresql://h1:1,h2:2/db"),
        ("postgresql://[::1]:5432/db", "postgresql://[::1]:5432/db"),
        ("host=h port=5433 dbname=d user=u", "postgresql://u@/d?host=h&port=5433"),
        ("host = h  dbname = d", "postgresql://@/d?host=h"),
        (r"host=h dbname=d user=u password='a b\'c'", "postgresql://u:a%20b%27c@/d?host=h"),
        (r"dbname=d user=u password=a\\b", "postgresql://u:a%5Cb@/d?"),
        ("user=u password=p@s/s dbname=my/db", "postgresql://u:p%40s%2Fs@/my%2Fdb?"),
    ],
)
def test_every_usual_form_becomes_one_url(given_dsn: str, url: str) -> None:
    """URLs with or without a driver's name, and key-value strings, mean what libpq means."""
    assert normalize(given_dsn) == url.removesuffix("?")


@pytest.mark.parametrize(
    "parameter",
    ["connect_timeout=3", "keepalives=1", "client_encoding=utf8", "gssencmode=disable"],
)
def test_what_only_libpq_knows_is_dropped(parameter: str) -> None:
    """A server would refuse the login over a parameter that asyncpg hands on as a setting."""
    assert normalize(f"postgresql://h/db?{parameter}&user=u") == "postgresql://h/db?user=u"


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ("-c search_path=a,b -c statement_timeout=5s", "search_path=a%2Cb&statement_timeout=5s"),
        ("-csearch_path=a --work_mem=1MB", "search_path=a&work_mem=1MB"),
        (r"-c search_path=my\ own", "search_path=my+own"),
    ],
)
def test_options_become_settings(options: str, settings: str) -> None:
    """`options=-c name=value` sets what it sets through libpq."""
    assert (
        normalize(f"postgresql://h/db?options={quote(options)}") == f"postgresql://h/db?{settings}"
    )


@given(user=st.text(string.printable, min_size=1), password=PASSWORDS)
@example(user="u", password=f"{SECRET}://{SECRET}")
def test_pairs_keep_any_user_and_password(user: str, password: str) -> None:
    """Whatever stands quoted in a key-value string arrives unchanged in the URL."""
    quoted = [text.replace("\\", "\\\\").replace("'", "\\'") for text in (user, password)]
    url = urlsplit(normalize(f"host=h user='{quoted[0]}' password='{quoted[1]}'"))
    assert unquote(url.username or "") == user
    assert unquote(url.password or "") == password


@pytest.mark.parametrize(
    "dsn",
    [
        "",
        f"nonsense {SECRET}",
        f"host=h password='{SECRET}",
        f"password={SECRET} nonsense",
        f"password={SECRET} nonsense://",
        f"mysql://u:{SECRET}@h/db",
        f"postgresql://u:[{SECRET}@h/db",
        f"postgresql://u:{SECRET}@h:port/db",
        f"postgresql://u:{SECRET}@h:99999/db",
        f"postgresql://u:{SECRET}/x@h/db",
        f"postgresql://u:12/{SECRET}@h/db",
        f"postgresql://u:12?{SECRET}@h/db",
        f"postgresql://u:12#{SECRET}@h/db",
        f"postgresql://u:x@y/{SECRET}@h/db",
    ],
)
def test_what_is_no_dsn_is_refused_without_being_quoted(dsn: str) -> None:
    """The error says what a DSN looks like, and nothing of a password that broke this one."""
    with pytest.raises(InvalidArgumentError) as caught:
        normalize(dsn)
    assert caught.value.argument == "dsn"
    assert SECRET not in str(caught.value)
    assert "postgresql://" in str(caught.value) or "percent-encode" in str(caught.value)


@pytest.mark.parametrize(
    ("dsn", "shown"),
    [
        (f"postgresql://u:{SECRET}@h:1/db", "postgresql://u@h:1/db"),
        (f"postgresql://u:p@{SECRET}@h/db", "postgresql://u@h/db"),
        (f"postgresql://h/db?user=u&password={SECRET}", "postgresql://h/db?user=u"),
        (f"postgresql://h/db?PASSWORD={SECRET}", "postgresql://h/db"),
        (f"postgresql://h/db?sslpassword={SECRET}", "postgresql://h/db"),
        (f"postgresql:///db?host=/run/pg&password={SECRET}", "postgresql://@/db?host=/run/pg"),
        (f"host=h dbname=d user=u password={SECRET}", "postgresql://u@/d?host=h"),
    ],
)
def test_the_shown_dsn_has_no_password(dsn: str, shown: str) -> None:
    """Everything but the password stays, so that a message says which server it means."""
    assert redact(normalize(dsn)) == shown


@given(PASSWORDS.map(lambda text: f"{SECRET}{text}{SECRET}"))
def test_no_password_survives_redaction(password: str) -> None:
    """However odd a password is, nothing of it is left, raw or percent-encoded."""
    shown = redact(normalize(f"postgresql://u:{quote(password, safe='')}@h/db"))
    assert shown == "postgresql://u@h/db"
