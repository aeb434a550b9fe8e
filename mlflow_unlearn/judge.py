"""The verb `judge`: an evaluation, the run behind it and a policy to a verdict for each effect, with every condition and its figure.

A condition that fails as evidence of leakage or damage makes FAIL; one that merely does not hold, or was not measured, keeps from PASS. Nothing
unknown passes, and leaving a measurement out never turns a no into a yes: whatever is named in the settings, measured on another state of the model,
or asked by the policy must be there. A deeper probe that is absent for a reason given counts as told, and statements such as that no shard holds a
forgotten record are taken at their word: only a signature can bind those.
"""

from __future__ import annotations

from collections.abc import Sequence

from .errors import TamperedError
from .exact_conditions import REPLAY, TRUSTED, exact
from .leakage import LEAKAGE, OWN, PARAPHRASED, PROBES, VERBATIM, Signs, states_of, unmeasured
from .margins import PROBE, damage, kept, remains, reworded_gap, stretch, strong_enough, within_limit
from .measurements import ModelReport
from .policy import Policy, policy_digest
from .records import Claim, Condition, Effect, Evaluation, Outcome, Unlearned, Verdict

UTILITY = tuple(f"{name}/{metric}" for name in ("retain", "neighbours", "general") for metric in ("exact_memorization", "rouge_l_recall"))
"""Every one of these must be measured; others are judged when they are there."""


def judge(evaluation: Evaluation, policy: Policy, unlearned: Unlearned) -> tuple[Verdict, Verdict]:
    """The verdicts for removal and for suppression; certified claims need a verifier of their own and stay undecided here.

    Raises:
        TamperedError: the evaluation measured other weights, or other sets, than the run made.
    """
    _refuse_other_run(evaluation, unlearned)
    if unlearned.claim is Claim.EXACT:
        removal = (*exact(evaluation, policy, unlearned), _fixed(evaluation, policy))
        said = _said_exactly(evaluation)
        return _verdict(Effect.REMOVAL, removal, said), _verdict(Effect.SUPPRESSION, (*removal, *_speaks(evaluation, policy)), said)
    removal = _approximate(evaluation, policy) if unlearned.claim is Claim.APPROXIMATE else _certified()
    return _verdict(Effect.REMOVAL, removal, _SEEN), _verdict(Effect.SUPPRESSION, _outputs(evaluation, policy, Effect.SUPPRESSION), _SEEN)


_SEEN = "This is what these attacks could see, not a proof of erasure"


def _refuse_other_run(evaluation: Evaluation, unlearned: Unlearned) -> None:
    measured, made = (evaluation.unlearned, evaluation.split_digest), (unlearned.tensor_digest, unlearned.split_digest)
    if measured != made:
        what = f"the evaluation is of weights {measured[0][:16]} and split {measured[1][:16]}, the run made {made[0][:16]} of {made[1][:16]}"
        raise TamperedError(f"judge: {what}; run `dvc repro`")


def _verdict(effect: Effect, conditions: Sequence[Condition], passed: str) -> Verdict:
    broken = [condition for condition in conditions if condition.holds is not True]
    if any(condition.holds is False and condition.failure for condition in broken):
        outcome = Outcome.FAIL
    else:
        outcome = Outcome.INCONCLUSIVE if broken else Outcome.PASS
    worst_first = sorted(broken, key=lambda condition: (condition.holds is None, not condition.failure))
    reasons = tuple(f"{condition.name}: {condition.detail}" for condition in worst_first)
    return Verdict(effect=effect, outcome=outcome, reasons=reasons or (_passed(conditions, passed),), conditions=tuple(conditions))


def _passed(conditions: Sequence[Condition], passed: str) -> str:
    """What limits a yes comes with it: what canaries could see, what was repeated, what somebody merely vouches for."""
    told = (c for c in conditions if c.name.startswith("canar") or c.name == REPLAY or TRUSTED in c.detail)
    limits = "; ".join(f"{c.name}: {c.detail}" for c in told)
    return f"every condition holds; {limits}. {passed}"


def _said_exactly(evaluation: Evaluation) -> str:
    """Utility is no privacy test where nothing was forgotten by damage: a wrecked retraining has forgotten all the same. It is told, not judged."""
    measured = {name: score for name, score in evaluation.utility.items() if name.split("/")[0] in ("retain", "neighbours", "general")}
    worst = min(measured, key=lambda name: measured[name].value, default=None)
    change = "was not measured" if worst is None else f"changed by {measured[worst].value:+.4f} at worst ({worst}, n {measured[worst].n})"
    return f"Utility, which decides nothing about an exact claim, {change}"


def _speaks(evaluation: Evaluation, policy: Policy) -> tuple[Condition, ...]:
    """What of an exact model's outputs can make suppression FAIL. No limit has to be met: nothing was approximated that could be near or far."""
    evidence, counts = Signs.of(evaluation, policy, Effect.SUPPRESSION), _verbatim(evaluation)
    note = "; it can only make FAIL: the claim is exact, so that no limit has to be met"
    return (
        evidence.condition(LEAKAGE, "smallest adjusted p over {states}: {p}" + note, "canaries betray themselves"),
        evidence.condition(VERBATIM, f"{counts}, smallest adjusted p {{p}}{note}", counts),
        evidence.condition(PARAPHRASED, "smallest adjusted p over {states}: {p}" + note, "asked in other words, canaries betray themselves"),
        evidence.condition(OWN, "smallest adjusted p against never-seen canaries {p}" + note, "still known, or to be guessed from what stays"),
    )


