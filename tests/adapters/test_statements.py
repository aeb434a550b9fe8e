"""Statements beside a version: what its tags name and nothing else, kept once, never lost; on a real sqlite store."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from registered_models import Maker, registry_at
from signed_versions import envelope, files, version
from trusted_keys import ANA, BO

from mlflow_unlearn.adapters.registry import connect
from mlflow_unlearn.adapters.statements import Statements
from mlflow_unlearn.config import Settings
from mlflow_unlearn.dsse import countersign
from mlflow_unlearn.errors import LineageError, StoreError, TamperedError
from mlflow_unlearn.lineage import ModelVersion
from mlflow_unlearn.statements import UNSIGNED, signed_by
from mlflow_unlearn.verifier import open_envelope, subject_of

ONE, TWO = envelope({"says": 1}, ANA), envelope({"says": 2}, ANA)


@pytest.fixture
def statements(mlflow_store: str, tmp_path: Path) -> Statements:
    return Statements(registry_at(tmp_path, mlflow_store))


@pytest.fixture
def make(statements: Statements) -> Maker:
    client = statements.registry.client
    return Maker(client, client.get_experiment_by_name("customers").experiment_id)


@pytest.fixture
def model(statements: Statements, make: Maker, tmp_path: Path) -> ModelVersion:
    return version(make.client, "customers", files(tmp_path / "files"), make.run())


def digest(raw: bytes) -> str:
    return open_envelope(raw, "it").digest


def artifacts(statements: Statements, model: ModelVersion) -> set[str]:
    run_id = statements.registration(model).run_id
    return {each.path.removeprefix("unlearn/") for each in statements.registry.client.list_artifacts(run_id, "unlearn")}


def test_what_is_kept_is_found_and_named_by_its_tag(statements: Statements, model: ModelVersion) -> None:
    assert (statements.certificate(model), statements.lineage(model), statements.reviews(model)) == (None, None, ())
    statements.keep_certificate(model, ONE)
    statements.keep_lineage(model, TWO)
    assert (statements.certificate(model), statements.lineage(model)) == (ONE, TWO)
    assert statements.tags(model) == {"unlearn.certificate": digest(ONE), "unlearn.lineage.statement": digest(TWO)}


def test_another_certificate_is_refused_unless_it_is_to_replace_and_the_older_is_kept(statements: Statements, model: ModelVersion) -> None:
    statements.keep_certificate(model, ONE)
    with pytest.raises(LineageError, match=r"customers/1: has the certificate \w{16} already, .*; nothing was changed"):
        statements.keep_certificate(model, TWO)
    statements.keep_certificate(model, TWO, replace=True)
    assert statements.certificate(model) == TWO
    assert artifacts(statements, model) == {"certificate.json", f"certificate-{digest(ONE)}.json"}
    statements.keep_certificate(model, ONE, replace=True)
    assert statements.certificate(model) == ONE


def test_a_signature_more_takes_the_place_and_repeating_changes_nothing(statements: Statements, model: ModelVersion) -> None:
    both = countersign(ONE, BO)
    for each in (ONE, ONE, both, both):
        statements.keep_certificate(model, each)
        assert statements.certificate(model) == each
    assert artifacts(statements, model) == {"certificate.json"}


def test_reviews_are_kept_once_each_in_the_order_of_their_digests(statements: Statements, model: ModelVersion) -> None:
    for each in (ONE, TWO, ONE):
        statements.keep_review(model, each)
    assert statements.reviews(model) == tuple(sorted((ONE, TWO), key=digest))


def test_what_the_tag_does_not_name_is_not_given_out(statements: Statements, model: ModelVersion) -> None:
    statements.keep_lineage(model, ONE)
    statements.tag(model, "unlearn.lineage.statement", digest(TWO))
    with pytest.raises(TamperedError, match=rf"lineage\.json is {digest(ONE)[:16]}, its tag .* names {digest(TWO)[:16]}"):
        statements.lineage(model)


@pytest.mark.parametrize("damage", [lambda raw: raw[:-1], lambda raw: b"", lambda raw: b" " + raw, lambda raw: b"\xff" * 9])
def test_a_damaged_artifact_is_said_and_can_be_replaced(statements: Statements, model: ModelVersion, tmp_path: Path, damage) -> None:
    statements.keep_lineage(model, ONE)
    (path,) = (tmp_path / "mlartifacts").rglob("lineage.json")
    path.write_bytes(damage(ONE))
    with pytest.raises(TamperedError, match=r"customers/1: unlearn/lineage\.json: .*; restore it, or sign again"):
        statements.lineage(model)
    statements.keep_lineage(model, TWO, replace=True)
    assert statements.lineage(model) == TWO


@pytest.mark.parametrize("value", ["../../trust", "", "A" * 64, "a" * 63])
def test_a_tag_that_is_no_digest_leads_nowhere(statements: Statements, model: ModelVersion, value: str) -> None:
    statements.tag(model, "unlearn.certificate", value)
    with pytest.raises(TamperedError, match=r"tag unlearn.certificate: expected 64 hex digits"):
        statements.certificate(model)


def test_a_named_statement_that_is_gone_is_missing_and_no_absence(statements: Statements, model: ModelVersion, tmp_path: Path) -> None:
    statements.keep_certificate(model, ONE)
    next((tmp_path / "mlartifacts").rglob("certificate.json")).unlink()
    with pytest.raises(LineageError, match=f"unlearn.certificate names {digest(ONE)[:16]}, which is not among the artifacts"):
        statements.certificate(model)


def test_versions_of_one_run_do_not_take_each_others_statements(statements: Statements, model: ModelVersion, tmp_path: Path) -> None:
    run_id = statements.registration(model).run_id
    other = version(statements.registry.client, "other", tmp_path / "files", run_id)
    statements.keep_lineage(model, ONE)
    statements.keep_lineage(other, TWO)
    assert (statements.lineage(model), statements.lineage(other)) == (ONE, TWO)
    statements.keep_lineage(model, countersign(ONE, BO))
    assert (statements.lineage(model), statements.lineage(other)) == (countersign(ONE, BO), TWO)


def test_a_version_without_a_run_gets_one_for_its_statements_once(statements: Statements, make: Maker, tmp_path: Path) -> None:
    model = version(make.client, "old", files(tmp_path / "files"))
    assert statements.reviews(model) == ()
    statements.keep_lineage(model, ONE)
    run_id = statements.tags(model)["unlearn.lineage.run"]
    statements.keep_review(model, TWO)
    assert (statements.lineage(model), statements.reviews(model), statements.tags(model)["unlearn.lineage.run"]) == (ONE, (TWO,), run_id)
    assert statements.registration(model).run_id == ""


def test_a_kill_before_the_tag_leaves_what_the_next_attempt_overwrites(statements: Statements, model: ModelVersion, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Statements, "tag", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt("killed")))
        with pytest.raises(KeyboardInterrupt, match="killed"):
            statements.keep_certificate(model, ONE)
    assert statements.certificate(model) is None
    statements.keep_certificate(model, TWO)
    assert statements.certificate(model) == TWO


def test_a_registration_is_of_one_version_and_unknown_ones_are_named(statements: Statements, model: ModelVersion, tmp_path: Path) -> None:
    again = version(statements.registry.client, "customers", tmp_path / "files", statements.registration(model).run_id)
    one, other = statements.registration(model), statements.registration(again)
    assert (one.name, one.version, one.run_id) == ("customers", "1", other.run_id)
    assert replace(one, version="2", created_at=0) == replace(other, created_at=0)
    with pytest.raises(LineageError, match="customers/7: no such version in the registry"):
        statements.registration(replace(model, version="7"))


def test_the_folder_is_all_that_was_logged_and_is_missed_when_gone(statements: Statements, model: ModelVersion, tmp_path: Path) -> None:
    assert {path.name for path in statements.folder(model).iterdir()} == {"MLmodel", "model", "requirements.txt", "python_env.yaml"}
    (tmp_path / "files").rename(tmp_path / "gone")
    with pytest.raises((LineageError, StoreError), match=r"its files are not in the artifact store|does not answer"):
        statements.folder(model)


def test_what_was_fetched_from_a_store_elsewhere_is_removed_again(
    statements: Statements, model: ModelVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "aside").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "aside"))
    with statements.files(model) as here:
        assert (here, list((tmp_path / "aside").iterdir())) == (tmp_path / "files", [])
    monkeypatch.setattr("mlflow_unlearn.adapters.downloads.LocalArtifactRepository", type(None))  # a store that only gives out copies
    with statements.files(model) as fetched:
        assert subject_of(fetched) == subject_of(tmp_path / "files")
        assert fetched.is_relative_to(tmp_path / "aside")
    assert list((tmp_path / "aside").iterdir()) == []
    assert statements.registry.document(model, "evaluation") is None
    assert list((tmp_path / "aside").iterdir()) == []


def test_only_files_are_statements(statements: Statements, model: ModelVersion, tmp_path: Path) -> None:
    (tmp_path / "tree" / f"{'a' * 64}.json").mkdir(parents=True)
    (tmp_path / "tree" / f"{'a' * 64}.json" / "x").write_text("x")
    statements.registry.client.log_artifacts(statements.registration(model).run_id, str(tmp_path / "tree"), "unlearn/reviews")
    statements.keep_review(model, ONE)
    assert statements.reviews(model) == (ONE,)


def test_every_statement_of_lineage_that_was_ever_kept_is_found_without_its_tag(statements: Statements, model: ModelVersion) -> None:
    for each in (ONE, TWO):
        statements.keep_lineage(model, each, replace=True)
    statements.tag(model, "unlearn.lineage.statement", None)
    assert (statements.lineage(model), set(statements.lineages(model))) == (None, {ONE, TWO})


@pytest.mark.parametrize("raw", [b"", b"[1]", b"\xff", b"{", b"[" * 100_000])
def test_a_document_that_is_none_is_said(statements: Statements, model: ModelVersion, tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "evaluation.json").write_bytes(raw)
    statements.registry.client.log_artifact(statements.registration(model).run_id, str(tmp_path / "evaluation.json"), "unlearn")
    with pytest.raises(TamperedError, match=r"unlearn/evaluation\.json of run \w+: no JSON object; restore it"):
        statements.registry.document(model, "evaluation")


def test_the_description_says_who_signed_and_keeps_what_people_wrote(statements: Statements, model: ModelVersion) -> None:
    client = statements.registry.client
    client.update_model_version(model.name, model.version, f"About it.\n\nNot claimed: much. {UNSIGNED}")
    for name in ("ci", "ana"):
        statements.describe(model, signed_by("certificate", "b" * 64, {"c" * 64: name}))
    text = client.get_model_version(model.name, model.version).description
    expected = f"Signed by ana (key {'c' * 16}): certificate {'b' * 16}; check it yourself with `mlflow-unlearn verify`."
    assert text == f"About it.\n\nNot claimed: much. {expected}"


def test_a_store_that_does_not_answer_is_no_missing_statement(statements: Statements, model: ModelVersion, tmp_path: Path) -> None:
    statements.keep_certificate(model, ONE)
    settings = Settings(root=tmp_path, tag_key_file=tmp_path, ledger_uri="", tracking_uri=statements.registry.client.tracking_uri)
    lost = Statements(connect(settings, "customers"))
    (tmp_path / "mlflow.db").write_bytes(b"no database any more " * 100)
    with pytest.raises(StoreError, match="does not answer"):
        lost.certificate(model)
