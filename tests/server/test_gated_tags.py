"""Tags that begin with `unlearn.` behind the gate: what a client may say, what only the server writes, and the commands that sign, through it."""

# ruff: noqa: F811 - fixtures are imported

from __future__ import annotations

import threading
from datetime import UTC, datetime

import pytest
from deployed import FORGOT, TRAINED, _built, asked_template, world  # noqa: F401 - fixtures
from gated_world import Gated, enforced, gated, later  # noqa: F401 - fixtures
from mlflow.exceptions import MlflowException

from mlflow_unlearn.adapters.statements import Statements
from mlflow_unlearn.commands.attesting import Origin, adopt, attest_version, countersign
from mlflow_unlearn.commands.promoting import history, promote
from mlflow_unlearn.errors import LineageError
from mlflow_unlearn.lineage import ModelVersion
from mlflow_unlearn.records import Promotion

PROMOTED = Promotion(
    model=FORGOT,
    alias="champion",
    replaced=None,
    granted=True,
    answer="yes",
    enforcement="enforce",
    codes=(),
    evidence=(),
    by="ci",
    at=datetime(2026, 11, 24, 18, tzinfo=UTC),
)
POINTERS = {"certificate": "unlearn.certificate", "lineage": "unlearn.lineage.statement"}


@pytest.fixture
def through(enforced: Gated, monkeypatch: pytest.MonkeyPatch) -> Gated:
    """Everybody's registry is the gated one."""
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", enforced.uri)
    return enforced


def tags(gated: Gated, model: ModelVersion) -> dict[str, str]:
    found = gated.client.get_model_version(model.name, model.version).tags
    return {key: value for key, value in found.items() if key.startswith("unlearn.") and not key.startswith("unlearn.dvc.")}


def tag(gated: Gated, model: ModelVersion, key: str, value: str) -> None:
    gated.client.set_model_version_tag(model.name, model.version, key, value)


def test_a_certificate_is_named_and_the_server_writes_what_it_says(through: Gated):
    request = through.world.bench.registry.closure(FORGOT)[0].requests[0]
    made = through.world.version(5.0, tags={"unlearn.dvc.train": through.world.state().md5})
    assert tags(through, made) == {}
    through.world.certify(made, TRAINED, request)
    found = tags(through, made)
    assert (len(found.pop("unlearn.certificate")), found) == (
        64,
        {
            "unlearn.request": request,
            "unlearn.parent": "m/1",
            "unlearn.claim": "approximate",
            "unlearn.verdict": "PASS",
            "unlearn.verdict.removal": "PASS",
            "unlearn.verdict.suppression": "PASS",
        },
    )


def test_what_was_certified_through_the_gate_is_promoted_and_stays_readable_when_the_request_is_due(through: Gated, monkeypatch):
    request = through.world.bench.registry.closure(FORGOT)[0].requests[0]
    made = through.world.forgotten(TRAINED, request, weights=5.0)
    through.world.certify(made, TRAINED, request)
    through.warden.pointing(FORGOT, "champion")  # so that the server has the ledger open, see below
    done = promote(f"models:/{made}", "champion")
    assert (done["promoted"], done["answer"]) == (True, "yes")
    later(monkeypatch, days=40)
    through.look()
    assert (through.follow(), bool(through.read(made.version))) == (made.version, True)
    with pytest.raises(MlflowException, match="models:/m/1 is blocked"):
        through.read("1")


def test_the_command_promote_shows_what_the_server_refuses_and_writes_it_down(through: Gated):
    done = promote("models:/m/1", "champion")
    assert (done["promoted"], done["answer"]) == (False, "no")
    assert [each["granted"] for each in history("models:/m")["promotions"]] == [False]
    assert through.client.get_registered_model("m").aliases == {}


@pytest.mark.parametrize("key", ["unlearn.verdict", "unlearn.verdict.removal", "unlearn.verdict.suppression", "unlearn.claim"])
def test_a_result_is_never_taken_from_a_client(enforced: Gated, key):
    with pytest.raises(MlflowException, match=rf"{key} is written by the server alone, from a verified certificate") as told:
        tag(enforced, TRAINED, key, "PASS")
    assert told.value.error_code == "PERMISSION_DENIED"
    assert tags(enforced, TRAINED).keys() == {"unlearn.lineage.statement"}
    made = enforced.client.create_model_version("m", enforced.read("1"), tags={key: "PASS", "mine": "x", "unlearn.dvc.train": "a" * 32})
    assert enforced.client.get_model_version("m", made.version).tags == {"mine": "x", "unlearn.dvc.train": "a" * 32}


@pytest.mark.parametrize("kind", POINTERS)
@pytest.mark.parametrize("digest", ["", "x", "f" * 64, "../" * 20, "F" * 64, "f" * 64 + "\n"])
def test_a_pointer_at_what_is_not_signed_is_refused(enforced: Gated, kind, digest):
    before = tags(enforced, TRAINED)
    with pytest.raises(MlflowException, match=f"refused by mlflow-unlearn: set tag: the {kind} .* does not hold for m/1"):
        tag(enforced, TRAINED, POINTERS[kind], digest)
    assert tags(enforced, TRAINED) == before


def test_a_statement_about_another_version_is_refused(enforced: Gated):
    kept = Statements(enforced.world.bench.registry)
    copied = enforced.world.version(2.0)
    kept._write(kept._run(copied), "unlearn/certificate.json", kept.certificate(FORGOT))
    digest = tags(enforced, FORGOT)["unlearn.certificate"]
    with pytest.raises(MlflowException, match=r"the certificate .* does not hold for m/3"):
        tag(enforced, copied, "unlearn.certificate", digest)
    assert tags(enforced, copied) == {}


