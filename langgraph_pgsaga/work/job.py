"""What a Worker does: jobs, and the one that comes again and again."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from langgraph_pgsaga._arguments import checked_seconds, required_text
from langgraph_pgsaga.database import Database, load_statements
from langgraph_pgsaga.errors import InvalidArgumentError
from langgraph_pgsaga.work.claims import Claim, ClaimTable
from langgraph_pgsaga.work.retry import Retry

_STATEMENTS = load_statements("work")
_LONGEST_POLL_SECONDS = 60.0
_POLLS_PER_PERIOD = 20
_NOT_ASYNC = (
    "must be async, and was not: for a function that blocks write "
    "work=lambda: asyncio.to_thread(remind)"
)


class Job(Protocol):
    """Work of a system, that a Worker finds and runs. docs/worker.md says how to write one.

    Attributes:
        name: for people and logs; a Worker has each once.
        table: how its rows are claimed.
        topic: of the news that there is something to do; see `Notifier`.
        concurrency: how many rows are worked at at once, in a Worker.
        retry: when a row whose work failed is due again.
        longest_poll_seconds: how far apart looks for due rows are at most.
    """

    @property
    def name(self) -> str: ...
    @property
    def table(self) -> ClaimTable: ...
    @property
    def topic(self) -> str: ...
    @property
    def concurrency(self) -> int: ...
    @property
    def retry(self) -> Retry: ...
    @property
    def longest_poll_seconds(self) -> float: ...

    async def prepare(self, db: Database) -> None:
        """Makes what must be there before the first claim. Called at each start of a Worker."""

    async def run(self, claim: Claim) -> None:
        """Does the work of a claimed row, and writes its outcome by `claim.end(...)`.

        An error has it tried again, as `retry` says. It is cancelled where the claim is lost, and
        where the worker must end: then the claim is given back.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Periodic:
    """A job that comes again and again: `work()` in one process at a time, then after a while.

    When it is due stands in `agent_jobs` by its name and tenant, and survives every restart. It
    comes every_seconds after it was last done. One that failed is tried again earlier, by waits
    that grow up to every_seconds.
    """

    name: str
    every_seconds: float
    work: Callable[[], Awaitable[object]] = field(repr=False)
    tenant_id: str = ""
    concurrency: int = field(default=1, init=False)

    def __post_init__(self) -> None:
        required_text("name", self.name)
        checked_seconds("every_seconds", self.every_seconds, least=1)
        _check_work(self.work)

    @property
    def topic(self) -> str:
        """Of news that nobody sends: its time is what it waits for."""
        return "jobs"

    @property
    def longest_poll_seconds(self) -> float:
        """A twentieth of every_seconds, between a second and a minute."""
        return min(max(1.0, self.every_seconds / _POLLS_PER_PERIOD), _LONGEST_POLL_SECONDS)

    @property
    def retry(self) -> Retry:
        """After 10 s, and by growing waits up to every_seconds, without end."""
        first = min(10.0, self.every_seconds)
        return Retry(attempts=None, backoff_seconds=first, longest_seconds=self.every_seconds)

    @property
    def table(self) -> ClaimTable:
        """Its one row of agent_jobs."""
        return ClaimTable(
            key=("tenant_id", "name"),
            claim=_STATEMENTS["claim_job"],
            renew=_STATEMENTS["renew_jobs"],
            release=_STATEMENTS["release_jobs"],
            fail=_STATEMENTS["fail_job"],
            given={"tenant_id": self.tenant_id, "name": self.name},
        )

    async def prepare(self, db: Database) -> None:
        """Makes the row, due at once, where there is none."""
        await db.fetch(_STATEMENTS["insert_job"].bind(tenant_id=self.tenant_id, name=self.name))

    async def run(self, claim: Claim) -> None:
        """Does the work; then it is due again after every_seconds."""
        working: object = self.work()
        if not inspect.isawaitable(working):
            raise InvalidArgumentError(argument="work", problem=_NOT_ASYNC)
        await working
        await claim.end(_STATEMENTS["finish_job"], every_seconds=self.every_seconds)


def _check_work(work: object) -> None:
    """Whether a function returns something to await is known when it is called."""
    if inspect.iscoroutine(work):
        work.close()  # or Python says that nobody awaited it
        problem = "must be a function, not what it returned: write work=remind, not work=remind()"
    elif not callable(work):
        problem = f"must be an async function without arguments, not {type(work).__name__}"
    else:
        return
    raise InvalidArgumentError(argument="work", problem=problem)
