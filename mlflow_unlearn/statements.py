"""Values that are signed: what a certificate, a statement of lineage and a review say. Frozen, standard library only.

Each becomes the predicate of an in-toto Statement in a DSSE envelope; `dsse` writes it, `verifier` reads it without this package.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from .commitments import Commitments
from .policy import Policy
from .records import Basis, Effect, Evaluation, Split, Unlearned, Verdict

CERTIFICATE = "https://mlflow-unlearn.dev/certificate/v1"
REVIEW = "https://mlflow-unlearn.dev/review/v1"
LINEAGE = "https://slsa.dev/provenance/v1"
TRAINED, ADOPTED = "https://mlflow-unlearn.dev/trained/v1", "https://mlflow-unlearn.dev/adopted/v1"
"""Build types of a statement of lineage: recorded by the training run, or stated afterwards by a person."""

UNSIGNED = "Nothing here is signed yet."
"""Ends the description of a version, for as long as it is true; `signed_by` takes its place."""


class Role(StrEnum):
    """What a key is trusted with."""

    OWNER = "owner"
    """Says whom to trust, and which policy holds."""
    TRAINER = "trainer"
    """States what a version was trained on."""
    EVALUATOR = "evaluator"
    """Issues certificates."""
    REVIEWER = "reviewer"
    """Approves, and overrides what could not be decided."""


class ReviewKind(StrEnum):
    """What a reviewer signs."""

    APPROVAL = "approval"
    OVERRIDE = "override"
    """An INCONCLUSIVE verdict is deployed all the same, for a reason; never a FAIL."""


@dataclass(frozen=True, kw_only=True)
class Registration:
    """One version of one registry: names repeat elsewhere, the id of a run and the moment of creation do not."""

    name: str
    version: str
    run_id: str
    """MLflow's random id of the run behind the version; empty where it has none."""
    created_at: int
    """Milliseconds since 1970, as the registry has it."""


@dataclass(frozen=True, kw_only=True)
class CertifiedRequest:
    """A request that a version was made to forget."""

    request_id: str
    basis: Basis
    effect: Effect
    received_at: datetime
    due_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class LedgerHead:
    """The last event of the ledger when a statement was made: a ledger that does not hold it is another one, or was rolled back."""

    number: int
    digest: str


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What was done to forget, how it was measured and what follows. The subject of its statement are the files and the tensors of the model."""

    registered: Registration
    parent: Registration
    """The version that was made to forget, as the registry had it: a name and a number can be given again."""
    requests: tuple[CertifiedRequest, ...]
    commitments: Commitments
    """Roots of the data that the parent was trained on, and of what of them was retained."""
    split: Split
    unlearned: Unlearned
    """Method with every parameter, claim, parent, and for an exact claim its logs and replays."""
    evaluation: Evaluation
    """Counts, ranks and values behind every figure that decides, attempts, and the positive control in the parent."""
    policy: Policy
    policy_file: str
    """sha256 of policy.yaml as it lay there; empty where there was none."""
    verdicts: tuple[Verdict, ...]
    not_claimed: tuple[str, ...]
    code: str
    """Digest of this package's source files."""
    environment: str
    """Digest of `lock`."""
    lock: Mapping[str, str]
    """Distribution -> version of everything installed, and `python`."""
    ledger: LedgerHead
    issued_at: datetime
    expires_at: datetime


@dataclass(frozen=True, kw_only=True)
class Review:
    """A person's decision about one certificate or statement of lineage, whose payload digest is its subject."""

    kind: ReviewKind
    registered: Registration
    alias: str
    """The alias it is for."""
    reason: str
    """A code of reasons.APPROVALS or reasons.OVERRIDES."""
    issued_at: datetime
    expires_at: datetime


@dataclass(frozen=True, kw_only=True)
class TrustedKey:
    """One line of the trust file."""

    key_id: str
    """sha256 of the public key as SubjectPublicKeyInfo, hex."""
    public: str
    """The 32 bytes of an Ed25519 public key, hex."""
    holder: str
    """Whose it is; two keys of one holder never count as two people."""
    roles: tuple[Role, ...]
    valid_from: datetime
    valid_until: datetime
    revoked_at: datetime | None = None
    """From then on nothing that it ever signed counts: whoever stole it can date back."""
    revoked_for: str = ""
    """A code of reasons.REVOCATIONS."""


@dataclass(frozen=True, kw_only=True)
class Trust:
    """The trust file: who may sign what. Signed by an owner whose key is in it."""

    number: int
    """One more with every change."""
    issued_at: datetime
    keys: tuple[TrustedKey, ...]
    policy_file: str = ""
    """sha256 of the policy.yaml that the owner stands for; empty: none."""
    policy: str = ""
    """`policy_digest` of its values, which whoever has no YAML can compare with those in a certificate."""
    data: str = ""
    """sha256 of the canonical bytes of `data` in params.yaml: in which columns people are looked for; empty: nobody stands for it."""
    ledger: LedgerHead | None = None
    """An event of the ledger in which the owner enters requests: one that does not hold it is another ledger, or was rolled back."""


def signed_by(what: str, digest: str, holders: Mapping[str, str]) -> str:
    """The last sentence of a version's description, e.g. `Signed by ci (key 0123456789abcdef): certificate 89ab..., ...`.

    Args:
        what: `certificate` or `lineage`.
        digest: of its payload.
        holders: key id -> holder, of those who signed.
    """
    names = ", ".join(f"{holder} (key {key_id[:16]})" for key_id, holder in holders.items())
    return f"Signed by {names}: {what} {digest[:16]}; check it yourself with `mlflow-unlearn verify`."
