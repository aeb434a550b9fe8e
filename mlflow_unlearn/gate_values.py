"""What the verb `gate` goes by and what it answers, as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from .lineage import ModelVersion, Trace, VersionLineage
from .policy import GatePolicy
from .records import ErasureRequest
from .statements import CertifiedRequest

Answer = Literal["yes", "no", "undecided"]


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Why the answer is no or undecided, or what a yes rests on."""

    answer: Literal["no", "undecided", "note"]
    code: str
    """One word for the ledger, which takes no free text."""
    text: str


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What is signed about one version, verified; what of it does not hold is in `problems`, what the registry has otherwise also in `recorded`."""

    statement: str = ""
    """Payload digest; empty where nothing is signed or it cannot be read."""
    kind: Literal["certificate", "lineage"] = "lineage"
    problems: tuple[Reason, ...] = ()
    recorded: tuple[Reason, ...] = ()
    """Where data and ancestors in the registry are not those that were signed. Whoever may write to a run can bring that about afterwards."""
    signed: VersionLineage | None = None
    """The lineage with the data and ancestors that were signed."""
    signers: frozenset[str] = frozenset()
    """Holders of the keys that signed and count."""
    holders: frozenset[str] = frozenset()
    """Of every key that signed, also where it does not count any more: nobody reviews what he or she signed."""
    requests: tuple[str, ...] = ()
    """What a certificate says it was made to forget,"""
    certified: tuple[CertifiedRequest, ...] = ()
    """and what was asked, to be held against the ledger."""
    outcomes: Mapping[str, str] = field(default_factory=dict)
    """Effect -> outcome, as the counts in a certificate give it; never as its verdict or a tag says."""
    details: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Effect -> the reasons that its verdict gives."""
    adopted: bool = False
    """Whether a person stated the lineage afterwards."""
    expires_at: datetime | None = None
    """Until when the statement holds."""

    @property
    def doubts(self) -> tuple[Reason, ...]:
        """What of it does not hold, and what the registry has otherwise."""
        return (*self.problems, *self.recorded)

    @property
    def holds(self) -> bool:
        """Whether something is signed and nothing of it is in doubt."""
        return bool(self.statement) and not self.doubts


@dataclass(frozen=True, kw_only=True)
class Reviewed:
    """A reviewer's verified word for a version."""

    digest: str
    """Payload digest of the review."""
    kind: Literal["approval", "override"]
    statement: str
    """Payload digest of what was reviewed."""
    alias: str
    holder: str
    reason: str
    expires_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Everything that an answer goes by. What is missing here makes it undecided."""

    model: ModelVersion
    closure: Sequence[VersionLineage]
    """The version and every registered ancestor, as the registry has them."""
    proofs: Mapping[ModelVersion, Proof]
    traced: Trace | None
    """Of the requests that were not refused, over `attested(...)`."""
    requests: Sequence[ErasureRequest] = ()
    """The requests that were not refused."""
    reaching: tuple[str, ...] = ()
    """Ids of those whose records reach the version."""
    ground: tuple[Reason, ...] = ()
    """What is wrong with the trust file, the policy file or the ledger, on which all else rests."""
    others: tuple[Reason, ...] = ()
    """What else was found: erased records in data added since, an interim measure, reviews that do not count."""
    alias: str | None = None
    """The alias it is asked for."""
    reviews: tuple[Reviewed, ...] = ()
    policy: GatePolicy = field(default_factory=GatePolicy)
    now: datetime
    files: tuple[str, ...] = ()
    """Digests of trust file and policy file, and of the ledger's head."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The gate's answer with all its reasons."""

    model: ModelVersion
    answer: Answer
    reasons: tuple[Reason, ...]
    evidence: tuple[str, ...] = ()
    """Digests of what it rests on, sorted."""
    until: datetime | None = None
    """When the first of the signatures it rests on runs out."""
    due: datetime | None = None
    """When the first request that reaches the version is due; None too where one that reaches it was closed, or has no date."""

    @property
    def sentence(self) -> str:
        """The answer in a sentence."""
        words = {"yes": "may be deployed", "no": "must not be deployed", "undecided": "could not be decided, which is no yes"}
        return f"{self.model} {words[self.answer]}"

    @property
    def codes(self) -> tuple[str, ...]:
        """Codes of what keeps it from yes, or else of what a reader should know; each once."""
        against = [reason.code for reason in self.reasons if reason.answer != "note"]
        return tuple(dict.fromkeys(against or [reason.code for reason in self.reasons]))
