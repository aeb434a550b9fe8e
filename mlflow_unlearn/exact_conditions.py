"""What an exact claim has to show: that the records took no part in the training, and that the training is what its log says.

Pure. Retraining without the records is exact by what it is (Bourtoule et al. 2021, arXiv:1912.03817, section III); what can be wrong is a log, a
shard that was left as it was, or something that all shards share. Canaries only raise an alarm: they look for an error and prove nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from . import stats
from .exactness import Exactness, Replay, SharedPart
from .leakage import attacks_of, sides, too_few_permutations, unmeasured
from .policy import Policy
from .records import CanaryTest, Condition, Evaluation, Unlearned
from .sisa import shard_name

CANARY_ALARM = 0.01
"""Holm-adjusted p below which canaries contradict a claim of exactness: an implementation error, not a residue."""
SHARED = ("base model", "tokenizer", "normalisation", "deduplication", "early stopping", "thresholds", "aggregation")
"""All that shards can share; an exact claim has to say something of each."""
TRUSTED = "trusted by policy, not examined"
"""How the detail of a part begins that somebody vouches for."""
LINEAGE, FORGOTTEN, UNTOUCHED, REPLAY, SHARED_STATE = "lineage", "forgotten records", "untouched shards", "replay", "shared state"
ALARM = "canary alarm"
_SHOWN = 6
_NO_LOG = "no log says, shard by shard, what was trained on; `unlearn.strategy: exact` keeps one"


def exact(evaluation: Evaluation, policy: Policy, unlearned: Unlearned) -> tuple[Condition, ...]:
    """Every condition of an exact claim; the same names whatever is known."""
    evidence = unlearned.exactness
    return (
        _lineage(evaluation),
        *(_of_shards(evidence, policy) if evidence else _no_log()),
        _alarm(evaluation, policy, evidence),
    )


def _lineage(evaluation: Evaluation) -> Condition:
    if not evaluation.parent.datasets:
        return unmeasured(LINEAGE, "no dataset revision of the parent is known")
    return Condition(name=LINEAGE, holds=True, detail="every dataset revision the parent was trained on is known and was searched")


def _no_log() -> tuple[Condition, ...]:
    """A model that was retrained as a whole."""
    return (
        unmeasured(FORGOTTEN, _NO_LOG),
        unmeasured(UNTOUCHED, _NO_LOG),
        unmeasured(REPLAY, "the run has not been repeated to equal tensor digests; repeat it with the same seed on the same device"),
        unmeasured(SHARED_STATE, "nothing attests that tokenizer, thresholds and base model never saw the records"),
    )


def _of_shards(evidence: Exactness, policy: Policy) -> tuple[Condition, ...]:
    return _forgotten(evidence), _untouched(evidence), _replay(evidence, policy), _shared(evidence)


def _forgotten(evidence: Exactness) -> Condition:
    if evidence.holding:
        named = _listed(map(shard_name, evidence.holding))
        detail = f"the training log of shard {named} names forgotten records: these weights were made with them; run `dvc repro`"
        return Condition(name=FORGOTTEN, holds=False, detail=detail, failure=True)
    if not evidence.digests:
        return unmeasured(FORGOTTEN, "no shard has weights, so that there is no log to read")
    told = evidence.digests.keys() | set(map(shard_name, evidence.empty))
    if untold := sorted(set(map(shard_name, range(evidence.shards))) - told):
        return unmeasured(FORGOTTEN, f"nothing is said of shard {_listed(untold)}: neither weights nor that it is empty")
    others = f"; {len(evidence.empty)} of {evidence.shards} shards have no records and no weights" if evidence.empty else ""
    detail = f"the training logs of all {len(evidence.digests)} shards with weights name none of them{others}"
    return Condition(name=FORGOTTEN, holds=True, detail=detail, failure=True)


def _untouched(evidence: Exactness) -> Condition:
    """That a deletion changed nothing else. Of a parent of another family nothing is left, and every shard counts as retrained."""
    if not evidence.before:
        detail = f"the parent is not of family {evidence.family[:8]}: nothing was taken over from it and every shard was trained without the records"
        return Condition(name=UNTOUCHED, holds=True, detail=detail, failure=True)
    touched = set(map(shard_name, evidence.touched))
    others = sorted((evidence.before.keys() | evidence.digests.keys()) - touched)
    changed = [name for name in others if evidence.before.get(name) != evidence.digests.get(name)]
    if changed:
        detail = f"shard {_listed(changed)} held no forgotten record and yet is not the parent's: something else than the request changed it"
        return Condition(
            name=UNTOUCHED, holds=False, detail=f"{detail}; look for what, or register the family as trained and start from there", failure=True
        )
    detail = f"{len(others)} shards that held none of the records have the parent's digests, bit for bit; {len(touched)} were touched"
    return Condition(name=UNTOUCHED, holds=True, detail=detail, failure=True)


def retrained(evidence: Exactness) -> tuple[str, ...]:
    """Names of the shards whose weights are not the parent's."""
    return tuple(sorted(name for name, digest in evidence.digests.items() if evidence.before.get(name) != digest))


