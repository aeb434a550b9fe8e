"""Laws of measuring and judging that no component and no evaluation may break."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from exact_evidence import made
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import KNOWN, UNKNOWN, SimulatedSubject, evaluation_of, subject

from mlflow_unlearn import catalog, stats
from mlflow_unlearn.documents import decode, encode
from mlflow_unlearn.judge import UTILITY, judge
from mlflow_unlearn.policy import Policy
from mlflow_unlearn.protocols import Shadows
from mlflow_unlearn.records import Claim, Direction, Evaluation, ModelReport, Outcome

POLICY = Policy()
OF_TEXTS = {"rouge_l_recall", "verbatim_memorization", "knowledge_memorization", "fluency"}
"""Metrics of what is written, where a model whose words are not numbers is refused before it writes."""
INTEGERS = st.lists(st.integers(-50, 50).map(float), min_size=1, max_size=20).map(np.array)
STATES = ("before", "after", "after_finetune")
LEVELS = ((UNKNOWN, UNKNOWN, KNOWN), (KNOWN, KNOWN, KNOWN), (UNKNOWN, 1.0, KNOWN), (UNKNOWN, UNKNOWN, UNKNOWN))
"""An honest retrain, one that forgot nothing, one whose memory returns, one that is wrecked."""
TESTS = ("canaries", "paraphrased_canaries", "own", "own_paraphrased")
PIECES = [
    *((state, kind, attack) for state in STATES for kind in TESTS for attack in ("loss", "min_k")),
    *((state, "verbatim", "") for state in STATES),
    *(("utility", name, "") for name in UTILITY),
    ("paraphrase_gap", "", ""),
    ("canaries_committed", "", ""),
]
"""Everything that evidence can lose."""


def without(evaluation: Evaluation, pieces: set[tuple[str, str, str]]) -> Evaluation:
    reports: dict[str, Any] = {state: thinned(state, getattr(evaluation, state), pieces) for state in STATES}
    kept = {name: score for name, score in evaluation.utility.items() if ("utility", name, "") not in pieces}
    gap = None if ("paraphrase_gap", "", "") in pieces else evaluation.paraphrase_gap
    return replace(evaluation, **reports, utility=kept, paraphrase_gap=gap, canaries_committed=("canaries_committed", "", "") not in pieces)


def thinned(state: str, report: ModelReport, pieces: set[tuple[str, str, str]]) -> ModelReport:
    tests: dict[str, Any] = {kind: tuple(t for t in getattr(report, kind) if (state, kind, t.attack) not in pieces) for kind in TESTS}
    return replace(report, verbatim=None if (state, "verbatim", "") in pieces else report.verbatim, **tests)


@settings(deadline=None)
@given(st.sampled_from(LEVELS), st.sets(st.sampled_from(PIECES)), st.sampled_from(Claim))
def test_dropping_evidence_never_turns_no_into_yes(levels: tuple[float, float, float], pieces: set[tuple[str, str, str]], claim: Claim) -> None:
    evaluation = evaluation_of(*levels)
    for whole, less in zip(judge(evaluation, POLICY, made(claim)), judge(without(evaluation, pieces), POLICY, made(claim)), strict=True):
        held = {found.name for found in whole.conditions if found.holds is True}
        assert {found.name for found in less.conditions if found.holds is True} <= held
        assert {found.name for found in less.conditions} == {found.name for found in whole.conditions}
        assert less.outcome is not Outcome.PASS or whole.outcome is Outcome.PASS


@pytest.mark.parametrize("piece", [piece for piece in PIECES if piece[0] != "before"], ids="-".join)  # one attack may show the control alone
def test_no_single_piece_of_evidence_about_the_child_can_be_spared(piece: tuple[str, str, str]) -> None:
    evaluation = evaluation_of(*LEVELS[0])
    whole, less = (judge(e, POLICY, made(Claim.APPROXIMATE))[0].conditions for e in (evaluation, without(evaluation, {piece})))
    assert sum(found.holds is True for found in less) < sum(found.holds is True for found in whole)


@settings(deadline=None)
@given(st.sampled_from(LEVELS), st.sampled_from(Claim))
def test_every_verdict_gives_every_reason_and_follows_from_its_conditions(levels: tuple[float, float, float], claim: Claim) -> None:
    for verdict in judge(evaluation_of(*levels), POLICY, made(claim)):
        missed = [found for found in verdict.conditions if found.holds is not True]
        assert (verdict.outcome is Outcome.PASS) == (not missed)
        assert (verdict.outcome is Outcome.FAIL) == any(found.holds is False and found.failure for found in missed)
        assert set(verdict.reasons) == {f"{found.name}: {found.detail}" for found in missed} or not missed


@pytest.mark.parametrize("levels", LEVELS)
def test_an_evaluation_comes_back_from_json_and_is_judged_alike(levels: tuple[float, float, float]) -> None:
    evaluation = evaluation_of(*levels)
    again = decode(Evaluation, json.loads(json.dumps(encode(evaluation), allow_nan=False)), "build/evaluation.json")
    assert judge(again, POLICY, made(Claim.APPROXIMATE)) == judge(evaluation, POLICY, made(Claim.APPROXIMATE))


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
def test_every_metric_builds_names_its_paper_and_tells_the_known_from_the_unknown_in_its_direction(name: str) -> None:
    metric = catalog.build("metrics", name, where="law")
    known, unknown = (metric.values(subject(20, knowledge, seed)) for seed, knowledge in enumerate((KNOWN, UNKNOWN)))
    assert known.shape == (20,)
    assert np.isfinite(known).all()
    assert (known.mean() < unknown.mean()) == (metric.direction is Direction.HIGHER)
    assert "Paper:" in (type(metric).__doc__ or "")


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in ("metrics", "attacks") for name in catalog.names(kind)])
def test_every_metric_and_attack_gives_a_record_the_same_value_in_any_company(kind: str, name: str) -> None:
    measure = catalog.build(kind, name, where="law")
    values_of = measure.values if kind == "metrics" else measure.suspicion
    seen, order = subject(9, 3.0, 5), np.array([4, 0, 8, 2, 6, 1, 3, 7, 5])
    np.testing.assert_allclose(values_of(reordered(seen, order)), values_of(seen)[order], rtol=1e-12)
    assert values_of(reordered(seen, order[:0])).shape == (0,)
    assert values_of(reordered(seen, order[:1])).shape == (1,)


@pytest.mark.parametrize("name", sorted({*catalog.names("metrics")} - OF_TEXTS))
def test_no_metric_of_tokens_hides_a_model_whose_words_are_not_numbers(name: str) -> None:
    seen = subject(3, KNOWN, 0)
    seen.token_log_probs[1][2] = np.nan
    seen.paraphrased_log_probs[1][2] = np.nan
    values = catalog.build("metrics", name, where="law").values(seen)
    assert np.isnan(values).tolist() == [False, True, False]


def reordered(seen: SimulatedSubject, order: np.ndarray) -> SimulatedSubject:
    shadows = seen.shadows
    fields = {name: [getattr(seen, name)[i] for i in order] for name in vars(seen) if name not in ("shadows", "gradient_norms")}
    taken = Shadows(confidences=shadows.confidences[:, order], trained_on=shadows.trained_on[:, order])
    return SimulatedSubject(**fields, shadows=taken, gradient_norms=seen.gradient_norms[order])
