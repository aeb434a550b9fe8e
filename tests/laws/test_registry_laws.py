"""Whatever graph of runs, logged models and versions a store holds, lineages reach exactly the data that a plain search reaches."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlflow_unlearn.adapters.registry import Registry, connect
from mlflow_unlearn.config import Settings
from mlflow_unlearn.lineage import ModelVersion, VersionLineage

MODELS, STATES = 7, 4
TABLES = ["model_versions", "registered_models", "inputs", "datasets", "logged_models", "tags", "runs"]


@dataclass(frozen=True)
class Logged:
    """One logged model: the data and models its run read, the models a tag names, and how often it is registered."""

    data: frozenset[int]
    read: frozenset[int]
    stated: frozenset[int]
    registered: int


logged_models = st.builds(
    Logged,
    data=st.frozensets(st.integers(0, STATES - 1), max_size=2),
    read=st.frozensets(st.integers(0, MODELS - 1), max_size=2),
    stated=st.frozensets(st.integers(0, MODELS - 1), max_size=1),
    registered=st.sampled_from([0, 0, 1, 1, 2]),
)


def run_id(number: int) -> str:
    return f"{number:032x}"


def fill(path: Path, graph: list[Logged]) -> None:
    """The graph as rows of MLflow's tables; model k is `name-k` where it is registered."""
    with sqlite3.connect(path) as store:
        for table in TABLES:
            store.execute(f"delete from {table}")
        put = store.executemany
        put("insert into datasets values (?, 0, 'd', ?, 'dvc', '{}', null, null)", [(f"d{k}", f"md5-{k}") for k in range(STATES)])
        put("insert into registered_models (workspace, name) values ('default', ?)", [(f"name-{k}",) for k in range(MODELS)])
        for k, model in enumerate(graph):
            run, edges = run_id(k), [("DATASET", f"d{each}", "RUN", run_id(k)) for each in model.data]
            edges += [("RUN_INPUT", run, "MODEL_INPUT", f"m-{run_id(each)}") for each in model.read]
            store.execute("insert into runs (run_uuid, experiment_id, lifecycle_stage, status) values (?, 0, 'active', 'FINISHED')", (run,))
            put("insert into inputs values (?, ?, ?, ?, ?, 0)", [(f"{k}-{n}", *edge) for n, edge in enumerate(edges)])
            stated = ",".join(f"m-{run_id(each)}" for each in model.stated)
            put("insert into tags values ('unlearn.base_model', ?, ?)", [(stated, run)] if stated else [])
            store.execute("insert into logged_models values (?, 0, 'm', '/nowhere', 1, 1, 2, 'active', null, ?, null)", (f"m-{run}", run))
            rows = [(f"name-{k}", n + 1, f"models:/m-{run}", run) for n in range(model.registered)]
            put("insert into model_versions (workspace, name, version, current_stage, source, run_id) values ('default', ?, ?, 'None', ?, ?)", rows)


def reached(graph: list[Logged], start: int) -> set[int]:
    """Every logged model that this one was made from, itself included: the plain search."""
    seen, todo = {start}, [start]
    while todo:
        model = graph[todo.pop()]
        new = {each for each in model.read | model.stated if each < len(graph)} - seen
        seen |= new
        todo += new
    return seen


def closure(lineages: Mapping[ModelVersion, VersionLineage], start: ModelVersion) -> set[ModelVersion]:
    seen, todo = {start}, [start]
    while todo:
        new = {each.parent for each in lineages[todo.pop()].ancestors} - seen
        seen |= new
        todo += new
    return seen


def missing(graph: list[Logged], start: int) -> bool:
    """Whether something that it was made from says nothing about its data, or does not exist; that a run read its own model says nothing."""
    found = {each: graph[each] for each in reached(graph, start)}
    gone = any(each >= len(graph) for model in found.values() for each in model.read | model.stated)
    return gone or any(not model.data and (model.registered or not (model.read - {own}) | model.stated) for own, model in found.items())


@pytest.fixture(scope="module")
def store(mlflow_template: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Registry, Path]:
    folder = tmp_path_factory.mktemp("laws")
    shutil.copy(mlflow_template, folder / "mlflow.db")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    return connect(Settings(root=folder, tag_key_file=folder, ledger_uri="", tracking_uri=uri), "laws"), folder / "mlflow.db"


@given(graph=st.lists(logged_models, max_size=MODELS))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_lineages_reach_all_that_a_search_over_the_graph_reaches(store: tuple[Registry, Path], graph: list[Logged]) -> None:
    registry, path = store
    fill(path, graph)
    lineages = {each.model: each for each in registry.lineages()}
    assert len(lineages) == sum(model.registered for model in graph)
    for version in lineages:
        start = int(version.name.removeprefix("name-"))
        parts = [lineages[each] for each in closure(lineages, version)]
        data = {int(md5.removeprefix("md5-")) for part in parts for md5 in part.datasets.values()}
        assert data == {state for model in reached(graph, start) for state in graph[model].data}
        assert any(part.problem for part in parts) == missing(graph, start)


@given(graph=st.lists(logged_models, max_size=MODELS))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_runs_on_a_dataset_are_those_that_read_it(store: tuple[Registry, Path], graph: list[Logged]) -> None:
    registry, path = store
    fill(path, graph)
    for state in range(STATES):
        expected = [(run_id(k), (f"m-{run_id(k)}",)) for k, model in enumerate(graph) if state in model.data]
        assert [(run.run_id, run.logged_models) for run in registry.runs_on([f"md5-{state}"])] == expected
