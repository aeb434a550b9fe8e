"""`report`: everything about a request in one zip that a stranger can check, the same bytes for the same state, and nobody's name in it."""

from __future__ import annotations

import hashlib
import html.parser
import json
import re
import subprocess
import sys
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from asked_repository import asked, asked_template  # noqa: F401 - fixtures
from certified import NOW, certificate, model_folder, payload
from click.testing import CliRunner
from jsonschema import Draft202012Validator
from signed_versions import run, version

from mlflow_unlearn import dsse
from mlflow_unlearn.adapters.statements import Statements
from mlflow_unlearn.cli import main
from mlflow_unlearn.commands.attesting import attest_version
from mlflow_unlearn.commands.bundling import folder_of
from mlflow_unlearn.commands.reporting import report, zipped
from mlflow_unlearn.commands.requests import Requested, Terms, add_request, note_recipient
from mlflow_unlearn.commands.signing_keys import Owner, Wanted, new_key
from mlflow_unlearn.documents import encode
from mlflow_unlearn.json_schemas import schemas
from mlflow_unlearn.lineage import ModelVersion
from mlflow_unlearn.records import Basis, Effect
from mlflow_unlearn.stages.signing import signer_for
from mlflow_unlearn.stages.workbench import Workbench
from mlflow_unlearn.statements import CERTIFICATE, REVIEW, CertifiedRequest, Review, ReviewKind, Role
from mlflow_unlearn.verifier import subject_of
from mlflow_unlearn.verifier.envelopes import IN_TOTO

pytestmark = pytest.mark.e2e
HOME = "versions/m/2"


@dataclass(frozen=True)
class Reported:
    """A bundle as it was written."""

    said: dict[str, Any]
    request: str
    files: dict[str, bytes]
    page: str


@pytest.fixture
def bench(asked: Path, mlflow_store: str, monkeypatch: pytest.MonkeyPatch) -> Workbench:  # noqa: F811 - the fixture
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_store)
    monkeypatch.setenv("MLFLOW_UNLEARN_PASSPHRASE", "a long passphrase")
    new_key(Wanted(holder="ci", roles=(Role.OWNER, Role.TRAINER, Role.EVALUATOR)), Owner())
    return Workbench()


@pytest.fixture
def request_id(bench: Workbench) -> str:
    """ana asks, of whom m/1 has learned."""
    client = bench.registry.client
    version(client, "m", model_folder(bench.settings.root / "one"), run(client, "m", bench.project.current_state("train", "data/train").md5))
    attest_version("models:/m/1")
    return str(add_request(Requested(subjects=("ana",)), Terms(basis="gdpr_17"))["request_id"])


def unlearned(bench: Workbench, request_id: str) -> ModelVersion:
    """m/2, made from m/1 to forget her, with the documents of its registration and a certificate."""
    client = bench.registry.client
    subject = subject_of(model_folder(bench.settings.root / "two"))
    run_id = run(client, "m", bench.project.current_state("train", "data/train").md5)
    model = version(client, "m", bench.settings.root / "two", run_id, unlearn_parent="m/1", unlearn_request=request_id)
    statements = Statements(bench.registry)
    said = certificate(subject, registered=statements.registration(model))
    asked_for = CertifiedRequest(
        request_id=request_id, basis=Basis.GDPR_17, effect=Effect.REMOVAL, received_at=said.requests[0].received_at, due_at=None
    )
    about = {"requests": (request_id,)}
    said = replace(said, requests=(asked_for,), split=replace(said.split, **about), unlearned=replace(said.unlearned, **about))
    said = replace(said, evaluation=replace(said.evaluation, **about))
    for name in ("evaluation", "unlearned", "split"):
        client.log_dict(run_id, encode(getattr(said, name)), f"unlearn/{name}.json")
    client.log_dict(run_id, {"verdicts": encode(said.verdicts)}, "unlearn/verdict.json")
    signer = signer_for(Role.EVALUATOR, bench.trust, bench.settings)
    statements.keep_certificate(model, dsse.seal(dsse.statement(CERTIFICATE, subject, said), IN_TOTO, [signer]))
    return model


