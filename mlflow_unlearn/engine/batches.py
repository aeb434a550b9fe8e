"""Records to micro-batches inside an unchanged optimiser batch.

Which records make an optimiser batch, and their order, depend on the seed and the batch size alone. Inside it rows are sorted by length and cut
by a budget of padded tokens: less padding, the same sum of losses, since every loss divides by the totals of the whole batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from ..config import OptimiserParams
from ..losses import IGNORED
from ..protocols import Batch, Example, Sequences
from .examples import answer_tokens


def collate(examples: Sequence[Example], index: Sequence[int], pad: int) -> Sequences:
    """Rows `index` of `examples`, padded on the right to the longest of them."""
    rows = [examples[i] for i in index]
    length = max(len(row.tokens) for row in rows)
    input_ids = torch.full((len(rows), length), pad, dtype=torch.int64)
    labels = torch.full_like(input_ids, IGNORED)
    for i, row in enumerate(rows):
        tokens = torch.tensor(row.tokens)
        input_ids[i, : len(tokens)] = tokens
        labels[i, row.prompt_length : len(tokens)] = tokens[row.prompt_length :]
    lengths = torch.tensor([len(row.tokens) for row in rows])
    attention_mask = (torch.arange(length) < lengths[:, None]).to(torch.int64)
    return Sequences(input_ids=input_ids, attention_mask=attention_mask, labels=labels, index=torch.tensor(list(index)))


def micro_batches(examples: Sequence[Example], index: Sequence[int], token_budget: int, pad: int) -> list[Sequences]:
    """Rows `index`, sorted by length and cut so that rows x longest row stays within the budget (a single longer row goes alone)."""
    pieces: list[list[int]] = []
    for i in sorted(index, key=lambda i: (len(examples[i].tokens), i)):
        # Sorted: this row is the longest so far, so it alone sets the width.
        if pieces and (len(pieces[-1]) + 1) * len(examples[i].tokens) <= token_budget:
            pieces[-1].append(i)
        else:
            pieces.append([i])
    return [collate(examples, piece, pad) for piece in pieces]


def steps_per_epoch(records: int, optimiser: OptimiserParams) -> int:
    """Optimiser steps in one pass; the last batch may be short."""
    return -(-records // optimiser.batch_size)


def training_steps(examples: Sequence[Example], optimiser: OptimiserParams, seed: int, pad: int) -> Iterator[list[Batch]]:
    """Every optimiser batch of a training run, in a new seeded order each epoch; the records stand on the retain side."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(optimiser.epochs):
        for rows in _shuffled(len(examples), optimiser.batch_size, generator):
            yield _one_sided(None, _Side(examples, rows), optimiser, pad)


def unlearning_steps(forget: Sequence[Example], retain: Sequence[Example], optimiser: OptimiserParams, seed: int, pad: int) -> Iterator[list[Batch]]:
    """Every optimiser batch of an unlearning run.

    An epoch passes over `forget` once; each forget batch comes with as many retain rows, drawn from a seeded shuffled cycle over `retain`.
    """
    order = torch.Generator().manual_seed(seed)
    cycle = shuffled_cycle(len(retain), torch.Generator().manual_seed(seed + 1))
    for _ in range(optimiser.epochs):
        for rows in _shuffled(len(forget), optimiser.batch_size, order):
            partners = [next(cycle) for _ in rows] if retain else []
            yield _one_sided(_Side(forget, rows), _Side(retain, partners), optimiser, pad)


def shuffled_cycle(size: int, generator: torch.Generator) -> Iterator[int]:
    """0..size-1 without end: each pass in a new order, none repeated within a pass."""
    while size:
        yield from torch.randperm(size, generator=generator).tolist()


def _shuffled(size: int, batch_size: int, generator: torch.Generator) -> Iterator[list[int]]:
    """0..size-1 in a new order, in pieces."""
    order: list[int] = torch.randperm(size, generator=generator).tolist()
    return (order[start : start + batch_size] for start in range(0, size, batch_size))


@dataclass(frozen=True)
class _Side:
    """Rows of one set within an optimiser batch."""

    examples: Sequence[Example]
    index: Sequence[int]

    @property
    def tokens(self) -> int:
        return answer_tokens([self.examples[i] for i in self.index])

    def micro_batches(self, optimiser: OptimiserParams, pad: int) -> list[Sequences]:
        return micro_batches(self.examples, self.index, optimiser.token_budget, pad)


def _one_sided(forget: _Side | None, retain: _Side, optimiser: OptimiserParams, pad: int) -> list[Batch]:
    """Micro-batches that hold forget rows or retain rows, never both: joining them saves no work and doubles the memory."""
    whole = Batch(
        forget=None,
        retain=None,
        forget_records=len(forget.index) if forget else 0,
        forget_tokens=forget.tokens if forget else 0,
        retain_tokens=retain.tokens,
    )
    forgets = [replace(whole, forget=rows) for rows in (forget.micro_batches(optimiser, pad) if forget else [])]
    return forgets + [replace(whole, retain=rows) for rows in retain.micro_batches(optimiser, pad)]
