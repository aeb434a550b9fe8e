"""An ensemble passes on all that may be asked of a set: each number is the one of the shard that answers, asked alone."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from mlflow_unlearn import catalog
from mlflow_unlearn.engine.calibration import CalibratedAttack
from mlflow_unlearn.engine.ensemble import Ensemble, EnsembleSubject, WeightExperts
from mlflow_unlearn.engine.scoring import ScoredSubject
from mlflow_unlearn.protocols import Example, Shadows

KNOWN = [0, 2, 1, 1, 0, 2]
PREFIX = (30, 31)


def answered(prompt: int, answer: int) -> Example:
    return Example(tokens=(5, 6, *range(7 + prompt, 11 + prompt), *range(20 + answer, 23 + answer + prompt % 3), 2), prompt_length=6)


def given() -> dict[str, Any]:
    """Every second record has a wrong answer, all but the first the true one in other words."""
    return {
        "examples": [answered(i, 0) for i in range(6)],
        "answers": ["a"] * 6,
        "paraphrased": [None if i == 0 else answered(i, 1) for i in range(6)],
        "wrong": [[answered(i, 2)] * (i % 2) for i in range(6)],
        "prefix": PREFIX,
        "known_shadows": Shadows(confidences=np.zeros((2, 6)) + np.arange(6) + [[0], [1]], trained_on=np.array([[1] * 6, [0] * 6], dtype=np.bool_)),
    }


@pytest.fixture
def models(model: Any) -> dict[int, Any]:
    found = {shard: copy.deepcopy(model) for shard in range(3)}
    for shard, each in found.items():
        with torch.no_grad():
            each.get_input_embeddings().weight.mul_(1.0 + shard)
    return found


def asked(models: dict[int, Any], tokenizer: Any, known: list[int | None], **fields: Any) -> EnsembleSubject:
    ensemble = Ensemble(experts=WeightExperts(models), aggregation="average", shards=3)
    return EnsembleSubject(ensemble=ensemble, tokenizer=tokenizer, known=known, **given(), **fields)


@pytest.mark.parametrize("name", ["token_moments", "paraphrased_log_probs", "prefixed_log_probs", "gradient_norms"])
def test_a_property_of_a_record_is_the_one_of_its_shard(models: dict[int, Any], tokenizer: Any, name: str) -> None:
    found = getattr(asked(models, tokenizer, [*KNOWN]), name)
    alone = {shard: getattr(ScoredSubject(model=models[shard], tokenizer=tokenizer, **given()), name) for shard in models}
    for i, shard in enumerate(KNOWN):
        np.testing.assert_allclose(found[i], alone[shard][i], rtol=1e-5, atol=1e-6)


def test_wrong_answers_are_scored_by_the_shard_of_the_record(models: dict[int, Any], tokenizer: Any) -> None:
    found = asked(models, tokenizer, [*KNOWN]).wrong_log_probs
    assert [len(wrong) for wrong in found] == [0, 1, 0, 1, 0, 1]
    alone = ScoredSubject(model=models[1], tokenizer=tokenizer, **given()).wrong_log_probs
    np.testing.assert_allclose(found[3][0], alone[3][0], atol=1e-6)


def test_records_about_nobody_have_gradients_and_moments_of_all_shards_together(models: dict[int, Any], tokenizer: Any) -> None:
    together = asked(models, tokenizer, [None] * 6)
    assert (together.gradient_norms > 0).all()
    assert [moments.shape for moments in together.token_moments] == [(tokens.size, 2) for tokens in together.token_log_probs]


@pytest.mark.parametrize("name", catalog.names("attacks"))
def test_every_attack_can_be_calibrated_by_the_other_shards(models: dict[int, Any], tokenizer: Any, name: str) -> None:
    reference = ScoredSubject(model=models[0], tokenizer=tokenizer, **given())
    seen = asked(models, tokenizer, [*KNOWN], reference=reference)
    assert np.isfinite(CalibratedAttack(catalog.build("attacks", name, where="law")).suspicion(seen)).all()
