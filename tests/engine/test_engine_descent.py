"""The descent loop: the plain loop written out is its oracle."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch.nn import functional

from mlflow_unlearn.adapters.models import with_lora
from mlflow_unlearn.engine import descent as descent_module
from mlflow_unlearn.engine.batches import Sets, batches_of, training_plan
from mlflow_unlearn.engine.descent import Descent, descend, fit, learning_rate
from mlflow_unlearn.engine.head import retain_nll
from mlflow_unlearn.engine.machine import Machine
from mlflow_unlearn.engine.randomness import private_randomness
from mlflow_unlearn.engine.worker import Worker
from mlflow_unlearn.errors import ConfigError, DivergedError, UnlearnError
from mlflow_unlearn.params import LoraParams, OptimiserParams
from mlflow_unlearn.protocols import Batch, Example, Progress

EXAMPLES = [Example(tokens=tuple(range(3 + i, 9 + 2 * i)), prompt_length=2 + i % 3) for i in range(10)]
SETS = Sets(retain=EXAMPLES, pad=0)
ROUNDING = 5e-4
"""AdamW divides a gradient by its own size, so the rounding of one that is nearly zero shows; six steps of 1e-2 move a weight by up to 6e-2."""


def optimiser(**changes: Any) -> OptimiserParams:
    return OptimiserParams(**{"epochs": 2, "learning_rate": 1e-2, "batch_size": 4, "token_budget": 30} | changes)


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def trained(model: Any, settings: OptimiserParams, examples: Sequence[Example] = EXAMPLES, seed: int = 0) -> dict[str, torch.Tensor]:
    copied = copy.deepcopy(model)
    for _ in fit(copied, examples, settings, seed, 0):
        pass
    return weights(copied)


def naive_training(model: Any, settings: OptimiserParams) -> dict[str, torch.Tensor]:
    """One padded batch a step, full logits, torch's own loss and clipping; weight decay on matrices only."""
    copied = copy.deepcopy(model).train()
    matrices, vectors = ([p for p in copied.parameters() if (p.ndim >= 2) is side] for side in (True, False))
    adamw = torch.optim.AdamW([{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}])
    for step, rows in enumerate(training_plan(len(EXAMPLES), settings, 0), start=1):
        (batch,) = batches_of(rows, SETS, 10**6)
        assert batch.retain is not None
        logits = copied(input_ids=batch.retain.input_ids, attention_mask=batch.retain.attention_mask).logits
        functional.cross_entropy(logits[:, :-1].flatten(0, 1), batch.retain.labels[:, 1:].flatten(), ignore_index=-100).backward()
        torch.nn.utils.clip_grad_norm_(copied.parameters(), settings.max_grad_norm)
        for group in adamw.param_groups:
            group["lr"] = learning_rate(step, 6, settings)
        adamw.step()
        adamw.zero_grad()
    return weights(copied)


def gradient(model: Any, token_budget: int) -> list[torch.Tensor]:
    batches = batches_of(next(training_plan(10, optimiser(batch_size=10), 0)), SETS, token_budget)
    return list(torch.autograd.grad(torch.stack([retain_nll(model, batch) for batch in batches]).sum(), list(model.parameters())))


def test_training_equals_the_plain_loop(model: Any) -> None:
    torch.testing.assert_close(trained(model, optimiser()), naive_training(model, optimiser()), atol=ROUNDING, rtol=1e-4)


def test_micro_batches_do_not_change_the_gradient(model: Any) -> None:
    torch.testing.assert_close(gradient(model, 20), gradient(model, 10**6), atol=1e-6, rtol=1e-5)


def test_same_seed_same_weights(model: Any) -> None:
    torch.testing.assert_close(trained(model, optimiser()), trained(model, optimiser()), atol=0, rtol=0)


def test_another_seed_other_weights(model: Any) -> None:
    first, second = (trained(model, optimiser(), seed=seed)["lm_head.weight"] for seed in (0, 1))
    assert not torch.equal(first, second)


def test_training_lowers_the_loss(model: Any) -> None:
    losses = [progress.losses["loss"] for progress in fit(model, EXAMPLES, optimiser(epochs=20), 0, 0)]
    assert losses[-1] < 0.5 * losses[0]


def test_lora_trains_its_adapters_only(model: Any) -> None:
    base = weights(model)
    adapted = with_lora(model, LoraParams(rank=2), seed=0)
    for _ in fit(adapted, EXAMPLES, optimiser(), 0, 0):
        pass
    for name, value in adapted.named_parameters():
        plain = name.removeprefix("base_model.model.").replace(".base_layer", "")
        assert ("lora_" in name) == (plain not in base or not torch.equal(value, base[plain]))


def test_dropout_follows_the_seed_and_leaves_global_randomness_alone(model: Any) -> None:
    def run() -> dict[str, torch.Tensor]:
        return trained(with_lora(copy.deepcopy(model), LoraParams(rank=2, dropout=0.5), seed=0), optimiser())

    before = torch.random.get_rng_state()
    first = run()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(7)
    torch.testing.assert_close(run(), first, atol=0, rtol=0)


