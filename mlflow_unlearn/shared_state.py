"""The verb `shared_state`: of everything that all shards share, whether it saw a forgotten record. Pure.

Retraining a shard does not touch it, so that an exact claim has to answer for it apart (Bourtoule et al. 2021, arXiv:1912.03817, count on shards
that share nothing). Most of what other pipelines share is not there in this one, which is said; what is left is the base model and its tokenizer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from .exact_conditions import SHARED, TRUSTED
from .exactness import SharedPart
from .lineage import Derivation

BASE, TOKENIZER = SHARED[:2]
_NAMED = 4  # files
_REMEDY = "make it in a stage, of data and texts that DVC tracks, register it with its lineage, or vouch for it: policy.yaml, trusted_bases: {trust}"


@dataclass(frozen=True, kw_only=True)
class BaseSeen:
    """What the base and its tokenizer, which come from one place, saw as far as anybody can tell."""

    kind: Literal["affected", "clear", "unknown"]
    why: str
    searched: Mapping[str, int]
    """Path of every text or table that it was made from -> forgotten records whose question is in it."""


@dataclass(frozen=True, kw_only=True)
class SharedEvidence:
    """Everything that the answer goes by."""

    reference: str
    """Of the base, as `exact.base` has it."""
    digests: Mapping[str, str]
    """Part -> its digest: tensors of the base model, files of the tokenizer; one may be missing."""
    seen: BaseSeen
    trusted: Collection[str]
    """References and digests that the policy vouches for."""
    aggregation: str


def shared_state(evidence: SharedEvidence) -> tuple[SharedPart, ...]:
    """One entry for each of `SHARED`, in order; None where nobody can say."""
    fixed = {
        "normalisation": "no statistic is taken of the data: a record is put into a fixed template and cut into tokens by itself",
        "deduplication": "no record stays or goes because of another one; what was done before DVC tracked the data is not known and not claimed",
        "early stopping": "none: every slice takes the steps that its settings say, and nothing is held out to stop by",
        "thresholds": "none: no answer is cut off, scaled or calibrated by a figure taken of the data",
        "aggregation": f"`{evidence.aggregation}` is a rule without weights; who is in which shard says the keyed hash of the person alone",
    }
    own = (_part(name, evidence) for name in (BASE, TOKENIZER))
    return (*own, *(SharedPart(name=name, holds=True, detail=fixed[name]) for name in SHARED[2:]))


def _part(name: str, evidence: SharedEvidence) -> SharedPart:
    """What was found outweighs trust: a person who vouches may be wrong, and a path in the graph is not."""
    seen, digest = evidence.seen, evidence.digests.get(name)
    if seen.kind == "affected":
        return SharedPart(name=name, holds=False, detail=f"saw forgotten records: {seen.why}; make it again without them, which makes a new family")
    if seen.kind == "clear":
        return SharedPart(name=name, holds=True, detail=seen.why + _searched(seen.searched))
    named = next((each for each in (evidence.reference, digest) if each in evidence.trusted), None)
    if named is not None:
        return SharedPart(name=name, holds=True, detail=f"{TRUSTED}: {named if named != digest else named[:16]}")
    trust = digest if TOKENIZER in evidence.digests else evidence.reference
    return SharedPart(name=name, holds=None, detail=f"{seen.why}; {_REMEDY.format(trust=trust)}")


def _searched(found: Mapping[str, int]) -> str:
    if not found:
        return ""
    named = sorted(found)
    more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    return f"; none of the forgotten records' questions stands in what it was made from ({', '.join(named[:_NAMED])}{more})"


def upstream(target: str, derivations: Iterable[Derivation], ends: Collection[str]) -> dict[str, str]:
    """Everything that an output was made from, directly or not, over all revisions: md5 -> one of its paths.

    Args:
        target: md5 of the output, which is not among them.
        derivations: edges of DVC's graph.
        ends: md5s beyond which nobody has to look, since their own rows are known.
    """
    sources: dict[str, dict[str, str]] = {}
    for edge in sorted(derivations):
        if edge.source:
            sources.setdefault(edge.target, {}).setdefault(edge.source, edge.source_path)
    found: dict[str, str] = {}
    waiting = [target]
    while waiting:
        above = {md5: path for md5, path in sources.get(waiting.pop(), {}).items() if md5 not in found and md5 != target}
        found |= above
        waiting += [md5 for md5 in above if md5 not in ends]
    return found
