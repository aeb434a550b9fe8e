"""What is signed about the making of a version: the shape of SLSA provenance, filled from what the registry and the run behind it say.

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
from ..digests import sha256_json
from ..documents import encode, moment
from ..dsse import in_our_words
from ..errors import LineageError, TamperedError
from ..lineage import Descent, ModelVersion, VersionLineage
from ..statements import ADOPTED, TRAINED, Registration
from ..verifier import tensor_digest
from .lineage_record import lineage_record, moment_of
from .registry_references import LOGGED, NOTHING
from .registry_rows import BASE_MODEL_TAG, names_base
from .statements import Statements
from .training_data import TrainingData

if TYPE_CHECKING:
    from mlflow.entities import Run

BUILDER = "https://mlflow-unlearn.dev/attest/v1"
_MD5 = re.compile(r"[0-9a-f]{32}(\.dir)?")
_PACKAGE = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;]+)")
_PYTHON = re.compile(r"^python:\s*['\"]?([0-9.]+)", re.MULTILINE)
_HELD = ("path", "part", "rev", "repository", "dirty", "context")
_PLAIN = re.compile(r"[+-]?(\d{1,20}(\.\d{0,20})?|\.\d{1,20})(e[+-]?\d{1,3})?|true|false", re.IGNORECASE | re.ASCII)
"""A param that is signed as it is: a number or a yes or no. Anything else may name a person."""
_NAMED = re.compile(r"[A-Za-z_][\w./-]{0,99}", re.ASCII)
_HUB = re.compile(r"^(hf://|(https?://)?huggingface\.co/)")
_ON_A_HUB = re.compile(r"[\w.-]{1,99}(/[\w.-]{1,99})?(@[\w.-]{1,99})?", re.ASCII)


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
                "params": (plain := _plain(params)),
                "params_digest": sha256_json(params),
                "record": record,
                "seeds": {key: value for key, value in plain.items() if key.lower().endswith("seed")},
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


def require_weights(model: ModelVersion, registered: str | None, subject: Sequence[Mapping[str, Any]]) -> None:
    """That the files in the artifact store are the weights that were registered, where their tensor digest is known.

    Raises:
        TamperedError: they are not.
    """
    found = str(subject[0]["digest"].get("tensors", "none"))
    if registered and found != registered:
        raise TamperedError(f"{model}: the weights in the artifact store are {found[:16]}, registered were {registered[:16]}; restore them")


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
    """A parent by its registration, and by the digest of its weights as they lie in the artifact store now."""
    registered = statements.registration(descent.parent)
    known = {"run_id": registered.run_id, "created_at": str(registered.created_at)}
    notes = {"kind": "model", "relation": descent.relation.value, "evidence": descent.evidence, **known}
    with statements.files(descent.parent) as folder, in_our_words():
        weights = sorted(folder.rglob("*.safetensors"))
        if not weights:
            raise LineageError(f"{lineage.model}: its ancestor {descent.parent} has no safetensors, by which it could be named; adopt it as its data")
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
    others = [_HUB.sub("", name) for name in named if name.lower() not in NOTHING and not LOGGED.search(name)]
    return sorted({f"hf://{name}" for name in others if _ON_A_HUB.fullmatch(name) and not name.startswith(".")})


def _plain(params: Mapping[str, str]) -> dict[str, str]:
    """The params that are signed as they are; the others are in a digest only."""
    return {key: value for key, value in params.items() if _NAMED.fullmatch(key) and _PLAIN.fullmatch(value)}


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
