"""What another tenant's store gets and changes: nothing, whatever is called."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from langgraph.store.base import BaseStore, GetOp, PutOp

from langgraph_pgsaga.errors import InvalidArgumentError, MissingTenantError, PgSagaError
from langgraph_pgsaga.memory import MemoryStore
from langgraph_pgsaga.tenants import ALL
from langgraph_pgsaga.work import Periodic
from tests.conftest import execute, fetch

NAMESPACE, KEY = ("n",), "k"
SECRET = "what a said"
CALLS: dict[str, Callable[[MemoryStore], Any]] = {
    "get": lambda store: store.get(NAMESPACE, KEY),
    "search": lambda store: store.search((), filter={"said": SECRET}),
    "put": lambda store: store.put(NAMESPACE, KEY, {"said": "b's"}),
    "delete": lambda store: store.delete(NAMESPACE, KEY),
    "list_namespaces": lambda store: store.list_namespaces(),
    "batch": lambda store: store.batch([GetOp(NAMESPACE, KEY), PutOp(NAMESPACE, KEY, None)]),
    "sweep_ttl": lambda store: store.sweep_ttl(),
    "job": lambda store: _worked(store.job()),
}
CALLS |= {
    "aget": lambda store: store.aget(NAMESPACE, KEY),
    "asearch": lambda store: store.asearch((), filter={"said": SECRET}),
    "aput": lambda store: store.aput(NAMESPACE, KEY, {"said": "b's"}),
    "adelete": lambda store: store.adelete(NAMESPACE, KEY),
    "alist_namespaces": lambda store: store.alist_namespaces(),
    "abatch": lambda store: store.abatch([GetOp(NAMESPACE, KEY), PutOp(NAMESPACE, KEY, None)]),
    "asweep_ttl": lambda store: store.asweep_ttl(),
}
OF_NO_ITEM = {"setup", "asetup", "close", "aclose", "from_conn_string", "embedded"}


async def _worked(job: Any) -> Any:
    assert isinstance(job, Periodic)
    return await job.work()


def test_everything_public_has_a_case() -> None:
    """A method that is new says here what another tenant gets by it."""
    found = {
        name
        for owner in (MemoryStore, BaseStore)
        for name, member in vars(owner).items()
        if not name.startswith("_") and (inspect.isroutine(member))
    }
    assert found == set(CALLS) | OF_NO_ITEM


def called(name: str, store: MemoryStore) -> str:
    """What is shown by the answer."""

    async def awaited(answer: Awaitable[Any]) -> Any:
        return await answer

    answer = CALLS[name](store)
    return repr(asyncio.run(awaited(answer)) if inspect.isawaitable(answer) else answer)


def rows(dsn: str) -> list[Any]:
    return fetch(dsn, "select * from agent_store_items where tenant_id = 'a'")


@pytest.mark.parametrize("name", CALLS)
def test_the_wrong_tenant_gets_and_changes_nothing(dsn: str, name: str) -> None:
    """And the same call of the right one shows or changes something."""
    with MemoryStore.from_conn_string(dsn, tenant="a") as of_a:
        of_a.put(NAMESPACE, KEY, {"said": SECRET}, ttl=5)
        if "sweep" in name or name == "job":
            asyncio.run(execute(dsn, "update agent_store_items set expires_at = now()"))
        before = rows(dsn)
        for other in (MemoryStore(of_a.db, tenant="b"), MemoryStore(of_a.db, tenant="")):
            assert SECRET not in called(name, other)
            assert rows(dsn) == before
        shown = called(name, of_a)
        assert "'n'" in shown or rows(dsn) != before


@pytest.mark.parametrize("name", sorted(set(CALLS) - {"sweep_ttl", "asweep_ttl", "job"}))
def test_all_tenants_are_for_sweeps_only(dsn: str, name: str) -> None:
    """An item is one tenant's."""
    with MemoryStore.from_conn_string(dsn) as store:
        everybodys = MemoryStore(store.db, tenant=ALL)
        with pytest.raises(InvalidArgumentError, match="tenant"):
            called(name, everybodys)


def test_where_a_tenant_is_required_there_is_no_store_without(dsn: str) -> None:
    """As of everything else on the Database."""
    with pytest.raises(MissingTenantError):
        MemoryStore.from_conn_string(dsn, require_tenant=True)
    assert issubclass(MissingTenantError, PgSagaError)
