"""Signed statements beside a version: artifacts of its run, each named by a tag of the version that says which payload counts.

The artifact is written first and the tag last: a kill leaves at most an artifact that nobody names. What is replaced stays, under its digest.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from ..errors import LineageError, TamperedError
from ..lineage import ModelVersion
from ..statements import UNSIGNED, Registration
from ..verifier import UndecidedError, open_envelope
from ..verifier.documents import read_file
from .answering import reachable
from .downloads import fetched, fetched_to_stay
from .registry import DOCUMENTS, Registry
from .registry_rows import CERTIFICATE_TAG, LINEAGE_RUN_TAG, LINEAGE_TAG

_REVIEWS = f"{DOCUMENTS}/reviews"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_LINEAGE = re.compile(r"lineage(-[0-9a-f]{64})?\.json")
_SIGNED = re.compile(r"Signed by [^\n]*\Z")  # as statements.signed_by writes it


@dataclass(frozen=True)
class Statements:
    """What is signed about the versions of one registry."""

    registry: Registry

    def registration(self, model: ModelVersion) -> Registration:
        """What tells a version from every other one, here and elsewhere.

        Raises:
            LineageError: there is no such version.
        """
        version = self._version(model)
        created = int(version.creation_timestamp)
        return Registration(name=version.name, version=str(version.version), run_id=version.run_id or "", created_at=created)

    def certificate(self, model: ModelVersion) -> bytes | None:
        """The envelope of a version's certificate; None where its tags name none.

        Raises:
            LineageError: the tag names one that is not there.
            TamperedError: what is there is not what the tag names.
        """
        return self._named(model, CERTIFICATE_TAG, "certificate")

    def lineage(self, model: ModelVersion) -> bytes | None:
        """The envelope of a version's statement of lineage, as `certificate` gives that one."""
        return self._named(model, LINEAGE_TAG, "lineage")

    def reviews(self, model: ModelVersion) -> tuple[bytes, ...]:
        """Envelopes of everything that reviewers signed about the versions of this run; not one of them is verified."""
        run_id = _run_of(self._version(model))
        kept = (path for path in self._listed(run_id, _REVIEWS) if _DIGEST.fullmatch(Path(path).stem))
        return tuple(raw for path in kept if (raw := self._read(run_id, path)) is not None)

    def lineages(self, model: ModelVersion) -> tuple[bytes, ...]:
        """Whatever was ever kept as a statement of lineage about the versions of this run, also what no tag names; nothing of it is verified."""
        version = self._version(model)
        runs = sorted({version.run_id, version.tags.get(LINEAGE_RUN_TAG)} - {None, ""})
        kept = ((run, path) for run in runs for path in self._listed(run, DOCUMENTS) if _LINEAGE.fullmatch(Path(path).name))
        return tuple(raw for run, path in kept if (raw := self._read(run, path)) is not None)

    def keep_certificate(self, model: ModelVersion, envelope: bytes, *, replace: bool = False) -> None:
        """Put a certificate beside a version; one that is there already changes nothing, and with more signatures takes its place.

        Raises:
            LineageError: another one is there and `replace` is not set.
        """
        self._keep(model, CERTIFICATE_TAG, "certificate", envelope, replace)

    def keep_lineage(self, model: ModelVersion, envelope: bytes, *, replace: bool = False) -> None:
        """Put a statement of lineage beside a version, as `keep_certificate` does that one."""
        self._keep(model, LINEAGE_TAG, "lineage", envelope, replace)

    def keep_review(self, model: ModelVersion, envelope: bytes) -> None:
        """Put what a reviewer signed beside a version."""
        _digest(envelope, f"{model}: review")
        name = hashlib.sha256(envelope).hexdigest()  # two people who sign in one second sign the same payload
        self._write(self._run(model), f"{_REVIEWS}/{name}.json", envelope)

    @contextmanager
    def files(self, model: ModelVersion) -> Iterator[Path]:
        """The files of a version on this machine: all that was logged, MLmodel included; what had to be fetched is removed at the end.

        Raises:
            LineageError: they are not there.
        """
        with ExitStack() as stack:
            with self._found(model) as (source, store):
                folder = stack.enter_context(fetched(source, store))
            yield folder

    def folder(self, model: ModelVersion) -> Path:
        """The same for as long as this process lasts."""
        with self._found(model) as (source, store):
            return fetched_to_stay(source, store)

    @contextmanager
    def _found(self, model: ModelVersion) -> Iterator[tuple[str, str]]:
        with reachable():
            source = str(self._version(model).source)
            try:
                yield source, self.registry.client.tracking_uri
            except OSError as error:
                raise LineageError(f"{model}: its files are not in the artifact store ({type(error).__name__}); restore them") from error

    def tag(self, model: ModelVersion, key: str, value: str | None) -> None:
        """Set a tag of a version; None takes it away."""
        with reachable():
            if value is not None:
                self.registry.client.set_model_version_tag(model.name, model.version, key, value)
            elif key in self._version(model).tags:
                self.registry.client.delete_model_version_tag(model.name, model.version, key)

    def tags(self, model: ModelVersion) -> dict[str, str]:
        """The tags of a version."""
        return dict(self._version(model).tags)

    def describe(self, model: ModelVersion, signed: str) -> None:
        """Let the description of a version end with who signed, e.g. `Signed by ci (key 0123456789abcdef).`; what people wrote stays."""
        text = (self._version(model).description or "").rstrip()
        body = _SIGNED.sub("", text.removesuffix(UNSIGNED)).rstrip()
        new = f"{body} {signed}".strip()
        if new != text:
            with reachable():
                self.registry.client.update_model_version(model.name, model.version, new)

    def _version(self, model: ModelVersion) -> Any:
        with reachable():
            try:
                return self.registry.client.get_model_version(model.name, model.version)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                raise LineageError(f"{model}: no such version in the registry") from None

    def _named(self, model: ModelVersion, tag: str, name: str) -> bytes | None:
        """What the tag names."""
        digest = self._version(model).tags.get(tag)
        return None if digest is None else self.of_digest(model, name, digest)

    def of_digest(self, model: ModelVersion, name: str, digest: str) -> bytes:
        """The envelope with this payload digest: it lies under its own name (`certificate`, `lineage`), or, where a later one took that, its digest.

        Raises:
            LineageError: it is not there.
            TamperedError: the digest is none, or what is there is not what it names.
        """
        version, tag = self._version(model), {"certificate": CERTIFICATE_TAG, "lineage": LINEAGE_TAG}[name]
        if not _DIGEST.fullmatch(digest):
            raise TamperedError(f"{model}: tag {tag}: expected 64 hex digits, found {digest[:70]!r}; delete the tag and have it signed again")
        there: list[str] = []
        for path in _places(name, digest):
            raw = self._read(_run_of(version), path)
            there += [_digest(raw, f"{model}: {path}")] if raw is not None else []
            if raw is not None and there[-1] == digest:
                return raw
        if there:
            raise TamperedError(f"{model}: {DOCUMENTS}/{name}.json is {there[0][:16]}, its tag {tag} names {digest[:16]}; one of them was changed")
        raise LineageError(f"{model}: tag {tag} names {digest[:16]}, which is not among the artifacts of its run; restore them or sign again")

    def _keep(self, model: ModelVersion, tag: str, name: str, envelope: bytes, replace: bool) -> None:
        digest, kept = _digest(envelope, f"{model}: {name}"), self._version(model).tags.get(tag)
        if kept not in (None, digest) and not replace:
            raise LineageError(f"{model}: has the {name} {str(kept)[:16]} already, and {digest[:16]} says something else; nothing was changed")
        run_id, (first, aside) = self._run(model), _places(name, digest)
        if self._read(run_id, aside) is not None:
            self._write(run_id, aside, envelope)
        else:
            self._set_aside(run_id, name, digest)
            self._write(run_id, first, envelope)
        if kept != digest:
            self.tag(model, tag, digest)

    def _set_aside(self, run_id: str, name: str, digest: str) -> None:
        """Keep what lies where the new one goes: an older one, or that of another version of the same run. A broken one is nobody's."""
        older = self._read(run_id, f"{DOCUMENTS}/{name}.json")
        try:
            known = digest if older is None else open_envelope(older, name).digest
        except UndecidedError:
            return
        if older is not None and known != digest:
            self._write(run_id, _places(name, known)[1], older)

    def _run(self, model: ModelVersion) -> str:
        """The run whose artifacts are a version's; a version without one is given one, which its tag names."""
        if found := _run_of(self._version(model)):
            return found
        client = self.registry.client
        with reachable():
            experiment = client.get_experiment_by_name(self.registry.experiment)
            run_id = str(client.create_run(experiment.experiment_id, run_name=f"statements about {model}").info.run_id)
            client.set_terminated(run_id)
        self.tag(model, LINEAGE_RUN_TAG, run_id)
        return run_id

    def _read(self, run_id: str, path: str) -> bytes | None:
        """An artifact, None where there is none; of one that is too long as much as shows it."""
        if path not in self._listed(run_id, str(Path(path).parent)):
            return None
        with reachable(), tempfile.TemporaryDirectory(prefix="mlflow-unlearn-") as aside:
            try:
                return read_file(Path(self._artifacts(run_id).download_artifacts(path, aside)))
            except OSError as error:
                raise LineageError(f"{path} of run {run_id}: cannot be read ({type(error).__name__}); see to the artifact store") from error

    def _listed(self, run_id: str, folder: str) -> list[str]:
        """Paths of the files in a folder of a run's artifacts, in their order."""
        with reachable():
            listed = self._artifacts(run_id).list_artifacts(folder) if run_id else []
        return sorted(each.path for each in listed if not each.is_dir)

    def _write(self, run_id: str, path: str, envelope: bytes) -> None:
        if self._read(run_id, path) == envelope:
            return
        with reachable(), tempfile.TemporaryDirectory(prefix="mlflow-unlearn-") as aside:
            file = Path(aside, Path(path).name)
            file.write_bytes(envelope)
            self._artifacts(run_id).log_artifact(str(file), str(Path(path).parent))

    def _artifacts(self, run_id: str) -> ArtifactRepository:
        """Those of the run alone: MLflow's client also looks through the models it logged, which takes five questions more for each."""
        client = self.registry.client
        return get_artifact_repository(client.get_run(run_id).info.artifact_uri, tracking_uri=client.tracking_uri)


def _places(name: str, digest: str) -> tuple[str, str]:
    return f"{DOCUMENTS}/{name}.json", f"{DOCUMENTS}/{name}-{digest}.json"


def _run_of(version: Any) -> str:
    """The run of a version, or the one that was made to hold what is signed about it; empty where there is neither."""
    return version.run_id or version.tags.get(LINEAGE_RUN_TAG) or ""


def _digest(envelope: bytes, what: str) -> str:
    try:
        return open_envelope(envelope, what).digest
    except UndecidedError as error:
        raise TamperedError(f"{error}; restore it, or sign again") from None
