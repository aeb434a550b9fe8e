"""What is signed about the making of a version: the shape of SLSA provenance, filled from what the registry and the run behind it say; and back.

Only a complete lineage is put into words that somebody signs: what nobody knows cannot be attested, only stated by a person (`adopt`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..ancestry import trouble
from ..documents import encode, moment
from ..dsse import in_our_words
from ..errors import LineageError, TamperedError
from ..lineage import Descent, ModelVersion, Relation, VersionLineage
from ..statements import ADOPTED, CERTIFICATE, LINEAGE, TRAINED, Registration
from ..verifier import tensor_digest
from .lineage_record import lineage_record, moment_of
from .registry_references import LOGGED, NOTHING
from .registry_rows import BASE_MODEL_TAG, names_base
from .statements import Statements
from .training_data import TrainingData

if TYPE_CHECKING:
    from mlflow.entities import Run

    from ..verifier import Statement

BUILDER = "https://mlflow-unlearn.dev/attest/v1"
_MD5 = re.compile(r"[0-9a-f]{32}(\.dir)?")
_PACKAGE = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;]+)")
_PYTHON = re.compile(r"^python:\s*['\"]?([0-9.]+)", re.MULTILINE)
_HELD = ("path", "part", "rev", "repository", "dirty", "context")


@dataclass(frozen=True, kw_only=True)
class Attested:
    """What a statement of lineage is made of, beside what the run says."""

    registered: Registration
    lineage: VersionLineage
    code: str
    """Digest of this package's source files."""
    issued_at: datetime
    expires_at: datetime
    stated: tuple[TrainingData, ...] = ()
    """What a person named; of data that the run logged, its own word stands."""


@dataclass(frozen=True, kw_only=True)
class StatedLineage:
    """What a signed statement says about the making of a version, to be held against what the registry says."""

    datasets: Mapping[str, str]
    """Name -> DVC md5, `.dir` included."""
    ancestors: Mapping[ModelVersion, Relation]
    adopted: bool = False
    """Stated by a person afterwards."""
    whole: bool = True
    """False for a certificate, which names the parent and its data: all that the version can have seen, but not what its base is."""

    def contradictions(self, lineage: VersionLineage) -> tuple[str, ...]:
        """Where the registry says otherwise than what was signed, a line each."""
        signed, said = set(self.datasets.values()), set(lineage.datasets.values())
        parents = {each.parent: each.relation for each in lineage.ancestors}
        found = [f"dataset state {md5[:8]} is in the registry and not in what was signed" for md5 in sorted(said - signed)]
        found += [f"dataset state {md5[:8]} was signed and is not in the registry" for md5 in sorted(signed - said) if self.whole]
        more = sorted(parents.keys() - self.ancestors.keys()) if self.whole else []
        found += [f"{each} is an ancestor in the registry and not in what was signed" for each in more]
        found += [f"{each} was signed as an ancestor and is none in the registry" for each in sorted(self.ancestors.keys() - parents.keys())]
        found += ["it was stated by a person, and the registry no longer says so"] if self.adopted and not lineage.adopted else []
        both = sorted(parents.keys() & self.ancestors.keys())
        return (
            *found,
            *(f"{each}: {parents[each]} in the registry, {self.ancestors[each]} signed" for each in both if parents[each] != self.ancestors[each]),
        )


def provenance(statements: Statements, attested: Attested, folder: Path) -> dict[str, Any]:
    """The predicate of a statement of lineage (SLSA provenance v1).

    Args:
        statements: the registry it lies in.
        attested: what is stated.
        folder: the version's files, whose requirements are the environment.

    Raises:
        LineageError: the lineage is not complete, or an ancestor's files cannot be read.
    """
    lineage = attested.lineage
    if problem := trouble(lineage):
        raise LineageError(f"{lineage.model}: cannot be attested: {problem}; a person who knows can state it with `mlflow-unlearn adopt`")
    client, model = statements.registry.client, lineage.model
    run = client.get_run(attested.registered.run_id) if attested.registered.run_id else None
    record = lineage_record(run) if run else None
    params = dict(sorted(run.data.params.items())) if run else {}
    bases = _bases([statements.tags(model), run.data.tags if run else {}], params)
    return {
        "buildDefinition": {
            "buildType": ADOPTED if lineage.adopted else TRAINED,
            "externalParameters": {"registered": encode(attested.registered)},
            "internalParameters": {
                "code": attested.code,
                "environment": _environment(folder),
                "expires_at": moment(attested.expires_at),
                "issued_at": moment(attested.issued_at),
                "params": params,
                "record": record,
                "seeds": {key: value for key, value in params.items() if key.lower().endswith("seed")},
            },
            "resolvedDependencies": [
                *(_dataset(name, md5, record, attested) for name, md5 in sorted(lineage.datasets.items())),
                *(_ancestor(statements, lineage, each) for each in lineage.ancestors),
                *({"uri": base, "annotations": {"kind": "base"}} for base in bases),
                *_code(record),
            ],
        },
        "runDetails": {"builder": {"id": BUILDER}, "metadata": _metadata(run)},
    }


