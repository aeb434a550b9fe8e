"""Putting metrics and attacks to sets: what has no value, what is broken and what is not there are three different things."""

from __future__ import annotations

import numpy as np
import pytest
from benchmark_folders import spoken

from mlflow_unlearn.asking import Suspicion, measured
from mlflow_unlearn.attacks.loss import Loss
from mlflow_unlearn.errors import UnlearnError
from mlflow_unlearn.metrics.probability import Probability
from mlflow_unlearn.metrics.truth_ratio import TruthRatio


def test_values_stay_in_the_order_of_the_records_and_holes_stay_holes() -> None:
    subject = spoken([0.5, 0.4, 0.2], [(0.1,), (), (0.1, 0.3)])
    values = measured({"a": subject}, {"a/truth_ratio": TruthRatio(), "a/probability": Probability()}).values
    assert values["a/probability"] == pytest.approx([0.5, 0.4, 0.2])
    assert values["a/truth_ratio"] == pytest.approx([0.2, np.nan, 1.0], nan_ok=True)


def test_an_attack_in_the_place_of_a_metric_gives_its_suspicion() -> None:
    subject = spoken([0.5, 0.4])
    assert measured({"a": subject}, {"a/loss": Suspicion(attack=Loss())}).values["a/loss"] == pytest.approx(Loss().suspicion(subject))


def test_an_empty_set_counts_as_missing() -> None:
    found = measured({"a": spoken([])}, {"a/probability": Probability(), "b/probability": Probability()})
    assert not found.values
    assert set(found.absent) == {"a/probability", "b/probability"}


def test_a_metric_that_no_record_can_have_is_absent_with_what_is_lacking() -> None:
    found = measured({"a": spoken([0.5])}, {"a/truth_ratio": TruthRatio()})
    assert found.absent == {"a/truth_ratio": "no record of the set has wrong answers"}


def test_a_broken_value_is_an_error_and_no_hole() -> None:
    with pytest.raises(UnlearnError, match=r"a/probability: 1 of 2 values"):
        measured({"a": spoken([0.5, float("nan")])}, {"a/probability": Probability()})
