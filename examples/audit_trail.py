"""A refund desk that can show what it did, and that nobody has changed that since.

An agent decides on refunds. Each step of it is an event, in the commit that stores the step. Its
process is killed in the middle of a payment, and another one goes on: no refund is paid twice, none
is lost. A projection counts them; seals show what somebody changes in the log afterwards; one
event is proven to who has no database; and a customer is forgotten, though the log stays whole.

    python examples/audit_trail.py

The model is a plain function, so it needs no API key. It uses PGSAGA_DSN's server, else the
embedded one.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import subprocess
import sys
import time
from typing import Any, TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph

from langgraph_pgsaga import Database, PgSagaError, PostgresSaver
from langgraph_pgsaga.database import Connection
from langgraph_pgsaga.events import (
    AgentEvent,
    Aggregate,
    EventStore,
    InclusionProof,
    Projection,
    SealedRoot,
    SubjectKeys,
    check_proof,
)
from langgraph_pgsaga.work import Worker, this_step

PERSONAL = {"refund_asked": ["email"], "refund_paid": ["email"]}
LIMIT_CENTS = 10_000
TICKETS: list[State] = [
    {"ticket": 1, "customer": "ada", "cents": 900, "text": "The cup came broken."},
    {"ticket": 2, "customer": "bob", "cents": 12_000, "text": "I don't like the colour."},
    {"ticket": 3, "customer": "ada", "cents": 4_500, "text": "It never came."},
    {"ticket": 4, "customer": "cy", "cents": 2_000, "text": "Broken as well."},
    {"ticket": 5, "customer": "bob", "cents": 300, "text": "The lid is broken."},
    {"ticket": 6, "customer": "cy", "cents": 7_000, "text": "It never came, either."},
]
KILLED_AT = 4

CREATE_TOTALS = """
  create table if not exists refund_totals (
    run text, customer text, refunds integer not null, cents bigint not null,
    primary key (run, customer)
  )
"""
ADD_UP = """
  insert into refund_totals values ($1, $2, 1, $3)
  on conflict (run, customer) do update
  set refunds = refund_totals.refunds + 1, cents = refund_totals.cents + excluded.cents
"""
TAMPER = """
  update agent_events set event_data = jsonb_set(event_data, '{cents}', $3)
  where tenant_id = $1 and event_id = $2
"""


# The agent: read -> decide -> pay or refuse


class State(TypedDict, total=False):
    run: str
    ticket: int
    customer: str
    cents: int
    text: str
    reason: str
    is_approved: bool


def model(text: str) -> str:
    """What a model would be asked: why does the customer want the money back?"""
    words = text.lower()
    if "broken" in words:
        return "broken"
    return "lost" if "never came" in words else "other"


class Desk:
    """The agent's nodes, and the log in which they write."""

    def __init__(self, store: EventStore) -> None:
        self.store = store

    async def read(self, state: State) -> State:
        reason = model(state["text"])
        asked = {"cents": state["cents"], "reason": reason, "email": email_of(state)}
        await self.tell(state, "refund_asked", asked, subject=state["customer"])
        return {"reason": reason}

    async def decide(self, state: State) -> State:
        is_approved = state["reason"] != "other" and state["cents"] <= LIMIT_CENTS
        await self.tell(state, "refund_decided", {"is_approved": is_approved})
        return {"is_approved": is_approved}

    async def pay(self, state: State) -> State:
        paid = {"cents": state["cents"], "email": email_of(state)}
        await self.tell(state, "refund_paid", paid, subject=state["customer"])
        say(f"ticket {state['ticket']}: {state['cents']} cents to {state['customer']}")
        if os.environ.get("KILLED_AT") == str(state["ticket"]):
            say("...")
            await asyncio.sleep(600)  # until somebody kills this process; the step isn't stored
        return {}

    async def refuse(self, state: State) -> State:
        await self.tell(state, "refund_refused", {"reason": state["reason"]})
        say(f"ticket {state['ticket']}: refused")
        return {}

    async def tell(
        self, state: State, event_type: str, data: dict[str, Any], subject: str | None = None
    ) -> None:
        """An event of the ticket, in the commit that stores the running step."""
        said = {"ticket": state["ticket"], "customer": state["customer"], **data}
        event = AgentEvent(event_type=event_type, event_data=said, subject=subject)
        ticket = thread_of(state["run"], state["ticket"])
        await self.store.append(ticket, [event], aggregate_type="ticket", conn=this_step())


