"""Model utility against published components, scipy and hand-made sets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as oracle

from mlflow_unlearn.model_utility import PARTS, harmonic_mean, model_utility

RETRAINED = (0.88028400, 0.82643724, 0.51380976, 0.39157992, 0.81450000, 0.50220271, 0.42795159, 0.80227920, 0.61560966)
"""Llama-3.2-1B-Instruct trained on retain90: the nine parts in OpenUnlearning's evaluation log, whose model_utility is 0.5892923390686856."""
SIZES = {"retain": 60, "real_authors": 40, "world_facts": 50}


def known(seed: int = 0, power: float = 1.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {part: rng.random(SIZES[part.split("/")[0]]) ** power for part in PARTS}


def test_the_published_parts_give_the_published_utility() -> None:
    assert harmonic_mean(RETRAINED) == pytest.approx(0.5892923390686856, abs=1e-8)
    values = {part: np.full(10, value) for part, value in zip(PARTS, RETRAINED, strict=True)}
    score = model_utility(values, 100, 0).score
    assert score is not None
    assert score.value == pytest.approx(0.5892923390686856, abs=1e-8)


@given(st.lists(st.floats(0.01, 1.0), min_size=1, max_size=9))
def test_the_harmonic_mean_is_scipys_and_never_above_the_arithmetic_one(parts: list[float]) -> None:
    assert harmonic_mean(parts) == pytest.approx(oracle.hmean(parts))
    assert harmonic_mean(parts) <= np.mean(parts) + 1e-12


def test_the_nine_parts_are_three_measures_of_three_sets() -> None:
    assert len(set(PARTS)) == 9
    assert {part.split("/")[0] for part in PARTS} == set(SIZES)
    assert [part for part in PARTS if part.endswith("probability")] == ["retain/probability"]


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_part_leaves_no_utility_and_is_named(part: str) -> None:
    found = model_utility({name: each for name, each in known().items() if name != part}, 100, 0)
    assert (found.score, found.missing, len(found.parts)) == (None, (part,), 8)


def test_a_part_that_no_record_has_is_missing() -> None:
    values = known() | {"retain/truth_ratio": np.full(60, np.nan)}
    assert model_utility(values, 100, 0).missing == ("retain/truth_ratio",)


def test_records_without_a_value_stay_out_of_their_part_only() -> None:
    values = known()
    holes = values["retain/truth_ratio"].copy()
    holes[::2] = np.nan
    found = model_utility(values | {"retain/truth_ratio": holes}, 100, 0)
    assert found.parts["retain/truth_ratio"].value == pytest.approx(values["retain/truth_ratio"][1::2].mean())
    assert (found.parts["retain/truth_ratio"].n, found.parts["retain/probability"].n) == (30, 60)


def test_one_part_of_0_makes_the_whole_0_but_not_its_upper_limit() -> None:
    found = model_utility(known() | {"world_facts/rouge_l_recall": np.zeros(50)}, 200, 0)
    assert found.score is not None
    assert (found.score.value, found.score.low) == (0.0, 0.0)
    assert 0.0 < found.score.high < model_utility(known(), 200, 0).score.high  # type: ignore[union-attr]


def test_a_part_known_without_any_doubt_still_has_a_lower_limit() -> None:
    score = model_utility({part: np.ones(SIZES[part.split("/")[0]]) for part in PARTS}, 100, 0).score
    assert score is not None
    assert score.low < score.value == score.high == 1.0


def test_drops_pair_the_same_records_of_two_models() -> None:
    before = known()
    worse = before | {"retain/probability": before["retain/probability"] - np.linspace(0.0, 0.2, 60)}
    drops = model_utility(worse, 200, 0, before).drops
    assert drops["retain/probability"].value == pytest.approx(-0.1)
    assert drops["retain/probability"].high < 0.0
    assert drops["world_facts/truth_ratio"].value == 0.0


def test_every_drop_is_the_difference_of_two_parts() -> None:
    before, after = known(0), known(1, 2.0)
    found, old = model_utility(after, 100, 0, before), model_utility(before, 100, 0)
    for part in PARTS:
        assert found.drops[part].value == pytest.approx(found.parts[part].value - old.parts[part].value)


def test_most_intervals_hold_the_true_utility() -> None:
    rng, held = np.random.default_rng(7), 0
    true = harmonic_mean([0.5] * 3 + [1 / 3] * 6)
    for _ in range(200):
        values = {part: rng.random(SIZES[part.split("/")[0]]) ** (1 if part.startswith("retain") else 2) for part in PARTS}
        score = model_utility(values, 300, 0).score
        held += score is not None and score.low <= true <= score.high
    assert oracle.binomtest(held, 200, 0.95).pvalue > 0.01


def test_sets_of_different_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="parts of retain"):
        model_utility(known() | {"retain/probability": np.ones(3)}, 100, 0)
    with pytest.raises(ValueError, match="same records of both models"):
        model_utility(known(), 100, 0, {"retain/probability": np.ones(3)})


@pytest.mark.parametrize("parts", [[], [0.5, -0.1]])
def test_a_harmonic_mean_of_nothing_or_of_negatives_is_refused(parts: list[float]) -> None:
    with pytest.raises(ValueError, match="harmonic_mean: expected"):
        harmonic_mean(parts)
