"""What a DSN means, what of it is shown, and that no password ever is."""

from __future__ import annotations

import asyncio
import logging
import socket
import string
import traceback
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from asyncpg import connect_utils
from hypothesis import example, given
from hypothesis import strategies as st

from langgraph_pgsaga import Database
from langgraph_pgsaga.database.dsn import parse_dsn, shown_dsn
from langgraph_pgsaga.database.target import Target
from langgraph_pgsaga.errors import InvalidArgumentError, ServerError

SECRET = "s3cr3t"

PASSWORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)
# With what ends a part of a DSN, and what one may be mistaken for.
ODD = st.lists(
    st.sampled_from(
        [*"@:/?#&=;%+[]\\'\" \t\n,", "%zz", "%ff", "12", "x", "://", "host=", "é", "\0"]
    )
).map("".join)


def target(dsn: str, **environment: str) -> Target:
    return Target.of(dsn, environment)


@pytest.mark.parametrize(
    ("dsn", "parameters"),
    [
        ("postgresql://u:p@h:5432/db", "user=u password=p host=h port=5432 dbname=db"),
        ("postgres://u:p@h/db", "user=u password=p host=h dbname=db"),
        ("PostgreSQL+asyncpg://u:p@h/db", "user=u password=p host=h dbname=db"),
        ("postgres+psycopg://u@h/db?sslmode=require", "user=u host=h dbname=db sslmode=require"),
        ("postgresql:///db?host=/run/pg", "host=/run/pg dbname=db"),
        ("postgresql://%2Frun%2Fpg/db", "host=/run/pg dbname=db"),
        ("postgresql://u@/db?host=/run/pg&port=1", "user=u host=/run/pg port=1 dbname=db"),
        ("postgresql://h1:1,h2:2/db", "host=h1,h2 port=1,2 dbname=db"),
        ("postgresql://h1,h2:2/db", "host=h1,h2 port=5432,2 dbname=db"),
        ("postgresql://[::1]:5432/db", "host=::1 port=5432 dbname=db"),
        ("postgresql://[fe80::1%25en0]/db", "host=fe80::1%en0 dbname=db"),
        ("postgresql://:5433/db", "port=5433 dbname=db"),
        ("postgresql://", ""),
        ("postgresql://h?user=u@corp", "host=h user=u@corp"),
        ("postgresql://h/db?database=other&user=u", "host=h dbname=other user=u"),
        ("postgresql://u:a@b:c@h/db", "user=u password=a@b:c host=h dbname=db"),
        ("postgresql://u:100%@h", "user=u password=100% host=h"),
        ("postgresql://h/db?password=a+b%2B", "host=h dbname=db password='a b+'"),
        ("postgresql://h/db?options=-c a=1", "host=h dbname=db options='-c a=1'"),
        ("host = h  dbname = d", "host=h dbname=d"),
        ("host=h hostaddr=10.0.0.1 service=s", "host=h hostaddr=10.0.0.1 service=s"),
        ("password='a;b' user=u", "user=u password=a;b"),
    ],
)
def test_every_usual_form_means_what_libpq_means(dsn: str, parameters: str) -> None:
    """URLs with or without a driver's name, and key-value strings, as libpq's parameters."""
    assert parse_dsn(dsn) == (parse_dsn(parameters) if parameters else {})


@given(user=st.text(string.printable, min_size=1), password=PASSWORDS)
@example(user="u", password=f"{SECRET}://{SECRET}")
def test_any_user_and_password_arrive(user: str, password: str) -> None:
    """Quoted in a pair, or percent-encoded in a URL, they reach the driver unchanged."""
    quoted = [text.replace("\\", "\\\\").replace("'", "\\'") for text in (user, password)]
    encoded = [quote(text, safe="") for text in (user, password)]
    for dsn in (
        f"host=h user='{quoted[0]}' password='{quoted[1]}'",
        f"postgresql://{':'.join(encoded)}@h/db",
        f"postgresql://h/db?user={encoded[0]}&password={encoded[1]}",
        f"postgresql://h/db?user={quote_plus(user)}&password={quote_plus(password)}",
    ):
        arguments = target(dsn).arguments
        assert (arguments["user"], arguments["password"]) == (user, password)
        assert arguments["host"] == ["h"]


