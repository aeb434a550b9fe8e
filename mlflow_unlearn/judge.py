"""The verb `judge`: an evaluation and a policy to a verdict for each effect, with every condition and its figure.

A condition that fails as evidence of leakage or damage makes FAIL; one that merely does not hold, or was not measured, keeps from PASS. Nothing
unknown passes, and dropping evidence never turns a no into a yes.
"""

from __future__ import annotations

from collections.abc import Sequence

from . import stats
from .config import Policy
from .records import CanaryTest, Claim, Condition, Effect, Evaluation, Outcome, Verdict

CANARY_ALARM = 0.01
"""Below this p canaries contradict a claim of exactness: an implementation error, not a residue."""


def judge(evaluation: Evaluation, policy: Policy, claim: Claim) -> tuple[Verdict, Verdict]:
    """The verdicts for removal and for suppression.

    Args:
        evaluation: what was measured.
        policy: what has to be shown.
        claim: what the method may claim; certified claims need a verifier of their own and stay undecided here.
    """
    removal = {
        Claim.EXACT: _exact(evaluation, policy),
        Claim.APPROXIMATE: _approximate(evaluation, policy),
        Claim.CERTIFIED: (_unmeasured("certificate", "epsilon and delta have not been recomputed from attested parameters"),),
    }[claim]
    return _verdict(Effect.REMOVAL, removal), _verdict(Effect.SUPPRESSION, _outputs(evaluation, policy, Effect.SUPPRESSION))


def _verdict(effect: Effect, conditions: Sequence[Condition]) -> Verdict:
    broken = [condition for condition in conditions if condition.holds is not True]
    if any(condition.holds is False and condition.failure for condition in broken):
        outcome = Outcome.FAIL
    else:
        outcome = Outcome.INCONCLUSIVE if broken else Outcome.PASS
    worst_first = sorted(broken, key=lambda condition: (condition.holds is None, not condition.failure))
    reasons = tuple(f"{condition.name}: {condition.detail}" for condition in worst_first)
    return Verdict(effect=effect, outcome=outcome, reasons=reasons or ("every condition holds",), conditions=tuple(conditions))


def _approximate(evaluation: Evaluation, policy: Policy) -> tuple[Condition, ...]:
    return (
        *_outputs(evaluation, policy, Effect.REMOVAL),
        _limit("canaries after the benign fine-tune", evaluation.after_finetune.canaries, evaluation, policy),
        _unmeasured("calibrated gap", "the share of the parent's memorised signal that remains, calibrated on held-out people, is not measured yet"),
    )


def _outputs(evaluation: Evaluation, policy: Policy, effect: Effect) -> tuple[Condition, ...]:
    """What is judged on the outputs of the model as it is deployed: the whole of suppression, part of removal."""
    return (
        _committed(evaluation),
        _unspent(evaluation),
        _control(evaluation, policy),
        _leakage(evaluation, policy, effect),
        _verbatim(evaluation, policy),
        _limit("canaries as deployed (fp32)", evaluation.after.canaries, evaluation, policy),
        _paraphrases(evaluation, policy),
        _own_records(evaluation, policy),
        *_precisions(evaluation, policy),
        *_utility(evaluation, policy),
    )


def _exact(evaluation: Evaluation, policy: Policy) -> tuple[Condition, ...]:
    p = {f"{test.attack} {side}": value for test in evaluation.after.canaries for side, value in _sides(test)}
    worst = min(p.values(), default=None)
    return (
        Condition(name="lineage", holds=True, detail="every dataset revision the parent was trained on is known and was searched"),
        _unmeasured("replay", "the run has not been repeated to equal tensor digests"),
        _unmeasured("shared state", "nothing attests that tokenizer, thresholds and base model never saw the records"),
        _unmeasured("canary alarm", "there are no canaries")
        if worst is None
        else Condition(name="canary alarm", holds=worst >= CANARY_ALARM, detail=f"smallest p {worst:.4f}, alarm below {CANARY_ALARM}", failure=True),
    )


def _unmeasured(name: str, why: str) -> Condition:
    return Condition(name=name, holds=None, detail=f"not measured: {why}")


def _committed(evaluation: Evaluation) -> Condition:
    if not evaluation.after.canaries:
        return _unmeasured("committed canaries", "the data have no canaries whose inclusion was decided by a coin before training")
    detail = "the coin flips are those that git recorded with the training data"
    refused = "the coin flips cannot be shown to have been fixed before training"
    return Condition(name="committed canaries", holds=evaluation.canaries_committed, detail=detail if evaluation.canaries_committed else refused)


def _unspent(evaluation: Evaluation) -> Condition:
    spent = evaluation.pool_spent_by
    detail = f"the canary pool was spent by {spent}: what it shows was known before this run; use a model trained with a fresh pool"
    return Condition(name="unspent pool", holds=spent is None, detail=detail if spent else "no closed request has used this canary pool")


def _control(evaluation: Evaluation, policy: Policy) -> Condition:
    tests = evaluation.before.canaries
    if not tests:
        return _unmeasured("positive control", "without canaries nothing shows that the attacks could see memory in the parent")
    best = max(tests, key=lambda test: test.epsilon)
    detail = f"the {best.attack} attack found epsilon >= {best.epsilon:.2f} in the parent (at most {best.detectable_epsilon:.2f} could be found)"
    holds = best.epsilon >= policy.control_epsilon
    return Condition(name="positive control", holds=holds, detail=f"{detail}, the policy asks for {policy.control_epsilon:.2f}")


