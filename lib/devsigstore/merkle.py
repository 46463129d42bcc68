"""A growing Merkle tree (RFC 6962, 2.1): root, inclusion proofs and consistency proofs of every size it has had.

Hashes of complete subtrees are kept, so that a proof costs the square of the tree's height. One thread may append while
others read: a leaf counts only once every inner node that it completes is there.
"""

from __future__ import annotations

import hashlib


def leaf_hash(body: bytes) -> bytes:
    """RFC 6962, 2.1: a leaf."""
    return hashlib.sha256(b"\x00" + body).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """RFC 6962, 2.1: an inner node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def _split(size: int) -> int:
    """The largest power of two smaller than `size`."""
    return 1 << ((size - 1).bit_length() - 1)


class Tree:
    """Leaves are only ever added, by one thread at a time."""

    def __init__(self, leaves: list[bytes]) -> None:
        """Start from leaf hashes."""
        self._levels: list[list[bytes]] = [[]]
        self._size = 0
        for leaf in leaves:
            self.append(leaf)

    def append(self, leaf: bytes) -> None:
        """Add one leaf hash, and every inner node that it completes."""
        level = 0
        self._levels[0].append(leaf)
        while len(self._levels[level]) % 2 == 0:
            if level + 1 == len(self._levels):
                self._levels.append([])
            pair = self._levels[level]
            self._levels[level + 1].append(node_hash(pair[-2], pair[-1]))
            level += 1
        self._size += 1  # last, because readers start from the size

    def __len__(self) -> int:
        """The number of leaves."""
        return self._size

    def root(self, size: int) -> bytes:
        """The root of the first `size` leaves."""
        return self._range(0, size) if size else hashlib.sha256(b"").digest()

    def _range(self, low: int, high: int) -> bytes:
        size = high - low
        if size & (size - 1) == 0 and low % size == 0:
            return self._levels[size.bit_length() - 1][low // size]
        middle = low + _split(size)
        return node_hash(self._range(low, middle), self._range(middle, high))

    def inclusion(self, index: int, size: int) -> list[bytes]:
        """PATH(index, D[size]), from the leaf up (RFC 6962, 2.1.1)."""
        return self._path(index, 0, size)

    def _path(self, index: int, low: int, high: int) -> list[bytes]:
        if high - low == 1:
            return []
        middle = low + _split(high - low)
        if index < middle:
            return [*self._path(index, low, middle), self._range(middle, high)]
        return [*self._path(index, middle, high), self._range(low, middle)]

    def consistency(self, first: int, second: int) -> list[bytes]:
        """PROOF(first, D[second]) (RFC 6962, 2.1.2); empty if either is 0 or they are equal."""
        if first in {0, second}:
            return []
        return self._subproof(first, 0, second, whole=True)

    def _subproof(self, first: int, low: int, high: int, *, whole: bool) -> list[bytes]:
        size = high - low
        if first == size:
            return [] if whole else [self._range(low, high)]
        middle = _split(size)
        if first <= middle:
            return [*self._subproof(first, low, low + middle, whole=whole), self._range(low + middle, high)]
        return [*self._subproof(first - middle, low + middle, high, whole=False), self._range(low, low + middle)]