def replays_of(evidence: Exactness) -> dict[str, Replay]:
    """Shard -> its replay: of several one that contradicts the log, else an equal one, else the worst; those of other weights do not count."""
    own = [each for each in evidence.replays if _is_of(each, evidence)]
    last_counts = sorted(own, key=lambda each: (_contradicts(each), each.equal, not each.differences))
    return {shard_name(each.shard): each for each in last_counts}


def _contradicts(each: Replay) -> bool:
    """Whether the same log gave other bits where it has to give the same: on a CPU, in an equal environment."""
    return not each.equal and not each.differences and each.device.startswith("cpu")


def _is_of(each: Replay, evidence: Exactness) -> bool:
    """Whether a replay repeats what the shard's log says now, and was compared with the weights that are there."""
    name = shard_name(each.shard)
    return bool(each.log) and (evidence.digests.get(name), evidence.logs.get(name)) == (each.logged, each.log)


def _replay(evidence: Exactness, policy: Policy) -> Condition:
    needed = sorted(evidence.digests) if policy.replayed_shards == "all" else retrained(evidence)
    found = replays_of(evidence)
    unequal = [(name, each) for name, each in sorted(found.items()) if not each.equal]
    same = [name for name, each in unequal if not each.differences]
    device = next((each.device for _, each in unequal if each.device.startswith("cpu")), next((each.device for _, each in unequal), "cpu"))
    attempted = policy.replay == "attempted" and not device.startswith("cpu") and len(same) == len(unequal)
    if unequal and not attempted:
        return _unequal(unequal, same, device)
    missing = [name for name in needed if name not in found]
    if missing or not evidence.digests:
        way = "run `mlflow-unlearn replay`, or set `exact.replay: all` and run `dvc repro`"
        return unmeasured(REPLAY, f"{len(missing)} of {len(needed)} shards have no replay of these weights ({_listed(missing)}); {way}")
    return Condition(name=REPLAY, holds=True, detail=_repeated(needed, [name for name, _ in unequal], evidence, device), failure=True)


def _unequal(unequal: Sequence[tuple[str, Replay]], same: Sequence[str], device: str) -> Condition:
    """In an equal environment on a CPU the same log gives the same bits: another result says that the log is not what made these weights."""
    if same and device.startswith("cpu"):
        detail = f"shard {_listed(same)} came out otherwise in an equal environment: the log, the data or the code are not what made these weights"
        return Condition(name=REPLAY, holds=False, detail=detail, failure=True)
    if same:
        detail = f"shard {_listed(same)} came out otherwise in an equal environment; {device} need not repeat bit for bit: train with kernels that do"
        return Condition(name=REPLAY, holds=False, detail=f"{detail}, or decide in policy.yaml whether an attempt will do (`replay: attempted`)")
    why = "; ".join(sorted({difference for _, each in unequal for difference in each.differences})[:_SHOWN])
    detail = f"shard {_listed(name for name, _ in unequal)} came out otherwise, in another environment ({why}); replay it where it was trained"
    return Condition(name=REPLAY, holds=False, detail=detail)


def _repeated(needed: Sequence[str], unequal: Sequence[str], evidence: Exactness, device: str) -> str:
    equal = [name for name in needed if name not in unequal]
    scope = "" if len(needed) == len(evidence.digests) else f"; the policy asks for no replay of the other {len(evidence.digests) - len(needed)}"
    trained = f"{len(equal)} of {len(needed)} shards trained a second time gave equal tensor digests{scope}"
    if not unequal:
        return trained
    return f"{trained}; shard {_listed(unequal)} did not, on {device}, which the policy accepts: it shows that the log is enough to train, not more"


