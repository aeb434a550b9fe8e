"""The verb `gate`: may a version be deployed? Yes only where every piece of evidence is there and holds; it never guesses yes.

No: something is shown to be wrong. Undecided: something is missing or cannot be read. What is taken away or damaged can therefore only turn yes into
one of the others. Signatures, digests and figures were checked by whoever made these values (stages/proving.py); here is what follows from them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from .gate_values import Answer, Decision, Evidence, Proof, Reason, Reviewed
from .lineage import ModelVersion, TracedVersion, VersionLineage
from .records import Effect, ErasureRequest, Outcome, State

__all__ = ["Answer", "Decision", "Evidence", "Proof", "Reason", "Reviewed", "attested", "gate"]

_MOST = 6


def attested(closure: Sequence[VersionLineage], proofs: Mapping[ModelVersion, Proof], model: ModelVersion) -> tuple[VersionLineage, ...]:
    """The lineages with what a certificate proves in place of what tags say, for the trace.

    A path ends at an ancestor whose certificate holds and gives PASS. Where a version was made to forget and no certificate of it holds, `gate` says
    so of that version; likewise of the asked version's own verdict. Both are therefore no matter of the trace.
    """
    every = {effect.value: Outcome.PASS.value for effect in Effect}
    found = []
    for lineage in closure:
        proof = proofs.get(lineage.model, Proof())
        certified = proof.holds and proof.kind == "certificate"
        requests = proof.requests if certified else lineage.requests
        own = lineage.model == model or not certified
        found.append(replace(lineage, requests=requests, verdict=every if own else proof.outcomes))
    return tuple(found)


def gate(evidence: Evidence) -> Decision:
    """Decide about one version; all reasons, not the first."""
    reasons = tuple(_reasons(evidence))
    against = {reason.answer for reason in reasons} - {"note"}
    digests = {proof.statement for proof in evidence.proofs.values()} | {review.digest for review in evidence.reviews} | {*evidence.files}
    answer: Answer = "no" if "no" in against else "undecided" if against else "yes"
    ends = [*(proof.expires_at for proof in evidence.proofs.values()), *(review.expires_at for review in evidence.reviews)]
    reaching, open_ones = set(evidence.reaching), _open_reaching(evidence)
    due = [request.due_at for request in open_ones if request.due_at is not None]
    waits = len(due) == len(reaching)  # one that was closed, and so said to be done, is not waited for
    return Decision(
        model=evidence.model,
        answer=answer,
        reasons=reasons,
        evidence=tuple(sorted(digests - {""})),
        until=min((end for end in ends if end is not None), default=None),
        due=min(due, default=None) if waits else None,
    )


def _reasons(evidence: Evidence) -> Iterator[Reason]:
    yield from evidence.ground
    yield from evidence.others
    lineages = {lineage.model: lineage for lineage in evidence.closure}
    if evidence.model not in lineages:
        yield Reason(answer="undecided", code="not_registered", text=f"{evidence.model}: the registry does not say what it was made from")
    for model, lineage in lineages.items():
        yield from _proven(lineage, evidence.proofs.get(model, Proof()))
    yield from _as_asked(evidence)
    yield from _verdict(evidence)
    yield from _traced(evidence)
    yield from _approved(evidence)


def _proven(lineage: VersionLineage, proof: Proof) -> Iterator[Reason]:
    """What is signed about one version."""
    yield from proof.doubts
    if not proof.statement and not proof.doubts:
        need = "certificate" if lineage.requests else "signed lineage"
        yield Reason(answer="undecided", code="unsigned", text=f"{lineage.model}: no {need} binds its data and weights to a trusted key")
    if not proof.holds:
        return
    if lineage.requests and proof.kind == "lineage":
        text = f"{lineage.model}: made to forget {_some(lineage.requests)}, and no certificate says that it did"
        yield Reason(answer="undecided", code="no_certificate", text=text)
    stated = ", stated afterwards by a person" if proof.adopted else ""
    text = f"{lineage.model}: {proof.kind} {proof.statement[:16]} signed by {', '.join(sorted(proof.signers))}{stated}"
    yield Reason(answer="note", code="adopted" if proof.adopted else "signed", text=text)


def _as_asked(evidence: Evidence) -> Iterator[Reason]:
    """What certificates say was asked, against the ledger, which never changes these."""
    ledger = {request.request_id: request for request in evidence.requests}
    for model, proof in evidence.proofs.items():
        for said in proof.certified:
            asked = ledger.get(said.request_id)
            same = asked is None or (said.basis, said.effect, said.received_at) == (asked.basis, asked.effect, asked.received_at)
            if not same:
                text = f"{model}: its certificate has another basis, effect or date of {said.request_id} than the ledger"
                yield Reason(answer="no", code="request_differs", text=text)


def _verdict(evidence: Evidence) -> Iterator[Reason]:
    """The asked version's own certificate: PASS for the effect that each of its requests asked."""
    proof = evidence.proofs.get(evidence.model, Proof())
    if not proof.holds or proof.kind != "certificate":
        return
    asked = {request.request_id: request.effect.value for request in evidence.requests}
    if strangers := sorted(set(proof.requests) - asked.keys()):
        text = f"the ledger has no request {_some(strangers)} in force, which the certificate names"
        yield Reason(answer="no", code="other_requests", text=text)
    if not proof.requests:
        yield Reason(answer="undecided", code="no_request", text=f"{evidence.model}: its certificate names no request, so nothing follows from it")
    for effect in sorted({asked[request] for request in proof.requests if request in asked}):
        yield from _outcome(evidence, proof, effect)


