"""What `attest` and `adopt` do, as functions from arguments to JSON-ready documents; the module of its name in cli/ parses and prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from rich.console import Console

from .. import dsse, trust, verifier
from ..errors import ConfigError, LineageError
from ..lineage import ModelVersion, Relation
from ..signing_keys import Passphrase, from_environment
from ..stages.attesting import Attestation, attest, sign_lineage, signed_lineage
from ..stages.signing import signer_for
from ..stages.workbench import Workbench
from ..statements import Role

if TYPE_CHECKING:
    from ..adapters.adoption import Stated
    from ..adapters.training_data import TrainingData


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a person types about the making of a version."""

    data: Sequence[str] = ()
    """`PATH` or `PATH@REV` of each dataset under DVC, relative to the current folder."""
    made_from: Sequence[str] = ()
    """`models:/NAME/VERSION` of each version it was made from."""
    relation: str | None = None
    nothing_else: bool = False


def attest_version(uri: str, passphrase: Passphrase = from_environment) -> dict[str, Any]:
    """Sign the lineage that was recorded when a version was trained; repeating it changes nothing.

    Raises:
        LineageError: no such version, or not all of its lineage is known.
        TamperedError: what was signed before is not what the registry says.
        ConfigError: no trust file or no trainer's key here.
    """
    bench = Workbench()
    return _document(attest(bench, bench.registry.resolve(uri), passphrase))


def adopt(uri: str, origin: Origin, *, replace: bool = False, passphrase: Passphrase = from_environment) -> dict[str, Any]:
    """State and sign the lineage of a version that was trained before anybody recorded it; it stays marked as stated, for ever.

    Args:
        uri: `models:/NAME/VERSION`.
        origin: what it was made from.
        replace: take the place of an earlier statement that says something else; that one is kept among the artifacts.
        passphrase: of the trainer's key.

    Raises:
        LineageError: it contradicts what was recorded or stated before, or leaves something unknown; or data or a version are not there.
        ConfigError: no trust file or no trainer's key here.
    """
    from ..adapters.adoption import adoption
    from ..adapters.statements import Statements

    bench = Workbench()
    model, statements = bench.registry.resolve(uri), Statements(bench.registry)
    stated = _stated(bench, origin)
    found, trusted = adoption(statements, model, stated), trust.read_trust(bench.settings.trust_file)
    if found.before and not replace:
        raise LineageError(f"{model}: something else was stated about it before; if that was wrong, say it again with --replace")
    if not found.changes and (held := signed_lineage(statements, trusted, bench.registry.closure(model)[0])) is not None:
        return _document(Attestation.of(model, held, new=False))
    states = [state for _, state in stated.datasets]
    return _document(sign_lineage(bench, found.lineage, trusted, passphrase, states, found.tags))


def countersign(uri: str, passphrase: Passphrase = from_environment) -> dict[str, Any]:
    """Add a signature by the key here to what is signed about a version, for when the key that signed it ends: an evaluator's to its certificate,
    else a trainer's to its lineage. What it says, and until when, stays. The same key again changes nothing.

    Raises:
        LineageError: no such version, or nothing is signed about it.
        TamperedError: what is signed does not count, today, by the trust file: then it has to be issued again.
        ConfigError: no trust file, or no such key here.
    """
    from ..adapters.statements import Statements

    bench = Workbench()
    model, statements, trusted = bench.registry.resolve(uri), Statements(bench.registry), trust.read_trust(bench.settings.trust_file)
    certificate = statements.certificate(model)
    raw, role = (certificate, Role.EVALUATOR) if certificate is not None else (statements.lineage(model), Role.TRAINER)
    if raw is None:
        raise LineageError(f"{model}: nothing is signed about it; `mlflow-unlearn attest models:/{model}`, or `dvc repro` where it was unlearned")
    with dsse.in_our_words():
        verifier.read_statement(raw, trusted, role, trust.this_second())
    envelope = dsse.countersign(raw, signer_for(role, trusted, bench.settings, passphrase))
    with dsse.in_our_words():
        found = verifier.read_statement(envelope, trusted, role, trust.this_second())
    (statements.keep_certificate if certificate is not None else statements.keep_lineage)(model, envelope)
    signers = [{"holder": key.holder, "key_id": key.key_id} for key in found.signers]
    kind = "certificate" if certificate is not None else "lineage"
    return {"version": str(model), "kind": kind, "statement": found.digest, "signers": signers, "new": envelope != raw}


def show_countersigned(out: Console, document: dict[str, Any]) -> None:
    """Whose signatures count now."""
    names = ", ".join(f"{each['holder']} (key {each['key_id'][:16]})" for each in document["signers"])
    how = "now signed by" if document["new"] else "signed already by"
    out.print(f"{document['version']}: {document['kind']} {document['statement'][:16]} {how} {names}", soft_wrap=True, markup=False)


def show_attested(out: Console, document: dict[str, Any]) -> None:
    """Who stands for the lineage of which version."""
    what = "stated afterwards by a person, and marked so for ever" if document["adopted"] else "as its training recorded it"
    names = ", ".join(f"{each['holder']} (key {each['key_id'][:16]})" for each in document["signers"])
    how = "signed by" if document["new"] else "is signed already by"
    out.print(f"{document['version']}: lineage {how} {names}: {what}; statement {document['statement'][:16]}", soft_wrap=True, markup=False)


def _document(done: Attestation) -> dict[str, Any]:
    return {
        "version": str(done.model),
        "statement": done.digest,
        "signers": [{"holder": holder, "key_id": key_id} for key_id, holder in done.holders.items()],
        "adopted": done.adopted,
        "new": done.new,
    }


def _stated(bench: Workbench, origin: Origin) -> Stated:
    from ..adapters.adoption import Stated

    if origin.nothing_else and origin.made_from:
        raise ConfigError("--nothing-else and --made-from: say one of the two")
    if origin.relation and not origin.made_from:
        raise ConfigError("--relation: to what? name the version with --made-from")
    usual = Relation.MERGED if len(origin.made_from) > 1 else Relation.FINE_TUNED
    return Stated(
        datasets=[_state(bench, each) for each in origin.data],
        made_from=[_parent(bench, each) for each in origin.made_from],
        relation=Relation(origin.relation) if origin.relation else usual,
        nothing_else=origin.nothing_else,
    )


def _parent(bench: Workbench, uri: str) -> ModelVersion:
    if "@" in uri:
        raise LineageError(f"{uri}: an alias moves on; name the version that it was made from: models:/NAME/VERSION")
    return bench.registry.resolve(uri)


def _state(bench: Workbench, text: str) -> tuple[str, TrainingData]:
    """The state of a dataset that `PATH[@REV]` means; a path with an @ in it needs its revision."""
    from ..adapters.training_data import training_data

    path, at, revision = text.rpartition("@")
    found = training_data(path, revision) if at else training_data(text)
    if found.dirty:
        raise LineageError(
            f"{text}: what lies here is in no commit, so that nobody can look at it again; commit it, or name the revision that was used: PATH@REV"
        )
    names = {path: name for name, path in bench.datasets.items()}
    return names.get(found.path) or PurePath(found.path).stem, found