def _shared(evidence: Exactness) -> Condition:
    if any(each.holds is False for each in evidence.shared):
        detail = _told(each for each in evidence.shared if each.holds is False)
        return Condition(name=SHARED_STATE, holds=False, detail=detail, failure=True)
    named = {each.name for each in evidence.shared}
    unknown = [each for each in evidence.shared if each.holds is None]
    unknown += [SharedPart(name=name, holds=None, detail="nothing is said of it") for name in SHARED if name not in named]
    if unknown:
        return unmeasured(SHARED_STATE, _told(unknown))
    detail = f"{_told(each for each in evidence.shared if each.name in SHARED[:2])}; {', '.join(SHARED[2:])}: nothing in them is taken of the data"
    return Condition(name=SHARED_STATE, holds=True, detail=detail, failure=True)


def _told(parts: Iterable[SharedPart]) -> str:
    """What is known of some parts, once where it is the same."""
    by_detail: dict[str, list[str]] = {}
    for each in parts:
        by_detail.setdefault(each.detail, []).append(each.name)
    return "; ".join(f"{', '.join(names)}: {detail}" for detail, names in by_detail.items())


def _alarm(evaluation: Evaluation, policy: Policy, evidence: Exactness | None) -> Condition:
    tests = evaluation.after.canaries
    p = {(test.attack, side): value for test in tests for side, value in sides(test)}
    if not p:
        why = "the touched shards have none that no closed request has used" if evidence else "there are none"
        return unmeasured(ALARM, f"no canaries: {why}; train a family on data with a fresh pool")
    worst = min(stats.holm(p).values())
    detail = f"smallest adjusted p {worst:.4f}, alarm below {CANARY_ALARM}; {_reach(evaluation, tests, evidence)}"
    if worst < CANARY_ALARM:
        return Condition(name=ALARM, holds=False, detail=f"{detail}: the run cannot have been exact; look for an error in it", failure=True)
    blind = _blind(evaluation, policy, tests, len(p))
    return unmeasured(ALARM, blind) if blind else Condition(name=ALARM, holds=True, detail=detail, failure=True)


def _blind(evaluation: Evaluation, policy: Policy, tests: Sequence[CanaryTest], count: int) -> str:
    """Why silence says nothing; empty when an alarm could have been raised."""
    if absent := attacks_of(evaluation, policy) - {test.attack for test in tests}:
        return f"no {', '.join(sorted(absent))} attack on the canaries"
    if too_few := too_few_permutations(evaluation, count, CANARY_ALARM):
        return too_few
    if not evaluation.canaries_committed:
        return "the coin flips cannot be shown to have been fixed before training; commit commitment.json with the data and train on it"
    if evaluation.pool_spent_by is not None:
        return f"the canaries were spent by {evaluation.pool_spent_by}: what they show was known before this run; use a fresh pool"
    n, counts = min(test.auc.n for test in tests), evaluation.after.verbatim
    included = counts.included if counts and counts.included + counts.excluded == n else n // 2
    if count / math.comb(n, included) >= CANARY_ALARM:
        return f"{n} canaries can be dealt in too few ways for any alarm; draw more, or cut fewer shards and slices"
    return ""


def _reach(evaluation: Evaluation, tests: Sequence[CanaryTest], evidence: Exactness | None) -> str:
    """How many canaries spoke, what so many could have shown, and what they did show in the parent."""
    n, most = min(test.auc.n for test in tests), max(test.detectable_epsilon for test in tests)
    where = f" of {_covered(evaluation, evidence)}" if evidence else ""
    parent = max((test.epsilon for test in evaluation.before.canaries), default=None)
    control = "not measured in the parent" if parent is None else f"{parent:.2f} was found in the parent"
    note = "" if parent else ", so that nothing shows they could have seen an error"
    against = evaluation.settings.get("calibrated_by")
    calibrated = f" (calibrated by {against})" if against else ""
    return f"{n} canaries{where}{calibrated}, which could show epsilon {most:.2f} at most; {control}{note}"


def _covered(evaluation: Evaluation, evidence: Exactness) -> str:
    seen, touched = set(evaluation.canary_shards), set(evidence.touched)
    if not seen:
        return f"the {len(touched)} touched shards, of which ones is not recorded"
    bare = f"; shard {_listed(map(shard_name, sorted(touched - seen)))} has none left" if touched - seen else ""
    return f"{len(touched & seen)} of {len(touched)} touched shards{bare}"


def _listed(names: Iterable[str]) -> str:
    found = list(names)
    return ", ".join(found[:_SHOWN]) + (f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else "") or "none"