def email_of(state: State) -> str:
    return f"{state['customer']}@example.org"


def thread_of(run: str, ticket: int) -> str:
    return f"{run} ticket {ticket}"


def build(saver: PostgresSaver, store: EventStore) -> CompiledStateGraph[Any, Any, Any, Any]:
    desk, workflow = Desk(store), StateGraph(State)
    for node in (desk.read, desk.decide, desk.pay, desk.refuse):
        workflow.add_node(node.__name__, node)
    workflow.add_edge(START, "read")
    workflow.add_edge("read", "decide")
    workflow.add_conditional_edges(
        "decide", lambda state: "pay" if state["is_approved"] else "refuse", ["pay", "refuse"]
    )
    for last in ("pay", "refuse"):
        workflow.add_edge(last, END)
    return workflow.compile(checkpointer=saver)


# The processes


def open_database() -> Database:
    """PGSAGA_DSN's server, else the embedded one."""
    return Database() if os.environ.get("PGSAGA_DSN") else Database.embedded()


def open_store(db: Database, run: str, master_key: str) -> EventStore:
    """The log of this run, which is a tenant of its own."""
    keys = SubjectKeys(master_key=bytes.fromhex(master_key), personal=PERSONAL)
    return EventStore(db, tenant=run, subjects=keys)


async def work(run: str, master_key: str) -> None:
    """Does what isn't done of the tickets, from wherever it is."""
    async with open_database() as db:
        store = open_store(db, run, master_key)
        graph = build(PostgresSaver(db, events=store), store)
        for ticket in TICKETS:
            thread = thread_of(run, ticket["ticket"])
            config: RunnableConfig = {"configurable": {"thread_id": thread, "tenant_id": run}}
            state = await graph.aget_state(config)
            if state.next:
                say(f"ticket {ticket['ticket']}: goes on before {state.next[0]}")
                await graph.ainvoke(None, config)
            elif not state.values:
                await graph.ainvoke({"run": run, **ticket}, config)


def start_work(run: str, master_key: str, killed_at: int | None) -> subprocess.Popen[str]:
    environment = {**os.environ, "MASTER_KEY": master_key}
    environment.pop("KILLED_AT", None)
    if killed_at is not None:
        environment["KILLED_AT"] = str(killed_at)
    command = [sys.executable, __file__, "--stage", "work", "--run", run]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def killed_in_the_middle(run: str, master_key: str) -> None:
    """A process that is killed while it pays: SIGKILL, nothing is tidied up."""
    with start_work(run, master_key, KILLED_AT) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if "..." in line:
                child.kill()
                say(f"killed, while ticket {KILLED_AT} is being paid")
                break
            print(line, end="", flush=True)


def finished(run: str, master_key: str) -> None:
    with start_work(run, master_key, None) as child:
        assert child.stdout is not None
        for line in child.stdout:
            print(line, end="", flush=True)
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, child.args)


# What the log is good for


async def count(store: EventStore, run: str) -> None:
    """A projection in a worker, and the same by a fold of the log."""

    async def add_up(event: AgentEvent, conn: Connection) -> None:
        await conn.execute(ADD_UP, run, event.event_data["customer"], event.event_data["cents"])

    async with store.db.transaction() as conn:
        await conn.execute(CREATE_TOTALS)
    refunds = Projection(name="refund totals", handler=add_up, types=["refund_paid"])
    folded = await fold_log(store, run)
    async with Worker(store.db, store.job(refunds)), asyncio.timeout(60):
        while True:
            projected = await totals(store.db, run)
            if projected == folded:
                break
            await asyncio.sleep(0.05)
    for customer, (number, cents) in projected.items():
        say(f"{customer}: {cents} cents in {number}")
    say("the projection and the fold of the log agree")


async def totals(db: Database, run: str) -> dict[str, tuple[int, int]]:
    async with db.transaction() as conn:
        rows = await conn.fetch(
            "select customer, refunds, cents from refund_totals where run = $1 order by customer",
            run,
        )
    return {row["customer"]: (row["refunds"], row["cents"]) for row in rows}


