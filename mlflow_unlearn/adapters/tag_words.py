"""Tags as two signed 64-bit words, which every engine stores, sorts and prunes by. Light: a look-up needs neither Polars nor an engine for it."""

from __future__ import annotations

import binascii
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

WORDS = ("high", "low")
OPEN = 2**31 - 1
"""`last` of an interval of the index that goes on."""
RECORD, SUBJECT, CONTENT = (("record_high", "record_low"), ("subject_high", "subject_low"), ("content_high", "content_low"))
BY_RECORD = (*RECORD, *CONTENT, "dataset", "shard", "first", "last")
BY_SUBJECT = (*SUBJECT, *RECORD, "dataset", "shard", "first", "last")


def words_of_tags(tags: Sequence[str]) -> NDArray[np.int64]:
    """(tags, 2) the words of 32-character tags."""
    raw = binascii.unhexlify("".join(tags))
    return np.frombuffer(raw, ">u8").reshape(-1, 2).astype(np.uint64).view(np.int64)


def tags_of_words(high: NDArray[np.int64], low: NDArray[np.int64]) -> list[str]:
    """The tags that these words spell."""
    raw = np.stack([high, low], axis=1).view(np.uint64).astype(">u8").tobytes().hex()
    return [raw[start : start + 32] for start in range(0, len(raw), 32)]
