"""Tags of versions that begin with `unlearn.`: what clients may say of a version's origin, and what only the server writes, from what is signed.

A client names a signed statement by its digest, as it does without the gate. The server reads it from the run's artifacts, verifies it and writes
what it says: requests, claim and verdicts, counted again. Where a version comes from may be said when it is registered, and added while nothing is
signed about it: that can only add data and ancestors, which makes no version look better to the gate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from mlflow.entities.model_registry import ModelVersionTag

from ..adapters.gate_views import VersionRow, version_row
from ..adapters.registry_rows import ADOPTED_TAG, BASE_MODEL_TAG, CERTIFICATE_TAG, LINEAGE_RUN_TAG, LINEAGE_TAG, RELATION_TAG
from ..adapters.stated_lineage import stated
from ..adapters.statements import Statements
from ..errors import LineageError
from ..lineage import ModelVersion
from ..stages.grounding import ground
from ..stages.proving import Prover
from ..statements import ADOPTED
from ..verifier import RefusedError, Statement, UndecidedError
from .served_bench import by_the_gate
from .survey import STATEMENT
from .unanswered import UNANSWERED

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from .warden import Warden

_OURS = "unlearn."
_KINDS: Mapping[str, Literal["certificate", "lineage"]] = {CERTIFICATE_TAG: "certificate", LINEAGE_TAG: "lineage"}
_RESULTS = frozenset({"unlearn.verdict", "unlearn.claim", ADOPTED_TAG, *_KINDS})
_VERDICT, _DATASET = "unlearn.verdict.", "unlearn.dvc."


@dataclass(frozen=True, kw_only=True)
class Change:
    """What becomes of a tag that a client wants to set."""

    tags: Mapping[str, str] = field(default_factory=dict)
    refusal: str = ""
    signed: bool = False
    """Whether something signed was verified."""
    statement: Mapping[str, Any] = field(default_factory=dict)
    """Of a verified certificate what is kept: its digest and outcomes."""


@dataclass(frozen=True)
class ReservedTags:
    """The rules, for one server."""

    warden: Warden

    def at_creation(self, name: str, source: str, tags: Iterable[ModelVersionTag]) -> list[ModelVersionTag]:
        """The tags of a new version without those that only the server writes; a copy has those of what it is a copy of."""
        original = self._tags_of(source)
        return [tag for tag in tags if not _is_result(tag.key) or original.get(tag.key) == tag.value]

    def change(self, row: VersionRow, key: str, value: str) -> Change:
        """What setting a reserved tag of a version comes to."""
        tags = dict(row.tags)
        if key in _KINDS:
            return self._signed(row, _KINDS[key], value)
        if tags.get(key) == value:
            return Change()
        if _is_result(key) and key != ADOPTED_TAG:
            return Change(refusal=f"{key} is written by the server alone, from a verified certificate: `mlflow-unlearn attest`, or `dvc repro`")
        if key == LINEAGE_RUN_TAG:
            return Change(refusal=f"{key} is given once, to a version without a run") if row.run_id or key in tags else Change(tags={key: value})
        if not tags.keys() & _KINDS.keys():
            new = key not in tags and key != ADOPTED_TAG
            return Change(tags={key: value}) if new else Change(refusal=f"{key} of {row.model} is set; what was said of its origin stays")
        said = self._stated(row)
        if (key, value) in said or (key == ADOPTED_TAG and set(value.split(",")) <= {"nothing", *(name for name, _ in said)}):
            return Change(tags={key: value})
        return Change(refusal=f"{row.model} is signed for, and its signed lineage does not say {key} = {value[:60]!r}; sign it anew, with `adopt`")

    def removal(self, row: VersionRow, key: str) -> str | None:
        """Why a reserved tag may not be deleted; None where a person's signed statement does not have it."""
        tags = dict(row.tags)
        if key not in tags:
            return None
        said = self._stated(row)
        if said and not _is_result(key) and (key, tags[key]) not in said:
            return None
        return f"{key} of {row.model} is reserved: what was said or signed of a version stays"

    def keep(self, connection: Connection, model: ModelVersion, change: Change) -> None:
        """Remember what a verified certificate says."""
        if change.statement:
            self.warden.rows.put(connection, STATEMENT, str(model), change.statement)

    def _signed(self, row: VersionRow, kind: Literal["certificate", "lineage"], digest: str) -> Change:
        """The tags that follow from a statement, if it holds for this version."""
        try:
            statement, found = self._verified(row, kind, digest)
        except (RefusedError, UndecidedError, *UNANSWERED) as error:
            words = "; ".join(str(error).splitlines())[:400]
            return Change(refusal=f"the {kind} {digest[:16]} does not hold for {row.model}: {words}")
        if kind == "lineage":
            return Change(tags={LINEAGE_TAG: statement.digest}, signed=True)
        outcomes = {str(effect): str(outcome) for effect, outcome in found["outcomes"].items()}
        tags = {
            CERTIFICATE_TAG: statement.digest,
            "unlearn.request": ",".join(found["requests"]),
            "unlearn.parent": _parent(statement),
            "unlearn.claim": str(statement.predicate["unlearned"]["claim"]),
            **{f"{_VERDICT}{effect}": outcome for effect, outcome in outcomes.items()},
            **({"unlearn.verdict": outcomes["removal"]} if "removal" in outcomes else {}),
        }
        return Change(tags=tags, signed=True, statement={"digest": statement.digest, "outcomes": outcomes})

    def _verified(self, row: VersionRow, kind: Literal["certificate", "lineage"], digest: str) -> tuple[Statement, Mapping[str, Any]]:
        decisions, now = self.warden.decisions, datetime.now(UTC)
        location = decisions.storage.canonical(row.location)
        with decisions.deciding, by_the_gate():
            bench = decisions.project.bench()
            prover = Prover(bench, ground(bench, bench.folder / "policy.yaml", bench.policy, now), bench.policy, now)
            raw = Statements(bench.registry).of_digest(row.model, kind, digest)
            lineage = bench.registry.closure(row.model)[0]
            return prover.verified(lineage, raw, kind, partial(decisions.subjects.subject, location))

    def _stated(self, row: VersionRow) -> frozenset[tuple[str, str]]:
        """The tags that a person's signed statement of lineage stands for; none where no person stated it."""
        digest = dict(row.tags).get(LINEAGE_TAG)
        if digest is None:
            return frozenset()
        try:
            statement, _ = self._verified(row, "lineage", digest)
            definition = statement.predicate["buildDefinition"]
            said = stated(definition)
        except (RefusedError, UndecidedError, *UNANSWERED, KeyError, TypeError, ValueError, AttributeError):
            return frozenset()
        if definition["buildType"] != ADOPTED:
            return frozenset()
        found = {(f"{_DATASET}{name}", md5) for name, md5 in said.datasets.items()}
        found |= {(RELATION_TAG, each.relation.value) for each in said.ancestors.values()}
        found.add((BASE_MODEL_TAG, ",".join(f"models:/{each}" for each in said.ancestors) or "none"))
        return frozenset(found)

    def _tags_of(self, source: str) -> Mapping[str, str]:
        body = source.removeprefix("models:/")
        name, slash, version = body.rpartition("/")
        if body == source or not slash or not version.isdigit():
            return {}
        with self.warden.engine.connect() as connection:
            row = version_row(connection, ModelVersion(name=name, version=version))
        return dict(row.tags) if row is not None else {}


def _is_result(key: str) -> bool:
    return key in _RESULTS or key.startswith(_VERDICT)


def _parent(statement: Statement) -> str:
    model = statement.predicate["unlearned"]["parent"]["model"]
    if not isinstance(model, dict) or not {"name", "version"} <= model.keys():
        raise LineageError("the certificate names no parent")
    return f"{model['name']}/{model['version']}"
