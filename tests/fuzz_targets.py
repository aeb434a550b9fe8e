"""What is fuzzed: each parser of what strangers hand us, with valid documents to damage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from unittest.mock import patch

import certified
import simulated
from trusted_keys import ANA, BO, CY, DAY, NOW, trust_bytes, trusting

from mlflow_unlearn import dsse, trust, verifier
from mlflow_unlearn.records import Claim
from mlflow_unlearn.statements import REVIEW, Registration, Review, ReviewKind, Role
from mlflow_unlearn.verifier.envelopes import IN_TOTO

_HELD = trusting(BO.line(Role.TRAINER, Role.EVALUATOR), CY.line(Role.REVIEWER), policy_file="c" * 64)
_TRUST = (trust.sealed(_HELD, [ANA]), trust.sealed(trust.revoked(_HELD, [BO.key_id], "lost", NOW), [ANA]))
_REVIEW = Review(
    kind=ReviewKind.APPROVAL,
    registered=Registration(name="m", version="3", run_id="r" * 32, created_at=1_795_000_000_000),
    alias="champion",
    reason="reviewed",
    issued_at=NOW,
    expires_at=NOW + 30 * DAY,
)
_REVIEWED = [{"name": "certificate", "digest": {"sha256": "a" * 64}}]
_STATEMENTS = tuple(dsse.seal(dsse.statement(REVIEW, _REVIEWED, _REVIEW), IN_TOTO, signers) for signers in ([CY], [CY, BO]))
_SIGNED = {verifier.open_envelope(each, "seed").digest for each in (*_TRUST, *_STATEMENTS)}
_BELIEVED = verifier.read_trust(trust_bytes(_HELD), NOW)
_MODEL = [{"name": ".", "digest": {"sha256": "a" * 64, "tensors": "b" * 64}}]
_CASE = certified.Case(certificate=b"", trust=certified.trust_file(), policy=certified.POLICY_FILE, proofs=certified.absences())


@dataclass(frozen=True, kw_only=True)
class Target:
    """A parser."""

    share: int
    """Of 1,000 inputs: a certificate takes a hundred times as long as an envelope."""
    parse: Callable[[bytes], object]
    seeds: Callable[[], Sequence[bytes]]


def _trust(raw: bytes) -> None:
    verifier.read_trust(raw, NOW)
    _believed(raw)


def _statement(raw: bytes) -> None:
    verifier.read_statement(raw, _BELIEVED, "reviewer", NOW)
    _believed(raw)


def _believed(raw: bytes) -> None:
    """Nothing that was not signed may be believed."""
    if verifier.open_envelope(raw, "believed").digest not in _SIGNED:
        raise AssertionError("believed although nobody signed it")


@cache
def _certificates() -> tuple[bytes, ...]:
    """Of an approximate and an exact claim, over fifty canaries, which are counted fast."""
    with patch.dict(simulated.SIZES, dict.fromkeys(simulated.SIZES, 50)):
        evaluation = simulated.drawn(simulated.UNKNOWN, simulated.UNKNOWN)
        made = [certified.certificate(_MODEL, claim, evaluation=evaluation) for claim in (Claim.APPROXIMATE, Claim.EXACT)]
    return tuple(certified.signed(each, _MODEL) for each in made)


def _certificate(raw: bytes) -> None:
    """Signed anew, as an evaluator could who lies or errs."""
    opened = verifier.open_envelope(raw, "certificate")
    _answer(replace(_CASE, certificate=dsse.seal(opened.payload, opened.payload_type, [certified.signer("ci")])))


def _proofs(raw: bytes) -> None:
    _answer(replace(_CASE, certificate=_certificates()[1], proofs=raw))


def _answer(case: certified.Case) -> None:
    """`verify` has an answer to everything, and a yes has no reason against it."""
    found = verifier.verify(case, certified.NOW)
    if (found.answer == "yes") is bool(found.reasons):
        raise AssertionError(f"{found.answer} for {found.reasons}")
    if found.answer != "yes":
        raise verifier.UndecidedError(found.reasons[0])


def _payloads() -> list[bytes]:
    return [verifier.open_envelope(each, "seed").payload for each in (*_TRUST, *_STATEMENTS)]


TARGETS: Mapping[str, Target] = {
    "json": Target(share=300, parse=lambda raw: verifier.read_json(raw, "document"), seeds=_payloads),
    "envelope": Target(share=300, parse=lambda raw: verifier.open_envelope(raw, "envelope"), seeds=lambda: [*_TRUST, *_STATEMENTS]),
    "trust file": Target(share=200, parse=_trust, seeds=lambda: _TRUST),
    "statement": Target(share=190, parse=_statement, seeds=lambda: _STATEMENTS),
    "certificate": Target(share=7, parse=_certificate, seeds=_certificates),
    "proofs": Target(share=3, parse=_proofs, seeds=lambda: [certified.absences()]),
}
