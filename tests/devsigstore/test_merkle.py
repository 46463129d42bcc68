"""The tree: its roots and proofs are those of RFC 6962, against its definitions, its example, and published vectors."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.devsigstore.merkle import Tree, leaf_hash, node_hash

# The reference implementation's leaves (certificate-transparency, merkletree tests), and its roots of the first 0 to 8.
LEAVES = [
    bytes.fromhex(leaf)
    for leaf in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
INCLUSIONS = [  # (index, size, path)
    (0, 1, []),
    (
        0,
        8,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        5,
        8,
        [
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (2, 3, ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
    (
        1,
        5,
        [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
]
CONSISTENCIES = [  # (first, second, proof)
    (1, 1, []),
    (
        1,
        8,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        6,
        8,
        [
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (
        2,
        5,
        [
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
]


def of(leaves: list[bytes]) -> Tree:
    return Tree([leaf_hash(leaf) for leaf in leaves])


@pytest.mark.parametrize("size", range(9))
def test_root_of_the_published_vectors(size: int) -> None:
    assert of(LEAVES).root(size).hex() == ROOTS[size]
    assert of(LEAVES[:size]).root(size).hex() == ROOTS[size]


@pytest.mark.parametrize(("index", "size", "path"), INCLUSIONS)
def test_inclusion_proof_of_the_published_vectors(index: int, size: int, path: list[str]) -> None:
    assert [node.hex() for node in of(LEAVES).inclusion(index, size)] == path


@pytest.mark.parametrize(("first", "second", "proof"), CONSISTENCIES)
def test_consistency_proof_of_the_published_vectors(first: int, second: int, proof: list[str]) -> None:
    assert [node.hex() for node in of(LEAVES).consistency(first, second)] == proof


def test_the_example_of_the_rfc() -> None:
    """RFC 6962, 2.1.3: seven leaves, and the nodes that its proofs name."""
    a, b, c, d, e, f, j = (leaf_hash(b"%d" % number) for number in range(7))
    g, h, i = node_hash(a, b), node_hash(c, d), node_hash(e, f)
    k, l = node_hash(g, h), node_hash(i, j)  # noqa: E741 - the RFC's names
    tree = Tree([a, b, c, d, e, f, j])
    assert tree.root(7) == node_hash(k, l)
    assert tree.inclusion(0, 7) == [b, h, l]
    assert tree.inclusion(3, 7) == [c, g, l]
    assert tree.inclusion(4, 7) == [f, j, k]
    assert tree.inclusion(6, 7) == [i, k]
    assert tree.consistency(3, 7) == [c, d, g, l]
    assert tree.consistency(4, 7) == [l]
    assert tree.consistency(6, 7) == [i, j, k]


# --- RFC 6962, 2.1 to 2.1.2, as they are written: on lists, without memory ---------------------------------------------


def hashed(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def split(size: int) -> int:
    k = 1
    while k * 2 < size:
        k *= 2
    return k


def mth(entries: list[bytes]) -> bytes:
    if not entries:
        return hashed()
    if len(entries) == 1:
        return hashed(b"\x00", entries[0])
    k = split(len(entries))
    return hashed(b"\x01", mth(entries[:k]), mth(entries[k:]))


def path(m: int, entries: list[bytes]) -> list[bytes]:
    if len(entries) == 1:
        return []
    k = split(len(entries))
    if m < k:
        return [*path(m, entries[:k]), mth(entries[k:])]
    return [*path(m - k, entries[k:]), mth(entries[:k])]


def subproof(m: int, entries: list[bytes], *, complete: bool) -> list[bytes]:
    if m == len(entries):
        return [] if complete else [mth(entries)]
    k = split(len(entries))
    if m <= k:
        return [*subproof(m, entries[:k], complete=complete), mth(entries[k:])]
    return [*subproof(m - k, entries[k:], complete=False), mth(entries[:k])]


def entries() -> st.SearchStrategy[list[bytes]]:
    return st.integers(1, 70).flatmap(lambda size: st.lists(st.binary(max_size=3), min_size=size, max_size=size))


@given(entries(), st.data())
def test_every_root_and_proof_is_the_rfcs(said: list[bytes], data: st.DataObject) -> None:
    tree = of(said)
    assert len(tree) == len(said)
    size = data.draw(st.integers(1, len(said)), "size")
    first, index = data.draw(st.integers(1, size), "first"), data.draw(st.integers(0, size - 1), "index")
    assert tree.root(size) == mth(said[:size])
    assert tree.inclusion(index, size) == path(index, said[:size])
    assert tree.consistency(first, size) == subproof(first, said[:size], complete=True)


@given(entries(), entries())
def test_a_tree_that_grew_is_the_tree_that_was_loaded(before: list[bytes], after: list[bytes]) -> None:
    tree = of(before)
    roots = [tree.root(size) for size in range(len(tree) + 1)]
    for entry in after:
        tree.append(leaf_hash(entry))
    loaded = of(before + after)
    assert [tree.root(size) for size in range(len(tree) + 1)] == [loaded.root(size) for size in range(len(tree) + 1)]
    assert [tree.root(size) for size in range(len(before) + 1)] == roots, "what was signed stays true"


# --- what a verifier does with the proofs (RFC 9162, 2.1.3.2 and 2.1.4.2) -------------------------------------------------


def root_from_inclusion(leaf: bytes, index: int, size: int, proof: list[bytes]) -> bytes:
    node, last, result = index, size - 1, leaf
    for sibling in proof:
        assert last > 0
        if node & 1 or node == last:
            result = hashed(b"\x01", sibling, result)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            result = hashed(b"\x01", result, sibling)
        node, last = node >> 1, last >> 1
    assert last == 0
    return result


def consistent(first: int, second: int, old: bytes, new: bytes, proof: list[bytes]) -> bool:
    nodes = [old, *proof] if first & (first - 1) == 0 else list(proof)
    node, last = first - 1, second - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    before = after = nodes[0]
    for sibling in nodes[1:]:
        assert last > 0
        if node & 1 or node == last:
            before, after = hashed(b"\x01", sibling, before), hashed(b"\x01", sibling, after)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            after = hashed(b"\x01", after, sibling)
        node, last = node >> 1, last >> 1
    return (before, after, last) == (old, new, 0)


@given(entries(), st.data())
def test_proofs_convince_a_verifier(said: list[bytes], data: st.DataObject) -> None:
    tree = of(said)
    size = data.draw(st.integers(1, len(said)), "size")
    index = data.draw(st.integers(0, size - 1), "index")
    proof = tree.inclusion(index, size)
    assert root_from_inclusion(leaf_hash(said[index]), index, size, proof) == tree.root(size)
    first = data.draw(st.integers(1, size), "first")
    if first < size:
        assert consistent(first, size, tree.root(first), tree.root(size), tree.consistency(first, size))