def lineage_of(statement: Statement) -> StatedLineage:
    """What a verified statement of lineage, or a certificate, says.

    Raises:
        LineageError: it is neither, or not in their shape.
    """
    try:
        if statement.kind == CERTIFICATE:
            parent = statement.predicate["unlearned"]["parent"]
            datasets = {f"{each['name']}/{each['md5'][:8]}": str(each["md5"]) for each in parent["datasets"]}
            return StatedLineage(datasets=datasets, ancestors={_version(**parent["model"]): Relation.UNLEARNED}, whole=False)
        if statement.kind == LINEAGE:
            return _stated(statement.predicate["buildDefinition"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LineageError(f"statement {statement.digest[:16]}: not in the shape of {statement.kind} ({str(error)[:80]})") from None
    raise LineageError(f"statement {statement.digest[:16]}: expected {CERTIFICATE} or {LINEAGE}, found {statement.kind[:80]}")


def registration_of(statement: Statement) -> Mapping[str, Any]:
    """Of which version a statement of ours says something, as `documents.encode` gives a Registration; empty where it does not say."""
    found: Any = statement.predicate
    for key in ("buildDefinition", "externalParameters", "registered") if statement.kind == LINEAGE else ("registered",):
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def require_weights(model: ModelVersion, registered: str | None, subject: Sequence[Mapping[str, Any]]) -> None:
    """That the files in the artifact store are the weights that were registered, where their tensor digest is known.

    Raises:
        TamperedError: they are not.
    """
    found = str(subject[0]["digest"].get("tensors", "none"))
    if registered and found != registered:
        raise TamperedError(f"{model}: the weights in the artifact store are {found[:16]}, registered were {registered[:16]}; restore them")


def _stated(definition: Mapping[str, Any]) -> StatedLineage:
    kinds: dict[str, list[Mapping[str, Any]]] = {"dataset": [], "model": [], "base": [], "code": []}
    for each in definition["resolvedDependencies"]:
        kinds[each["annotations"]["kind"]].append(each)
    if definition["buildType"] not in (TRAINED, ADOPTED):
        raise ValueError("another buildType")
    return StatedLineage(
        datasets={str(each["name"]): str(each["annotations"]["md5"]) for each in kinds["dataset"]},
        ancestors={_version(*each["name"].rsplit("/", 1)): Relation(each["annotations"]["relation"]) for each in kinds["model"]},
        adopted=definition["buildType"] == ADOPTED,
    )


def _version(name: str, version: str) -> ModelVersion:
    return ModelVersion(name=name, version=version)


def _dataset(name: str, md5: str, record: Mapping[str, Any] | None, attested: Attested) -> dict[str, Any]:
    if not _MD5.fullmatch(md5):
        raise LineageError(f"{attested.lineage.model}: dataset {name}: expected an md5 as DVC writes it, found {md5[:40]!r}; it cannot be attested")
    logged: Mapping[str, Any] = next((each for each in (record["datasets"] if record else ()) if each["md5"] == md5), {})
    held = {key: logged[key] for key in _HELD if logged.get(key) is not None}
    person = next((each for each in attested.stated if each.md5 == md5), None)
    if person:
        held = {key: value for key in _HELD if (value := getattr(person, key, None)) is not None} | held
    where = {"uri": f"dvc:{held['path']}"} if "path" in held else {}
    return {"name": name, **where, "digest": {"md5": md5.removesuffix(".dir")}, "annotations": {"kind": "dataset", "md5": md5, **held}}


def _ancestor(statements: Statements, lineage: VersionLineage, descent: Descent) -> dict[str, Any]:
    """A parent by the digest of its weights as they lie in the artifact store now."""
    weights = sorted(statements.folder(descent.parent).rglob("*.safetensors"))
    if not weights:
        raise LineageError(f"{lineage.model}: its ancestor {descent.parent} has no safetensors, by which it could be named; adopt it as its data")
    notes = {"kind": "model", "relation": descent.relation.value, "evidence": descent.evidence}
    with in_our_words():
        digest = {"tensors": tensor_digest(weights)}
    return {"name": str(descent.parent), "uri": f"models:/{descent.parent}", "digest": digest, "annotations": notes}


def _code(record: Mapping[str, Any] | None) -> Iterable[dict[str, Any]]:
    """The commit that was checked out; a repository without a remote is named by its first commit."""
    git = record["git"] if record else {}
    if (git.get("commit") or "none") == "none":
        return
    where = {"uri": f"git+{git['repository']}"} if git.get("repository") else {"name": "code"}
    yield {**where, "digest": {"gitCommit": git["commit"]}, "annotations": {"kind": "code", "dirty": git["dirty"] is True}}


def _bases(tags: Iterable[Mapping[str, str]], params: Mapping[str, str]) -> list[str]:
    """Models of a public hub that it was made from: of a complete lineage, whatever is named and is neither a version nor a logged model."""
    stated = [name.strip() for each in tags for name in each.get(BASE_MODEL_TAG, "").split(",")]
    named = [*stated, *(value for key, value in params.items() if names_base(key, value))]
    others = [name for name in named if name.lower() not in NOTHING and not LOGGED.search(name)]
    return sorted({f"hf://{name.removeprefix('hf://')}" for name in others if not name.startswith(("models:", "runs:", "/", "."))})


def _environment(folder: Path) -> dict[str, str]:
    """Python and the packages that MLflow logged with the model."""
    text = {name: path.read_text() for name in ("python_env.yaml", "requirements.txt") if (path := folder / name).is_file()}
    python = _PYTHON.search(text.get("python_env.yaml", ""))
    packages = (_PACKAGE.match(line.strip()) for line in text.get("requirements.txt", "").splitlines())
    return {**({"python": python[1]} if python else {}), **{found[1]: found[2] for found in packages if found}}


def _metadata(run: Run | None) -> dict[str, str]:
    if run is None:
        return {}
    ended = {"finishedOn": moment_of(run.info.end_time)} if run.info.end_time else {}
    return {"invocationId": run.info.run_id, "startedOn": moment_of(run.info.start_time), **ended}
