"""What is signed about versions, read and verified for the gate: nothing here takes a tag's or a verdict's word."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from .. import verifier
from ..documents import decode, encode
from ..errors import ConfigError, LineageError, StoreError, TamperedError
from ..gate import Evidence, Proof, Reason, Reviewed
from ..lineage import Descent, ModelVersion, Relation, VersionLineage
from ..policy import Policy
from ..records import Outcome, Verdict
from ..statements import CERTIFICATE, LINEAGE, REVIEW, Certificate, Registration, Review, Role
from ..verifier import RefusedError, Statement, Trust, UndecidedError
from .grounding import Ground, problem, undecided
from .workbench import Workbench

Subject = Callable[[], list[dict[str, Any]]]
"""Hashes a model's files, or says what they were when they were hashed."""
_ROLES = {"certificate": (Role.EVALUATOR, CERTIFICATE), "lineage": (Role.TRAINER, LINEAGE)}


@dataclass(frozen=True)
class Prover:
    """Reads what is signed about the versions of one registry."""

    bench: Workbench
    ground: Ground
    policy: Policy
    """The gate's; a certificate has to pass under its own and under this one."""
    now: datetime
    kept: dict[ModelVersion, Registration] = field(default_factory=dict)
    weighed: dict[ModelVersion, str | None] = field(default_factory=dict)

    def proof(self, lineage: VersionLineage, subject: Subject | None = None) -> Proof:
        """What is signed about a version.

        Args:
            lineage: what the registry says of it.
            subject: gives the digests of its files, which are then held against what was signed; not looked at where None.
        """
        found = self._from_artifacts(lineage, subject)
        digest = lineage.certificate or lineage.statement
        kept = self.bench.registry.envelope(digest) if digest and not found.holds else None
        if kept is None or self.ground.trust is None:
            return found
        again = self._read(lineage, kept, "lineage" if lineage.certificate is None else "certificate", subject)
        return again if again.holds else found

    def _from_artifacts(self, lineage: VersionLineage, subject: Subject | None) -> Proof:
        model = lineage.model
        try:
            certificate = self._statements.certificate(model)
            raw = self._statements.lineage(model) if certificate is None else certificate
        except TamperedError as error:
            return Proof(problems=(Reason(answer="no", code="tampered", text=str(error)),))
        except (LineageError, StoreError) as error:
            return Proof(problems=(undecided("unreadable", str(error)),))
        if raw is None or self.ground.trust is None:
            return Proof()
        return self._read(lineage, raw, "lineage" if certificate is None else "certificate", subject)

    def reviews(self, lineage: VersionLineage) -> tuple[tuple[Reviewed, ...], tuple[Reason, ...]]:
        """What reviewers signed about a version, and why some of it does not count; what does not count keeps nobody from a yes."""
        counting, notes = [], []
        for raw in self._statements.reviews(lineage.model) if self.ground.trust else ():
            try:
                counting += self._review(lineage, raw)
            except (RefusedError, UndecidedError, ConfigError) as error:
                notes.append(Reason(answer="note", code="review", text=f"does not count: {error}"))
        return tuple(counting), tuple(notes)

    def verified(
        self, lineage: VersionLineage, raw: bytes, kind: Literal["certificate", "lineage"], subject: Subject | None
    ) -> tuple[Statement, dict[str, Any]]:
        """A statement that is signed by whoever may, about this version and these files; of a certificate also what it says, counted again.

        What the registry says of the version's data and ancestors is not held against it here.

        Raises:
            RefusedError, UndecidedError: it is not, or cannot be read.
            UnlearnError, OSError: registry, ledger or files do not answer.
        """
        role, predicate_type = _ROLES[kind]
        statement = verifier.read_statement(raw, self._trust, role, self.now)
        self._about(lineage, statement, predicate_type)
        if subject is not None:
            verifier.check_subject(statement, subject(), str(lineage.model))
        self.bench.registry.verified(statement.digest, raw)
        return statement, self._certified(lineage, statement) if kind == "certificate" else {}

    def _read(self, lineage: VersionLineage, raw: bytes, kind: Literal["certificate", "lineage"], subject: Subject | None) -> Proof:
        try:
            statement, found = self.verified(lineage, raw, kind, subject)
        except (RefusedError, UndecidedError) as error:
            return Proof(kind=kind, problems=(problem("statement", error, f"{lineage.model}: "),))
        except TamperedError as error:
            return Proof(kind=kind, problems=(Reason(answer="no", code="tampered", text=f"{lineage.model}: {error}"),))
        except (LineageError, StoreError, ConfigError, OSError) as error:
            return Proof(kind=kind, problems=(undecided("unreadable", f"{lineage.model}: {error}"),))
        return self._proven(lineage, statement, {"kind": kind, **found})

    def _proven(self, registered: VersionLineage, statement: Statement, found: Mapping[str, Any]) -> Proof:
        """A statement that holds, against what the registry says."""
        from ..adapters.stated_lineage import lineage_of

        try:
            stated = lineage_of(statement)
        except LineageError as error:
            return Proof(problems=(undecided("unreadable", str(error)),))
        lineage = self._original(registered, statement)
        copied = tuple(edge for edge in registered.ancestors if edge not in lineage.ancestors)
        signed = stated.in_place_of(lineage)
        differing = [*stated.exchanged(self._registration, self._weights(stated.ancestors))]
        if found["kind"] == "certificate" and set(found["requests"]) != set(lineage.requests):
            differing.append(f"made to forget {', '.join(lineage.requests) or 'nothing'}, signed is {', '.join(found['requests'])}")
        text = f"{lineage.model}: the registry says otherwise than what was signed: "
        problems = [Reason(answer="no", code="registry_differs", text=f"{text}{each}") for each in differing]
        recorded = [Reason(answer="no", code="registry_differs", text=f"{text}{each}") for each in stated.contradictions(lineage)]
        signers = frozenset(key.holder for key in statement.signers)
        return Proof(
            statement=statement.digest,
            recorded=tuple(recorded),
            signed=replace(signed, ancestors=(*copied, *signed.ancestors)),
            signers=signers,
            holders=statement.holders,
            expires_at=statement.expires_at,
            adopted=stated.adopted,
            **{**found, "problems": (*found.get("problems", ()), *problems)},
        )

    def _certified(self, lineage: VersionLineage, statement: Statement) -> dict[str, Any]:
        """What only a certificate says: requests, and outcomes under its own policy and the gate's, counted again."""
        said = decode(Certificate, statement.predicate, "certificate")
        own = verifier.counted(statement, encode(said.registered))
        conditions = verifier.in_shape(lambda: verifier.recount(statement.predicate, encode(self.policy)))
        mine = {effect: verifier.outcome(each) for effect, each in conditions.items()}
        problems = []
        if not self.bench.ledger.holds(said.ledger.number, said.ledger.digest):
            text = f"{lineage.model}: its certificate was issued over another ledger, or this one was rolled back (event {said.ledger.number})"
            problems.append(Reason(answer="no", code="other_ledger", text=text))
        outcomes = {effect: _worse(outcome, mine.get(effect, Outcome.INCONCLUSIVE.value)) for effect, outcome in own.items()}
        stated = {verdict.effect.value: verdict for verdict in said.verdicts}
        unmet = {effect: tuple(name for name, holds, _ in each if holds is not True) for effect, each in conditions.items()}
        details = {effect: _why(stated.get(effect), unmet.get(effect, ())) for effect in outcomes}
        requests = tuple(sorted(request.request_id for request in said.requests))
        return {"requests": requests, "outcomes": outcomes, "details": details, "problems": tuple(problems), "certified": said.requests}

    def _review(self, lineage: VersionLineage, raw: bytes) -> list[Reviewed]:
        """One review, for each person who signed it."""
        statement = verifier.read_statement(raw, self._trust, Role.REVIEWER, self.now)
        self._about(replace(lineage, ancestors=()), statement, REVIEW)
        review = decode(Review, statement.predicate, "review")
        digests = [each.get("digest") for each in statement.subject]
        about = digests[0].get("sha256") if len(digests) == 1 and isinstance(digests[0], dict) else None
        one = Reviewed(
            digest=statement.digest,
            kind=review.kind.value,
            statement=str(about),
            alias=review.alias,
            holder="",
            reason=review.reason,
            expires_at=statement.expires_at,
        )
        return [replace(one, holder=holder) for holder in sorted({key.holder for key in statement.signers})]

    def _about(self, lineage: VersionLineage, statement: Statement, kind: str) -> None:
        """Whether it is about this version of this registry, or about the one that it is a copy of, file by file.

        Raises:
            RefusedError: it is about something else, and was carried over.
        """
        if statement.kind != kind:
            raise RefusedError(f"of kind {statement.kind[:80]}; expected {kind}")
        if not self._is_of(statement, lineage.model) and self._copied(lineage, statement) is None:
            raise RefusedError("what was signed is about another version, run or registry, and was put beside this one")

    def _original(self, lineage: VersionLineage, statement: Statement) -> VersionLineage:
        """The lineage that a statement is to be held against: that of the version which this one is a copy of, if it is about that one."""
        edge = None if self._is_of(statement, lineage.model) else self._copied(lineage, statement)
        return replace(lineage, ancestors=tuple(each for each in lineage.ancestors if each != edge))

    def _copied(self, lineage: VersionLineage, statement: Statement) -> Descent | None:
        copies = (edge for edge in lineage.ancestors if edge.relation is Relation.COPIED)
        return next((edge for edge in copies if self._is_of(statement, edge.parent)), None)

    def _is_of(self, statement: Statement, model: ModelVersion) -> bool:
        from ..adapters.stated_lineage import registration_of

        return bool(dict(registration_of(statement)) == encode(self._registration(model)))

    def _weights(self, models: Iterable[ModelVersion]) -> dict[ModelVersion, str]:
        """The weights that versions were signed with, of those of which something signed can be read and counts."""
        found = {model: self.weighed[model] if model in self.weighed else self._weighed(model) for model in models}
        self.weighed.update(found)
        return {model: digest for model, digest in found.items() if digest is not None}

    def _weighed(self, model: ModelVersion) -> str | None:
        """None where nothing holds, which the proof of that version says."""
        from ..adapters.stated_lineage import weights_of

        try:
            certificate = self._statements.certificate(model)
            raw = self._statements.lineage(model) if certificate is None else certificate
            role = _ROLES["lineage" if certificate is None else "certificate"][0]
            return weights_of(verifier.read_statement(raw, self._trust, role, self.now)) if raw is not None else None
        except (TamperedError, LineageError, StoreError, RefusedError, UndecidedError):
            return None

    def _registration(self, model: ModelVersion) -> Registration:
        if model not in self.kept:
            self.kept[model] = self._statements.registration(model)
        return self.kept[model]

    @property
    def _statements(self) -> Any:
        from ..adapters.statements import Statements

        return Statements(self.bench.registry)

    @property
    def _trust(self) -> Trust:
        if self.ground.trust is None:
            raise UndecidedError("no trust file")
        return self.ground.trust


