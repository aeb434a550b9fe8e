"""The main job from the first request to a closed one, in order, in one repository."""

from __future__ import annotations

import base64
import json
import sys
import zipfile

import pytest
from jsonschema import Draft202012Validator
from sentinels import require_only_in_data
from small_project import Project

from mlflow_unlearn.json_schemas import schemas

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


def test_once_there_are_keys_the_next_run_signs_what_is_registered_and_then_changes_nothing(spine: Project) -> None:
    signing = ("env", "MLFLOW_UNLEARN_PASSPHRASE=a long passphrase")
    roles = ("--role", "owner", "--role", "trainer", "--role", "evaluator")
    spine.must(*signing, "mlflow-unlearn", "key", "new", "ci", *roles)
    spine.must(*signing, "mlflow-unlearn", "attest", "models:/customers/2")
    assert "signed by ci" in spine.must(*signing, "dvc", "repro")
    first = spine.document("registered")
    assert tagged(spine, "3")["unlearn.certificate"] == first["certificate"]
    assert "Signed by ci (key " in spine.client().get_model_version("customers", "3").description
    spine.must("dvc", "repro")  # without the passphrase: what is signed and holds needs none
    assert spine.document("registered") == first


def test_the_evidence_of_a_request_is_as_its_schemas_say_and_its_verifier_reads_it(spine: Project) -> None:
    asked = spine.document("registered")["requests"][0]
    said = spine.json("mlflow-unlearn", "report", asked)
    with zipfile.ZipFile(spine.folder / said["bundle"]) as archive:
        for name, schema in (("3/certificate", "certificate"), ("2/lineage", "lineage")):
            envelope = json.loads(archive.read(f"versions/customers/{name}.json"))
            Draft202012Validator(schemas()[f"{schema}-v1.json"]).validate(json.loads(base64.b64decode(envelope["payload"])))
        archive.extractall(spine.folder / "build/reports/unpacked")
    given = ("versions/customers/3/certificate.json", "--trust", "trust.json", "--policy", "policy.yaml", "--json")
    checked = json.loads(spine.run(sys.executable, "-m", "verifier", *given, cwd="build/reports/unpacked").stdout)
    assert said["versions"] == [{"version": "customers/3", "answer": checked["answer"]}]
    assert checked["outcomes"] == {each["effect"]: each["outcome"] for each in spine.document("verdict")["verdicts"]}


@pytest.mark.parametrize("version", ["1", "2"])
def test_the_gate_refuses_what_saw_the_records_signed_or_not(spine: Project, version: str) -> None:
    answer = spine.json("mlflow-unlearn", "gate", f"models:/customers/{version}", code=1)
    assert answer["answer"] == "no"
    assert any(reason.startswith("affected by er-") for reason in answer["reasons"])


def test_the_gate_counts_the_verdict_of_the_certificate_again(spine: Project) -> None:
    outcome = next(each["outcome"] for each in spine.document("verdict")["verdicts"] if each["effect"] == "removal")
    answer = spine.json("mlflow-unlearn", "gate", "models:/customers/3", code={"PASS": 0, "FAIL": 1}.get(outcome, 2))
    assert any(line.startswith(f"removal {outcome}") for line in (*answer["reasons"], *answer["notes"]))


def test_another_policy_counts_only_when_an_owner_stands_for_it(spine: Project) -> None:
    (spine.folder / "build/strict.yaml").write_text("n_min: 100000\n")
    answer = spine.json("mlflow-unlearn", "gate", "models:/customers/3", "--policy", "build/strict.yaml", code=1)
    assert "strict.yaml: not the file that the owner signed; restore it, or have the owner sign it" in answer["reasons"]


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
