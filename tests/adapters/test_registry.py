"""The registry adapter on real sqlite stores."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import pytest
import sqlalchemy
from mlflow import MlflowClient
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import Dataset, DatasetInput

from mlflow_unlearn.adapters.registry import BASE_TAG, UNKNOWN_BASE, Registry, connect
from mlflow_unlearn.adapters.registry_tables import table_rows
from mlflow_unlearn.config import Settings
from mlflow_unlearn.errors import LineageError, StoreError
from mlflow_unlearn.lineage import ModelVersion, VersionLineage
from mlflow_unlearn.plugin.dataset_constructor import DvcDataset
from mlflow_unlearn.plugin.dataset_source import DvcDatasetSource

MD5, OTHER = "a" * 32 + ".dir", "b" * 32 + ".dir"


def settings(root: Path, uri: str) -> Settings:
    return Settings(root=root, tag_key_file=root / "tag.key", ledger_uri="sqlite://", tracking_uri=uri)


@pytest.fixture
def registry(mlflow_store: str, tmp_path: Path) -> Registry:
    made = connect(settings(tmp_path, mlflow_store), "customers")
    made.client.create_registered_model("customers")
    return made


def under_dvc(md5: str, name: str = "customers") -> DvcDataset:
    return DvcDataset(source=DvcDatasetSource(path="data/train", md5=md5), name=name, digest=md5)


def foreign() -> MetaDataset:
    return MetaDataset(source=CodeDatasetSource({}), name="web", digest="1")


def version(registry: Registry, *inputs: Any, tags: dict[str, str] | None = None) -> VersionLineage:
    """A version whose source run logged these inputs, as the registry reads it back."""
    with mlflow.start_run() as run:
        for dataset in inputs:
            mlflow.log_input(dataset, context="training")
    made = registry.client.create_model_version("customers", run.info.artifact_uri, run.info.run_id, tags=tags)
    return next(each for each in registry.lineages("customers") if each.model.version == str(made.version))


def test_dataset_inputs_under_dvc_are_the_lineage(registry: Registry) -> None:
    found = version(registry, under_dvc(MD5), under_dvc(OTHER, "invoices"))
    assert (found.datasets, found.problem) == ({"customers": MD5, "invoices": OTHER}, None)


def test_no_state_of_a_dataset_hides_another(registry: Registry) -> None:
    assert sorted(version(registry, under_dvc(MD5), under_dvc(OTHER)).datasets.values()) == [MD5, OTHER]


def test_a_version_without_readable_lineage_says_why(registry: Registry) -> None:
    assert "from_dvc" in (version(registry).problem or "")
    mixed = version(registry, under_dvc(MD5), foreign())
    assert mixed.datasets == {"customers": MD5}
    assert "not under DVC" in (mixed.problem or "")


def test_a_version_without_a_run_is_unreadable(registry: Registry, tmp_path: Path) -> None:
    registry.client.create_model_version("customers", str(tmp_path))
    assert registry.lineages()[0].problem


def test_tags_of_the_version_add_to_what_its_run_read_and_hide_none_of_it(registry: Registry) -> None:
    tags = {"unlearn.dvc.customers": OTHER, "unlearn.parent": "customers/1", "unlearn.request": "er-1,er-2", "unlearn.verdict.removal": "FAIL"}
    found = version(registry, under_dvc(MD5), tags=tags)
    assert sorted(found.datasets.values()) == sorted([MD5, OTHER])
    assert (found.parent, found.requests) == (ModelVersion(name="customers", version="1"), ("er-1", "er-2"))
    assert found.verdict == {"removal": "FAIL"}


def test_the_repository_tags_of_a_run_are_no_claim_about_training(registry: Registry) -> None:
    with mlflow.start_run(tags={"unlearn.dvc.customers": MD5}) as run:
        pass
    registry.client.create_model_version("customers", run.info.artifact_uri, run.info.run_id)
    assert registry.lineages()[0].datasets == {}


def test_every_version_of_every_model_is_listed_with_its_aliases(registry: Registry) -> None:
    version(registry, under_dvc(MD5))
    registry.client.create_registered_model("other")
    registry.client.create_model_version("other", "/nowhere")
    registry.client.set_registered_model_alias("customers", "champion", "1")
    assert {str(each.model): each.aliases for each in registry.lineages()} == {"customers/1": ("champion",), "other/1": ()}


def test_a_version_and_its_alias_resolve_to_the_same(registry: Registry) -> None:
    version(registry, under_dvc(MD5))
    registry.client.set_registered_model_alias("customers", "champion", "1")
    assert registry.resolve("models:/customers/1") == registry.resolve("models:/customers@champion")


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("models:/nobody/1", "no registered model called nobody; there are: customers"),
        ("models:/customers/9", "customers has versions 1 and aliases @champion"),
        ("models:/customers@next", "customers has versions 1 and aliases @champion"),
        ("customers/1", "expected models:/NAME/VERSION or models:/NAME@ALIAS"),
        ("models:/customers/latest", "expected models:/NAME/VERSION"),
    ],
)
def test_what_does_not_exist_is_answered_with_what_does(registry: Registry, uri: str, message: str) -> None:
    version(registry, under_dvc(MD5))
    registry.client.set_registered_model_alias("customers", "champion", "1")
    with pytest.raises(LineageError, match=message):
        registry.resolve(uri)


def test_artifacts_lie_at_the_root_from_whatever_folder_one_works(mlflow_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "deep")
    connect(settings(tmp_path, mlflow_store), "customers")
    with mlflow.start_run():
        mlflow.log_text("x", "x.txt")
    assert len(list((tmp_path / "mlartifacts/customers").rglob("x.txt"))) == 1


def test_connecting_twice_is_connecting_once(mlflow_store: str, tmp_path: Path) -> None:
    for _ in range(2):
        connect(settings(tmp_path, mlflow_store), "customers")
    assert [e.name for e in MlflowClient(mlflow_store).search_experiments() if e.name != "Default"] == ["customers"]


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "nonsense://somewhere", "sqlite:///{root}/text.db", "postgresql+nodriver://127.0.0.1:9/x"])
def test_a_store_that_does_not_answer_is_one_line(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    (tmp_path / "text.db").write_text("not a database\n" * 100)
    with pytest.raises(StoreError, match=r"^MLflow at [^\n]+ does not answer: [^\n]+$"):
        connect(settings(tmp_path, uri.format(root=tmp_path)), "customers")


def test_a_password_in_the_uri_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(StoreError, match="does not answer") as caught:
        connect(settings(tmp_path, "http://user:sesame@127.0.0.1:9"), "customers")
    assert "sesame" not in str(caught.value)


def test_looking_at_lineage_loads_no_torch(mlflow_store: str, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from mlflow_unlearn.config import Settings; from mlflow_unlearn.adapters.registry import connect\n"
        "root = Path(sys.argv[1]); s = Settings(root=root, tag_key_file=root, ledger_uri='', tracking_uri=sys.argv[2])\n"
        "connect(s, 'x').lineages(); assert not {'torch', 'transformers', 'dvc'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), mlflow_store], capture_output=True, text=True, env=dict(os.environ), check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_soft_deleted_run_still_says_what_it_learned_from(registry: Registry) -> None:
    found = version(registry, under_dvc(MD5))
    registry.client.delete_run(registry.client.get_model_version("customers", "1").run_id)
    assert registry.lineages() == (found,)


def test_many_untagged_versions_are_read_in_few_queries(registry: Registry) -> None:
    experiment = registry.client.get_experiment_by_name("customers").experiment_id
    asked: list[str] = []
    engine = table_rows(registry.client).tracking  # type: ignore[union-attr]
    counts = []
    for number in (1, 20):
        for _ in range(number):
            registry.client.create_model_version("customers", "/nowhere", registry.client.create_run(experiment).info.run_id)
        with counted(engine, asked):
            registry.lineages()
        counts.append(len(asked))
    assert len(registry.lineages()) == 21
    assert counts[1] == 2 * counts[0] <= 20


@contextmanager
def counted(engine: sqlalchemy.Engine, asked: list[str]) -> Iterator[None]:
    """Every statement that reaches the database."""

    def ask(*arguments: Any) -> None:
        asked.append(arguments[2])

    sqlalchemy.event.listen(engine, "before_cursor_execute", ask)
    yield
    sqlalchemy.event.remove(engine, "before_cursor_execute", ask)


def test_a_version_trained_from_an_unregistered_local_model_is_unknown(mlflow_store, tmp_path):
    registry = connect(Settings(root=tmp_path, tag_key_file=tmp_path, ledger_uri="", tracking_uri=mlflow_store), "m")
    run = registry.client.create_run(registry.client.get_experiment_by_name("m").experiment_id, tags={BASE_TAG: "0" * 64})
    dataset = Dataset(name="d", digest="a" * 32, source_type="dvc", source="{}")
    registry.client.log_inputs(run.info.run_id, [DatasetInput(dataset=dataset, tags=[])])
    registry.client.create_registered_model("m")
    registry.client.create_model_version("m", "file:///nowhere", run.info.run_id)
    lineage = registry.lineages()[0]
    assert (lineage.datasets, lineage.problem) == ({"d": "a" * 32}, UNKNOWN_BASE)