def drivers_view(dsn: str, **environment: str) -> Any:
    """The addresses and parameters that the driver makes of our arguments."""
    unused = ("direct_tls", "service", "servicefile", "target_session_attrs", "krbsrvname")
    names = ("dsn", "host", "port", "user", "password", "passfile", "database", "ssl", "gsslib")
    arguments = dict.fromkeys((*unused, *names, "server_settings"))
    arguments |= target(dsn, **environment).arguments
    return connect_utils._parse_connect_dsn_and_args(**arguments)  # type: ignore[attr-defined]


def test_the_driver_reads_no_dsn_again() -> None:
    """An @ in a password splits it where the messages say, and nowhere else."""
    addresses, parameters = drivers_view("postgresql://u:p@other@h:1/db")
    assert addresses == [("h", 1)]
    assert (parameters.user, parameters.password) == ("u", "p@other")
    assert parameters.database == "db"


# Whatever happens, no password is shown_dsn


@pytest.mark.parametrize(
    "dsn",
    [
        "",
        f"nonsense {SECRET}",
        f"host=h password='{SECRET}",
        f"password={SECRET} nonsense",
        f"password={SECRET} nonsense://",
        f"{SECRET}://u@h/db",
        f"mysql://u:{SECRET}@h/db",
        f"postgresql://u:[{SECRET}@h:port/db",
        f"postgresql://u:{SECRET}",
        f"postgresql://u:{SECRET}/db",
        f"postgresql://u:{SECRET}@h:port/db",
        f"postgresql://u:{SECRET}@h:99999/db",
        f"postgresql://u:{SECRET}/x@h/db",
        f"postgresql://u:12/{SECRET}@h/db",
        f"postgresql://u:12?{SECRET}@h/db",
        f"postgresql://u:12?a={SECRET}@h/db",
        f"postgresql://u:1@12?a={SECRET}@h/db",
        f"postgresql://u:12#{SECRET}@h/db",
        f"postgresql://u:x@y/{SECRET}@h/db",
        f"postgresql://u:%ff{SECRET}@h/db",
        f"postgresql://u:\ud800{SECRET}@h/db",
        f"postgresql://u:%00{SECRET}@h/db",
        f"postgresql://h/db;password={SECRET}",
        f"postgresql://h/db&password={SECRET}",
        f"postgresql://u;password={SECRET}@h/db",
        f"postgresql://h/db password={SECRET}",
        f"postgresql://h/db?sslmode=require;password={SECRET}",
        f"postgresql://h/db?sslmode=require password={SECRET}",
        f"postgresql://h/db?work_mem=1;password={SECRET}",
        f"postgresql://h/db?passwd={SECRET}",
        f"postgresql://h/db?PASSWORD={SECRET}",
        f"postgresql://h/db?password=a#{SECRET}",
        f"postgresql://h/db?port={SECRET}",
        f"host=h;password={SECRET}",
        f"host=h;user=u;password={SECRET};dbname=d",
        f"host=h user=u;password={SECRET}",
        f"user=u password=x&dbname=d passwd={SECRET}",
        f"host=h application_name=a;password={SECRET}",
    ],
)
def test_what_is_no_dsn_is_refused_without_being_quoted(dsn: str) -> None:
    """The error says what a DSN looks like, and nothing of a password that broke this one."""
    with pytest.raises(InvalidArgumentError) as caught:
        Database(dsn or " ")
    assert caught.value.argument == "dsn"
    assert SECRET not in whole_text(caught.value)
    assert caught.value.__context__ is None
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("dsn", "text"),
    [
        (f"postgresql://u:{SECRET}@h:1/db", "postgresql://u@h:1/db"),
        (f"postgresql://u:p@{SECRET}@h/db", "postgresql://u@h/db"),
        (f"postgresql://h/db?user=u&password={SECRET}", "postgresql://u@h/db"),
        (f"postgresql://h/db?sslpassword={SECRET}", "postgresql://h/db"),
        (f"postgresql://h/db?work_mem={SECRET}", "postgresql://h/db"),
        (f"postgresql://h1,h2:2/db?password={SECRET}", "postgresql://h1:5432,h2:2/db"),
        (f"postgresql://[::1]/db?password={SECRET}", "postgresql://[::1]/db"),
        (f"postgresql:///db?host=/run/pg&password={SECRET}", "postgresql:///db?host=/run/pg"),
        (f"host=/a,/b port=1 user=u password={SECRET}", "postgresql://u@/?host=/a,/b&port=1"),
        (f"host=h dbname='d d' user=u password={SECRET}", "postgresql://u@h/d%20d"),
    ],
)
def test_the_shown_dsn_says_which_server_it_is(dsn: str, text: str) -> None:
    """User, hosts, ports and database are shown, and nothing else."""
    assert shown_dsn(parse_dsn(dsn)) == Database(dsn).dsn == text


