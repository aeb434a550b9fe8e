"""The verb `judge`: an evaluation and a policy to a verdict for each effect, with every condition and its figure.

A condition that fails as evidence of leakage or damage makes FAIL; one that merely does not hold, or was not measured, keeps from PASS. Nothing
unknown passes, and dropping evidence never turns a no into a yes: whatever is named in the settings, measured on another state of the model, or
asked by the policy must be there. All p-values that can make FAIL share the policy's alpha by one Holm correction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from . import stats
from .policy import Policy
from .records import CanaryTest, Claim, Condition, Effect, Evaluation, ModelReport, Outcome, Score, Verdict

CANARY_ALARM = 0.01
"""Holm-adjusted p below which canaries contradict a claim of exactness: an implementation error, not a residue."""
FINE_TUNED, PROBE = "fine-tuned", "canaries after the benign fine-tune"
UTILITY = tuple(f"{name}/{metric}" for name in ("retain", "neighbours", "general") for metric in ("exact_memorization", "rouge_l_recall"))
"""Every one of these must be measured; others are judged when they are there."""
LEAKAGE, VERBATIM, PARAPHRASED, OWN = "no evidence of leakage", "verbatim answers", "paraphrased questions", "the request's own records"


def judge(evaluation: Evaluation, policy: Policy, claim: Claim) -> tuple[Verdict, Verdict]:
    """The verdicts for removal and for suppression; certified claims need a verifier of their own and stay undecided here."""
    removal = {Claim.EXACT: _exact, Claim.APPROXIMATE: _approximate, Claim.CERTIFIED: _certified}[claim](evaluation, policy)
    return _verdict(Effect.REMOVAL, removal), _verdict(Effect.SUPPRESSION, _outputs(evaluation, policy, Effect.SUPPRESSION))


def _verdict(effect: Effect, conditions: Sequence[Condition]) -> Verdict:
    broken = [condition for condition in conditions if condition.holds is not True]
    if any(condition.holds is False and condition.failure for condition in broken):
        outcome = Outcome.FAIL
    else:
        outcome = Outcome.INCONCLUSIVE if broken else Outcome.PASS
    worst_first = sorted(broken, key=lambda condition: (condition.holds is None, not condition.failure))
    reasons = tuple(f"{condition.name}: {condition.detail}" for condition in worst_first)
    return Verdict(effect=effect, outcome=outcome, reasons=reasons or (_passed(conditions),), conditions=tuple(conditions))


def _passed(conditions: Sequence[Condition]) -> str:
    limits = "; ".join(f"{c.name}: {c.detail}" for c in conditions if c.name.startswith("canaries"))
    return f"every condition holds; {limits}. This is what these attacks could see, not a proof of erasure"


def _approximate(evaluation: Evaluation, policy: Policy) -> tuple[Condition, ...]:
    return (
        *_outputs(evaluation, policy, Effect.REMOVAL),
        _probe(evaluation, policy) or _limit(PROBE, evaluation.after_finetune, evaluation, policy),
        _unmeasured("calibrated gap", "the share of the parent's memorised signal that remains, calibrated on held-out people, is not measured yet"),
    )


def _probe(evaluation: Evaluation, policy: Policy) -> Condition | None:
    """A fine-tune weaker than the policy's shows nothing by not bringing anything back."""
    ran: Any = evaluation.settings.get("finetune") or {}
    epochs, rate = ran.get("epochs", 0), ran.get("learning_rate", 0.0)
    if epochs >= policy.finetune_epochs and rate >= policy.finetune_learning_rate:
        return None
    return _unmeasured(PROBE, f"it ran {epochs} epochs at {rate:g}, the policy asks {policy.finetune_epochs} at {policy.finetune_learning_rate:g}")


def _certified(evaluation: Evaluation, policy: Policy) -> tuple[Condition, ...]:
    return (_unmeasured("certificate", "epsilon and delta have not been recomputed from attested parameters"),)


