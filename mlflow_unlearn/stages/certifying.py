"""The certificate of an unlearned version: what was asked, done, measured and judged, signed by the evaluator, beside the version it is about.

One that still says the same and holds is left alone, so that a repeated `register` writes equal bytes; a version that was registered without keys is
signed as soon as there are some.
"""

from __future__ import annotations

import hashlib
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import distributions
from typing import TYPE_CHECKING

from .. import dsse, trust, verifier
from ..commitments import Commitments
from ..documents import decode, encode
from ..errors import TamperedError, UnlearnError
from ..records import Evaluation, Registered, Split, Unlearned, Verdict
from ..review import not_claimed
from ..statements import CERTIFICATE, Certificate, CertifiedRequest, LedgerHead, Role, signed_by
from ..verifier.envelopes import IN_TOTO
from .attesting import expiry
from .committing import commitments
from .shard_plans import code_digest
from .signing import signer_for
from .workbench import Workbench

if TYPE_CHECKING:
    from ..adapters.statements import Statements


@dataclass(frozen=True, kw_only=True)
class Certified:
    """Whether a version has a certificate that holds."""

    digest: str | None
    """Of its payload."""
    words: str
    """Who signed, or why nobody did and what to type."""


def certify(bench: Workbench, registered: Registered, verdicts: Sequence[Verdict]) -> Certified:
    """Have a registered version certified, unless it is; without a trust file or an evaluator's key it stays unsigned, which is no error."""
    from ..adapters.statements import Statements

    statements = Statements(bench.registry)
    try:
        trusted = trust.read_trust(bench.settings.trust_file)
        found = _held(statements, trusted, registered, bench.value(Evaluation, "evaluation"), verdicts)
        done = found or _sign(bench, statements, trusted, registered, verdicts)
    except UnlearnError as error:
        return Certified(digest=None, words=f"not signed: {error}")
    return Certified(digest=done.digest, words=f"signed by {', '.join(key.holder for key in done.signers)}")


def installed() -> dict[str, str]:
    """Distribution -> version of everything installed, by its normal name (PEP 503), and `python`."""
    named = {re.sub(r"[-_.]+", "-", each.metadata["Name"]).lower(): each.version for each in distributions() if each.metadata["Name"]}
    return {**dict(sorted(named.items())), "python": platform.python_version()}


def _held(
    statements: Statements, trusted: verifier.Trust, registered: Registered, evaluation: Evaluation, verdicts: Sequence[Verdict]
) -> verifier.Statement | None:
    """The certificate that the version has, if it holds today and is about these weights, figures and verdicts.

    Raises:
        TamperedError: its parent is another one by now.
    """
    try:
        raw = statements.certificate(registered.model)
        found = verifier.read_statement(raw, trusted, Role.EVALUATOR, trust.this_second()) if raw is not None else None
    except (UnlearnError, verifier.RefusedError, verifier.UndecidedError):
        return None
    expected = {"registered": statements.registration(registered.model), "evaluation": evaluation, "verdicts": tuple(verdicts)}
    if found is None or any(found.predicate.get(key) != encode(value) for key, value in expected.items()):
        return None
    if found.predicate.get("parent") != encode(statements.registration(registered.parent)):
        raise TamperedError(f"{registered.parent} was registered again since {registered.model} was made from it and certified; restore it")
    return found


def _sign(
    bench: Workbench, statements: Statements, trusted: verifier.Trust, registered: Registered, verdicts: Sequence[Verdict]
) -> verifier.Statement:
    from ..adapters.signed_lineage import require_weights

    signer = signer_for(Role.EVALUATOR, trusted, bench.settings)
    with statements.files(registered.model) as folder, dsse.in_our_words():
        subject = verifier.subject_of(folder)
    require_weights(registered.model, registered.tensor_digest, subject)
    payload = dsse.statement(CERTIFICATE, subject, _certificate(bench, statements, registered, verdicts))
    envelope = dsse.seal(payload, IN_TOTO, [signer])
    with dsse.in_our_words():
        made = verifier.read_statement(envelope, trusted, Role.EVALUATOR, trust.this_second())
    statements.keep_certificate(registered.model, envelope, replace=True)
    statements.describe(registered.model, signed_by("certificate", made.digest, {key.key_id: key.holder for key in made.signers}))
    return made


def _certificate(bench: Workbench, statements: Statements, registered: Registered, verdicts: Sequence[Verdict]) -> Certificate:
    now, lock, head = trust.this_second(), installed(), bench.ledger.head()
    unlearned = bench.value(Unlearned, "unlearned")
    return Certificate(
        registered=statements.registration(registered.model),
        parent=statements.registration(registered.parent),
        requests=tuple(_request(bench, each) for each in registered.requests),
        commitments=_commitments(bench, registered),
        split=bench.value(Split, "split"),
        unlearned=unlearned,
        evaluation=bench.value(Evaluation, "evaluation"),
        policy=bench.policy,
        policy_file=trust.policy_file(bench.folder / "policy.yaml"),
        verdicts=tuple(verdicts),
        not_claimed=not_claimed(unlearned),
        code=code_digest(),
        environment=hashlib.sha256(dsse.canonical(lock, "lock")).hexdigest(),
        lock=lock,
        ledger=LedgerHead(number=head.number, digest=head.digest),
        issued_at=now,
        expires_at=expiry(bench, now),
    )


def _request(bench: Workbench, request_id: str) -> CertifiedRequest:
    asked = bench.ledger.get(request_id)
    return CertifiedRequest(request_id=request_id, basis=asked.basis, effect=asked.effect, received_at=asked.received_at, due_at=asked.due_at)


def _commitments(bench: Workbench, registered: Registered) -> Commitments:
    """Those that the version was registered with: made anew under another key they would be others."""
    document = bench.registry.document(registered.model, "commitment")
    if document is None:
        return commitments(bench)
    body = {key: value for key, value in document.items() if key != "schema"}
    return decode(Commitments, body, f"{registered.model}: commitment.json")
