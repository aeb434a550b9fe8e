"""Verdicts on simulated models: a leak fails, damage fails, an honest retrain passes what is measured, and the unknown passes nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from exact_evidence import made
from simulated import KNOWN, UNKNOWN, evaluation_of, honest, under

from mlflow_unlearn import evaluate, judge, leakage, stats
from mlflow_unlearn.documents import encode
from mlflow_unlearn.errors import ConfigError, TamperedError
from mlflow_unlearn.measurements import ModelReport, Probe, Verbatim
from mlflow_unlearn.params import OptimiserParams
from mlflow_unlearn.policy import Policy
from mlflow_unlearn.records import Claim, Condition, Evaluation, Outcome, Verdict

POLICY = Policy()
BENIGN = encode(OptimiserParams(epochs=3, learning_rate=1e-3))


def both(evaluation: Evaluation, policy: Policy = POLICY, claim: Claim = Claim.APPROXIMATE) -> tuple[Verdict, Verdict]:
    return judge.judge(evaluation if policy is POLICY else under(evaluation, policy), policy, made(claim))


def condition(verdict: Verdict, name: str) -> Condition:
    return next(found for found in verdict.conditions if found.name == name)


def broken(verdict: Verdict) -> list[str]:
    return [found.name for found in verdict.conditions if found.holds is not True]


def at_attempt(evaluation: Evaluation, attempt: int) -> Evaluation:
    return replace(evaluation, attempt=attempt)


def test_an_honest_retrain_passes_both_and_is_told_what_a_pass_is_not() -> None:
    for verdict in both(honest()):
        assert verdict.outcome is Outcome.PASS, verdict.reasons
        assert "every condition holds" in verdict.reasons[0]
        assert "not a proof of erasure" in verdict.reasons[0]


def test_what_remains_of_the_parents_memory_decides_removal_alone() -> None:
    gap = honest().after.gap
    assert gap is not None
    much = replace(gap, share_upper=dict.fromkeys(gap.share_upper, 0.2))
    removal, suppression = both(replace(honest(), after=replace(honest().after, gap=much)))
    assert (removal.outcome, suppression.outcome) == (Outcome.INCONCLUSIVE, Outcome.PASS)
    assert broken(removal) == ["calibrated gap (fp32)"]
    assert "at most 20.0%; margin 10%" in condition(removal, "calibrated gap (fp32)").detail


def test_a_gap_of_the_fine_tuned_state_counts_only_after_a_probe_as_strong_as_the_policys() -> None:
    weak = replace(honest(), settings={**honest().settings, "finetune": {**BENIGN, "epochs": 1}})
    assert condition(both(weak)[0], "calibrated gap (fine-tuned)").holds is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"policy": "0" * 64}, "not the one of the evaluation"),
        ({"first_policy": "0" * 64}, "changed after these canaries were first opened"),
        ({"first_policy": ""}, "not measured"),
    ],
)
@pytest.mark.parametrize("claim", [Claim.APPROXIMATE, Claim.EXACT])
def test_limits_chosen_after_looking_pass_nothing(change: dict[str, str], said: str, claim: Claim) -> None:
    for verdict in both(replace(honest(), **change), claim=claim):
        assert verdict.outcome is Outcome.INCONCLUSIVE
        assert said in condition(verdict, "policy fixed beforehand").detail


def probed(*, included: int, outputs_only: bool) -> Evaluation:
    """An honest retrain one of whose probes finds `included` of 400 forgotten canaries and none of the others."""
    found = Verbatim(included_matches=included, included=400, excluded_matches=0, excluded=400, p=stats.fisher_p(included, 400, 0, 400))
    return replace(honest(), after=replace(honest().after, probes={"sampled": Probe(verbatim=found, outputs_only=outputs_only)}))


def test_what_a_deeper_probe_brings_out_fails() -> None:
    for verdict in both(probed(included=40, outputs_only=True)):
        assert verdict.outcome is Outcome.FAIL
        assert "sampled: Fisher" in condition(verdict, leakage.PROBES).detail


def test_what_only_a_holder_of_the_weights_could_see_is_no_matter_of_suppression() -> None:
    removal, suppression = both(probed(included=40, outputs_only=False))
    assert (removal.outcome, suppression.outcome) == (Outcome.FAIL, Outcome.PASS)


def test_a_probe_that_was_asked_for_and_did_not_run_keeps_from_pass_unless_a_reason_is_given() -> None:
    asked = replace(probed(included=0, outputs_only=True), settings={**honest().settings, "probes": ["sampled", "combined"]})
    removal, _ = both(asked)
    assert "missing combined" in condition(removal, leakage.PROBES).detail
    told = replace(asked, after=replace(asked.after, absent={"combined": "the data have one record a person"}))
    assert both(told)[0].outcome is Outcome.PASS


def test_a_model_that_still_knows_fails_both_with_every_reason() -> None:
    for verdict in both(evaluation_of(KNOWN, KNOWN)):
        assert verdict.outcome is Outcome.FAIL
        failed = {found.name for found in verdict.conditions if found.holds is False}
        assert failed >= {judge.LEAKAGE, judge.VERBATIM, judge.OWN, judge.PARAPHRASED, "canaries as deployed (fp32)", "paraphrased questions, size"}
        assert len(verdict.reasons) == len(broken(verdict))


def test_what_returns_after_the_fine_tune_fails_removal_and_is_only_told_to_suppression() -> None:
    removal, suppression = both(evaluation_of(UNKNOWN, 1.0))
    assert removal.outcome is Outcome.FAIL
    assert suppression.outcome is Outcome.PASS
    assert "fine-tuned" in condition(removal, judge.LEAKAGE).detail
    assert "AUC after the benign fine-tune" in condition(suppression, "canaries as deployed (fp32)").detail


def test_what_is_shunned_fails_as_what_is_still_known_does() -> None:
    removal, suppression = both(evaluation_of(-2.0, -2.0))
    assert removal.outcome is suppression.outcome is Outcome.FAIL
    assert "shunned" in condition(suppression, judge.LEAKAGE).detail


def test_survivors_that_an_auc_misses_are_found_word_for_word() -> None:
    survivors = Verbatim(included_matches=45, included=211, excluded_matches=0, excluded=189, p=stats.fisher_p(45, 211, 0, 189))
    evaluation = replace(honest(), after=replace(honest().after, verbatim=survivors))
    for verdict in both(evaluation):
        assert verdict.outcome is Outcome.FAIL
        assert broken(verdict)[0] == judge.VERBATIM
        assert "45 of 211 forgotten canaries" in verdict.reasons[0]


def test_a_wrecked_model_fails_although_no_attack_sees_anything() -> None:
    for verdict in both(evaluation_of(UNKNOWN, UNKNOWN, kept=UNKNOWN)):
        assert verdict.outcome is Outcome.FAIL
        assert condition(verdict, judge.LEAKAGE).holds
        assert "privacy figures of a damaged model mean nothing" in condition(verdict, "utility on retain/exact_memorization").detail


def test_a_loss_that_could_be_chance_is_not_a_pass_and_not_a_fail() -> None:
    name = "retain/rouge_l_recall"
    score = replace(honest().utility[name], value=-0.01, low=-0.03)
    _, suppression = both(replace(honest(), utility={**honest().utility, name: score}))
    assert suppression.outcome is Outcome.INCONCLUSIVE
    assert broken(suppression) == [f"utility on {name}"]


def test_a_later_attempt_raises_the_limit_and_one_beyond_the_table_has_none() -> None:
    limits = [both(at_attempt(honest(), k))[1] for k in (1, 4, stats.ATTEMPTS + 1)]
    details = [condition(verdict, "canaries as deployed (fp32)") for verdict in limits]
    assert [float(found.detail.split("| is ")[1][:5]) for found in details[:2]] == sorted(honest_limits(1, 4))
    assert details[2].holds is None
    assert "fresh pool" in details[2].detail
    assert limits[2].outcome is Outcome.INCONCLUSIVE


def honest_limits(*attempts: int) -> list[float]:
    tests = honest().after.canaries
    return [round(max(test.auc_upper[stats.level_key(stats.attempt_level(k))] for test in tests), 3) for k in attempts]


def test_alpha_of_fail_does_not_shrink_with_attempts() -> None:
    leaks = evaluation_of(0.5, 0.5)
    assert {both(at_attempt(leaks, k))[1].outcome for k in (1, 2, 9)} == {Outcome.FAIL}


@pytest.mark.parametrize("attempt", [0, 3, 10, 100, 5000])
def test_no_attempt_number_loosens_a_limit(attempt: int) -> None:
    first, later = both(honest())[1], both(at_attempt(honest(), attempt))[1]
    assert set(broken(first)) <= set(broken(later))


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"pool_spent_by": "er-0"}, "unspent pool"),
        ({"canaries_committed": False}, "committed canaries"),
        ({"before": ModelReport(scores={})}, "positive control"),
        ({"paraphrase_gap": None}, "paraphrased questions, size"),
        ({"settings": {}}, judge.LEAKAGE),
        ({"settings": {"permutations": 100}}, judge.LEAKAGE),
        ({"settings": {"permutations": 1000, "attacks": ["loss", "min_k", "zlib"]}}, "canaries as deployed (fp32)"),
        ({"utility": {}}, "neighbouring questions (neighbours/exact_memorization)"),
    ],
)
def test_what_is_spent_uncommitted_or_unmeasured_makes_inconclusive(change: dict[str, object], name: str) -> None:
    _, suppression = both(replace(honest(), **change))
    assert suppression.outcome is Outcome.INCONCLUSIVE
    assert name in broken(suppression)


def test_a_parent_in_which_nothing_could_be_seen_is_no_control() -> None:
    _, suppression = both(replace(honest(), before=honest().after))
    assert suppression.outcome is Outcome.INCONCLUSIVE
    assert broken(suppression)[0] == "positive control"


def test_an_evaluation_without_anything_is_inconclusive_and_says_so_everywhere() -> None:
    nothing = ModelReport(scores={})
    bare = replace(honest(), before=nothing, after=nothing, after_finetune=nothing, utility={}, paraphrase_gap=None, settings={})
    for verdict in both(bare):
        assert verdict.outcome is Outcome.INCONCLUSIVE
        assert {found.name for found in verdict.conditions if found.holds} == {"unspent pool", "policy fixed beforehand"}


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_a_deployed_precision_must_be_measured_and_may_fail(precision: str) -> None:
    policy = replace(POLICY, deployed_precisions=("fp32", precision))
    name = f"canaries as deployed ({precision})"
    assert condition(both(honest(), policy)[1], name).holds is None
    good, bad = (replace(honest(), precisions={precision: e.after}) for e in (honest(), evaluation_of(KNOWN, KNOWN)))
    assert both(good, policy)[1].outcome is Outcome.PASS
    assert both(bad, policy)[1].outcome is Outcome.FAIL
    assert both(bad)[1].outcome is Outcome.PASS


def test_a_pool_below_n_min_passes_nothing_and_a_wide_limit_says_how_many_would_do() -> None:
    few = both(honest(), replace(POLICY, n_min=1000))[1]
    assert few.outcome is Outcome.INCONCLUSIVE
    assert "fewer than the policy's n_min" in few.reasons[0]
    tight = both(honest(), replace(POLICY, auc_margin={"400": 0.03}))[1]
    assert tight.outcome is Outcome.INCONCLUSIVE
    assert "canaries would show it" in tight.reasons[0]


def test_a_retraining_of_which_no_shard_kept_a_log_waits_for_one_and_for_its_replay() -> None:
    removal, _ = both(honest(), claim=Claim.EXACT)
    assert removal.outcome is Outcome.INCONCLUSIVE
    assert broken(removal) == ["forgotten records", "untouched shards", "replay", "shared state"]
    unknown = replace(honest(), parent=replace(honest().parent, datasets=()))
    assert broken(both(unknown, claim=Claim.EXACT)[0])[0] == "lineage"


@pytest.mark.parametrize("field", ["unlearned", "split_digest"])
@pytest.mark.parametrize("claim", Claim)
def test_an_evaluation_of_another_run_is_refused(field: str, claim: Claim) -> None:
    with pytest.raises(TamperedError, match="run `dvc repro`"):
        both(replace(honest(), **{field: "0" * 64}), claim=claim)


def test_a_certified_claim_stays_undecided_until_it_is_recomputed() -> None:
    removal, _ = both(honest(), claim=Claim.CERTIFIED)
    assert removal.outcome is Outcome.INCONCLUSIVE
    assert broken(removal) == ["certificate"]


def test_judge_asks_for_exactly_what_evaluate_measures() -> None:
    assert set(judge.UTILITY) == {f"{name}/{metric}" for name in evaluate.UTILITY_SETS for metric in evaluate.UTILITY_METRICS}


@pytest.mark.parametrize(
    "weak",
    [
        {**BENIGN, "epochs": 1},
        {**BENIGN, "learning_rate": 1e-9},
        {},
        {**BENIGN, "max_grad_norm": 1e-30},
        {**BENIGN, "warmup_fraction": 1.0},
        {**BENIGN, "batch_size": 10**5},
        {**BENIGN, "weight_decay": 1.0},
    ],
)
def test_a_fine_tune_weaker_than_the_policy_shows_nothing(weak: dict[str, float]) -> None:
    evaluation = honest()
    removal, suppression = both(replace(evaluation, settings={**evaluation.settings, "finetune": weak}))
    assert any(reason.startswith(f"{judge.PROBE}: not measured") for reason in removal.reasons)
    assert not any(reason.startswith(judge.PROBE) for reason in suppression.reasons)


def test_a_fine_tune_that_wrecks_the_model_shows_nothing_by_not_bringing_anything_back() -> None:
    removal, suppression = both(replace(honest(), after_finetune=evaluation_of(UNKNOWN, UNKNOWN, kept=UNKNOWN).after))
    assert removal.outcome is Outcome.INCONCLUSIVE
    assert "what a wrecked state hides says nothing" in condition(removal, judge.PROBE).detail
    assert condition(removal, "calibrated gap (fine-tuned)").holds is None
    assert suppression.outcome is Outcome.PASS


def test_a_rounded_model_that_is_wrecked_is_not_one_that_forgot() -> None:
    policy = replace(POLICY, deployed_precisions=("fp32", "int4"))
    wrecked = evaluation_of(UNKNOWN, UNKNOWN, kept=UNKNOWN).after
    for verdict in both(replace(honest(), precisions={"int4": replace(wrecked, gap=honest().after.gap)}), policy):
        assert verdict.outcome is Outcome.INCONCLUSIVE
        assert condition(verdict, "canaries as deployed (int4)").holds is None


def test_paraphrases_that_the_parent_does_not_know_either_prove_nothing() -> None:
    evaluation = honest()
    deaf = replace(evaluation, before=replace(evaluation.before, paraphrased_canaries=evaluation.after.paraphrased_canaries))
    for verdict in both(deaf):
        assert verdict.outcome is Outcome.INCONCLUSIVE
        assert broken(verdict) == [judge.PARAPHRASED, "paraphrased questions, size"]


def test_an_attack_that_the_policy_asks_for_may_not_be_left_out() -> None:
    for verdict in both(honest(), replace(POLICY, attacks=("loss", "min_k", "zlib"))):
        assert verdict.outcome is Outcome.INCONCLUSIVE


def test_one_record_of_the_request_that_stands_out_by_itself_keeps_from_pass_without_failing() -> None:
    evaluation = honest()
    own = tuple(replace(test, p_member=0.004) for test in evaluation.after.own)
    for verdict in both(replace(evaluation, after=replace(evaluation.after, own=own))):
        assert verdict.outcome is Outcome.INCONCLUSIVE
        assert "not enough of" in condition(verdict, judge.OWN).detail


def test_probes_that_a_deep_audit_does_not_name_were_not_run() -> None:
    removal, _ = both(replace(honest(), settings={**honest().settings, "audit": "deep"}))
    assert condition(removal, leakage.PROBES).holds is None


@pytest.mark.parametrize(
    "wrong",
    [{"auc_margin": {"0400": 0.1}}, {"auc_margin": {"400": 9.0}}, {"alpha": 2.0}, {"n_min": -5}, {"control_epsilon": -1.0}, {"utility_margin": -0.1}],
)
def test_a_policy_out_of_range_is_refused_by_name(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"policy.yaml: {next(iter(wrong))}"):
        Policy(**wrong)  # type: ignore[arg-type]
