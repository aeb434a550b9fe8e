"""Retraining begins where the parent began and never sees the forget set."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mlflow_unlearn.adapters.models import with_lora
from mlflow_unlearn.engine.checkpoints import Checkpoints
from mlflow_unlearn.engine.machine import Machine
from mlflow_unlearn.engine.worker import Worker
from mlflow_unlearn.errors import ConfigError
from mlflow_unlearn.methods.retrain import Retrain
from mlflow_unlearn.params import LoraParams, OptimiserParams
from mlflow_unlearn.protocols import Example, Task
from mlflow_unlearn.records import Claim

FORGET = [Example(tokens=(3, 4, 5, 6), prompt_length=2), Example(tokens=(7, 8, 9), prompt_length=1)]
RETAIN = [Example(tokens=tuple(range(20 - i, 30)), prompt_length=3) for i in range(6)]
OPTIMISER = OptimiserParams(epochs=1, learning_rate=1.0)
SHORT = Retrain(base="scratch", epochs=2, batch_size=4, learning_rate=1e-2)


def task(model: Any, **changes: Any) -> Task:
    return replace(Task(model=copy.deepcopy(model), forget=FORGET, retain=RETAIN, optimiser=OPTIMISER, seed=3, pad=0), **changes)


def retrained(method: Retrain, on: Task) -> torch.Tensor:
    for _ in method.steps(on):
        pass
    return on.model.lm_head.weight


def test_neither_the_parents_weights_nor_the_forget_set_leave_a_trace(model: Any) -> None:
    plain = retrained(SHORT, task(model))
    model.lm_head.weight.data.fill_(1.0)
    assert torch.equal(retrained(SHORT, task(model, forget=FORGET[:1])), plain)


def test_the_seed_decides_the_weights(model: Any) -> None:
    assert torch.equal(retrained(SHORT, task(model)), retrained(SHORT, task(model)))
    assert not torch.equal(retrained(SHORT, task(model)), retrained(SHORT, task(model, seed=4)))


def test_a_base_is_where_it_starts(model: Any, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "base")
    other = copy.deepcopy(model)
    other.lm_head.weight.data.fill_(1.0)
    still = Retrain(base=str(tmp_path / "base"), epochs=1, learning_rate=1e-12)
    torch.testing.assert_close(retrained(still, task(other)), model.lm_head.weight, atol=1e-6, rtol=0)


def test_the_parents_config_may_say_where_it_began(model: Any) -> None:
    model.config.initialised_from = "scratch"
    assert torch.equal(retrained(replace(SHORT, base=None), task(model)), retrained(SHORT, task(model)))


def test_the_first_weights_are_in_place_before_the_model_is_shared(model: Any) -> None:
    shared: list[torch.Tensor] = []

    def share(found: Any) -> Worker:
        shared.append(found.lm_head.weight.detach().clone())
        return Worker(found)

    still = replace(SHORT, epochs=1, learning_rate=1e-12)
    after = retrained(still, task(model, machine=Machine(share=share)))
    assert not torch.allclose(shared[0], model.lm_head.weight, atol=1e-3)
    torch.testing.assert_close(shared[0], after, atol=1e-6, rtol=0)


def test_a_killed_run_goes_on_from_its_checkpoint_to_the_same_bits(model: Any, tmp_path: Path) -> None:
    plain = retrained(SHORT, task(model))
    machine = Machine(checkpoints=Checkpoints(folder=tmp_path, run="this one", seconds=0.0))
    killed = SHORT.steps(task(model, machine=machine))
    assert [next(killed).step for _ in range(3)] == [1, 2, 3]
    killed.close()
    assert torch.equal(retrained(SHORT, task(model, machine=machine)), plain)


def test_the_machine_decides_the_precision(model: Any) -> None:
    plain, rounded = retrained(SHORT, task(model)), retrained(SHORT, task(model, machine=Machine(dtype="bfloat16")))
    torch.testing.assert_close(rounded, plain, atol=0.05, rtol=0.05)
    assert not torch.equal(rounded, plain)


def test_a_base_with_another_vocabulary_is_refused(model: Any, tmp_path: Path) -> None:
    other = copy.deepcopy(model)
    other.resize_token_embeddings(40)
    other.save_pretrained(tmp_path / "base")
    with pytest.raises(ConfigError, match=r"does not have the parent's shapes .* with the same vocabulary"):
        next(Retrain(base=str(tmp_path / "base")).steps(task(model)))


def test_an_unknown_beginning_is_refused(model: Any) -> None:
    with pytest.raises(ConfigError, match="not known what the parent was trained from"):
        next(Retrain().steps(task(model)))


def test_a_base_that_is_not_there_is_refused(model: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be loaded"):
        next(Retrain(base=str(tmp_path)).steps(task(model)))


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="epochs, learning_rate must be above zero"):
        Retrain(epochs=0, learning_rate=0.0)


def test_adapters_are_refused(model: Any) -> None:
    with pytest.raises(ConfigError, match="trains full weights, found a model with LoRA"):
        next(SHORT.steps(task(with_lora(model, LoraParams(rank=2), seed=0))))


def test_the_claim_is_exact() -> None:
    assert Retrain.claim is Claim.EXACT