def _outputs(evaluation: Evaluation, policy: Policy, effect: Effect) -> tuple[Condition, ...]:
    """What is judged on the outputs of the model as it is deployed: the whole of suppression, part of removal."""
    evidence, counts = _Evidence.of(evaluation, policy, effect), _verbatim(evaluation)
    note = "" if effect is Effect.REMOVAL else _fine_tuned(evaluation)
    deployed = _states(evaluation, policy, Effect.SUPPRESSION).items()
    return (
        _committed(evaluation),
        _unspent(evaluation),
        _control(evaluation, policy),
        evidence.condition(LEAKAGE, "smallest adjusted p over {states}: {p}", "canaries betray themselves"),
        evidence.condition(VERBATIM, counts + ", smallest adjusted p {p}", counts),
        *(_limit(f"canaries as deployed ({state})", report, evaluation, policy, note) for state, report in deployed),
        evidence.condition(PARAPHRASED, "smallest adjusted p over {states}: {p}", "asked in other words, canaries betray themselves"),
        _gap(evaluation, policy),
        evidence.condition(OWN, "smallest adjusted p against never-seen canaries {p}; few records can only show leakage", "still known"),
        *_utility(evaluation, policy),
    )


def _exact(evaluation: Evaluation, policy: Policy) -> tuple[Condition, ...]:
    searched = Condition(name="lineage", holds=True, detail="every dataset revision the parent was trained on is known and was searched")
    return (
        searched if evaluation.parent.datasets else _unmeasured("lineage", "no dataset revision of the parent is known"),
        _unmeasured("replay", "the run has not been repeated to equal tensor digests; repeat it with the same seed on the same device"),
        _unmeasured("shared state", "nothing attests that tokenizer, thresholds and base model never saw the records"),
        _alarm(evaluation),
    )


def _alarm(evaluation: Evaluation) -> Condition:
    name, tests = "canary alarm", evaluation.after.canaries
    p = {(test.attack, side): value for test in tests for side, value in _sides(test)}
    if not p:
        return _unmeasured(name, "there are no canaries")
    worst = min(stats.holm(p).values())
    detail = f"smallest adjusted p {worst:.4f}, alarm below {CANARY_ALARM}"
    if worst < CANARY_ALARM:
        return Condition(name=name, holds=False, detail=f"{detail}: the run cannot have been exact; look for an error in it", failure=True)
    if absent := _attacks(evaluation) - {test.attack for test in tests}:
        return _unmeasured(name, f"no {', '.join(sorted(absent))} attack on the canaries")
    if too_few := _too_few_permutations(evaluation, len(p), CANARY_ALARM):
        return _unmeasured(name, too_few)
    return Condition(name=name, holds=True, detail=detail, failure=True)


@dataclass(frozen=True, kw_only=True)
class _Evidence:
    """Every p-value that can make FAIL, adjusted as one family, and what ought to be there but is not."""

    adjusted: dict[tuple[str, str], float]
    absent: dict[str, tuple[str, ...]]
    """Condition -> what was not measured."""
    states: tuple[str, ...]
    alpha: float
    too_few: str

    @classmethod
    def of(cls, evaluation: Evaluation, policy: Policy, effect: Effect) -> _Evidence:
        states = _states(evaluation, policy, effect)
        attacks, p, absent = _attacks(evaluation), {}, {}
        for name in (LEAKAGE, VERBATIM, PARAPHRASED, OWN):
            found = {(state, label): value for state, report in states.items() for label, value in _p_values(name, report).items()}
            p.update({(name, f"{label}, {state}"): value for (state, label), value in found.items()})
            expected = {(state, label) for state in states for label in _expected(name, attacks)}
            absent[name] = tuple(sorted(f"{label}, {state}" for state, label in expected - set(found)))
        too_few = _too_few_permutations(evaluation, len(p), policy.alpha)
        return cls(adjusted=stats.holm(p), absent=absent, states=tuple(states), alpha=policy.alpha, too_few=too_few)

    def condition(self, name: str, clean: str, betrayed: str) -> Condition:
        """One condition: FAIL on an adjusted p below alpha; unmeasured where something is missing or chance was asked too seldom."""
        p = {label: value for (group, label), value in self.adjusted.items() if group == name}
        found = sorted((value, label) for label, value in p.items() if value < self.alpha)
        if found:
            shown = "; ".join(f"{label}: p {value:.4f}" for value, label in found)
            return Condition(name=name, holds=False, detail=f"{betrayed} ({shown}; adjusted over {len(self.adjusted)} tests)", failure=True)
        if not p:
            return _unmeasured(name, "there are no canaries, or no such questions, to compare")
        if self.absent[name] or self.too_few:
            return _unmeasured(name, f"missing {'; '.join(self.absent[name])}" if self.absent[name] else self.too_few)
        detail = clean.format(states=", ".join(self.states), p=f"{min(p.values()):.3f}")
        return Condition(name=name, holds=True, detail=detail, failure=True)


