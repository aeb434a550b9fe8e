"""What the methods' formulas are made of, written out on full logits of padded rows: the oracle of their tests."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch

from mlflow_unlearn.engine.batches import Sets, StepRows, batches_of
from mlflow_unlearn.engine.machine import Machine
from mlflow_unlearn.engine.reference import Asked, reference_of
from mlflow_unlearn.engine.worker import Worker
from mlflow_unlearn.protocols import Batch, Example, Needs, Reference, Sequences

FORGET = [Example(tokens=tuple(range(3 + i, 8 + 2 * i)), prompt_length=2) for i in range(4)]
RETAIN = [Example(tokens=tuple(range(20 - i, 30)), prompt_length=3) for i in range(6)]

FORGET_CLASSES = [Example(tokens=each.tokens, prompt_length=len(each.tokens), label=i % 3) for i, each in enumerate(FORGET)]
RETAIN_CLASSES = [Example(tokens=each.tokens, prompt_length=len(each.tokens), label=i % 3) for i, each in enumerate(RETAIN)]


def logits(model: Any, rows: Sequences) -> torch.Tensor:
    """(rows, length, vocabulary)."""
    return model(input_ids=rows.input_ids, attention_mask=rows.attention_mask).logits


def answers(model: Any, rows: Sequences) -> list[torch.Tensor]:
    """Token log-probabilities of each row's answer, with gradient."""
    lines = logits(model, rows).log_softmax(-1)
    return [
        torch.stack([lines[i, t - 1, rows.labels[i, t]] for t in range(1, rows.labels.shape[1]) if rows.labels[i, t] != -100])
        for i in range(len(rows.labels))
    ]


def mean_nll(model: Any, rows: Sequences) -> torch.Tensor:
    """Over all answer tokens."""
    return -torch.cat(answers(model, rows)).mean()


def moved(model: Any) -> Any:
    """A copy that has gone some way from its parent."""
    changed = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in changed.parameters():
            parameter.mul_(1.2)
    return changed


def places(rows: Sequences, *, everywhere: bool) -> list[tuple[int, int]]:
    """(row, place) of every token that counts: the answers', or all real ones but each row's first."""
    counts = rows.attention_mask.bool() if everywhere else rows.labels != -100
    return [(i, t) for i, t in counts.nonzero().tolist() if t > 0]


def row_by_row() -> list[Batch]:
    """An optimiser batch whose micro-batches hold one row each, so that a row's place in its micro-batch is not its place in the set."""
    return batches_of(StepRows(forget=(3, 1, 0, 2), retain=(5, 0, 2, 3)), Sets(forget=FORGET, retain=RETAIN, pad=0), token_budget=1)


def sides(batches: Sequence[Batch]) -> tuple[Sequences, Sequences]:
    """The one micro-batch of each side."""
    (forget,), (retain,) = [b.forget for b in batches if b.forget], [b.retain for b in batches if b.retain]
    return forget, retain


def total(method: Any, model: Any, batches: Sequence[Batch], reference: Reference) -> torch.Tensor:
    """The method's loss over the optimiser batch."""
    sides = [batch for batch in batches if batch.forget is not None or method.needs.retain]
    return torch.stack([method.loss(model, batch, reference) for batch in sides]).sum()


def gradient(model: Any, loss: torch.Tensor) -> torch.Tensor:
    """(all parameters,) in one line."""
    parts = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True, materialize_grads=True)
    return torch.cat([part.flatten() for part in parts])


def assert_same(model: Any, ours: torch.Tensor, plain: torch.Tensor) -> None:
    """Losses to 1e-6 and gradients to 1e-5, relative."""
    torch.testing.assert_close(ours, plain, atol=1e-6, rtol=1e-6)
    found, expected = gradient(model, ours), gradient(model, plain)
    assert float((found - expected).norm() / expected.norm()) < 1e-5


def told_by(parent: Any, needs: Needs, forget: Sequence[Example], retain: Sequence[Example]) -> Reference:
    """What the parent says, by the engine."""
    plan = [StepRows(forget=tuple(range(len(forget))), retain=tuple(range(len(retain))))]
    asked = Asked(needs=needs, sets=Sets(forget=forget, retain=retain, pad=0), plan=plan)
    return reference_of(Worker(parent), asked, Machine())
