"""NPO against its formula, record by record."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from plain_formulas import FORGET, RETAIN, answers, assert_same, gradient, mean_nll, row_by_row, sides, total

from mlflow_unlearn.engine.batches import Sets, StepRows, batches_of
from mlflow_unlearn.errors import ConfigError
from mlflow_unlearn.methods.grad_ascent import GradAscent
from mlflow_unlearn.methods.npo import NPO
from mlflow_unlearn.protocols import Batch, Reference, View

PARENT = [-20.0, -25.0, -15.0, -30.0]


def reference(log_probs: list[float], floors: list[float]) -> Reference:
    return Reference(forget=View(log_probs=torch.tensor(log_probs), floors=torch.tensor(floors)))


def formula(model: Any, batches: list[Batch], active: list[bool], beta: float = 0.1) -> torch.Tensor:
    forget, retain = sides(batches)
    ratios = {int(i): line.sum() - PARENT[int(i)] for i, line in zip(forget.index, answers(model, forget), strict=True)}
    terms = [2 / beta * torch.log(1 + torch.exp(beta * ratio)) for i, ratio in ratios.items() if active[i]]
    return torch.stack(terms).sum() / len(ratios) + mean_nll(model, retain)


def test_loss_is_the_paper_s_formula_on_summed_log_probs(model: Any, batches: list[Batch]) -> None:
    ours = total(NPO(), model, batches, reference(PARENT, [math.inf] * 4))
    assert_same(model, ours, formula(model, batches, [True] * 4))


def test_clamp_drops_records_at_their_floor_and_keeps_them_in_the_mean(model: Any, batches: list[Batch]) -> None:
    ours = total(NPO(clamp=True), model, batches, reference(PARENT, [0.0, math.inf, 0.1, math.inf]))
    assert_same(model, ours, formula(model, batches, [False, True, False, True]))


def test_each_record_meets_its_own_parent_and_floor_however_the_batch_is_cut(model: Any) -> None:
    whole = batches_of(StepRows(forget=(3, 1, 0, 2), retain=(5, 0, 2, 3)), Sets(forget=FORGET, retain=RETAIN, pad=0), token_budget=1000)
    ours = total(NPO(clamp=True), model, row_by_row(), reference(PARENT, [0.0, math.inf, 0.1, math.inf]))
    assert_same(model, ours, formula(model, whole, [False, True, False, True]))


def test_clamp_compares_the_mean_loss_of_an_answers_tokens(model: Any, batches: list[Batch]) -> None:
    forget, _ = sides(batches)
    means = [-line.mean().item() for line in answers(model, forget)]
    floors = [mean * factor for mean, factor in zip(means, (1.01, 0.99, 1.01, 0.99), strict=True)]
    ours = total(NPO(clamp=True), model, batches, reference(PARENT, floors))
    assert_same(model, ours, formula(model, batches, [True, False, True, False]))


def test_without_clamp_floors_do_not_matter(model: Any, batches: list[Batch]) -> None:
    assert not NPO().needs.floors
    assert_same(model, total(NPO(), model, batches, reference(PARENT, [0.0] * 4)), formula(model, batches, [True] * 4))


def test_as_beta_vanishes_its_gradient_becomes_that_of_gradient_ascent_on_summed_log_probs(model: Any, batches: list[Batch]) -> None:
    """Paper, proposition 1."""
    forget, _ = sides(batches)
    ascent = gradient(model, torch.stack([line.sum() for line in answers(model, forget)]).mean())
    distances = []
    for beta in (1e-1, 1e-2, 1e-3):
        ours = gradient(model, total(NPO(beta=beta, retain_weight=0.0), model, batches, reference(PARENT, [math.inf] * 4)))
        distances.append(float((ours - ascent).norm() / ascent.norm()))
    assert distances[0] > 5 * distances[1] > 25 * distances[2]
    assert distances[2] < 1e-2


def test_a_record_far_below_the_parent_is_left_alone_where_ascent_would_push_on(model: Any, batches: list[Batch]) -> None:
    far = reference([500.0] * 4, [math.inf] * 4)
    assert gradient(model, total(NPO(retain_weight=0.0), model, batches, far)).norm() < 1e-6
    assert gradient(model, total(GradAscent(), model, batches, far)).norm() > 1e-2


def test_a_clamped_record_gives_no_gradient(model: Any, batches: list[Batch]) -> None:
    NPO(clamp=True).loss(model, batches[0], reference([-20.0] * 4, [0.0] * 4)).backward()
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in model.parameters())


def test_a_missing_reference_is_refused(model: Any, batches: list[Batch]) -> None:
    with pytest.raises(ConfigError, match="npo: needs the parent's log-probabilities"):
        NPO().loss(model, batches[0], Reference())


@pytest.mark.parametrize("beta", [0.0, math.inf, math.nan])
def test_settings_out_of_range_are_refused(beta: float) -> None:
    with pytest.raises(ConfigError, match="beta must be above zero and finite"):
        NPO(beta=beta)
    with pytest.raises(ConfigError, match="retain_weight must not be below zero"):
        NPO(retain_weight=-1.0)