def reported(request_id: str, out: Path) -> Reported:
    said = report(request_id, out)
    with zipfile.ZipFile(said["bundle"]) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    return Reported(said=said, request=request_id, files=files, page=Path(said["page"]).read_text())


@pytest.fixture
def whole(bench: Workbench, request_id: str, tmp_path: Path) -> Reported:
    unlearned(bench, request_id)
    return reported(request_id, tmp_path / "out")


def test_the_bundle_holds_what_was_asked_done_measured_and_signed(whole: Reported) -> None:
    of_version = {f"{HOME}/{name}.json" for name in ("certificate", "evaluation", "verdict", "unlearned", "split", "environment")}
    around = {"README.txt", "report.html", "manifest.json", "request.json", "trace.json", "trace.html", "trust.json", "policy.yaml", "params.yaml"}
    assert whole.files.keys() >= of_version | around | {"versions/m/1/lineage.json", "verifier/__main__.py", "verifier/rules.py"}
    manifest = json.loads(whole.files.pop("manifest.json"))
    assert manifest["files"] == {name: hashlib.sha256(raw).hexdigest() for name, raw in whole.files.items()}
    assert (manifest["schema"], manifest["request"], whole.said["versions"]) == (
        "mlflow-unlearn.bundle/1",
        whole.request,
        [{"version": "m/2", "answer": "yes"}],
    )


def test_whoever_unpacks_it_can_follow_its_readme_with_the_verifier_alone(whole: Reported, bench: Workbench, tmp_path: Path) -> None:
    zipfile.ZipFile(whole.said["bundle"]).extractall(tmp_path / "unpacked")
    command = next(line.split() for line in whole.files["README.txt"].decode().splitlines() if line.startswith("  python -m verifier"))
    arguments = [str(bench.settings.root / "two") if part == "FOLDER_OF_THE_MODEL" else part for part in command[1:]]
    done = subprocess.run([sys.executable, *arguments], cwd=tmp_path / "unpacked", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "YES: it holds, and the verdict is PASS.")
    assert "the model's files are the subject, byte for byte" in done.stdout


def test_every_statement_in_it_is_as_its_published_schema_says(whole: Reported) -> None:
    kinds = {"certificate.json": "certificate", "lineage.json": "lineage", "trust.json": "trust"}
    found = {name: kinds[Path(name).name] for name in whole.files if Path(name).name in kinds}
    assert sorted(found.values()) == ["certificate", "lineage", "trust"]
    for name, kind in found.items():
        Draft202012Validator(schemas()["envelope-v1.json"]).validate(json.loads(whole.files[name]))
        Draft202012Validator(schemas()[f"{kind}-v1.json"]).validate(payload(whole.files[name]))


def test_the_same_state_gives_the_same_bytes(whole: Reported, tmp_path: Path) -> None:
    assert report(whole.request, tmp_path / "again")["sha256"] == whole.said["sha256"]
    assert zipped({"b": b"1", "a": b"2"}) == zipped({"a": b"2", "b": b"1"})


def test_neither_ids_texts_nor_tags_of_people_are_in_it(whole: Reported, bench: Workbench) -> None:
    tags = bench.ledger.get(whole.request).subjects
    assert len(tags) == 1
    text = b"\n".join(whole.files.values()) + whole.page.encode()
    assert not [word for word in ("ana", "r-ana-1", "What does ana like", *tags) if re.search(rf"\b{word}\b".encode(), text)]