def test_what_is_shown_is_short() -> None:
    """However long the names are that somebody gave."""
    assert len(Database("postgresql://h/" + "x" * 10_000_000).dsn) < 300


SHAPES = (
    "postgresql://u:{}@h/db",
    "postgresql+psycopg://u:{}@h1:1,h2:2/db",
    "postgresql://u:{}@/db?host=/run/pg",
    "postgresql://:{}@h:5432",
    "postgresql://h/db?user=u&password={}",
    "postgresql://h/db?user=u&password={}&sslmode=require",
    "postgresql://h/db?sslpassword={}",
    "postgresql://h/db?passwd={}",
    "host=h user=u password={}",
    "host=h password={} user=u",
    "host = h  password = '{}' dbname=d",
    "host=h;user=u;password={};dbname=d",
    "mysql://u:{}@h/db",
    "u:{}@h/db",
)


@given(shape=st.sampled_from(SHAPES), before=ODD, after=ODD, is_encoded=st.booleans())
@example(shape=SHAPES[0], before="@12?a=", after="", is_encoded=False)
def test_whatever_a_password_is_made_of_it_is_not_shown(
    shape: str, before: str, after: str, is_encoded: bool
) -> None:
    """Neither where the DSN is read nor where it is refused, in no text of either."""
    password = f"{before}{SECRET}{after}"
    dsn = shape.format(quote(password, safe="") if is_encoded else password)
    try:
        database = Database(dsn)
        texts = f"{database.dsn} {database!r} {database._target!r}"
    except InvalidArgumentError as error:
        texts = whole_text(error)
    assert SECRET not in texts


def whole_text(error: BaseException) -> str:
    """Message, representation, traceback and everything that is chained."""
    seen = [error]
    while (context := seen[-1].__context__) is not None:
        seen.append(context)
    return "".join(f"{one!r}{one}{''.join(traceback.format_exception(one))}" for one in seen)


# What asks for something is honoured, refused or said


@pytest.mark.parametrize(
    ("parameter", "harmless"),
    [
        ("channel_binding=require", "channel_binding=prefer"),
        ("gssencmode=require", "gssencmode=disable"),
        ("require_auth=scram-sha-256", "require_auth="),
        ("requirepeer=postgres", "requirepeer="),
        ("sslcertmode=require", "sslcertmode=allow"),
        ("sslcertmode=disable", "sslcertmode=allow"),
        ("sslcrldir=/crl", "sslcrldir="),
        ("sslsni=0", "sslsni=1"),
        ("replication=database", "replication=off"),
        ("min_protocol_version=3.2", "min_protocol_version=3.0"),
        ("channel_binding=Require", "channel_binding=disable"),
    ],
)
def test_what_cannot_be_honoured_is_refused(parameter: str, harmless: str) -> None:
    """With its name and what to do, unless its value asks for nothing."""
    with pytest.raises(InvalidArgumentError, match=parameter.split("=", maxsplit=1)[0]) as caught:
        Database(f"postgresql://h/db?{parameter}")
    assert "verify-full" in str(caught.value)
    assert target(f"postgresql://h/db?{harmless}").settings == {}


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PGCHANNELBINDING", "require"),
        ("PGGSSENCMODE", "require"),
        ("PGREQUIREAUTH", "scram-sha-256"),
        ("PGSSLCERTMODE", "require"),
        ("PGSSLMODE", "verify"),
        ("PGPORT", "x"),
    ],
)
def test_the_environment_asks_as_well(variable: str, value: str) -> None:
    """libpq's variables count as libpq has them."""
    with pytest.raises(InvalidArgumentError):
        target("postgresql://h/db", **{variable: value})


