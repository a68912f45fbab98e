"""Trees of hashes, proofs of what they hold, and the bytes that are hashed."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langgraph_pgsaga.errors import InvalidArgumentError
from langgraph_pgsaga.events import SealedRoot
from langgraph_pgsaga.events.merkle import (
    Growing,
    leaf_hash,
    node_hash,
    path_to,
    root_by_path,
    root_of,
)
from langgraph_pgsaga.events.seal import framed

# The test vectors of the implementations of certificate transparency.
LEAVES = [
    *("", "00", "10", "2021", "3031", "40414243", "5051525354555657"),
    "606162636465666768696a6b6c6d6e6f",
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def leaves(count: int) -> list[bytes]:
    return [leaf_hash(bytes([number])) for number in range(count)]


def defined_root(hashes: list[bytes]) -> bytes:
    """As section 2.1.1 of RFC 9162 defines it."""
    if len(hashes) < 2:
        return hashes[0] if hashes else hashlib.sha256().digest()
    middle = 1
    while middle * 2 < len(hashes):
        middle *= 2
    return node_hash(defined_root(hashes[:middle]), defined_root(hashes[middle:]))


@pytest.mark.parametrize("size", range(1, 9))
def test_the_root_is_that_of_the_known_vectors(size: int) -> None:
    hashes = [leaf_hash(bytes.fromhex(data)) for data in LEAVES[:size]]
    assert root_of(hashes).hex() == ROOTS[size - 1]


@pytest.mark.parametrize("size", range(70))
def test_a_tree_that_grows_has_the_root_of_the_definition(size: int) -> None:
    tree = Growing()
    for leaf in leaves(size):
        tree.append(leaf)
    assert tree.root() == defined_root(leaves(size))
    assert tree.size == size


@pytest.mark.parametrize("size", range(1, 34))
def test_each_leaf_has_a_path_to_the_root_and_no_other(size: int) -> None:
    """Not that of another leaf, of another size, nor a longer or a shorter one."""
    hashes = leaves(size)
    root = root_of(hashes)
    for index, leaf in enumerate(hashes):
        path = path_to(hashes, index)
        assert root_by_path(leaf, index, size, path) == root
        assert root_by_path(leaf_hash(b"other"), index, size, path) != root
        assert root_by_path(leaf, index, size, [*path, leaf]) != root
        assert not path or root_by_path(leaf, index, size, path[:-1]) != root
        for other in range(size):
            assert other == index or root_by_path(leaf, other, size, path) != root
    assert root_by_path(hashes[0], size, size, ()) is None
    assert root_by_path(hashes[0], -1, size, ()) is None


_VALUES = st.lists(st.none() | st.text(max_size=3), max_size=5)


@given(_VALUES, _VALUES)
def test_no_two_sequences_give_the_same_bytes(one: Any, other: Any) -> None:
    """Wherever a text ends, and whether it is absent or empty."""
    assert (framed(one) == framed(other)) == (one == other)


def test_a_root_is_read_as_it_is_written() -> None:
    root = SealedRoot.of("acme", 12, bytes(32))
    assert SealedRoot.parse(f" {root}\n") == root
    assert root not in {SealedRoot.of("", 12, bytes(32)), SealedRoot.of("acme", 13, bytes(32))}


@pytest.mark.parametrize(
    "text",
    [
        *("", "12", "12:", ":", f"x:{'0' * 64}", f"0:{'0' * 64}", f"1:{'0' * 63}", f"²:{'0' * 64}"),
        *(f"1:{'g' * 64}", f"-1:{'0' * 64}", f"1:{'00 ' * 32}", f"{'9' * 30}:{'0' * 64}"),
    ],
)
def test_what_is_no_root_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="root"):
        SealedRoot.parse(text)
