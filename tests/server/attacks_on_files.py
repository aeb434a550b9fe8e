"""Attacks on model files through HTTP and MLflow's client: written once, and read by nobody where they are blocked."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import mlflow
from attacked import FAILED, GOOD, LEGACY, OTHER, OVERDUE, Reply, Target, told
from attacks import CLIENT, REST, UI, Steps, attack


def download(uri: str) -> Reply:
    """As somebody would who wants the files on his own machine."""
    with tempfile.TemporaryDirectory() as folder:
        return told(lambda: mlflow.artifacts.download_artifacts(uri, dst_path=folder))


def blocked(who: str, *words: str, **how: Any) -> Callable[[Callable[[Target], Steps]], None]:
    return attack(who, *(words or ("is blocked, nobody reads its files through this server", "Next: ")), **how)


# Files are written once


@attack(REST, "belongs to a registered model version, whose files are written once")
def files_of_a_version_are_not_replaced_nor_added(at: Target) -> Steps:
    for name in ("model.safetensors", "MLmodel", "new", "sub/new", "%2e/model.safetensors", "%256dodel.safetensors"):
        yield lambda name=name: at.put(f"{at.below(GOOD)}/{name}")


@attack(REST, "holds files of a registered model version, which are not deleted")
def files_of_a_version_are_not_deleted(at: Target) -> Steps:
    for path in ("/model.safetensors", "", "/..", "/.."):
        yield lambda path=path: at.drop((at.below(GOOD) + path).replace("/artifacts/..", ""))


@attack(CLIENT, "belongs to a registered model version, whose files are written once")
def a_logged_model_gets_no_other_files_once_it_is_registered(at: Target) -> Steps:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "model.safetensors").write_bytes(b"other")
        yield lambda: told(lambda: at.client.log_model_artifacts(at.model_id(OTHER), folder))


@attack(CLIENT, "is there already, and files of a model are written once")
def a_logged_model_gets_no_other_file_in_the_place_of_one_before_it_is_registered(at: Target) -> Steps:
    model_id = at.logged(7.0)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "model.safetensors").write_bytes(b"other")
        yield lambda: told(lambda: at.client.log_model_artifacts(model_id, folder))


@attack(CLIENT, "belongs to a registered model version, whose files are written once")
def a_run_logs_nothing_more_into_what_was_registered_of_it(at: Target) -> Steps:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "model.safetensors").write_bytes(b"other")
        yield lambda: told(lambda: at.client.log_artifact(at.row(LEGACY)["run_id"], f"{folder}/model.safetensors", "model"))


@attack(UI, "belongs to a registered model version, whose files are written once")
def the_upload_of_the_ui_writes_nothing_into_a_version(at: Target) -> Steps:
    path = f"upload-artifact?run_uuid={at.row(LEGACY)['run_id']}&path=model/model.safetensors"
    yield lambda: at.ask_for("POST", path, raw=b"other", through="ajax")


@attack(REST, "Invalid path", status=400)
def a_path_that_leads_out_of_a_run_is_none(at: Target) -> Steps:
    out = f"%2e%2e/%2e%2e/models/{at.model_id(GOOD)}/artifacts/model.safetensors"
    yield lambda: at.put(f"1/{at.row(GOOD)['run_id']}/artifacts/{out}")
    yield lambda: at.ask_for("POST", f"upload-artifact?run_uuid={at.row(GOOD)['run_id']}&path={out}", raw=b"other", through="ajax")


@attack(REST, "is not supported for the current artifact", status=501)
def there_is_no_upload_in_parts_on_disk(at: Target) -> Steps:
    body = {"path": "model.safetensors", "num_parts": 1}
    yield lambda: at.ask_for("POST", f"/api/2.0/mlflow-artifacts/mpu/create/{at.below(GOOD)}", body)


@attack(REST, "belongs to a registered model version, whose files are written once")
def a_file_of_a_run_is_not_replaced_in_the_moment_after_it_is_registered(at: Target) -> Steps:
    run_id = at.client.create_run(at.client.get_experiment_by_name("m").experiment_id).info.run_id
    place = f"1/{run_id}/artifacts/model"
    assert at.put(f"{place}/weights").status == at.put(f"{place}/weights", b"another").status == 200
    made = at.fresh(source=f"mlflow-artifacts:/{place}", run_id=run_id, model_id="")
    yield lambda: at.put(f"{place}/weights")
    at.remove(made)


# The scheme by which the server names its artifacts destination is nobody else's


@attack(REST, "refused by mlflow-unlearn: register: ")
def nothing_is_registered_by_the_scheme_of_the_gate(at: Target) -> Steps:
    place = at.root / ".unlearn"
    model_id = at.model_at(f"unlearn-file://{place}")
    yield lambda: at.create(OTHER.name, f"models:/{model_id}", model_id=model_id)
    for spelled in (f"unlearn-file:{place}", f"unlearn-file://localhost{place}", f"Unlearn-File://{place}", f" unlearn-file://{place}"):
        yield lambda spelled=spelled: at.create(OTHER.name, spelled)
    for other in ("un\tlearn-file:///etc", "unlearn-s3://bucket/key", f"unlearn-file://{at.folder(GOOD)}"):
        yield lambda other=other: at.create(OTHER.name, other)


@attack(REST, "only this server itself names locations by unlearn-")
def an_experiment_that_lies_on_the_servers_disk_by_the_scheme_of_the_gate_is_not_touched(at: Target) -> Steps:
    for place in (f"unlearn-file://{at.root}/.unlearn", f"unlearn-file://{at.root}/mlartifacts/%2e%2e", "Unlearn-File:."):
        run_id, model_id, trace_id = at.run_at(place), at.model_at(place), at.trace_at(place)
        yield lambda run_id=run_id: at.ask_for("GET", f"/get-artifact?run_id={run_id}&path=gate.key")
        yield lambda run_id=run_id: at.ask_for("GET", f"artifacts/list?run_id={run_id}")
        yield lambda run_id=run_id: at.ask_for("POST", f"upload-artifact?run_uuid={run_id}&path=new", raw=b"other", through="ajax")
        yield lambda model_id=model_id: at.ask_for("GET", f"logged-models/{model_id}/artifacts/files?artifact_file_path=x", through="ajax")
        yield lambda model_id=model_id: at.ask_for("GET", f"logged-models/{model_id}/artifacts/directories")
        yield lambda trace_id=trace_id: at.ask_for("GET", f"get-trace-artifact?request_id={trace_id}&path={UUID(int=0)}", through="ajax")


@attack(REST, "RESOURCE_DOES_NOT_EXIST", status=404)
def a_number_that_no_version_has_is_not_found_and_nobody_asks_again(at: Target) -> Steps:
    number = "9" * 20
    for path in (f"model-versions/get-download-uri?name=m&version={number}", f"/model-versions/get-artifact?name=m&version={number}&path=MLmodel"):
        yield lambda path=path: at.ask_for("GET", path)
    yield lambda: at.create(OTHER.name, f"models:/m/{number}")


# A blocked version is read by no name


@blocked(CLIENT)
def a_blocked_version_is_not_read_by_its_number(at: Target) -> Steps:
    yield lambda: download(f"models:/{OVERDUE}")
    yield lambda: download(f"models:/{FAILED}")
    yield lambda: told(lambda: at.client.get_model_version_download_uri("m", OVERDUE.version))


@blocked(CLIENT)
def a_blocked_version_is_not_read_by_an_alias_that_nobody_guards(at: Target) -> Steps:
    at.point(OVERDUE, "candidate")
    yield lambda: download("models:/m@candidate")
    at.client.delete_registered_model_alias("m", "candidate")


@blocked(CLIENT)
def a_blocked_version_is_not_read_as_the_latest(at: Target) -> Steps:
    made = at.numbered(at.client.copy_model_version(f"models:/{OTHER}", "m").version)
    at.client.delete_model_version("m", made.version)
    yield lambda: download("models:/m/latest")


@blocked(CLIENT)
def a_blocked_version_is_not_read_by_the_id_of_its_logged_model(at: Target) -> Steps:
    yield lambda: download(f"models:/{at.model_id(OVERDUE)}")


@attack(CLIENT, "Failed to download artifacts from path", status=404)
def a_blocked_version_is_not_read_by_its_run(at: Target) -> Steps:
    named = {model: f"runs:/{at.row(model)['run_id']}/{at.client.get_logged_model(at.model_id(model)).name}" for model in (OTHER, OVERDUE)}
    assert download(named[OTHER]).status == 200  # so that the words, which are MLflow's, come of nothing but the block
    yield lambda: download(named[OVERDUE])
    yield lambda: download(f"runs:/{at.row(LEGACY)['run_id']}/model")


@blocked(CLIENT)
def a_blocked_version_is_not_read_by_its_place_nor_with_a_folder_around_it(at: Target) -> Steps:
    yield lambda: download(f"mlflow-artifacts:/{at.below(OVERDUE)}")
    yield lambda: download(f"mlflow-artifacts:/1/models/{at.model_id(OVERDUE)}")


@blocked(REST)
def a_file_of_a_blocked_version_is_not_read_by_any_spelling(at: Target) -> Steps:
    place, name = at.below(OVERDUE), "model.safetensors"
    for path in (f"{place}/{name}", f"{place}//{name}", f"{place}/./{name}", f"{place}/%6dodel.safetensors", f"{place}/%256dodel.safetensors"):
        yield lambda path=path: at.get(path)


@blocked(UI)
def a_blocked_version_is_not_read_by_the_routes_of_the_ui(at: Target) -> Steps:
    name = "model.safetensors"
    for path in (
        f"/model-versions/get-artifact?name=m&version={OVERDUE.version}&path={name}",
        f"/get-artifact?run_id={at.row(LEGACY)['run_id']}&path=model/{name}",
        f"/get-artifact?run_uuid={at.row(LEGACY)['run_id']}&path=model%2F{name}",
        f"/ajax-api/2.0/mlflow/logged-models/{at.model_id(OVERDUE)}/artifacts/files?artifact_file_path={name}",
        f"/ajax-api/2.0/mlflow-artifacts/artifacts/{at.below(OVERDUE)}/{name}",
    ):
        yield lambda path=path: at.ask_for("GET", path)


@attack(REST, "is not supported for", status=501)
def there_is_no_url_to_a_blocked_file_on_disk(at: Target) -> Steps:
    yield lambda: at.ask_for("GET", f"/api/2.0/mlflow-artifacts/presigned/{at.below(OVERDUE)}/model.safetensors")


@attack(REST, "is not supported for", "proxied artifact storage", status=400)
def there_is_no_url_to_a_blocked_file_of_a_run(at: Target) -> Steps:
    run_id, path = at.row(LEGACY)["run_id"], "model/model.safetensors"
    yield lambda: at.ask_for("POST", "artifacts/presigned-download-url", {"run_id": run_id, "path": path})
    yield lambda: at.ask_for("POST", "artifacts/presigned-upload-url", {"run_id": run_id, "path": path})


@blocked(REST)
def blocked_files_are_not_registered_again(at: Target) -> Steps:
    model_id = at.model_id(OVERDUE)
    yield lambda: at.create(OTHER.name, f"models:/{model_id}", model_id=model_id, run_id=at.row(OVERDUE)["run_id"])
    yield lambda: at.create(OTHER.name, f"models:/{OVERDUE}", run_id=at.row(OVERDUE)["run_id"])
    place = f"mlflow-artifacts:/1/{at.row(LEGACY)['run_id']}/artifacts"
    for source in (f"{place}/model", f"{place}/model/", f"{place}//model", f"{place}/%6dodel", place, f"{place}/model/sub"):
        yield lambda source=source: at.create(OTHER.name, source, run_id=at.row(LEGACY)["run_id"])


@attack(REST, "Invalid model version source", status=400)
def files_on_the_servers_disk_are_not_registered_by_their_path(at: Target) -> Steps:
    for source in (str(at.folder(OVERDUE)), at.folder(OVERDUE).as_uri(), f"{at.folder(OVERDUE).as_uri()}/../artifacts"):
        yield lambda source=source: at.create(OTHER.name, source, run_id=at.row(OVERDUE)["run_id"])


@attack(REST, "belongs to a registered model version, whose files are written once")
def an_experiment_that_lies_in_a_version_writes_nothing_there(at: Target) -> Steps:
    for place in (
        at.folder(GOOD).as_uri(),
        str(at.folder(GOOD)),
        f"{at.folder(GOOD).as_uri()}/",
        f"file://{at.root}/mlartifacts/x/../{at.below(GOOD)}",
    ):
        run_id = at.run_at(place)
        try:
            yield lambda run_id=run_id: at.ask_for("POST", f"upload-artifact?run_uuid={run_id}&path=new", raw=b"other", through="ajax")
        finally:
            shutil.rmtree(at.folder(GOOD) / run_id, ignore_errors=True)


@attack(REST, "is blocked, nobody reads its files through this server")
def an_experiment_that_lies_in_a_blocked_version_reads_nothing_there(at: Target) -> Steps:
    for place in (f"mlflow-artifacts:/{at.below(OVERDUE)}", at.folder(OVERDUE).as_uri(), str(at.folder(OVERDUE))):
        run_id = at.run_at(place)
        yield lambda run_id=run_id: at.ask_for("GET", f"/get-artifact?run_id={run_id}&path=model.safetensors")
