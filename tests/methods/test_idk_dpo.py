"""IdkDPO is the preference formula with refusals as the answers wanted instead."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from preference_oracle import FORGET, RETAIN, WANTED, gradient, micro_batches, naive, parent_of, sums, total

from mlflow_unlearn.engine.unlearning import forget_by_loss
from mlflow_unlearn.errors import ConfigError
from mlflow_unlearn.methods.idk_dpo import REFUSALS, IdkDPO
from mlflow_unlearn.params import OptimiserParams
from mlflow_unlearn.protocols import Needs, Task


@pytest.mark.parametrize(("normalization", "factor"), [("paper", 1.0), ("published_code", 20.0)])
def test_loss_and_gradient_are_the_papers_formula(model: Any, normalization: Any, factor: float) -> None:
    ours, plain = total(IdkDPO(normalization=normalization), model), naive(model, 0.1, factor, 1.0)
    torch.testing.assert_close(ours, plain, rtol=1e-6, atol=0)
    ours, plain = gradient(ours, model), gradient(plain, model)
    assert (ours - plain).norm() <= 1e-5 * plain.norm()


def test_at_the_parent_every_record_counts_log_two(model: Any) -> None:
    loss = IdkDPO().loss(model, micro_batches()[0], parent_of(model))
    torch.testing.assert_close(loss, torch.tensor(2.0).log(), rtol=1e-5, atol=0)


def test_a_run_makes_refusals_likelier_than_the_forgotten_answers(model: Any) -> None:
    optimiser = OptimiserParams(epochs=20, learning_rate=1e-2, batch_size=4)
    task = Task(model=model, forget=FORGET, alternatives=WANTED, retain=RETAIN, optimiser=optimiser, seed=0, pad=0)
    before, batch = parent_of(model), micro_batches()[0]
    list(forget_by_loss(task, IdkDPO()))
    with torch.no_grad():
        rows = batch.forget.index
        assert bool((sums(model, batch.alternative) > before.alternative.log_probs[rows]).all())
        assert bool((sums(model, batch.forget) < before.forget.log_probs[rows]).all())


def test_it_asks_for_its_refusals_which_are_many_and_different() -> None:
    assert IdkDPO().needs == Needs(log_probs=True, alternatives=REFUSALS)
    assert IdkDPO(refusals=("No idea.",)).needs.alternatives == ("No idea.",)
    assert len(set(REFUSALS)) == 20


@pytest.mark.parametrize("refusals", [(), ("No idea.", " ")])
def test_missing_and_empty_refusals_are_refused(refusals: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="refusals must hold at least one text, and none may be empty"):
        IdkDPO(refusals=refusals)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="beta must be above zero"):
        IdkDPO(beta=-1.0)