def _outcome(evidence: Evidence, proof: Proof, effect: str) -> Iterator[Reason]:
    outcome = proof.outcomes.get(effect)
    if outcome == Outcome.PASS.value:
        yield Reason(answer="note", code="passed", text=f"{effect} {outcome}, counted again from the certificate")
        return
    override = next((each for each in _reviews(evidence, "override")), None)
    if outcome == Outcome.INCONCLUSIVE.value and override is not None and evidence.policy.override:
        text = f"{effect} {outcome}, overridden for {override.alias} by {override.holder}: {override.reason}"
        yield Reason(answer="note", code="overridden", text=text)
        return
    failed = outcome == Outcome.FAIL.value
    for why in proof.details.get(effect, ()) or ("the certificate gives no reason",):
        text = f"{effect} {outcome or 'unknown'}: {why}"
        yield Reason(answer="no", code="failed", text=text) if failed else Reason(answer="undecided", code="inconclusive", text=text)


def _traced(evidence: Evidence) -> Iterator[Reason]:
    line, kind = _line(evidence)
    if line is None:
        yield Reason(answer="undecided", code="not_traced", text="nobody traced the requests to it")
    elif kind == "affected":
        yield from _affected(evidence, line)
    elif kind == "unknown":
        yield Reason(answer="undecided", code="unknown", text=f"unknown: {line.why}")
    else:
        text = f"clear of {len(evidence.requests)} requests, with {len(evidence.closure) - 1} ancestors looked at"
        yield Reason(answer="note", code="clear", text=text)


def _affected(evidence: Evidence, line: TracedVersion) -> Iterator[Reason]:
    yield Reason(answer="no", code="affected", text=f"affected by {_some(evidence.reaching)}: {line.why}")
    for request in _open_reaching(evidence):
        if request.due_at is not None:
            days = (request.due_at - evidence.now).days
            if request.due_at < evidence.now:
                yield Reason(answer="no", code="overdue", text=f"{request.request_id} is overdue by {-days} days")
            else:
                yield Reason(answer="no", code="due", text=f"{request.request_id} is due in {days} days")


def _open_reaching(evidence: Evidence) -> tuple[ErasureRequest, ...]:
    """Open requests whose records reach the version."""
    return tuple(request for request in evidence.requests if request.request_id in evidence.reaching and request.state is State.OPEN)


def _approved(evidence: Evidence) -> Iterator[Reason]:
    """As many people as the policy asks, none of whom signed what they approve."""
    wanted = evidence.policy.approvals
    if not wanted:
        return
    if evidence.alias is None:
        text = "an approval is for one alias: ask models:/NAME@ALIAS, or name it with --alias"
        yield Reason(answer="undecided", code="no_alias", text=text)
        return
    people = sorted({review.holder for review in _reviews(evidence, "approval")})
    if len(people) < wanted:
        text = (
            f"{len(people)} of {wanted} people have approved it for {evidence.alias}: `mlflow-unlearn approve models:/{evidence.model} --alias ...`"
        )
        yield Reason(answer="undecided", code="approvals", text=text)
    else:
        yield Reason(answer="note", code="approved", text=f"approved for {evidence.alias} by {', '.join(people)}")


def _reviews(evidence: Evidence, kind: str) -> Iterator[Reviewed]:
    """Reviews of the version's statement for the alias, by others than its signers."""
    proof = evidence.proofs.get(evidence.model, Proof())
    signed = proof.signers | proof.holders
    for review in evidence.reviews if evidence.alias is not None and proof.statement else ():
        if review.kind == kind and review.statement == proof.statement and review.alias == evidence.alias and review.holder not in signed:
            yield review


def _line(evidence: Evidence) -> tuple[TracedVersion | None, str]:
    for kind in ("affected", "unknown", "clear") if evidence.traced else ():
        for line in getattr(evidence.traced, kind):
            if line.model == evidence.model:
                return line, kind
    return None, ""


def _some(names: Iterator[str] | Sequence[str] | frozenset[str]) -> str:
    """The first few names, and how many more there are."""
    known = sorted(names)
    return (", ".join(known[:_MOST]) + (f" and {len(known) - _MOST} more" if len(known) > _MOST else "")) or "nothing"
