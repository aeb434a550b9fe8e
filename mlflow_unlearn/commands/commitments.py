"""What `commitment ...` does, as functions from arguments to JSON-ready documents. `verify` and `audit` need files alone: no git, DVC or MLflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..commitments import Commitment, Commitments, Domain, committed, key_id, parse_head, read_key
from ..digests import write_atomically, write_document
from ..documents import decode, encode
from ..errors import ConfigError, LineageError, TamperedError
from ..lineage import DatasetRevision
from ..proofs import SCHEMA, Proofs, asked, check, read_proofs, written
from ..verifier import merkle

if TYPE_CHECKING:
    from ..stages.workbench import Workbench

Ids = Mapping[Domain, Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Which committed set is meant."""

    rev: str | None = None
    """A dataset revision by git revision; `workspace` when nothing is given."""
    version: str | None = None
    """The data of a registered version."""
    retain: bool = False
    """What that version retained of them."""


@dataclass(frozen=True, kw_only=True)
class Located:
    """A set whose leaves are at hand."""

    about: Mapping[str, str]
    commitment: Commitment
    tree: merkle.Tree

    def document(self, dataset: str) -> dict[str, Any]:
        """What is published of it."""
        return {"dataset": dataset, "about": dict(self.about), **encode(self.commitment)}


def show(place: Place, leaves: Path | None = None) -> dict[str, Any]:
    """The commitment to a set; with `leaves`, all of them go to that file, for `audit`."""
    bench = _bench()
    located = _located(bench, place)
    if leaves is not None:
        write_atomically(leaves, bytes(located.tree.leaves))
    return located.document(bench.params.data.name)


def prove(place: Place, ids: Ids, out: Path) -> dict[str, Any]:
    """Write one document that shows for every id that it is in the set or that it is not; counts of both."""
    from ..stages.committing import store

    bench = _bench()
    located, wanted = _located(bench, place), asked(store(bench).key(), ids)
    found = [written(located.tree.prove(each)) for each in sorted({each for _, each in wanted})]
    proofs = Proofs(dataset=bench.params.data.name, about=located.about, commitment=located.commitment, proofs=tuple(found))
    checked = check(proofs, wanted)
    if checked.problems:
        raise TamperedError(f"{store(bench).folder}: stored leaves changed on disk; remove the .trees folder there and run again")
    write_document(out, SCHEMA, encode(proofs))
    return located.document(proofs.dataset) | {"out": str(out), "present": checked.present, "absent": checked.absent}


def verify(file: Path, key_file: Path, ids: Ids, root: str | None, expect: Literal["present", "absent"] | None = None) -> dict[str, Any]:
    """Check a document of proofs; `problems` is empty when all ids are shown, as expected where something is expected.

    Raises:
        ConfigError: files that cannot be read, no ids, or the key of another commitment.
    """
    proofs, key = read_proofs(file), read_key(key_file)
    if proofs.commitment.key_id != key_id(key):
        raise ConfigError(f"{key_file}: expected the key {proofs.commitment.key_id}, found {key_id(key)}; ask for the one of these proofs")
    checked = check(proofs, asked(key, ids), parse_head(root, "--root") if root else None)
    other, number = ("absent", checked.absent) if expect == "present" else ("present", checked.present)
    problems = [*checked.problems, *([f"expected ids that are {expect}, found {number} that are {other}"] if expect and number else [])]
    about = {"dataset": proofs.dataset, "about": dict(proofs.about), **encode(proofs.commitment), "root_given": root is not None}
    return about | {"present": checked.present, "absent": checked.absent, "problems": problems}


def audit(file: Path, root: str) -> dict[str, Any]:
    """Check all leaves against a root: sorted, distinct, complete. Absence proofs rest on this."""
    head = parse_head(root, "--root")
    try:
        merkle.audit(head, file.read_bytes())
    except merkle.ProofError as error:
        return {"root": head.root.hex(), "size": head.size, "problems": [str(error)]}
    return {"root": head.root.hex(), "size": head.size, "problems": []}


