"""The rules of the verdict, condition by condition as docs/design.md has them, from the evidence of a certificate and a policy alone.

What should be there and is not makes its condition unknown, never true; so does whatever the settings or the policy name and nobody ran.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import exact_rules, figures
from .counting import ATTEMPTS, MOST, Area, attempt_level, holm, normal_quantile
from .documents import RefusedError, UndecidedError, canonical
from .exact_rules import Condition

FINE_TUNED, SIDES, SHOWN = "fine-tuned", ("still known", "shunned"), ("retain", "neighbours", "general")
GROUPS = ("canaries", "verbatim", "paraphrased_canaries", "own", "probes")
UTILITY = [f"{name}/{metric}" for name in SHOWN for metric in ("exact_memorization", "rouge_l_recall")]
TELLING = {"two versions", "activation patching", "closer to", "swap"}
"""Probes that tell something and test nothing."""
BENIGN = {"batch_size": (1, 64), "warmup_fraction": (0.0, 0.2), "weight_decay": (0.0, 0.1), "max_grad_norm": (0.1, math.inf)}
"""Settings of a fine-tune that can bring a memory back."""
SUSPICIOUS, HEARD, DAMAGE = 0.01, 0.05, 0.1
"""p of the request's own records that keeps from PASS by itself; p below which the parent knows its canaries in other words; share of what
is retained that a rounded or fine-tuned state may lose before its silence says nothing."""
_NOTHING: Mapping[str, Any] = {
    **dict.fromkeys(("canaries", "paraphrased_canaries", "own", "own_paraphrased"), ()),
    **{name: {} for name in ("scores", "probes", "absent")},
    "verbatim": None,
    "gap": None,
}


@dataclass(frozen=True)
class Rules:
    """The evidence of one certificate under one policy; every condition by name, as in docs/design.md."""

    evaluation: Mapping[str, Any]
    policy: Mapping[str, Any]
    run: Mapping[str, Any]
    """How the model was made."""
    seen: dict[int, tuple[Area, figures.Sides]] = field(default_factory=dict)
    """Attacks that were counted again already."""

    def conditions(self, effect: str) -> list[Condition]:
        """All that bear on an effect, `removal` or `suppression`."""
        if self.run["claim"] not in ("exact", "certified", "approximate"):
            raise UndecidedError("the claim is none of exact, certified and approximate")
        if self.run["claim"] == "exact":
            return [*self.exactly(), *(self.speaks() if effect == "suppression" else ())]
        if effect == "suppression":
            return self.outputs(effect)
        return self.approximate() if self.run["claim"] == "approximate" else [("certificate", None, False)]

    # What was measured, counted again.

    def level(self) -> float:
        """Confidence of this attempt's limits."""
        if not isinstance(attempt := self.evaluation["attempt"], int) or isinstance(attempt, bool) or attempt < 1:
            raise UndecidedError("the number of this attempt is not recorded")
        return attempt_level(attempt)

    def states(self, effect: str) -> dict[str, Mapping[str, Any]]:
        """Every state that must not leak; a deployed precision that was not measured is there, empty."""
        others = [name for name in self.policy["deployed_precisions"] if name != "fp32"]
        found = {"fp32": self.evaluation["after"]} | {name: self.evaluation["precisions"].get(name, _NOTHING) for name in others}
        return found | ({FINE_TUNED: self.evaluation["after_finetune"]} if effect == "removal" else {})

    def drawn(self) -> int:
        """How often chance was asked for each p; 0 where that is not recorded, and then no p says anything."""
        found = self.evaluation["settings"].get("permutations")
        return found if isinstance(found, int) and not isinstance(found, bool) and 1 <= found <= MOST else 0

    def pools(self) -> set[figures.Sides]:
        """Sizes of the pool of canaries, which is one and the same wherever they are attacked: nobody may choose among them state by state."""
        e = self.evaluation
        reports = {"the parent": e["before"], "the model": e["after"], FINE_TUNED: e["after_finetune"], **e["precisions"]}
        found = {self.tested(test, f"canaries, {state}")[1] for state, report in reports.items() for test in report["canaries"]}
        if len(found) > 1:
            raise RefusedError("canaries: not every state and attack was shown the same number of them")
        return found

    def attacks(self) -> set[str]:
        """Every attack that is asked for, or was run on any state: none may be left out on another."""
        e, fields = self.evaluation, ("canaries", "paraphrased_canaries", "own", "own_paraphrased")
        reports = (e["before"], e["after"], e["after_finetune"], *e["precisions"].values())
        run = {test["attack"] for report in reports for name in fields for test in report[name]}
        return run | set(self.policy["attacks"]) | set(e["settings"].get("attacks", ()))

    def tested(self, test: Mapping[str, Any], what: str) -> tuple[Area, figures.Sides]:
        """An attack's area and the canaries it was shown, counted again once."""
        if id(test) not in self.seen:
            self.seen[id(test)] = figures.tested(test, self.drawn(), what)
        return self.seen[id(test)]

    def p_values(self, effect: str) -> dict[tuple[str, str], float]:
        """(group, what) -> every p that can make FAIL."""
        found: dict[tuple[str, str], float] = {}
        for state, report in self.states(effect).items():
            p = {
                (group, label): value
                for group in ("canaries", "paraphrased_canaries")
                for label, value in self._two_sided(report[group], state).items()
            }
            if (matched := report["verbatim"]) is not None:
                p["verbatim", "Fisher"] = figures.matches(matched, state)
                if self.pools() - {(matched["included"], matched["excluded"])}:
                    raise RefusedError(f"verbatim answers, {state}: of other canaries than were attacked")
            p |= {("own", label): value for label, value in self._own(report, state).items()}
            for how, probe in report["probes"].items():
                if probe["outputs_only"] or effect == "removal":
                    p |= {("probes", f"{how}: {label}"): value for label, value in self._two_sided(probe["tests"], f"{how}, {state}").items()}
                    p |= {("probes", f"{how}: Fisher"): figures.matches(probe["verbatim"], how)} if probe["verbatim"] is not None else {}
            found |= {(group, f"{label}, {state}"): value for (group, label), value in p.items()}
        return found

    def _own(self, report: Mapping[str, Any], state: str) -> dict[str, float]:
        """No coin chose the request's own records: to be harder than canaries is no sign of being shunned."""
        asked = {"": report["own"], "paraphrased ": report["own_paraphrased"]}
        return {
            f"{how}{test['attack']}": test["p_member"] for how, tests in asked.items() for test in tests if self.tested(test, f"own records, {state}")
        }

    def _two_sided(self, tests: Sequence[Mapping[str, Any]], what: str) -> dict[str, float]:
        for test in tests:
            self.tested(test, what)
        if len({test["attack"] for test in tests}) < len(tests):
            raise RefusedError(f"{what}: an attack stands there twice")
        return {f"{test['attack']}, {side}": test[p] for test in tests for side, p in zip(SIDES, ("p_member", "p_non_member"), strict=True)}

    def signs(self, effect: str) -> dict[str, bool | None]:
        """Group -> True: nothing stands out; False: something does; None: not all was asked. One family (Holm) over all p that can make FAIL."""
        p, alpha = self.p_values(effect), self.policy["alpha"]
        adjusted, too_few = holm(p), len(p) / (1 + self.drawn()) >= alpha
        holds: dict[str, bool | None] = {"own alone": all(value >= SUSPICIOUS for (group, _), value in p.items() if group == "own")}
        for group in GROUPS:
            own = {label: value for (name, label), value in adjusted.items() if name == group}
            absent = {f"{label}, {state}" for state in self.states(effect) for label in self._expected(group)} - own.keys()
            silent = not own or absent or too_few or (group == "probes" and self._probes_missing())
            holds[group] = False if any(value < alpha for value in own.values()) else (None if silent else True)
        if "probes" not in {group for group, _ in p} and not self._probes_missing():
            del holds["probes"]  # the quick protocol has none
        return holds

    def _expected(self, group: str) -> set[str]:
        ways = {"verbatim": ("Fisher",), "probes": (), "own": ("{}", "paraphrased {}")}.get(group, tuple(f"{{}}, {side}" for side in SIDES))
        return {way.format(attack) for attack in self.attacks() for way in ways}

    def _probes_missing(self) -> set[str]:
        after, settings = self.evaluation["after"], self.evaluation["settings"]
        ran = {name for name, probe in after["probes"].items() if probe["tests"] or probe["verbatim"] is not None or name in TELLING}
        if isinstance(named := settings.get("probes"), list):
            return set(map(str, named)) - ran - set(after["absent"])
        return {"all"} if settings.get("audit") == "deep" else set()

    # Conditions that several claims share.

    def fixed(self) -> Condition:
        """The policy is the one of the evaluation and of the first look at these canaries (its values; enforcement apart)."""
        now = policy_digest(self.policy)
        then = (self.evaluation["policy"], self.evaluation["first_policy"])
        return "policy fixed beforehand", all(each == now for each in then) if all(then) else None, False

    def within(self, name: str, report: Mapping[str, Any]) -> Condition:
        """Upper limits of |AUC - 0.5| of all attacks within the margin."""
        tests = report["canaries"]
        if not tests or self.attacks() - {test["attack"] for test in tests}:
            return name, None, False
        found = [self.tested(test, name) for test in tests]
        limits = [area.limit(self.level()) for area, _ in found]
        return name, self._inside(max(limits), "auc_margin", min(sum(sides) for _, sides in found)), False

    def _inside(self, limit: float, table: str, n: int) -> bool | None:
        """A limit against the margin for the largest tabulated pool not above n: too small a pool passes nothing, a late attempt has no limit."""
        sizes = [int(size) for size in self.policy[table] if int(size) <= n]
        if not sizes or n < self.policy["n_min"]:
            return False
        return None if self.evaluation["attempt"] > ATTEMPTS else limit <= self.policy[table][str(max(sizes))]

    def damaged(self, report: Mapping[str, Any]) -> bool:
        """Whether a state made of the model lost too much for its silence to say anything, or nothing says whether it did."""
        known = [each["scores"].get("retain", {}).get("exact_memorization") for each in (self.evaluation["after"], report)]
        return None in known or known[1]["value"] < known[0]["value"] - DAMAGE

    def weak(self) -> bool:
        """Whether the benign fine-tune was too weak, or too rough, to show anything."""
        ran = self.evaluation["settings"].get("finetune") or {}
        slow = ran.get("epochs", 0) < self.policy["finetune_epochs"] or ran.get("learning_rate", 0.0) < self.policy["finetune_learning_rate"]
        return slow or any(not least <= ran.get(name, math.nan) <= most for name, (least, most) in BENIGN.items())

    def remains(self, state: str, report: Mapping[str, Any]) -> Condition:
        """The limit of the share of the parent's memorised signal that remains."""
        name, gap = f"calibrated gap ({state})", report["gap"]
        if gap is None or (state == FINE_TUNED and (self.weak() or self.damaged(report))):
            return name, None, False
        share, error, sides = figures.remaining(gap, name)
        if {sides} != self.pools():
            raise RefusedError(f"{name}: of other canaries than were attacked")
        return name, self._inside(abs(share) + normal_quantile(self.level()) * error, "calibrated_gap", sum(sides)), False

    def stretch(self) -> float:
        """How much wider the sides of a 95 % interval become for this attempt."""
        return max(1.0, normal_quantile(self.level()) / normal_quantile(0.975))

    def kept(self, name: str) -> Condition:
        """A paired difference of utility stays above minus the margin."""
        score, margin = self.evaluation["utility"].get(name), self.policy["utility_margin"]
        if score is None:
            return f"utility on {name}", None, False
        figures.paired(score, f"utility on {name}")
        low = score["value"] - self.stretch() * (score["value"] - score["low"])
        return f"utility on {name}", low >= -margin, score["value"] < -margin

    # The claims.

    def approximate(self) -> list[Condition]:
        """Removal, only measured."""
        probe, tuned = "canaries after the benign fine-tune", self.evaluation["after_finetune"]
        after = (probe, None, False) if self.weak() or self.damaged(tuned) else self.within(probe, tuned)
        return [*self.outputs("removal"), after, *(self.remains(state, report) for state, report in self.states("removal").items())]

    def outputs(self, effect: str) -> list[Condition]:
        """What is judged on the outputs of the model as deployed."""
        e, signs, known = self.evaluation, self.signs(effect), self.controls()
        found: list[Condition] = [
            ("committed canaries", e["canaries_committed"] is True if e["after"]["canaries"] else None, False),
            ("unspent pool", e["pool_spent_by"] is None, False),
            self.fixed(),
            ("positive control", known["epsilon"] >= self.policy["control_epsilon"] if e["before"]["canaries"] else None, False),
        ]
        for state, report in self.states("suppression").items():
            name, holds, _ = self.within(f"canaries as deployed ({state})", report)
            found.append((name, None if holds and report is not e["after"] and self.damaged(report) else holds, False))
        for name, holds, failure in (("paraphrased_canaries", signs.pop("paraphrased_canaries"), True), self.reworded()):
            found.append((name, None if holds and known["p"] >= HEARD else holds, failure))
        found += [(group, holds, group != "own alone") for group, holds in signs.items()]
        return [*found, *(self.kept(name) for name in sorted({*UTILITY, *e["utility"]}))]

    def controls(self) -> dict[str, float]:
        """The largest epsilon that was found in the parent, and the smallest p of its canaries in other words: what the attacks could see at all."""
        before = self.evaluation["before"]
        for name in ("canaries", "paraphrased_canaries"):
            self._two_sided(before[name], f"the parent's {name}")
        epsilon = max((test["epsilon"] for test in before["canaries"]), default=0.0)
        return {"epsilon": epsilon, "p": min((test["p_member"] for test in before["paraphrased_canaries"]), default=1.0)}

    def reworded(self) -> Condition:
        """How much more probable forgotten canaries' answers are than never-seen ones', asked in other words."""
        name, gap = "paraphrased questions, size", self.evaluation["paraphrase_gap"]
        if gap is None:
            return name, None, False
        figures.difference(gap, name)
        high = gap["value"] + self.stretch() * (gap["high"] - gap["value"])
        return name, gap["n"] >= self.policy["n_min"] and high <= self.policy["paraphrase_margin"], False

    def speaks(self) -> list[Condition]:
        """What of an exact model's outputs can make suppression FAIL; no limit has to be met."""
        return [(group, holds, group != "own alone") for group, holds in self.signs("suppression").items() if group != "probes"]

    def exactly(self) -> list[Condition]:
        """Removal by retraining. Canaries can only contradict it."""
        p = self._two_sided(self.evaluation["after"]["canaries"], "canaries")
        lineage: Condition = ("lineage", bool(self.evaluation["parent"]["datasets"]) or None, False)
        of_shards = exact_rules.of_shards(self.run["exactness"], self.policy)
        return [lineage, *of_shards, exact_rules.alarm(self.evaluation, p, self.drawn(), self.attacks()), self.fixed()]


