"""What MLflow's tables say about versions, aliases and stages, in the few queries that a decision has time for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import sqlalchemy as sql
from mlflow.store.model_registry.dbmodels.models import SqlModelVersion, SqlModelVersionTag, SqlRegisteredModelAlias
from mlflow.store.tracking.dbmodels.models import SqlInput, SqlLoggedModelTag, SqlParam, SqlTag
from mlflow.utils.workspace_utils import DEFAULT_WORKSPACE_NAME
from sqlalchemy.engine import Connection

from ..digests import sha256_json
from ..lineage import ModelVersion
from .registry_rows import CERTIFICATE_TAG, LINEAGE_TAG

_VERSIONS, _TAGS, _ALIASES = (each.__table__ for each in (SqlModelVersion, SqlModelVersionTag, SqlRegisteredModelAlias))
_INPUTS, _PARAMS, _RUN_TAGS, _LOGGED = (each.__table__ for each in (SqlInput, SqlParam, SqlTag, SqlLoggedModelTag))
_OURS = "unlearn.%"
_DELETED = "Deleted_Internal"
_AT_ONCE = 200
T = TypeVar("T")


def _in(column: sql.ColumnElement[Any], name: str) -> sql.ColumnElement[bool]:
    return column.in_(sql.bindparam(name, expanding=True))


def _here(table: Any) -> Any:
    """MLflow's one workspace, by which its indexes begin."""
    return table.c.workspace == DEFAULT_WORKSPACE_NAME


# Built once: putting such a statement together costs more than sqlite needs to answer it.
_COLUMNS = ("name", "version", "source", "storage_location", "run_id", "creation_time", "current_stage")
_AMONG = sql.select(*(_VERSIONS.c[name] for name in _COLUMNS)).where(
    _here(_VERSIONS), _in(_VERSIONS.c.name, "names"), _in(_VERSIONS.c.version, "versions"), _VERSIONS.c.current_stage != _DELETED
)
_TAGGED = sql.select(_TAGS.c.name, _TAGS.c.version, _TAGS.c.key, _TAGS.c.value).where(
    _here(_TAGS), _in(_TAGS.c.name, "names"), _in(_TAGS.c.version, "versions"), (_TAGS.c.key + "").like(_OURS)
)
"""The key as an expression: by its index sqlite would look through the tags of all versions."""
_RECORDED = sql.union_all(
    sql.select(_INPUTS.c.destination_id, _INPUTS.c.source_type, _INPUTS.c.source_id).where(
        _INPUTS.c.destination_type == "RUN", _in(_INPUTS.c.destination_id, "runs")
    ),
    sql.select(_INPUTS.c.source_id, _INPUTS.c.destination_type, _INPUTS.c.destination_id).where(
        _INPUTS.c.source_type.in_(("RUN_INPUT", "RUN_OUTPUT")), _in(_INPUTS.c.source_id, "runs")
    ),
    sql.select(_RUN_TAGS.c.run_uuid, _RUN_TAGS.c.key, _RUN_TAGS.c.value).where(_in(_RUN_TAGS.c.run_uuid, "runs"), _RUN_TAGS.c.key.like(_OURS)),
    sql.select(_LOGGED.c.model_id, _LOGGED.c.tag_key, _LOGGED.c.tag_value).where(_in(_LOGGED.c.model_id, "logged"), _LOGGED.c.tag_key.like(_OURS)),
    sql.select(_PARAMS.c.run_uuid, sql.literal("params"), sql.cast(sql.func.count(), sql.String))
    .where(_in(_PARAMS.c.run_uuid, "runs"))
    .group_by(_PARAMS.c.run_uuid),
)
"""Datasets and models that runs read or made, our tags of runs and logged models, and how many params each run has: a param is only ever added."""
_PLACE = sql.func.coalesce(sql.func.nullif(_VERSIONS.c.storage_location, ""), _VERSIONS.c.source)
_LYING = (
    sql.select(_VERSIONS.c.name, _VERSIONS.c.version, _PLACE.label("place"))
    .where(_here(_VERSIONS), _VERSIONS.c.current_stage != _DELETED)
    .where(_in(_PLACE, "locations"))
    .order_by(_VERSIONS.c.creation_time, _VERSIONS.c.name, _VERSIONS.c.version)
)
_HOLDER = sql.select(_ALIASES.c.version).where(_here(_ALIASES), _ALIASES.c.name == sql.bindparam("name"), _ALIASES.c.alias == sql.bindparam("alias"))


@dataclass(frozen=True, kw_only=True)
class VersionRow:
    """A registered version as it stands in the table."""

    model: ModelVersion
    source: str
    location: str
    """Where its files are: `storage_location`, or else its source."""
    run_id: str
    created_at: int
    stage: str
    tags: tuple[tuple[str, str], ...]
    """Ours alone, by key."""

    @property
    def digest(self) -> str:
        """Of everything that a decision about it rests on; a stage and foreign tags may change."""
        return sha256_json([str(self.model), self.source, self.location, self.run_id, self.created_at, [list(tag) for tag in self.tags]])


@dataclass(frozen=True, kw_only=True)
class Holding:
    """A version that holds an alias or a stage."""

    model: ModelVersion
    alias: str
    stage: bool = False
    """Whether `alias` is one of MLflow's stages."""

    @property
    def label(self) -> str:
        """Under which name it is written down; an alias may be called as a stage is."""
        return staging(self.alias) if self.stage else self.alias


def staging(stage: str) -> str:
    """A stage, as no alias can be called."""
    return f"stage:{stage}"


