"""SimNPO against its formula, record by record."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from plain_formulas import answers, assert_same, gradient, mean_nll, sides, total

from mlflow_unlearn.errors import ConfigError
from mlflow_unlearn.methods.sim_npo import SimNPO
from mlflow_unlearn.protocols import Batch, Reference


def formula(model: Any, batches: list[Batch], beta: float, gamma: float) -> torch.Tensor:
    forget, retain = sides(batches)
    terms = [-2 / beta * torch.log(torch.sigmoid(-beta * line.mean() - gamma)) for line in answers(model, forget)]
    return torch.stack(terms).mean() + mean_nll(model, retain)


@pytest.mark.parametrize(("beta", "gamma"), [(2.5, 0.0), (0.5, 1.0)])
def test_loss_is_the_papers_formula_on_mean_log_probs(model: Any, batches: list[Batch], beta: float, gamma: float) -> None:
    assert_same(model, total(SimNPO(beta=beta, gamma=gamma), model, batches, Reference()), formula(model, batches, beta, gamma))


def test_as_beta_vanishes_its_gradient_becomes_that_of_ascent_on_mean_log_probs(model: Any, batches: list[Batch]) -> None:
    """As NPO's does, but every record counts alike however long it is."""
    forget, _ = sides(batches)
    ascent = gradient(model, torch.stack([line.mean() for line in answers(model, forget)]).mean())
    ours = gradient(model, total(SimNPO(beta=1e-4, retain_weight=0.0), model, batches, Reference()))
    assert float((ours - ascent).norm() / ascent.norm()) < 1e-3


def test_the_leading_toolkits_settings_carry_over_at_an_eighth_of_the_loss(model: Any, batches: list[Batch]) -> None:
    """gamma * forget + alpha * retain with gamma 0.125, alpha 1, beta 4.5, delta 0."""
    forget, retain = sides(batches)
    theirs = torch.stack([-2 / 4.5 * torch.log(torch.sigmoid(4.5 * -line.mean())) for line in answers(model, forget)]).mean()
    ours = total(SimNPO(beta=4.5, retain_weight=8.0), model, batches, Reference())
    assert_same(model, ours, 8 * (0.125 * theirs + mean_nll(model, retain)))


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="beta must be above zero and gamma not below"):
        SimNPO(beta=0.0)
