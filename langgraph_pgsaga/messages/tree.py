"""A thread's stored messages by what they followed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from langgraph_pgsaga.messages.row import MessageRow


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageNode:
    """A message in its tree; `children` are the numbers of those that follow it, oldest first."""

    row: MessageRow
    depth: int
    children: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageTree:
    """A thread's stored messages, each below the one it followed when it was stored.

    `nodes` are by message number, in its order; flat, since a conversation may be thousands
    deep. A message whose parent was pruned is a root.
    """

    thread_id: str
    nodes: Mapping[int, MessageNode]
    roots: tuple[int, ...]

    @classmethod
    def of(cls, thread_id: str, rows: Sequence[MessageRow]) -> MessageTree:
        """The tree of a thread's rows, which are in the order of their numbers."""
        children: dict[int, list[int]] = {row.message_no: [] for row in rows}
        depths: dict[int, int] = {}
        roots: list[int] = []
        for row in rows:
            number, parent = row.message_no, row.parent_message_no
            # A parent was numbered before; what isn't (yet) here is no parent.
            if parent is None or parent not in depths:
                roots.append(number)
                depths[number] = 0
            else:
                children[parent].append(number)
                depths[number] = depths[parent] + 1
        nodes = {
            row.message_no: MessageNode(
                row=row,
                depth=depths[row.message_no],
                children=tuple(children[row.message_no]),
            )
            for row in rows
        }
        return cls(thread_id=thread_id, nodes=nodes, roots=tuple(roots))

    @property
    def leaves(self) -> list[MessageNode]:
        """The messages that nothing follows: the ends of the branches, oldest first."""
        return [node for node in self.nodes.values() if not node.children]

    def path(self, message_no: int) -> list[MessageNode]:
        """The branch that ends with the message, from its root on; KeyError where it isn't."""
        node: MessageNode | None = self.nodes[message_no]
        found: list[MessageNode] = []
        while node is not None:
            found.append(node)
            parent = node.row.parent_message_no
            node = self.nodes[parent] if parent is not None and node.depth else None
        return found[::-1]

    def walk(self) -> Iterator[MessageNode]:
        """Every node, parents first, one branch after the other."""
        waiting = list(reversed(self.roots))
        while waiting:
            node = self.nodes[waiting.pop()]
            yield node
            waiting.extend(reversed(node.children))