def version_row(connection: Connection, model: ModelVersion) -> VersionRow | None:
    """A version; None where there is none, or it was deleted."""
    return version_rows(connection, [model]).get(model)


def version_rows(connection: Connection, models: Sequence[ModelVersion]) -> dict[ModelVersion, VersionRow]:
    """Versions that are there and were not deleted."""
    return {row.model: row for part in _parts(models) for row in _rows(connection, part)}


def ancestry(connection: Connection, rows: Mapping[ModelVersion, VersionRow]) -> str:
    """Digests of what the registry has about a version and its ancestors, and, after a point, of what their runs recorded."""
    runs = sorted({row.run_id for row in rows.values() if row.run_id})
    logged = sorted({row.source.removeprefix("models:/") for row in rows.values() if row.source.startswith("models:/m-")})
    recorded = sorted([str(value) for value in row] for row in connection.execute(_RECORDED, {"runs": runs, "logged": logged}).all())
    return f"{sha256_json(sorted(row.digest for row in rows.values()))}.{sha256_json(recorded)}"


def holder(connection: Connection, name: str, alias: str) -> str:
    """The version that an alias points at; empty where there is no such alias."""
    row = connection.execute(_HOLDER, {"name": name, "alias": alias}).first()
    return str(row.version) if row is not None else ""


def aliases(connection: Connection, name: str | None = None) -> tuple[Holding, ...]:
    """Every alias, of one registered model or of all."""
    query = sql.select(_ALIASES.c.name, _ALIASES.c.alias, _ALIASES.c.version)
    rows = connection.execute(query if name is None else query.where(_ALIASES.c.name == name)).all()
    return tuple(Holding(model=ModelVersion(name=row.name, version=str(row.version)), alias=row.alias) for row in rows)


def staged(connection: Connection, name: str | None = None) -> tuple[Holding, ...]:
    """Every version in a stage, of one registered model or of all; the stage stands for the alias."""
    query = sql.select(_VERSIONS.c.name, _VERSIONS.c.version, _VERSIONS.c.current_stage)
    query = query.where(_VERSIONS.c.current_stage.not_in(["None", _DELETED]))
    rows = connection.execute(query if name is None else query.where(_VERSIONS.c.name == name)).all()
    return tuple(Holding(model=ModelVersion(name=row.name, version=str(row.version)), alias=row.current_stage, stage=True) for row in rows)


def stage_holders(connection: Connection, name: str, stage: str) -> str:
    """The versions in a stage, by number and with commas."""
    found = [each.model.version for each in staged(connection, name) if each.alias.casefold() == stage.casefold()]
    return ",".join(sorted(found, key=int))


def located(connection: Connection) -> list[tuple[ModelVersion, str]]:
    """Every version with where its files are, in the order of their registration."""
    columns = (_VERSIONS.c.name, _VERSIONS.c.version, _VERSIONS.c.source, _VERSIONS.c.storage_location)
    query = (
        sql.select(*columns).where(_VERSIONS.c.current_stage != _DELETED).order_by(_VERSIONS.c.creation_time, _VERSIONS.c.name, _VERSIONS.c.version)
    )
    return [(ModelVersion(name=name, version=str(number)), place or source or "") for name, number, source, place in connection.execute(query).all()]


def lying_at(connection: Connection, locations: Sequence[str]) -> tuple[ModelVersion, ...]:
    """Versions whose files are at one of these locations, as the table spells it, in the order of their registration."""
    return tuple(ModelVersion(name=row.name, version=str(row.version)) for row in connection.execute(_LYING, {"locations": locations}).all())


def occupied(connection: Connection, locations: Sequence[str]) -> frozenset[str]:
    """Those of these locations where files of a version are."""
    return frozenset(row.place for row in connection.execute(_LYING, {"locations": locations}).all())


def signed(connection: Connection) -> frozenset[ModelVersion]:
    """Versions whose tags name something signed; nothing is verified here."""
    query = sql.select(_TAGS.c.name, _TAGS.c.version).where(_TAGS.c.key.in_([CERTIFICATE_TAG, LINEAGE_TAG]))
    return frozenset(ModelVersion(name=row.name, version=str(row.version)) for row in connection.execute(query).all())


def stamp(connection: Connection) -> str:
    """Changes when a version is registered, deleted or changed."""
    columns = sql.func.count(), sql.func.max(_VERSIONS.c.creation_time), sql.func.max(_VERSIONS.c.last_updated_time)
    return sha256_json(list(connection.execute(sql.select(*columns).select_from(_VERSIONS)).one()))


def _rows(connection: Connection, models: Sequence[ModelVersion]) -> tuple[VersionRow, ...]:
    among = {"names": sorted({model.name for model in models}), "versions": sorted({int(model.version) for model in models})}
    wanted, tags = set(models), defaultdict[ModelVersion, list[tuple[str, str]]](list)
    for name, version, key, value in connection.execute(_TAGGED, among).all():
        tags[ModelVersion(name=name, version=str(version))].append((key, value or ""))
    found = []
    for name, version, source, location, run_id, created, stage in connection.execute(_AMONG, among).all():
        if (model := ModelVersion(name=name, version=str(version))) in wanted:
            found.append(
                VersionRow(
                    model=model,
                    source=source or "",
                    location=location or source or "",
                    run_id=run_id or "",
                    created_at=int(created or 0),
                    stage=stage or "",
                    tags=tuple(sorted(tags[model])),
                )
            )
    return tuple(found)


def _parts(values: Sequence[T]) -> Iterable[Sequence[T]]:
    return (values[start : start + _AT_ONCE] for start in range(0, len(values), _AT_ONCE))
