"""Signs that a model still knows what it was to forget: every p-value that can make FAIL, adjusted as one family, and what of them is missing.

Pure. All of them share the policy's alpha by one Holm correction; whatever the settings name, or was measured on another state of the model, must
be there, so that leaving a test out never helps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from . import stats
from .measurements import CanaryTest, ModelReport, Probe
from .policy import Policy
from .records import Condition, Effect, Evaluation

LEAKAGE, VERBATIM, PARAPHRASED, OWN = "no evidence of leakage", "verbatim answers", "paraphrased questions", "the request's own records"
PROBES = "deeper probes"
GROUPS = (LEAKAGE, VERBATIM, PARAPHRASED, OWN, PROBES)
FINE_TUNED = "fine-tuned"
TELLING = frozenset({"two versions", "activation patching", "closer to", "swap"})
"""Probes that tell something and test nothing."""
SUSPICIOUS = 0.01
"""An uncorrected p of the request's own records below this keeps from PASS, which needs no correction (an intersection-union test)."""


@dataclass(frozen=True, kw_only=True)
class Signs:
    """Every p-value that can make FAIL, adjusted as one family, and what ought to be there but is not."""

    adjusted: dict[tuple[str, str], float]
    raw: dict[tuple[str, str], float]
    """The same before the correction."""
    absent: dict[str, tuple[str, ...]]
    """Condition -> what was not measured."""
    states: tuple[str, ...]
    alpha: float
    too_few: str

    @classmethod
    def of(cls, evaluation: Evaluation, policy: Policy, effect: Effect) -> Signs:
        """All of an evaluation that bear on an effect."""
        states = states_of(evaluation, policy, effect)
        attacks, p, absent = attacks_of(evaluation, policy), {}, {}
        for name in GROUPS:
            found = {(state, label): value for state, report in states.items() for label, value in _p_values(name, report, effect).items()}
            p.update({(name, f"{label}, {state}"): value for (state, label), value in found.items()})
            expected = {(state, label) for state in states for label in _expected(name, attacks)}
            absent[name] = tuple(sorted(f"{label}, {state}" for state, label in expected - set(found)))
        absent[PROBES] = probes_missing(evaluation)
        too_few = too_few_permutations(evaluation, len(p), policy.alpha)
        return cls(adjusted=stats.holm(p), raw=p, absent=absent, states=tuple(states), alpha=policy.alpha, too_few=too_few)

    def condition(self, name: str, clean: str, betrayed: str) -> Condition:
        """One condition: FAIL on an adjusted p below alpha; unmeasured where something is missing or chance was asked too seldom."""
        p = {label: value for (group, label), value in self.adjusted.items() if group == name}
        found = sorted((value, label) for label, value in p.items() if value < self.alpha)
        if found:
            shown = "; ".join(f"{label}: p {value:.4f}" for value, label in found)
            return Condition(name=name, holds=False, detail=f"{betrayed} ({shown}; adjusted over {len(self.adjusted)} tests)", failure=True)
        near = sorted((value, label) for (group, label), value in self.raw.items() if group == OWN and value < SUSPICIOUS)
        if name == OWN and near:
            shown = f"{near[0][1]}: p {near[0][0]:.4f} by itself, not enough of {len(self.adjusted)} tests to FAIL"
            return Condition(name=name, holds=False, detail=f"a few records can hide among many tests, and these stand out ({shown})")
        if not p:
            return unmeasured(name, "there are no canaries, or no such questions, to compare")
        if self.absent[name] or self.too_few:
            return unmeasured(name, f"missing {'; '.join(self.absent[name])}" if self.absent[name] else self.too_few)
        detail = clean.format(states=", ".join(self.states), p=f"{min(p.values()):.3f}")
        return Condition(name=name, holds=True, detail=detail, failure=True)