def test_a_wrong_word_is_told() -> None:
    """With the words that there are, and without the one that was given."""
    for name in ("sslmode", "target_session_attrs", "ssl_min_protocol_version", "connect_timeout"):
        with pytest.raises(InvalidArgumentError, match=name) as caught:
            Database(f"postgresql://h/db?{name}={SECRET}")
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("parameters", "mode"),
    [
        ("", "prefer"),
        ("requiressl=1", "require"),
        ("requiressl=1&sslmode=prefer", "require"),
        ("requiressl=0&sslmode=disable", "disable"),
        ("ssl=true", "require"),
        ("sslmode=require&sslnegotiation=direct", "require"),
        ("sslrootcert=system", "verify_full"),
    ],
)
def test_encryption_is_what_was_asked_for(parameters: str, mode: str) -> None:
    """The old and other names of it count too, and what only a DSN can tell the driver."""
    _, found = drivers_view(f"postgresql://h/db?{parameters}")
    assert found.sslmode.name == mode
    assert found.ssl_negotiation == ("direct" if "direct" in parameters else "postgres")


def test_the_oldest_tls_version_arrives() -> None:
    """ssl_min_protocol_version reaches the driver, as its environment variable does."""
    for dsn, environment in (
        ("postgresql://h/db?ssl_min_protocol_version=TLSv1.3", {}),
        ("postgresql://h/db", {"PGSSLMINPROTOCOLVERSION": "TLSv1.3"}),
    ):
        _, found = drivers_view(dsn, **environment)
        assert found.ssl.minimum_version.name == "TLSv1_3"


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        (
            "-c search_path=a,b -c statement_timeout=5s",
            {"search_path": "a,b", "statement_timeout": "5s"},
        ),
        ("-csearch_path=a --work-mem=1MB", {"search_path": "a", "work_mem": "1MB"}),
        (r"-c search_path=my\ own", {"search_path": "my own"}),
        ("-c client_encoding=latin1", {}),
    ],
)
def test_options_become_settings(options: str, settings: dict[str, str]) -> None:
    """`options=-c name=value` sets what it sets through libpq, and so does PGOPTIONS."""
    assert target(f"postgresql://h/db?options={quote(options)}").settings == settings
    assert target("postgresql://h/db", PGOPTIONS=options).settings == settings
    assert target("postgresql://h/db?options=-c a=1", PGOPTIONS=options).settings == {"a": "1"}


@pytest.mark.parametrize("options", ["-e", "-c", "-c x", "--=1", "-c user=x", "nonsense"])
def test_options_that_are_no_settings_are_refused(options: str) -> None:
    """Nothing of `options` is left out without a word."""
    with pytest.raises(InvalidArgumentError):
        target(f"postgresql://h/db?options={quote(options)}")


def test_settings_and_names() -> None:
    """Other parameters are settings; the application's name has a fallback and a variable."""
    assert target("postgresql://h/db?work_mem=1MB&my.own=1").settings == {
        "work_mem": "1MB",
        "my.own": "1",
    }
    fallback = "postgresql://h/db?fallback_application_name=f"
    assert target(fallback).settings == {"application_name": "f"}
    assert target(fallback, PGAPPNAME="e").settings == {"application_name": "e"}
    assert target(fallback + "&application_name=n", PGAPPNAME="e").settings == {
        "application_name": "n"
    }
    assert target("postgresql://h/db", PGTZ="UTC").settings == {"TimeZone": "UTC"}
    assert target("postgresql://h/db?client_encoding=utf8").settings == {}


def test_where_to_connect() -> None:
    """hostaddr is connected to instead of host; PGHOST and the like fill in what is missing."""
    assert drivers_view("host=h hostaddr=10.0.0.1 user=u")[0] == [("10.0.0.1", 5432)]
    found, parameters = drivers_view("postgresql:///", PGHOST="a,b", PGPORT="1,2", PGUSER="u")
    assert (found, parameters.user) == ([("a", 1), ("b", 2)], "u")
    assert drivers_view("postgresql://h/", PGPORT="7", PGUSER="u")[0] == [("h", 7)]
    hosts = {
        tuple(target("postgresql://a,b,c/?load_balance_hosts=random").arguments["host"])
        for _ in range(100)
    }
    assert len(hosts) > 1
    for dsn in (
        "host=h hostaddr=10.0.0.1 sslmode=verify-full",
        "host=@abstract",
        "host=a,b port=1,2,3",
    ):
        with pytest.raises(InvalidArgumentError):
            target(dsn)


