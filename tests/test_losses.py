"""The forget losses by hand."""

from __future__ import annotations

import math

import pytest
import torch

from mlflow_unlearn import losses
from mlflow_unlearn.errors import ConfigError


def test_npo_term_by_hand() -> None:
    """At pi = pi_ref it is (2 / beta) log 2 = 20 log 2; three nats below, -20 log(1 / (1 + e^-0.3))."""
    terms = losses.npo_terms(torch.tensor([-4.0, -7.0]), torch.tensor([-4.0, -4.0]), beta=0.1)
    assert terms.tolist() == pytest.approx([20 * math.log(2), 20 * math.log(1 + math.exp(-0.3))], rel=1e-5)


def test_npo_gradient_at_the_parent_is_gradient_ascent() -> None:
    log_probs = torch.tensor([-4.0], requires_grad=True)
    losses.npo_terms(log_probs, torch.tensor([-4.0]), beta=0.1).sum().backward()
    assert log_probs.grad is not None
    assert log_probs.grad.item() == pytest.approx(1.0)


def test_sim_npo_term_by_hand() -> None:
    """Mean log-probability -1 over four tokens, beta 2, gamma 1: -log sigmoid(2 - 1)."""
    terms = losses.sim_npo_terms(torch.tensor([-4.0]), torch.tensor([4]), beta=2.0, gamma=1.0)
    assert terms.tolist() == pytest.approx([math.log(1 + math.exp(-1))])


def test_a_token_at_probability_one_half_pulls_half_as_hard() -> None:
    log_probs = torch.tensor([math.log(0.5), 0.0], requires_grad=True)
    losses.weighted_ascent_terms(log_probs, alpha=1.0).sum().backward()
    assert log_probs.grad is not None
    assert log_probs.grad.tolist() == pytest.approx([0.5, 1.0])


def test_a_record_at_its_floor_is_clamped() -> None:
    """Mean losses 1.0, 2.0 and 3.0 nats against a floor of 2.0."""
    log_probs, tokens = torch.tensor([-2.0, -4.0, -6.0]), torch.tensor([2, 2, 2])
    assert losses.clamped(torch.tensor([7.0, 8.0, 9.0]), log_probs, tokens, torch.full((3,), 2.0)).tolist() == [7.0, 0.0, 0.0]


def test_a_clamp_without_floors_is_refused() -> None:
    with pytest.raises(ConfigError, match="clamp: needs the floors"):
        losses.clamped(torch.ones(1), torch.ones(1), torch.ones(1), None)
