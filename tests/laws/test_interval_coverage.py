"""How often 95 % intervals hold the truth: counted where that can be done, simulated elsewhere. Seeds are fixed, so a failure is a change of code."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats as distributions

from mlflow_unlearn import stats
from mlflow_unlearn.records import Direction, Score

WORLDS, RESAMPLES = 800, 400
OPEN = 2 * math.sqrt(0.95 * 0.05 / WORLDS)
"""What so many worlds leave open: with 6,000 of them the areas' 0.929 becomes 0.946."""
Draw = Callable[[np.random.Generator, int], tuple[float, float]]


def covered(truth: float, limits: Draw) -> float:
    found = [limits(np.random.default_rng([11, world]), world) for world in range(WORLDS)]
    return float(np.mean([low <= truth <= high for low, high in found]))


def ends(score: Score) -> tuple[float, float]:
    return score.low, score.high


def clipped(generator: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores in [0, 1] before and after a change that is 0 on average."""
    before = generator.uniform(0.3, 0.7, n)
    return before + generator.uniform(-0.2, 0.2, n), before


@pytest.mark.parametrize("n", [1, 5, 20, 100])
def test_clopper_pearson_covers_at_every_proportion(n: int) -> None:
    limits = np.array([stats.clopper_pearson(hits, n) for hits in range(n + 1)])
    for p in np.linspace(0, 1, 301):
        holds = (limits[:, 0] <= p) & (p <= limits[:, 1])
        assert distributions.binom.pmf(np.arange(n + 1)[holds], n, p).sum() >= 0.95


@pytest.mark.parametrize(("truth", "draw"), [(0.0, lambda g: g.normal(size=50)), (0.2, lambda g: g.beta(0.5, 2, 50))])
def test_bca_of_a_mean_covers(truth: float, draw: Callable[[np.random.Generator], np.ndarray]) -> None:
    assert 0.93 <= covered(truth, lambda g, seed: ends(stats.mean_score(draw(g), Direction.LOWER, RESAMPLES, seed))) <= 0.97


def test_few_values_of_a_heavy_tail_do_not_know_of_it_and_more_of_them_do() -> None:
    few, more = (covered(0.1 / 2.1, lambda g, seed, n=n: stats.bca(g.beta(0.1, 2, n), RESAMPLES, seed)) for n in (20, 60))
    assert few < 0.9 < more


def test_paired_differences_cover() -> None:
    assert 0.93 <= covered(0.0, lambda g, _: ends(stats.paired_score(*clipped(g, 40)))) <= 0.97


def rarely_worse(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """300 answers of six words, of which one in a hundred loses one."""
    before = np.ones(300)
    return before - generator.binomial(1, 0.01, 300) / 6, before


def test_rare_differences_cover_at_least_that_often() -> None:
    assert covered(-0.01 / 6, lambda g, _: ends(stats.paired_score(*rarely_worse(g)))) >= 0.95


@pytest.mark.parametrize("n", [20, 60])
def test_limits_without_draws_cover_as_often_as_draws_do(n: int) -> None:
    drawn = covered(0.1 / 2.1, lambda g, seed: stats.bca(g.beta(0.1, 2, n), RESAMPLES, seed))
    expanded = covered(0.1 / 2.1, lambda g, _: stats.mean_limits(g.beta(0.1, 2, n), (0.0, 1.0)))
    assert drawn - 0.01 <= expanded <= drawn + 0.02


def test_differences_of_independent_means_cover() -> None:
    score = covered(-0.3, lambda g, _: ends(stats.difference_score(g.beta(0.5, 2, 50), g.beta(2, 2, 50))))
    assert 0.93 <= score <= 0.97


def test_differences_of_proportions_cover_at_least_that_often() -> None:
    def limits(generator: np.random.Generator, _: int) -> tuple[float, float]:
        left, right = ((generator.random(60) < share).astype(float) for share in (0.3, 0.1))
        return ends(stats.difference_score(left, right))

    assert covered(0.2, limits) >= 0.95


@pytest.mark.parametrize(("n", "shift"), [(50, 0.0), (50, 2.0), (200, 1.0), (200, 3.0)])
def test_areas_cover_in_the_middle_and_near_one(n: int, shift: float) -> None:
    truth = float(distributions.norm.cdf(shift / math.sqrt(2)))
    held = covered(truth, lambda g, _: stats.area(g.normal(shift, 1, n), g.normal(size=n)).interval())
    assert 0.93 - OPEN <= held <= 0.97 + OPEN


def test_symmetric_errors_would_not_cover_near_one() -> None:
    """The reason for limits on the scale of log-odds."""
    truth = float(distributions.norm.cdf(3 / math.sqrt(2)))

    def symmetric(generator: np.random.Generator, _: int) -> tuple[float, float]:
        found = stats.area(generator.normal(3, 1, 200), generator.normal(size=200))
        return found.value - 1.96 * found.error, found.value + 1.96 * found.error

    assert covered(truth, symmetric) < 0.93
