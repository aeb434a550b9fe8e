"""The values that flow through the pipeline: frozen, keyword-only, standard library only.

ErasureRequest -> Trace -> Split -> Unlearned -> Evaluation -> Verdict. No value holds an identifier or a text of a person: people and
records appear as keyed tags (hex, 128 bits), as counts, or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from .exactness import Exactness
from .lineage import ModelVersion, Parent
from .measurements import CanaryTest as CanaryTest
from .measurements import Curve as Curve
from .measurements import Direction as Direction
from .measurements import Gap as Gap
from .measurements import ModelReport as ModelReport
from .measurements import Probe as Probe
from .measurements import Score as Score
from .measurements import Verbatim as Verbatim


class Basis(StrEnum):
    """Why a person or an authority may ask for erasure."""

    GDPR_17 = "gdpr_17"
    CCPA = "ccpa"
    COPYRIGHT = "copyright"
    SAFETY = "safety"
    CONTRACT = "contract"
    POISONING = "poisoning"


class Effect(StrEnum):
    """What is asked: the trace of the records removed, or only their output suppressed (Cooper et al. 2025)."""

    REMOVAL = "removal"
    SUPPRESSION = "suppression"


class Claim(StrEnum):
    """What an unlearning run may claim: retrained without the data, bounded by (epsilon, delta), or only measured."""

    EXACT = "exact"
    CERTIFIED = "certified"
    APPROXIMATE = "approximate"


class Outcome(StrEnum):
    """A verdict. Failing to detect is not passing: what could not be decided is INCONCLUSIVE."""

    PASS = "PASS"  # noqa: S105 - a verdict
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"


class State(StrEnum):
    """Where an erasure request stands."""

    OPEN = "open"
    CLOSED = "closed"
    REFUSED = "refused"


@dataclass(frozen=True, kw_only=True)
class Recipient:
    """Somebody to whom the data were disclosed and who has to be told of the erasure (GDPR art. 19), by a code."""

    name: str
    told_at: datetime | None = None
    acknowledged_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class ErasureRequest:
    """One entry of the ledger."""

    request_id: str
    basis: Basis
    effect: Effect
    received_at: datetime
    due_at: datetime | None
    state: State = State.OPEN
    subjects: tuple[str, ...] = ()
    records: tuple[str, ...] = ()
    """Keyed tags of the people, and of the single records, to forget; sorted. What was lifted after closing is not among them."""
    extension: str | None = None
    """Why the deadline was extended, as a code of reasons.EXTENSIONS."""
    paused_at: datetime | None = None
    """Since when the clock stands still; the deadline moves by the pause when it ends."""
    ground: str | None = None
    """On which ground it was refused, as a code of reasons.GROUNDS."""
    interim: tuple[str, ...] = ()
    """Measures of reasons.MEASURES in force; sorted."""
    recipients: tuple[Recipient, ...] = ()
    lifted: int = 0
    """Tags of people who lawfully returned after closing."""


@dataclass(frozen=True, kw_only=True)
class Tombstones:
    """What closed requests left behind, so that a dataset which brings it back can be refused: keyed, without any text."""

    subjects: frozenset[str] = frozenset()
    records: frozenset[str] = frozenset()
    contents: frozenset[str] = frozenset()
    """Keyed tags, 32 hex characters each."""
    sketches: tuple[str, ...] = ()
    """Keyed near-duplicate fingerprints, each up to 4096 hex characters; sorted, each once."""


@dataclass(frozen=True, kw_only=True)
class Project:
    """One pipeline that shares the ledger with others."""

    name: str
    repository: str
    """URL of the git remote without credentials, else `git-root:` and the first commit."""
    folder: str
    """Folder of its params.yaml, relative to the git root."""
    model: str
    dataset: str


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """Somebody asked for an alias to point at a version, and got it or not."""

    model: ModelVersion
    alias: str
    replaced: str | None
    """Number of the version that the alias pointed at; None where it did not exist."""
    granted: bool
    answer: str
    """The gate's: yes, no or undecided."""
    enforcement: str
    """observe, warn or enforce: why a no may have been granted."""
    codes: tuple[str, ...]
    """The gate's reasons, as codes."""
    evidence: tuple[str, ...]
    """Digests of the statements and files that the answer rests on."""
    by: str
    """Who, as they call themselves: nobody verifies it."""
    at: datetime


