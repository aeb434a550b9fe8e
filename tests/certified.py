"""A whole case for the verifier, made of numbers: keys, trust file, policy.yaml, a tiny model, its certificate, and proofs of absence."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from exact_evidence import made, sound
from safetensors.numpy import save_file
from simulated import PARENT, honest

from mlflow_unlearn import dsse, proofs, trust
from mlflow_unlearn.commitments import Commitments, CommittedRevision, committed
from mlflow_unlearn.digests import canonical_json
from mlflow_unlearn.documents import encode
from mlflow_unlearn.judge import judge
from mlflow_unlearn.policy import Policy
from mlflow_unlearn.records import Basis, Claim, Effect, Evaluation, Split, Unlearned
from mlflow_unlearn.signing_keys import FileSigner
from mlflow_unlearn.statements import CERTIFICATE, Certificate, CertifiedRequest, LedgerHead, Registration, Role, Trust, TrustedKey
from mlflow_unlearn.verifier import key_id, subject_of
from mlflow_unlearn.verifier.answer import Case
from mlflow_unlearn.verifier.envelopes import IN_TOTO
from mlflow_unlearn.verifier.merkle import Tree

NOW = datetime.now(UTC).replace(microsecond=0)
"""Commands ask the clock, so that nothing here may lie in its future."""
LATER = NOW + timedelta(days=365)
POLICY_FILE = b"alpha: 0.05\n"
REGISTERED = Registration(name="m", version="2", run_id="7" * 32, created_at=1_764_590_000_000)
PARENT_REGISTERED = Registration(name=PARENT.model.name, version=PARENT.model.version, run_id="6" * 32, created_at=1_764_500_000_000)
SETS = {"forget": "1" * 64, "retain": "2" * 64, "holdout": "3" * 64}
"""Set -> sha256 of its file; the digest of the split is over the three."""
SPLIT = hashlib.sha256(canonical_json(list(SETS.values()))).hexdigest()
COMMITMENT_KEY = bytes(32)
RETAINED = Tree.build(b"".join(bytes([each]) * 32 for each in range(10, 90, 10)))


@cache
def signer(holder: str) -> FileSigner:
    """The one key of a holder, the same in every run."""
    key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(holder.encode()).digest())
    return FileSigner(key_id=key_id(key.public_key().public_bytes_raw()), _key=key)


def trusted(holder: str, *roles: Role, **changes: Any) -> TrustedKey:
    """A line of the trust file, valid for a year around NOW."""
    public = signer(holder)._key.public_key().public_bytes_raw()
    line = trust.trusted(public, holder, roles, 730, NOW - timedelta(days=365))
    return replace(line, **changes)


OWNER = trusted("owner", Role.OWNER)
KEYS = (OWNER, trusted("ci", Role.EVALUATOR, Role.TRAINER), trusted("reviewer", Role.REVIEWER))


def trust_file(*keys: TrustedKey, by: str = "owner", **changes: Any) -> bytes:
    """A trust file as an owner signs it; nothing checks it, so that what nobody should sign can be signed."""
    value = Trust(number=1, issued_at=NOW, keys=keys or KEYS, policy_file=hashlib.sha256(POLICY_FILE).hexdigest())
    document = {"schema": trust.TRUST_SCHEMA, **encode(replace(value, **changes))}
    return dsse.seal(dsse.canonical(document, "trust file"), trust.TRUST_TYPE, [signer(by)])


def model_folder(folder: Path) -> Path:
    """Two files of weights and what MLflow puts beside them: 300 bytes in all."""
    (folder / "data").mkdir(parents=True)
    save_file({"a": np.arange(4, dtype=np.float32)}, folder / "data" / "one.safetensors")
    save_file({"b": np.ones((2, 2), np.float32)}, folder / "data" / "two.safetensors")
    (folder / "MLmodel").write_text("flavors: {}\n")
    (folder / "registered_model_meta").write_text("model_name: m\n")
    return folder


def evidence(claim: Claim, tensors: str, evaluation: Evaluation | None = None) -> tuple[Unlearned, Evaluation]:
    """The run that made these weights, and what was measured on them."""
    run = made(claim, sound() if claim is Claim.EXACT else None)
    return replace(run, tensor_digest=tensors, split_digest=SPLIT), replace(evaluation or honest(), unlearned=tensors, split_digest=SPLIT)


def certificate(subject: Sequence[Mapping[str, Any]], claim: Claim = Claim.APPROXIMATE, **changes: Any) -> Certificate:
    """What the evaluator would sign about a model; it follows from `evaluation` and `unlearned`, whichever are given."""
    run, evaluation = evidence(claim, str(subject[0]["digest"]["tensors"]), changes.pop("evaluation", None))
    run, policy = changes.pop("unlearned", run), changes.pop("policy", Policy())
    certified = Certificate(
        registered=REGISTERED,
        parent=PARENT_REGISTERED,
        requests=(
            CertifiedRequest(request_id="er-1", basis=Basis.GDPR_17, effect=Effect.REMOVAL, received_at=NOW - timedelta(days=9), due_at=LATER),
        ),
        commitments=_commitments(),
        split=Split(requests=("er-1",), parent=PARENT, effects=(Effect.REMOVAL,), rows={"forget": 2, "retain": 8}, files=SETS, digest=SPLIT),
        unlearned=run,
        evaluation=evaluation,
        policy=policy,
        policy_file=hashlib.sha256(POLICY_FILE).hexdigest(),
        verdicts=judge(evaluation, policy, run),
        not_claimed=("that copies elsewhere forgot",),
        code="4" * 64,
        environment="5" * 64,
        lock={"python": "3.11.9", "mlflow-unlearn": "0.1.0"},
        ledger=LedgerHead(number=7, digest="6" * 64),
        issued_at=NOW - timedelta(days=1),
        expires_at=LATER,
    )
    return replace(certified, **changes)


def _commitments() -> Commitments:
    states = tuple(CommittedRevision(name=each.name, md5=each.md5, commitment=committed(RETAINED.head, COMMITMENT_KEY)) for each in PARENT.datasets)
    return Commitments(dataset="d", revisions=states, retain=committed(RETAINED.head, COMMITMENT_KEY))


def absences() -> bytes:
    """Proofs that two leaves are not among what was retained."""
    shown = tuple(proofs.written(RETAINED.prove(bytes([each]) * 32)) for each in (5, 45))
    found = proofs.Proofs(dataset="d", about={"set": "retain"}, commitment=committed(RETAINED.head, COMMITMENT_KEY), proofs=shown)
    return json.dumps(proofs.document(found)).encode()


def signed(predicate: Any, subject: Sequence[Mapping[str, Any]], by: str = "ci", kind: str = CERTIFICATE) -> bytes:
    """An envelope over a statement."""
    return dsse.seal(dsse.statement(kind, subject, predicate), IN_TOTO, [signer(by)])


def payload(envelope: bytes) -> Any:
    """The document in an envelope."""
    return json.loads(base64.b64decode(json.loads(envelope)["payload"]))


@dataclass(frozen=True, kw_only=True)
class Certified:
    """The files of one certified version."""

    folder: Path
    """Holds model/, and certificate.json, trust.json, policy.yaml and proofs.json beside it."""
    subject: list[dict[str, Any]]
    said: Certificate
    case: Case

    def saying(self, predicate: Any) -> Case:
        """The same case with something else certified, signed as well as the first."""
        return replace(self.case, certificate=signed(predicate, self.subject))


def certified(folder: Path, claim: Claim = Claim.APPROXIMATE, **changes: Any) -> Certified:
    """A valid case below `folder`, but for what is changed of the certificate."""
    subject = subject_of(model_folder(folder / "model"))
    said = certificate(subject, claim, **changes)
    case = Case(
        certificate=signed(said, subject),
        trust=trust_file(),
        owner=OWNER.key_id[:16],
        model=folder / "model",
        policy=POLICY_FILE,
        proofs=absences(),
        registered=encode(said.registered),
    )
    for name, raw in {"certificate.json": case.certificate, "trust.json": case.trust, "policy.yaml": case.policy, "proofs.json": case.proofs}.items():
        (folder / name).write_bytes(raw or b"")
    return Certified(folder=folder, subject=subject, said=said, case=case)
