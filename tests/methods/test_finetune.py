"""Fine-tuning on retain never looks at what is to be forgotten."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch

from mlflow_unlearn.engine.descent import fit
from mlflow_unlearn.engine.machine import Machine
from mlflow_unlearn.errors import ConfigError
from mlflow_unlearn.methods.finetune import Finetune
from mlflow_unlearn.params import OptimiserParams
from mlflow_unlearn.protocols import Example, Task

FORGET = [Example(tokens=(3, 4, 5, 6), prompt_length=2), Example(tokens=(7, 8, 9), prompt_length=1)]
RETAIN = [Example(tokens=tuple(range(20 - i, 30)), prompt_length=3) for i in range(6)]
OPTIMISER = OptimiserParams(epochs=2, learning_rate=1e-2, batch_size=4)


def finetuned(model: Any, **changes: Any) -> dict[str, torch.Tensor]:
    task = replace(Task(model=copy.deepcopy(model), forget=FORGET, retain=RETAIN, optimiser=OPTIMISER, seed=3, pad=0), **changes)
    assert [progress.step for progress in Finetune().steps(task)] == [1, 2, 3, 4]
    return task.model.state_dict()


def test_it_is_training_on_from_the_parent_with_the_optimiser_of_the_run(model: Any) -> None:
    plain = copy.deepcopy(model)
    list(fit(plain, RETAIN, OPTIMISER, 3, 0))
    torch.testing.assert_close(finetuned(model), plain.state_dict(), atol=0, rtol=0)


def test_the_forget_set_leaves_no_trace(model: Any) -> None:
    torch.testing.assert_close(finetuned(model), finetuned(model, forget=FORGET[:1]), atol=0, rtol=0)


def test_the_machine_decides_the_precision(model: Any) -> None:
    rounded = finetuned(model, machine=Machine(dtype="bfloat16"))["lm_head.weight"]
    assert not torch.equal(rounded, finetuned(model)["lm_head.weight"])
    torch.testing.assert_close(rounded, finetuned(model)["lm_head.weight"], atol=0.05, rtol=0.05)


def test_nothing_to_retain_is_refused(model: Any) -> None:
    with pytest.raises(ConfigError, match="trains on the retained records alone, found none"):
        finetuned(model, retain=[])
