"""Conditions that hold when a limit lies within a margin of the policy: canaries, what remains, utility; and when a state may be read at all.

Pure. Limits are those of the attempt: a later one needs closer ones.
"""

from __future__ import annotations

import math
from typing import Any

from . import stats
from .leakage import FINE_TUNED, attacks_of, unmeasured
from .measurements import CanaryTest, Gap, ModelReport, Score
from .policy import Policy
from .records import Condition, Evaluation

PROBE = "canaries after the benign fine-tune"
BENIGN = {"batch_size": (1, 64), "warmup_fraction": (0.0, 0.2), "weight_decay": (0.0, 0.1), "max_grad_norm": (0.1, math.inf)}
"""Settings of a fine-tune that can bring a memory back; a larger batch makes fewer steps."""
DAMAGE = 0.1
"""A state that lost this much more of the retained records than the one it was made of says nothing about what was forgotten."""


def remains(state: str, gap: Gap | None, evaluation: Evaluation, policy: Policy) -> Condition:
    """The share of the parent's memorised signal that remains, with its limit at the confidence of this attempt."""
    name = f"calibrated gap ({state})"
    if state == FINE_TUNED and (weak := strong_enough(evaluation, policy)) is not None:
        return unmeasured(name, weak.detail)
    if gap is None:
        return unmeasured(name, "there are no canaries, or the parent shows no memory of them that a share could be taken of")
    margin = policy.margin(policy.calibrated_gap, gap.share.n)
    if margin is None:
        return Condition(
            name=name, holds=False, detail=f"{gap.share.n} canaries are fewer than the policy's n_min of {policy.n_min}: nothing can pass"
        )
    limit = gap.share_upper.get(stats.level_key(stats.attempt_level(evaluation.attempt)))
    if limit is None:
        return unmeasured(name, f"attempt {evaluation.attempt} has no limit; use a model trained with a fresh pool")
    remains = f"{gap.share.value:+.1%} of the parent's memorised signal remains ({gap.parent.value:.2f} nats there), at most {limit:.1%}"
    fitted = (
        f"calibrated on {gap.holdout} held-out records, R2 {gap.explained:.2f}" if gap.explained else "not calibrated: no held-out records to fit on"
    )
    way_out = "" if limit <= margin else larger_pool(abs(gap.share.value), limit, margin, gap.share.n)
    return Condition(name=name, holds=limit <= margin, detail=f"{remains}; margin {margin:.0%}; {fitted}{way_out}")


def strong_enough(evaluation: Evaluation, policy: Policy) -> Condition | None:
    """A fine-tune weaker than the policy's shows nothing by not bringing anything back, and neither does one that wrecks the model."""
    ran: Any = evaluation.settings.get("finetune") or {}
    epochs, rate = ran.get("epochs", 0), ran.get("learning_rate", 0.0)
    if epochs < policy.finetune_epochs or rate < policy.finetune_learning_rate:
        return unmeasured(PROBE, f"it ran {epochs} epochs at {rate:g}, the policy asks {policy.finetune_epochs} at {policy.finetune_learning_rate:g}")
    if hindered := [name for name, (least, most) in BENIGN.items() if not least <= ran.get(name, math.nan) <= most]:
        ranges = "; ".join(f"{name} from {BENIGN[name][0]:g} to {BENIGN[name][1]:g}" for name in hindered)
        return unmeasured(PROBE, f"its settings keep it from moving the model, or break it; needed is {ranges}")
    return damage(PROBE, evaluation.after, evaluation.after_finetune)


def damage(name: str, whole: ModelReport, state: ModelReport) -> Condition | None:
    """A state that was made from another one, by training or rounding, and no longer knows what it should: what it hides proves nothing."""
    known = [report.scores.get("retain", {}).get("exact_memorization") for report in (whole, state)]
    if known[0] is None or known[1] is None:
        return unmeasured(name, "nothing says whether this state still knows the retained records (exact_memorization on retain)")
    if known[1].value >= known[0].value - DAMAGE:
        return None
    return unmeasured(
        name, f"this state knows {known[1].value:.3f} of the retained records, {known[0].value:.3f} before: what a wrecked state hides says nothing"
    )


