"""Keyed near-duplicate fingerprints: who holds the key can test a text against a sketch, and who does not learns nothing from it.

A sketch is a MinHash (Broder 1997, "On the resemblance and containment of documents") of the character 5-shingles of the normalised text: for
each of 256 keyed permutations the smallest value among the shingles, of which one mixed byte is kept (b-bit minwise hashing, Li and Koenig 2010).
A byte is too little to test a single shingle, so that not even the key turns a sketch back into words; whole texts can be tested, as they must.

Two texts of Jaccard similarity J agree in a byte with probability J + (1 - J) / 256. The standard error of the estimate is about
sqrt(J (1 - J) / 256): 0.019 at 0.9 and 0.029 at 0.7. A sketch takes 257 bytes, one of them its version, as 514 hex characters.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from .errors import DataError
from .siphash import KEY_BYTES, siphash

SHINGLE = 5
"""Characters in a shingle."""
PERMUTATIONS = 256
VERSION = 1
"""First byte of a sketch; another way to make them needs another."""
CHANCE = 1 / 256
"""How often the bytes of two different smallest shingles agree."""
WARN_RECALL, REFUSE_RECALL = 0.99, 0.999
"""What share of pairs at either threshold the banding must find."""
_BLOCK = 1 << 16  # characters: what a core keeps near itself
_PAIRS = 1 << 14

Sketches = NDArray[np.uint8]
"""(texts, 256)."""


def normalised(prompt: str, answer: str) -> str:
    """Prompt and answer as one text, without differences of spacing, case or Unicode form (NFKC)."""
    return re.sub(r"\s+", " ", unicodedata.normalize("NFKC", f"{prompt} {answer}")).strip().casefold()


def shingles(text: str) -> set[str]:
    """The character 5-grams of a normalised text; a shorter text is its only one."""
    return {text[i : i + SHINGLE] for i in range(max(1, len(text) - SHINGLE + 1))}


def standard_error(jaccard: float) -> float:
    """Of the estimate for two texts of this similarity."""
    agree = jaccard + (1 - jaccard) * CHANCE
    return float(np.sqrt(agree * (1 - agree) / PERMUTATIONS) / (1 - CHANCE))


def sketches(texts: Sequence[str], key: bytes) -> Sketches:
    """(texts, 256) sketches of normalised texts under a tag key."""
    keys = _Keys.derived(key)
    found = np.empty((len(texts), PERMUTATIONS), dtype=np.uint8)
    for block in _blocks(texts):
        found[block] = _sketched(texts[block], keys)
    return found


def written(found: Sketches) -> tuple[str, ...]:
    """Hex text of each sketch, its version first."""
    return tuple(f"{VERSION:02x}{row.tobytes().hex()}" for row in found)


def read(texts: Sequence[str]) -> Sketches:
    """(texts, 256) from the hex text of `written`.

    Raises:
        DataError: of another version, or cut short.
    """
    strange = [text for text in texts if len(text) != 2 * (1 + PERMUTATIONS) or text[:2] != f"{VERSION:02x}"]
    if strange:
        raise DataError(
            f"{len(strange)} of {len(texts)} sketches are not of version {VERSION} with {PERMUTATIONS} bytes; a newer release may have made them"
        )
    try:
        raw = bytes.fromhex("".join(text[2:] for text in texts))
    except ValueError:
        raise DataError(f"a sketch is not hex text; check the ledger of {len(texts)} sketches with `mlflow-unlearn ledger verify`") from None
    return np.frombuffer(raw, dtype=np.uint8).reshape(-1, PERMUTATIONS)


def resemblance(left: Sketches, right: Sketches) -> NDArray[np.float64]:
    """(pairs,) the estimated Jaccard similarity of each row of `left` with the same row of `right`; unbiased until it is cut off at zero."""
    agree: NDArray[np.float64] = np.count_nonzero(left == right, axis=1) / PERMUTATIONS
    return np.clip((agree - CHANCE) / (1 - CHANCE), 0.0, None)


def recall(jaccard: float, band: int) -> float:
    """Chance that two texts of this similarity share one of the bands of `band` bytes, and so are compared at all."""
    agree = jaccard + (1 - jaccard) * CHANCE
    return float(1 - (1 - agree**band) ** (PERMUTATIONS // band))


def band_for(warn: float, refuse: float) -> int:
    """The longest band, and so the fewest comparisons, that finds what is asked at both thresholds: 6 bytes for 0.7 and 0.9."""
    enough = [band for band in range(1, 9) if recall(warn, band) >= WARN_RECALL and recall(refuse, band) >= REFUSE_RECALL]
    return max(enough, default=1)


class Neighbours:
    """Sketches to compare others with, by locality-sensitive bands instead of all pairs.

    Source: Leskovec, Rajaraman and Ullman 2014, "Mining of massive datasets", section 3.4.

    Args:
        kept: (kept, 256) the sketches.
        band: bytes in a band, 1 to 8.
    """

    def __init__(self, kept: Sketches, band: int) -> None:
        self.kept, self.band = kept, band
        keys = self._keys(kept)
        self._known = [np.unique(column) for column in keys.T]
        self._first = np.cumsum([0, *map(len, self._known)])
        self._bands = self._incidence(keys).T.tocsr()

    def nearest(self, found: Sketches) -> NDArray[np.float64]:
        """(found,) the largest estimated Jaccard similarity with any of those kept that shares a band, 0 where none does."""
        best = np.zeros(len(found))
        step = max(1, 4_000_000 // max(1, len(self.kept)))  # even if all pairs share a band, they fit into memory
        for start in range(0, len(found), step):
            rows = found[start : start + step]
            shared = (self._incidence(self._keys(rows)) @ self._bands).tocoo()
            for first in range(0, shared.nnz, _PAIRS):
                left, right = shared.row[first : first + _PAIRS], shared.col[first : first + _PAIRS]
                np.maximum.at(best, start + left, resemblance(rows[left], self.kept[right]))
        return best

    def _keys(self, found: Sketches) -> NDArray[np.uint64]:
        """(found, bands) each band as one number."""
        bands = PERMUTATIONS // self.band
        wide = np.zeros((len(found), bands, 8), dtype=np.uint8)
        wide[:, :, : self.band] = found[:, : bands * self.band].reshape(len(found), bands, self.band)
        return wide.view(np.uint64)[:, :, 0]

    def _incidence(self, keys: NDArray[np.uint64]) -> sparse.csr_matrix:
        """(found, known bands) 1 where a sketch has a band that one of those kept has."""
        rows, columns = [], []
        for place, known in enumerate(self._known):
            at = np.searchsorted(known, keys[:, place])
            hit = np.flatnonzero(known[np.minimum(at, len(known) - 1)] == keys[:, place]) if len(known) else np.empty(0, dtype=np.int64)
            rows.append(hit)
            columns.append(self._first[place] + at[hit])
        row, column = np.concatenate(rows), np.concatenate(columns)
        return sparse.csr_matrix((np.ones(len(row), dtype=np.int32), (row, column)), shape=(len(keys), int(self._first[-1])))


@dataclass(frozen=True, kw_only=True)
class _Keys:
    """What a tag key becomes: the key of the shingles' hash and the permutations a h + b modulo 2^32, a odd."""

    hash: bytes
    multipliers: NDArray[np.uint32]
    offsets: NDArray[np.uint32]

    @classmethod
    def derived(cls, key: bytes) -> _Keys:
        """SHAKE-256 of an HMAC, so that nothing here is the tag key or leads back to it."""
        seed = hmac.digest(key.hex().encode(), b"mlflow-unlearn sketch %d" % VERSION, "sha256")
        stream = hashlib.shake_256(seed).digest(KEY_BYTES + 8 * PERMUTATIONS)
        numbers = np.frombuffer(stream, "<u4", offset=KEY_BYTES)
        return cls(hash=stream[:KEY_BYTES], multipliers=numbers[:PERMUTATIONS] | np.uint32(1), offsets=numbers[PERMUTATIONS:])


