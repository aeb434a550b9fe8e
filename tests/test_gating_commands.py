"""The gate on a real registry, ledger, index and trust file: what is taken away, changed or carried over denies."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from deployed import FORGOT, TRAINED, World, _built, asked_template, world  # noqa: F401 - fixtures

from mlflow_unlearn.adapters.statements import Statements
from mlflow_unlearn.commands.gating import gate_version
from mlflow_unlearn.commands.promoting import promote
from mlflow_unlearn.commands.signing_keys import Owner, revoke_key, trust_policy
from mlflow_unlearn.digests import keyed_tag
from mlflow_unlearn.errors import LedgerError, StoreError, UnlearnError
from mlflow_unlearn.records import Tombstones
from mlflow_unlearn.statements import LedgerHead

BY_OWNER = Owner(reference="owner")


def answered(version=FORGOT, **asked):
    found = gate_version(f"models:/{version}", **asked)
    return found["answer"], found["codes"]


def artifact(world: World, model, name: str) -> Path:  # noqa: F811
    run_id = world.bench.registry.client.get_model_version(model.name, model.version).run_id
    return next((world.root / "mlartifacts").rglob(f"{run_id}/artifacts/unlearn/{name}.json"))


def weights(world: World, model) -> Path:  # noqa: F811
    return Statements(world.bench.registry).folder(model) / "model.safetensors"


def tag(world: World, model, key: str, value: str) -> None:  # noqa: F811
    world.bench.registry.client.set_model_version_tag(model.name, model.version, key, value)


def test_a_certified_version_may_be_deployed_and_its_parent_not(world):  # noqa: F811
    found = gate_version("models:/m/2")
    assert (found["answer"], found["sentence"], found["reasons"]) == ("yes", "m/2 may be deployed", [])
    assert found["notes"][-1] == "clear of 1 requests, with 1 ancestors looked at"
    assert answered(TRAINED) == ("no", ["affected", "due"])


def flip(path: Path, place: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[place % len(raw)] ^= 1
    path.write_bytes(bytes(raw))


def promoted(version=FORGOT) -> bool:
    """An error in words moves nothing."""
    try:
        return promote(f"models:/{version}", "champion")["promoted"]
    except UnlearnError:
        return False


@pytest.mark.parametrize("place", [40, -1])
def test_a_flipped_byte_denies_and_moves_no_alias(world, place):  # noqa: F811
    policy = world.root / "unlearn/policy.yaml"
    policy.write_text(policy.read_text().replace("{default: observe}", "{default: enforce}"))
    trust_policy(BY_OWNER)
    files = {
        "model": weights(world, FORGOT),
        "certificate": artifact(world, FORGOT, "certificate"),
        "lineage of the parent": artifact(world, TRAINED, "lineage"),
        "trust": world.root / "trust.json",
        "policy": world.root / "unlearn/policy.yaml",
    }
    for what, path in files.items():
        before = path.read_bytes()
        flip(path, place if what != "policy" else 2)
        assert (answered()[0] != "yes", promoted()) == (True, False), what
        path.write_bytes(before)
    assert (answered()[0], world.bench.ledger.promotions()[-1].granted) == ("yes", False)
    assert promoted()


def test_a_revoked_key_takes_back_what_it_signed(world):  # noqa: F811
    revoke_key("ci", "compromised", BY_OWNER)
    assert answered() == ("no", ["statement_refused"])


def test_another_policy_is_for_the_owner_to_sign(world):  # noqa: F811
    policy = world.root / "unlearn/policy.yaml"
    policy.write_text(policy.read_text().replace("n_min: 400", "n_min: 401"))
    assert answered() == ("no", ["policy_changed"])
    trust_policy(BY_OWNER)
    assert answered() == ("yes", ["signed", "passed", "clear"])
    policy.write_text(policy.read_text().replace("n_min: 401", "n_min: 100000"))
    trust_policy(BY_OWNER)
    found = gate_version("models:/m/2")
    assert (found["answer"], found["codes"]) == ("undecided", ["inconclusive"])
    assert "removal INCONCLUSIVE: under this policy, not shown: canaries as deployed (fp32)" in found["reasons"][0]


def test_without_a_trust_file_nobodys_word_counts(world):  # noqa: F811
    (world.root / "trust.json").unlink()
    assert answered() == ("undecided", ["no_trust", "unsigned"])


def test_a_statement_of_another_version_or_registry_is_refused(world):  # noqa: F811
    twin = world.forgotten(TRAINED, *world.bench.registry.closure(FORGOT)[0].requests, weights=2.0)
    Statements(world.bench.registry).keep_certificate(twin, artifact(world, FORGOT, "certificate").read_bytes())
    assert answered(twin) == ("no", ["statement_refused"])
    with sqlite3.connect(world.root / "mlflow.db") as tables:
        tables.execute("update model_versions set creation_time = creation_time + 1 where version = 2")
    tables.close()
    assert answered() == ("no", ["statement_refused"])


def test_a_copy_stands_on_what_was_signed_about_the_version_that_it_is_a_copy_of(world):  # noqa: F811
    client = world.bench.registry.client
    client.copy_model_version("models:/m/2", "production")
    client.copy_model_version("models:/m/1", "production")
    assert gate_version("models:/production/1")["answer"] == "yes"
    assert gate_version("models:/production/2")["codes"] == ["affected", "due"]


@pytest.mark.parametrize(("key", "value"), [("unlearn.request", "er-other"), ("unlearn.dvc.more", "f" * 32), ("unlearn.parent", "m/3")])
def test_a_registry_that_says_otherwise_than_what_was_signed_is_a_no(world, key, value):  # noqa: F811
    tag(world, FORGOT, key, value)
    answer, codes = answered()
    assert (answer, "registry_differs" in codes) == ("no", True)


def test_a_tag_or_artifact_that_is_gone_is_undecided(world):  # noqa: F811
    artifact(world, FORGOT, "certificate").unlink()
    assert answered() == ("undecided", ["unreadable"])
    world.bench.registry.client.delete_model_version_tag("m", "2", "unlearn.certificate")
    assert answered() == ("undecided", ["unsigned"])


def test_a_certificate_over_another_ledger_is_refused(world):  # noqa: F811
    said = world.said(FORGOT, TRAINED, *world.bench.registry.closure(FORGOT)[0].requests)
    world.certify(FORGOT, TRAINED, *said.unlearned.requests, ledger=LedgerHead(number=1, digest="0" * 64))
    assert answered() == ("no", ["other_ledger"])


def test_an_expired_certificate_is_refused(world):  # noqa: F811
    said = world.said(FORGOT, TRAINED, *world.bench.registry.closure(FORGOT)[0].requests)
    world.certify(FORGOT, TRAINED, *said.unlearned.requests, expires_at=said.issued_at + timedelta(seconds=1))
    assert answered() == ("no", ["statement_refused"])


def test_a_version_that_forgot_one_request_is_affected_by_another(world):  # noqa: F811
    second = world.ask("cy")
    found = gate_version("models:/m/2")
    assert (found["answer"], found["codes"]) == ("no", ["affected", "due"])
    assert found["reasons"][0].startswith(f"affected by {second}: ")


def test_a_request_about_others_leaves_it_clear(world):  # noqa: F811
    world.ask("dee")
    assert answered() == ("yes", ["signed", "passed", "clear"])


def test_an_overdue_request_says_by_how_many_days(world):  # noqa: F811
    world.ask("cy", received="2026-01-01T00:00:00Z")
    found = gate_version("models:/m/2")
    assert found["codes"] == ["affected", "overdue"]
    assert "is overdue by" in found["reasons"][1]


def test_an_interim_version_has_no_verdict(world):  # noqa: F811
    off = world.forgotten(TRAINED, *world.bench.registry.closure(FORGOT)[0].requests, weights=3.0, **{"unlearn.interim": "switched-off"})
    answer, codes = answered(off)
    assert (answer, codes) == ("undecided", ["interim", "unsigned"])


def tuned(world: World):  # noqa: F811
    """Made from the version that forgot, on data of later."""
    model = world.version(4.0, world.state("v2"), tags={"unlearn.base_model": "models:/m/2"})
    world.attest(model)
    return model


def test_clearance_is_inherited_and_what_was_not_compared_is_said(world):  # noqa: F811
    found = gate_version(f"models:/{tuned(world)}")
    assert (found["answer"], found["codes"][-1]) == ("yes", "clear")
    assert any("near duplicates were not" in note for note in found["notes"])


@pytest.mark.parametrize("kind", ["subjects", "records", "contents"])
def test_erased_records_in_data_added_since_are_found(world, kind):  # noqa: F811
    model, key, request = tuned(world), world.bench.key, world.bench.registry.closure(FORGOT)[0].requests[0]
    text = ("What does dee like 1?", "dee likes 1.")
    dee = {"subjects": ("subject", "dee"), "records": ("record", "train", "r-dee-1"), "contents": ("content", *text)}
    tags = {name: keyed_tag(key, *parts) for name, parts in dee.items()}
    world.bench.ledger.bury(request, Tombstones(**{kind: frozenset({tags[kind]})}), world.bench.ledger.get(request).received_at)
    assert answered(model) == ("no", ["returned"])


def test_an_alias_is_what_is_approved(world):  # noqa: F811
    world.bench.registry.client.set_registered_model_alias("m", "champion", "2")
    policy = world.root / "unlearn/policy.yaml"
    policy.write_text(policy.read_text().replace("approvals: 0", "approvals: 1"))
    trust_policy(BY_OWNER)
    assert answered() == ("undecided", ["no_alias"])
    assert gate_version("models:/m@champion")["codes"] == gate_version("models:/m/2", alias="champion")["codes"] == ["approvals"]


def test_a_registry_or_ledger_that_does_not_answer_is_said_in_a_line(world, monkeypatch):  # noqa: F811
    monkeypatch.setenv("MLFLOW_UNLEARN_LEDGER_URI", "postgresql+psycopg://127.0.0.1:9/none")
    with pytest.raises(LedgerError, match="check MLFLOW_UNLEARN_LEDGER_URI"):
        gate_version("models:/m/2")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(StoreError, match="does not answer"):
        gate_version("models:/m/2")


def test_the_command_ends_with_0_1_or_2_and_imports_no_torch(world):  # noqa: F811
    code = (
        "import sys; from mlflow_unlearn.cli import main\n"
        "try: main(['gate', sys.argv[1], '--json'])\n"
        "except SystemExit as end: print('torch' in sys.modules, end.code, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, "models:/m/2"], capture_output=True, text=True, check=True)
    assert (json.loads(done.stdout)["answer"], done.stderr.splitlines()[-1]) == ("yes", "False 0")
