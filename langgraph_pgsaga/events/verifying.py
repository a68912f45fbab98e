"""Verifying: the log is hashed again, and compared with its seals, batch by batch."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from enum import Enum

import asyncpg

from langgraph_pgsaga.database import Database
from langgraph_pgsaga.events.merkle import HASH_BYTES, Growing, leaf_hash, root_of
from langgraph_pgsaga.events.place import START, EventPlace
from langgraph_pgsaga.events.seal import GENESIS, Seal, SealedRoot, leaf_of, split_leaves
from langgraph_pgsaga.events.sealing import STATEMENTS, leaf_pages

_SEALS_PER_PAGE = 100
# What is told one by one; of the others the number.
_MOST_TOLD = 1000
_MOST_UNSEALED = 10_000


class Tampering(Enum):
    """What was done to a sealed log, as far as it shows."""

    EVENT_CHANGED = "event changed"
    EVENT_MISSING = "event missing"
    EVENT_ADDED = "event added"
    SEAL_CHANGED = "seal changed"
    SEAL_MISSING = "seal missing"
    ROOT_DIFFERS = "root differs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that isn't as it was sealed, and where.

    `seal` is the number of the seal (None for an event outside of all), and `event_id` the event
    that is there now; `problem` says it in a sentence.
    """

    kind: Tampering
    seal: int | None
    event_id: str | None
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyProgress:
    """How far a verification is: seals and events that it has seen, of so many seals."""

    seals: int
    of_seals: int
    events: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What was found of a tenant's log.

    `events` were compared with their seals; `unsealed` come behind the last one (counted to
    10,000). `findings` are the first thousand of `finding_count`. `root` is that of all seals:
    kept elsewhere, it shows later that nobody has sealed another log anew.
    """

    tenant_id: str
    seals: int
    events: int
    unsealed: int
    findings: Sequence[Finding]
    finding_count: int
    root: SealedRoot | None

    @property
    def is_intact(self) -> bool:
        """Whether all that is sealed is as it was sealed."""
        return self.finding_count == 0


class Verifier:
    """One verification, which holds a page of the log at a time."""

    def __init__(
        self,
        db: Database,
        tenant_id: str,
        root: SealedRoot | None,
        on_progress: Callable[[VerifyProgress], None] | None,
    ) -> None:
        self._db = db
        self._tenant_id = tenant_id
        self._kept = root
        self._on_progress = on_progress
        self._findings: list[Finding] = []
        self._finding_count = 0
        self._events = 0
        self._tree = Growing()
        self._kept_tree: bytes | None = None
        # Behind the seals seen so far: the hash and last place of the last one; None where it
        # isn't as it was made, or isn't there.
        self._previous: bytes | None = GENESIS
        self._reached: EventPlace | None = START

    async def run(self) -> Verification:
        """What is found; the seals that are made meanwhile are left out."""
        head = await self._db.fetch_one(STATEMENTS["get_head"].bind(tenant_id=self._tenant_id))
        assert head is not None, "it gives a row always"
        last = max(head["number"] or 0, head["greatest"] or 0)
        number = 0
        async for row in self._seals(last):
            self._check_gap(number + 1, row["number"] - 1)
            number = row["number"]
            await self._check_seal(Seal.from_row(self._tenant_id, row), row)
            self._tell(number, last)
        self._check_gap(number + 1, last)
        self._check_head(head, last)
        self._check_root()
        await self._check_places()
        return Verification(
            tenant_id=self._tenant_id,
            seals=self._tree.size,
            events=self._events,
            unsealed=await self._count_unsealed(),
            findings=tuple(self._findings),
            finding_count=self._finding_count,
            root=self._root(),
        )

    async def _seals(self, last: int) -> AsyncIterator[asyncpg.Record]:
        number = 0
        while True:
            statement = STATEMENTS["list_seals"].bind(
                tenant_id=self._tenant_id, after_number=number, to_number=last, page=_SEALS_PER_PAGE
            )
            rows = await self._db.fetch(statement)
            for row in rows:
                yield row
            if len(rows) < _SEALS_PER_PAGE:
                return
            number = rows[-1]["number"]

    async def _check_seal(self, seal: Seal, row: asyncpg.Record) -> None:
        leaves = split_leaves(row["leaves"])
        hashed = seal.hash()
        self._tree.append(leaf_hash(hashed))
        if self._kept is not None and self._tree.size == self._kept.seals:
            self._kept_tree = self._tree.root()
        if problem := self._problem_of(seal, row, leaves, hashed):
            self._find(Tampering.SEAL_CHANGED, seal.number, problem)
            self._previous = self._reached = None
            return
        start = self._reached
        if start is None:  # what comes before it can't be told from what it has
            start = seal.first._replace(position=seal.first.position - 1)
        await self._check_events(seal, start, leaves)
        self._previous, self._reached = hashed, seal.last

    def _problem_of(
        self, seal: Seal, row: asyncpg.Record, leaves: list[bytes], hashed: bytes
    ) -> str | None:
        """What isn't right about a seal itself."""
        are_its_own = (
            len(row["leaves"]) == HASH_BYTES * seal.events and root_of(leaves) == seal.root
        )
        if hashed != row["hash"] or not are_its_own:
            return "it isn't as it was made; which events it had can't be told"
        if self._previous is not None and seal.previous != self._previous:
            before = f"seal {seal.number - 1}" if seal.number > 1 else "nothing"
            return f"it was made behind another one than {before}: one of them was put there later"
        return None

    async def _check_events(self, seal: Seal, start: EventPlace, leaves: list[bytes]) -> None:
        compared = _Compared(leaves)
        async for rows in leaf_pages(self._db, self._tenant_id, start, seal.last):
            self._events += len(rows)
            for row in rows:
                compared.add(leaf_of(row["columns"]), row["event_id"])
        for kind, event_id, problem in compared.differences():
            self._find(kind, seal.number, problem, event_id)
        self._finding_count += compared.untold

    def _check_gap(self, first: int, last: int) -> None:
        if first > last:
            return
        self._previous = self._reached = None
        those = "it isn't" if first == last else f"those up to seal {last} aren't"
        problem = f"{those} there; which events that was of can't be told"
        self._find(Tampering.SEAL_MISSING, first, problem)

    def _check_head(self, head: asyncpg.Record, last: int) -> None:
        if last == 0:
            return
        if head["number"] is None:
            problem = "that it is the last one was noted when it was made, and isn't any more"
        elif head["number"] != last:
            problem = f"seal {head['number']} was noted as the last one that was made"
        elif head["seal_hash"] is not None and head["hash"] != head["seal_hash"]:
            problem = "its hash was noted when it was made, and is another one now"
        else:
            return
        self._find(Tampering.SEAL_CHANGED, last, problem)

    def _check_root(self) -> None:
        kept = self._kept
        if kept is None:
            return
        if self._kept_tree is None:
            problem = f"it is of {kept.seals} seals, and {self._tree.size} are there"
        elif SealedRoot.of(self._tenant_id, kept.seals, self._kept_tree) != kept:
            problem = "the log up to that seal isn't the one that it is of"
        else:
            return
        self._find(Tampering.ROOT_DIFFERS, kept.seals, problem)

    async def _check_places(self) -> None:
        statement = STATEMENTS["list_misplaced"].bind(tenant_id=self._tenant_id, page=_MOST_TOLD)
        for row in await self._db.fetch(statement):
            problem = "it has a place that no append gives, and that no seal will reach"
            self._find(Tampering.EVENT_ADDED, None, problem, row["event_id"])

    def _find(
        self, kind: Tampering, seal: int | None, problem: str, event_id: str | None = None
    ) -> None:
        self._finding_count += 1
        if len(self._findings) < _MOST_TOLD:
            found = Finding(kind=kind, seal=seal, event_id=event_id, problem=problem)
            self._findings.append(found)

    def _root(self) -> SealedRoot | None:
        if self._tree.size == 0:
            return None
        return SealedRoot.of(self._tenant_id, self._tree.size, self._tree.root())

    async def _count_unsealed(self) -> int:
        if self._reached is None:
            return 0
        pages = leaf_pages(self._db, self._tenant_id, self._reached, None)
        count = 0
        async for rows in pages:
            count += len(rows)
            if count >= _MOST_UNSEALED:
                break
        await pages.aclose()
        return count

    def _tell(self, number: int, last: int) -> None:
        if self._on_progress is not None:
            self._on_progress(VerifyProgress(seals=number, of_seals=last, events=self._events))