def _states(evaluation: Evaluation, policy: Policy, effect: Effect) -> dict[str, ModelReport]:
    """The states that must not leak: as deployed, and for removal after the fine-tune too. A precision without a report has nothing."""
    states = {"fp32": evaluation.after}
    states |= {name: evaluation.precisions.get(name, ModelReport(scores={})) for name in policy.deployed_precisions if name != "fp32"}
    return states | ({FINE_TUNED: evaluation.after_finetune} if effect is Effect.REMOVAL else {})


def _p_values(name: str, report: ModelReport) -> dict[str, float]:
    if name == VERBATIM:
        return {} if report.verbatim is None else {"Fisher": report.verbatim.p}
    if name == OWN:  # no coin chose these records: to be harder than the canaries is no sign of being shunned
        return {f"{how}{test.attack}": test.p_member for how, tests in (("", report.own), ("paraphrased ", report.own_paraphrased)) for test in tests}
    tests = report.canaries if name == LEAKAGE else report.paraphrased_canaries
    return {f"{test.attack}, {side}": value for test in tests for side, value in _sides(test)}


def _expected(name: str, attacks: set[str]) -> set[str]:
    if name == VERBATIM:
        return {"Fisher"}
    if name == OWN:
        return {f"{how}{attack}" for attack in attacks for how in ("", "paraphrased ")}
    return {f"{attack}, {side}" for attack in attacks for side in ("still known", "shunned")}


def _attacks(evaluation: Evaluation) -> set[str]:
    """Every attack that the settings name or that was run on any state: none may be left out on another."""
    named = evaluation.settings.get("attacks", ())
    reports = (evaluation.before, evaluation.after, evaluation.after_finetune, *evaluation.precisions.values())
    run = {test.attack for report in reports for test in (*report.canaries, *report.paraphrased_canaries, *report.own, *report.own_paraphrased)}
    return run | {str(name) for name in named} if isinstance(named, (list, tuple)) else run


def _too_few_permutations(evaluation: Evaluation, tests: int, alpha: float) -> str:
    """Why no leak could have been found; empty when one could: the smallest permutation p must survive Holm."""
    drawn = evaluation.settings.get("permutations")
    if not isinstance(drawn, int):
        return "how often chance was asked (evaluate.permutations) is not recorded"
    if tests / (1 + drawn) < alpha:
        return ""
    return f"with {drawn} permutations no p over {tests} tests can fall below {alpha}; set evaluate.permutations to {math.ceil(2 * tests / alpha)}"


def _sides(test: CanaryTest) -> tuple[tuple[str, float], tuple[str, float]]:
    return ("still known", test.p_member), ("shunned", test.p_non_member)


def _unmeasured(name: str, why: str) -> Condition:
    return Condition(name=name, holds=None, detail=f"not measured: {why}")


def _committed(evaluation: Evaluation) -> Condition:
    if not evaluation.after.canaries:
        return _unmeasured("committed canaries", "the data have no canaries whose inclusion was decided by a coin before training")
    if evaluation.canaries_committed:
        return Condition(name="committed canaries", holds=True, detail="the coin flips are those that git recorded with the training data")
    refused = "the coin flips cannot be shown to have been fixed before training; commit commitment.json with the data and train on it"
    return Condition(name="committed canaries", holds=False, detail=refused)


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


def _verbatim(evaluation: Evaluation) -> str:
    found = evaluation.after.verbatim
    if found is None:
        return "no canary was compared word for word"
    forgotten, unseen = f"{found.included_matches} of {found.included}", f"{found.excluded_matches} of {found.excluded}"
    return f"{forgotten} forgotten canaries still come out word for word, {unseen} that were never seen"