def _approximate(evaluation: Evaluation, policy: Policy) -> tuple[Condition, ...]:
    return (
        *_outputs(evaluation, policy, Effect.REMOVAL),
        strong_enough(evaluation, policy) or within_limit(PROBE, evaluation.after_finetune, evaluation, policy),
        *(remains(state, report.gap, evaluation, policy) for state, report in states_of(evaluation, policy, Effect.REMOVAL).items()),
    )


def _fixed(evaluation: Evaluation, policy: Policy) -> Condition:
    """That nobody chose the limits after looking: the policy is the one of the evaluation and of the pool's first attempt."""
    name, now = "policy fixed beforehand", policy_digest(policy)
    if not evaluation.policy or not evaluation.first_policy:
        return unmeasured(name, "the evaluation does not say which policy was in force when the canaries were first opened; run `dvc repro`")
    if now != evaluation.policy:
        return Condition(
            name=name, holds=False, detail="policy.yaml is not the one of the evaluation; run `dvc repro`, which counts as another attempt"
        )
    if now != evaluation.first_policy:
        refused = "policy.yaml was changed after these canaries were first opened; restore it, or use a model trained with a fresh pool"
        return Condition(name=name, holds=False, detail=refused)
    return Condition(name=name, holds=True, detail=f"the policy ({now[:8]}) is the one in force when these canaries were first opened")


def _certified() -> tuple[Condition, ...]:
    return (unmeasured("certificate", "epsilon and delta have not been recomputed from attested parameters"),)


def _outputs(evaluation: Evaluation, policy: Policy, effect: Effect) -> tuple[Condition, ...]:
    """What is judged on the outputs of the model as it is deployed: the whole of suppression, part of removal."""
    evidence, counts = Signs.of(evaluation, policy, effect), _verbatim(evaluation)
    note = "" if effect is Effect.REMOVAL else _fine_tuned(evaluation)
    deployed = states_of(evaluation, policy, Effect.SUPPRESSION).items()
    return (
        _committed(evaluation),
        _unspent(evaluation),
        _fixed(evaluation, policy),
        _control(evaluation, policy),
        evidence.condition(LEAKAGE, "smallest adjusted p over {states}: {p}", "canaries betray themselves"),
        evidence.condition(VERBATIM, counts + ", smallest adjusted p {p}", counts),
        *(_deployed(state, report, evaluation, policy, note) for state, report in deployed),
        _reworded(evaluation, evidence.condition(PARAPHRASED, "smallest adjusted p over {states}: {p}", _REWORDED)),
        _reworded(evaluation, reworded_gap(evaluation, policy)),
        evidence.condition(OWN, "smallest adjusted p against never-seen canaries {p}; few records can only show leakage", "still known"),
        *_probed(evidence),
        *_utility(evaluation, policy),
    )


def _probed(evidence: Signs) -> tuple[Condition, ...]:
    """Only where deeper probes were asked for, or ran on what this effect is judged by: the quick protocol has none."""
    if not evidence.absent[PROBES] and not any(group == PROBES for group, _ in evidence.adjusted):
        return ()
    return (evidence.condition(PROBES, "smallest adjusted p over {states}: {p}", "asked in other ways, canaries betray themselves"),)


HEARD = 0.05
"""The p below which the parent counts as knowing its canaries in other words; a control needs no family."""
_REWORDED = "asked in other words, canaries betray themselves"


def _deployed(state: str, report: ModelReport, evaluation: Evaluation, policy: Policy, note: str) -> Condition:
    name = f"canaries as deployed ({state})"
    found = within_limit(name, report, evaluation, policy, note)
    return (damage(name, evaluation.after, report) or found) if found.holds and report is not evaluation.after else found


def _reworded(evaluation: Evaluation, found: Condition) -> Condition:
    """Silence says something only if the parent spoke: its own canaries must betray themselves when they are asked in other words."""
    if not found.holds:
        return found
    p = min((test.p_member for test in evaluation.before.paraphrased_canaries), default=1.0)
    if p < HEARD:
        return found
    return unmeasured(found.name, f"the parent itself does not know its canaries in other words (p {p:.3f}): nothing could come out")


def _committed(evaluation: Evaluation) -> Condition:
    if not evaluation.after.canaries:
        return unmeasured("committed canaries", "the data have no canaries whose inclusion was decided by a coin before training")
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
        return unmeasured("positive control", "without canaries nothing shows that the attacks could see memory in the parent")
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


def _utility(evaluation: Evaluation, policy: Policy) -> list[Condition]:
    named = sorted({*UTILITY, *evaluation.utility})
    return [kept(name, evaluation.utility.get(name), stretch(evaluation), policy.utility_margin) for name in named]
