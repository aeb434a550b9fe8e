"""The game of forgotten and never-seen records: what luck, tables and shunning give an attack."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_unlearn.errors import UnmeasurableError
from mlflow_unlearn.indistinguishability import Swapped, advantage_bound, unlearning_quality

RESAMPLES = 200


def game(n: int, trace: float, seed: int, luck: float = 0.0) -> Swapped:
    """Suspicion is a record's own ease (`luck`: F is easier than T), the model's noise, and a trace of having been forgotten."""
    generator = np.random.default_rng(seed)
    f, t = generator.normal(luck, 1, n), generator.normal(size=n)
    noise = generator.normal(0, 0.7, (4, n))
    return Swapped(
        forgotten_first=f + noise[0] + trace,
        unseen_first=t + noise[1],
        unseen_second=f + noise[2],
        forgotten_second=t + noise[3] + trace,
    )


def test_a_retrained_model_seldom_seems_to_remember_even_when_the_split_is_lucky() -> None:
    found = [unlearning_quality({str(i): game(60, 0.0, 3 * s + i, luck=1.0) for i in range(3)}, RESAMPLES, s) for s in range(300)]
    assert np.mean([each.advantage.low > 0 for each in found]) <= 0.08
    assert np.mean([each.quality.high == 1.0 for each in found]) >= 0.92


@pytest.mark.parametrize("trace", [3.0, -3.0])
def test_no_unlearning_is_found_whether_records_are_known_or_shunned(trace: float) -> None:
    found = unlearning_quality({"loss": game(150, trace, 0)}, RESAMPLES, 0)
    best = math.erf(3.0 / (2 * math.sqrt(2) * math.sqrt(1.49)))  # two normals 3 apart, cut in the middle
    assert found.advantage.low < best < found.advantage.high
    assert found.quality.high < 0.35


def test_a_table_of_the_records_gains_nothing_by_the_swap() -> None:
    table = Swapped(forgotten_first=np.ones(50), unseen_first=np.zeros(50), unseen_second=np.ones(50), forgotten_second=np.zeros(50))
    found = unlearning_quality({"table": table}, RESAMPLES, 0)
    assert found.advantage.value == found.advantage.low == 0.0


def test_a_blind_attack_beside_a_seeing_one_hides_nothing() -> None:
    seeing, blind = game(150, 2.0, 1), replace(game(150, 0.0, 2), forgotten_first=np.zeros(150))
    found = unlearning_quality({"blind": blind, "seeing": seeing}, RESAMPLES, 0)
    assert found.advantage.value == found.attacks["seeing"].value > found.attacks["blind"].value
    assert found.quality.value == pytest.approx(1 - found.advantage.value)


@given(st.integers(0, 50), st.integers(4, 30))
def test_a_models_own_scale_does_not_matter(seed: int, n: int) -> None:
    plain = game(n, 1.0, seed)
    stretched = replace(plain, unseen_second=10 * plain.unseen_second - 3, forgotten_second=10 * plain.forgotten_second - 3)
    assert unlearning_quality({"a": plain}, 50, seed) == unlearning_quality({"a": stretched}, 50, seed)


@given(st.integers(0, 50), st.floats(-3, 3))
def test_limits_are_shares_and_hold_the_value(seed: int, trace: float) -> None:
    found = unlearning_quality({"a": game(20, trace, seed)}, 50, seed)
    for score in (found.quality, found.advantage):
        assert 0.0 <= score.low <= score.value <= score.high <= 1.0


def test_a_certificate_bounds_the_advantage() -> None:
    assert [advantage_bound(epsilon) for epsilon in (0.0, math.log(3), 10.0)] == pytest.approx([0.0, 1.0, 1.0])
    assert advantage_bound(0.1) == pytest.approx(2 * (1 - 2 / (math.exp(0.1) + 1)))


def test_what_was_not_played_with_the_same_records_is_refused() -> None:
    with pytest.raises(ValueError, match="saw other records"):
        unlearning_quality({"a": replace(game(10, 0, 0), unseen_second=np.zeros(9))}, RESAMPLES, 0)
    with pytest.raises(ValueError, match="not numbers"):
        unlearning_quality({"a": replace(game(10, 0, 0), unseen_second=np.full(10, math.nan))}, RESAMPLES, 0)


@pytest.mark.parametrize("attacks", [{}, {"a": game(3, 0, 0)}])
def test_no_attack_or_hardly_a_record_is_unmeasurable(attacks: dict[str, Swapped]) -> None:
    with pytest.raises(UnmeasurableError, match="expected at least"):
        unlearning_quality(attacks, RESAMPLES, 0)
