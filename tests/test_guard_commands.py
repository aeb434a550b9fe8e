"""The guard on a real repository: what was buried is refused wherever it comes back, and what cannot be decided is not clean."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from asked_repository import asked, asked_template, people  # noqa: F401 - fixtures
from click.testing import CliRunner

from mlflow_unlearn.cli import main
from mlflow_unlearn.commands.guard import guard_files, install_hook
from mlflow_unlearn.commands.ledger import lift_tombstones, rotate_key
from mlflow_unlearn.digests import create_tag_key, key_id, keyed_tag, read_tag_key, retired_key_file
from mlflow_unlearn.errors import ConfigError
from mlflow_unlearn.records import Basis, Effect, ErasureRequest, Tombstones
from mlflow_unlearn.stages.burying import bury
from mlflow_unlearn.stages.guarding import found_in, returned, watch
from mlflow_unlearn.stages.workbench import Workbench

NOW = datetime(2026, 11, 24, tzinfo=UTC)
HERE = Path()
NOTHING = {"subject": 0, "record": 0, "content": 0, "near_duplicate": 0}


def buried(*subjects: str, records: Collection[str] = (), canaries: Collection[str] = ()) -> str:
    """Bury people, single records and canaries of the workspace, as closing does, and take them out of it."""
    bench = Workbench()
    own = [keyed_tag(bench.key, "subject", subject) for subject in subjects]
    single, spent = ([bench.schema.record_tag(each) for each in ids] for ids in (records, canaries))
    request = ErasureRequest(
        request_id=f"er-{'-'.join([*subjects, *records])}",
        basis=Basis.GDPR_17,
        effect=Effect.REMOVAL,
        received_at=NOW,
        due_at=None,
        subjects=tuple(own),
        records=tuple(single),
    )
    bench.ledger.add(request, NOW)
    bury(bench, request, frozenset(spent), unlearned=False)
    bench.ledger.close(request.request_id, spent, NOW)
    return request.request_id


def write(root: Path, name: str, text: str) -> Path:
    path = root / "data/train" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # DVC's links are read-only
    path.write_text(text)
    return path


def without_ana(root: Path) -> None:
    write(root, "a.csv", people("eve"))


def rows_of(report: dict[str, Any], name: str) -> dict[str, list[int]]:
    (file,) = [each for each in report["files"] if each["file"] == name]
    return {kind: found for kind, found in file["refused"].items() if found}


@pytest.fixture
def project(asked: Path) -> Path:  # noqa: F811
    return asked


@pytest.fixture
def ana_gone(project: Path) -> Path:
    buried("ana")
    without_ana(project)
    return project


def test_a_dataset_without_the_erased_is_clean(ana_gone: Path) -> None:
    report = guard_files(HERE)
    assert (report["answer"], report["refused"], report["records"]) == ("clean", NOTHING, 6)
    assert report["tombstones"] == 1 + 2 + 2


def test_a_person_a_record_and_a_text_that_come_back_are_refused_by_file_and_row(ana_gone: Path) -> None:
    write(ana_gone, "a.csv", people("eve", "ana"))
    report = guard_files(HERE)
    assert report["answer"] == "refused"
    assert rows_of(report, "data/train/a.csv") == {"subject": [3, 4], "record": [3, 4], "content": [3, 4]}


def test_a_person_with_new_records_is_still_refused(ana_gone: Path) -> None:
    write(ana_gone, "new.csv", "record_id,subject_id,question,answer\nx1,ana,Who came back?,She did.\n")
    assert rows_of(guard_files(HERE), "data/train/new.csv") == {"subject": [1]}


@pytest.mark.parametrize(("answer", "kind"), [("ana likes 1.", "content"), ("Ana  LIKES 1.", "near_duplicate"), ("ana likes 1..", "near_duplicate")])
def test_a_text_under_another_person_and_id_is_refused(ana_gone: Path, answer: str, kind: str) -> None:
    write(ana_gone, "new.csv", f"record_id,subject_id,question,answer\nx1,zoe,What does ana like 1?,{answer}\n")
    assert rows_of(guard_files(HERE), "data/train/new.csv") == {kind: [1]}


def test_a_format_of_another_kind_is_no_way_back(ana_gone: Path) -> None:
    write(ana_gone, "new.jsonl", '{"record_id": "r-ana-1", "subject_id": "zoe", "question": "x y z?", "answer": "w"}\n')
    assert rows_of(guard_files(HERE), "data/train/new.jsonl") == {"record": [1]}


def test_a_single_record_that_was_erased_leaves_its_person_free(project: Path) -> None:
    buried(records=["r-ana-1"])
    report = guard_files(HERE)
    assert rows_of(report, "data/train/a.csv") == {"record": [1], "content": [1]}


def test_canaries_leave_no_person_behind(project: Path) -> None:
    buried("cy", canaries=["r-ana-1"])
    assert rows_of(guard_files(HERE), "data/train/a.csv") == {"record": [1], "content": [1]}
    (tombstones,) = Workbench().ledger.tombstones().values()
    assert tombstones.subjects == {keyed_tag(Workbench().key, "subject", "cy")}


def test_burying_twice_even_half_erased_ends_in_the_same_state(project: Path) -> None:
    name = buried("ana", "cy")
    bench, before = Workbench(), Workbench().ledger.tombstones()
    without_ana(project)
    bury(bench, bench.ledger.get(name), frozenset(), unlearned=False)
    assert Workbench().ledger.tombstones() == before


def test_who_lawfully_returned_may_be_there_with_records_and_texts(ana_gone: Path) -> None:
    lift_tombstones(None, ("ana",), "consent")
    write(ana_gone, "a.csv", people("ana"))
    assert guard_files(HERE)["answer"] == "clean"


def test_what_one_request_erased_and_another_meets_again_stays_with_the_first(ana_gone: Path) -> None:
    write(ana_gone, "a.csv", "record_id,subject_id,question,answer\nx9,ana,Who came back?,She did.\n")
    second = buried("cy")
    lift_tombstones(second, (), "consent")
    assert rows_of(guard_files(HERE), "data/train/a.csv")["content"] == [1]


def test_after_a_new_key_the_old_tombstones_still_hold(ana_gone: Path) -> None:
    rotate_key()
    write(ana_gone, "a.csv", people("ana", "eve"))
    assert rows_of(guard_files(HERE), "data/train/a.csv") == {"subject": [1, 2], "record": [1, 2], "content": [1, 2]}


@pytest.mark.parametrize("rotated", [False, True])
def test_records_of_the_split_are_found_under_every_key(ana_gone: Path, rotated: bool) -> None:
    if rotated:
        rotate_key()
    bench = Workbench()
    states = bench.project.dataset_states("train", "data/train")
    records = [record for state in states for record in bench.reader.records(state)]
    back, resemblance = returned(found_in(bench, watch(bench), records, states), len(records))
    assert {record.prompt.split()[2] for record, gone in zip(records, back, strict=True) if gone} == {"ana"}
    assert (resemblance[back] == 1).all()
    assert len(records) > back.sum() > 0


def test_a_retired_key_that_is_gone_leaves_the_answer_open(ana_gone: Path) -> None:
    key = Workbench().settings.tag_key_file
    old = key_id(read_tag_key(key))
    rotate_key()
    retired_key_file(key, old).unlink()
    report = guard_files(HERE)
    assert (report["answer"], report["complete"]) == ("undecided", False)
    assert f"tag.key.retired-{old}: not there" in report["problems"][0]


def test_a_lost_key_is_an_error_and_another_key_too(ana_gone: Path) -> None:
    path = Workbench().settings.tag_key_file
    path.unlink()
    with pytest.raises(ConfigError, match="no tag key here"):
        guard_files(HERE)
    create_tag_key(path)
    with pytest.raises(Exception, match="wrong or lost tag key"):
        guard_files(HERE)


def test_a_ledger_that_is_not_here_is_not_an_empty_one(ana_gone: Path) -> None:
    (ana_gone / ".unlearn/ledger.db").unlink()
    with pytest.raises(ConfigError, match="nobody can say what was erased"):
        guard_files(HERE)
    assert not (ana_gone / ".unlearn/ledger.db").exists()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("bad.parquet", "PAR1 cut short", "cannot be read as parquet"),
        ("bad.csv", "id,who\n1,2\n", "no column 'record_id'"),
        ("bad.xlsx", "x", "expected one of .parquet"),
    ],
)
def test_a_file_that_cannot_be_read_leaves_the_answer_open_and_the_others_checked(ana_gone: Path, name: str, content: str, said: str) -> None:
    write(ana_gone, name, content)
    report = guard_files(HERE)
    assert (report["answer"], report["records"]) == ("undecided", 6)
    assert said in report["problems"][0]
    write(ana_gone, "a.csv", people("ana"))
    assert guard_files(HERE)["answer"] == "refused"


def test_data_that_are_not_checked_out_leave_the_answer_open(ana_gone: Path) -> None:
    for path in (ana_gone / "data/train").glob("*.csv"):
        path.unlink()
    report = guard_files(HERE)
    assert report["answer"] == "undecided"
    assert report["problems"] == ["data/train: no data file there; run `dvc checkout`, or correct params.yaml"]


def test_nothing_buried_is_clean_without_reading_anything(project: Path) -> None:
    assert Workbench().ledger.open() == ()
    write(project, "bad.csv", "id\n1\n")
    assert guard_files(HERE) | {"problems": []} == guard_files(HERE)
    assert guard_files(HERE)["answer"] == "clean"


def test_any_file_can_be_asked_about_from_any_folder(ana_gone: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "incoming.csv"
    elsewhere.write_text(people("zoe", "ana"))
    report = guard_files(ana_gone / "unlearn", [elsewhere])
    assert report["files"][0]["file"] == elsewhere.as_posix()
    assert report["refused"]["subject"] == 2


def test_tracking_files_beside_the_data_are_not_taken_for_data_and_an_empty_file_is_clean(ana_gone: Path) -> None:
    write(ana_gone, "none.csv", "record_id,subject_id,question,answer\n")
    report = guard_files(HERE, [ana_gone / "data"])
    assert (ana_gone / "data/train.dvc").exists()
    assert (report["answer"], report["records"], len(report["files"])) == ("clean", 6, 3)


def test_neither_person_text_nor_request_is_in_the_answer(ana_gone: Path) -> None:
    write(ana_gone, "a.csv", people("ana"))
    said = str(guard_files(HERE))
    (tombstones,) = Workbench().ledger.tombstones().values()
    assert not [word for word in ("ana", "likes", "r-ana", "er-", *tombstones.subjects, *tombstones.records) if word in said]


def test_a_sketch_of_another_release_leaves_the_answer_open(ana_gone: Path) -> None:
    bench = Workbench()
    bench.ledger.bury("er-ana", Tombstones(sketches=("ff" * 257,)), NOW)
    report = guard_files(HERE)
    assert report["answer"] == "undecided"
    assert "a newer release" in report["problems"][0]


def git(root: Path, *arguments: str, code: int = 0) -> str:
    path = os.environ["PATH"]
    done = subprocess.run(["git", *arguments], cwd=root, env=os.environ | {"PATH": path}, text=True, capture_output=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def staged(root: Path) -> None:
    subprocess.run(["dvc", "add", "-q", "data/train"], cwd=root, check=True)
    git(root, "add", "data")


def test_the_hook_refuses_a_commit_that_brings_the_erased_back_and_lets_others_pass(ana_gone: Path) -> None:
    install_hook(HERE)
    staged(ana_gone)
    git(ana_gone, "commit", "-q", "-m", "without ana")
    write(ana_gone, "a.csv", people("ana"))
    (ana_gone / "notes.txt").write_text("x")
    git(ana_gone, "add", "notes.txt")
    git(ana_gone, "commit", "-q", "-m", "no tracking file staged")
    staged(ana_gone)
    assert "refused" in git(ana_gone, "commit", "-q", "-m", "with ana", code=1)


def test_installing_twice_changes_nothing_and_leaves_a_hook_that_git_can_run(project: Path) -> None:
    hook = Path(install_hook(HERE)["hook"])
    before = hook.read_bytes()
    install_hook(HERE)
    assert hook.read_bytes() == before
    assert os.access(hook, os.X_OK)


def test_the_hook_of_dvc_stays_and_runs_after_the_guard(ana_gone: Path) -> None:
    subprocess.run(["dvc", "install"], cwd=ana_gone, check=True, capture_output=True)
    hook = ana_gone / ".git/hooks/pre-commit"
    before = hook.read_text()
    install_hook(HERE)
    assert hook.read_text().endswith(before.partition("\n")[2])
    write(ana_gone, "a.csv", people("ana", "eve"))
    staged(ana_gone)
    assert "refused" in git(ana_gone, "commit", "-q", "-m", "with ana", code=1)


def test_two_projects_of_one_repository_have_a_guard_each(project: Path) -> None:
    (project / "other place").mkdir()
    for name in ("params.yaml", "policy.yaml"):
        (project / "other place" / name).write_bytes((project / "unlearn" / name).read_bytes())
    for _ in range(2):
        install_hook(HERE)
        hook = Path(install_hook(project / "other place")["hook"])
    text = hook.read_text()
    assert text.count("mlflow-unlearn guard --folder") == 2
    assert "--folder 'other place'" in text


@pytest.mark.parametrize("content", ["#!/usr/bin/env python3\nprint()\n", "\x7fELF"])
def test_a_hook_that_is_no_shell_script_is_left_alone(project: Path, content: str) -> None:
    hook = project / ".git/hooks/pre-commit"
    hook.write_text(content)
    with pytest.raises(ConfigError, match="not a plain shell script"):
        install_hook(HERE)
    assert hook.read_text() == content


def test_the_exit_code_says_what_the_answer_is_and_what_is_printed_names_nobody(ana_gone: Path) -> None:
    def code(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(main, ["guard", *arguments])
        return done.exit_code, done.stdout

    assert code() == (0, "clean: 6 records, 5 tombstones\n")
    write(ana_gone, "bad.csv", "id\n1\n")
    assert code()[0] == code("--json")[0] == 2
    write(ana_gone, "a.csv", people("ana"))
    refused, said = code()
    assert refused == 1
    assert "data/train/a.csv" in said
    assert not [word for word in ("ana ", "likes", "er-ana") if word in said]
