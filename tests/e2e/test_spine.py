"""The main job from the first request to a closed one, in order, in one repository."""

from __future__ import annotations

import pytest
from sentinels import require_only_in_data
from small_project import Project

pytestmark = pytest.mark.e2e
STAGES = ("trace", "split", "validation", "evaluation", "verdict", "registered", "approximate/unlearned")


@pytest.fixture(scope="module")
def spine(project: Project) -> Project:
    """A second revision and version, and nothing asked yet."""
    project.train(people=60, revision="data-v2")
    project.champion("2")
    return project


def request(project: Project, people: list[str], *options: str) -> str:
    command = ("mlflow-unlearn", "request", "add", "--subjects", "-", *(options or ("--basis", "gdpr_17")))
    return project.json(*command, stdin="\n".join(people))["request_id"]


def tagged(project: Project, version: str) -> dict[str, str]:
    return dict(project.client().get_model_version("customers", version).tags)


def test_without_a_request_a_run_is_a_defined_no_op(spine: Project) -> None:
    spine.must("dvc", "repro")
    for name in STAGES:
        document = spine.document(name)
        assert list(document) == ["schema", "requests"]
        assert document["requests"] == []
    assert not list((spine.folder / "build/approximate/model").iterdir())
    assert len(spine.client().search_model_versions("name = 'customers'")) == 2
    spine.commit("no-op")


def test_trace_names_both_versions_over_all_revisions(spine: Project) -> None:
    person = spine.people()[3]
    asked = request(spine, [person])
    traced = spine.json("mlflow-unlearn", "trace", asked)
    assert [line["model"]["version"] for line in traced["affected"]] == ["1", "2"]
    assert {"data-v1", "data-v2"} <= {name for line in traced["affected"] for state in line["datasets"] for name in state["revisions"]}
    held = sum(row["subject_id"] == person for row in spine.rows())
    assert traced["affected"][1]["records"] == held


def test_the_same_person_twice_is_refused_and_named(spine: Project) -> None:
    done = spine.run("mlflow-unlearn", "request", "add", "--subjects", "-", "--basis", "gdpr_17", stdin=spine.people()[3])
    assert done.returncode == 2
    assert "already asks for some of this" in done.stderr


def test_one_run_registers_a_version_with_lineage_and_verdict(spine: Project) -> None:
    spine.must("dvc", "repro")
    registered = spine.document("registered")
    assert registered["model"] == {"name": "customers", "version": "3"}
    tags = tagged(spine, "3")
    assert tags["unlearn.parent"] == "customers/2"
    assert tags["unlearn.request"] == ",".join(registered["requests"])
    assert tags["unlearn.dvc.customers"] == spine.document("index")["md5"]
    assert tags["unlearn.verdict.removal"] in ("FAIL", "INCONCLUSIVE")
    assert "FAIL" in spine.client().get_model_version("customers", "3").description or tags["unlearn.verdict.removal"] == "INCONCLUSIVE"


def test_the_run_in_mlflow_is_complete(spine: Project) -> None:
    client = spine.client()
    run = client.get_run(client.get_model_version("customers", "3").run_id)
    assert [(each.dataset.name, each.dataset.source_type) for each in run.inputs.dataset_inputs] == [("customers", "dvc")]
    assert run.data.params["unlearn.name"] == "npo"
    assert {"forget/exact_match", "before/forget/exact_match", "retain/probability", "canaries/loss_auc"} <= set(run.data.metrics)
    names = {artifact.path for artifact in client.list_artifacts(run.info.run_id, "unlearn")}
    assert "unlearn/verdict.json" in names


def test_the_logged_model_shows_its_figures_with_the_dataset(spine: Project) -> None:
    client = spine.client()
    version = client.get_model_version("customers", "3")
    model = client.get_logged_model(version.source.removeprefix("models:/"))
    shown = {metric.key: metric.dataset_name for metric in model.metrics}
    assert shown["forget/exact_match"] == "customers"
    assert not any(key.startswith("steps/") for key in shown)


def test_the_canaries_count_as_committed_before_training(spine: Project) -> None:
    assert spine.document("split")["canaries"]["committed"] is True


def test_the_request_did_not_train(spine: Project) -> None:
    assert len(spine.client().search_model_versions("name = 'customers'")) == 3


def test_a_second_run_changes_nothing(spine: Project) -> None:
    spine.commit("version 3")
    before = {name: (spine.folder / f"build/{name}.json").read_bytes() for name in STAGES}
    said = spine.must("dvc", "repro")
    assert {name: (spine.folder / f"build/{name}.json").read_bytes() for name in STAGES} == before
    assert sorted(line.split()[2].strip("'") for line in said.splitlines() if line.startswith("Running stage")) == ["register':", "trace':"]
    assert len(spine.client().search_model_versions("name = 'customers'")) == 3


@pytest.mark.parametrize("version", ["1", "2", "3"])
def test_the_gate_never_says_yes_and_says_why(spine: Project, version: str) -> None:
    answer = spine.json("mlflow-unlearn", "gate", f"models:/customers/{version}", code=1)
    assert answer["answer"] == "no"
    assert any(reason.startswith("affected") for reason in answer["reasons"])
    assert answer["reasons"][-1].startswith("unsigned")


def test_another_policy_judges_the_registered_evaluation_again(spine: Project) -> None:
    (spine.folder / "build/strict.yaml").write_text("n_min: 100000\n")
    answer = spine.json("mlflow-unlearn", "gate", "models:/customers/3", "--policy", "build/strict.yaml", code=1)
    assert any("n_min of 100000" in reason for reason in answer["reasons"])


def test_status_counts_days_and_blocked_versions(spine: Project) -> None:
    shown = spine.json("mlflow-unlearn", "status")
    assert shown["open"][0]["days_left"] in range(26, 32)
    assert {line["model"]["version"] for line in shown["blocked"]} >= {"1", "2"}


def test_a_second_request_joins_the_batch_as_attempt_2_with_the_same_parent(spine: Project) -> None:
    request(spine, spine.people()[10:11], "--basis", "copyright")
    spine.must("dvc", "repro")
    assert spine.document("evaluation")["attempt"] == 2
    assert spine.document("evaluation")["parent"]["model"]["version"] == "2"
    assert len(spine.document("registered")["requests"]) == 2
    spine.commit("version 4")


def test_what_did_not_pass_cannot_be_closed(spine: Project) -> None:
    first = spine.json("mlflow-unlearn", "request", "list")["requests"][0]["request_id"]
    answer = spine.json("mlflow-unlearn", "request", "close", first, code=1)
    assert not answer["closed"]
    assert "asks for removal" in answer["reasons"][0]


def test_no_name_or_id_of_a_person_is_anywhere_but_in_the_data(spine: Project) -> None:
    require_only_in_data(spine, spine.people()[3], ("data-v1", "data-v2"))