def _blocks(texts: Sequence[str]) -> Iterator[slice]:
    """Slices of whole texts, each of about `_BLOCK` characters."""
    start = characters = 0
    for place, text in enumerate(texts):
        characters += len(text)
        if characters >= _BLOCK:
            yield slice(start, place + 1)
            start, characters = place + 1, 0
    if start < len(texts):
        yield slice(start, len(texts))


def _sketched(texts: Sequence[str], keys: _Keys) -> Sketches:
    hashes, starts = _hashed(texts, keys.hash)
    smallest = np.empty((PERMUTATIONS, len(texts)), dtype=np.uint32)
    permuted = np.empty_like(hashes)
    for row, multiplier, offset in zip(smallest, keys.multipliers, keys.offsets, strict=True):
        np.multiply(hashes, multiplier, out=permuted)
        np.add(permuted, offset, out=permuted)
        np.minimum.reduceat(permuted, starts, out=row)
    return (_mixed(smallest) >> np.uint32(24)).T.astype(np.uint8)


def _hashed(texts: Sequence[str], key: bytes) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """The keyed hash of every shingle of every text, one text after the other, and where each text begins."""
    padded = [text.ljust(SHINGLE, "\0") for text in texts]
    letters = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint64)
    windows = np.array([len(text) - SHINGLE + 1 for text in padded])
    starts = np.cumsum(windows) - windows
    places = np.arange(windows.sum()) + np.repeat((SHINGLE - 1) * np.arange(len(texts)), windows)  # no shingle crosses from one text to the next
    low = letters[places] | letters[places + 1] << np.uint64(21) | letters[places + 2] << np.uint64(42)
    high = letters[places + 3] | letters[places + 4] << np.uint64(21)
    hashes = siphash(key, low, high)
    return (hashes ^ (hashes >> np.uint64(32))).astype(np.uint32), starts


def _mixed(values: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The finaliser of MurmurHash3: smallest values are small, and their bits are not even until they are mixed."""
    for shift, multiplier in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        values = (values ^ (values >> np.uint32(shift))) * np.uint32(multiplier)
    return values ^ (values >> np.uint32(16))
