"""Evaluation written plainly: every metric asks the model by itself, batches of 32 records in the order of the data, padded, with all logits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mlflow_unlearn.engine.batches import collate
from mlflow_unlearn.protocols import Example, Sequences

ROWS = 32
Values = NDArray[np.float64]


def probability(model: Any, examples: Sequence[Example]) -> Values:
    """(records,) length-normalised probabilities."""
    return np.concatenate([np.exp(-mean_losses(logits, rows)) for logits, rows in passes(model, examples)])


def extraction_strength(model: Any, examples: Sequence[Example]) -> Values:
    """(records,) shares of the answer that follow from its beginning."""
    return np.array([strength(hits) for logits, rows in passes(model, examples) for hits in lines(logits.argmax(-1) == rows.labels[:, 1:], rows)])


def min_k(model: Any, examples: Sequence[Example], share: float = 0.4) -> Values:
    """(records,) mean log-probability of the least likely tokens."""
    found = []
    for logits, rows in passes(model, examples):
        log_probs = logits.log_softmax(-1).gather(2, rows.labels[:, 1:, None].clamp(min=0))[:, :, 0]
        found += [float(line.sort().values[: max(1, int(share * len(line)))].mean()) for line in lines(log_probs, rows)]
    return np.array(found)


def truth_ratio(model: Any, reworded: Sequence[Example], wrong: Sequence[Sequence[Example]]) -> Values:
    """(records,) mean probability of the wrong answers over that of the true one, each wrong answer in a pass of its own."""
    false = [probability(model, [answers[i] for answers in wrong]) for i in range(len(wrong[0]))]
    ratios: Values = np.mean(false, axis=0) / probability(model, reworded)
    return ratios


def generate(model: Any, prompts: Sequence[Sequence[int]], end: int, max_new_tokens: int) -> list[list[int]]:
    """The greedy answers by `generate` of transformers, without the end token."""
    found = []
    for start in range(0, len(prompts), ROWS):
        batch = prompts[start : start + ROWS]
        longest = max(map(len, batch))
        tokens = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in batch])
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in batch])
        with torch.no_grad():
            written = model.generate(
                input_ids=tokens, attention_mask=mask, do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=end, pad_token_id=end
            )
        answers = written[:, longest:].tolist()
        found += [answer[: answer.index(end)] if end in answer else answer for answer in answers]
    return found


@torch.no_grad()
def passes(model: Any, examples: Sequence[Example]) -> Iterator[tuple[Tensor, Sequences]]:
    """(rows, length - 1, vocabulary) logits of each batch."""
    for start in range(0, len(examples), ROWS):
        rows = collate(examples, range(start, min(start + ROWS, len(examples))), 0)
        yield model(input_ids=rows.input_ids, attention_mask=rows.attention_mask, use_cache=False).logits[:, :-1].float(), rows


def mean_losses(logits: Tensor, rows: Sequences) -> Values:
    """(rows,) nats per answer token."""
    targets = rows.labels[:, 1:]
    losses = functional.cross_entropy(logits.transpose(1, 2), targets, ignore_index=-100, reduction="none").sum(1)
    return np.asarray((losses / (targets != -100).sum(1)).double())


def lines(values: Tensor, rows: Sequences) -> list[Tensor]:
    """Of each row the values at its answer's tokens."""
    return [line[answer] for line, answer in zip(values, rows.labels[:, 1:] != -100, strict=True)]


def strength(hits: Tensor) -> float:
    """By trying every beginning."""
    return next((1 - k / len(hits) for k in range(len(hits)) if bool(hits[k:].all())), 0.0)
