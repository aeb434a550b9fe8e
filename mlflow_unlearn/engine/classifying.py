"""Sequence classifiers: the distribution over classes of each record, without gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..protocols import Example
from .batches import micro_batches
from .examples import device_of
from .reference import moved_rows

SEQUENCE_CLASSIFIER = "ForSequenceClassification"
"""In the name of each such architecture of transformers."""


def known_classes(config: Any) -> Mapping[str, int] | None:
    """Name -> number of the classes that a sequence classifier knows, by its configuration; None for a language model."""
    if not any(SEQUENCE_CLASSIFIER in name for name in config.architectures or ()):
        return None
    known: dict[str, int] = dict(config.label2id)
    return known


@torch.no_grad()
def class_probabilities(model: Any, examples: Sequence[Example], batch_tokens: int, pad: int) -> Tensor:
    """(records, classes) probabilities, float32 on the processor; labels are not looked at."""
    unlabelled = [replace(example, label=0, prompt_length=len(example.tokens)) for example in examples]
    found: list[Tensor] = [torch.empty(0)] * len(examples)
    model.eval()
    for rows in micro_batches(unlabelled, range(len(unlabelled)), batch_tokens, pad):
        here = moved_rows(rows, device_of(model))
        logits = model(input_ids=here.input_ids, attention_mask=here.attention_mask, use_cache=False).logits
        for i, row in zip(rows.index.tolist(), logits.float().softmax(-1).cpu(), strict=True):
            found[i] = row
    return torch.stack(found) if found else torch.empty(0, 0)


def class_names(model: Any, examples: Sequence[Example], batch_tokens: int, pad: int) -> list[str]:
    """The name of each record's most likely class."""
    if not examples:
        return []
    return [str(model.config.id2label[i]) for i in class_probabilities(model, examples, batch_tokens, pad).argmax(-1).tolist()]