def within_limit(name: str, report: ModelReport, evaluation: Evaluation, policy: Policy, note: str = "") -> Condition:
    """All attacks' upper limits within the margin of a pool of this size, at the confidence of this attempt."""
    tests, level = report.canaries, stats.attempt_level(evaluation.attempt)
    if absent := attacks_of(evaluation, policy) - {test.attack for test in tests}:
        return unmeasured(name, f"no {', '.join(sorted(absent))} attack on the canaries")
    if not tests:
        return unmeasured(name, "there are no canaries")
    n = min(test.auc.n for test in tests)
    margin = policy.margin(policy.auc_margin, n)
    if margin is None:
        return Condition(name=name, holds=False, detail=f"{n} canaries are fewer than the policy's n_min of {policy.n_min}: nothing can pass")
    limits = [(test.auc_upper.get(stats.level_key(level)), test) for test in tests]
    known = [(limit, test) for limit, test in limits if limit is not None]
    if len(known) < len(limits):
        return unmeasured(name, f"attempt {evaluation.attempt} has no limit; use a model trained with a fresh pool")
    limit, worst = max(known, key=lambda pair: pair[0])
    reach = f"upper {level:.4g} limit of |AUC - 0.5| is {limit:.3f}, margin {margin:.2f} (attempt {evaluation.attempt})"
    way_out = "" if limit <= margin else _way_out(worst, limit, margin)
    return Condition(name=name, holds=limit <= margin, detail=f"AUC {worst.auc.value:.3f} ({worst.attack}, {n} canaries); {reach}{way_out}{note}")


def _way_out(test: CanaryTest, limit: float, margin: float) -> str:
    """What would bring a limit within a margin."""
    if abs(test.auc.value - 0.5) >= margin:
        return "; the AUC itself is outside: more has to be forgotten, or less distorted"
    return larger_pool(abs(test.auc.value - 0.5), limit, margin, test.auc.n)


def larger_pool(away: float, limit: float, margin: float, n: int) -> str:
    """How many canaries would bring a limit within a margin: errors shrink with the root of the pool. Empty where none would."""
    if away >= margin:
        return ""
    return f"; at this value a pool of {math.ceil(n * ((limit - away) / (margin - away)) ** 2)} canaries would show it"


def reworded_gap(evaluation: Evaluation, policy: Policy) -> Condition:
    """How much more probably forgotten canaries' answers come when they are asked in other words, with its limit."""
    name, gap = "paraphrased questions, size", evaluation.paraphrase_gap
    if gap is None:
        return unmeasured(name, "the data have no paraphrased questions, or no canaries")
    if gap.n < policy.n_min:
        return Condition(name=name, holds=False, detail=f"{gap.n} paraphrased canaries are fewer than the policy's n_min of {policy.n_min}")
    high = gap.value + stretch(evaluation) * (gap.high - gap.value)
    detail = f"forgotten canaries answer {gap.value:+.3f} more probably than never-seen ones, at most {high:+.3f}; margin {policy.paraphrase_margin}"
    return Condition(name=name, holds=high <= policy.paraphrase_margin, detail=detail)


def kept(name: str, score: Score | None, stretch: float, margin: float) -> Condition:
    """One difference of utility, `set/metric`, with its lower limit; `stretch` widens a 95 % interval to the level of the attempt."""
    title = f"utility on {name}" if not name.startswith("neighbours/") else f"neighbouring questions ({name})"
    if score is None:
        return unmeasured(title, "there are no such records to compare, or no such metric; a wrecked model passes every privacy test")
    damaged, low = score.value < -margin, score.value - stretch * (score.value - score.low)
    detail = f"changed by {score.value:+.4f}, at least {low:+.4f} (n {score.n}); must stay above -{margin}"
    note = "; the privacy figures of a damaged model mean nothing" if damaged else ""
    return Condition(name=title, holds=low >= -margin, detail=detail + note, failure=damaged)


def stretch(evaluation: Evaluation) -> float:
    """How much wider the sides of a 95 % interval become for this attempt, as a normal's would; the first two are covered as they are."""
    return max(1.0, stats.normal_quantile(stats.attempt_level(evaluation.attempt)) / stats.normal_quantile(0.975))
