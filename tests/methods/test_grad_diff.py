"""GradDiff against its formula."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn import functional

from mlflow_unlearn.errors import ConfigError
from mlflow_unlearn.methods.grad_diff import GradDiff
from mlflow_unlearn.protocols import Batch, Reference, Sequences


@torch.no_grad()
def mean_nll(model: Any, rows: Sequences) -> float:
    logits = model(input_ids=rows.input_ids, attention_mask=rows.attention_mask).logits
    return float(functional.cross_entropy(logits[:, :-1].flatten(0, 1), rows.labels[:, 1:].flatten(), ignore_index=-100))


def floors(*values: float) -> Reference:
    return Reference(log_probs=torch.zeros(len(values)), floors=torch.tensor(values))


def test_loss_is_the_difference_of_two_means_over_tokens(model: Any, batches: list[Batch]) -> None:
    (forget,), (retain,) = [b.forget for b in batches if b.forget], [b.retain for b in batches if b.retain]
    with torch.no_grad():
        loss = sum(GradDiff(retain_weight=2.0).loss(model, batch, floors(*[math.inf] * 4)) for batch in batches)
    assert float(loss) == pytest.approx(2.0 * mean_nll(model, retain) - mean_nll(model, forget), rel=1e-5)


def test_clamp_drops_records_at_their_floor(model: Any, batches: list[Batch]) -> None:
    loss = GradDiff().loss(model, batches[0], floors(0.0, 0.0, 0.0, 0.0))
    loss.backward()
    assert loss.item() == 0.0
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in model.parameters())


def test_without_clamp_no_reference_is_needed(model: Any, batches: list[Batch]) -> None:
    with pytest.raises(ConfigError, match="grad_diff: the clamp needs the parent's floors"):
        GradDiff().loss(model, batches[0], None)
    assert GradDiff(clamp=False).loss(model, batches[0], None).item() < 0


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="retain_weight must not be below zero"):
        GradDiff(retain_weight=-1.0)
