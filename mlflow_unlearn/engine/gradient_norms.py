"""How far one step on a single record would pull the weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..protocols import Example
from .batches import micro_batches
from .examples import device_of
from .head import token_log_probs
from .reference import moved_rows


def gradient_norms(model: Any, examples: Sequence[Example], pad: int) -> NDArray[np.float64]:
    """(records,) L2 norm of the gradient of each record's mean answer-token loss, in eval mode.

    The gradient is that of all weights together that can have one, whether or not they are being trained: a frozen model and one whose adapters alone
    are trained have norms too. Whole numbers (a quantised base) have none. Gradients that weights hold, and which weights are to be trained, stay as
    they are. One record at a time: a norm of its own needs a gradient of its own, as large as the weights.
    """
    model.eval()
    norms = np.zeros(len(examples))
    with _differentiable(model) as weights:
        for i in range(len(examples)):
            (row,) = micro_batches(examples, [i], 1, pad)
            log_probs, _ = token_log_probs(model, moved_rows(row, device_of(model)))
            gradients = torch.autograd.grad(-log_probs.mean(), weights, allow_unused=True)
            lengths = [torch.linalg.vector_norm(each, dtype=torch.float64) for each in gradients if each is not None]
            norms[i] = float(torch.linalg.vector_norm(torch.stack(lengths)))
    return norms


@contextmanager
def _differentiable(model: torch.nn.Module) -> Iterator[list[torch.nn.Parameter]]:
    """All weights of floating point, each of which wants a gradient inside."""
    weights = [weight for weight in model.parameters() if weight.is_floating_point()]
    before = [weight.requires_grad for weight in weights]
    try:
        for weight in weights:
            weight.requires_grad_(True)
        with torch.enable_grad():
            yield weights
    finally:
        for weight, wanted in zip(weights, before, strict=True):
            weight.requires_grad_(wanted)