def states_of(evaluation: Evaluation, policy: Policy, effect: Effect) -> dict[str, ModelReport]:
    """The states that must not leak: as deployed, and for removal after the fine-tune too. A precision without a report has nothing."""
    states = {"fp32": evaluation.after}
    states |= {name: evaluation.precisions.get(name, ModelReport(scores={})) for name in policy.deployed_precisions if name != "fp32"}
    return states | ({FINE_TUNED: evaluation.after_finetune} if effect is Effect.REMOVAL else {})


def _p_values(name: str, report: ModelReport, effect: Effect) -> dict[str, float]:
    if name == PROBES:
        seen = {how: probe for how, probe in report.probes.items() if probe.outputs_only or effect is Effect.REMOVAL}
        return {f"{how}: {label}": value for how, probe in seen.items() for label, value in _of_probe(probe).items()}
    if name == VERBATIM:
        return {} if report.verbatim is None else {"Fisher": report.verbatim.p}
    if name == OWN:  # no coin chose these records: to be harder than the canaries is no sign of being shunned
        return {f"{how}{test.attack}": test.p_member for how, tests in (("", report.own), ("paraphrased ", report.own_paraphrased)) for test in tests}
    tests = report.canaries if name == LEAKAGE else report.paraphrased_canaries
    return {f"{test.attack}, {side}": value for test in tests for side, value in sides(test)}


def _of_probe(probe: Probe) -> dict[str, float]:
    said = {} if probe.verbatim is None else {"Fisher": probe.verbatim.p}
    return said | {f"{test.attack}, {side}": value for test in probe.tests for side, value in sides(test)}


def probes_missing(evaluation: Evaluation) -> tuple[str, ...]:
    """Probes that the settings name and that neither ran on the model nor are absent for a reason given; one that tests must show its tests."""
    named = evaluation.settings.get("probes")
    ran = {name for name, probe in evaluation.after.probes.items() if probe.tests or probe.verbatim is not None or name in TELLING}
    told = ran | evaluation.after.absent.keys()
    if isinstance(named, (list, tuple)):
        return tuple(sorted(set(map(str, named)) - told))
    return ("all of them",) if evaluation.settings.get("audit") == "deep" else ()


def _expected(name: str, attacks: set[str]) -> set[str]:
    if name == VERBATIM:
        return {"Fisher"}
    if name == PROBES:
        return set()
    if name == OWN:
        return {f"{how}{attack}" for attack in attacks for how in ("", "paraphrased ")}
    return {f"{attack}, {side}" for attack in attacks for side in ("still known", "shunned")}


def attacks_of(evaluation: Evaluation, policy: Policy) -> set[str]:
    """Every attack that the policy or the settings name or that was run on any state: none may be left out on another."""
    named = evaluation.settings.get("attacks", ())
    reports = (evaluation.before, evaluation.after, evaluation.after_finetune, *evaluation.precisions.values())
    run = {test.attack for report in reports for test in (*report.canaries, *report.paraphrased_canaries, *report.own, *report.own_paraphrased)}
    return run | set(policy.attacks) | ({str(name) for name in named} if isinstance(named, (list, tuple)) else set())


def too_few_permutations(evaluation: Evaluation, tests: int, alpha: float) -> str:
    """Why no leak could have been found; empty when one could: the smallest permutation p must survive Holm."""
    drawn = evaluation.settings.get("permutations")
    if not isinstance(drawn, int) or drawn < 1:
        return "how often chance was asked (evaluate.permutations) is not recorded"
    if tests / (1 + drawn) < alpha:
        return ""
    return f"with {drawn} permutations no p over {tests} tests can fall below {alpha}; set evaluate.permutations to {math.ceil(2 * tests / alpha)}"


def sides(test: CanaryTest) -> tuple[tuple[str, float], tuple[str, float]]:
    """Both directions in which canaries can betray themselves, with their p."""
    return ("still known", test.p_member), ("shunned", test.p_non_member)


def unmeasured(name: str, why: str) -> Condition:
    """A condition of which nothing is known: it keeps from PASS."""
    return Condition(name=name, holds=None, detail=f"not measured: {why}")
