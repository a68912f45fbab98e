"""Connection strings: URLs and libpq's key=value pairs become parameters, by libpq's names.

This is the only reader of a DSN: drivers get the parameters, and messages show what
`shown_dsn` makes of the user, hosts, ports and database among them. No error quotes anything
of a text that couldn't be read, nor is it raised while one is handled that does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote, unquote_to_bytes

from langgraph_pgsaga import _json
from langgraph_pgsaga.errors import InvalidArgumentError

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_PAIR = re.compile(r"\s*(\w+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|((?:[^\s'\\]|\\.)*))(?=\s|$)")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_PORT = re.compile(r"[0-9]{1,5}")
# In a name or address these say that something else was meant to end before them.
_ODD_IN_NAME = re.compile(r"[\s;&=]")
_ODD_IN_VALUE = re.compile(r"[\s;]")
_PASSWORDS = {"password", "sslpassword", "oauth_client_secret", "scram_client_key"}
_NO_PASSWORDS = {"pass", "passwd", "passphrase", "passwort", "pwd", "secret"}
_ALIASES = {"database": "dbname"}  # asyncpg's name for it
_LONGEST_SHOWN = 200

_FORMS = (
    "neither a URL (postgresql://user@host:5432/database) nor key=value pairs (host=... dbname=...)"
)
_ENCODE = (
    "the URL can't be read: percent-encode special characters of the user, password, "
    "database and parameters (@ is %40, / is %2F, a space %20)"
)
_QUOTE = "a value has ; & or = in it: put it in quotes (dbname='a;b'), and blanks between pairs"


def parse_dsn(dsn: object) -> dict[str, str]:
    """The parameters of `dsn` by libpq's names; others in it are settings of the server.

    Raises:
        InvalidArgumentError: it is no DSN. Nothing of it is in the error.
    """
    if not isinstance(dsn, str):
        raise _refused(f"a {type(dsn).__name__}, {_FORMS}")
    scheme, separator, rest = dsn.partition("://")
    if not separator or not _SCHEME.fullmatch(scheme):  # "://" may stand in a password
        pairs = _of_pairs(dsn)
    elif scheme.lower().split("+")[0] not in ("postgresql", "postgres"):
        raise _refused("this is no PostgreSQL scheme; use postgresql://...")
    else:
        pairs = _of_url(rest)
    return checked_parameters({_ALIASES.get(name, name): value for name, value in pairs})


def shown_dsn(parameters: Mapping[str, str]) -> str:
    """The URL of the server that is meant, for messages: user, hosts, ports and database."""
    user, database = (_plain(parameters.get(name, "")) for name in ("user", "dbname"))
    hosts = hosts_of(parameters)
    ports = [text for text in parameters.get("port", "").split(",") if text]
    login = f"{user}@" if user else ""
    if any(host.startswith("/") for host in hosts):
        query = f"host={_plain(','.join(hosts))}" + (f"&port={','.join(ports)}" if ports else "")
        return f"postgresql://{login}/{database}?{query}"
    each = ports if len(ports) == len(hosts) else ports[:1] * len(hosts)
    named = [f"[{host}]" if ":" in host else _plain(host) for host in hosts]
    if each:
        named = [f"{host}:{port}" for host, port in zip(named, each, strict=True)]
    return f"postgresql://{login}{','.join(named)}/{database}"


def hosts_of(parameters: Mapping[str, str]) -> list[str]:
    """Where to connect to, in order; none says to look where the driver looks by itself."""
    return [h for h in (parameters.get("hostaddr") or parameters.get("host", "")).split(",") if h]


def _of_url(rest: str) -> list[tuple[str, str]]:
    authority, *tails = re.split("(?=[/?#])", rest, maxsplit=1)
    tail = "".join(tails)
    # The password ended early; what follows must not pass for a port or a database.
    if "#" in tail or ("@" in tail and re.search("[@:]", authority)):
        raise _refused(_ENCODE)
    login, _, hosts = authority.rpartition("@")
    user, _, password = login.partition(":")
    path, _, query = tail.partition("?")
    database = path.removeprefix("/")
    if any(_ODD_IN_NAME.search(text) for text in (user, hosts, database)):
        raise _refused(_ENCODE)
    pairs = [("user", user), ("password", password), ("dbname", database), *_of_hosts(hosts)]
    pairs += [_of_query(part) for part in query.split("&") if part]
    return [(name, _decoded(value)) for name, value in pairs if value]


def _of_hosts(text: str) -> list[tuple[str, str]]:
    found = [
        re.fullmatch(r"(?:\[([^\[\]@]*)\]|([^\[\]:@]*))(?::([0-9]*))?", host)
        for host in text.split(",")
    ]
    matches = [match for match in found if match]
    if len(matches) < len(found):
        raise _refused(_ENCODE)
    hosts = [match[1] or match[2] or "" for match in matches]
    ports = [match[3] or "" for match in matches]
    return [
        ("host", ",".join(hosts) if any(hosts) else ""),
        ("port", ",".join(port or "5432" for port in ports) if any(ports) else ""),
    ]


def _of_query(part: str) -> tuple[str, str]:
    name, separator, value = part.partition("=")
    # As other drivers read it, and unlike libpq, a plus sign is a blank here.
    name, plain = _decoded(name), value.replace("+", " ")
    odd = _ODD_IN_VALUE.search(value) and name not in _PASSWORDS
    if not separator or (odd and not (name == "options" and ";" not in value)):
        raise _refused(_ENCODE)
    return name, plain


def _of_pairs(dsn: str) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    position = 0
    while match := _PAIR.match(dsn, position):
        position = match.end()
        name, quoted, bare = match[1], match[2], match[3]
        odd = r"[;&=]" if name in ("host", "hostaddr", "port", "user", "dbname") else "[;&]"
        if quoted is None and name not in _PASSWORDS and re.search(odd, bare):
            raise _refused(_QUOTE)
        text = quoted if quoted is not None else bare
        pairs.append((name, re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)))
    if not pairs or dsn[position:].strip():
        raise _refused(_FORMS)
    return pairs


def checked_parameters(parameters: dict[str, str]) -> dict[str, str]:
    """The parameters that aren't empty, once none of them is what no parameter can be."""
    for name, value in parameters.items():
        if name != "password" and name.lower() in _NO_PASSWORDS | {"password"}:
            raise _refused("a password's parameter is called password=")
        if not _NAME.fullmatch(name):
            raise _refused("a parameter has no name that a setting could have")
        if "\0" in value or not _json.is_clean(value):
            raise _refused("NUL and lone surrogates can't be sent to a server")
    check_ports(parameters)
    return {name: value for name, value in parameters.items() if value}


def check_ports(parameters: Mapping[str, str]) -> None:
    """Raises where ports aren't numbers, or aren't as many as hosts."""
    ports = parameters.get("port", "")
    each = ports.split(",") if ports else []
    if not all(_PORT.fullmatch(text) and 0 < int(text) < 65536 for text in each):
        raise _refused(f"a port is a number from 1 to 65535. If it is none, {_ENCODE}")
    if len(each) > 1 and len(each) != max(len(hosts_of(parameters)), 1):
        raise _refused("name one port for all hosts, or as many as hosts")


def _decoded(text: str) -> str:
    # Not raised from here, or the error's context would quote the text.
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeError:
        pass
    raise _refused(_ENCODE)


def _plain(text: str) -> str:
    short = text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "..."
    return quote(short, safe="/,")


def _refused(problem: str) -> InvalidArgumentError:
    return InvalidArgumentError(argument="dsn", problem=problem)
