"""The negated task vector, against two trainings written out."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mlflow_unlearn.adapters.models import merged, with_lora
from mlflow_unlearn.engine.checkpoints import Checkpoints
from mlflow_unlearn.engine.descent import fit
from mlflow_unlearn.engine.machine import Machine
from mlflow_unlearn.engine.reference import mean_losses
from mlflow_unlearn.errors import ConfigError
from mlflow_unlearn.methods.task_vector import TaskVector
from mlflow_unlearn.params import LoraParams, OptimiserParams
from mlflow_unlearn.protocols import Example, Progress, Task

FORGET = [Example(tokens=(3 + i, 9 - i, *range(10 + i, 16 + i)), prompt_length=2) for i in range(5)]
RETAIN = [Example(tokens=tuple(range(20 - i, 30)), prompt_length=3) for i in range(6)]
OPTIMISER = OptimiserParams(epochs=3, learning_rate=1e-2, batch_size=4)


def steps(model: Any, method: TaskVector, **changes: Any) -> list[Progress]:
    """Every step on the model itself."""
    return list(method.steps(replace(Task(model=model, forget=FORGET, retain=RETAIN, optimiser=OPTIMISER, seed=3, pad=0), **changes)))


def negated(model: Any, scale: float, **changes: Any) -> dict[str, torch.Tensor]:
    """Weights after the method ran on a copy."""
    own = copy.deepcopy(model)
    steps(own, TaskVector(scale=scale), **changes)
    return own.state_dict()


def finetuned(model: Any) -> Any:
    own = copy.deepcopy(model)
    list(fit(own, FORGET, OPTIMISER, 3, 0))
    return own


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_every_weight_steps_from_the_parent_against_what_was_learned(model: Any, scale: float) -> None:
    start, end, found = model.state_dict(), finetuned(model).state_dict(), negated(model, scale)
    for name, value in found.items():
        torch.testing.assert_close(value, start[name] - scale * (end[name] - start[name]), rtol=1e-6, atol=1e-7)
        assert not torch.equal(value, start[name])


def test_scale_zero_is_the_parent_and_scale_minus_one_the_fine_tuned_model(model: Any) -> None:
    torch.testing.assert_close(negated(model, 0.0), model.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(negated(model, -1.0), finetuned(model).state_dict(), rtol=0, atol=0)


def test_the_forgotten_become_stranger_and_retain_is_not_looked_at(model: Any) -> None:
    before = mean_losses(model, FORGET, 0).mean()
    torch.testing.assert_close(negated(model, 1.0), negated(model, 1.0, retain=[]), rtol=0, atol=0)
    steps(model, TaskVector())
    assert mean_losses(model, FORGET, 0).mean() > before


def test_the_losses_of_the_steps_are_those_of_the_forget_side(model: Any) -> None:
    found = steps(model, TaskVector())
    assert [progress.step for progress in found] == [1, 2, 3, 4, 5, 6]
    assert set(found[0].losses) == {"loss", "forget", "gradient_norm", "learning_rate"}
    assert found[-1].losses["forget"] < found[0].losses["forget"]


def test_after_a_kill_the_parent_is_still_where_the_vector_begins(model: Any, tmp_path: Path) -> None:
    machine = Machine(checkpoints=Checkpoints(folder=tmp_path, run="this one", seconds=0))
    killed = TaskVector().steps(Task(model=copy.deepcopy(model), forget=FORGET, retain=[], optimiser=OPTIMISER, seed=3, pad=0, machine=machine))
    assert [next(killed).step for _ in range(4)] == [1, 2, 3, 4]
    killed.close()
    torch.testing.assert_close(negated(model, 1.0, machine=machine), negated(model, 1.0), rtol=0, atol=0)


def delta(before: Any, after: Any) -> torch.Tensor:
    """(all parameters,) in one line; both plain models with the same names."""
    return torch.cat([(value - before.state_dict()[name]).flatten() for name, value in after.state_dict().items()])


def test_with_lora_the_product_of_the_factors_is_negated(model: Any) -> None:
    adapted = with_lora(copy.deepcopy(model), LoraParams(rank=2), seed=0)
    learned, forgot = finetuned(adapted), copy.deepcopy(adapted)
    steps(forgot, TaskVector(scale=0.5))
    vector, step = delta(model, merged(learned)), delta(model, merged(forgot))
    assert vector.norm() > 0.1
    assert (step + 0.5 * vector).norm() <= 1e-5 * vector.norm()


def test_adapters_that_have_learned_already_are_refused(model: Any) -> None:
    adapted = finetuned(with_lora(model, LoraParams(rank=2), seed=0))
    with pytest.raises(ConfigError, match="expected fresh LoRA adapters, one factor of each pair zero, found 0 of 28 factors zero"):
        steps(adapted, TaskVector())


@pytest.mark.parametrize("scale", [float("nan"), float("inf")])
def test_a_scale_that_is_no_number_is_refused(scale: float) -> None:
    with pytest.raises(ConfigError, match="scale must be a finite number"):
        TaskVector(scale=scale)
