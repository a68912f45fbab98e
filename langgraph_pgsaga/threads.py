"""Threads: how a config names one and its checkpoints, its session's id, and its status."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from enum import Enum
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias
from uuid import UUID

from langchain_core.runnables import RunnableConfig

from langgraph_pgsaga import _json
from langgraph_pgsaga._arguments import checked_mapping, required_text, shown
from langgraph_pgsaga.errors import InvalidArgumentError, MissingThreadIdError
from langgraph_pgsaga.tenants import Tenants

# What may name a thread; its text does the same.
ThreadId: TypeAlias = str | int | UUID


class SessionStatus(Enum):
    """Where the latest run of a session left it, or what was set since."""

    ACTIVE = "active"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"


_LIKE = 'must be a dict such as {"configurable": {"thread_id": "1"}}'
_LONGEST_NAMESPACE_BYTES = 512
_KEPT_NAMESPACE_BYTES = 256
# Between a tenant's id and a thread's: a byte that UTF-8 hasn't got, so that no two pairs make
# the same bytes.
_BETWEEN = b"\xff"
_NO_TENANTS = Tenants()


class TenantsThreadId(str):
    """A thread's id as configs of a tenant carry it: the same text, which knows the tenant.

    LangGraph makes the configs of subgraphs' states from the thread id alone
    (`get_state(config, subgraphs=True)`, the `state` of a task): these, too, name the tenant.
    """

    __slots__ = ("tenant_id",)
    tenant_id: str

    @classmethod
    def of(cls, thread_id: str, tenant_id: str) -> TenantsThreadId:
        """The id of that tenant's thread."""
        found = cls(thread_id)
        found.tenant_id = tenant_id
        return found


class Address(NamedTuple):
    """`given_thread_id` is the caller's own object, `thread_id` its text.

    `checkpoint_ns` is the namespace as given, `stored_ns` as the tables hold it. `config_tenant`
    is what configs carry of `tenant_id`; None is nothing.
    """

    given_thread_id: Any
    thread_id: str
    session_id: UUID
    checkpoint_ns: str
    stored_ns: str
    checkpoint_id: str | None
    tenant_id: str
    config_tenant: str | None

    @classmethod
    def of(cls, config: RunnableConfig, tenants: Tenants = _NO_TENANTS) -> Address:
        """The address in `config`; namespace, checkpoint id and tenant may be absent or None.

        Raises:
            MissingThreadIdError, InvalidArgumentError: the thread id is absent, of
                another type than str, int and UUID, or text that PostgreSQL can't hold.
            MissingTenantError: `tenants` require one.
        """
        configurable = configurable_of(config)
        given = configurable.get("thread_id")
        thread_id = thread_id_text(given)
        namespace = configurable.get("checkpoint_ns")
        namespace = "" if namespace is None else required_text("checkpoint_ns", namespace)
        named = configurable.get("tenant_id")
        if named is None and type(given) is TenantsThreadId:
            named = given.tenant_id
        tenant_id = tenants.of_config(named)
        return cls(
            given_thread_id=given,
            thread_id=thread_id,
            session_id=session_id_of(thread_id, tenant_id),
            checkpoint_ns=namespace,
            stored_ns=stored_namespace(namespace),
            checkpoint_id=_checkpoint_id(configurable),
            tenant_id=tenant_id,
            config_tenant=tenants.in_config(tenant_id),
        )

    def config(self, checkpoint_id: str) -> RunnableConfig:
        """The config that names `checkpoint_id` of this thread and namespace."""
        return checkpoint_config(
            self.given_thread_id, self.checkpoint_ns, checkpoint_id, self.config_tenant
        )


def checkpoint_config(
    thread_id: Any, checkpoint_ns: str, checkpoint_id: str, tenant_id: str | None = None
) -> RunnableConfig:
    """A config as savers return it: these three keys, a tenant where one is given, and no other."""
    configurable = {
        "thread_id": thread_id,
        "checkpoint_ns": checkpoint_ns,
        "checkpoint_id": checkpoint_id,
    }
    return {"configurable": configurable if tenant_id is None else told(configurable, tenant_id)}


def told(configurable: Mapping[str, Any], tenant_id: str) -> dict[str, Any]:
    """The same of the tenant, which its thread id, where that is text, knows, too."""
    thread_id = configurable["thread_id"]
    if isinstance(thread_id, str):
        thread_id = TenantsThreadId.of(thread_id, tenant_id)
    return {**configurable, "thread_id": thread_id, "tenant_id": tenant_id}


def optional_checkpoint_id(config: RunnableConfig, argument: str = "config") -> str | None:
    """The checkpoint id in `config`; absent, None and '' are all None."""
    return _checkpoint_id(configurable_of(config, argument))


def _checkpoint_id(configurable: Mapping[str, Any]) -> str | None:
    checkpoint_id = configurable.get("checkpoint_id")
    if checkpoint_id is None or checkpoint_id == "":
        return None
    given = str(checkpoint_id) if isinstance(checkpoint_id, UUID) else checkpoint_id
    return required_text("checkpoint_id", given)


def configurable_of(config: RunnableConfig, argument: str = "config") -> Mapping[str, Any]:
    """What stands under "configurable"; nothing where that is absent or None.

    Raises:
        InvalidArgumentError: `config` isn't a dict, or what stands there isn't.
    """
    if type(config) is not dict and not isinstance(config, Mapping):
        problem = f"{_LIKE}, not {shown(config)}"
        if isinstance(getattr(config, "config", None), dict):
            problem += ". Pass its .config"
        raise InvalidArgumentError(argument=argument, problem=problem)
    configurable = config.get("configurable")
    if configurable is None:
        return {}
    return checked_mapping("configurable", configurable)


def thread_id_text(given: Any) -> str:
    """A thread id as text: str as it is, int and UUID in their usual form."""
    if given is None or given == "":
        raise MissingThreadIdError
    if isinstance(given, str):
        # Not str(): an enum that is text would answer with its class's name.
        return required_text("thread_id", str.__str__(given))
    if isinstance(given, int | UUID) and not isinstance(given, bool):
        return _json.shown(given)
    raise InvalidArgumentError(
        argument="thread_id", problem=f"must be a str, int or UUID, not {type(given).__name__}"
    )


def stored_namespace(namespace: str) -> str:
    """`namespace`, or its beginning and its hash where an index couldn't hold it.

    A colon marks the namespace of one subgraph call, so where there is one it stays.
    """
    encoded = namespace.encode()
    if len(encoded) <= _LONGEST_NAMESPACE_BYTES:
        return namespace
    beginning = encoded[:_KEPT_NAMESPACE_BYTES].decode(errors="ignore")
    colon = ":" if ":" in namespace else ""
    return f"{beginning}{colon}#{hashlib.sha256(encoded).hexdigest()}"


@lru_cache(maxsize=4096)
def session_id_of(thread_id: str, tenant_id: str = "") -> UUID:
    """The session of a tenant's thread: a UUID (version 8) of the first 16 bytes of a SHA-256.

    It is that of the thread's id; where there is a tenant, of the tenant's id, a byte 255 and
    the thread's id. The SQL function pgsaga_session_id gives the same.
    """
    named = thread_id.encode()
    if tenant_id:
        named = tenant_id.encode() + _BETWEEN + named
    digest = bytearray(hashlib.sha256(named).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x80
    digest[8] = digest[8] & 0x3F | 0x80
    return UUID(bytes=bytes(digest))