def as_signed(given: Evidence, prover: Prover) -> Evidence:
    """Evidence by what was signed alone: each version with the data and ancestors that were signed, and none that the registry has beside these.

    An ancestor that was signed and that the registry names no longer is looked up too; one that is registered no longer stays a hole.

    Args:
        given: the evidence as the registry has it.
        prover: reads what is signed about ancestors that are not in it.
    """
    known, proofs = {each.model: each for each in given.closure}, dict(given.proofs)
    found: dict[ModelVersion, VersionLineage] = {}
    waiting = [given.model]
    while waiting:
        model = waiting.pop(0)
        if model in found:
            continue
        if model not in known:
            try:
                known |= {each.model: each for each in prover.bench.registry.closure(model) if each.model not in known}
            except LineageError:
                continue
        proof = proofs.get(model) or prover.proof(known[model])
        found[model] = proof.signed if proof.signed is not None else known[model]
        proofs[model] = replace(proof, recorded=())
        waiting += [edge.parent for edge in found[model].ancestors]
    return replace(given, closure=tuple(found.values()), proofs={model: proofs[model] for model in found})


def _worse(one: str, other: str) -> str:
    order: Sequence[str] = (Outcome.FAIL.value, Outcome.INCONCLUSIVE.value, Outcome.PASS.value)
    return next(each for each in order if each in (one, other))


def _why(verdict: Verdict | None, unmet: tuple[str, ...]) -> tuple[str, ...]:
    """The reasons of the certificate; or, where it passed under its own policy, what the gate's policy misses."""
    if verdict is not None and verdict.outcome is not Outcome.PASS:
        return verdict.reasons
    return (f"under this policy, not shown: {', '.join(unmet)}",) if unmet else ()
