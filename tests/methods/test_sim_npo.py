"""SimNPO against its formula, record by record."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from plain_formulas import answers, assert_same, gradient, mean_nll, sides, total

from mlflow_unlearn.errors import ConfigError
from mlflow_unlearn.methods.sim_npo import SimNPO
from mlflow_unlearn.protocols import Batch, Reference


def forgetting(model: Any, batches: list[Batch], beta: float, gamma: float) -> torch.Tensor:
    forget, _ = sides(batches)
    return torch.stack([-2 / beta * torch.log(torch.sigmoid(-beta * line.mean() - gamma)) for line in answers(model, forget)]).mean()


@pytest.mark.parametrize(("beta", "gamma"), [(2.5, 0.0), (0.5, 1.0), (4.5, 0.0)])
def test_loss_is_the_papers_formula_on_mean_log_probs(knowing: Any, batches: list[Batch], beta: float, gamma: float) -> None:
    alone = SimNPO(beta=beta, gamma=gamma, retain_weight=0.0)
    assert_same(knowing, total(alone, knowing, batches, Reference()), forgetting(knowing, batches, beta, gamma))


def test_retained_answers_join_it_by_their_weight(knowing: Any, batches: list[Batch]) -> None:
    _, retain = sides(batches)
    plain = forgetting(knowing, batches, 2.5, 0.0) + 0.5 * mean_nll(knowing, retain)
    assert_same(knowing, total(SimNPO(retain_weight=0.5), knowing, batches, Reference()), plain)


def test_as_beta_vanishes_its_gradient_becomes_that_of_ascent_on_mean_log_probs(model: Any, batches: list[Batch]) -> None:
    """As NPO's does, but every record counts alike however long it is."""
    forget, _ = sides(batches)
    ascent = gradient(model, torch.stack([line.mean() for line in answers(model, forget)]).mean())
    ours = gradient(model, total(SimNPO(beta=1e-4, retain_weight=0.0), model, batches, Reference()))
    assert float((ours - ascent).norm() / ascent.norm()) < 1e-3


def test_the_leading_toolkits_settings_carry_over_at_an_eighth_of_the_loss(knowing: Any, batches: list[Batch]) -> None:
    """gamma * forget + alpha * retain with gamma 0.125, alpha 1, beta 4.5, delta 0."""
    _, retain = sides(batches)
    theirs = 0.125 * forgetting(knowing, batches, 4.5, 0.0) + mean_nll(knowing, retain)
    assert_same(knowing, total(SimNPO(beta=4.5, retain_weight=8.0), knowing, batches, Reference()), 8 * theirs)


def test_a_margin_that_published_code_multiplies_by_beta_is_beta_times_it_here(knowing: Any, batches: list[Batch]) -> None:
    forget, _ = sides(batches)
    theirs = torch.stack([-2 / 2.5 * torch.log(torch.sigmoid(2.5 * (-line.mean() - 0.4))) for line in answers(knowing, forget)]).mean()
    assert_same(knowing, total(SimNPO(beta=2.5, gamma=2.5 * 0.4, retain_weight=0.0), knowing, batches, Reference()), theirs)


def test_records_whose_tokens_are_unlikely_are_left_alone_whoever_knew_them(model: Any, batches: list[Batch]) -> None:
    """The weight of a record is 2 sigmoid(beta / |y| log pi): on a model that knows nothing the default hardly pushes."""
    forget, _ = sides(batches)
    ascent = gradient(model, torch.stack([line.mean() for line in answers(model, forget)]).mean())
    assert gradient(model, total(SimNPO(retain_weight=0.0), model, batches, Reference())).norm() < 1e-2 * ascent.norm()


@pytest.mark.parametrize("settings", [{"beta": 0.0}, {"beta": math.nan}, {"gamma": -1.0}, {"gamma": math.inf}])
def test_settings_out_of_range_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="beta must be above zero and gamma not below, both finite"):
        SimNPO(**settings)
