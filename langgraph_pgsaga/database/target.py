"""What a DSN's parameters, a service file and libpq's environment variables ask of a connection.

asyncpg knows some of libpq's parameters. Of the others, what it can be made to do is done;
what asks for security that it hasn't is refused, never dropped; the rest is told in a log line.
"""

from __future__ import annotations

import logging
import os
import random
import re
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from langgraph_pgsaga.database.dsn import (
    check_ports,
    checked_parameters,
    hosts_of,
    parse_dsn,
    shown_dsn,
)
from langgraph_pgsaga.errors import InvalidArgumentError

_log = logging.getLogger("langgraph_pgsaga.database")

# libpq's names. PGPASSWORD and PGPASSFILE aren't among them: the driver reads these two
# whenever it connects.
_ENVIRONMENT = {
    "PGHOST": "host",
    "PGHOSTADDR": "hostaddr",
    "PGPORT": "port",
    "PGDATABASE": "dbname",
    "PGUSER": "user",
    "PGREQUIREAUTH": "require_auth",
    "PGCHANNELBINDING": "channel_binding",
    "PGSERVICE": "service",
    "PGSERVICEFILE": "servicefile",
    "PGOPTIONS": "options",
    "PGAPPNAME": "application_name",
    "PGSSLMODE": "sslmode",
    "PGREQUIRESSL": "requiressl",
    "PGSSLNEGOTIATION": "sslnegotiation",
    "PGSSLCOMPRESSION": "sslcompression",
    "PGSSLCERT": "sslcert",
    "PGSSLKEY": "sslkey",
    "PGSSLCERTMODE": "sslcertmode",
    "PGSSLROOTCERT": "sslrootcert",
    "PGSSLCRL": "sslcrl",
    "PGSSLCRLDIR": "sslcrldir",
    "PGSSLSNI": "sslsni",
    "PGREQUIREPEER": "requirepeer",
    "PGSSLMINPROTOCOLVERSION": "ssl_min_protocol_version",
    "PGSSLMAXPROTOCOLVERSION": "ssl_max_protocol_version",
    "PGMINPROTOCOLVERSION": "min_protocol_version",
    "PGMAXPROTOCOLVERSION": "max_protocol_version",
    "PGGSSENCMODE": "gssencmode",
    "PGGSSDELEGATION": "gssdelegation",
    "PGGSSLIB": "gsslib",
    "PGKRBSRVNAME": "krbsrvname",
    "PGCONNECT_TIMEOUT": "connect_timeout",
    "PGCLIENTENCODING": "client_encoding",
    "PGTARGETSESSIONATTRS": "target_session_attrs",
    "PGLOADBALANCEHOSTS": "load_balance_hosts",
    "PGDATESTYLE": "DateStyle",
    "PGTZ": "TimeZone",
    "PGGEQO": "geqo",
}
_VARIABLES = {name: variable for variable, name in _ENVIRONMENT.items()}

