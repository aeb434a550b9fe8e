"""A request whose effect passed is closed: its records leave the dataset, nothing comes back, and the canary pool is spent."""

from __future__ import annotations

import pytest
from small_project import Project

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("closing")]
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


def only_request(project: Project) -> str:
    return project.json("mlflow-unlearn", "request", "list")["requests"][0]["request_id"]


def test_a_passed_suppression_closes_and_the_records_leave_the_dataset(asked: Project) -> None:
    verdicts = {each["effect"]: each for each in asked.document("verdict")["verdicts"]}
    assert verdicts["suppression"]["outcome"] == "PASS", verdicts["suppression"]["reasons"]
    person, before = asked.people()[7], asked.must("git", "rev-list", "--count", "HEAD")
    answer = asked.json("mlflow-unlearn", "request", "close", only_request(asked))
    assert answer["closed"]
    assert person not in asked.people()
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
