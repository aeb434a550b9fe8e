"""The rules of an exact claim: the records took no part in the training (Bourtoule et al. 2021, arXiv:1912.03817, section III), and the training is
what its log says, since repeating it gave the same tensors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from .counting import holm, log_comb

Condition = tuple[str, bool | None, bool]
"""(name, whether it holds or None where that is not known, whether not to hold is evidence of leakage or damage, which makes FAIL)."""
SHARED = {"base model", "tokenizer", "normalisation", "deduplication", "early stopping", "thresholds", "aggregation"}
"""All that shards can share."""
ALARM = 0.01
"""Adjusted p of canaries below which they contradict a claim of exactness."""


def of_shards(shown: Mapping[str, Any] | None, policy: Mapping[str, Any]) -> list[Condition]:
    """What the logs and replays of shards show; None where nobody kept any."""
    if shown is None:
        return [(name, None, False) for name in ("forgotten records", "untouched shards", "replay", "shared state")]
    now, before = shown["digests"], shown["before"]
    told = now.keys() | set(map(_name, shown["empty"]))
    others = (before.keys() | now.keys()) - set(map(_name, shown["touched"]))
    complete = bool(now) and set(map(_name, range(shown["shards"]))) == told
    soiled = any(part["holds"] is False for part in shown["shared"])
    unknown = any(part["holds"] is None for part in shown["shared"]) or SHARED - {part["name"] for part in shown["shared"]}
    return [
        ("forgotten records", complete or None if shown["holding"] == [] else False, True),
        ("untouched shards", not before or all(before.get(name) == now.get(name) for name in others), True),
        _replayed(shown, policy),
        ("shared state", False if soiled else (None if unknown else True), True),
    ]


def _name(shard: int) -> str:
    return f"{shard:03d}"


def _replayed(shown: Mapping[str, Any], policy: Mapping[str, Any]) -> Condition:
    """Every shard that the policy names was trained twice with equal tensors. One unequal repetition on a CPU, in an equal environment, is evidence
    against the log, however often others came out equal.
    """
    now, logs = shown["digests"], shown["logs"]
    needed = now if policy["replayed_shards"] == "all" else [name for name in now if shown["before"].get(name) != now[name]]
    own = [each for each in shown["replays"] if each["log"] and _of(each, now) == each["logged"] and _of(each, logs) == each["log"]]
    if any(each["logged"] != each["found"] and not each["differences"] and each["device"].startswith("cpu") for each in own):
        return "replay", False, True
    equal = {_name(each["shard"]) for each in own if each["logged"] == each["found"]}
    unequal = [each for each in own if _name(each["shard"]) not in equal]
    same = [each for each in unequal if not each["differences"]]
    on_cpu = any(each["device"].startswith("cpu") for each in unequal)
    if unequal and not (policy["replay"] == "attempted" and not on_cpu and len(same) == len(unequal)):
        return "replay", False, bool(same) and on_cpu
    done = equal | {_name(each["shard"]) for each in unequal}
    return "replay", True if now and set(needed) <= done else None, True


def _of(replay: Mapping[str, Any], digests: Mapping[str, str]) -> str | None:
    return digests.get(_name(replay["shard"]))


def alarm(evaluation: Mapping[str, Any], p: Mapping[str, float], drawn: int, attacks: set[str]) -> Condition:
    """Canaries of the touched shards contradict exactness, do not, or could not have."""
    name = "canary alarm"
    if not p:
        return name, None, False
    if min(holm(p).values()) < ALARM:
        return name, False, True
    return name, None if _blind(evaluation, drawn, len(p), attacks) else True, True


def _blind(evaluation: Mapping[str, Any], drawn: int, count: int, attacks: set[str]) -> bool:
    """Whether no alarm could have been raised, or the canaries had been looked at before."""
    counts = evaluation["after"]["verbatim"]
    tests = evaluation["after"]["canaries"]
    n = min(test["auc"]["n"] for test in tests)
    included = counts["included"] if counts and counts["included"] + counts["excluded"] == n else n // 2
    unasked = bool(attacks - {test["attack"] for test in tests}) or count / (1 + drawn) >= ALARM
    known = evaluation["canaries_committed"] is not True or evaluation["pool_spent_by"] is not None
    return unasked or known or math.log(count / ALARM) >= log_comb(n, included)
