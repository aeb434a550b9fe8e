"""The verb on a tiny model that memorised a handful of records."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers

from mlflow_unlearn.adapters.models import merged, with_lora
from mlflow_unlearn.config import LoraParams, OptimiserParams, UnlearnParams
from mlflow_unlearn.engine.descent import fit
from mlflow_unlearn.engine.reference import mean_losses
from mlflow_unlearn.errors import ConfigError, DataError
from mlflow_unlearn.methods.npo import NPO
from mlflow_unlearn.methods.retrain import Retrain
from mlflow_unlearn.protocols import Example, Progress
from mlflow_unlearn.records import Claim
from mlflow_unlearn.unlearn import ALL_DONE, TARGET_MET, UnlearnJob, unlearn

OPTIMISER = OptimiserParams(epochs=20, learning_rate=3e-3, batch_size=4)
PARAMS = UnlearnParams(method={"name": "npo"}, optimiser=OPTIMISER, target_check_steps=1)


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
    return UnlearnJob(model=copy.deepcopy(parent), forget=FORGET, retain=RETAIN, swapped=list(NEVER_SEEN), method=NPO(), params=PARAMS, pad=0)


def loss(model: torch.nn.Module, examples: list[Example]) -> float:
    return mean_losses(model, examples, 0).mean().item()


def test_the_forgotten_become_strange_and_the_retained_stay(job: UnlearnJob, parent: Any) -> None:
    run = unlearn(job)
    assert loss(parent, FORGET) < 0.1 < 1.0 < loss(job.model, FORGET)
    assert loss(job.model, RETAIN) < 0.3
    assert (run.stopped, run.steps, len(run.losses)) == (ALL_DONE, 40, 40)


def test_it_stops_once_tuning_canaries_look_never_seen(job: UnlearnJob) -> None:
    watched = replace(job, tuning_included=[0, 3, 5], tuning_excluded=NEVER_SEEN[:3])
    run = unlearn(watched)
    assert run.stopped == TARGET_MET
    assert run.steps < 40
    included, excluded = mean_losses(job.model, [FORGET[i] for i in (0, 3, 5)], 0), mean_losses(job.model, NEVER_SEEN[:3], 0)
    assert sum(float(i < e) for i in included for e in excluded) / 9 <= 0.5


def test_zero_check_steps_never_stop_early(job: UnlearnJob) -> None:
    unwatched = replace(job, tuning_included=[0], tuning_excluded=NEVER_SEEN[:1], params=replace(PARAMS, target_check_steps=0))
    assert unlearn(unwatched).stopped == ALL_DONE


def test_same_seed_same_weights(job: UnlearnJob) -> None:
    again = replace(job, model=copy.deepcopy(job.model))
    unlearn(job)
    unlearn(again)
    torch.testing.assert_close(again.model.state_dict(), job.model.state_dict(), atol=0, rtol=0)


def test_every_step_is_reported(job: UnlearnJob) -> None:
    seen: list[Progress] = []
    run = unlearn(job, seen.append)
    assert [(progress.step, progress.steps) for progress in seen] == [(n, 40) for n in range(1, 41)]
    assert {"loss", "forget", "retain", "learning_rate", "gradient_norm"} == set(run.losses[0])


def test_records_without_a_strangers_twin_take_the_never_seen_loss_as_floor(job: UnlearnJob) -> None:
    """With unbounded floors the forgotten would be driven far beyond the loss of never-seen records."""
    bounded = replace(job, swapped=[None] * 8, tuning_excluded=NEVER_SEEN, model=copy.deepcopy(job.model))
    unlearn(bounded)
    unlearn(replace(job, swapped=[None] * 8))
    assert loss(bounded.model, FORGET) < loss(job.model, FORGET)


def test_lora_forgets_through_its_adapters_alone(job: UnlearnJob, parent: Any) -> None:
    adapted = with_lora(job.model, LoraParams(rank=4), seed=0)
    params = replace(PARAMS, optimiser=replace(OPTIMISER, learning_rate=2e-2))
    unlearn(replace(job, model=adapted, params=params))
    base = {name.replace(".base_layer", ""): value for name, value in adapted.get_base_model().named_parameters()}
    assert all(torch.equal(value, base[name]) for name, value in parent.named_parameters())
    assert loss(merged(adapted), FORGET) > 1.0


def test_a_method_with_its_own_steps_runs_to_its_end(job: UnlearnJob, parent: Any) -> None:
    own = replace(job, method=Retrain(epochs=60, learning_rate=1e-2, batch_size=8), tuning_included=[0], tuning_excluded=NEVER_SEEN)
    run = unlearn(own)
    assert (run.stopped, run.steps) == (ALL_DONE, 120)
    assert loss(job.model, RETAIN) < 0.1 < loss(job.model, FORGET)


def test_unsound_jobs_are_refused(job: UnlearnJob) -> None:
    with pytest.raises(DataError, match="the forget set is empty"):
        unlearn(replace(job, forget=[]))
    with pytest.raises(DataError, match="found 1 swapped records for 8 forget records"):
        unlearn(replace(job, swapped=[None]))
    with pytest.raises(DataError, match="retain: the longest record has 40 tokens, the model takes 32"):
        unlearn(replace(job, retain=[Example(tokens=(3,) * 40, prompt_length=1)]))
    with pytest.raises(ConfigError, match="has neither `loss` nor `steps`"):
        unlearn(replace(job, method=Claim.EXACT))  # type: ignore[arg-type]
