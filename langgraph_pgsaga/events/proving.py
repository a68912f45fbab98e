"""Proofs that an event is in a sealed log: made from the database, checked without one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langgraph_pgsaga import _json
from langgraph_pgsaga._arguments import checked_instance, shown
from langgraph_pgsaga.errors import InvalidArgumentError
from langgraph_pgsaga.events.merkle import leaf_hash, root_by_path
from langgraph_pgsaga.events.place import EventPlace
from langgraph_pgsaga.events.seal import COLUMNS, Seal, SealedRoot, leaf_of

_FORM = "pgsaga proof 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class InclusionProof:
    """An event as it was sealed, and the way from it to the root of a log.

    `columns` has the event's columns as text, in the order in which they are hashed; `index` is
    its number in its seal, from 0; `seals` of how many seals the root is.
    """

    columns: Mapping[str, str | None]
    index: int
    path: Sequence[bytes]
    seal: Seal
    seal_path: Sequence[bytes]
    seals: int

    @property
    def event_id(self) -> str:
        """The id of the event that it is about."""
        return str(self.columns["event_id"])

    @property
    def event_data(self) -> dict[str, Any]:
        """The event's data as it is stored: what is encrypted is, here."""
        found: dict[str, Any] = _json.load(str(self.columns["event_data"]))
        return found

    def text(self) -> str:
        """The proof as JSON, to hand to somebody; `parse` is the inverse."""
        seal = self.seal
        return json.dumps(
            {
                "form": _FORM,
                "event": dict(self.columns),
                "index": self.index,
                "path": [part.hex() for part in self.path],
                "seal": {
                    "number": seal.number,
                    "first": list(map(str, seal.first)),
                    "last": list(map(str, seal.last)),
                    "events": seal.events,
                    "previous": seal.previous.hex(),
                    "sealed_at": seal.sealed_at,
                },
                "seal_path": [part.hex() for part in self.seal_path],
                "seals": self.seals,
                "root": seal.root.hex(),
            },
            ensure_ascii=False,
        )

    @classmethod
    def parse(cls, text: str) -> InclusionProof:
        """The proof of such a text.

        Raises:
            InvalidArgumentError: it is none.
        """
        try:
            found = _parsed(json.loads(text))
        except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError):
            found = None
        if found is None:
            problem = f"isn't a proof's text, as InclusionProof.text() gives it: {shown(text)}"
            raise InvalidArgumentError(argument="proof", problem=problem)
        return found


def _parsed(found: Any) -> InclusionProof | None:
    columns, seal = found["event"], found["seal"]
    is_text = all(value is None or isinstance(value, str) for value in columns.values())
    if found["form"] != _FORM or not is_text or set(columns) != set(COLUMNS):
        return None
    return InclusionProof(
        columns={name: columns[name] for name in COLUMNS},
        index=int(found["index"]),
        path=tuple(map(bytes.fromhex, found["path"])),
        seal=Seal(
            tenant_id=str(columns["tenant_id"]),
            number=int(seal["number"]),
            first=EventPlace(*map(int, seal["first"])),
            last=EventPlace(*map(int, seal["last"])),
            events=int(seal["events"]),
            root=bytes.fromhex(found["root"]),
            previous=bytes.fromhex(seal["previous"]),
            sealed_at=str(seal["sealed_at"]),
        ),
        seal_path=tuple(map(bytes.fromhex, found["seal_path"])),
        seals=int(found["seals"]),
    )


def check_proof(proof: InclusionProof, root: SealedRoot) -> bool:
    """Whether the event of a proof is, as the proof has it, in the log that a root is of.

    It needs nothing else: no database, and nobody's word. Take the root from where you kept it.
    """
    checked_instance("proof", proof, InclusionProof, "Pass InclusionProof.parse(text)")
    checked_instance("root", root, SealedRoot, "Pass SealedRoot.parse(text)")
    if set(proof.columns) != set(COLUMNS) or proof.columns["tenant_id"] != proof.seal.tenant_id:
        return False
    seal = proof.seal
    leaf = leaf_of([proof.columns[name] for name in COLUMNS])
    if root_by_path(leaf, proof.index, seal.events, proof.path) != seal.root:
        return False
    tree = root_by_path(leaf_hash(seal.hash()), seal.number - 1, proof.seals, proof.seal_path)
    return tree is not None and SealedRoot.of(seal.tenant_id, proof.seals, tree) == root