def test_private_randomness_repeats(model: Any) -> None:
    draws = []
    for _ in range(2):
        with private_randomness(5):
            draws.append(torch.rand(3))
    assert torch.equal(*draws)


def test_bfloat16_rounds_the_arithmetic_and_not_the_weights(model: Any) -> None:
    exact, rounded = copy.deepcopy(model), copy.deepcopy(model)
    for changed, machine in ((exact, Machine()), (rounded, Machine(dtype="bfloat16"))):
        list(fit(changed, EXAMPLES, optimiser(), 0, 0, machine))
    assert {value.dtype for value in rounded.parameters()} == {torch.float32}
    torch.testing.assert_close(rounded.lm_head.weight, exact.lm_head.weight, atol=0.05, rtol=0.05)
    assert not torch.equal(rounded.lm_head.weight, exact.lm_head.weight)


def test_activations_made_again_give_the_same_weights(model: Any) -> None:
    again = copy.deepcopy(model)
    list(fit(again, EXAMPLES, optimiser(), 0, 0, Machine(activation_checkpointing="on")))
    torch.testing.assert_close(weights(again), trained(model, optimiser()), atol=ROUNDING, rtol=1e-4)


def test_the_learning_rate_warms_up_peaks_and_falls_to_zero() -> None:
    rates = [learning_rate(step, 100, optimiser(learning_rate=1.0)) for step in range(1, 101)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[5] == 1.0
    assert rates[52] == pytest.approx(0.5 * (1 + math.cos(math.pi * 47 / 95)))
    assert all(earlier >= later for earlier, later in pairwise(rates[5:]))
    assert 0 < rates[-1] < 1e-3


@pytest.mark.parametrize(("schedule", "half"), [("cosine", 0.5), ("linear", 0.5), ("constant", 1.0)])
def test_each_schedule_is_where_it_should_be_half_way(schedule: str, half: float) -> None:
    settings = optimiser(learning_rate=1.0, warmup_fraction=0.0, schedule=schedule)
    assert learning_rate(51, 100, settings) == pytest.approx(half)


def descent(**changes: Any) -> Descent:
    settings = changes.pop("optimiser", optimiser())
    plan = training_plan(len(EXAMPLES), settings, 0)
    return Descent(**{"plan": plan, "sets": SETS, "steps": 6, "optimiser": settings, "seed": 0, "machine": Machine()} | changes)


def test_a_loss_that_is_not_finite_stops_before_its_step(model: Any) -> None:
    before = weights(model)

    def broken(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        return retain_nll(model, batch) * float("nan")

    with pytest.raises(DivergedError, match=r"step 1: the loss is nan, expected a finite number; lower optimiser\.learning_rate"):
        list(descend(Worker(model), broken, descent()))
    torch.testing.assert_close(weights(model), before, atol=0, rtol=0)


def short_of_memory(most_rows: int) -> Any:
    """A loss that only fits for few rows: the allocator's own error for more."""

    def loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        assert batch.retain is not None
        if len(batch.retain.index) > most_rows:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return retain_nll(model, batch)

    return loss


def test_out_of_memory_halves_the_micro_batch_says_so_once_and_changes_nothing(model: Any) -> None:
    wide, narrow, plenty = optimiser(token_budget=10**6), copy.deepcopy(model), copy.deepcopy(model)
    steps: list[Progress] = list(descend(Worker(narrow), short_of_memory(2), descent(optimiser=wide)))
    list(descend(Worker(plenty), retain_nll, descent(optimiser=wide)))
    torch.testing.assert_close(weights(narrow), weights(plenty), atol=ROUNDING, rtol=1e-4)
    notes = [note for progress in steps for note in progress.notes]
    assert len(notes) == 1
    assert "out of memory: micro-batches of at most" in notes[0]


def test_a_single_record_that_does_not_fit_is_refused_in_words(model: Any) -> None:
    with pytest.raises(UnlearnError, match=r"out of memory with a single record of .* tokens .* use unlearn\.lora"):
        list(descend(Worker(model), short_of_memory(0), descent()))


def test_out_of_memory_in_one_of_several_processes_ends_all_in_words(model: Any) -> None:
    """The others wait inside another step: going on alone would hang them."""

    class OneOfTwo(Worker):
        size = 2

    with pytest.raises(UnlearnError, match=r"out of memory in one of 2 processes .* lower optimiser\.token_budget"):
        list(descend(OneOfTwo(model), short_of_memory(0), descent()))


def test_other_runtime_errors_are_not_taken_for_missing_memory(model: Any) -> None:
    def broken(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        list(descend(Worker(model), broken, descent()))


def test_the_machines_own_memory_running_out_is_told_apart() -> None:
    with pytest.raises(RuntimeError, match="allocate memory") as caught:
        torch.empty(1 << 46, dtype=torch.int64)
    assert descent_module.ran_out(caught.value)


def test_a_frozen_model_is_refused(model: Any) -> None:
    model.requires_grad_(False)
    with pytest.raises(ConfigError, match="no parameter of the model may change"):
        list(fit(model, EXAMPLES, optimiser(), 0, 0))
