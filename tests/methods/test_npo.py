"""NPO against its formula, record by record."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from mlflow_unlearn.errors import ConfigError
from mlflow_unlearn.methods.npo import NPO
from mlflow_unlearn.protocols import Batch, Reference, Sequences


@torch.no_grad()
def answers(model: Any, rows: Sequences) -> list[list[float]]:
    """Token log-probabilities of each row's answer, from full logits."""
    log_probs = model(input_ids=rows.input_ids, attention_mask=rows.attention_mask).logits.log_softmax(-1)
    return [
        [float(log_probs[i, t - 1, rows.labels[i, t]]) for t in range(1, rows.labels.shape[1]) if rows.labels[i, t] != -100]
        for i in range(len(rows.labels))
    ]


def reference(log_probs: list[float], floors: list[float]) -> Reference:
    return Reference(log_probs=torch.tensor(log_probs), floors=torch.tensor(floors))


def formula(model: Any, batches: list[Batch], parent: list[float], active: list[bool]) -> float:
    (forget,), (retain,) = [b.forget for b in batches if b.forget], [b.retain for b in batches if b.retain]
    ratios = {int(i): sum(line) - parent[int(i)] for i, line in zip(forget.index, answers(model, forget), strict=True)}
    terms = [20 * math.log(1 + math.exp(0.1 * ratio)) for i, ratio in ratios.items() if active[i]]
    kept = [value for line in answers(model, retain) for value in line]
    return sum(terms) / len(ratios) - 5.0 * sum(kept) / len(kept)


def test_loss_is_the_paper_s_formula_on_summed_log_probs(model: Any, batches: list[Batch]) -> None:
    parent = [-20.0, -25.0, -15.0, -30.0]
    with torch.no_grad():
        loss = sum(NPO().loss(model, batch, reference(parent, [math.inf] * 4)) for batch in batches)
    assert float(loss) == pytest.approx(formula(model, batches, parent, [True] * 4), rel=1e-5)


def test_clamp_drops_records_at_their_floor_and_keeps_them_in_the_mean(model: Any, batches: list[Batch]) -> None:
    parent, floors = [-20.0, -25.0, -15.0, -30.0], [0.0, math.inf, 0.1, math.inf]
    with torch.no_grad():
        loss = sum(NPO().loss(model, batch, reference(parent, floors)) for batch in batches)
    assert float(loss) == pytest.approx(formula(model, batches, parent, [False, True, False, True]), rel=1e-5)


def test_without_clamp_floors_do_not_matter(model: Any, batches: list[Batch]) -> None:
    parent = [-20.0, -25.0, -15.0, -30.0]
    with torch.no_grad():
        loss = sum(NPO(clamp=False).loss(model, batch, reference(parent, [0.0] * 4)) for batch in batches)
    assert float(loss) == pytest.approx(formula(model, batches, parent, [True] * 4), rel=1e-5)


def test_a_clamped_record_gives_no_gradient(model: Any, batches: list[Batch]) -> None:
    NPO().loss(model, batches[0], reference([-20.0] * 4, [0.0] * 4)).backward()
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in model.parameters())


def test_a_missing_reference_is_refused(model: Any, batches: list[Batch]) -> None:
    with pytest.raises(ConfigError, match="npo: needs the parent's log-probabilities"):
        NPO().loss(model, batches[0], None)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="beta must be above zero"):
        NPO(beta=0.0)
