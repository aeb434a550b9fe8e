"""Signed lineage of a version: the trainer's word for what its run recorded, or for what a person stated; and which versions have it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING

from .. import dsse, trust, verifier
from ..documents import encode
from ..errors import LineageError, TamperedError, UnlearnError
from ..lineage import ModelVersion, Trace, TracedVersion, VersionLineage
from ..signing_keys import Passphrase, from_environment
from ..statements import LINEAGE, Role, signed_by
from ..verifier.envelopes import IN_TOTO
from .signing import signer_for
from .workbench import Workbench

if TYPE_CHECKING:
    from ..adapters.statements import Statements
    from ..adapters.training_data import TrainingData


@dataclass(frozen=True, kw_only=True)
class Attestation:
    """A statement of lineage that holds."""

    model: ModelVersion
    digest: str
    """Of its payload."""
    holders: Mapping[str, str]
    """Key id -> holder, of those whose signatures count."""
    adopted: bool
    new: bool
    """Whether it was signed just now."""

    @classmethod
    def of(cls, model: ModelVersion, found: verifier.Statement, *, new: bool) -> Attestation:
        """What a verified statement says."""
        from ..adapters.stated_lineage import lineage_of

        holders = {key.key_id: key.holder for key in found.signers}
        return cls(model=model, digest=found.digest, holders=holders, adopted=lineage_of(found).adopted, new=new)


def attest(bench: Workbench, model: ModelVersion, passphrase: Passphrase = from_environment) -> Attestation:
    """Sign the lineage that was recorded for a version, unless a statement that holds says the same.

    Raises:
        LineageError: its run did not record all of it, or a person stated it, once or now.
        TamperedError: it is signed, and the registry says otherwise by now; or the files are not those that were registered.
        ConfigError: no trust file, or no trainer's key that can be used.
    """
    from ..adapters.adoption import unrecorded

    statements = _statements(bench)
    trusted, lineage = trust.read_trust(bench.settings.trust_file), bench.registry.closure(model)[0]
    if (found := signed_lineage(statements, trusted, lineage)) is not None:
        return Attestation.of(model, found, new=False)
    if (why := unrecorded(statements, lineage)) is not None:
        raise LineageError(f"{model}: {why}; sign such a statement with `mlflow-unlearn adopt models:/{model}`")
    return sign_lineage(bench, lineage, trusted, passphrase)


def attested(bench: Workbench, model: ModelVersion) -> str:
    """The same for a version that a stage or command has just made, in words: without a key it stays unsigned, which is no error."""
    try:
        done = attest(bench, model)
    except UnlearnError as error:
        return f"lineage not signed: {error}"
    return f"lineage signed by {', '.join(done.holders.values())}"


def sign_lineage(
    bench: Workbench,
    lineage: VersionLineage,
    trusted: verifier.Trust,
    passphrase: Passphrase,
    stated: Sequence[TrainingData] = (),
    tags: Mapping[str, str | None] = MappingProxyType({}),
) -> Attestation:
    """Sign a lineage and put the statement beside the version, in the place of one that no longer holds.

    Args:
        bench: the project.
        lineage: what is signed.
        trusted: the trust file.
        passphrase: of the trainer's key.
        stated: the data that a person named.
        tags: of the version, to be set or taken away once it is signed: a server with the gate in it takes only those that are signed for. A kill
            before them leaves a statement that the registry does not follow yet; that counts as a no, and the same command mends it.
    """
    from ..adapters.signed_lineage import Attested, provenance, require_weights
    from .shard_plans import code_digest  # Polars, which a look at what is signed must not pay for

    statements, now = _statements(bench), trust.this_second()
    signer = signer_for(Role.TRAINER, trusted, bench.settings, passphrase)
    attested = Attested(
        registered=statements.registration(lineage.model),
        lineage=lineage,
        code=code_digest(),
        issued_at=now,
        expires_at=expiry(bench, now),
        stated=tuple(stated),
    )
    with statements.files(lineage.model) as folder:
        with dsse.in_our_words():
            subject = verifier.subject_of(folder)
        require_weights(lineage.model, lineage.tensor_digest, subject)
        payload = dsse.statement(LINEAGE, subject, provenance(statements, attested, folder))
    envelope = dsse.seal(payload, IN_TOTO, [signer])
    with dsse.in_our_words():
        made = verifier.read_statement(envelope, trusted, Role.TRAINER, now)
    statements.keep_lineage(lineage.model, envelope, replace=True)
    for key, value in tags.items():
        statements.tag(lineage.model, key, value)
    done = Attestation.of(lineage.model, made, new=True)
    if lineage.certificate is None:
        statements.describe(lineage.model, signed_by("lineage", done.digest, done.holders))
    return done


def signed_lineage(statements: Statements, trusted: verifier.Trust, lineage: VersionLineage) -> verifier.Statement | None:
    """The statement of a version's lineage that holds today; None where nothing is signed or a signature does not count any more.

    Raises:
        TamperedError: it holds, and the registry says otherwise than what was signed.
    """
    from ..adapters.stated_lineage import lineage_of, registration_of

    raw = statements.lineage(lineage.model) if lineage.statement else None
    try:
        found = verifier.read_statement(raw, trusted, Role.TRAINER, trust.this_second()) if raw is not None else None
    except (verifier.RefusedError, verifier.UndecidedError):
        return None
    if found is None or registration_of(found) != encode(statements.registration(lineage.model)):
        return None  # that of another version: a copy has the tags of what it was copied from
    stated = lineage_of(found)
    if against := (*stated.contradictions(lineage), *stated.exchanged(statements.registration)):
        raise TamperedError(f"{lineage.model}: the registry says otherwise than what was signed: {'; '.join(against)}")
    return found


def marked(bench: Workbench, traced: Trace, lineages: Sequence[VersionLineage]) -> Trace:
    """The trace with `signed` where a statement of lineage or a certificate holds, and a word at what a person stated."""
    from ..adapters.adoption import ADOPTED_NOTE

    adopted, held = {lineage.model for lineage in lineages if lineage.adopted}, signed_versions(bench, lineages)

    def mark(lines: Sequence[TracedVersion]) -> tuple[TracedVersion, ...]:
        notes = [f"; {ADOPTED_NOTE}" if line.model in adopted else "" for line in lines]
        return tuple(replace(line, signed=line.model in held, why=f"{line.why}{note}") for line, note in zip(lines, notes, strict=True))

    return replace(traced, affected=mark(traced.affected), clear=mark(traced.clear), unknown=mark(traced.unknown))


def signed_versions(bench: Workbench, lineages: Sequence[VersionLineage]) -> frozenset[ModelVersion]:
    """Versions whose lineage is signed by somebody whom the trust file believes, and is what the registry says; without a trust file none."""
    tagged = [lineage for lineage in lineages if lineage.statement or lineage.certificate]
    if not tagged or not bench.settings.trust_file.exists():
        return frozenset()
    trusted, statements = trust.read_trust(bench.settings.trust_file), _statements(bench)
    return frozenset(lineage.model for lineage in tagged if _is_signed(statements, trusted, lineage))


def expiry(bench: Workbench, now: datetime) -> datetime:
    """Until when a statement made now counts, as policy.yaml has it."""
    return now + timedelta(days=bench.policy.gate.certificate_days)


def _is_signed(statements: Statements, trusted: verifier.Trust, lineage: VersionLineage) -> bool:
    from ..adapters.stated_lineage import lineage_of, registration_of

    try:
        if signed_lineage(statements, trusted, lineage) is not None:
            return True
        raw = statements.certificate(lineage.model) if lineage.certificate else None
        found = verifier.read_statement(raw, trusted, Role.EVALUATOR, trust.this_second()) if raw is not None else None
    except (UnlearnError, verifier.RefusedError, verifier.UndecidedError):
        return False
    if found is None or registration_of(found) != encode(statements.registration(lineage.model)):
        return False
    stated = lineage_of(found)
    return not stated.contradictions(lineage) and not stated.exchanged(statements.registration)


def _statements(bench: Workbench) -> Statements:
    from ..adapters.statements import Statements

    return Statements(bench.registry)