def test_connect_timeout_counts() -> None:
    """The DSN's, where the argument says nothing; 0 is no limit."""
    dsn = "postgresql://h/db?connect_timeout={}"
    assert Database(dsn.format(3))._connect_options()["timeout"] == 3
    assert Database(dsn.format(0))._connect_options()["timeout"] is None
    assert Database(dsn.format(3), connect_timeout_seconds=1)._connect_options()["timeout"] == 1
    assert Database("postgresql://h/db")._connect_options()["timeout"] == 10


def test_keepalives_become_socket_options() -> None:
    """They are on, with times that end a connection to a server that vanished; 0 turns them off."""
    on, off = ((socket.SOL_SOCKET, socket.SO_KEEPALIVE, value) for value in (1, 0))
    assert target("postgresql://h/db?keepalives=0&keepalives_idle=9&tcp_user_timeout=0") == target(
        "postgresql://h/db?keepalives=0&tcp_user_timeout=0"
    )
    assert target("postgresql://h/db?keepalives=0&tcp_user_timeout=0").socket_options == (off,)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        names = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
        options = [getattr(socket, name) for name in names]
        given = "keepalives_idle=9&keepalives_interval=8&keepalives_count=7&tcp_user_timeout=6000"
        for parameters, values in (("", (30, 10, 3, 30_000)), (given, (9, 8, 7, 6000))):
            found = target(f"postgresql://h/db?{parameters}").socket_options
            assert found == (
                on,
                *((socket.IPPROTO_TCP, *pair) for pair in zip(options, values, strict=True)),
            )


def test_what_has_no_effect_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """A line in the log names it; what asks for nothing gets none."""
    with caplog.at_level(logging.WARNING):
        Database("postgresql://h/db?sslcompression=0&gssdelegation=0")
        assert caplog.text == ""
        Database("postgresql://h/db?sslkeylogfile=/x")
    assert "sslkeylogfile" in caplog.text
    assert "/x" not in caplog.text


# Service files


@pytest.fixture
def service_file(tmp_path: Path) -> str:
    path = tmp_path / "services"
    path.write_text(
        "# ours\n[other]\nhost=wrong\n[ours]\nhost=h\nport=7\ndbname=d\nuser=u\n"
        f"password=50%{SECRET}=;\nwork_mem=1MB\n\n[broken]\n{SECRET}\n"
    )
    return str(path)


def test_a_service_counts_as_libpq_has_it(service_file: str) -> None:
    """Its lines are taken as they are: below the DSN, above the environment."""
    for dsn, environment in (
        (f"service=ours servicefile={service_file} user=me", {}),
        ("postgresql://me@?service=ours", {"PGSERVICEFILE": service_file}),
        ("postgresql://me@", {"PGSERVICEFILE": service_file, "PGSERVICE": "ours"}),
    ):
        found = target(dsn, PGHOST="no", **environment)
        assert found.shown == "postgresql://me@h:7/d"
        assert found.arguments["password"] == f"50%{SECRET}=;"
        assert found.settings == {"work_mem": "1MB"}
        assert SECRET not in repr(found)


@pytest.mark.parametrize("service", ["none", "broken"])
def test_a_service_that_cannot_be_read_is_told(service_file: str, service: str) -> None:
    """It isn't left out, as the driver would; nothing of the file is quoted."""
    with pytest.raises(InvalidArgumentError, match="service") as caught:
        target(f"service={service}", PGSERVICEFILE=service_file)
    assert SECRET not in whole_text(caught.value)


def test_the_drivers_own_errors_quote_nothing() -> None:
    """Of a certificate that isn't there, or a login that isn't encrypted."""

    async def connect(dsn: str) -> None:
        async with Database(dsn) as database:
            await database.connect()

    for parameters in ("sslmode=verify-full&sslrootcert=/none", "sslnegotiation=direct"):
        with pytest.raises(ServerError, match="PostgreSQL at") as caught:
            asyncio.run(connect(f"postgresql://u:{SECRET}@127.0.0.1:1/db?{parameters}"))
        assert SECRET not in whole_text(caught.value)
