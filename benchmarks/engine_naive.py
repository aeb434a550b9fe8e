"""The baselines of `make bench-engine`, written plainly.

Each side padded to its longest row, logits of every token, a loss over all of them, the frozen parent run again in every step, one backward pass for
the sum.

What leading toolkits waste beyond that is left out (a second cross-entropy over the same logits, copies of them), with one exception that is the
point of its row: the Kullback-Leibler retain loss runs the model twice, as open-unlearning does at d3d7cf9 (src/trainer/unlearn/grad_diff.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from engine_case import Case
from torch import Tensor
from torch.nn import functional

from mlflow_unlearn.engine.batches import StepRows, collate
from mlflow_unlearn.engine.reference import moved_rows
from mlflow_unlearn.protocols import Sequences

Loss = Callable[[Case, Any, StepRows], Tensor]
IGNORED = -100


def naive_step(case: Case, loss_of: Loss, method: Any, rows: StepRows) -> float:
    """Gradients of one optimiser batch into `case.model`; returns the loss."""
    case.model.train()
    with case.autocast():
        loss = loss_of(case, method, rows)
    loss.backward()
    return loss.item()


def forget_rows(case: Case, rows: StepRows) -> Sequences:
    """The forget side in the order drawn."""
    return moved_rows(collate(case.sets.forget, rows.forget, case.sets.pad), case.device)


def retain_rows(case: Case, rows: StepRows) -> Sequences:
    """The retain side in the order drawn."""
    return moved_rows(collate(case.sets.retain, rows.retain, case.sets.pad), case.device)


def logits(model: Any, rows: Sequences) -> Tensor:
    """(rows, length - 1, vocabulary), float32."""
    found: Tensor = model(input_ids=rows.input_ids, attention_mask=rows.attention_mask, use_cache=False).logits[:, :-1].float()
    return found


def losses(model: Any, rows: Sequences) -> Tensor:
    """(rows, length - 1) negative log-probability of each answer token, 0 elsewhere."""
    found = logits(model, rows)
    targets = rows.labels[:, 1:]
    return functional.cross_entropy(found.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none").view(targets.shape)


def parent_losses(case: Case, rows: Sequences) -> Tensor:
    """The same of the frozen parent."""
    with torch.no_grad():
        return losses(case.parent, rows)


def counted(rows: Sequences) -> Tensor:
    """(rows, length - 1) which predictions carry loss."""
    return rows.labels[:, 1:] != IGNORED


def mean_loss(model: Any, rows: Sequences) -> Tensor:
    """Scalar, over all answer tokens."""
    return losses(model, rows).sum() / counted(rows).sum()


def training(case: Case, method: Any, rows: StepRows) -> Tensor:
    """Plain training on the retain side."""
    return mean_loss(case.model, retain_rows(case, rows))


def grad_ascent(case: Case, method: Any, rows: StepRows) -> Tensor:
    """The forget loss, upwards."""
    return -mean_loss(case.model, forget_rows(case, rows))


def retain(case: Case, method: Any, rows: StepRows) -> Tensor | float:
    """The weighted retain loss, left out where its weight is 0."""
    return method.retain_weight * training(case, method, rows) if method.retain_weight else 0.0


def grad_diff(case: Case, method: Any, rows: StepRows) -> Tensor:
    """Up on one side, down on the other."""
    return grad_ascent(case, method, rows) + retain(case, method, rows)


def grad_diff_kl(case: Case, method: Any, rows: StepRows) -> Tensor:
    """With the distance from the parent on the retain side, after a forward pass that is thrown away."""
    kept, forget = retain_rows(case, rows), grad_ascent(case, method, rows)
    losses(case.model, kept)
    model = logits(case.model, kept).log_softmax(-1)
    with torch.no_grad():
        parent = logits(case.parent, kept).log_softmax(-1)
    distances = functional.kl_div(model, parent, reduction="none", log_target=True).sum(-1)
    return forget + method.retain_weight * (distances * counted(kept)).sum() / counted(kept).sum()


def npo(case: Case, method: Any, rows: StepRows) -> Tensor:
    """Equation 3 of arXiv:2404.05868 and the retain loss."""
    forget = forget_rows(case, rows)
    ratios = parent_losses(case, forget).sum(1) - losses(case.model, forget).sum(1)
    return -(2 / method.beta) * functional.logsigmoid(-method.beta * ratios).mean() + retain(case, method, rows)


def preference(case: Case, method: Any, rows: StepRows) -> Tensor:
    """Equation 7 of arXiv:2305.18290 and the retain loss: one pass for the forgotten answers, one for those wanted instead, each twice."""
    wanted = moved_rows(collate(case.sets.alternatives, rows.forget, case.sets.pad), case.device)
    margins = [parent_losses(case, side).sum(1) - losses(case.model, side).sum(1) for side in (wanted, forget_rows(case, rows))]
    return -functional.logsigmoid(method.beta * (margins[0] - margins[1])).mean() + retain(case, method, rows)


def sim_npo(case: Case, method: Any, rows: StepRows) -> Tensor:
    """The objective of section 5 of arXiv:2410.07163 and the retain loss."""
    forget = forget_rows(case, rows)
    means = losses(case.model, forget).sum(1) / counted(forget).sum(1)
    return -(2 / method.beta) * functional.logsigmoid(method.beta * means - method.gamma).mean() + retain(case, method, rows)


def wga(case: Case, method: Any, rows: StepRows) -> Tensor:
    """The forget loss upwards, each token weighted by its probability (arXiv:2502.19301), and the retain loss."""
    forget = forget_rows(case, rows)
    each = losses(case.model, forget)
    weights = (-method.alpha * each.detach()).exp()
    return -(weights * each).sum() / counted(forget).sum() + retain(case, method, rows)


def undial(case: Case, method: Any, rows: StepRows) -> Tensor:
    """Cross-entropy against the parent's distribution with the true token lowered (arXiv:2402.10052, section 3), and the retain loss."""
    forget = forget_rows(case, rows)
    targets = forget.labels[:, 1:].clamp(min=0)
    with torch.no_grad():
        parent = logits(case.parent, forget)
        wanted = parent.scatter_add(2, targets[:, :, None], torch.full_like(parent[:, :, :1], -method.beta)).softmax(-1)
    each = -(wanted * logits(case.model, forget).log_softmax(-1)).sum(-1)
    return (each * counted(forget)).sum() / counted(forget).sum() + retain(case, method, rows)


LOSSES: dict[str, Loss] = {
    "dpo": preference,
    "grad_ascent": grad_ascent,
    "grad_diff": grad_diff,
    "idk_dpo": preference,
    "npo": npo,
    "sim_npo": sim_npo,
    "undial": undial,
    "wga": wga,
}
"""By the method's name in the catalog."""
