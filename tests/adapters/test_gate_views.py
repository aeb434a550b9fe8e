"""What the gate reads in MLflow's tables: the versions that are there, whose digests change with whatever a decision rests on, and who holds what."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sql
from mlflow.store.db.base_sql_model import Base
from mlflow.store.model_registry.dbmodels.models import SqlModelVersion, SqlModelVersionTag, SqlRegisteredModel, SqlRegisteredModelAlias
from mlflow.store.tracking.dbmodels.models import SqlExperiment, SqlInput, SqlLoggedModel, SqlLoggedModelTag, SqlParam, SqlRun, SqlTag
from sqlalchemy.engine import Connection

from mlflow_unlearn.adapters import gate_views as views
from mlflow_unlearn.lineage import ModelVersion

VERSIONS, TAGS, ALIASES = (each.__table__ for each in (SqlModelVersion, SqlModelVersionTag, SqlRegisteredModelAlias))
INPUTS, PARAMS, RUN_TAGS = (each.__table__ for each in (SqlInput, SqlParam, SqlTag))
LOGGED = [SqlLoggedModel.__table__, SqlLoggedModelTag.__table__]
MADE = [SqlRegisteredModel.__table__, SqlExperiment.__table__, SqlRun.__table__, VERSIONS, TAGS, ALIASES, INPUTS, PARAMS, RUN_TAGS, *LOGGED]
ONE, TWO, OTHER = ModelVersion(name="m", version="1"), ModelVersion(name="m", version="2"), ModelVersion(name="n", version="1")


@pytest.fixture
def connection() -> Iterator[Connection]:
    """m/1 of run r1, m/2 made later, n/1; nobody holds anything."""
    engine = sql.create_engine("sqlite://")
    Base.metadata.create_all(engine, tables=MADE)
    with engine.connect() as made:
        for model, run in ((ONE, "r1"), (TWO, "r2"), (OTHER, None)):
            add(made, model, run_id=run)
        tag(made, ONE, "unlearn.dvc.train", "a" * 32)
        made.execute(RUN_TAGS.insert().values(run_uuid="r1", key="unlearn.git.commit", value="c"))
        made.execute(PARAMS.insert().values(run_uuid="r1", key="lr", value="1"))
        yield made
    engine.dispose()


def add(connection: Connection, model: ModelVersion, **values: Any) -> None:
    fixed = {"workspace": "default", "name": model.name, "version": int(model.version), "creation_time": 1, "last_updated_time": 1}
    connection.execute(VERSIONS.insert().values(**fixed | {"source": f"file:///{model}", "current_stage": "None", "run_id": None} | values))


def tag(connection: Connection, model: ModelVersion, key: str, value: str | None) -> None:
    connection.execute(TAGS.insert().values(workspace="default", name=model.name, version=int(model.version), key=key, value=value))


def change(connection: Connection, model: ModelVersion, **values: Any) -> None:
    connection.execute(VERSIONS.update().where(VERSIONS.c.name == model.name, VERSIONS.c.version == int(model.version)).values(**values))


def hold(connection: Connection, model: ModelVersion, alias: str) -> None:
    connection.execute(ALIASES.insert().values(workspace="default", name=model.name, alias=alias, version=int(model.version)))


def digest(connection: Connection, model: ModelVersion = ONE) -> str:
    row = views.version_row(connection, model)
    assert row is not None
    return row.digest


def test_a_version_is_given_as_it_stands(connection: Connection) -> None:
    tag(connection, ONE, "mine", "x")
    tag(connection, ONE, "unlearn.base_model", None)
    row = views.version_row(connection, ONE)
    assert row is not None
    assert (row.model, row.source, row.location, row.run_id, row.stage) == (ONE, "file:///m/1", "file:///m/1", "r1", "None")
    assert row.tags == (("unlearn.base_model", ""), ("unlearn.dvc.train", "a" * 32))
    change(connection, ONE, storage_location="file:///elsewhere")
    assert views.version_rows(connection, [ONE])[ONE].location == "file:///elsewhere"


def test_what_is_not_there_or_was_deleted_is_none(connection: Connection) -> None:
    change(connection, TWO, current_stage="Deleted_Internal")
    for each in (TWO, ModelVersion(name="m", version="9"), ModelVersion(name="x", version="1"), ModelVersion(name="n", version="2")):
        assert views.version_row(connection, each) is None
    assert views.version_rows(connection, [ONE, TWO, OTHER]).keys() == {ONE, OTHER}
    assert views.version_rows(connection, []) == {}


def test_of_many_versions_none_is_missed_and_none_added(connection: Connection) -> None:
    many = [ModelVersion(name=f"x{number % 3}", version=str(number)) for number in range(1, 451)]
    for each in many:
        add(connection, each)
        tag(connection, each, "unlearn.request", each.version)
    found = views.version_rows(connection, many)
    assert sorted(found) == sorted(many)
    assert all(row.tags == (("unlearn.request", model.version),) for model, row in found.items())


@pytest.mark.parametrize(
    "values", [{"source": "s"}, {"storage_location": "s"}, {"run_id": "r9"}, {"creation_time": 2}], ids=["source", "location", "run", "creation"]
)
def test_a_digest_changes_with_the_row(connection: Connection, values: dict[str, Any]) -> None:
    before = digest(connection)
    change(connection, ONE, **values)
    assert digest(connection) != before


def test_a_digest_changes_with_our_tags_and_with_nothing_else(connection: Connection) -> None:
    before = digest(connection)
    tag(connection, ONE, "mine", "x")
    tag(connection, TWO, "unlearn.verdict", "PASS")
    change(connection, ONE, current_stage="Staging", last_updated_time=7, description="d", user_id="u")
    assert digest(connection) == before
    tag(connection, ONE, "unlearn.verdict", "PASS")
    assert (after := digest(connection)) != before
    connection.execute(TAGS.update().where(TAGS.c.key == "unlearn.verdict").values(value="FAIL"))
    assert digest(connection) not in (before, after)


ANCESTRY = {
    "a version": VERSIONS.update().where(VERSIONS.c.version == 2).values(source="s"),
    "a dataset that a run read": INPUTS.insert().values(
        input_uuid="i", source_type="DATASET", source_id="d-1", destination_type="RUN", destination_id="r1", step=0
    ),
    "a model that a run read": INPUTS.insert().values(
        input_uuid="i", source_type="RUN_INPUT", source_id="r1", destination_type="MODEL_INPUT", destination_id="m-1", step=0
    ),
    "our tag of a run": RUN_TAGS.insert().values(run_uuid="r2", key="unlearn.dvc.train", value="b"),
    "a param": PARAMS.insert().values(run_uuid="r1", key="batch", value="2"),
    "no tag of ours": RUN_TAGS.delete(),
}


@pytest.mark.parametrize("statement", ANCESTRY.values(), ids=ANCESTRY)
def test_the_digest_of_an_ancestry_changes_with_what_the_registry_has_about_it(connection: Connection, statement: sql.Executable) -> None:
    before = views.ancestry(connection, views.version_rows(connection, [ONE, TWO]))
    connection.execute(statement)
    assert views.ancestry(connection, views.version_rows(connection, [ONE, TWO])) != before


def test_the_digest_of_an_ancestry_is_that_of_its_versions_in_any_order_and_of_nobody_else(connection: Connection) -> None:
    before = views.ancestry(connection, views.version_rows(connection, [ONE, TWO]))
    change(connection, OTHER, source="s")
    connection.execute(RUN_TAGS.insert().values(run_uuid="r1", key="mine", value="x"))
    connection.execute(RUN_TAGS.insert().values(run_uuid="r9", key="unlearn.x", value="x"))
    connection.execute(PARAMS.insert().values(run_uuid="r9", key="x", value="x"))
    assert views.ancestry(connection, views.version_rows(connection, [TWO, ONE])) == before
    assert views.ancestry(connection, views.version_rows(connection, [ONE])) != before


def test_who_holds_an_alias_is_found_by_its_very_name(connection: Connection) -> None:
    hold(connection, TWO, "champion")
    hold(connection, OTHER, "champion")
    assert [views.holder(connection, *each) for each in (("m", "champion"), ("n", "champion"), ("m", "Champion"), ("x", "champion"))] == [
        "2",
        "1",
        "",
        "",
    ]
    assert {(each.model, each.alias) for each in views.aliases(connection)} == {(TWO, "champion"), (OTHER, "champion")}
    assert [each.model for each in views.aliases(connection, "m")] == [TWO]
    assert views.aliases(connection, "x") == ()


def test_who_is_in_a_stage_is_found_whatever_its_case_and_never_who_was_deleted(connection: Connection) -> None:
    change(connection, ONE, current_stage="Production")
    change(connection, TWO, current_stage="Production")
    change(connection, OTHER, current_stage="Deleted_Internal")
    assert views.stage_holders(connection, "m", "production") == "1,2"
    assert views.stage_holders(connection, "m", "Staging") == ""
    assert {(each.model, each.alias) for each in views.staged(connection)} == {(ONE, "Production"), (TWO, "Production")}
    assert views.staged(connection, "n") == ()


def test_every_version_that_is_there_is_told_with_its_place_in_the_order_of_registration(connection: Connection) -> None:
    change(connection, TWO, storage_location="file:///elsewhere")
    change(connection, ONE, creation_time=3)
    assert views.located(connection) == [(TWO, "file:///elsewhere"), (OTHER, "file:///n/1"), (ONE, "file:///m/1")]
    change(connection, OTHER, current_stage="Deleted_Internal")
    assert [model for model, _ in views.located(connection)] == [TWO, ONE]


def test_a_version_is_called_signed_where_a_tag_names_a_statement(connection: Connection) -> None:
    assert views.signed(connection) == frozenset()
    tag(connection, ONE, "unlearn.lineage.statement", "a" * 64)
    tag(connection, TWO, "unlearn.certificate", "b" * 64)
    tag(connection, OTHER, "unlearn.verdict", "PASS")
    assert views.signed(connection) == {ONE, TWO}


def test_a_stamp_changes_when_a_version_comes_goes_or_changes(connection: Connection) -> None:
    seen = [views.stamp(connection)]
    add(connection, ModelVersion(name="n", version="2"))
    seen.append(views.stamp(connection))
    change(connection, ONE, last_updated_time=5)
    seen.append(views.stamp(connection))
    connection.execute(VERSIONS.delete().where(VERSIONS.c.name == "n", VERSIONS.c.version == 2))
    seen.append(views.stamp(connection))
    assert len(set(seen)) == len(seen)
    assert views.stamp(connection) == seen[-1]