def _fine_tuned(evaluation: Evaluation) -> str:
    shown = ", ".join(f"{test.auc.value:.3f} ({test.attack})" for test in evaluation.after_finetune.canaries)
    return f"; AUC after the benign fine-tune {shown or 'not measured'}, reported and not decisive here"


def _limit(name: str, report: ModelReport, evaluation: Evaluation, policy: Policy, note: str = "") -> Condition:
    """All attacks' upper limits within the margin of a pool of this size, at the confidence of this attempt."""
    tests, level = report.canaries, stats.attempt_level(evaluation.attempt)
    if absent := _attacks(evaluation) - {test.attack for test in tests}:
        return _unmeasured(name, f"no {', '.join(sorted(absent))} attack on the canaries")
    if not tests:
        return _unmeasured(name, "there are no canaries")
    n = min(test.auc.n for test in tests)
    margin = policy.margin(policy.auc_margin, n)
    if margin is None:
        return Condition(name=name, holds=False, detail=f"{n} canaries are fewer than the policy's n_min of {policy.n_min}: nothing can pass")
    limits = [(test.auc_upper.get(stats.level_key(level)), test) for test in tests]
    known = [(limit, test) for limit, test in limits if limit is not None]
    if len(known) < len(limits):
        return _unmeasured(name, f"attempt {evaluation.attempt} has no limit; use a model trained with a fresh pool")
    limit, worst = max(known, key=lambda pair: pair[0])
    reach = f"upper {level:.4g} limit of |AUC - 0.5| is {limit:.3f}, margin {margin:.2f} (attempt {evaluation.attempt})"
    way_out = "" if limit <= margin else _way_out(worst, limit, margin)
    return Condition(name=name, holds=limit <= margin, detail=f"AUC {worst.auc.value:.3f} ({worst.attack}, {n} canaries); {reach}{way_out}{note}")


def _way_out(test: CanaryTest, limit: float, margin: float) -> str:
    """What would bring a limit within a margin: the error of an AUC shrinks with the root of the pool."""
    away = abs(test.auc.value - 0.5)
    if away >= margin:
        return "; the AUC itself is outside: more has to be forgotten, or less distorted"
    needed = math.ceil(test.auc.n * ((limit - away) / (margin - away)) ** 2)
    return f"; at this AUC a pool of {needed} canaries would show it"


def _gap(evaluation: Evaluation, policy: Policy) -> Condition:
    name, gap = "paraphrased questions, size", evaluation.paraphrase_gap
    if gap is None:
        return _unmeasured(name, "the data have no paraphrased questions, or no canaries")
    if gap.n < policy.n_min:
        return Condition(name=name, holds=False, detail=f"{gap.n} paraphrased canaries are fewer than the policy's n_min of {policy.n_min}")
    high = gap.value + _stretch(evaluation) * (gap.high - gap.value)
    detail = f"forgotten canaries answer {gap.value:+.3f} more probably than never-seen ones, at most {high:+.3f}; margin {policy.paraphrase_margin}"
    return Condition(name=name, holds=high <= policy.paraphrase_margin, detail=detail)


def _utility(evaluation: Evaluation, policy: Policy) -> list[Condition]:
    named = sorted({*UTILITY, *evaluation.utility})
    return [_kept(name, evaluation.utility.get(name), _stretch(evaluation), policy.utility_margin) for name in named]


def _kept(name: str, score: Score | None, stretch: float, margin: float) -> Condition:
    title = f"utility on {name}" if not name.startswith("neighbours/") else f"neighbouring questions ({name})"
    if score is None:
        return _unmeasured(title, "there are no such records to compare, or no such metric; a wrecked model passes every privacy test")
    damaged, low = score.value < -margin, score.value - stretch * (score.value - score.low)
    detail = f"changed by {score.value:+.4f}, at least {low:+.4f} (n {score.n}); must stay above -{margin}"
    note = "; the privacy figures of a damaged model mean nothing" if damaged else ""
    return Condition(name=title, holds=low >= -margin, detail=detail + note, failure=damaged)


def _stretch(evaluation: Evaluation) -> float:
    """How much wider the sides of a 95 % interval become for this attempt, as a normal's would; the first two are covered as they are."""
    return max(1.0, stats.normal_quantile(stats.attempt_level(evaluation.attempt)) / stats.normal_quantile(0.975))
