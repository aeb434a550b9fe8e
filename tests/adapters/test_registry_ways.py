"""MLflow's tables and its client's pages tell the same: on a store with every kind of version, straight and through a real server."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import mlflow
import psycopg
import pytest
import sqlalchemy
from mlflow import MlflowClient
from mlflow.entities import ViewType
from registered_models import MD5, OTHER, Maker, dataset, every_kind, registry_at

from mlflow_unlearn.adapters import registry_tables
from mlflow_unlearn.adapters.registry import Registry
from mlflow_unlearn.adapters.registry_descent import Origins
from mlflow_unlearn.adapters.registry_files import KeptAnswers
from mlflow_unlearn.adapters.registry_pages import PageRows
from mlflow_unlearn.adapters.registry_rows import Rows
from mlflow_unlearn.adapters.registry_tables import table_rows
from mlflow_unlearn.errors import LineageError
from mlflow_unlearn.lineage import ModelVersion, Relation, VersionLineage


@dataclass(frozen=True)
class Served:
    """A server and the database behind it."""

    http: str
    database: str
    artifacts: Path


@pytest.fixture(scope="session")
def server(mlflow_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`mlflow server` with one worker, which serves the artifacts under `mlflow-artifacts:/` and keeps experiments' own in a local folder."""
    home = tmp_path_factory.mktemp("server")
    shutil.copy(mlflow_template, home / "mlflow.db")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    database, address = f"sqlite:///{home / 'mlflow.db'}", f"http://127.0.0.1:{port}"
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--backend-store-uri",
        database,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    command += ["--default-artifact-root", (home / "local").as_uri(), "--artifacts-destination", (home / "served").as_uri()]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=home, start_new_session=True)
    try:
        _answers(f"{address}/health", process)
        yield Served(address, database, home / "served")
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)