def test_what_was_signed_is_not_taken_away(enforced: Gated):
    for model in (TRAINED, FORGOT):
        for key in tags(enforced, model):
            with pytest.raises(MlflowException, match=f"{key} of {model} is reserved: what was said or signed of a version stays"):
                enforced.client.delete_model_version_tag("m", model.version, key)
    enforced.client.delete_model_version_tag("m", "1", "unlearn.nothing")


@pytest.mark.parametrize(
    ("key", "value"), [("unlearn.dvc.train", "b" * 32), ("unlearn.base_model", "none"), ("unlearn.other", "x"), ("unlearn.", "x")]
)
def test_nothing_is_added_to_what_is_signed(enforced: Gated, key, value):
    with pytest.raises(MlflowException, match="m/1 is signed for, and its signed lineage does not say"):
        tag(enforced, TRAINED, key, value)


def test_the_same_tag_again_changes_nothing_and_other_tags_are_free(enforced: Gated):
    before = tags(enforced, FORGOT)
    for key, value in before.items():
        tag(enforced, FORGOT, key, value)
    tag(enforced, FORGOT, "stage", "x" * 500)
    enforced.client.delete_model_version_tag("m", "2", "stage")
    enforced.client.set_registered_model_tag("m", "team", "b")
    found = tags(enforced, FORGOT)
    assert before.items() <= found.items()
    assert found.keys() - before.keys() == {"unlearn.claim", "unlearn.verdict", "unlearn.verdict.suppression"}  # of the certificate, written anew


def test_a_registered_model_has_no_reserved_tags(enforced: Gated):
    with pytest.raises(MlflowException, match=r"tags that begin with unlearn\. are reserved: mlflow-unlearn writes them, on versions"):
        enforced.client.set_registered_model_tag("m", "unlearn.verdict", "PASS")


def test_where_a_version_comes_from_is_said_once_while_nothing_is_signed(enforced: Gated):
    bare = enforced.world.version(6.0)
    tag(enforced, bare, "unlearn.dvc.train", "a" * 32)
    with pytest.raises(MlflowException, match=r"unlearn\.dvc\.train of m/3 is set; what was said of its origin stays"):
        tag(enforced, bare, "unlearn.dvc.train", "b" * 32)
    with pytest.raises(MlflowException, match="is given once, to a version without a run"):
        tag(enforced, bare, "unlearn.lineage.run", "c" * 32)


def test_a_copy_has_the_tags_of_what_it_is_a_copy_of_and_is_as_good(enforced: Gated):
    enforced.client.create_registered_model("n")
    enforced.policy(enforcement={"default": "enforce"})
    good, bad = (enforced.client.copy_model_version(f"models:/{each}", "n").version for each in (FORGOT, TRAINED))
    assert tags(enforced, ModelVersion(name="n", version=str(good))) == tags(enforced, FORGOT)
    enforced.point(str(good), name="n")
    with pytest.raises(MlflowException, match=f"n/{bad} for 'champion': the gate says no"):
        enforced.point(str(bad), name="n")


def test_a_trainer_attests_through_the_gate_and_the_version_can_be_promoted(through: Gated):
    made = through.world.version(3.0, through.world.state("v2"))
    assert attest_version(f"models:/{made}")["new"]
    assert not attest_version(f"models:/{made}")["new"]
    through.point(made)
    assert through.follow() == made.version


def test_a_person_adopts_an_old_version_through_the_gate_and_says_it_again_otherwise(through: Gated, monkeypatch):
    monkeypatch.setenv("MLFLOW_UNLEARN_SIGNER", "ci")
    made, data = through.world.version(3.0), through.world.root / "data/train"
    adopt(f"models:/{made}", Origin(data=(f"{data}@v1",), nothing_else=True))
    first = dict(tags(through, made))
    assert {"unlearn.lineage.adopted", "unlearn.lineage.statement", "unlearn.base_model"} <= first.keys()
    assert "affected" in through.refused(made)
    with pytest.raises(LineageError, match="say it again with --replace"):
        adopt(f"models:/{made}", Origin(data=(f"{data}@v2",), nothing_else=True))
    adopt(f"models:/{made}", Origin(data=(f"{data}@v2",), nothing_else=True), replace=True)
    through.point(made)
    assert tags(through, made)["unlearn.lineage.statement"] != first["unlearn.lineage.statement"]


def test_a_key_holder_countersigns_through_the_gate(through: Gated):
    assert not countersign(f"models:/{FORGOT}")["new"]


def test_a_writer_of_the_database_gains_nothing_by_a_verdict(enforced: Gated):
    made = enforced.world.version(5.0, enforced.world.state())
    enforced.world.attest(made)
    for key, value in {"unlearn.verdict.removal": "PASS", "unlearn.request": "er-1", "unlearn.parent": "m/1"}.items():
        enforced.sql("insert into model_version_tags (workspace, name, version, key, value) values ('default', 'm', 3, ?, ?)", (key, value))
    assert enforced.refused(made)


def test_a_ledger_is_opened_while_somebody_writes_in_it(through: Gated):
    through.warden.pointing(FORGOT, "champion")
    through.policy(rollback_days=7)  # so that the server opens the project anew
    server = threading.Thread(target=through.warden.pointing, args=(FORGOT, "prod"))

    waited: list[bool] = []

    def act() -> None:
        server.start()
        server.join(3)
        waited.append(server.is_alive())

    through.world.bench.ledger.promote(PROMOTED, act)
    server.join(60)
    assert waited == [False]