def policy_digest(policy: Mapping[str, Any]) -> str:
    """sha256 of the canonical bytes of a policy's values; how a verdict is enforced (`gate`) is none of them."""
    return hashlib.sha256(canonical({name: value for name, value in policy.items() if name != "gate"})).hexdigest()


def recount(predicate: Mapping[str, Any], policy: Mapping[str, Any] | None = None) -> dict[str, list[Condition]]:
    """Effect -> its conditions, from the evidence of a certificate; under another policy than its own if one is given.

    The rule that the policy was fixed beforehand is always about the certificate's own.
    """
    own, evaluation, run = predicate["policy"], predicate["evaluation"], predicate["unlearned"]
    if (evaluation["unlearned"], evaluation["split_digest"]) != (run["tensor_digest"], run["split_digest"]):
        raise RefusedError("evaluation: it measured other weights or other sets than the run made")
    rules, fixed = Rules(evaluation, policy or own, run), Rules(evaluation, own, run).fixed()
    return {effect: [fixed if each[0] == fixed[0] else each for each in rules.conditions(effect)] for effect in ("removal", "suppression")}


def outcome(conditions: Sequence[Condition]) -> str:
    """PASS when every condition holds, FAIL when evidence of leakage or damage was found, else INCONCLUSIVE."""
    if any(holds is False and failure for _, holds, failure in conditions):
        return "FAIL"
    return "PASS" if conditions and all(holds is True for _, holds, _ in conditions) else "INCONCLUSIVE"
