"""Closer to the retrain or to the original: known worlds, all sign flips, and how often nothing is called something."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from mlflow_unlearn.errors import UnmeasurableError
from mlflow_unlearn.three_samples import Nearness, nearness, sign_flip_p


def world(kept: float, n: int = 100, seed: int = 0, models: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores of the unlearned, the original and retrained models; the original knows 2 nats more, of which a share is kept."""
    generator = np.random.default_rng(seed)
    ease, noise = generator.normal(size=n), generator.normal(0, 0.3, (models + 2, n))
    return ease + 2 * kept + noise[0], ease + 2 + noise[1], ease + noise[2:]


@pytest.mark.parametrize(("kept", "named"), [(0.0, Nearness.RETRAIN), (1.0, Nearness.ORIGINAL), (0.5, Nearness.UNDECIDED)])
def test_the_nearer_model_is_named_and_the_middle_is_nobodys(kept: float, named: Nearness) -> None:
    assert nearness(*world(kept), 2000, 0).nearness is named


def test_the_difference_is_the_mean_over_records_and_retrains() -> None:
    found = nearness(np.array([1.0, 2.0]), np.array([4.0, 4.0]), np.array([[0.0, 2.0], [2.0, 1.0]]), 100, 0)
    assert found.difference.value == pytest.approx(((1 + 1) / 2 - 3 + (0 + 1) / 2 - 2) / 2)
    assert found.rho is not None
    assert found.rho.value == pytest.approx(((1 + 1) / 2 + (0 + 1) / 2) / (2 + 1))


def test_a_retrain_is_about_as_far_as_retrains_are_and_a_wreck_much_farther() -> None:
    unlearned, original, retrained = world(0.0)
    honest, wreck = (nearness(scores, original, retrained, 1000, 0).rho for scores in (unlearned, unlearned - 20))
    assert honest is not None
    assert wreck is not None
    assert honest.low < 1.0 < honest.high
    assert wreck.low > 10


@pytest.mark.parametrize("retrained", [np.zeros((1, 5)), np.zeros((2, 5))])
def test_one_retrain_or_two_alike_ones_give_no_unit_of_distance(retrained: np.ndarray) -> None:
    assert nearness(np.arange(5.0), np.ones(5), retrained, 100, 0).rho is None


def test_where_the_sides_are_alike_a_side_is_seldom_named() -> None:
    generator = np.random.default_rng(5)
    named = [nearness(*generator.normal(size=(2, 60)), generator.normal(size=(1, 60)), 300, s).nearness for s in range(300)]
    assert np.mean([each is not Nearness.UNDECIDED for each in named]) <= 0.075


def test_sign_flips_agree_with_all_of_them() -> None:
    differences = np.array([0.5, -1.0, 2.0, 0.3, 1.5, -0.2])
    sums = np.array([np.dot(signs, differences) for signs in itertools.product((1, -1), repeat=6)])
    below, above = sign_flip_p(differences, 8000, 1)
    assert below == pytest.approx((sums <= differences.sum() + 1e-9).mean(), abs=0.02)
    assert above == pytest.approx((sums >= differences.sum() - 1e-9).mean(), abs=0.02)


def test_what_cannot_be_compared_is_refused_or_unmeasurable() -> None:
    with pytest.raises(ValueError, match="found 2, 3 and 2"):
        nearness(np.ones(2), np.ones(3), np.ones((1, 2)), 10, 0)
    with pytest.raises(ValueError, match="finite"):
        nearness(np.array([math.inf]), np.ones(1), np.ones((1, 1)), 10, 0)
    with pytest.raises(UnmeasurableError, match="at least one model trained without them"):
        nearness(np.ones(2), np.ones(2), np.ones((0, 2)), 10, 0)
