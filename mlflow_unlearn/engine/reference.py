"""What the frozen parent says, computed once: methods then need no second copy of the model."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..losses import answer_log_probs
from ..protocols import Batch, Example, Reference
from .batches import micro_batches
from .descent import moved
from .examples import device_of

BATCH_TOKENS = 16384
"""Padded tokens in one forward pass without gradient."""


@torch.no_grad()
def summed_log_probs(
    model: torch.nn.Module, examples: Sequence[Example], pad: int, batch_tokens: int = BATCH_TOKENS
) -> tuple[torch.Tensor, torch.Tensor]:
    """(records,) summed log-probability of each answer in nats, and (records,) its number of tokens; on the model's device."""
    device = device_of(model)
    sums = torch.zeros(len(examples), device=device)
    tokens = torch.ones(len(examples), dtype=torch.int64, device=device)
    model.eval()
    for rows in micro_batches(examples, range(len(examples)), batch_tokens, pad):
        batch = moved(Batch(forget=rows, retain=None, forget_records=0, forget_tokens=0, retain_tokens=0), device)
        if batch.forget is not None:
            sums[batch.forget.index], tokens[batch.forget.index] = answer_log_probs(model, batch.forget)
    return sums, tokens


def mean_losses(model: torch.nn.Module, examples: Sequence[Example], pad: int, batch_tokens: int = BATCH_TOKENS) -> torch.Tensor:
    """(records,) mean answer-token loss, nats per token."""
    sums, tokens = summed_log_probs(model, examples, pad, batch_tokens)
    return -sums / tokens


def reference_of(
    model: torch.nn.Module, forget: Sequence[Example], swapped: Sequence[Example | None], pad: int, unknown_floor: float = float("inf")
) -> Reference:
    """The parent's view of the forget set.

    Args:
        model: the parent, before the first step.
        forget: records to forget.
        swapped: for each the same record about a person never trained on; None where the data cannot say.
        pad: token id used for padding.
        unknown_floor: the floor of records without a swapped one, nats per token.
    """
    log_probs, _ = summed_log_probs(model, forget, pad)
    known = [i for i, example in enumerate(swapped) if example is not None]
    floors = torch.full_like(log_probs, unknown_floor)
    floors[known] = mean_losses(model, [example for example in swapped if example is not None], pad)
    return Reference(log_probs=log_probs, floors=floors)
