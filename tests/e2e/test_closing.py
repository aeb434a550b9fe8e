"""A request whose effect passed is closed: its records leave the dataset, nothing comes back, and the canary pool is spent."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as parquet
import pytest
from small_project import Project

pytestmark = pytest.mark.e2e
LENIENT = """
control_epsilon: 0.0
utility_margin: 1.0
auc_margin: {10: 0.5, 20: 0.5}
paraphrase_margin: 1.0
n_min: 10
alpha: 0.01
"""


@pytest.fixture(scope="module")
def asked(project: Project) -> Project:
    """A copyright request (suppression) under a policy that lets nearly everything pass."""
    (project.folder / "policy.yaml").write_text(LENIENT)
    project.edit_params({"evaluate": {"permutations": 2000}})
    project.must("mlflow-unlearn", "request", "add", "--subjects", "-", "--basis", "copyright", stdin=project.people()[7])
    project.must("dvc", "repro", "-q")
    project.commit("asked")
    return project


def decoded(path: Path) -> bytes:
    return json.dumps(parquet.read_table(path).to_pylist(), default=str).encode()


def only_request(project: Project) -> str:
    return project.json("mlflow-unlearn", "request", "list")["requests"][0]["request_id"]


def test_a_passed_suppression_closes_and_the_records_leave_the_dataset(asked: Project) -> None:
    verdicts = {each["effect"]: each for each in asked.document("verdict")["verdicts"]}
    assert verdicts["suppression"]["outcome"] == "PASS", verdicts["suppression"]["reasons"]
    person, before = asked.people()[7], asked.must("git", "rev-list", "--count", "HEAD")
    answer = asked.json("mlflow-unlearn", "request", "close", only_request(asked))
    assert answer["closed"]
    assert person not in asked.people()
    assert person.encode() not in b"".join(decoded(path) for path in (asked.folder / "data").rglob("*.parquet"))
    assert int(asked.must("git", "rev-list", "--count", "HEAD")) == int(before) + 1
    assert "up to date" in asked.must("dvc", "status", "pipelines/customers/dvc.yaml:dataset")


def test_after_closing_a_run_is_a_no_op_and_trains_nothing(asked: Project) -> None:
    said = asked.must("dvc", "repro")
    assert "train" not in said
    assert asked.document("trace")["requests"] == []
    assert asked.document("registered")["requests"] == []
    asked.commit("closed")


def test_closing_twice_is_a_no(asked: Project) -> None:
    answer = asked.json("mlflow-unlearn", "request", "close", only_request(asked), code=1)
    assert answer["reasons"] == [f"{only_request(asked)} is closed, not open"]


def test_making_the_data_again_does_not_bring_the_erased_back(asked: Project) -> None:
    erased = {row["record_id"] for row in asked.rows()}
    asked.must("dvc", "repro", "-q", "-f", "-s", "pipelines/customers/dvc.yaml:dataset")
    assert {row["record_id"] for row in asked.rows()} == erased
    asked.must("git", "checkout", "-q", ".")
    asked.must("dvc", "checkout", "-q", "pipelines/customers/dvc.yaml:dataset")


def test_a_spent_pool_cannot_pass_again_and_says_so(asked: Project) -> None:
    asked.must("mlflow-unlearn", "request", "add", "--subjects", "-", "--basis", "copyright", stdin=asked.people()[11])
    asked.must("dvc", "repro", "-q")
    suppression = next(each for each in asked.document("verdict")["verdicts"] if each["effect"] == "suppression")
    assert suppression["outcome"] == "INCONCLUSIVE"
    assert any(reason.startswith("unspent pool: the canary pool was spent by") for reason in suppression["reasons"])


def test_what_was_erased_before_is_forgotten_again_from_an_older_parent(asked: Project) -> None:
    assert asked.document("split")["parent"]["model"]["version"] == "1"
    assert asked.document("split")["rows"]["requested"] > 5


def test_a_person_whom_no_version_saw_is_closed_by_erasing_the_data(asked: Project) -> None:
    asked.edit_params({"dataset": {"people": 55}})
    asked.must("dvc", "repro", "-q", "pipelines/customers/dvc.yaml:dataset")
    asked.commit("five people more, nothing trained on them")
    newcomer = asked.people()[-1]
    asked_id = asked.json("mlflow-unlearn", "request", "add", "--subjects", "-", "--basis", "gdpr_17", stdin=newcomer)["request_id"]
    asked.must("dvc", "repro", "-q")
    assert asked_id not in asked.document("trace")["requests"]
    assert asked.json("mlflow-unlearn", "request", "close", asked_id)["closed"]
    assert newcomer not in asked.people()


def test_a_model_trained_on_the_erased_revision_can_be_unlearned_again(asked: Project) -> None:
    asked.must("dvc", "repro", "-q", "pipelines/customers/dvc.yaml:train")
    asked.commit("trained on what is left")
    newest = max(int(version.version) for version in asked.client().search_model_versions("name = 'customers'"))
    asked.edit_params({"model": {"parent": f"models:/customers/{newest}"}})
    asked.must("dvc", "repro", "-q")
    assert asked.document("split")["parent"]["model"]["version"] == str(newest)
    suppression = next(each for each in asked.document("verdict")["verdicts"] if each["effect"] == "suppression")
    assert suppression["outcome"] == "INCONCLUSIVE"
