"""MLflow's own tables, read with plain selects of the columns that matter: what a page of its client costs a thousand times over.

Nothing is written. Which rows count is MLflow's rule, taken from its stores: no deleted version, no prompt, the active workspace only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy
from mlflow import MlflowClient
from mlflow.entities.lifecycle_stage import LifecycleStage
from mlflow.entities.model_registry.model_version_stages import STAGE_DELETED_INTERNAL
from mlflow.exceptions import MlflowException
from mlflow.prompt.constants import IS_PROMPT_TAG_KEY
from sqlalchemy import Engine, Table, and_, case, select

from .registry_rows import ADDRESSES, BASE_KEYS, DVC, ORIGIN_TAGS, DatasetRow, LoggedModelRow, RunRow, VersionRow, chunks, names_base, our_tags

_IDS_A_QUERY = 2000
"""Below the 2,100 parameters of SQL Server, the smallest limit of MLflow's databases."""


@dataclass(frozen=True, kw_only=True)
class TableRows:
    """Rows of a store that is a database this process reaches itself."""

    registry: Engine
    tracking: Engine
    registry_workspace: str
    tracking_workspace: str

    def versions(self) -> list[VersionRow]:
        """Every version that is not deleted; no prompts."""
        tags = self._version_tags()
        return self._version_rows(lambda name, number: our_tags(tags.get((name, number), ())))

    def untagged(self) -> list[VersionRow]:
        """The same without tags, which are ten times as many rows."""
        return self._version_rows(lambda _name, _number: {})

    def tags(self, versions: Collection[tuple[str, str]]) -> dict[tuple[str, str], dict[str, str]]:
        """(name, version) -> the tags that this project reads."""
        found = self._version_tags({name for name, _ in versions})
        return {(name, version): our_tags(found.get((name, int(version)), ())) for name, version in versions}

    def aliases(self) -> dict[tuple[str, str], tuple[str, ...]]:
        """(name, version) -> aliases, sorted."""
        from mlflow.store.model_registry.dbmodels.models import SqlRegisteredModelAlias

        table = SqlRegisteredModelAlias.__table__.c
        query = select(table.name, table.version, table.alias).where(table.workspace == self.registry_workspace)
        found: dict[tuple[str, str], list[str]] = defaultdict(list)
        for name, version, alias in self._all(self.registry, query):
            found[name, str(version)].append(alias)
        return {key: tuple(sorted(aliases)) for key, aliases in found.items()}

    def runs(self, ids: Collection[str]) -> dict[str, RunRow]:
        """Runs by id; one that is gone for good is missing."""
        from mlflow.store.tracking.dbmodels.models import SqlExperiment, SqlParam, SqlRun, SqlTag

        run, experiment = SqlRun.__table__, SqlExperiment.__table__
        query = (
            select(run.c.run_uuid, experiment.c.name)
            .join(experiment, experiment.c.experiment_id == run.c.experiment_id)
            .where(experiment.c.workspace == self.tracking_workspace)
        )
        experiments = dict(self._by(ids, query, run.c.run_uuid))
        tags = self._pairs(ids, SqlTag.__table__, "run_uuid", SqlTag.__table__.c.key.in_(ORIGIN_TAGS))
        params = self._pairs(ids, SqlParam.__table__, "run_uuid", _base(SqlParam.__table__.c.key, SqlParam.__table__.c.value))
        datasets, (read, made) = self._datasets(ids), self._edges(ids)
        return {
            run_id: RunRow(
                run_id=run_id,
                experiment=name,
                tags=dict(tags.get(run_id, ())),
                params={key: value for key, value in params.get(run_id, ()) if names_base(key, value)},
                datasets=tuple(sorted(datasets.get(run_id, ()))),
                read=tuple(sorted(read.get(run_id, ()))),
                made=tuple(sorted(made.get(run_id, ()))),
            )
            for run_id, name in experiments.items()
        }

    def logged_models(self, ids: Collection[str]) -> dict[str, LoggedModelRow]:
        """Logged models by id; a deleted one is missing."""
        from mlflow.store.tracking.dbmodels.models import SqlExperiment, SqlLoggedModel, SqlLoggedModelParam, SqlLoggedModelTag

        model, experiment = SqlLoggedModel.__table__, SqlExperiment.__table__
        query = (
            select(model.c.model_id, model.c.source_run_id, model.c.artifact_location)
            .join(experiment, experiment.c.experiment_id == model.c.experiment_id)
            .where(experiment.c.workspace == self.tracking_workspace, model.c.lifecycle_stage != LifecycleStage.DELETED)
        )
        found = list(self._by(ids, query, model.c.model_id))
        tag, param = SqlLoggedModelTag.__table__, SqlLoggedModelParam.__table__
        tags = self._pairs(ids, tag, "model_id", tag.c.tag_key.in_(ORIGIN_TAGS))
        params = self._pairs(ids, param, "model_id", _base(param.c.param_key, param.c.param_value))
        return {
            model_id: LoggedModelRow(
                model_id=model_id,
                run_id=run_id or None,
                location=location,
                tags=dict(tags.get(model_id, ())),
                params={key: value for key, value in params.get(model_id, ()) if names_base(key, value)},
            )
            for model_id, run_id, location in found
        }

    def readers(self, digests: Collection[str]) -> set[str]:
        """Ids of runs that have a dataset under DVC with one of these digests as an input."""
        dataset, joined = self._run_datasets()
        query = select(joined.c.destination_id).select_from(_joined(dataset, joined)).where(dataset.c.dataset_source_type == DVC)
        return {run_id for (run_id,) in self._by(digests, query, dataset.c.digest)}

    def models_of(self, run_ids: Collection[str]) -> dict[str, tuple[str, ...]]:
        """Run -> ids of the logged models whose source it is."""
        from mlflow.store.tracking.dbmodels.models import SqlLoggedModel

        table = SqlLoggedModel.__table__.c
        query = select(table.source_run_id, table.model_id).where(table.lifecycle_stage != LifecycleStage.DELETED)
        found: dict[str, list[str]] = defaultdict(list)
        for run_id, model_id in self._by(run_ids, query, table.source_run_id):
            found[run_id].append(model_id)
        return {run_id: tuple(sorted(models)) for run_id, models in found.items()}

    def _version_rows(self, tags_of: Callable[[str, int], dict[str, str]]) -> list[VersionRow]:
        """Every version with its tags, but for the models that MLflow uses for prompts."""
        from mlflow.store.model_registry.dbmodels.models import SqlModelVersion, SqlModelVersionTag

        table, tag = SqlModelVersion.__table__.c, SqlModelVersionTag.__table__.c
        query = select(table.name, table.version, table.run_id, table.source).where(
            table.workspace == self.registry_workspace, table.current_stage != STAGE_DELETED_INTERNAL
        )
        marked = select(tag.name).where(tag.workspace == self.registry_workspace, tag.key == IS_PROMPT_TAG_KEY, tag.value == "true")
        prompts = {name for (name,) in self._all(self.registry, marked)}
        return [
            VersionRow(name=name, version=str(number), run_id=run_id or None, source=source or "", tags=tags_of(name, number))
            for name, number, run_id, source in self._all(self.registry, query)
            if name not in prompts
        ]

    def _version_tags(self, names: Collection[str] | None = None) -> dict[tuple[str, int], list[tuple[str, str]]]:
        """Our tags by version, of all models or of these."""
        from mlflow.store.model_registry.dbmodels.models import SqlModelVersionTag

        table = SqlModelVersionTag.__table__.c
        query = select(table.name, table.version, table.key, table.value).where(table.workspace == self.registry_workspace, _ours(table.key))
        tags: dict[tuple[str, int], list[tuple[str, str]]] = defaultdict(list)
        for asked in [query] if names is None else [query.where(table.name.in_(some)) for some in chunks(names, _IDS_A_QUERY)]:
            for name, version, key, value in self._all(self.registry, asked):
                tags[name, version].append((key, value))
        return tags

    def _datasets(self, run_ids: Collection[str]) -> dict[str, list[DatasetRow]]:
        dataset, joined = self._run_datasets()
        source = case((dataset.c.dataset_source_type == DVC, ""), else_=dataset.c.dataset_source)
        query = select(joined.c.destination_id, dataset.c.name, dataset.c.digest, dataset.c.dataset_source_type, source)
        rows: dict[str, list[DatasetRow]] = defaultdict(list)
        for run_id, name, digest, kind, text in self._by(run_ids, query.select_from(_joined(dataset, joined)), joined.c.destination_id):
            rows[run_id].append(DatasetRow(name=name, digest=digest, source_type=kind, source=text))
        return rows

    @staticmethod
    def _run_datasets() -> tuple[Table, Table]:
        from mlflow.store.tracking.dbmodels.models import SqlDataset, SqlInput

        return SqlDataset.__table__, SqlInput.__table__

    def _edges(self, run_ids: Collection[str]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        """Run -> logged models that it read, and that it made."""
        from mlflow.store.tracking.dbmodels.models import SqlInput

        table = SqlInput.__table__.c
        query = select(table.source_type, table.source_id, table.destination_id).where(table.source_type.in_(("RUN_INPUT", "RUN_OUTPUT")))
        read: dict[str, list[str]] = defaultdict(list)
        made: dict[str, list[str]] = defaultdict(list)
        for kind, run_id, model_id in self._by(run_ids, query, table.source_id):
            (read if kind == "RUN_INPUT" else made)[run_id].append(model_id)
        return read, made

    def _pairs(self, ids: Collection[str], table: Table, owner: str, wanted: Any) -> dict[str, list[tuple[str, str]]]:
        """Owner -> (key, value) of a table of tags or params."""
        key = next(column for column in table.c if column.name in ("key", "tag_key", "param_key"))
        value = next(column for column in table.c if column.name in ("value", "tag_value", "param_value"))
        found: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for each, name, text in self._by(ids, select(table.c[owner], key, value).where(wanted), table.c[owner]):
            found[each].append((name, text or ""))
        return found

    def _by(self, ids: Collection[str], query: Any, column: Any) -> Iterator[Any]:
        for some in chunks(ids, _IDS_A_QUERY):
            yield from self._all(self.tracking, query.where(column.in_(some)))

    @staticmethod
    def _all(engine: Engine, query: Any) -> list[Any]:
        with engine.connect() as connection:
            return list(connection.execute(query).all())


def _joined(dataset: Table, joined: Table) -> Any:
    on = and_(joined.c.source_id == dataset.c.dataset_uuid, joined.c.source_type == "DATASET", joined.c.destination_type == "RUN")
    return dataset.join(joined, on)


def _ours(key: Any) -> Any:
    return key.startswith("unlearn.", autoescape=True)


def _base(key: Any, value: Any) -> Any:
    """A superset of what `names_base` takes."""
    keys = (key.endswith(word, autoescape=True) for word in sorted(BASE_KEYS))
    return sqlalchemy.or_(*keys, *(value.startswith(address, autoescape=True) for address in ADDRESSES))


def table_rows(client: MlflowClient) -> TableRows | None:
    """The tables behind a client; None when its stores are not MLflow's databases, e.g. a server."""
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as RegistryStore
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as TrackingStore

    try:
        registry, tracking = client._get_registry_client().store, client._tracking_client.store
        if not (isinstance(registry, RegistryStore) and isinstance(tracking, TrackingStore)):
            return None
        return TableRows(
            registry=registry.engine,
            tracking=tracking.engine,
            registry_workspace=registry._get_active_workspace(),
            tracking_workspace=tracking._get_active_workspace(),
        )
    except (AttributeError, MlflowException):  # a later MLflow that names these otherwise: its client answers too
        return None