Difference = tuple[Tampering, str | None, str]


class _Compared:
    """A seal's events as they are, beside the hashes of what they were."""

    def __init__(self, leaves: list[bytes]) -> None:
        self._at = {leaf: index for index, leaf in enumerate(leaves)}
        self._is_there = [False] * len(leaves)
        # Events that the seal hasn't got, each with the index behind which it stands.
        self._others: list[tuple[int, str]] = []
        self._index = -1
        self.untold = 0

    def add(self, leaf: bytes, event_id: str) -> None:
        """The next event in the order of reading."""
        index = self._at.get(leaf)
        if index is not None:
            self._is_there[index] = True
            self._index = index
        elif len(self._others) < _MOST_TOLD:
            self._others.append((self._index, event_id))
        else:
            self.untold += 1

    def differences(self) -> list[Difference]:
        """In the order of the seal: another event where one is missing was changed."""
        found: list[tuple[int, Difference]] = []
        missing = [index for index, is_there in enumerate(self._is_there) if not is_there]
        gone = set(missing)
        last = -1
        for behind, event_id in self._others:
            index = max(behind, last) + 1
            if index in gone:
                gone.discard(index)
                last = index
                problem = f"event {index + 1} of the seal isn't as it was sealed"
                found.append((index, (Tampering.EVENT_CHANGED, event_id, problem)))
            else:
                problem = "it wasn't there when the seal was made"
                found.append((index, (Tampering.EVENT_ADDED, event_id, problem)))
        for index in sorted(gone):
            problem = f"event {index + 1} of the seal isn't there"
            found.append((index, (Tampering.EVENT_MISSING, None, problem)))
        return [difference for _, difference in sorted(found, key=lambda one: one[0])]
