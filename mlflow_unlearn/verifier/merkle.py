"""Merkle trees over sorted leaves: commit to a set, then prove that something is in it or is not. Standard library only, to be read on its own.

The tree is the one of RFC 6962 section 2.1 (leaf hashes start with 0x00, inner nodes with 0x01, a tree of n leaves splits at the largest power of
two below n), and inclusion is verified as in RFC 9162 section 2.1.3.2. The tree's hash alone does not say how many leaves there are, so what is
published is `bound(size, hash)` = SHA-256(0x02 || size as 8 bytes, big-endian || hash), here called the root.

Absence is shown by the two neighbours between which the leaf would lie. That proves absence only if whoever committed did sort the leaves, which no
proof about a few of them can show: an unsorted tree may hide a leaf elsewhere. `audit` settles it for those who are given all leaves.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from mmap import mmap

WIDTH = 32
"""Bytes of a leaf and of a hash."""
EMPTY = hashlib.sha256(b"").digest()
"""The hash of the tree without leaves."""
LOWEST = 4
"""Nodes below this height are computed again from at most 16 leaves, which keeps a tree at 36 bytes a leaf instead of 96."""
_STRIDE = 1 << 16
Buffer = bytes | bytearray | memoryview | mmap


class ProofError(ValueError):
    """A proof does not show what it claims; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Head:
    """A commitment to a set: how many leaves it has, and the root that binds their number and their tree."""

    size: int
    root: bytes


@dataclass(frozen=True, kw_only=True)
class Inclusion:
    """The place of a leaf and the hashes beside its way up, lowest first."""

    leaf: bytes
    index: int
    path: tuple[bytes, ...]


@dataclass(frozen=True, kw_only=True)
class Absence:
    """The neighbours between which a leaf would lie; None before the first and after the last."""

    leaf: bytes
    left: Inclusion | None
    right: Inclusion | None


def bound(size: int, tree_hash: bytes) -> bytes:
    """The root: one digest for both, so that a proof cannot be read against another size."""
    return hashlib.sha256(b"\x02" + size.to_bytes(8) + tree_hash).digest()


def verify_inclusion(head: Head, proof: Inclusion) -> None:
    """Check that the leaf is in the committed set, at that place.

    Raises:
        ProofError: it is not shown.
    """
    if not 0 <= proof.index < head.size < 1 << 64:
        raise ProofError(f"index {proof.index} is outside a tree of {head.size} leaves")
    if any(len(part) != WIDTH for part in (proof.leaf, *proof.path)):
        raise ProofError(f"a leaf or a hash of the path is not {WIDTH} bytes long")
    if bound(head.size, _climb(proof, head.size)) != head.root:
        raise ProofError(f"the path of index {proof.index} does not lead to the root of {head.size} leaves")


def verify_absence(head: Head, proof: Absence) -> None:
    """Check that the leaf is not in the committed set, provided that its leaves were sorted when they were committed to.

    Raises:
        ProofError: it is not shown.
    """
    left, right = proof.left, proof.right
    if len(proof.leaf) != WIDTH:
        raise ProofError(f"the leaf is not {WIDTH} bytes long")
    if left is None and right is None:
        if head != Head(size=0, root=bound(0, EMPTY)):
            raise ProofError(f"no neighbours are shown, and the tree of {head.size} leaves is not the empty one")
        return
    _check_places(head.size, -1 if left is None else left.index, head.size if right is None else right.index)
    if (left and left.leaf >= proof.leaf) or (right and right.leaf <= proof.leaf):
        raise ProofError("the leaf does not lie between its neighbours")
    for neighbour in filter(None, (left, right)):
        verify_inclusion(head, neighbour)


def audit(head: Head, leaves: Buffer) -> None:
    """Check a commitment against all its leaves: distinct, ascending and leading to the root. Absence proofs rest on this.

    Args:
        head: what was committed to.
        leaves: 32 bytes each, one after the other.

    Raises:
        ProofError: one of these does not hold.
    """
    size, rest = divmod(len(leaves), WIDTH)
    if rest or size != head.size:
        raise ProofError(f"expected {head.size} leaves of {WIDTH} bytes, found {len(leaves)} bytes")
    if not ascending(leaves):
        raise ProofError("the leaves are not sorted or not distinct: absence proofs of this tree show nothing")
    if Tree.build(leaves).head != head:
        raise ProofError("the leaves do not lead to the root")


def ascending(leaves: Buffer) -> bool:
    """Whether each leaf is greater than the one before it."""
    last = bytes(leaves[:WIDTH])
    for start in range(WIDTH, len(leaves), WIDTH):
        leaf = bytes(leaves[start : start + WIDTH])
        if leaf <= last:
            return False
        last = leaf
    return True


