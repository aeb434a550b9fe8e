"""Laws of measuring and judging that no component and no evaluation may break."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import KNOWN, UNKNOWN, evaluation_of, subject

from mlflow_unlearn import catalog, stats
from mlflow_unlearn.config import Policy
from mlflow_unlearn.documents import decode, encode
from mlflow_unlearn.judge import judge
from mlflow_unlearn.records import Claim, Evaluation, ModelReport, Outcome

POLICY = Policy()
INTEGERS = st.lists(st.integers(-50, 50).map(float), min_size=1, max_size=20).map(np.array)
STATES = ("before", "after", "after_finetune")
LEVELS = ((UNKNOWN, UNKNOWN, KNOWN), (KNOWN, KNOWN, KNOWN), (UNKNOWN, 1.0, KNOWN), (UNKNOWN, UNKNOWN, UNKNOWN))
"""An honest retrain, one that forgot nothing, one whose memory returns, one that is wrecked."""
EVALUATIONS = st.sampled_from(LEVELS).map(lambda levels: evaluation_of(*levels))
TESTS = ("canaries", "paraphrased_canaries", "own", "own_paraphrased")


@st.composite
def droppings(draw: st.DrawFn) -> tuple[Evaluation, Evaluation]:
    """An evaluation, and the same with some of its evidence gone."""
    whole = draw(EVALUATIONS)
    kept = [name for name in whole.utility if draw(st.booleans())]
    less: dict[str, Any] = {state: draw(thinned(getattr(whole, state))) for state in STATES if draw(st.booleans())}
    less |= {"utility": {name: whole.utility[name] for name in kept}}
    less |= {"paraphrase_gap": None} if draw(st.booleans()) else {}
    less |= {"canaries_committed": False} if draw(st.booleans()) else {}
    return whole, replace(whole, **less)


def thinned(report: ModelReport) -> st.SearchStrategy[ModelReport]:
    fewer = {name: st.sets(st.sampled_from(range(2))).map(lambda kept, name=name: pick(report, name, kept)) for name in TESTS}
    return st.builds(replace, st.just(report), verbatim=st.sampled_from([report.verbatim, None]), **fewer)


def pick(report: ModelReport, name: str, kept: set[int]) -> tuple[Any, ...]:
    return tuple(test for i, test in enumerate(getattr(report, name)) if i in kept)


@settings(deadline=None)
@given(droppings(), st.sampled_from(Claim))
def test_dropping_evidence_never_turns_no_into_yes(pair: tuple[Evaluation, Evaluation], claim: Claim) -> None:
    for whole, less in zip(*(judge(evaluation, POLICY, claim) for evaluation in pair), strict=True):
        held = {found.name for found in whole.conditions if found.holds is True}
        assert {found.name for found in less.conditions if found.holds is True} <= held
        assert {found.name for found in less.conditions} == {found.name for found in whole.conditions}
        assert less.outcome is not Outcome.PASS or whole.outcome is Outcome.PASS


@settings(deadline=None)
@given(EVALUATIONS, st.sampled_from(Claim))
def test_every_verdict_gives_every_reason_and_follows_from_its_conditions(evaluation: Evaluation, claim: Claim) -> None:
    for verdict in judge(evaluation, POLICY, claim):
        missed = [found for found in verdict.conditions if found.holds is not True]
        assert (verdict.outcome is Outcome.PASS) == (not missed)
        assert (verdict.outcome is Outcome.FAIL) == any(found.holds is False and found.failure for found in missed)
        assert set(verdict.reasons) == {f"{found.name}: {found.detail}" for found in missed} or not missed


@settings(deadline=None)
@given(EVALUATIONS)
def test_an_evaluation_comes_back_from_json_and_is_judged_alike(evaluation: Evaluation) -> None:
    again = decode(Evaluation, encode(evaluation), "build/evaluation.json")
    assert judge(again, POLICY, Claim.APPROXIMATE) == judge(evaluation, POLICY, Claim.APPROXIMATE)


@given(INTEGERS, INTEGERS, st.sampled_from([np.exp, np.cbrt, lambda x: 3 * x + 1]))
def test_an_area_does_not_change_under_monotone_maps(members: np.ndarray, others: np.ndarray, monotone: Any) -> None:
    assert stats.area(monotone(members), monotone(others)) == stats.area(members, others)
    assert stats.permutation_p(monotone(members), monotone(others), 9, 0) == stats.permutation_p(members, others, 9, 0)


@given(INTEGERS, INTEGERS)
def test_an_area_and_its_mirror_add_to_one(members: np.ndarray, others: np.ndarray) -> None:
    assert stats.area(members, others).value + stats.area(others, members).value == pytest.approx(1.0)


@given(INTEGERS, INTEGERS, st.floats(0.5, 0.999), st.floats(0.5, 0.999))
def test_an_upper_limit_grows_with_confidence_and_holds_the_value(members: np.ndarray, others: np.ndarray, a: float, b: float) -> None:
    area = stats.area(members, others)
    assert abs(area.value - 0.5) <= area.upper_limit(min(a, b)) <= area.upper_limit(max(a, b))


@given(st.dictionaries(st.integers(), st.floats(0, 1), min_size=1))
def test_holm_never_lowers_a_p_and_keeps_their_order(p: dict[int, float]) -> None:
    adjusted = stats.holm(p)
    assert all(p[name] <= adjusted[name] <= 1.0 for name in p)
    assert all(adjusted[a] <= adjusted[b] for a in p for b in p if p[a] <= p[b])


@pytest.mark.parametrize("name", catalog.names("metrics"))
def test_every_metric_builds_names_its_paper_and_says_more_of_the_known(name: str) -> None:
    metric = catalog.build("metrics", name, where="law")
    known, unknown = (metric.values(subject(20, knowledge, seed)) for seed, knowledge in enumerate((KNOWN, UNKNOWN)))
    assert known.shape == (20,)
    assert np.isfinite(known).all()
    assert known.mean() > unknown.mean()
    assert "Paper:" in (type(metric).__doc__ or "")
