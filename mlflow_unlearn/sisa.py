"""The arithmetic of sharded, isolated, sliced and aggregated training: who is where, which seed, what a deletion costs. Pure.

Paper: Bourtoule et al. 2021, "Machine Unlearning" (arXiv:1912.03817), sections IV and V. A record lies in the shard and slice that the keyed hash of
its owner says, so that a person touches one shard and nothing about the data decides where anybody goes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .digests import sha256_json
from .exactness import Family, ShardLog
from .protocols import Record

HALF = 16
"""Hex characters: the first half of a keyed tag says the shard, the second the slice, so that the two are independent."""


def owner(record: Record) -> str:
    """Keyed tag that decides where a record goes: its person's, or its own where it is about nobody."""
    return record.subject or record.tag


def shard_of(tag: str, shards: int) -> int:
    """Shard of an owner, 0 to shards - 1."""
    return int(tag[:HALF], 16) % shards


def slice_of(tag: str, slices: int) -> int:
    """Slice of an owner within their shard, 0 to slices - 1."""
    return int(tag[HALF:], 16) % slices


def shard_name(shard: int) -> str:
    """How a shard is called in file names and tensors: three digits, more if need be."""
    return f"{shard:03d}"


def cut(records: Iterable[Record], shards: int) -> list[list[Record]]:
    """Records by shard, each list sorted by tag."""
    found: list[list[Record]] = [[] for _ in range(shards)]
    for record in sorted(records, key=lambda record: (record.tag, record.prompt, record.answer)):
        found[shard_of(owner(record), shards)].append(record)
    return found


def sliced(records: Sequence[Record], slices: int) -> list[list[Record]]:
    """One shard's records by slice, in the order given."""
    found: list[list[Record]] = [[] for _ in range(slices)]
    for record in records:
        found[slice_of(owner(record), slices)].append(record)
    return found


def seed_of(seed: int, shard: int, number: int) -> int:
    """Seed of a slice: a function of these three alone, so that nothing that happens elsewhere moves it. 48 bits."""
    return int.from_bytes(hashlib.sha256(f"mlflow-unlearn sisa {seed} {shard} {number}".encode()).digest()[:6], "big")


def epochs_of_slice(epochs: int, slices: int) -> int:
    """Passes after each slice so that all slices together cost what `epochs` passes over the shard would (Bourtoule et al., section V.A, IV.B).

    Slices of equal size: 1/R + 2/R + ... + 1 = (R + 1) / 2 passes over the shard for each epoch after each slice.
    """
    return max(1, round(2 * epochs / (slices + 1)))


def predicted_fraction(deletions: float, shards: int, slices: int) -> float:
    """Expected share of a full training that `deletions` uniformly drawn owners cost.

    A shard is trained again from the first slice that held one of them: 2 / (R (R + 1)) * sum over r of r * [1 - (1 - r / (R S))^k]. For one slice
    this is 1 - (1 - 1/S)^k.
    """
    total = sum(r * -math.expm1(deletions * math.log1p(-r / (slices * shards))) if r < slices * shards else r for r in range(1, slices + 1))
    return 2 * total / (slices * (slices + 1))


def stage_tokens(slice_tokens: Sequence[int], epochs: int) -> list[int]:
    """Tokens trained on in each slice's stage: those of all slices so far, times the epochs of a slice."""
    passes, so_far, stages = epochs_of_slice(epochs, len(slice_tokens)), 0, []
    for tokens in slice_tokens:
        so_far += tokens
        stages.append(passes * so_far)
    return stages


def log_digest(log: ShardLog) -> str:
    """sha256 over all of a log that decides weights: family, base, settings, and each slice's records, data, seed and chain."""
    slices = [[list(each.tags), each.data, each.seed, each.epochs, each.chain] for each in log.slices]
    return sha256_json([log.shard, log.family, log.base, dict(log.settings), slices])


def first_touched(owners: Iterable[str], shards: int, slices: int) -> Mapping[int, int]:
    """Shard -> the first slice that holds one of these owners: training resumes just before it."""
    found: dict[int, int] = {}
    for tag in owners:
        shard, number = shard_of(tag, shards), slice_of(tag, slices)
        found[shard] = min(number, found.get(shard, slices))
    return dict(sorted(found.items()))


@dataclass(frozen=True, kw_only=True)
class PlannedSlice:
    """One slice of a shard before it is trained."""

    records: tuple[Record, ...]
    data: str
    """sha256 over its records, tag and text, in order."""
    seed: int
    chain: str
    """sha256 over everything that decides the weights after it, as far as data and settings do."""


def planned(family: Family, shard: int, records: Sequence[Record], seed: int) -> tuple[PlannedSlice, ...]:
    """The slices of a shard in order, each chained to those before: equal chains mean equal training."""
    chain, plan = sha256_json([family.family, shard]), []
    for number, some in enumerate(sliced(records, family.slices)):
        data = sha256_json([[record.tag, record.prompt, record.answer] for record in some])
        own = seed_of(seed, shard, number)
        chain = sha256_json([chain, number, own, data])
        plan.append(PlannedSlice(records=tuple(some), data=data, seed=own, chain=chain))
    return tuple(plan)