class Tree:
    """A tree as flat buffers: the sorted leaves, and the nodes from height `LOWEST` up, level by level."""

    def __init__(self, leaves: Buffer, levels: Sequence[Buffer]) -> None:
        self.leaves = leaves
        self.levels = levels
        self.size = len(leaves) // WIDTH

    @classmethod
    def build(cls, leaves: Buffer) -> Tree:
        """Hash leaves (32 bytes each, sorted and distinct, one after the other) up to their root."""
        level, levels = hashed_leaves(leaves), []
        for height in range(1, len(widths(len(leaves) // WIDTH))):
            level = parents(level)
            if height >= LOWEST:
                levels.append(level)
        return cls(leaves, levels)

    @property
    def head(self) -> Head:
        """The commitment."""
        top = len(widths(self.size)) - 1
        return Head(size=self.size, root=bound(self.size, self._node(top, 0) if self.size else EMPTY))

    def prove(self, leaf: bytes) -> Inclusion | Absence:
        """What shows that this leaf is in the set, or that it is not."""
        place = bisect_left(range(self.size), leaf, key=self._leaf)
        if place < self.size and self._leaf(place) == leaf:
            return self.inclusion(place)
        left = self.inclusion(place - 1) if place else None
        return Absence(leaf=leaf, left=left, right=self.inclusion(place) if place < self.size else None)

    def inclusion(self, index: int) -> Inclusion:
        """The proof of the leaf at this place."""
        counts = enumerate(widths(self.size)[:-1])
        path = [self._node(height, index >> height ^ 1) for height, count in counts if index >> height ^ 1 < count]
        return Inclusion(leaf=self._leaf(index), index=index, path=tuple(path))

    def _leaf(self, index: int) -> bytes:
        return bytes(self.leaves[index * WIDTH : (index + 1) * WIDTH])

    def _node(self, height: int, index: int) -> bytes:
        if height >= LOWEST:
            return bytes(self.levels[height - LOWEST][index * WIDTH : (index + 1) * WIDTH])
        level: Buffer = hashed_leaves(self.leaves[(index << height) * WIDTH : (index + 1 << height) * WIDTH])
        for _ in range(height):
            level = parents(level)
        return bytes(level)


def widths(size: int) -> list[int]:
    """Numbers of nodes at each height of a tree, from the leaves to the root; empty without leaves."""
    counts = [size] if size else []
    while counts and counts[-1] > 1:
        counts.append((counts[-1] + 1) // 2)
    return counts


def hashed_leaves(leaves: Buffer) -> bytearray:
    """The lowest level of nodes."""
    return _hashed(b"\x00", leaves, WIDTH)


def parents(level: Buffer) -> bytearray:
    """The level above: pairs are hashed, and a node without a partner moves up as it is, which is RFC 6962's split."""
    paired = len(level) // (2 * WIDTH) * 2 * WIDTH
    above = _hashed(b"\x01", level[:paired], 2 * WIDTH)
    above += level[paired:]
    return above


def _hashed(prefix: bytes, level: Buffer, width: int) -> bytearray:
    sha256, out = hashlib.sha256, bytearray()
    for low in range(0, len(level), _STRIDE * width):
        piece = bytes(level[low : low + _STRIDE * width])
        out += b"".join([sha256(prefix + piece[start : start + width]).digest() for start in range(0, len(piece), width)])
    return out


def _check_places(size: int, left: int, right: int) -> None:
    """Whether two places, -1 and `size` being beyond the edges, have nothing between them."""
    if not -1 <= left < right <= size:
        raise ProofError(f"neighbours {left} and {right} are not in order inside a tree of {size} leaves")
    if right != left + 1:
        raise ProofError(f"neighbours {left} and {right} are not adjacent in a tree of {size} leaves")


def _climb(proof: Inclusion, size: int) -> bytes:
    """The hash of the tree that this path leads to (RFC 9162 section 2.1.3.2)."""
    place, last = proof.index, size - 1
    found = hashlib.sha256(b"\x00" + proof.leaf).digest()
    for beside in proof.path:
        if last == 0:
            raise ProofError(f"the path of index {proof.index} is too long for {size} leaves")
        if place & 1 or place == last:
            found = hashlib.sha256(b"\x01" + beside + found).digest()
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        else:
            found = hashlib.sha256(b"\x01" + found + beside).digest()
        place, last = place >> 1, last >> 1
    if last:
        raise ProofError(f"the path of index {proof.index} is too short for {size} leaves")
    return found
