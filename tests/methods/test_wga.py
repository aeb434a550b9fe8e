"""WGA against its formula, token by token."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from plain_formulas import answers, assert_same, mean_nll, sides, total

from mlflow_unlearn.errors import ConfigError
from mlflow_unlearn.methods.grad_diff import GradDiff
from mlflow_unlearn.methods.wga import WGA
from mlflow_unlearn.protocols import Batch, Reference


@pytest.mark.parametrize("alpha", [0.3, 1.0, 5.0])
def test_loss_weighs_each_token_by_its_probability_without_a_gradient_through_it(knowing: Any, batches: list[Batch], alpha: float) -> None:
    forget, retain = sides(batches)
    tokens = torch.cat(answers(knowing, forget))
    plain = (tokens.detach().exp() ** alpha * tokens).mean() + mean_nll(knowing, retain)
    assert_same(knowing, total(WGA(alpha=alpha), knowing, batches, Reference()), plain)


def test_at_alpha_zero_it_is_gradient_difference(model: Any, batches: list[Batch]) -> None:
    assert_same(model, total(WGA(alpha=0.0), model, batches, Reference()), total(GradDiff(), model, batches, Reference()))


@pytest.mark.parametrize("alpha", [-1.0, math.inf, math.nan])
def test_settings_out_of_range_are_refused(alpha: float) -> None:
    with pytest.raises(ConfigError, match="alpha must not be below zero and must be finite"):
        WGA(alpha=alpha)
