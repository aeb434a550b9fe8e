"""An attack on shards is calibrated by those that never saw the record."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from mlflow_unlearn.attacks.loss import Loss
from mlflow_unlearn.engine.calibration import CalibratedAttack
from mlflow_unlearn.engine.ensemble import Ensemble, EnsembleSubject, WeightExperts
from mlflow_unlearn.engine.scoring import ScoredSubject
from mlflow_unlearn.protocols import Example

EXAMPLES = [Example(tokens=tuple(range(3 + i, 12 + i)), prompt_length=3) for i in range(6)]
KNOWN = [0, 2, 1, 1, 0, 2]
ANSWERS = ["a"] * 6


def models(model: Any, shards: int = 3) -> dict[int, Any]:
    found = {shard: copy.deepcopy(model) for shard in range(shards)}
    for shard, each in found.items():
        with torch.no_grad():
            each.get_input_embeddings().weight.mul_(1.0 + shard)
    return found


def subject(experts: dict[int, Any], tokenizer: Any, known: list[int | None]) -> EnsembleSubject:
    ensemble = Ensemble(experts=WeightExperts(experts), aggregation="confident", shards=len(experts))
    return EnsembleSubject(ensemble=ensemble, tokenizer=tokenizer, examples=EXAMPLES, answers=ANSWERS, known=known)


def alone(model: Any, tokenizer: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    return Loss().suspicion(ScoredSubject(model=model, tokenizer=tokenizer, examples=EXAMPLES, answers=ANSWERS))


def test_suspicion_is_the_own_shard_s_above_the_mean_of_the_others_in_its_shares(model: Any, tokenizer: Any) -> None:
    experts = models(model)
    table = np.stack([alone(experts[shard], tokenizer) for shard in range(3)])
    means = [np.mean([table[other, i] for other in range(3) if other != own]) for i, own in enumerate(KNOWN)]
    expected = [(table[own, i] - mean) / abs(mean) for (i, own), mean in zip(enumerate(KNOWN), means, strict=True)]
    assert CalibratedAttack(Loss()).suspicion(subject(experts, tokenizer, [*KNOWN])) == pytest.approx(expected, abs=1e-6)


def test_a_record_that_is_as_hard_for_all_is_not_suspicious(model: Any, tokenizer: Any) -> None:
    same = dict.fromkeys(range(3), model)
    assert CalibratedAttack(Loss()).suspicion(subject(same, tokenizer, [*KNOWN])) == pytest.approx(np.zeros(6), abs=1e-6)


def test_one_model_and_one_shard_are_attacked_as_they_are(model: Any, tokenizer: Any) -> None:
    plain = ScoredSubject(model=model, tokenizer=tokenizer, examples=EXAMPLES, answers=ANSWERS)
    assert CalibratedAttack(Loss()).suspicion(plain) == pytest.approx(Loss().suspicion(plain))
    single = subject({0: model}, tokenizer, [0] * 6)
    assert CalibratedAttack(Loss()).suspicion(single) == pytest.approx(Loss().suspicion(single))
