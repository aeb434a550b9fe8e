"""Custody says no where a blocked model would be read or a registered one changed, by whatever path, and where it cannot know."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from guarded_store import BLOCKED, FREE, REGISTERED, RUN, GuardedStore, guarded_store

from mlflow_unlearn.adapters.storage_locations import Storage
from mlflow_unlearn.server import custody
from mlflow_unlearn.server.custody import Custody

Ask = Callable[..., str | None]
READ, WRITE, DELETE = Custody.refusal_to_read, Custody.refusal_to_write, Custody.refusal_to_delete


@pytest.fixture
def store(tmp_path: Path) -> Iterator[GuardedStore]:
    made = guarded_store(tmp_path, f"unlearn-file://{tmp_path}/artifacts")
    made.register(BLOCKED, REGISTERED)
    made.block(BLOCKED)
    yield made
    made.engine.dispose()


@pytest.mark.parametrize(
    "path", [BLOCKED, f"{BLOCKED}/weights", f"{BLOCKED}/sub/x", "0/models/m-blocked", "0", "", "0//models/./m-blocked/x/../artifacts"]
)
def test_a_blocked_model_is_read_neither_itself_nor_with_a_folder_around_it(store: GuardedStore, path: str) -> None:
    assert "models:/customers/3 is blocked" in str(store.custody.refusal_to_read(path))
    assert "Ask for version 4." in str(store.custody.refusal_to_read(path))


@pytest.mark.parametrize("path", [REGISTERED, FREE, "0/models/m-blocked2/x", "0/models/m-blocke", f"{RUN}/log.txt"])
def test_everything_else_is_read(store: GuardedStore, path: str) -> None:
    assert store.custody.refusal_to_read(path) is None


def test_a_block_holds_from_its_moment_on(store: GuardedStore) -> None:
    store.block(FREE, since=datetime.now(UTC) + timedelta(hours=1))
    assert store.custody.refusal_to_read(FREE) is None
    store.block(FREE, since=datetime.now(UTC) - timedelta(hours=1))
    store.custody.reload()
    assert store.custody.refusal_to_read(FREE)


@pytest.mark.parametrize("since", ["tomorrow", None, 7, "2026-01-01T00:00:00"])
def test_a_block_whose_beginning_nobody_can_read_holds(store: GuardedStore, since: object) -> None:
    with store.engine.begin() as connection:
        store.rows.put(connection, "block", f"mlflow-artifacts:/{FREE}", {"since": since})
    assert store.custody.refusal_to_read(FREE)


@pytest.mark.parametrize("path", [f"{REGISTERED}/new", f"{REGISTERED}/MLmodel", REGISTERED, f"{BLOCKED}/x"])
def test_nothing_is_added_to_a_registered_version_nor_deleted_from_it(store: GuardedStore, path: str) -> None:
    assert "belongs to a registered model version" in str(store.custody.refusal_to_write(path))
    assert "holds files of a registered model version" in str(store.custody.refusal_to_delete(path))


@pytest.mark.parametrize("path", ["", "0", "0/models", "0/models/m-registered"])
def test_a_folder_around_a_registered_version_is_not_deleted_and_may_get_files(store: GuardedStore, path: str) -> None:
    assert store.custody.refusal_to_delete(path)
    assert store.custody.refusal_to_write(f"{path}/other") is None


@pytest.mark.parametrize("path", [f"{FREE}/x", f"{RUN}/log.txt", "0/models/m-registered2/artifacts/x"])
def test_what_is_not_registered_is_written_and_deleted(store: GuardedStore, path: str) -> None:
    assert (store.custody.refusal_to_write(path), store.custody.refusal_to_delete(path)) == (None, None)


@pytest.mark.parametrize(
    ("path", "once"), [(f"{FREE}/x", True), (f"w/1/{FREE}/x", True), (f"{RUN}/x", False), (f"{RUN}/models/m-1/x", False), ("0/models/x", False)]
)
def test_files_of_logged_models_are_written_once_and_those_of_runs_are_not(store: GuardedStore, path: str, once: bool) -> None:
    assert store.custody.write_once(path) is once


def test_what_is_signed_about_a_version_that_is_a_whole_run_can_be_written(store: GuardedStore) -> None:
    store.register(RUN)
    assert store.custody.refusal_to_write(f"{RUN}/unlearn/certificate.json") is None
    assert store.custody.refusal_to_write(f"{RUN}/unlearned")
    assert store.custody.refusal_to_delete(f"{RUN}/unlearn/certificate.json")
    assert store.custody.refusal_to_write(f"{REGISTERED}/unlearn/x")


def test_a_link_to_a_guarded_model_opens_nothing(store: GuardedStore, tmp_path: Path) -> None:
    (tmp_path / "artifacts" / BLOCKED).mkdir(parents=True)
    (tmp_path / "artifacts/way").symlink_to("0")
    at = BLOCKED.replace("0/", "way/", 1) + "/x"
    assert store.custody.refusal_to_read(at)
    assert store.custody.refusal_to_write(at)
    assert store.custody.refusal_to_delete(at)


def test_a_version_that_was_registered_through_a_link_is_guarded_where_it_lies(store: GuardedStore, tmp_path: Path) -> None:
    (tmp_path / "artifacts/5/models/m-x/artifacts").mkdir(parents=True)
    (tmp_path / "artifacts/way").symlink_to("5")
    store.register("way/models/m-x/artifacts")
    assert store.custody.refusal_to_write("5/models/m-x/artifacts/new")


@pytest.mark.parametrize("ask", [READ, WRITE, DELETE], ids=["read", "write", "delete"])
@pytest.mark.parametrize("path", ["..", "../x", "0/../../x", "x\0y"])
def test_what_leads_out_or_is_no_name_is_refused(store: GuardedStore, ask: object, path: str) -> None:
    assert "leads out of" in str(ask(store.custody, path))  # type: ignore[operator]


def test_a_version_named_by_its_path_on_disk_is_the_same(store: GuardedStore, tmp_path: Path) -> None:
    store.register(f"file://{tmp_path}/artifacts/{FREE}", f"file://{tmp_path}/elsewhere")
    assert store.custody.refusal_to_write(f"{FREE}/x")
    assert store.custody.refusal_to_write("x", root=f"{tmp_path}/elsewhere")
    assert store.custody.refusal_at(f"file://{tmp_path}/artifacts/{BLOCKED}/")


@pytest.mark.parametrize("uri", [f"mlflow-artifacts:/{BLOCKED}", f"http://here/api/2.0/mlflow-artifacts/artifacts/{BLOCKED}"])
def test_a_location_is_asked_about_by_its_uri(store: GuardedStore, uri: str) -> None:
    assert "is blocked" in str(store.custody.refusal_at(uri))


@pytest.mark.parametrize("uri", ["gs://b/x", "hdfs://host/x", "https://elsewhere/x", "models:/m-1", "runs:/1/model", "dummy-source", ""])
def test_of_other_stores_the_gate_knows_nothing_but_the_name(store: GuardedStore, uri: str) -> None:
    assert store.custody.refusal_at(uri) is None


@pytest.mark.parametrize(
    "uri",
    [
        "unlearn-file:///etc",
        "unlearn-file:.unlearn",
        "Unlearn-File:///etc",
        " unlearn-file:///etc",
        "un\tlearn-file:///etc",
        "unlearn-s3://b/k",
        "unlearn-gs://b/k",
        "GS://b/x",
        "S3://b/x",
        "s3:b/x",
        "file:///x?y",
        "file://elsewhere/x",
        "/x\n",
        "mlflow-artifacts:/../x",
        "http://here/api/2.0/mlflow-artifacts/artifacts/x?y",
        "http://[x",
    ],
)
def test_a_location_that_cannot_be_read_or_that_only_the_server_names_is_closed(store: GuardedStore, uri: str) -> None:
    assert store.custody.refusal_at(uri)


@pytest.mark.parametrize("ask", [READ, WRITE, DELETE], ids=["read", "write", "delete"])
def test_the_servers_own_keys_are_touched_by_nobody_whatever_leads_to_them(store: GuardedStore, tmp_path: Path, ask: Ask) -> None:
    (tmp_path / "way").symlink_to(".unlearn")
    guarding = Custody(store.rows, store.engine, store.storage, [tmp_path / ".unlearn", tmp_path / "way/gate.key"])
    for root, path in ((f"{tmp_path}/.unlearn", "gate.key"), (str(tmp_path), ".unlearn/gate.key"), (str(tmp_path), "way/keys/owner.key")):
        assert "belongs to this server itself" in str(ask(guarding, path, root))
    assert ask(guarding, "unlearn/gate.key", str(tmp_path)) is None
    assert (ask(guarding, "", str(tmp_path)) is None) is (ask is WRITE)
    assert guarding.refusal_at(f"file://{tmp_path}/.unlearn")
    assert guarding.refusal_at(str(tmp_path))


def test_a_version_whose_source_is_the_whole_destination_or_no_place_guards_nothing(store: GuardedStore) -> None:
    store.register("mlflow-artifacts:/", "models:/m-1", "gs://b/x")
    assert store.custody.refusal_to_write(f"{RUN}/log.txt") is None


def test_a_new_version_is_guarded_when_a_file_is_there_and_a_deleted_one_is_free_when_all_is_read(store: GuardedStore) -> None:
    assert store.custody.refusal_to_write(f"{FREE}/x") is None
    store.register(FREE, at=2)
    assert store.custody.refusal_to_write(f"{FREE}/x", now=True)
    store.run("UPDATE model_versions SET current_stage = 'Deleted_Internal'")
    store.custody.reload(all=True)
    assert store.custody.refusal_to_write(f"{FREE}/x") is None


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM unlearn_gate_rows",
        "UPDATE unlearn_gate_rows SET body = '{}'",
        "DELETE FROM model_versions",
        "UPDATE model_versions SET storage_location = 'mlflow-artifacts:/elsewhere'",
        "UPDATE model_versions SET current_stage = 'Deleted_Internal'",
    ],
)
def test_who_writes_in_the_database_opens_nothing_before_the_warden_looks(store: GuardedStore, statement: str) -> None:
    store.custody.reload()
    store.run(statement)
    store.custody.reload()
    assert store.custody.refusal_to_read(BLOCKED)
    assert store.custody.refusal_to_write(f"{REGISTERED}/x")


def test_the_warden_lifts_a_block(store: GuardedStore) -> None:
    assert store.custody.refusal_to_read(BLOCKED)
    store.run("DELETE FROM unlearn_gate_rows")
    store.custody.reload(all=True)
    assert store.custody.refusal_to_read(BLOCKED) is None


def test_what_was_blocked_elsewhere_is_seen_within_seconds(store: GuardedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store.custody.refusal_to_read(FREE) is None
    store.block(FREE)
    assert store.custody.refusal_to_read(FREE) is None
    monkeypatch.setattr(custody, "STALE_S", 0)
    assert store.custody.refusal_to_read(FREE)


@pytest.mark.parametrize("ask", [READ, WRITE, DELETE], ids=["read", "write", "delete"])
def test_a_database_that_does_not_answer_closes_everything(store: GuardedStore, ask: object) -> None:
    store.run("DROP TABLE model_versions")
    assert "MLflow's database does not answer" in str(ask(store.custody, FREE))  # type: ignore[operator]


def test_without_a_destination_nothing_is_open(store: GuardedStore) -> None:
    blind = Custody(store.rows, store.engine, Storage("", None))
    assert "start it with --artifacts-destination" in str(blind.refusal_to_read(FREE))
