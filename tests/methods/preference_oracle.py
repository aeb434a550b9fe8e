"""The preference formula written out on full logits of padded rows, and one optimiser batch with another answer beside each forgotten one."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from mlflow_unlearn.engine.batches import Sets, batches_of, unlearning_plan
from mlflow_unlearn.params import OptimiserParams
from mlflow_unlearn.protocols import Batch, Example, Reference, Sequences, View

FORGET = [Example(tokens=tuple(range(3 + i, 8 + 2 * i)), prompt_length=2) for i in range(4)]
WANTED = [Example(tokens=(3 + i, 4 + i, *range(29, 26 - i, -1)), prompt_length=2) for i in range(4)]
RETAIN = [Example(tokens=tuple(range(20 - i, 30)), prompt_length=3) for i in range(6)]
SETS = Sets(forget=FORGET, alternatives=WANTED, retain=RETAIN, pad=0)
PARENT = Reference(
    forget=View(log_probs=torch.tensor([-20.0, -25.0, -15.0, -30.0])), alternative=View(log_probs=torch.tensor([-11.0, -14.0, -9.0, -22.0]))
)


def micro_batches(token_budget: int = 1000) -> list[Batch]:
    """One optimiser batch of all forget records and as many retained ones."""
    optimiser = OptimiserParams(epochs=1, learning_rate=1e-2, batch_size=4)
    return batches_of(next(unlearning_plan(4, 6, optimiser, 0)), SETS, token_budget)


def sums(model: Any, rows: Sequences) -> torch.Tensor:
    """(rows,) log-probability of each answer."""
    logits = model(input_ids=rows.input_ids, attention_mask=rows.attention_mask).logits
    losses = functional.cross_entropy(logits[:, :-1].transpose(1, 2), rows.labels[:, 1:], ignore_index=-100, reduction="none")
    return -losses.sum(1)


def naive(model: Any, beta: float, factor: float, retain_weight: float, parent: Reference = PARENT) -> torch.Tensor:
    """-factor mean log sigmoid(beta * (log ratio of the wanted - log ratio of the forgotten)) + weight * mean-token loss on retain."""
    forget, retain = micro_batches()
    kept = forget.forget.index
    wanted = sums(model, forget.alternative) - parent.alternative.log_probs[kept]
    forgotten = sums(model, forget.forget) - parent.forget.log_probs[kept]
    terms = torch.log(1 + torch.exp(-beta * (wanted - forgotten)))
    tokens = (retain.retain.labels[:, 1:] != -100).sum()
    return factor * terms.mean() - retain_weight * sums(model, retain.retain).sum() / tokens


def total(method: Any, model: Any, parent: Reference = PARENT, token_budget: int = 1000) -> torch.Tensor:
    """The method's loss over all micro-batches of the optimiser batch."""
    return torch.stack([method.loss(model, batch, parent) for batch in micro_batches(token_budget)]).sum()


def gradient(loss: torch.Tensor, model: Any) -> torch.Tensor:
    """(all parameters,) in one line."""
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(model.parameters()))])


def parent_of(model: Any) -> Reference:
    """What the model itself says, as the frozen parent."""
    with torch.no_grad():
        batch = micro_batches()[0]
        order = batch.forget.index.argsort()
        return Reference(forget=View(log_probs=sums(model, batch.forget)[order]), alternative=View(log_probs=sums(model, batch.alternative)[order]))