# What asyncpg can't do, and the values that don't ask for it.
_REFUSED: dict[str, set[str]] = {
    "channel_binding": {"disable", "prefer"},
    "gssencmode": {"disable", "prefer"},
    "min_protocol_version": {"3.0"},
    "oauth_client_id": set(),
    "oauth_client_secret": set(),
    "oauth_issuer": set(),
    "oauth_scope": set(),
    "replication": {"0", "false", "no", "off"},
    "require_auth": set(),
    "requirepeer": set(),
    "scram_client_key": set(),
    "scram_server_key": set(),
    "sslcertmode": {"allow"},
    "sslcrldir": set(),
    "sslsni": {"1"},
}
# Of no effect with asyncpg, and the values that aren't worth a line in the log.
_IGNORED: dict[str, set[str]] = {
    "gssdelegation": {"0"},
    "max_protocol_version": {"3.0", "latest"},
    "sslcompression": {"0"},
    "sslkeylogfile": set(),
}
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_TLS_VERSIONS = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
_WORDS = {
    "gsslib": ("gssapi", "sspi"),
    "load_balance_hosts": ("disable", "random"),
    "requiressl": ("0", "1"),
    "ssl_max_protocol_version": _TLS_VERSIONS,
    "ssl_min_protocol_version": _TLS_VERSIONS,
    "sslmode": _SSL_MODES,
    "sslnegotiation": ("postgres", "direct"),
    "target_session_attrs": (
        "any",
        "read-write",
        "read-only",
        "primary",
        "standby",
        "prefer-standby",
    ),
}
_NUMBERS = (
    "connect_timeout",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "tcp_user_timeout",
)
_FILES = ("sslcert", "sslcrl", "sslkey", "sslrootcert")
# So that a server that vanished without a word counts as lost: the kernel's own time is 15
# minutes for what was sent, and hours or forever for an answer that is waited for.
_SOCKET_DEFAULTS = {
    "keepalives_count": 3,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "tcp_user_timeout": 30_000,
}
# What a connection begins with besides settings.
_NO_SETTINGS = {"database", "options", "replication", "user"}
# asyncpg takes these out of a DSN only.
_IN_DRIVERS_DSN = (
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslcert",
    "sslcrl",
    "sslkey",
    "sslnegotiation",
    "sslpassword",
    "sslrootcert",
)
_KNOWN = {
    *_ENVIRONMENT.values(),
    *_REFUSED,
    *_IGNORED,
    *_WORDS,
    *_NUMBERS,
    *_IN_DRIVERS_DSN,
    "fallback_application_name",
    "passfile",
    "password",
} - {"DateStyle", "TimeZone", "geqo", "application_name"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A server and how to connect to it. Its representation holds no secret.

    Attributes:
        shown: the URL for messages: user, hosts, ports and database.
        arguments: those of asyncpg.connect.
        settings: of the server, for the connection.
        connect_timeout_seconds: None where nothing is said of it, infinite where it is 0.
        socket_options: level, option and value, for connections that aren't to a socket file.
        files: of the encryption, by how their parameters are called in messages.
    """

    shown: str
    arguments: Mapping[str, Any] = field(repr=False)
    settings: Mapping[str, str] = field(repr=False)
    connect_timeout_seconds: float | None
    socket_options: tuple[tuple[int, int, int], ...]
    files: Mapping[str, str]

    @classmethod
    def of(
        cls,
        dsn: object,
        environment: Mapping[str, str] = os.environ,
        *,
        given: Mapping[str, str] | None = None,
    ) -> Target:
        """What `dsn` and the environment mean together, as libpq puts them together.

        `given` are parameters that count more than these.

        Raises:
            InvalidArgumentError: it can't be read, or asks for what can't be had.
        """
        found = _with_defaults(parse_dsn(dsn), environment) | dict(given or {})
        _check(found)
        _tell_ignored(found)
        seconds = int(found.get("connect_timeout", 0))
        return cls(
            shown=shown_dsn(found),
            arguments=_arguments(found),
            settings=_settings(found),
            connect_timeout_seconds=(float(seconds) if seconds > 0 else float("inf"))
            if "connect_timeout" in found
            else None,
            socket_options=tuple(_socket_options(found)),
            files={_named(name): found[name] for name in _FILES if name in found}
            if found.get("sslrootcert") != "system"
            else {},
        )

    def sets(self, setting: str) -> bool:
        """Whether a setting of the server is among those asked for."""
        return setting in {name.lower() for name in self.settings}

    def attempts(self) -> list[dict[str, Any]]:
        """Arguments of asyncpg.connect, a host at a time: its timeout is for all it is given."""
        hosts, ports = self.arguments.get("host") or [], self.arguments["port"]
        each = ports if isinstance(ports, list) else [ports] * len(hosts)
        if len(hosts) < 2:
            return [{}]
        wanted = self.arguments.get("target_session_attrs")
        return [
            {"host": host, "port": port, "target_session_attrs": attribute}
            for attribute in (("standby", "any") if wanted == "prefer-standby" else (wanted,))
            for host, port in zip(hosts, each, strict=True)
        ]

    def unreadable_file(self) -> str | None:
        """The parameter whose file can't be read, which the driver's errors don't name."""
        return next((n for n, file in self.files.items() if not os.access(file, os.R_OK)), None)


def _with_defaults(given: dict[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """The DSN's parameters, then the service's, then the environment's; empty ones are none."""
    variables = {name: environment.get(variable) for variable, name in _ENVIRONMENT.items()}
    found = {name: value for name, value in variables.items() if value} | given
    if "service" in found:
        file, folder = found.get("servicefile"), environment.get("PGSYSCONFDIR")
        found |= _service(found["service"], file, folder) | given
    if mode := found.pop("ssl", None):  # JDBC's and SQLAlchemy's name for it
        found.setdefault("sslmode", "require" if mode == "true" else mode)
    if found.get("requiressl") == "1" and found.get("sslmode") not in _SSL_MODES[3:]:
        found["sslmode"] = "require"
    return found


def _service(name: str, file: str | None, folder: str | None) -> dict[str, str]:
    places = [Path(file or "~/.pg_service.conf")]
    places += [Path(folder) / "pg_service.conf"] if folder else []
    for place in places:
        if (lines := _section(place, name)) is not None:
            pairs = [line.partition("=") for line in lines]
            if any(not separator for _, separator, _ in pairs):
                raise _refused("the service's lines must be name=value")
            return checked_parameters({key.strip(): value for key, _, value in pairs})
    raise _refused("the service files have no service of that name")


def _section(place: Path, name: str) -> list[str] | None:
    """The lines of a service, as libpq reads them: neither quotes nor interpolation."""
    try:
        text = place.expanduser().read_text("utf-8")
    except (OSError, ValueError, RuntimeError):  # the last where there is no home
        return None
    lines = [line.strip() for line in text.splitlines()]
    if f"[{name}]" not in lines:
        return None
    rest = lines[lines.index(f"[{name}]") + 1 :]
    end = next((i for i, line in enumerate(rest) if line.startswith("[")), len(rest))
    return [line for line in rest[:end] if line and not line.startswith("#")]


def _check(found: Mapping[str, str]) -> None:
    # Values aren't quoted: they may be parts of a password that ended early.
    check_ports(found)
    for name, harmless in _REFUSED.items():
        if name in found and found[name] not in harmless:
            raise _refused(
                f"{_named(name)} asks for what the driver (asyncpg) can't do, and nothing that "
                "was asked for is left out silently. Take it out; sslmode=verify-full with "
                "sslrootcert=... makes sure which server answers"
            )
    for name, words in _WORDS.items():
        if name in found and found[name] not in words:
            raise _refused(f"{_named(name)} must be one of {', '.join(words)}")
    for name in _NUMBERS:
        if name in found and not re.fullmatch(r"\s*-?[0-9]{1,9}\s*", found[name]):
            raise _refused(f"{_named(name)} must be a whole number")
    if any(host.startswith("@") for host in hosts_of(found)):
        raise _refused("the driver (asyncpg) can't use abstract sockets (host=@...)")
    is_verified = found.get("sslmode") == "verify-full" or found.get("sslrootcert") == "system"
    if is_verified and "hostaddr" in found and "host" in found:
        raise _refused(
            "with verify-full give either host or hostaddr, which the name is checked by"
        )


def _tell_ignored(found: Mapping[str, str]) -> None:
    for name, silent in _IGNORED.items():
        if name in found and found[name] not in silent:
            _log.warning("%s has no effect with asyncpg", _named(name))


def _arguments(found: Mapping[str, str]) -> dict[str, Any]:
    hosts = hosts_of(found)
    ports = [int(port) for port in found.get("port", "5432").split(",")]
    if found.get("load_balance_hosts") == "random" and len(hosts) > 1:
        each = list(zip(hosts, ports * len(hosts) if len(ports) == 1 else ports, strict=True))
        random.shuffle(each)
        hosts, ports = [host for host, _ in each], [port for _, port in each]
    arguments = {
        "host": hosts or None,
        "port": ports if len(ports) > 1 else ports[0],
        "user": found.get("user"),
        "password": found.get("password"),
        "database": found.get("dbname"),
        "passfile": found.get("passfile"),
        "ssl": found.get("sslmode"),
        "target_session_attrs": found.get("target_session_attrs"),
        "krbsrvname": found.get("krbsrvname"),
        "gsslib": found.get("gsslib"),
    }
    return {**{k: v for k, v in arguments.items() if v is not None}, **_encryption(found)}


def _encryption(found: Mapping[str, str]) -> dict[str, Any]:
    kept = {name: found[name] for name in _IN_DRIVERS_DSN if name in found}
    if kept.get("sslrootcert") != "system":
        return {"dsn": f"postgresql://?{urlencode(kept)}"} if kept else {}
    if len(kept) > 1 or found.get("sslmode", "verify-full") != "verify-full":
        problem = "goes with sslmode=verify-full, and with no other parameter of encryption"
        raise _refused(f"sslrootcert=system {problem}")
    return {"ssl": True}


def _settings(found: Mapping[str, str]) -> dict[str, str]:
    """What `options` sets, then what is no parameter of libpq's, then the name."""
    settings = _options(found.get("options", ""))
    settings |= {name: value for name, value in found.items() if name not in _KNOWN}
    if any(name.lower() in _NO_SETTINGS or name.startswith("_pq_") for name in settings):
        raise _refused("user, database and replication are no settings of the server")
    # Text arrives as Python's str, whatever encoding it travels in.
    settings = {k: v for k, v in settings.items() if k.lower() != "client_encoding"}
    fallback = found.get("fallback_application_name")
    return {"application_name": fallback, **settings} if fallback else settings


def _options(text: str) -> dict[str, str]:
    """The settings in `-c name=value --name=value`; the server splits it the same way."""
    words = [re.sub(r"\\(.)", r"\1", word) for word in re.findall(r"(?:\\.|[^\s\\])+", text)]
    settings: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        if word == "-c":
            pair = next(rest, "")
        elif word.startswith(("-c", "--")):
            pair = word[2:]
        else:
            pair = ""
        name, separator, value = pair.partition("=")
        if not separator or not re.fullmatch(r"[A-Za-z_][\w.-]*", name):
            raise _refused(f"{_named('options')} may have but -c name=value and --name=value")
        settings[name.replace("-", "_")] = value
    return settings


def _socket_options(found: Mapping[str, str]) -> list[tuple[int, int, int]]:
    wanted = _SOCKET_DEFAULTS | {name: int(found[name]) for name in _NUMBERS if name in found}
    is_on = wanted.get("keepalives", 1) != 0
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(is_on))]
    for name, option in _TCP_OPTIONS.items():
        if wanted[name] <= 0 or not (is_on or name == "tcp_user_timeout"):
            continue  # 0 is the system's own
        if option is not None:
            options.append((socket.IPPROTO_TCP, option, wanted[name]))
        elif name in found:
            _log.warning("%s has no effect on this system", _named(name))
    return options


_TCP_OPTIONS: dict[str, int | None] = {
    "keepalives_idle": getattr(
        socket, "TCP_KEEPALIVE" if sys.platform == "darwin" else "TCP_KEEPIDLE", None
    ),
    "keepalives_interval": getattr(socket, "TCP_KEEPINTVL", None),
    "keepalives_count": getattr(socket, "TCP_KEEPCNT", None),
    "tcp_user_timeout": getattr(socket, "TCP_USER_TIMEOUT", None),
}


def _named(name: str) -> str:
    variable = _VARIABLES.get(name)
    return f"{name} (or {variable})" if variable else name


def _refused(problem: str) -> InvalidArgumentError:
    return InvalidArgumentError(argument="dsn", problem=problem)
