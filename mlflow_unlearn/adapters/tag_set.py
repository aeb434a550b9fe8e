"""A sorted set of tags in one memory-mapped file: ten thousand looked up among a hundred million in a few milliseconds.

It keeps the first 64 of a tag's 128 bits. Two different tags meet there with probability n / 2**64, and such a meeting can only make an unknown tag
look known for a moment: nothing is decided on it, the index itself is asked next.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..digests import write_atomically


@dataclass(frozen=True)
class TagSet:
    """One file of sorted, distinct, unsigned 64-bit words."""

    path: Path

    @classmethod
    def write(cls, path: Path, high: NDArray[np.int64]) -> TagSet:
        """Make the file from the first words of any tags, in any order."""
        words = np.sort(high.view(np.uint64))
        new = np.ones(len(words), dtype=np.bool_)
        new[1:] = words[1:] != words[:-1]  # np.unique hashes, which takes minutes for 100 million
        write_atomically(path, words[new].tobytes())
        return cls(path)

    def __len__(self) -> int:
        return self.path.stat().st_size // 8

    def contains(self, high: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(tags,) whether each first word is in the set."""
        if not len(self):
            return np.zeros(len(high), dtype=np.bool_)
        known = np.memmap(self.path, dtype=np.uint64, mode="r")
        wanted = high.view(np.uint64)
        order = np.argsort(wanted)  # in order, so that neighbouring look-ups share their pages
        places = np.searchsorted(known, wanted[order]).clip(max=len(known) - 1)
        found = np.empty(len(wanted), dtype=np.bool_)
        found[order] = known[places] == wanted[order]
        return found
