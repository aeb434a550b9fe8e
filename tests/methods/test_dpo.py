"""DPO against its formula, and where it tends to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from preference_oracle import PARENT, gradient, micro_batches, naive, parent_of, sums, total

from mlflow_unlearn.errors import ConfigError
from mlflow_unlearn.methods.dpo import DPO
from mlflow_unlearn.protocols import Needs, Reference, View


@pytest.mark.parametrize("token_budget", [1000, 1])
@pytest.mark.parametrize(("normalization", "factor"), [("paper", 1.0), ("published_code", 2 / 0.3)])
def test_loss_and_gradient_are_the_papers_formula(model: Any, normalization: Any, factor: float, token_budget: int) -> None:
    method = DPO(beta=0.3, normalization=normalization, retain_weight=2.0)
    ours, plain = total(method, model, token_budget=token_budget), naive(model, 0.3, factor, 2.0)
    torch.testing.assert_close(ours, plain, rtol=1e-6, atol=0)
    ours, plain = gradient(ours, model), gradient(plain, model)
    assert (ours - plain).norm() <= 1e-5 * plain.norm()


def difference(model: Any) -> torch.Tensor:
    """Gradient of the mean over records of log pi(wanted) - log pi(forgotten)."""
    batch = micro_batches()[0]
    return gradient((sums(model, batch.alternative) - sums(model, batch.forget)).mean(), model)


def test_at_the_parent_the_gradient_is_half_beta_times_the_difference_of_the_two_answers(model: Any) -> None:
    found = gradient(DPO(beta=0.7).loss(model, micro_batches()[0], parent_of(model)), model)
    torch.testing.assert_close(found, -0.35 * difference(model), rtol=1e-4, atol=1e-6)


def test_as_beta_vanishes_the_gradient_tends_to_half_beta_times_that_difference_wherever_the_model_is(model: Any) -> None:
    errors = []
    for beta in (1e-2, 1e-3, 1e-4):
        found = gradient(DPO(beta=beta).loss(model, micro_batches()[0], PARENT), model) / (beta / 2)
        errors.append(float((found + difference(model)).norm() / difference(model).norm()))
    assert errors[1:] == pytest.approx([errors[0] / 10, errors[0] / 100], rel=0.1)
    assert errors[2] < 1e-3


def test_as_beta_grows_records_whose_preference_has_turned_are_left_alone(model: Any) -> None:
    turned = replace(PARENT, forget=View(log_probs=torch.zeros(4)), alternative=View(log_probs=torch.full((4,), -200.0)))
    assert not gradient(DPO(beta=10.0).loss(model, micro_batches()[0], turned), model).any()


def test_it_asks_for_both_answers_and_for_what_the_retain_loss_needs() -> None:
    assert DPO().needs == Needs(log_probs=True, alternatives="data")
    assert DPO(retain="kl").needs.answer_states == {"retain"}
    assert DPO(retain="kl", normalization="published_code").needs.prompts_too
    assert DPO(retain="kl", retain_weight=0.0).needs == Needs(log_probs=True, alternatives="data", retain=False)


@pytest.mark.parametrize("reference", [Reference(), replace(PARENT, alternative=View()), replace(PARENT, forget=View())])
def test_a_missing_side_of_the_reference_is_refused(model: Any, reference: Reference) -> None:
    with pytest.raises(ConfigError, match="needs both answers and the parent's log-probabilities of both"):
        DPO().loss(model, micro_batches()[0], reference)


def test_a_batch_without_answers_wanted_instead_is_refused(model: Any) -> None:
    with pytest.raises(ConfigError, match="needs both answers"):
        DPO().loss(model, replace(micro_batches()[0], alternative=None), PARENT)


@pytest.mark.parametrize(("setting", "words"), [("beta", "beta must be above zero"), ("retain_weight", "retain_weight must not be below zero")])
def test_settings_out_of_range_are_refused(setting: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        DPO(**{setting: -1.0})  # type: ignore[arg-type]
