"""The verb on a tiny model that memorised a handful of records."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers

from mlflow_unlearn.adapters.models import merged, with_lora
from mlflow_unlearn.engine.descent import TARGET_MET, fit
from mlflow_unlearn.engine.reference import mean_losses
from mlflow_unlearn.engine.selection import TuningSets
from mlflow_unlearn.errors import ConfigError, DataError, DivergedError
from mlflow_unlearn.methods.grad_diff import GradDiff
from mlflow_unlearn.methods.npo import NPO
from mlflow_unlearn.methods.retrain import Retrain
from mlflow_unlearn.params import LoraParams, OptimiserParams, SelectionParams
from mlflow_unlearn.protocols import Example, Progress, Task
from mlflow_unlearn.records import Claim
from mlflow_unlearn.unlearn import ALL_DONE, UnlearnJob, unlearn

OPTIMISER = OptimiserParams(epochs=20, learning_rate=3e-3, batch_size=4)
EVERY_STEP = SelectionParams(every=1)
NO_TUNING = TuningSets(pad=0)
SAFE_NPO = NPO(retain_weight=5.0, clamp=True)


def records(first: int, count: int) -> list[Example]:
    """Prompt of two tokens that name the record, answer of three that follow no rule."""
    return [
        Example(tokens=(3 + n // 7, 10 + n % 7, *(3 + (n * k * k + k) % 26 for k in (5, 11, 17)), 2), prompt_length=2)
        for n in range(first, first + count)
    ]


FORGET, RETAIN, NEVER_SEEN = records(0, 8), records(8, 12), records(20, 8)


@pytest.fixture(scope="module")
def parent() -> Any:
    config = transformers.AutoConfig.for_model(
        "llama",
        vocab_size=32,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=32,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        initialised_from="scratch",
    )
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(1)
        model = transformers.AutoModelForCausalLM.from_config(config)
    for _ in fit(model, FORGET + RETAIN, OptimiserParams(epochs=60, learning_rate=1e-2, batch_size=8), 0, 0):
        pass
    return model.eval()


@pytest.fixture
def job(parent: Any) -> UnlearnJob:
    task = Task(model=copy.deepcopy(parent), forget=FORGET, retain=RETAIN, swapped=list(NEVER_SEEN), optimiser=OPTIMISER, seed=0, pad=0)
    return UnlearnJob(task=task, method=SAFE_NPO, tuning=NO_TUNING, selection=SelectionParams(every=0))


def changed(job: UnlearnJob, **changes: Any) -> UnlearnJob:
    """The job with another task; the model is a copy unless it is given."""
    return replace(job, task=replace(job.task, **{"model": copy.deepcopy(job.task.model)} | changes))


def loss(model: torch.nn.Module, examples: list[Example]) -> float:
    return mean_losses(model, examples, 0).mean().item()


def test_the_forgotten_become_strange_and_the_retained_stay(job: UnlearnJob, parent: Any) -> None:
    run = unlearn(job)
    assert loss(parent, FORGET) < 0.1 < 1.0 < loss(job.task.model, FORGET)
    assert loss(job.task.model, RETAIN) < 0.3
    assert (run.stopped, run.steps, run.kept_step, len(run.losses)) == (ALL_DONE, 40, 40, 40)


def watched(job: UnlearnJob, **selection: Any) -> UnlearnJob:
    """Three of the forgotten and three never seen are tuning canaries; the last retained records are watched."""
    tuning = TuningSets(included=[FORGET[i] for i in (0, 3, 5)], excluded=NEVER_SEEN[:3], kept=RETAIN[-4:], pad=0)
    return replace(job, tuning=tuning, selection=replace(EVERY_STEP, **selection))


def test_it_stops_once_tuning_canaries_look_never_seen(job: UnlearnJob) -> None:
    run = unlearn(watched(job))
    assert run.stopped == TARGET_MET
    assert run.steps < 40
    included, excluded = (mean_losses(job.task.model, some, 0) for some in ([FORGET[i] for i in (0, 3, 5)], NEVER_SEEN[:3]))
    assert sum(float(i < e) for i in included for e in excluded) / 9 <= 0.5


def test_a_method_without_brakes_does_not_over_unlearn_by_default(job: UnlearnJob) -> None:
    """Gradient difference alone drives the forgotten beyond anything never seen; choosing the step by tuning data does not let it."""
    free, held = replace(job, method=GradDiff(retain_weight=0.5)), watched(replace(changed(job), method=GradDiff(retain_weight=0.5)))
    unlearn(free)
    run = unlearn(held)
    assert loss(free.task.model, FORGET) > 2 * loss(held.task.model, FORGET)
    assert loss(held.task.model, RETAIN) < loss(free.task.model, RETAIN)
    assert run.kept_step < run.steps


def test_the_weights_are_those_of_the_step_that_is_said_to_be_kept(job: UnlearnJob) -> None:
    run = unlearn(watched(job, forget_target=0.0))
    short = changed(job, model=copy.deepcopy(job.task.model))
    assert run.losses[run.kept_step - 1]["tuning_kept_loss"] == pytest.approx(loss(short.task.model, RETAIN[-4:]), rel=1e-4)


def test_divergence_keeps_the_last_good_step_and_says_why(job: UnlearnJob) -> None:
    wild = watched(replace(job, method=GradDiff(retain_weight=0.0)), forget_target=0.0)
    wild = changed(wild, model=job.task.model, optimiser=replace(OPTIMISER, learning_rate=0.3, epochs=40, warmup_fraction=0.5))
    run = unlearn(wild)
    assert run.stopped.startswith("diverged: step ")
    assert 1 <= run.kept_step <= run.steps < 80
    assert loss(job.task.model, RETAIN) < math.log(32)


def test_divergence_before_any_good_step_is_refused(job: UnlearnJob) -> None:
    with pytest.raises(DivergedError, match=r"lower optimiser\.learning_rate"):
        unlearn(changed(watched(job), optimiser=replace(OPTIMISER, learning_rate=1e4, warmup_fraction=0.0)))


def test_same_seed_same_weights(job: UnlearnJob) -> None:
    again = changed(job)
    unlearn(job)
    unlearn(again)
    torch.testing.assert_close(again.task.model.state_dict(), job.task.model.state_dict(), atol=0, rtol=0)


def test_every_step_is_reported(job: UnlearnJob) -> None:
    seen: list[Progress] = []
    run = unlearn(job, seen.append)
    assert [(progress.step, progress.steps) for progress in seen] == [(n, 40) for n in range(1, 41)]
    assert {"loss", "forget", "retain", "learning_rate", "gradient_norm"} == set(run.losses[0])


def test_records_without_a_strangers_twin_take_the_never_seen_loss_as_floor(job: UnlearnJob) -> None:
    """With unbounded floors the forgotten would be driven far beyond the loss of never-seen records."""
    bounded, unbounded = changed(job, swapped=[None] * 8, strangers=NEVER_SEEN), changed(job, swapped=[None] * 8)
    unlearn(bounded)
    unlearn(unbounded)
    assert loss(bounded.task.model, FORGET) < loss(unbounded.task.model, FORGET)


def test_lora_forgets_through_its_adapters_alone(job: UnlearnJob, parent: Any) -> None:
    adapted = with_lora(job.task.model, LoraParams(rank=4), seed=0)
    unlearn(changed(job, model=adapted, optimiser=replace(OPTIMISER, learning_rate=2e-2)))
    base = {name.replace(".base_layer", ""): value for name, value in adapted.get_base_model().named_parameters()}
    assert all(torch.equal(value, base[name]) for name, value in parent.named_parameters())
    assert loss(merged(adapted), FORGET) > 1.0


def test_a_method_with_its_own_steps_runs_to_its_end(job: UnlearnJob) -> None:
    run = unlearn(watched(replace(job, method=Retrain(epochs=60, learning_rate=1e-2, batch_size=8))))
    assert (run.stopped, run.steps, run.kept_step) == (ALL_DONE, 120, 120)
    assert loss(job.task.model, RETAIN) < 0.1 < loss(job.task.model, FORGET)


def test_what_a_reader_should_know_is_noted(job: UnlearnJob) -> None:
    run = unlearn(replace(changed(job, retain=RETAIN[:2]), selection=SelectionParams(every=40)))
    assert run.notes == (
        "8 records to forget and only 2 to retain: each retained one is drawn about 4.0 times an epoch",
        "no tuning canaries: nothing could be seen of how far the forgetting went, so the run does not stop early",
        "too few retained records to watch some that no verdict measures: a step that damages what is retained is not told apart",
    )


def test_unsound_jobs_are_refused(job: UnlearnJob) -> None:
    with pytest.raises(DataError, match="the forget set is empty"):
        unlearn(changed(job, forget=[]))
    with pytest.raises(DataError, match="found 1 swapped records for 8 forget records"):
        unlearn(changed(job, swapped=[None]))
    with pytest.raises(DataError, match="retain: the longest record has 40 tokens, the model takes 32"):
        unlearn(changed(job, retain=[Example(tokens=(3,) * 40, prompt_length=1)]))
    with pytest.raises(DataError, match="retain: found token id 32, the model knows 32 tokens"):
        unlearn(changed(job, retain=[Example(tokens=(3, 32), prompt_length=1)]))
    with pytest.raises(DataError, match="watched records: found token id 32"):
        unlearn(replace(job, tuning=TuningSets(kept=[Example(tokens=(3, 32), prompt_length=1)], pad=0)))
    with pytest.raises(ConfigError, match="has neither `loss` nor `steps`"):
        unlearn(replace(job, method=Claim.EXACT))  # type: ignore[arg-type]
