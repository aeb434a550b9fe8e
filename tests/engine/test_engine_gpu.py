"""On a CUDA device the engine gives the processor's numbers."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from sharding_cases import methods, task, tiny

from mlflow_unlearn.engine.machine import Machine
from mlflow_unlearn.engine.memory import set_activation_checkpointing
from mlflow_unlearn.engine.unlearning import forget_by_loss

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device; this machine has none")]


@pytest.mark.parametrize("name", [name for name, _ in methods()])
def test_losses_and_weights_are_those_of_the_processor(name: str) -> None:
    method = dict(methods())[name]
    here, there = tiny(), tiny().cuda()
    ours, theirs = ([p.losses["loss"] for p in forget_by_loss(task(model, Machine()), method)] for model in (there, here))
    assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-5)


def test_bfloat16_stays_near_float32() -> None:
    method, model = dict(methods())["npo"], tiny().cuda()
    exact, rounded = (
        [p.losses["loss"] for p in forget_by_loss(task(copy.deepcopy(model), Machine(dtype=dtype)), method)]
        for dtype in ("float32", "bfloat16")  # type: ignore[arg-type]
    )
    assert rounded == pytest.approx(exact, rel=0.05)


def test_activations_that_fit_are_kept_and_others_made_again() -> None:
    model: Any = tiny().cuda()
    assert not set_activation_checkpointing(model, "auto", token_budget=1024, dtype="bfloat16")
    assert set_activation_checkpointing(model, "auto", token_budget=10**12, dtype="bfloat16")