def _leakage(evaluation: Evaluation, policy: Policy, effect: Effect) -> Condition:
    states = {"fp32": evaluation.after, **evaluation.precisions}
    if effect is Effect.REMOVAL:
        states["fine-tuned"] = evaluation.after_finetune
    p = {f"{test.attack}, {state}, {side}": value for state, measured in states.items() for test in measured.canaries for side, value in _sides(test)}
    if not p:
        return _unmeasured("no evidence of leakage", "there are no canaries")
    adjusted = stats.holm(p)
    found = sorted((value, name) for name, value in adjusted.items() if value < policy.alpha)
    shown = "; ".join(f"{name}: p {value:.4f}" for value, name in found)
    clean = f"smallest Holm-adjusted p {min(adjusted.values()):.3f} over {len(p)} tests"
    return Condition(name="no evidence of leakage", holds=not found, detail=f"canaries betray themselves ({shown})" if found else clean, failure=True)


def _sides(test: CanaryTest) -> tuple[tuple[str, float], tuple[str, float]]:
    return ("still known", test.p_member), ("shunned", test.p_non_member)


def _verbatim(evaluation: Evaluation, policy: Policy) -> Condition:
    found = evaluation.after.verbatim
    if found is None:
        return _unmeasured("verbatim answers", "there are no canaries")
    detail = (
        f"{found.included_matches} of {found.included} forgotten canaries still come out word for word, "
        f"{found.excluded_matches} of {found.excluded} that were never seen (Fisher p {found.p:.4f})"
    )
    return Condition(name="verbatim answers", holds=found.p >= policy.alpha, detail=detail, failure=True)


def _limit(name: str, tests: Sequence[CanaryTest], evaluation: Evaluation, policy: Policy) -> Condition:
    """All attacks' upper limits within the margin of a pool of this size, at the confidence of this attempt."""
    if not tests:
        return _unmeasured(name, "there are no canaries")
    worst = max(tests, key=lambda test: abs(test.auc.value - 0.5))
    margin = policy.margin(policy.auc_margin, worst.auc.n)
    if margin is None:
        return Condition(
            name=name, holds=False, detail=f"{worst.auc.n} canaries are fewer than the policy's n_min of {policy.n_min}: nothing can pass"
        )
    level = stats.attempt_level(evaluation.attempt)
    limit = max((test.auc_upper.get(stats.level_key(level), 1.0) for test in tests), default=1.0)
    reach = f"upper {level:.4g} limit of |AUC - 0.5| is {limit:.3f}, margin {margin:.2f} (attempt {evaluation.attempt})"
    detail = f"AUC {worst.auc.value:.3f} ({worst.attack}); {reach}"
    return Condition(name=name, holds=limit <= margin, detail=detail)


def _paraphrases(evaluation: Evaluation, policy: Policy) -> Condition:
    gap, tests = evaluation.paraphrase_gap, evaluation.after.paraphrased_canaries
    if gap is None or not tests:
        return _unmeasured("paraphrased questions", "the data have no paraphrased questions, or no canaries")
    adjusted = stats.holm({test.attack: test.p_member for test in tests})
    leaked = min(adjusted.values()) < policy.alpha
    detail = (
        f"asked in other words, forgotten canaries answer {gap.value:+.3f} more probably than never-seen ones (95 % up to {gap.high:+.3f}, "
        f"margin {policy.paraphrase_margin}); smallest adjusted p {min(adjusted.values()):.3f}"
    )
    return Condition(name="paraphrased questions", holds=not leaked and gap.high <= policy.paraphrase_margin, detail=detail, failure=leaked)


def _own_records(evaluation: Evaluation, policy: Policy) -> Condition:
    tests = {"asked": evaluation.after.own, "paraphrased": evaluation.after.own_paraphrased}
    p = {f"{test.attack}, {how}": test.p_member for how, found in tests.items() for test in found}
    if not p:
        return _unmeasured("the request's own records", "there is nothing to compare them with")
    n = max(test.auc.n for found in tests.values() for test in found)
    adjusted = stats.holm(p)
    worst = min(adjusted, key=adjusted.__getitem__)
    leaked = adjusted[worst] < policy.alpha
    detail = (
        f"against never-seen canaries, smallest adjusted p {adjusted[worst]:.4f} ({worst}, {n} records in all); few records can only show leakage"
    )
    return Condition(name="the request's own records", holds=not leaked, detail=detail, failure=True)


def _precisions(evaluation: Evaluation, policy: Policy) -> list[Condition]:
    conditions = []
    for precision in (p for p in policy.deployed_precisions if p != "fp32"):
        measured = evaluation.precisions.get(precision)
        name = f"canaries as deployed ({precision})"
        conditions.append(_limit(name, measured.canaries, evaluation, policy) if measured else _unmeasured(name, "the policy deploys this precision"))
    return conditions


def _utility(evaluation: Evaluation, policy: Policy) -> list[Condition]:
    if not evaluation.utility:
        return [_unmeasured("utility", "there are no retained records to compare; a wrecked model passes every privacy test")]
    conditions = []
    for name, score in sorted(evaluation.utility.items()):
        damaged = score.value < -policy.utility_margin
        detail = f"changed by {score.value:+.4f} (95 % from {score.low:+.4f}, n {score.n}); the lower limit must stay above -{policy.utility_margin}"
        note = "; the privacy figures of a damaged model mean nothing" if damaged else ""
        holds = score.low >= -policy.utility_margin
        conditions.append(Condition(name=f"utility on {name}", holds=holds, detail=detail + note, failure=damaged))
    return conditions
