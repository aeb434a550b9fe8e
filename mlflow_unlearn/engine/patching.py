"""Activation patching: how much of an answer hangs on what one model makes of the prompt at a layer, seen by putting it into another.

The unlearning depth score of a working draft ("UDS", 2026) asks of every layer how much the full model loses when it is given the states of a model
that never saw the records (S1), and how much with those of the unlearned model (S2). Where S2 loses as much as S1 the knowledge is gone from that
layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..protocols import Example, Sequences
from .batches import micro_batches
from .examples import device_of
from .forward import IGNORED, unwrapped
from .layers import decoder_layers, kept_layers
from .reference import moved_rows

KNOWING = 0.05
"""A layer counts where the states of a model that never saw the record cost its answer more than this, nats per token."""


@dataclass(frozen=True, kw_only=True)
class Depths:
    """How deep the forgetting goes."""

    score: NDArray[np.float64]
    """(records,) 1 where nothing of the record is left in any layer that knew it, 0 where everything is; NaN where no layer knew it."""
    lost_without: NDArray[np.float64]
    lost_unlearned: NDArray[np.float64]
    """(layers, records) what the full model's answer loses with the states of the model that never saw it, and with the unlearned one's; nats a
    token."""


def depths(models: tuple[Any, Any, Any], examples: Sequence[Example], batch_tokens: int, pad: int) -> Depths:
    """The unlearning depth of each record.

    Args:
        models: the parent, which knows the records; the unlearned model; and one that never saw them. All of one architecture.
        examples: the records.
        batch_tokens: most padded tokens in one pass.
        pad: token id used for padding.
    """
    full, unlearned, retrained = models
    layers = len(decoder_layers(full))
    found = np.zeros((3, layers, len(examples)))
    for model in models:
        model.eval()
    for batch in micro_batches(examples, range(len(examples)), batch_tokens, pad):
        rows, own = moved_rows(batch, device_of(full)), batch.index.numpy()
        found[0][:, own] = _mean(full, rows)
        for layer in range(layers):
            for which, other in ((1, retrained), (2, unlearned)):
                found[which, layer, own] = patched(full, other, rows, layer)
    without, left = found[0] - found[1], found[0] - found[2]
    knows = without > KNOWING
    share = np.clip(np.divide(left, without, out=np.zeros_like(left), where=knows), 0.0, 1.0)
    weight = np.where(knows, without, 0.0).sum(0)
    score = np.divide(np.where(knows, without * share, 0.0).sum(0), weight, out=np.full(len(examples), np.nan), where=weight > 0)
    return Depths(score=score, lost_without=without, lost_unlearned=left)


@torch.no_grad()
def patched(full: Any, other: Any, rows: Sequences, layer: int) -> NDArray[np.float64]:
    """(rows,) mean log-probability of the answers in `full` when its layer `layer` puts out what that of `other` does; nats a token."""
    states = kept_layers(other, rows, 0, layer)[1]
    handle = decoder_layers(full)[layer].register_forward_hook(lambda _module, _inputs, output: _in_place_of(output, states))
    try:
        return _mean(full, rows)
    finally:
        handle.remove()


def _in_place_of(output: Any, states: Any) -> Any:
    """The states in the form that a layer returns: a tensor, or a tuple that begins with one."""
    return (states, *output[1:]) if isinstance(output, tuple) else states


@torch.no_grad()
def _mean(model: Any, rows: Sequences) -> NDArray[np.float64]:
    """(rows,) mean log-probability of the answers, from a padded pass: patched states lie row by row, which packed rows would not."""
    logits = unwrapped(model)(input_ids=rows.input_ids, use_cache=False).logits[:, :-1].float()
    labels = rows.labels[:, 1:]
    counted = labels != IGNORED
    log_probs = logits.log_softmax(-1).gather(2, labels.clamp(min=0)[..., None])[..., 0]
    means = (log_probs * counted).sum(1) / counted.sum(1)
    found: NDArray[np.float64] = means.double().cpu().numpy()
    return found
