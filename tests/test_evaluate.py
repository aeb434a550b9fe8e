"""What evaluate says about simulated models, and what it keeps silent about."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
from exact_evidence import made
from simulated import KNOWN, MEASURES, UNKNOWN, SimulatedSubject, drawn, honest, model, subject

from mlflow_unlearn.errors import UnlearnError, UnmeasurableError
from mlflow_unlearn.evaluate import KEPT, UTILITY_METRICS, UTILITY_SETS, paraphrase_gap, remaining, report, utility, verbatim_hits
from mlflow_unlearn.figures import figures
from mlflow_unlearn.judge import judge
from mlflow_unlearn.measurements import Direction
from mlflow_unlearn.policy import Policy
from mlflow_unlearn.protocols import Subject
from mlflow_unlearn.records import Claim, Evaluation, Outcome


@pytest.fixture(scope="module")
def retrained() -> Evaluation:
    return honest()


def test_every_set_has_every_metric_with_an_interval_around_its_value(retrained: Evaluation) -> None:
    for scores in retrained.after.scores.values():
        assert set(scores) == {*MEASURES.metrics, "exact_match"}
        assert all(score.low <= score.value <= score.high and score.n > 0 for score in scores.values())


def test_more_is_better_on_what_stays_and_worse_on_what_goes(retrained: Evaluation) -> None:
    directions = {name: {score.direction for score in scores.values()} for name, scores in retrained.after.scores.items()}
    assert all(directions[name] == {Direction.HIGHER if name in KEPT else Direction.LOWER} for name in directions)


def test_the_parent_betrays_its_canaries_and_a_retrain_does_not(retrained: Evaluation) -> None:
    for before, after in zip(retrained.before.canaries, retrained.after.canaries, strict=True):
        assert before.auc.value == 1.0
        assert before.epsilon == pytest.approx(before.detectable_epsilon)
        assert before.epsilon > 2.0
        assert after.auc.low < 0.5 < after.auc.high
        assert after.epsilon == 0.0


def test_own_records_are_compared_with_never_seen_canaries(retrained: Evaluation) -> None:
    assert {test.auc.n for test in (*retrained.before.own, *retrained.before.own_paraphrased)} == {15 + 400}
    assert all(test.p_member < 0.01 < 0.02 < after.p_member for test, after in zip(retrained.before.own, retrained.after.own, strict=True))


def test_verbatim_counts_whole_answers_to_their_end_token(retrained: Evaluation) -> None:
    hits = [np.array(row, dtype=bool) for row in ([1, 1, 1], [1, 1, 0], [0, 1, 1])]
    assert verbatim_hits(SimulatedSubject(token_hits=hits)).tolist() == [True, False, False]
    found = retrained.before.verbatim
    assert found is not None
    assert found.included_matches > 390
    assert found.excluded_matches == 0
    assert found.p < 1e-6


def test_utility_is_the_paired_difference_on_each_set_that_must_stay(retrained: Evaluation) -> None:
    assert set(retrained.utility) == {f"{name}/{metric}" for name in UTILITY_SETS for metric in UTILITY_METRICS}
    before, after = (model(forgotten=UNKNOWN, kept=kept, seed=seed) for kept, seed in ((KNOWN, 1), (2.0, 2)))
    hits = [np.array([row.mean() for row in state["retain"].token_hits]) for state in (before, after)]
    score = utility(before, after, MEASURES)["retain/exact_memorization"]
    assert score.value == pytest.approx((hits[1] - hits[0]).mean())
    assert score.high < -0.1


def test_the_paraphrase_gap_is_the_difference_of_mean_probabilities() -> None:
    state = model(forgotten=KNOWN, seed=1)
    mean = {name: MEASURES.metrics["probability"].values(state[f"audit_{name}_paraphrased"]).mean() for name in ("included", "excluded")}
    gap = paraphrase_gap(state, MEASURES)
    assert gap is not None
    assert gap.low <= gap.value <= gap.high
    assert gap.value == pytest.approx(mean["included"] - mean["excluded"])
    assert gap.n == 800


@pytest.mark.parametrize("empty", [{}, {"requested": SimulatedSubject(), "retain": SimulatedSubject(), "audit_included": SimulatedSubject()}])
def test_of_missing_and_empty_sets_nothing_is_said(empty: dict[str, SimulatedSubject]) -> None:
    found = report(empty, MEASURES)
    assert not found.scores
    assert not found.canaries
    assert not found.own
    assert found.verbatim is None
    assert utility(empty, empty, MEASURES) == {}
    assert paraphrase_gap(empty, MEASURES) is None


def test_a_single_record_is_measured() -> None:
    found = report({"requested": subject(1, KNOWN, 0), "audit_excluded": subject(1, UNKNOWN, 1)}, MEASURES)
    assert found.own[0].auc.n == 2
    assert found.scores["requested"]["exact_match"].n == 1


def test_a_diverged_model_is_refused_in_words_and_without_its_records() -> None:
    broken = replace(subject(3, KNOWN, 0), token_log_probs=[np.array([-1.0]), np.array([np.nan]), np.array([-1.0])])
    with pytest.raises(UnlearnError, match=r"probability on retain: 1 of 3 values are not numbers; .* lower unlearn.optimiser.learning_rate"):
        report({"retain": broken}, MEASURES)
    with pytest.raises(UnlearnError, match="log-probabilities on audit_excluded: 1 of 3"):
        report({"requested": subject(3, UNKNOWN, 1), "audit_excluded": broken}, replace(MEASURES, metrics={}))


def test_equal_seeds_give_equal_evaluations() -> None:
    again = drawn(UNKNOWN, UNKNOWN)
    assert again == honest()


@dataclass(frozen=True, kw_only=True)
class LongAnswers:
    """A metric that says something of answers of more than one word only."""

    direction: ClassVar[Direction] = Direction.LOWER
    lacking: ClassVar[str] = "a second word"

    def defined(self, subject: Subject) -> np.ndarray:
        return np.array([" " in answer for answer in subject.answers])

    def values(self, subject: Subject) -> np.ndarray:
        return np.array([float(len(answer)) if " " in answer else np.nan for answer in subject.answers])


@dataclass(frozen=True, kw_only=True)
class NeedsReference:
    def suspicion(self, subject: Subject) -> np.ndarray:
        raise UnmeasurableError("no reference model was named")


def mixed(answers: list[str]) -> SimulatedSubject:
    known = subject(len(answers), KNOWN, 3)
    return replace(known, answers=answers)


def test_a_metric_that_only_some_records_have_is_the_mean_of_those_and_says_how_many() -> None:
    found = report({"requested": mixed(["a b", "c", "d e f"])}, replace(MEASURES, metrics={"long": LongAnswers()}))
    assert (found.scores["requested"]["long"].value, found.scores["requested"]["long"].n) == (4.0, 2)
    assert found.absent == {}


def test_a_metric_that_no_record_has_is_absent_by_name_and_no_number() -> None:
    found = report({"requested": mixed(["a", "c"])}, replace(MEASURES, metrics={"long": LongAnswers()}))
    assert "long" not in found.scores["requested"]
    assert found.absent == {"requested/long": "no record of requested has a second word"}


def test_an_attack_without_what_it_compares_with_is_absent_by_name_and_keeps_from_pass() -> None:
    states = model(forgotten=UNKNOWN, seed=2)
    found = report(states, replace(MEASURES, attacks={**MEASURES.attacks, "reference": NeedsReference()}))
    assert {test.attack for test in found.canaries} == {"loss", "min_k"}
    assert found.absent["audit_included/reference"] == "no reference model was named"
    evaluation = replace(honest(), after=found, settings={**honest().settings, "attacks": ["loss", "min_k", "reference"]})
    removal, suppression = judge(evaluation, Policy(), made(Claim.APPROXIMATE))
    assert removal.outcome is suppression.outcome is Outcome.INCONCLUSIVE


def test_what_remains_is_all_in_the_parent_and_nothing_in_a_retrain() -> None:
    before, after = model(forgotten=KNOWN, seed=1), model(forgotten=UNKNOWN, seed=2)
    whole, nothing = remaining(before, before, {}), remaining(before, after, {})
    assert whole is not None
    assert nothing is not None
    assert whole.share.value == pytest.approx(1.0)
    assert abs(nothing.share.value) < 0.1
    assert remaining(before, {"retain": after["retain"]}, {}) is None


def test_figures_name_the_state_and_show_what_remains(retrained: Evaluation) -> None:
    named = figures(replace(retrained, precisions={"int4": retrained.after}))
    assert retrained.after.gap is not None
    assert named["canaries/remains"] == named["int4/canaries/remains"] == retrained.after.gap.share.value
    assert named["before/canaries/loss_auc"] == 1.0
    assert named["forget/exact_memorization"] == retrained.after.scores["requested"]["exact_memorization"].value
    assert "before/forget/exact_memorization" not in named
