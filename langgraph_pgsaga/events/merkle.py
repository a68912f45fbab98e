"""Merkle trees, as RFC 9162 has them (section 2.1): a hash of many, and short proofs about it.

A leaf and a node are hashed behind different bytes, so that no node can be passed off as a leaf.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

HASH_BYTES = 32
_LEAF = b"\x00"
_NODE = b"\x01"


def leaf_hash(data: bytes) -> bytes:
    """The hash of what a leaf holds."""
    return hashlib.sha256(_LEAF + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of two trees beside each other."""
    return hashlib.sha256(_NODE + left + right).digest()


class Growing:
    """The tree of leaves that come one by one; it holds a hash for each doubling of them."""

    def __init__(self) -> None:
        self.size = 0
        # Complete trees, the largest first: as the bits of size say.
        self._complete: list[bytes] = []

    def append(self, leaf: bytes) -> None:
        """One more leaf, as `leaf_hash` gives it."""
        self._complete.append(leaf)
        self.size += 1
        bits = self.size
        while bits % 2 == 0:
            right, left = self._complete.pop(), self._complete.pop()
            self._complete.append(node_hash(left, right))
            bits //= 2

    def root(self) -> bytes:
        """The root of those that came; of none, the hash of nothing."""
        if not self._complete:
            return hashlib.sha256().digest()
        root = self._complete[-1]
        for left in reversed(self._complete[:-1]):
            root = node_hash(left, root)
        return root


def root_of(leaves: Sequence[bytes]) -> bytes:
    """The root of the tree of some leaves."""
    tree = Growing()
    for leaf in leaves:
        tree.append(leaf)
    return tree.root()


def path_to(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """What `root_by_path` needs to get from a leaf to the root, the leaf's neighbour first."""
    path: list[bytes] = []
    low, high = 0, len(leaves)
    while high - low > 1:
        # The greatest power of two that is less than the number of leaves.
        middle = low + (1 << (high - low - 1).bit_length() - 1)
        if index < middle:
            path.append(root_of(leaves[middle:high]))
            high = middle
        else:
            path.append(root_of(leaves[low:middle]))
            low = middle
    return tuple(reversed(path))


def root_by_path(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """The root of the tree of `size` leaves in which this leaf has this index and this path.

    None where no tree has such a path. The algorithm is that of RFC 9162, section 2.1.3.2.
    """
    if not 0 <= index < size:
        return None
    number, last, root = index, size - 1, leaf
    for part in path:
        if last == 0:
            return None
        if number % 2 == 1 or number == last:
            root = node_hash(part, root)
            while number % 2 == 0 and number > 0:
                number, last = number // 2, last // 2
        else:
            root = node_hash(root, part)
        number, last = number // 2, last // 2
    return root if last == 0 else None
