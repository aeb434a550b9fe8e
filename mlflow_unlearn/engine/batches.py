"""Records to micro-batches inside an unchanged optimiser batch.

Which records make an optimiser batch, and their order, depend on the seed and the batch size alone: that is the plan. Inside a batch rows are sorted
by length and cut by a budget of padded tokens: less padding, the same sum of losses, since every loss divides by the totals of the whole batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from ..params import OptimiserParams
from ..protocols import Batch, Example, Sequences
from .examples import answer_tokens
from .forward import IGNORED


@dataclass(frozen=True, kw_only=True)
class StepRows:
    """Positions of the records that make one optimiser batch."""

    forget: tuple[int, ...] = ()
    retain: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Sets:
    """What the positions point into."""

    forget: Sequence[Example] = ()
    alternatives: Sequence[Example] = ()
    """Beside each forget record, where the method needs them; else empty."""
    retain: Sequence[Example] = ()
    pad: int
    """Token id used for padding."""


def training_plan(records: int, optimiser: OptimiserParams, seed: int) -> Iterator[StepRows]:
    """Every optimiser batch of a training run, in a new seeded order each epoch; the records stand on the retain side."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(optimiser.epochs):
        for rows in _shuffled(records, optimiser.batch_size, generator):
            yield StepRows(retain=tuple(rows))


def unlearning_plan(forget: int, retain: int, optimiser: OptimiserParams, seed: int) -> Iterator[StepRows]:
    """Every optimiser batch of an unlearning run.

    An epoch passes over `forget` records once; each forget batch comes with as many retain rows, drawn from a seeded shuffled cycle over `retain`
    records (none where there are none).
    """
    order = torch.Generator().manual_seed(seed)
    cycle = shuffled_cycle(retain, torch.Generator().manual_seed(seed + 1))
    for _ in range(optimiser.epochs):
        for rows in _shuffled(forget, optimiser.batch_size, order):
            yield StepRows(forget=tuple(rows), retain=tuple(next(cycle) for _ in rows) if retain else ())


def steps_per_epoch(records: int, optimiser: OptimiserParams) -> int:
    """Optimiser steps in one pass; the last batch may be short."""
    return -(-records // optimiser.batch_size)


def batches_of(rows: StepRows, sets: Sets, token_budget: int) -> list[Batch]:
    """The micro-batches of one optimiser batch; each holds forget rows or retain rows, never both.

    Joining the sides saves no work and doubles the memory (measured: 0.92 times as fast on two cores).
    """
    forget, retain = [sets.forget[i] for i in rows.forget], [sets.retain[i] for i in rows.retain]
    whole = Batch(
        forget_records=len(forget),
        forget_tokens=answer_tokens(forget),
        forget_sequence_tokens=sum(len(example.tokens) - 1 for example in forget),
        alternative_tokens=answer_tokens([sets.alternatives[i] for i in rows.forget]) if sets.alternatives else 0,
        retain_records=len(retain),
        retain_tokens=answer_tokens(retain),
        retain_sequence_tokens=sum(len(example.tokens) - 1 for example in retain),
    )
    batches = []
    for piece in cut(sets.forget, rows.forget, token_budget, beside=sets.alternatives):
        alternative = collate(sets.alternatives, piece, sets.pad) if sets.alternatives else None
        batches.append(replace(whole, forget=collate(sets.forget, piece, sets.pad), alternative=alternative))
    for piece in cut(sets.retain, rows.retain, token_budget):
        batches.append(replace(whole, retain=collate(sets.retain, piece, sets.pad)))
    return batches


def micro_batches(examples: Sequence[Example], index: Sequence[int], token_budget: int, pad: int) -> list[Sequences]:
    """Rows `index` of one set, cut by the budget and padded."""
    return [collate(examples, piece, pad) for piece in cut(examples, index, token_budget)]


def cut(examples: Sequence[Example], index: Sequence[int], token_budget: int, beside: Sequence[Example] = ()) -> list[list[int]]:
    """Positions `index`, sorted by length and cut so that rows x longest row stays within the budget (a single longer row goes alone).

    Args:
        examples: the set.
        index: positions in it.
        token_budget: most padded tokens in one piece.
        beside: a second sequence for each record, which goes with it and counts.
    """
    width = {i: len(examples[i].tokens) + (len(beside[i].tokens) if beside else 0) for i in index}
    pieces: list[list[int]] = []
    for i in sorted(index, key=lambda i: (width[i], i)):
        # Sorted: this row is the longest so far, so it alone sets the width.
        if pieces and (len(pieces[-1]) + 1) * width[i] <= token_budget:
            pieces[-1].append(i)
        else:
            pieces.append([i])
    return pieces


def collate(examples: Sequence[Example], index: Sequence[int], pad: int) -> Sequences:
    """Rows `index` of `examples`, padded on the right to the longest of them."""
    rows = [examples[i] for i in index]
    length = max(len(row.tokens) for row in rows)
    input_ids = torch.full((len(rows), length), pad, dtype=torch.int64)
    labels = torch.full_like(input_ids, IGNORED)
    for i, row in enumerate(rows):
        tokens = torch.tensor(row.tokens)
        input_ids[i, : len(tokens)] = tokens
        if row.label is None:
            labels[i, row.prompt_length : len(tokens)] = tokens[row.prompt_length :]
    lengths = torch.tensor([len(row.tokens) for row in rows])
    classes = [row.label for row in rows]
    return Sequences(
        input_ids=input_ids,
        attention_mask=(torch.arange(length) < lengths[:, None]).to(torch.int64),
        labels=labels,
        index=torch.tensor(list(index)),
        shared=_shared(rows),
        classes=None if None in classes else torch.tensor(classes),
    )


def shuffled_cycle(size: int, generator: torch.Generator) -> Iterator[int]:
    """0..size-1 without end: each pass in a new order, none repeated within a pass."""
    while size:
        yield from torch.randperm(size, generator=generator).tolist()


def _shared(rows: Sequence[Example]) -> int:
    """How many leading tokens all rows have in common, short of any row's last prompt token, which predicts the answer; 0 for a single row."""
    if len(rows) < 2 or any(row.label is not None for row in rows):
        return 0
    most = min(row.prompt_length for row in rows) - 1
    first, last = min(row.tokens[:most] for row in rows), max(row.tokens[:most] for row in rows)
    return next((place for place, (a, b) in enumerate(zip(first, last, strict=True)) if a != b), max(0, most))


def _shuffled(size: int, batch_size: int, generator: torch.Generator) -> Iterator[list[int]]:
    """0..size-1 in a new order, in pieces."""
    order: list[int] = torch.randperm(size, generator=generator).tolist()
    return (order[start : start + batch_size] for start in range(0, size, batch_size))
