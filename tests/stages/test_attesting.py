"""`attest`, `adopt`, `trace` and the certificate of a registration, with keys, a trust file, Git, DVC, a ledger and a registry as a team has them."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from asked_repository import asked, asked_template  # noqa: F401 - fixtures
from click.testing import CliRunner
from mlflow import MlflowClient
from signed_versions import WEIGHTS, files, run, version

from mlflow_unlearn.adapters.statements import Statements
from mlflow_unlearn.cli import main
from mlflow_unlearn.commands.attesting import Origin, adopt, attest_version, countersign
from mlflow_unlearn.commands.requests import Requested, Terms, add_request
from mlflow_unlearn.commands.signing_keys import Owner, Wanted, new_key, revoke_key, rotate_key
from mlflow_unlearn.commands.tracing import trace_request
from mlflow_unlearn.commitments import Commitment, Commitments, CommittedRevision
from mlflow_unlearn.documents import decode, encode
from mlflow_unlearn.errors import ConfigError, LineageError, TamperedError
from mlflow_unlearn.lineage import ModelVersion
from mlflow_unlearn.records import Evaluation, Registered, Split, Unlearned, Verdict
from mlflow_unlearn.stages.attesting import attested
from mlflow_unlearn.stages.certifying import certify, installed
from mlflow_unlearn.stages.workbench import Workbench
from mlflow_unlearn.statements import Certificate, Role
from mlflow_unlearn.verifier import subject_of

TRAIN = Origin(data=("../data/train@v1",))


@pytest.fixture
def bench(asked: Path, mlflow_store: str, monkeypatch: pytest.MonkeyPatch) -> Workbench:  # noqa: F811 - the fixture
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_store)
    monkeypatch.setenv("MLFLOW_UNLEARN_PASSPHRASE", "a long passphrase")
    return Workbench()


@pytest.fixture
def client(bench: Workbench) -> MlflowClient:
    return bench.registry.client


@pytest.fixture
def keys(bench: Workbench) -> None:
    new_key(Wanted(holder="ci", roles=(Role.OWNER, Role.TRAINER, Role.EVALUATOR)), Owner())


def trained(bench: Workbench, folder: str = "files") -> ModelVersion:
    md5 = bench.project.current_state("train", "data/train").md5
    return version(bench.registry.client, "m", files(bench.settings.root / folder), run(bench.registry.client, "m", md5))


def statement(bench: Workbench, model: ModelVersion) -> dict[str, Any]:
    raw = Statements(bench.registry).lineage(model)
    assert raw is not None
    return json.loads(base64.b64decode(json.loads(raw)["payload"]))


@pytest.mark.usefixtures("keys")
def test_attesting_signs_what_was_recorded_once(bench: Workbench, client: MlflowClient) -> None:
    model = trained(bench)
    first, again = attest_version("models:/m/1"), attest_version("models:/m/1")
    assert (first["new"], again["new"], first["statement"]) == (True, False, again["statement"])
    assert statement(bench, model)["subject"] == subject_of(bench.settings.root / "files")
    assert client.get_model_version("m", "1").description.startswith(f"Signed by ci (key {first['signers'][0]['key_id'][:16]}): lineage")


@pytest.mark.usefixtures("keys")
def test_a_trace_shows_whose_lineage_is_signed_and_what_a_person_stated(bench: Workbench, client: MlflowClient) -> None:
    trained(bench)
    version(client, "m", bench.settings.root / "files")
    trained(bench, "third")
    attest_version("models:/m/1")
    adopt("models:/m/2", TRAIN)
    asked_for = add_request(Requested(subjects=("ana",)), Terms(basis="gdpr_17"))["request_id"]
    traced = trace_request(asked_for)
    assert [(line["model"]["version"], line["signed"]) for line in traced["affected"]] == [("1", True), ("2", True), ("3", False)]
    assert ["stated by a person" in line["why"] for line in traced["affected"]] == [False, True, False]
    assert traced["signed"] is False
    bench.settings.trust_file.unlink()
    assert not any(line["signed"] for line in trace_request(asked_for)["affected"])


@pytest.mark.usefixtures("keys")
def test_what_was_signed_and_is_changed_in_the_registry_is_tampering(bench: Workbench, client: MlflowClient) -> None:
    trained(bench)
    attest_version("models:/m/1")
    client.set_model_version_tag("m", "1", "unlearn.dvc.more", "e" * 32)
    with pytest.raises(TamperedError, match="m/1: the registry says otherwise than what was signed: dataset state eeeeeeee is in the registry"):
        attest_version("models:/m/1")
    assert attested(bench, ModelVersion(name="m", version="1")).startswith("lineage not signed: m/1: the registry says otherwise")


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize("which", ["files", "child"])
def test_files_that_were_cut_short_are_not_attested_nor_is_what_was_made_from_them(bench: Workbench, which: str) -> None:
    trained(bench)
    version(bench.registry.client, "m", files(bench.settings.root / "child"))
    path = bench.settings.root / which / WEIGHTS
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(TamperedError, match="the model was cut short or replaced"):
        adopt("models:/m/2", Origin(data=TRAIN.data, made_from=("models:/m/1",)))
    assert Statements(bench.registry).tags(ModelVersion(name="m", version="2")) == {}


@pytest.mark.usefixtures("keys")
def test_a_copy_is_attested_for_itself(bench: Workbench, client: MlflowClient) -> None:
    model = trained(bench)
    attest_version("models:/m/1")
    client.copy_model_version("models:/m/1", "production")
    assert attest_version("models:/production/1")["new"]
    assert not attest_version("models:/m/1")["new"]
    copy = statement(bench, ModelVersion(name="production", version="1"))["predicate"]["buildDefinition"]
    assert copy["externalParameters"]["registered"]["name"] == "production"
    assert statement(bench, model)["predicate"]["buildDefinition"]["externalParameters"]["registered"]["name"] == "m"


@pytest.mark.usefixtures("keys")
def test_an_adoption_is_marked_for_ever_and_earlier_words_are_kept(bench: Workbench, client: MlflowClient) -> None:
    model = version(client, "m", files(bench.settings.root / "files"))
    first = adopt("models:/m/1", TRAIN)
    assert not adopt("models:/m/1", TRAIN)["new"]
    with pytest.raises(LineageError, match=r"something else was stated about it before; .* with --replace"):
        adopt("models:/m/1", Origin(data=("../data/train@v2",)))
    second = adopt("models:/m/1", Origin(data=("../data/train@v2",), nothing_else=True), replace=True)
    run_id = Statements(bench.registry).tags(model)["unlearn.lineage.run"]
    kept = {each.path for each in client.list_artifacts(run_id, "unlearn")}
    assert kept == {"unlearn/lineage.json", f"unlearn/lineage-{first['statement']}.json"}
    assert (second["adopted"], attest_version("models:/m/1")) == (True, {**second, "new": False})
    assert statement(bench, model)["predicate"]["buildDefinition"]["buildType"].endswith("/adopted/v1")


@pytest.mark.usefixtures("keys")
def test_an_adoption_that_lost_its_signature_is_not_attested_by_a_machine(bench: Workbench, client: MlflowClient) -> None:
    version(client, "m", files(bench.settings.root / "files"))
    adopt("models:/m/1", TRAIN)
    client.delete_model_version_tag("m", "1", "unlearn.lineage.statement")
    with pytest.raises(LineageError, match=r"m/1: its lineage was stated by a person .*; sign such a statement with `mlflow-unlearn adopt"):
        attest_version("models:/m/1")
    assert adopt("models:/m/1", TRAIN)["new"]


@pytest.mark.usefixtures("keys")
def test_once_adopted_always_adopted_whatever_becomes_of_the_tags(bench: Workbench, client: MlflowClient) -> None:
    trained(bench)
    both = Origin(data=("../data/train@v1", "../data/train@v2"))
    adopt("models:/m/1", both)
    for tag in client.get_model_version("m", "1").tags:
        client.delete_model_version_tag("m", "1", tag)
    with pytest.raises(LineageError, match=r"m/1: its lineage was stated by a person and not recorded by its training; sign such a statement"):
        attest_version("models:/m/1")
    assert adopt("models:/m/1", both)["adopted"]


@pytest.mark.usefixtures("keys")
def test_what_a_tag_of_the_version_says_is_no_record_of_its_run(bench: Workbench, client: MlflowClient) -> None:
    md5 = bench.project.current_state("train", "data/train").md5
    version(client, "m", files(bench.settings.root / "files"), run(client, "m"), unlearn_dvc_train=md5)
    with pytest.raises(LineageError, match=r"m/1: its run did not record it: without tags of the version, .* no DVC dataset was logged with it"):
        attest_version("models:/m/1")
    assert adopt("models:/m/1", Origin(data=("../data/train@v2",), nothing_else=True))["adopted"]


@pytest.mark.usefixtures("keys")
def test_an_ancestor_that_was_registered_again_is_no_longer_the_one_that_was_signed(bench: Workbench, client: MlflowClient) -> None:
    trained(bench)
    version(client, "base", bench.settings.root / "files")
    client.set_model_version_tag("m", "1", "unlearn.base_model", "models:/base/1")
    attest_version("models:/m/1")
    client.delete_registered_model("base")
    version(client, "base", files(bench.settings.root / "clean", 2.0))
    with pytest.raises(TamperedError, match=r"m/1: the registry says otherwise than what was signed: base/1 was registered again"):
        attest_version("models:/m/1")


@pytest.mark.parametrize(
    ("origin", "words"),
    [
        (Origin(data=("../data/nowhere",)), "data/nowhere: not a DVC output here"),
        (Origin(data=("../data/train@v9",)), "revision 'v9': not in this repository"),
        (Origin(data=("../data/nowhere@v1",)), "data/nowhere: not a DVC output at v1"),
        (Origin(data=("../data/train",), made_from=("models:/m@champion",)), "an alias moves on; name the version"),
        (Origin(data=("../data/train",), made_from=("models:/m/9",)), "models:/m/9: no such version or alias"),
        (Origin(data=("../data/train",), made_from=("models:/m/1",), nothing_else=True), "say one of the two"),
        (Origin(data=("../data/train",), relation="adapter"), "--relation: to what"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_words(bench: Workbench, client: MlflowClient, origin: Origin, words: str) -> None:
    version(client, "m", files(bench.settings.root / "files"))
    with pytest.raises((LineageError, ConfigError), match=words):
        adopt("models:/m/1", origin)


@pytest.mark.usefixtures("keys")
def test_data_that_no_commit_holds_cannot_be_stated(bench: Workbench, client: MlflowClient) -> None:
    version(client, "m", files(bench.settings.root / "files"))
    (bench.settings.root / "data/train/a.csv").write_text("record_id,subject_id,question,answer\nr,s,Q?,A.\n")
    with pytest.raises(LineageError, match=r"\.\./data/train: what lies here is in no commit.*PATH@REV"):
        adopt("models:/m/1", Origin(data=("../data/train",)))
    assert adopt("models:/m/1", TRAIN)["adopted"]


def test_without_keys_nothing_changes_and_the_way_to_some_is_said(bench: Workbench, client: MlflowClient) -> None:
    model = trained(bench)
    before = Statements(bench.registry).tags(model)
    assert "no trust file; begin one with `mlflow-unlearn key new HOLDER --role owner`" in attested(bench, model)
    with pytest.raises(ConfigError, match="no trust file"):
        adopt("models:/m/1", Origin(data=("../data/train@v1", "../data/train@v2")))
    assert Statements(bench.registry).tags(model) == before


@pytest.mark.usefixtures("keys")
def test_the_command_line_says_who_stands_for_it(bench: Workbench, client: MlflowClient) -> None:
    version(client, "m", files(bench.settings.root / "files"))
    shown = CliRunner().invoke(main, ["adopt", "models:/m/1", "--data", "../data/train@v1", "--nothing-else"])
    assert (shown.exit_code, "m/1: lineage signed by ci (key " in shown.output, "stated afterwards by a person" in shown.output) == (0, True, True)
    assert json.loads(CliRunner().invoke(main, ["attest", "models:/m/1", "--json"]).output)["new"] is False
    assert CliRunner().invoke(main, ["attest", "models:/m/2"]).exit_code == 2


@pytest.fixture
def registered(bench: Workbench, client: MlflowClient, unlearned: Unlearned, evaluation: Evaluation, verdicts: tuple[Verdict, ...]) -> Registered:
    """A version as `register` makes it, the stage documents it was made of, and its request in the ledger."""
    request = add_request(Requested(subjects=("ana",)), Terms(basis="gdpr_17"))["request_id"]
    folder = files(bench.settings.root / "unlearned")
    digest = subject_of(folder)[0]["digest"]["tensors"]
    done = replace(unlearned, requests=(request,), tensor_digest=digest)
    measured = replace(evaluation, requests=(request,), unlearned=digest)
    split = Split(requests=(request,), parent=done.parent, effects=(), rows={}, files={}, digest=done.split_digest)
    for name, value in {"unlearned": done, "evaluation": measured, "split": split}.items():
        bench.write(name, encode(value))
    commitment = Commitment(root="a" * 64, size=3, key_id="b" * 16)
    made = Commitments(dataset="train", revisions=(CommittedRevision(name="train", md5="a" * 32, commitment=commitment),), retain=commitment)
    run_id = run(client, "m")
    client.log_dict(run_id, {"schema": "mlflow-unlearn.commitment/1", **encode(made)}, "unlearn/commitment.json")
    made_from = [version(client, done.parent.model.name, folder) for _ in range(int(done.parent.model.version))]
    assert made_from[-1] == done.parent.model
    model = version(client, "m", folder, run_id)
    client.update_model_version("m", model.version, "What was done. Nothing here is signed yet.")
    outcomes = {each.effect.value: each.outcome for each in verdicts}
    return Registered(
        requests=(request,), model=model, parent=done.parent.model, tensor_digest=digest, run_id=run_id, claim=done.claim, verdicts=outcomes
    )


def certificate(bench: Workbench, model: ModelVersion) -> Certificate:
    raw = Statements(bench.registry).certificate(model)
    assert raw is not None
    return decode(Certificate, json.loads(base64.b64decode(json.loads(raw)["payload"]))["predicate"], "certificate")


@pytest.mark.usefixtures("keys")
def test_a_certificate_says_what_was_asked_done_measured_and_judged(bench: Workbench, registered: Registered, verdicts: tuple[Verdict, ...]) -> None:
    done = certify(bench, registered, verdicts)
    found = certificate(bench, registered.model)
    assert (done.words, found.verdicts, found.requests[0].request_id) == ("signed by ci", verdicts, registered.requests[0])
    assert (found.policy, found.lock, found.commitments.dataset) == (bench.policy, installed(), "train")
    assert found.parent == Statements(bench.registry).registration(registered.parent)
    assert found.ledger.number == bench.ledger.head().number
    assert (found.expires_at - found.issued_at).days == bench.policy.gate.certificate_days
    text = bench.registry.client.get_model_version("m", registered.model.version).description
    assert text.startswith("What was done. Signed by ci (key ")
    assert str(done.digest)[:16] in text


@pytest.mark.usefixtures("keys")
def test_certifying_twice_is_certifying_once(bench: Workbench, registered: Registered, verdicts: tuple[Verdict, ...]) -> None:
    first = certify(bench, registered, verdicts)
    add_request(Requested(subjects=("bo",)), Terms(basis="gdpr_17"))  # the ledger goes on
    assert certify(bench, registered, verdicts) == first
    assert certify(bench, registered, verdicts[:1]).digest != first.digest


@pytest.mark.usefixtures("keys")
def test_a_parent_that_was_registered_again_is_not_certified_as_if_it_were_the_old_one(
    bench: Workbench, registered: Registered, verdicts: tuple[Verdict, ...]
) -> None:
    certify(bench, registered, verdicts)
    client, parent = bench.registry.client, registered.parent
    client.delete_registered_model(parent.name)
    assert "no such version" in certify(bench, registered, verdicts).words
    for _ in range(int(parent.version)):
        version(client, parent.name, bench.settings.root / "unlearned")
    assert certify(bench, registered, verdicts).words.startswith(f"not signed: {parent} was registered again since m/1 was made from it")


def test_a_version_registered_without_keys_is_signed_once_there_are_some(
    bench: Workbench, registered: Registered, verdicts: tuple[Verdict, ...]
) -> None:
    before = certify(bench, registered, verdicts)
    assert (before.digest, "not signed: " in before.words, "key new HOLDER --role owner" in before.words) == (None, True, True)
    new_key(Wanted(holder="boss", roles=(Role.OWNER,)), Owner())
    assert "no key here may sign as evaluator" in certify(bench, registered, verdicts).words
    new_key(Wanted(holder="ci", roles=(Role.EVALUATOR,)), Owner())
    assert certify(bench, registered, verdicts).digest is not None


@pytest.mark.usefixtures("keys")
def test_a_certificate_whose_key_is_revoked_is_issued_anew(bench: Workbench, registered: Registered, verdicts: tuple[Verdict, ...]) -> None:
    new_key(Wanted(holder="boss", roles=(Role.OWNER,)), Owner())
    certify(bench, registered, verdicts)
    revoke_key("ci", "compromised", Owner(reference="boss"))
    assert "not signed" in certify(bench, registered, verdicts).words
    new_key(Wanted(holder="ci2", roles=(Role.EVALUATOR,)), Owner(reference="boss"))
    assert certify(bench, registered, verdicts).words == certify(bench, registered, verdicts).words == "signed by ci2"


@pytest.mark.usefixtures("keys")
def test_the_next_key_signs_too_what_the_last_one_signed(bench: Workbench, registered: Registered, verdicts: tuple[Verdict, ...]) -> None:
    before = certify(bench, registered, verdicts)
    rotate_key("ci", 730, timedelta(days=30), Owner())
    done = countersign(f"models:/{registered.model}")
    assert (done["kind"], done["statement"], len(done["signers"]), done["new"]) == ("certificate", before.digest, 2, True)
    assert countersign(f"models:/{registered.model}") == done | {"new": False}
    assert certify(bench, registered, verdicts).digest == before.digest


@pytest.mark.usefixtures("keys")
def test_nothing_is_added_to_what_does_not_count_or_is_not_there(bench: Workbench, registered: Registered, verdicts: tuple[Verdict, ...]) -> None:
    with pytest.raises(LineageError, match="nothing is signed about it"):
        countersign(f"models:/{registered.model}")
    new_key(Wanted(holder="boss", roles=(Role.OWNER,)), Owner())
    certify(bench, registered, verdicts)
    revoke_key("ci", "compromised", Owner(reference="boss"))
    with pytest.raises(TamperedError, match="was revoked"):
        countersign(f"models:/{registered.model}")


@pytest.mark.usefixtures("keys")
def test_other_weights_than_the_judged_ones_are_not_certified(bench: Workbench, registered: Registered, verdicts: tuple[Verdict, ...]) -> None:
    path = bench.settings.root / "unlearned" / WEIGHTS
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    done = certify(bench, registered, verdicts)
    assert done.words.startswith("not signed: m/1: the weights in the artifact store are ")
