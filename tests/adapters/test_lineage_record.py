"""The document of a run's lineage: the same whoever makes it, and another as soon as anything of it changes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import LoggedModelInput

from mlflow_unlearn.adapters.lineage_record import SCHEMA, lineage_record, write_lineage_record
from mlflow_unlearn.digests import canonical_json, sha256_json
from mlflow_unlearn.plugin.dataset_source import DvcDatasetSource

MD5, OTHER = "a" * 32 + ".dir", "b" * 32
GIT = {"unlearn.git.commit": "c" * 40, "unlearn.git.dirty": "false", "unlearn.git.repository": "https://example.org/x"}


def under_dvc(name: str, md5: str, **origin: object) -> MetaDataset:
    return MetaDataset(DvcDatasetSource(path=f"data/{name}", md5=md5, rev="c" * 40, **origin), name=name, digest=md5)


@pytest.fixture
def client(mlflow_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    monkeypatch.chdir(tmp_path)  # outside of any repository
    mlflow.set_tracking_uri(mlflow_store)
    return MlflowClient(mlflow_store)


def trained(*datasets: MetaDataset, tags: dict[str, str] | None = None) -> str:
    with mlflow.start_run(tags=GIT | (tags or {})) as run:
        for dataset in datasets:
            mlflow.log_input(dataset, context="training")
    return str(run.info.run_id)


def test_it_says_what_was_read_of_which_commit(client: MlflowClient) -> None:
    run = client.get_run(trained(under_dvc("customers", MD5, dirty=True, part="a.csv", repository="git-root:1")))
    record = lineage_record(run)
    assert (record["schema"], record["run"], record["problem"]) == (SCHEMA, run.info.run_id, None)
    assert record["git"] == {"commit": "c" * 40, "dirty": False, "repository": "https://example.org/x"}
    where = {"path": "data/customers", "part": "a.csv", "rev": "c" * 40, "repository": "git-root:1", "dirty": True}
    assert record["datasets"] == [{"name": "customers", "md5": MD5, "context": "training", **where}]


def test_the_order_of_logging_makes_no_difference(client: MlflowClient) -> None:
    one, two = under_dvc("one", MD5), under_dvc("two", OTHER)
    first, second = (lineage_record(client.get_run(trained(*order))) for order in ((one, two), (two, one, one)))
    assert (first["datasets"], len(first["datasets"])) == (second["datasets"], 2)


def test_recomputing_gives_the_digest_that_was_written(client: MlflowClient) -> None:
    run_id = trained(under_dvc("customers", MD5))
    digest = write_lineage_record(client, run_id)
    assert write_lineage_record(client, run_id) == digest
    tags = client.get_run(run_id).data.tags
    assert tags["unlearn.lineage"] == digest == hashlib.sha256(tags["unlearn.lineage.record"].encode()).hexdigest()
    assert tags["unlearn.lineage.record"].encode() == canonical_json(json.loads(tags["unlearn.lineage.record"]))


@pytest.mark.parametrize("change", ["data", "commit", "base", "model"])
def test_whatever_is_changed_afterwards_changes_the_digest(client: MlflowClient, change: str) -> None:
    run_id = trained(under_dvc("customers", MD5))
    before = write_lineage_record(client, run_id)
    if change == "data":
        with mlflow.start_run(run_id=run_id):
            mlflow.log_input(under_dvc("more", OTHER))
    elif change == "model":
        client.log_inputs(run_id, models=[LoggedModelInput(model_id="m-" + "1" * 32)])
    else:
        client.set_tag(run_id, {"commit": "unlearn.git.commit", "base": "unlearn.base_model"}[change], "other")
    assert sha256_json(lineage_record(client.get_run(run_id))) != before


def test_data_outside_dvc_and_problems_are_not_left_out(client: MlflowClient) -> None:
    foreign = MetaDataset(CodeDatasetSource(tags={}), name="scraped", digest="d1")
    record = lineage_record(client.get_run(trained(foreign, tags={"unlearn.lineage.problem": "git: hangs"})))
    assert record["datasets"] == []
    assert record["other_datasets"] == [{"name": "scraped", "digest": "d1", "context": "training", "source_type": "code"}]
    assert record["problem"] == "git: hangs"


def test_a_record_too_long_for_a_tag_leaves_its_digest(client: MlflowClient) -> None:
    run_id = trained(*(under_dvc(f"part-{number:03d}", f"{number:032x}") for number in range(40)))
    digest = write_lineage_record(client, run_id)
    run = client.get_run(run_id)
    assert "unlearn.lineage.record" not in run.data.tags
    assert run.data.tags["unlearn.lineage"] == digest == sha256_json(lineage_record(run))


def test_a_run_without_anything_has_a_record_that_claims_nothing(client: MlflowClient) -> None:
    run = client.create_run("0", start_time=1_700_000_000_007)
    record = lineage_record(client.get_run(run.info.run_id))
    assert record["made_at"] == "2023-11-14T22:13:20.007Z"
    assert (record["git"]["commit"], record["git"]["dirty"], record["datasets"], record["models"]) == (None, None, [], [])