@dataclass(frozen=True, kw_only=True)
class Split:
    """Sizes and digests of the sets; the rows themselves stay under build/raw. forget + retain is the dataset, exactly."""

    requests: tuple[str, ...]
    parent: Parent
    effects: tuple[Effect, ...]
    rows: Mapping[str, int]
    files: Mapping[str, str]
    """Set name (dataset, forget, retain, holdout, ...) -> number of records, and -> sha256 of its file under build/raw."""
    digest: str
    """sha256 over the three digests of forget, retain and holdout."""
    canaries: Mapping[str, int | str | bool] = field(default_factory=dict)
    """audit_included, audit_excluded, tuning_included, tuning_excluded, commitment, committed (before training), spent."""


@dataclass(frozen=True, kw_only=True)
class Unlearned:
    """What an unlearning run made."""

    requests: tuple[str, ...]
    parent: Parent
    tensor_digest: str
    split_digest: str
    method: Mapping[str, object]
    """The method section of params.yaml, complete with defaults, plus seed and optimiser settings."""
    claim: Claim
    steps: int
    """Optimiser steps done."""
    kept_step: int | None = None
    """The step whose weights these are; None in documents of before steps were chosen: the last."""
    seconds: float
    stopped: str
    """Why no further step was done."""
    notes: tuple[str, ...] = ()
    """What a reader of the run should know: little memory, no tuning data, a state taken up after a kill."""
    losses: tuple[Mapping[str, float], ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    exactness: Exactness | None = None
    """What an exact claim rests on; None where nobody kept a log of the training, shard by shard."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The parent, the unlearned model and the unlearned model after a benign fine-tune, side by side."""

    requests: tuple[str, ...]
    parent: Parent
    unlearned: str
    split_digest: str
    attempt: int
    """1 for the first time audit canaries were opened for this parent and pool, and so on."""
    pool_spent_by: str | None
    """The closed batch that already used this pool, if any."""
    before: ModelReport
    after: ModelReport
    after_finetune: ModelReport
    utility: Mapping[str, Score]
    """`set/metric` -> paired difference after - before; the lower limit must stay above minus the margin."""
    paraphrase_gap: Score | None = None
    """Mean probability of included canaries' answers to paraphrased questions above that of excluded ones."""
    canaries_committed: bool = False
    """Whether the flips are the ones that git recorded with the training data."""
    canary_shards: tuple[int, ...] = ()
    """Shards whose canaries these are, on the exact route; sorted."""
    precisions: Mapping[str, ModelReport] = field(default_factory=dict)
    """Deployed precision -> report; `fp32` is `after` itself and is not repeated."""
    curves: Mapping[str, Curve] = field(default_factory=dict)
    """What relearning brings back, step by step."""
    policy: str = ""
    first_policy: str = ""
    """Digests of the policy at this evaluation and at the first attempt that opened this pool."""
    settings: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One condition of the verdict: holds, does not hold, or was not measured (None)."""

    name: str
    holds: bool | None
    detail: str
    failure: bool = False
    """True when not holding is evidence of leakage or damage (FAIL), false when it only keeps from PASS."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The answer for one effect with all its reasons."""

    effect: Effect
    outcome: Outcome
    reasons: tuple[str, ...]
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, kw_only=True)
class Registered:
    """The version that carries an unlearned model."""

    requests: tuple[str, ...]
    model: ModelVersion
    parent: ModelVersion
    tensor_digest: str
    run_id: str
    claim: Claim
    verdicts: Mapping[str, Outcome]
    certificate: str | None = None
    """Payload digest of its certificate; None as long as nobody signed one that holds."""
