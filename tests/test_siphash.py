"""SipHash-2-4 of many messages at once is SipHash-2-4 of each."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_unlearn.siphash import siphash

MASK = (1 << 64) - 1


def rotated(word: int, bits: int) -> int:
    return (word << bits | word >> (64 - bits)) & MASK


def naive(key: bytes, message: bytes) -> int:
    """Section 2 of the paper, word by word."""
    k0, k1 = (int.from_bytes(key[i : i + 8], "little") for i in (0, 8))
    v0, v1, v2, v3 = k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573
    words = [int.from_bytes(message[i : i + 8], "little") for i in (0, 8)] + [len(message) << 56]

    def rounds(count: int) -> None:
        nonlocal v0, v1, v2, v3
        for _ in range(count):
            v0, v2 = (v0 + v1) & MASK, (v2 + v3) & MASK
            v1, v3 = rotated(v1, 13) ^ v0, rotated(v3, 16) ^ v2
            v0 = rotated(v0, 32)
            v2, v0 = (v2 + v1) & MASK, (v0 + v3) & MASK
            v1, v3 = rotated(v1, 17) ^ v2, rotated(v3, 21) ^ v0
            v2 = rotated(v2, 32)

    for word in words:
        v3 ^= word
        rounds(2)
        v0 ^= word
    v2 ^= 0xFF
    rounds(4)
    return v0 ^ v1 ^ v2 ^ v3


def many(key: bytes, messages: list[bytes]) -> list[int]:
    words = np.frombuffer(b"".join(messages), "<u8").reshape(-1, 2)
    return siphash(key, words[:, 0], words[:, 1]).tolist()


def test_the_authors_test_vector_of_sixteen_bytes_holds() -> None:
    assert many(bytes(range(16)), [bytes(range(16))]) == [int.from_bytes(bytes.fromhex("db9bc2577fcc2a3f"), "little")]


@given(st.binary(min_size=16, max_size=16), st.lists(st.binary(min_size=16, max_size=16), min_size=1, max_size=5))
def test_many_at_once_equal_the_definition_one_by_one(key: bytes, messages: list[bytes]) -> None:
    assert many(key, messages) == [naive(key, message) for message in messages]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
def test_openssl_agrees() -> None:
    key, message = bytes(range(100, 116)), b"sixteen letters!"
    command = ["openssl", "mac", "-macopt", f"hexkey:{key.hex()}", "-macopt", "size:8", "SIPHASH"]
    said = subprocess.run(command, input=message, capture_output=True, check=True).stdout.decode().strip()
    assert many(key, [message]) == [int.from_bytes(bytes.fromhex(said), "little")]