class Page(html.parser.HTMLParser):
    """What a browser would run, load or show."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.linked: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.linked += [f"{tag} {name}" for name, _ in attrs if name in ("src", "href", "onclick", "onload", "style")]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_says_it_all_and_runs_and_loads_nothing(whole: Reported) -> None:
    found = Page(whole.page)
    assert (set(found.tags) & {"script", "img", "link", "iframe", "object", "svg"}, found.linked) == (set(), [])
    assert "default-src 'none'" in whole.page
    text = " ".join(found.words)
    for words in (
        "m/2 passed for removal, and the verifier says yes",
        "gdpr_17",
        "What was done: m/2",
        "parent: the positive control",
        "that copies elsewhere forgot",
        "its evidence gives PASS for what was asked",
        "ci (",
        "not purged yet",
        "python -m verifier versions/m/2/certificate.json --trust trust.json",
    ):
        assert words in text, words
    assert whole.page.encode() == whole.files["report.html"]


def test_who_was_told_is_a_receipt(bench: Workbench, request_id: str, tmp_path: Path) -> None:
    note_recipient(request_id, "archive", "2026-11-20T10:00:00Z", None)
    found = reported(request_id, tmp_path)
    receipt = json.loads(found.files["request.json"])["recipients"][0]
    assert receipt == {"name": "archive", "told_at": "2026-11-20T10:00:00Z", "acknowledged_at": None}
    assert "told 2026-11-20T10:00:00Z, acknowledged not yet" in found.page


def test_a_request_for_which_nothing_was_made_is_reported_as_that(bench: Workbench, request_id: str, tmp_path: Path) -> None:
    found = reported(request_id, tmp_path)
    assert found.said["versions"] == []
    assert "No version was made to forget what it asks. The request is open." in found.page
    assert "there is nothing to verify" in found.files["README.txt"].decode()


def test_what_was_tampered_with_is_told_and_keeps_nobody_from_the_rest(bench: Workbench, request_id: str, tmp_path: Path) -> None:
    model = unlearned(bench, request_id)
    bench.registry.client.set_model_version_tag("m", model.version, "unlearn.certificate", "0" * 64)
    found = reported(request_id, tmp_path)
    assert found.said["versions"] == [{"version": "m/2", "answer": None}]
    assert any("one of them was changed" in line for line in found.said["absent"])
    assert "No version has passed for removal with a certificate of which the verifier says yes" in found.page
    assert f"{HOME}/evaluation.json" in found.files


def test_without_a_trust_file_nothing_is_a_yes(bench: Workbench, request_id: str, tmp_path: Path) -> None:
    unlearned(bench, request_id)
    bench.settings.trust_file.unlink()
    found = reported(request_id, tmp_path)
    assert found.said["versions"] == [{"version": "m/2", "answer": "undecided"}]
    assert "trust.json: there is none here" in found.said["absent"]


def test_the_command_line_says_where_it_is_and_what_it_is_worth(bench: Workbench, request_id: str) -> None:
    unlearned(bench, request_id)
    shown = CliRunner().invoke(main, ["report", request_id])
    assert shown.exit_code == 0
    assert shown.output.startswith(f"build/reports/{request_id}.zip: ")
    assert "m/2: the verifier says yes" in shown.output
    assert CliRunner().invoke(main, ["report", "er-0"]).exit_code == 2
    bench.registry.client.set_model_version_tag("m", "2", "unlearn.certificate", "[/bold]")
    shown = CliRunner().invoke(main, ["report", request_id])
    assert (shown.exit_code, "found '[/bold]'; delete the tag" in shown.output) == (0, True)


def decided(bench: Workbench, model: ModelVersion, **changes: Any) -> None:
    """A review of a version, signed and kept beside it."""
    statements = Statements(bench.registry)
    said = Review(
        kind=ReviewKind.APPROVAL, registered=statements.registration(model), alias="champion", reason="reviewed", issued_at=NOW, expires_at=NOW
    )
    signer = signer_for(Role.EVALUATOR, bench.trust, bench.settings)
    payload = dsse.statement(REVIEW, [{"name": "certificate", "digest": {"sha256": "0" * 64}}], replace(said, **changes))
    statements.keep_review(model, dsse.seal(payload, IN_TOTO, [signer]))


def test_a_reviewers_decision_is_in_it_by_its_digest(bench: Workbench, request_id: str, tmp_path: Path) -> None:
    decided(bench, unlearned(bench, request_id))
    names = [name for name in reported(request_id, tmp_path).files if "/reviews/" in name]
    assert len(names) == 1
    assert re.fullmatch(rf"{HOME}/reviews/[0-9a-f]{{64}}\.json", names[0])


def plant(bench: Workbench, model: ModelVersion, tmp_path: Path, name: str, raw: bytes) -> None:
    """What anybody who may write into a run can put there."""
    (tmp_path / Path(name).name).write_bytes(raw)
    folder = str(Path("unlearn", name).parent)
    bench.registry.client.log_artifact(Statements(bench.registry).registration(model).run_id, str(tmp_path / Path(name).name), folder)


def test_a_decision_whose_reason_is_no_code_stays_out_and_is_told(bench: Workbench, request_id: str, tmp_path: Path) -> None:
    model = unlearned(bench, request_id)
    decided(bench, model, reason="asked for by ana of Elm street")
    plant(bench, model, tmp_path, f"reviews/{'a' * 64}.json", b"garbage of Elm street")
    found = reported(request_id, tmp_path)
    assert not [name for name, raw in found.files.items() if "/reviews/" in name or b"Elm street" in raw]
    assert any(line.startswith(f"{HOME}/reviews: 2 files there are no reviews that can be read") for line in found.said["absent"])


def test_documents_that_are_none_stay_out_and_keep_nobody_from_the_rest(bench: Workbench, request_id: str, tmp_path: Path) -> None:
    model, names = unlearned(bench, request_id), ("evaluation", "verdict", "validation", "commitment", "split")
    for name, raw in zip(names, (b"", b"\xff", b"[1]", b'{"text": "Elm street"}', b"[" * 100_000), strict=True):
        plant(bench, model, tmp_path, f"{name}.json", raw)
    found = reported(request_id, tmp_path)
    assert {f"{HOME}/{name}.json: what lies in MLflow is no such document" for name in names} <= set(found.said["absent"])
    assert not [name for name, raw in found.files.items() if b"Elm street" in raw or name in {f"{HOME}/{each}.json" for each in names}]
    assert found.said["versions"] == [{"version": "m/2", "answer": "yes"}]


def test_a_document_that_says_otherwise_than_the_certificate_stays_out(bench: Workbench, request_id: str, tmp_path: Path) -> None:
    model = unlearned(bench, request_id)
    good = reported(request_id, tmp_path).files[f"{HOME}/unlearned.json"]
    plant(bench, model, tmp_path, "unlearned.json", json.dumps({**json.loads(good), "notes": ["Elm street"]}).encode())
    plant(bench, model, tmp_path, "evaluation.json", b"\xff")
    found = reported(request_id, tmp_path)
    assert not [name for name, raw in found.files.items() if b"Elm street" in raw]
    assert {f"{HOME}/unlearned.json: what lies in MLflow is not what the certificate says"} < set(found.said["absent"])
    assert found.said["versions"] == [{"version": "m/2", "answer": "yes"}]


def test_no_two_models_share_a_folder() -> None:
    names = ("m", "M", "a.b", "a_b", "a b", "a=2Eb", "=2E", ".", "é", "e\u0301", "ü" * 200, "u" * 200, "u" * 199 + "U")
    folders = [folder_of(ModelVersion(name=name, version="1")) for name in names]
    assert len({folder.lower() for folder in folders}) == len(names)
    assert all(re.fullmatch(r"versions/[0-9A-Za-z_=-]{1,100}/1", folder) for folder in folders)


def test_figures_stand_in_one_piece_and_a_small_p_is_no_zero(whole: Reported) -> None:
    assert re.search(r'<td class="short">(&lt; 0\.0001|0\.\d{4})</td>', whole.page)
    assert ".short{white-space:nowrap}" in whole.page