def rotate(confirmed: bool) -> dict[str, Any]:
    """Destroy the commitment key with the trees made with it, and go on with a new one.

    Raises:
        ConfigError: it was not confirmed.
    """
    from ..stages.committing import store

    if not confirmed:
        raise ConfigError(f"commitment rotate: {_AFTER_ROTATION}; add --yes if that is meant")
    kept = store(_bench())
    old, new = kept.rotate()
    return {"dataset": kept.dataset, "destroyed": old, "key_id": new, "note": _AFTER_ROTATION}


def disclose(target: Path) -> dict[str, Any]:
    """Write the commitment key for an auditor."""
    from ..stages.committing import store

    kept = store(_bench())
    return {"dataset": kept.dataset, "key_id": kept.disclose(target), "out": str(target)}


_AFTER_ROTATION = (
    "roots made under the old key stay as they are and can no longer be proven, neither who was in the data nor who was not; "
    "copies of the key that were disclosed or backed up are not reached"
)


def _bench() -> Workbench:
    from ..stages.workbench import Workbench

    return Workbench()


def _located(bench: Workbench, place: Place) -> Located:
    if place.version is None:
        if place.retain:
            raise ConfigError("--retain: expected --version models:/NAME/VERSION too, whose retained records are meant")
        return _of_revision(bench, place.rev or "workspace")
    if place.rev is not None:
        raise ConfigError("--rev and --version: expected one of them")
    model = bench.registry.resolve(place.version)
    found = bench.registry.document(model, "commitment")
    if found is None:
        raise LineageError(f"{model}: no commitment was registered with it; only versions made by the stage `register` have one")
    body = {name: value for name, value in found.items() if name != "schema"}
    commitments = decode(Commitments, body, f"{model}: commitment.json")
    return (_of_retained if place.retain else _of_version)(bench, str(model), commitments)


def _of_revision(bench: Workbench, rev: str) -> Located:
    from ..stages.committing import revision_tree, store

    data = bench.params.data
    path = bench.from_root(data.path)
    output = bench.project.output_at(path, rev)
    if output is None:
        raise LineageError(f"{path}: DVC does not track it in '{rev}'; name another revision (see `mlflow-unlearn index`)")
    tree = revision_tree(bench, DatasetRevision(name=data.name, path=path, md5=output.md5, revisions=()))
    return Located(about={"md5": output.md5}, commitment=committed(tree.head, store(bench).key()), tree=tree)


def _of_version(bench: Workbench, model: str, commitments: Commitments) -> Located:
    from ..adapters.commitment_store import lost
    from ..stages.committing import revision_tree, store

    if len(commitments.revisions) != 1:
        raise ConfigError(f"{model}: made from {len(commitments.revisions)} dataset revisions; name one with --rev, or give --retain")
    revision, key = commitments.revisions[0], store(bench).key()
    if revision.commitment.key_id != key_id(key):
        raise lost(model, revision.commitment, key)
    state = DatasetRevision(name=revision.name, path=bench.from_root(bench.params.data.path), md5=revision.md5, revisions=())
    tree = revision_tree(bench, state)
    if tree.head != revision.commitment.head:
        raise TamperedError(f"{model}: the data lead to another root than was registered; were data.columns of params.yaml changed since?")
    return Located(about={"version": model, "md5": revision.md5}, commitment=revision.commitment, tree=tree)


def _of_retained(bench: Workbench, model: str, commitments: Commitments) -> Located:
    from ..adapters.commitment_store import lost
    from ..stages.committing import store

    kept = store(bench)
    key = kept.key()
    tree = kept.find(commitments.retain.root, key)
    if tree is None or tree.head != commitments.retain.head:
        raise lost(model, commitments.retain, key)
    return Located(about={"version": model, "set": "retain"}, commitment=commitments.retain, tree=tree)
