"""TOFU's tables: from numbers by hand, with whatever is missing named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from benchmark_folders import spoken
from scipy import stats as oracle

from mlflow_unlearn.asking import Measured
from mlflow_unlearn.errors import UnlearnError
from mlflow_unlearn.metrics.truth_ratio import TruthRatio
from mlflow_unlearn.model_utility import PARTS
from mlflow_unlearn.tofu_report import TofuState, measure, report

N = 40


def subjects(known: float, **changed: Any) -> dict[str, Any]:
    """Four sets whose answers are all as probable; wrong answers have 0.2 and 0.1, the true one in other words half of the answer's."""
    told = spoken([known] * N, [(0.2, 0.1)] * N, [known / 2] * N)
    return {"forget": told, "retain": told, "real_authors": told, "world_facts": told} | changed


def state(values: dict[str, Any] | Measured, name: str = "unlearned", **others: Measured) -> TofuState:
    found = values if isinstance(values, Measured) else measure(values, TruthRatio())
    return report({name: found, **others}, 200, 0).states[name]


def scattered(seed: int, shift: float = 0.0) -> Measured:
    rng = np.random.default_rng(seed)
    values = {name: rng.random(N) for name in measure(subjects(0.5), TruthRatio()).values}
    return Measured(values=values | {"forget/truth_ratio": rng.random(N) + shift})


def test_the_nine_parts_by_hand() -> None:
    parts = state(subjects(0.6)).utility.parts
    expected = {"probability": 0.6, "probability_with_options": 0.6 / 0.9, "rouge_l_recall": 1.0, "truth_ratio": 1 - 0.15 / 0.3}
    assert {part: score.value for part, score in parts.items()} == {part: pytest.approx(expected[part.split("/")[1]]) for part in PARTS}


def test_the_utility_is_the_harmonic_mean_of_the_parts_shown() -> None:
    utility = state(scattered(1)).utility
    assert utility.score is not None
    assert utility.score.value == pytest.approx(oracle.hmean([score.value for score in utility.parts.values()]))


def test_the_truth_ratio_of_the_forget_set_is_turned_towards_1() -> None:
    assert state(subjects(0.6)).forget["truth_ratio"].value == pytest.approx(0.5)  # R = 0.15 / 0.3
    assert state(subjects(0.1)).forget["truth_ratio"].value == pytest.approx(1 / 3)  # R = 0.15 / 0.05


def test_published_tables_take_the_geometric_mean_of_wrong_answers() -> None:
    found = measure(subjects(0.6), TruthRatio(mean="geometric")).values["forget/truth_ratio"]
    assert found == pytest.approx(np.sqrt(0.2 * 0.1) / 0.3)


def test_forget_quality_compares_raw_ratios_with_the_retrained_models() -> None:
    own, retrained = scattered(1, 0.4), scattered(2)
    found = state(own, retrained=retrained).quality
    expected = oracle.ks_2samp(own.values["forget/truth_ratio"], retrained.values["forget/truth_ratio"], method="exact")
    assert found is not None
    assert (found.p, found.statistic.value) == (pytest.approx(expected.pvalue), pytest.approx(expected.statistic))


def test_without_a_retrained_model_forget_quality_is_absent_and_says_so() -> None:
    found = state(scattered(1))
    assert found.quality is None
    assert "trained without the forget set" in found.absent["forget quality"]


def test_a_retrained_model_is_not_compared_with_itself() -> None:
    found = report({"unlearned": scattered(1), "retrained": scattered(2)}, 200, 0).states["retrained"]
    assert (found.quality, found.absent, dict(found.utility.drops)) == (None, {}, {})


def test_drops_are_against_the_original_where_it_is_given_else_the_retrained_one() -> None:
    own, original, retrained = scattered(1), scattered(2), scattered(3)
    whole = report({"unlearned": own, "retrained": retrained, "original": original}, 200, 0)
    assert (list(whole.states), whole.compared_with) == (["original", "unlearned", "retrained"], "original")
    assert report({"unlearned": own, "retrained": retrained}, 200, 0).compared_with == "retrained"
    drop = whole.states["unlearned"].utility.drops["retain/probability"].value
    assert drop == pytest.approx((own.values["retain/probability"] - original.values["retain/probability"]).mean())


def test_drops_of_the_truth_ratio_are_those_of_the_part_and_not_of_the_ratio() -> None:
    better, worse = measure(subjects(0.6), TruthRatio()), measure(subjects(0.1), TruthRatio())
    drops = state(worse, original=better).utility.drops
    assert drops["retain/truth_ratio"].value == pytest.approx(-0.5)  # from 1 - 0.15 / 0.3 to 0, not by 2.5


def test_without_wrong_answers_no_truth_ratio_is_made_up() -> None:
    found = state(subjects(0.6, retain=spoken([0.6] * N)))
    assert found.utility.score is None
    assert found.utility.missing == ("retain/truth_ratio",)
    assert "wrong answers" in found.absent["retain/truth_ratio"]
    assert "retain/truth_ratio" in found.absent["model utility"]


def test_a_missing_set_is_named_and_the_rest_is_measured() -> None:
    found = state({name: each for name, each in subjects(0.6).items() if name != "world_facts"})
    assert set(found.utility.missing) == {part for part in PARTS if part.startswith("world_facts")}
    assert found.absent["world_facts/truth_ratio"] == "the data do not have this set"
    assert set(found.forget) == {"probability", "rouge_l_recall", "truth_ratio", "exact_memorization", "extraction_strength"}


def test_records_that_lack_wrong_answers_stay_out_of_the_comparison_of_both_models() -> None:
    own, retrained = scattered(1), scattered(2)
    holes = own.values["forget/truth_ratio"].copy()
    holes[:10] = np.nan
    found = state(replace(own, values={**own.values, "forget/truth_ratio": holes}), retrained=retrained)
    assert found.quality is not None
    assert (found.quality.statistic.n, found.forget["truth_ratio"].n, found.forget["probability"].n) == (30, 30, 40)


def test_a_model_that_answers_with_what_is_no_number_is_refused() -> None:
    with pytest.raises(UnlearnError, match="40 of 40 values are not numbers"):
        measure(subjects(float("nan")), TruthRatio())


def test_states_asked_different_records_are_refused() -> None:
    cut = Measured(values={name: each[:10] for name, each in scattered(2).values.items()})
    with pytest.raises(ValueError, match="same records"):
        state(scattered(1), retrained=cut)
