"""ROC curves against scikit-learn's points, a known curve, and what few strangers cannot know."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as distributions
from sklearn.metrics import roc_curve

from mlflow_unlearn.errors import UnmeasurableError
from mlflow_unlearn.roc import detection_rate, roc

SUSPICIONS = st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=15).map(np.array)


@given(SUSPICIONS, SUSPICIONS)
def test_the_curve_is_the_highest_of_sklearns_points_that_spare_enough_strangers(members: np.ndarray, strangers: np.ndarray) -> None:
    found = roc(members, strangers, points=31)
    labels = np.repeat([1, 0], [len(members), len(strangers)])
    fpr, tpr, _ = roc_curve(labels, np.concatenate([members, strangers]), drop_intermediate=False)
    assert found.tpr == pytest.approx([tpr[fpr <= rate + 1e-9].max() for rate in found.fpr])


@given(SUSPICIONS, SUSPICIONS)
def test_the_band_holds_the_curve_and_all_three_ascend(members: np.ndarray, strangers: np.ndarray) -> None:
    found = roc(members, strangers, points=31)
    assert ((found.low <= found.tpr) & (found.tpr <= found.high)).all()
    assert all((np.diff(line) >= -1e-12).all() for line in (found.low, found.tpr, found.high))
    assert (found.fpr[0], found.fpr[-1], found.tpr[-1], found.high[-1]) == (0.0, 1.0, 1.0, 1.0)


def test_the_band_covers_a_known_curve_at_every_rate() -> None:
    generator, covered = np.random.default_rng(0), []
    for _ in range(200):
        found = roc(generator.normal(1, 1, 80), generator.normal(size=120), points=51)
        truth = distributions.norm.sf(distributions.norm.isf(found.fpr) - 1)
        covered.append((found.low <= truth + 1e-12) & (truth <= found.high + 1e-12))
    assert np.mean(covered, axis=0).min() >= 0.95


@pytest.mark.parametrize(("strangers", "known"), [(436, False), (437, True)])
def test_a_perfect_attack_is_only_known_to_be_one_at_a_rate_that_its_strangers_can_tell(strangers: int, known: bool) -> None:
    score = detection_rate(np.arange(200.0) + 1000, np.arange(strangers) + 0.0, 0.01)
    assert score.value == score.high == 1.0
    assert score.low == (pytest.approx(0.0125 ** (1 / 200)) if known else 0.0)


@pytest.mark.parametrize(("members", "strangers"), [([], [1.0]), ([1.0], [])])
def test_one_class_alone_has_no_curve(members: list[float], strangers: list[float]) -> None:
    with pytest.raises(UnmeasurableError, match="expected some of each"):
        roc(np.array(members), np.array(strangers))


def test_what_has_no_order_and_rates_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="can be ordered"):
        roc(np.array([math.nan]), np.array([1.0]))
    with pytest.raises(ValueError, match="between 0 and 1"):
        detection_rate(np.ones(3), np.ones(3), 1.0)