async def fold_log(store: EventStore, run: str) -> dict[str, tuple[int, int]]:
    """What the tickets' events add up to, by customer."""
    ticket: Aggregate[dict[str, Any]] = Aggregate(
        aggregate_type="ticket", initial=dict, apply=with_event
    )
    found: dict[str, tuple[int, int]] = {}
    for one in TICKETS:
        state = (await store.fold(ticket, thread_of(run, one["ticket"]))).state
        if "paid" in state:
            number, cents = found.get(state["customer"], (0, 0))
            found[state["customer"]] = (number + state["times"], cents + state["paid"])
    return dict(sorted(found.items()))


def with_event(state: dict[str, Any], event: AgentEvent) -> dict[str, Any]:
    state = {**state, "customer": event.event_data["customer"]}
    if str(event.event_type) == "refund_paid":
        state["paid"] = state.get("paid", 0) + event.event_data["cents"]
        state["times"] = state.get("times", 0) + 1
    return state


async def sealed(store: EventStore) -> SealedRoot:
    """A worker seals the log; the root is what to keep elsewhere."""
    async with Worker(store.db, store.seal_job(every_seconds=1)), asyncio.timeout(60):
        while True:
            found = await store.verify()
            if found.seals and not found.unsealed:
                break
            await asyncio.sleep(0.1)
    assert found.root is not None
    say(f"{found.events} events, seals: {found.seals}; intact: {found.is_intact}")
    say(f"root to keep: {str(found.root)[:20]}...")
    return found.root


async def tampered_with(store: EventStore, run: str, root: SealedRoot) -> None:
    """Somebody with all rights changes an amount; then it is put back."""
    page = await store.read_all(types=["refund_paid"])
    event = page.events[1]
    cents = event.event_data["cents"]
    for amount, told in ((cents * 10, "changed by SQL"), (cents, "put back")):
        async with store.db.transaction() as conn:
            await conn.execute(TAMPER, run, event.event_id, str(amount))
        found = await store.verify(root=root)
        say(f"{cents} to {amount} cents, {told}; intact: {found.is_intact}")
        for one in found.findings:
            which = "that one" if one.event_id == event.event_id else "another one"
            say(f"   seal {one.seal}: {one.kind.value}: {which}")


async def proven(store: EventStore, root: SealedRoot) -> None:
    """One event, to somebody who has the root and nothing else."""
    page = await store.read_all(types=["refund_paid"])
    proof = await store.prove(page.events[0].event_id, root=root)
    assert proof is not None
    carried = InclusionProof.parse(proof.text())
    said = carried.event_data
    is_proven = check_proof(carried, SealedRoot.parse(str(root)))
    say(f"{said['cents']} cents to {said['customer']}, in {len(proof.text())} bytes: {is_proven}")


async def forgotten(store: EventStore, root: SealedRoot) -> None:
    """A customer's personal data is erased, in all events at once."""
    for _ in range(2):
        page = await store.read_all(types=["refund_paid"])
        emails = [event.event_data["email"] for event in page.events]
        found = await store.verify(root=root)
        say(f"emails: {emails}; intact: {found.is_intact}")
        await store.forget_subject("ada")


# The tour


async def tour(run: str) -> None:
    master_key = secrets.token_hex(32)
    async with open_database() as db:  # keeps the server up between the processes
        store = open_store(db, run, master_key)
        await store.initialize()
        title(f"A process works at six tickets ({run}), and is killed")
        await asyncio.to_thread(killed_in_the_middle, run, master_key)
        title("Another one goes on")
        await asyncio.to_thread(finished, run, master_key)
        title("A projection counts the refunds")
        await count(store, run)
        title("The log is sealed")
        root = await sealed(store)
        title("Somebody changes an amount")
        await tampered_with(store, run, root)
        title("One refund is proven, without a database")
        await proven(store, root)
        title("Ada asks to be forgotten")
        await forgotten(store, root)


def say(text: str) -> None:
    print(f"   {text}", flush=True)


def title(text: str) -> None:
    print(f"\n{text}\n{'-' * len(text)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="A tour of the log of events.")
    parser.add_argument("--stage", default="tour", help=argparse.SUPPRESS)
    parser.add_argument("--run", default=f"run-{time.time_ns()}", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.stage == "work":
        asyncio.run(work(given.run, os.environ["MASTER_KEY"]))
    else:
        asyncio.run(tour(given.run))


if __name__ == "__main__":
    try:
        main()
    except PgSagaError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
