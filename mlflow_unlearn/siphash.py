"""SipHash-2-4 of many 16-byte messages at once: a keyed hash whose values say nothing about the message to who lacks the key.

Source: Aumasson and Bernstein 2012, "SipHash: a fast short-input PRF", INDOCRYPT.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]
KEY_BYTES = 16
_INITIAL = (0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573)
_LENGTH = np.uint64(16 << 56)
"""The last block: the message's length in its highest byte."""


def siphash(key: bytes, low: Words, high: Words) -> Words:
    """(messages,) the hash of each message; `low` holds its first eight bytes, little endian, and `high` the other eight."""
    halves = np.frombuffer(key, "<u8", count=2)
    v = [np.full(len(low), halves[place % 2] ^ np.uint64(start), dtype=np.uint64) for place, start in enumerate(_INITIAL)]
    spare = np.empty(len(low), dtype=np.uint64)
    for word in (low, high, _LENGTH):
        v[3] ^= word
        _rounds(v, spare, 2)
        v[0] ^= word
    v[2] ^= np.uint64(0xFF)
    _rounds(v, spare, 4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def _rounds(v: list[Words], spare: Words, count: int) -> None:
    for _ in range(count):
        _half_round(v[0], v[1], v[2], v[3], spare)
        _rotate(v[0], 32, spare)
        v[2] += v[1]
        _rotate(v[1], 17, spare)
        v[1] ^= v[2]
        _rotate(v[2], 32, spare)
        v[0] += v[3]
        _rotate(v[3], 21, spare)
        v[3] ^= v[0]


def _half_round(v0: Words, v1: Words, v2: Words, v3: Words, spare: Words) -> None:
    v0 += v1
    _rotate(v1, 13, spare)
    v1 ^= v0
    v2 += v3
    _rotate(v3, 16, spare)
    v3 ^= v2


def _rotate(word: Words, bits: int, spare: Words) -> None:
    """To the left, in place."""
    np.right_shift(word, np.uint64(64 - bits), out=spare)
    np.left_shift(word, np.uint64(bits), out=word)
    np.bitwise_or(word, spare, out=word)