def _answers(address: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 180
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    pytest.fail("mlflow server did not come up")


@pytest.fixture(scope="session")
def filled(server: Served, tmp_path_factory: pytest.TempPathFactory) -> Served:
    root = tmp_path_factory.mktemp("filled")
    registry = registry_at(root, server.http)
    experiment = registry.client.create_experiment("every kind", (root / "files").as_uri())
    every_kind(Maker(registry.client, experiment))
    return server


def by_pages(registry: Registry) -> tuple[VersionLineage, ...]:
    """Lineages as they are read where the tables are out of reach."""
    return Origins(PageRows(registry.client, KeptAnswers(None)), KeptAnswers(None), lambda *_: None).lineages(None)


def rows_by(served: Served, way: str) -> Rows:
    uri = served.http if way == "server" else served.database
    mlflow.set_tracking_uri(uri)
    client = MlflowClient(uri)
    if way != "tables":
        return PageRows(client, KeptAnswers(None))
    found = table_rows(client)
    assert found is not None
    return found


@pytest.mark.parametrize("way", ["pages", "server"])
def test_every_row_is_the_same_whichever_way_it_was_read(filled: Served, way: str) -> None:
    tables, pages = rows_by(filled, "tables"), rows_by(filled, way)
    versions = sorted(tables.versions(), key=lambda row: (row.name, row.version))
    assert len(versions) == 11
    assert versions == sorted(pages.versions(), key=lambda row: (row.name, row.version))
    assert tables.aliases() == pages.aliases() == {("production", "1"): ("best", "champion")}
    runs = {row.run_id for row in versions if row.run_id} | {"0" * 32}
    assert tables.runs(runs) == pages.runs(runs)
    made = {model for run in tables.runs(runs).values() for model in (*run.read, *run.made)}
    assert len(tables.logged_models(made)) == len(made) - 1
    assert tables.logged_models(made) == pages.logged_models(made)
    assert tables.models_of(runs) == pages.models_of(runs)
    assert tables.readers([MD5, OTHER]) == pages.readers([MD5, OTHER])
    assert len(tables.readers([MD5])) == 3


def test_lineages_and_runs_are_the_same_straight_and_through_a_server(filled: Served, tmp_path: Path) -> None:
    straight, served = registry_at(tmp_path, filled.database), registry_at(tmp_path, filled.http)
    assert table_rows(served.client) is None
    found = straight.lineages()
    assert found == served.lineages()
    assert straight.runs_on([MD5, OTHER]) == served.runs_on([MD5, OTHER])
    assert {each.relation for lineage in found for each in lineage.ancestors} == set(Relation) - {Relation.ADAPTER}


def test_a_closure_is_what_the_whole_registry_says_of_a_version_and_its_ancestors(filled: Served, tmp_path: Path) -> None:
    straight, served = registry_at(tmp_path, filled.database), registry_at(tmp_path, filled.http)
    every = {lineage.model: lineage for lineage in straight.lineages()}
    for model, lineage in every.items():
        found = straight.closure(model)
        assert found[0] == lineage
        assert {each.model: each for each in found} == {each: every[each] for each in descended(model, every)}
    assert served.closure(model) == straight.closure(model)
    with pytest.raises(LineageError, match=r"a-prompt/1: no such version in the registry, or it is a prompt"):
        straight.closure(ModelVersion(name="a-prompt", version="1"))


def descended(model: ModelVersion, every: Mapping[ModelVersion, VersionLineage]) -> set[ModelVersion]:
    """A version and the registered ones it was made from."""
    found, waiting = set(), [model]
    while waiting:
        if (each := waiting.pop()) in every and each not in found:
            found.add(each)
            waiting += [edge.parent for edge in every[each].ancestors]
    return found


def test_a_second_look_through_a_server_asks_for_no_ended_run_again(filled: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = registry_at(tmp_path, filled.http)
    first = registry.lineages()
    monkeypatch.setattr(MlflowClient, "get_run", lambda *_: pytest.fail("asked for a run"))
    assert registry_at(tmp_path, filled.http).lineages() == first


def test_an_adapter_whose_files_only_the_server_has_names_its_base(filled: Served, tmp_path: Path) -> None:
    registry = registry_at(tmp_path, filled.http)
    make = Maker(registry.client, registry.client.create_experiment("served", "mlflow-artifacts:/adapters"))
    run_id = make.run(dataset("customers", OTHER))
    model_id = make.logged(run_id)
    folder = filled.artifacts / "adapters/models" / model_id / "artifacts/peft"
    folder.mkdir(parents=True)
    (folder.parent / "MLmodel").write_text("flavors: {transformers: {peft_adaptor: peft, source_model_name: org/public}}")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "models:/base/1"}')
    made = make.version("adapter", run_id, f"models:/{model_id}")
    found = next(each for each in registry.lineages("adapter") if each.model == made)
    registry.client.delete_registered_model("adapter")
    assert [(str(each.parent), each.relation) for each in found.ancestors] == [("base/1", Relation.ADAPTER)]
    assert found.problem is None


def test_tables_that_are_not_as_expected_are_left_for_the_clients_pages(
    mlflow_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    registry = registry_at(tmp_path, mlflow_store)
    every_kind(Maker(registry.client, registry.client.create_experiment("every kind")))
    found = registry.lineages()
    monkeypatch.setattr(registry_tables, "_ours", lambda key: sqlalchemy.literal_column("no_such_column") == key)
    assert registry.lineages() == found
    assert "asking its client" in caplog.text


def test_experiments_and_models_beyond_the_first_page_are_read_too(mlflow_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = registry_at(tmp_path, mlflow_store)
    for number in range(3):
        make = Maker(registry.client, registry.client.create_experiment(f"e{number}"))
        make.trained(f"m{number}", dataset("customers", MD5))
        registry.client.set_registered_model_alias(f"m{number}", "champion", "1")
    monkeypatch.setattr("mlflow_unlearn.adapters.registry_pages._PAGE", 2)
    monkeypatch.setattr("mlflow_unlearn.adapters.registry_pages._IDS_A_QUERY", 2)
    assert len(registry.client.search_experiments(ViewType.ALL)) == 5
    assert by_pages(registry) == registry.lineages()


def test_tables_of_postgres_are_read_as_its_pages(postgres: str, tmp_path: Path) -> None:
    with psycopg.connect(f"{postgres.replace('+psycopg', '')}/postgres", autocommit=True) as connection:
        connection.execute("CREATE DATABASE mlflow")
    registry = registry_at(tmp_path, f"{postgres}/mlflow")
    every_kind(Maker(registry.client, registry.client.create_experiment("every kind", (tmp_path / "files").as_uri())))
    assert len(registry.lineages()) == 11
    assert registry.lineages() == by_pages(registry)
    assert len(registry.runs_on([MD5, OTHER])) == 5
