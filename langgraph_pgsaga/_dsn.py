"""Connection strings: what psycopg and SQLAlchemy users have, made fit for asyncpg.

asyncpg takes URLs only, and hands parameters it doesn't know to the server as
settings, which then refuses the login. So key-value strings become URLs, a
driver suffix (`postgresql+psycopg://`) goes, and parameters that only libpq
knows are dropped; the others mean the same to both.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from langgraph_pgsaga.errors import InvalidArgumentError

_LIBPQ_ONLY = {
    "channel_binding",
    "client_encoding",
    "connect_timeout",
    "fallback_application_name",
    "gssencmode",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "load_balance_hosts",
    "requiressl",
    "sslcompression",
    "tcp_user_timeout",
}
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_PAIR = re.compile(r"\s*(\w+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|((?:[^\s'\\]|\\.)*))(?=\s|$)")


def normalize(dsn: str) -> str:
    """`dsn` as a URL that asyncpg understands; an InvalidArgumentError if it is none."""
    scheme, separator, _ = dsn.partition("://")
    if not separator or not _SCHEME.fullmatch(scheme):  # "://" may stand in a password
        dsn = _url_of_pairs(dsn)
    elif scheme.split("+")[0] not in ("postgresql", "postgres"):
        raise InvalidArgumentError(
            argument="dsn",
            problem=f"{scheme!r} is no PostgreSQL scheme; use postgresql://...",
        )
    try:
        url = urlsplit(dsn)
        _ = url.port if url.hostname and "," not in url.netloc else None
    except ValueError as error:
        raise InvalidArgumentError(argument="dsn", problem=_reason(error)) from None
    query = parse_qsl(url.query, keep_blank_values=True)
    if any("@" in part for part in (url.path, url.fragment, *(key for key, _ in query))):
        # The password ended early; what follows must not pass for a database's name.
        raise InvalidArgumentError(argument="dsn", problem=_reason(ValueError()))
    kept = [item for pair in query for item in _translated(*pair)]
    # Not urlunsplit's own quoting: a DSN without a host needs its "//".
    return urlunsplit(("postgresql", url.netloc or "@", url.path, urlencode(kept), ""))


def redact(dsn: str) -> str:
    """`dsn` without its password, for messages."""
    url = urlsplit(dsn)
    user, separator, hosts = url.netloc.rpartition("@")
    query = [(k, v) for k, v in parse_qsl(url.query) if "password" not in k.lower()]
    netloc = f"{user.split(':')[0]}{separator}{hosts}"
    return urlunsplit((url.scheme, netloc, url.path, urlencode(query, safe="/"), ""))


def _translated(key: str, value: str) -> list[tuple[str, str]]:
    if key in _LIBPQ_ONLY:
        return []
    if key == "options":
        settings = re.findall(r"(?:-c\s*|--)([\w.]+)=((?:\\.|\S)*)", value)
        return [(name, re.sub(r"\\(.)", r"\1", text)) for name, text in settings]
    return [(key, value)]


def _url_of_pairs(dsn: str) -> str:
    pairs: dict[str, str] = {}
    position = 0
    for match in _PAIR.finditer(dsn):
        if match.start() != position:
            break
        position = match.end()
        text = match[2] if match[2] is not None else match[3]
        pairs[match[1]] = re.sub(r"\\(.)", r"\1", text)
    if not pairs or dsn[position:].strip():
        raise InvalidArgumentError(
            argument="dsn",
            problem="neither a URL (postgresql://user:password@host:5432/database) "
            "nor key=value pairs (host=... dbname=...)",
        )
    user, password = pairs.pop("user", ""), pairs.pop("password", "")
    login = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
    database = quote(pairs.pop("dbname", ""), safe="")
    return f"postgresql://{login}@/{database}?{urlencode(pairs)}"


def _reason(error: ValueError) -> str:
    # urllib quotes the offending text, which may be a password with an odd character.
    return (
        "the URL can't be read: percent-encode special characters of the user and password "
        f"({type(error).__name__})"
    )
