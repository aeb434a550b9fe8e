"""Rows of a micro-batch behind one another in a few packs: no padding to speak of, and leading tokens that all rows share run once a pack.

A pack is the shared tokens and then the own tokens of some rows. Its mask lets a token see the shared ones and those before it in its own row, and
every token has the position it has in its row: each number is the one of a row that runs alone (as in "Prefix Grouper", Liu et al. 2025,
arXiv:2506.05433, which joins passes instead of packing one). A whole micro-batch in one pack would spend more on attention than it saves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..protocols import Sequences

PACK_TOKENS = 320
"""Own tokens in one pack, about (measured: docs/benchmarks.md); a single longer row makes longer packs."""
WORTH = 0.9
"""Packs are made where they hold at most this share of the padded tokens: with a mask of our own torch's attention is a little slower."""


@dataclass(frozen=True, kw_only=True)
class Packs:
    """What runs instead of the rows."""

    input_ids: Tensor
    """(packs, length) int64."""
    position_ids: Tensor
    """(packs, length) int64, counted within each row."""
    attention_mask: Tensor
    """(packs, 1, length, length) bool: who sees whom."""
    places: Tensor
    """(rows, own tokens of the longest) int64: where each own token stands in the flattened packs; 0 behind the end of a row."""


def packs_of(rows: Sequences) -> Packs | None:
    """The rows without their last tokens, which predict nothing, in packs; None where padding costs less."""
    own = (rows.attention_mask.sum(1) - 1 - rows.shared).tolist()
    bins = dealt(own, max(1, -(-sum(own) // max(PACK_TOKENS, *own))))
    length = rows.shared + max(sum(own[row] for row in each) for each in bins)
    if len(bins) * length > WORTH * len(own) * (rows.shared + max(own)):
        return None
    device = rows.input_ids.device
    owners = torch.full((len(bins), length), -2)  # of padding, which sees itself: a row of the mask must not be empty
    owners[:, : rows.shared] = -1
    positions = torch.arange(length).repeat(len(bins), 1)
    places = torch.zeros((len(own), max(own)), dtype=torch.int64)
    for pack, each in enumerate(bins):
        start = rows.shared
        for row in each:
            end = start + own[row]
            owners[pack, start:end] = row
            positions[pack, start:end] -= start - rows.shared
            places[row, : own[row]] = torch.arange(pack * length + start, pack * length + end)
            start = end
    owners, positions = owners.to(device), positions.to(device)
    positions = torch.where(owners == -2, 0, positions)
    return Packs(
        input_ids=rows.input_ids[owners.clamp(min=0), positions],
        position_ids=positions,
        attention_mask=_mask(owners)[:, None],
        places=places.to(device),
    )


def may_pack(causal: Any, rows: Sequences) -> bool:
    """Whether the model takes a mask of ours as it is: torch's attention, and no window that ends within a row."""
    config = causal.config
    window = getattr(config, "sliding_window", None)
    return bool(config._attn_implementation == "sdpa" and (window is None or rows.input_ids.shape[1] <= window))


def dealt(own: list[int], packs: int) -> list[list[int]]:
    """Rows to packs of about the same length: the longest first, each to the shortest pack so far."""
    bins: list[list[int]] = [[] for _ in range(packs)]
    sizes = [0] * packs
    for row in sorted(range(len(own)), key=lambda row: -own[row]):
        least = sizes.index(min(sizes))
        bins[least].append(row)
        sizes[least] += own[row]
    return bins


def _mask(owners: Tensor) -> Tensor:
    """(packs, length, length) bool."""
    seen = owners[:, None, :]
    together = (owners[:, :, None] == seen) | (seen == -1)
    return together & torch.ones(owners.shape[1], owners.shape[1], dtype=torch.bool, device=owners.device).tril()
