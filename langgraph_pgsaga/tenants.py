"""Tenants: which one a call is of.

A config names its tenant by `configurable["tenant_id"]`, a call without a config by `tenant=`;
where neither is given it is the Database's, else ''. Threads of two tenants have nothing in
common, also where they have one id: their sessions' ids are derived from both
(`threads.session_id_of`).
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Final, TypeAlias

from langgraph_pgsaga._arguments import required_text, shown
from langgraph_pgsaga.errors import InvalidArgumentError, MissingTenantError

LONGEST_TENANT_BYTES = 255


class AllTenants(Enum):
    """The type of ALL."""

    ALL = "all tenants"


# What has to be said for a listing, a search or a sweep to go over all tenants. No text is it, so
# that none that comes from outside can be.
ALL: Final = AllTenants.ALL
# What such a call takes; None is the Database's.
TenantScope: TypeAlias = str | AllTenants | None


def checked_tenant(argument: str, given: Any) -> str:
    """A tenant's id: text of up to 255 bytes in UTF-8; '' is no tenant."""
    if not isinstance(given, str):
        problem = f"must be a str, such as str(customer.id), not {shown(given)}"
        raise InvalidArgumentError(argument=argument, problem=problem)
    # Not str(): an enum that is text would answer with its class's name.
    tenant_id = required_text(argument, str.__str__(given))
    if len(tenant_id.encode()) > LONGEST_TENANT_BYTES:
        problem = f"has more than {LONGEST_TENANT_BYTES} bytes; name the tenant by a shorter id"
        raise InvalidArgumentError(argument=argument, problem=problem)
    return tenant_id


class Tenants:
    """The rule by which a saver, or another system, finds the tenant of a call.

    Args:
        default: the Database's.
        is_required: whether a call of no tenant is refused.
    """

    __slots__ = ("_is_named", "default", "is_required")

    def __init__(self, default: str = "", *, is_required: bool = False) -> None:
        self.default = default
        self.is_required = is_required
        # Whether configs have named tenants here: a call that then names none has forgotten it.
        self._is_named = False

    def of_config(self, given: Any) -> str:
        """The tenant of a config that has this under "tenant_id"; None is absent.

        Raises:
            MissingTenantError: there is none, and one is required.
            InvalidArgumentError: it can't be a tenant's.
        """
        if given is None:
            tenant_id = self.default
        elif tenant_id := checked_tenant("tenant_id", given):
            self._is_named = True
        if not tenant_id and self.is_required:
            raise MissingTenantError(argument="tenant_id")
        return tenant_id

    def of_found(self, carried: str | None) -> str:
        """The tenant of a config that was given out here, by what `in_config` had it carry."""
        return self.default if carried is None else carried

    def of_call(self, given: TenantScope) -> str:
        """The one tenant of a call without a config.

        Raises:
            MissingTenantError: there is none, and one is required, or configs have named some.
            InvalidArgumentError: it can't be a tenant's, or is ALL.
        """
        given = None if given is None else single_tenant(given)
        tenant_id = self.default if given is None else checked_tenant("tenant", given)
        if not tenant_id and (self.is_required or (given is None and self._is_named)):
            raise MissingTenantError
        return tenant_id

    def of_listing(self, given: TenantScope) -> str | AllTenants:
        """The tenant, or ALL, of a call that may go over all of them; raises as `of_call`."""
        return ALL if given is ALL else self.of_call(given)

    def in_config(self, tenant_id: str) -> str | None:
        """What configs of the tenant have to carry; None where they mean it without."""
        return tenant_id if tenant_id or self.default else None


def check_no_scope(scope: TenantScope) -> None:
    """InvalidArgumentError where a listing by a config is given a tenant besides."""
    if scope is not None:
        problem = "goes with a config of None; another config names its own tenant"
        raise InvalidArgumentError(argument="tenant", problem=problem)


def single_tenant(scope: str | AllTenants) -> str:
    """The one tenant of a call that can be of one only; InvalidArgumentError where it is ALL."""
    if scope is ALL:
        problem = "can't be ALL: a thread is one tenant's. Name that one"
        raise InvalidArgumentError(argument="tenant", problem=problem)
    return scope


def stored_scope(scope: str | AllTenants) -> str | None:
    """The scope as statements take it: null is all tenants."""
    return None if scope is ALL else scope
