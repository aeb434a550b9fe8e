"""Attacks on the gate by whoever can write in MLflow's database, on the server's disk or in the project's folder: done, and then found out."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from attacked import AFFECTED, FAILED, GOOD, OVERDUE, UNKNOWN, Target
from attacks import Steps, attack

from mlflow_unlearn.adapters.registry_rows import CERTIFICATE_TAG, LINEAGE_TAG

DATABASE, DISK, PROJECT = "database password", "server's disk", "project folder"
CHAMPION = {"name": "m", "alias": "champion"}
MOVED = "it was moved past the gate, by whoever can write in MLflow's database"
CHANGED = "not the model of the certificate"

# The database


@attack(
    DATABASE,
    "refused by mlflow-unlearn: 'champion' of m, which is version 1",
    "the gate let m@champion point at version 2",
    MOVED,
    outcome="detected",
)
def an_alias_that_is_moved_by_sql_is_not_followed(at: Target) -> Steps:
    with at.altered("registered_model_aliases", CHAMPION, version=1):
        yield at.follow


@attack(DATABASE, "refused by mlflow-unlearn: 'prod' of m, which is version 5", MOVED, outcome="detected")
def an_alias_that_is_made_by_sql_is_not_followed(at: Target) -> Steps:
    row = at.rows("registered_model_aliases", **CHAMPION)[0]
    with at.inserted("registered_model_aliases", **{**row, "alias": "prod", "version": 5}):
        yield lambda: at.follow("prod")


@attack(DATABASE, "refused by mlflow-unlearn: 'Champion' of m, which is version 1", MOVED, outcome="detected")
def an_alias_in_another_case_that_is_made_by_sql_is_not_followed(at: Target) -> Steps:
    row = at.rows("registered_model_aliases", **CHAMPION)[0]
    with at.inserted("registered_model_aliases", **{**row, "alias": "Champion", "version": 1}):
        yield lambda: at.follow("Champion")


@attack(DATABASE, "refused by mlflow-unlearn: 'Production' of m, which is version 1", MOVED, outcome="detected")
def a_stage_that_is_written_by_sql_is_not_followed(at: Target) -> Steps:
    with at.altered("model_versions", {"name": "m", "version": 1}, current_stage="Production"):
        yield lambda: at.ask_for("POST", "registered-models/get-latest-versions", {"name": "m", "stages": ["Production"]})


@attack(DATABASE, "refused by mlflow-unlearn: 'champion' of m, which is version 2: the gate says no", CHANGED, outcome="detected")
def a_champion_that_is_led_to_other_files_by_sql_is_not_followed(at: Target) -> Steps:
    other = at.row(UNKNOWN)
    with at.altered("model_versions", {"name": "m", "version": 2}, source=other["source"], storage_location=other["storage_location"]):
        yield at.follow


@attack(DATABASE, "models:/m/3 is blocked, nobody reads its files through this server", outcome="detected")
def a_version_that_is_led_to_blocked_files_by_sql_is_not_read(at: Target) -> Steps:
    bad = at.row(OVERDUE)
    with at.altered("model_versions", {"name": "m", "version": 5}, source=bad["source"], storage_location=bad["storage_location"]):
        yield lambda: at.ask_for("GET", "/model-versions/get-artifact?name=m&version=5&path=MLmodel")


@attack(DATABASE, "refused by mlflow-unlearn: read: ", outcome="detected")
def a_version_that_is_led_to_the_servers_own_keys_by_sql_is_not_read(at: Target) -> Steps:
    state = at.root / ".unlearn"
    assert (state / "gate.key").exists()
    for place, path in (
        (f"unlearn-file://{state}", "gate.key"),
        (state.as_uri(), "gate.key"),
        (str(state), "gate.key"),
        (f"file://{at.root}", ".unlearn/gate.key"),
        (f"unlearn-file://{at.root}", "mlflow.db"),
    ):
        with at.altered("model_versions", {"name": "m", "version": 5}, storage_location=place):
            yield lambda path=path: at.ask_for("GET", f"/model-versions/get-artifact?name=m&version=5&path={path}")


@attack(DATABASE, "belongs to this server itself", outcome="detected")
def a_run_that_is_led_to_the_servers_own_keys_by_sql_is_not_read(at: Target) -> Steps:
    run_id = at.row(UNKNOWN)["run_id"]
    for place, path in ((at.root / ".unlearn", "gate.key"), (at.root, ".unlearn/gate.key")):
        with at.altered("runs", {"run_uuid": run_id}, artifact_uri=place.as_uri()):
            yield lambda path=path: at.ask_for("GET", f"/get-artifact?run_id={run_id}&path={path}")
            yield lambda path=path: at.ask_for("POST", f"upload-artifact?run_uuid={run_id}&path={path}", raw=b"k" * 32, through="ajax")


@attack(DATABASE, "refused by mlflow-unlearn: 'champion' of m, which is version 1: the gate says no", "affected by er-", outcome="detected")
def a_decision_that_is_copied_to_another_version_by_sql_counts_for_nothing(at: Target) -> Steps:
    decided = {
        (said["model"]["version"], said["alias"]): row for row in at.rows("unlearn_gate_rows", kind="decision") for said in [json.loads(row["body"])]
    }
    good, bad = decided["2", "champion"], decided["1", "champion"]
    for body in (good["body"], good["body"].replace('"version":"2"', '"version":"1"')):
        with ExitStack() as undone:
            undone.enter_context(at.altered("registered_model_aliases", CHAMPION, version=1))
            undone.enter_context(at.altered("unlearn_gate_rows", {"kind": "decision", "id": bad["id"]}, body=body, mac=good["mac"]))
            yield at.follow


@attack(DATABASE, "is blocked, nobody reads its files through this server", outcome="detected")
def blocks_that_are_deleted_by_sql_open_nothing_and_come_back(at: Target) -> Steps:
    name = f"{at.below(OVERDUE)}/model.safetensors"
    with at.altered("unlearn_gate_rows", {"kind": "block"}):
        yield lambda: at.get(name)
    at.surveyed()
    yield lambda: at.get(name)


@attack(DATABASE, "gate log: entry ", "is not the one that was written", outcome="detected", status=1)
def a_changed_entry_of_the_log_is_found(at: Target) -> Steps:
    number = sorted(row["number"] for row in at.rows("unlearn_gate_log"))[-2]  # the server may chain its next entry to the last one meanwhile
    (entry,) = at.rows("unlearn_gate_log", number=number)
    for change in ({"body": entry["body"].replace('"actor":"', '"actor":"x')}, {"mac": "0" * 64}):
        with at.altered("unlearn_gate_log", {"number": number}, **change):
            yield at.verified


@attack(DATABASE, "gate log: entry ", "is missing or not the one that was written", outcome="detected", status=1)
def a_missing_entry_of_the_log_is_found(at: Target) -> Steps:
    with at.altered("unlearn_gate_log", {"number": 2}):
        yield at.verified


@attack(DATABASE, "was seen by this machine and is gone or another one now", outcome="detected", status=1)
def a_log_whose_end_is_cut_off_is_found(at: Target) -> Steps:
    seen = json.loads((at.root / ".unlearn/gate.head").read_text())
    last = next(value for value in _numbers(seen))
    with ExitStack() as undone:
        for row in [each for each in at.rows("unlearn_gate_log") if each["number"] >= last]:
            undone.enter_context(at.altered("unlearn_gate_log", {"number": row["number"]}))
        yield at.verified


@attack(DATABASE, "refused by mlflow-unlearn: 'champion' of m, which is version 1", "is not the one that was written", outcome="detected")
def a_log_that_is_written_to_fit_a_moved_alias_is_not_believed(at: Target) -> Steps:
    moves = sorted((row for row in at.rows("unlearn_gate_log", model="m", alias="champion") if row["moves"]), key=lambda row: row["number"])
    body = json.loads(moves[-1]["body"]) | {"version": "1"}
    with ExitStack() as undone:
        undone.enter_context(at.altered("registered_model_aliases", CHAMPION, version=1))
        undone.enter_context(at.altered("unlearn_gate_log", {"number": moves[-1]["number"]}, body=json.dumps(body, separators=(",", ":"))))
        yield at.follow


@attack(DATABASE, "refused by mlflow-unlearn: m/5 for 'champion'", outcome="detected")
def verdicts_and_pointers_that_are_written_by_sql_are_no_evidence(at: Target) -> Steps:
    row, good = at.rows("model_version_tags", name="m", version=2)[0] | {"version": 5}, at.tags(GOOD)
    with ExitStack() as undone:
        for key, value in (good | {"unlearn.verdict": "PASS", LINEAGE_TAG: at.tags(AFFECTED)[LINEAGE_TAG]}).items():
            undone.enter_context(at.inserted("model_version_tags", **{**row, "key": key, "value": value}))
        yield lambda: at.point(UNKNOWN)


@attack(
    DATABASE,
    "refused by mlflow-unlearn: m/1 for 'champion': the gate says no",
    "the registry says otherwise than what was signed",
    outcome="detected",
)
def data_that_a_run_is_made_to_have_never_read_is_missed(at: Target) -> Steps:
    with ExitStack() as undone:
        for row in at.rows("inputs", destination_id=at.row(AFFECTED)["run_id"]):
            undone.enter_context(at.altered("inputs", {"input_uuid": row["input_uuid"]}))
        yield lambda: at.point(AFFECTED)


@attack(DATABASE, "refused by mlflow-unlearn: 'champion' of m, which is version 2", outcome="detected")
def a_request_that_is_taken_out_of_a_champions_tags_by_sql_is_missed(at: Target) -> Steps:
    for key in ("unlearn.request", CERTIFICATE_TAG):
        with at.altered("model_version_tags", {"name": "m", "version": 2, "key": key}):
            yield at.follow


# The server's disk


@contextmanager
def weights(at: Target, change: Callable[[Path], object]) -> Iterator[None]:
    """The champion's weights as somebody else wrote them, and the file of before in the end."""
    with at.changed(at.folder(GOOD) / "model.safetensors", change):
        yield


def _rewritten(file: Path) -> None:
    """In place, and its time put back."""
    before = file.stat()
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def _replaced(file: Path) -> None:
    """By a file of the same size and times."""
    other = file.with_name("other")
    other.write_bytes(file.read_bytes()[:-1] + b"\x01")
    shutil.copystat(file, other)
    other.replace(file)


def _link_to(target: Path) -> Callable[[Path], None]:
    def link(path: Path) -> None:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        path.symlink_to(target)

    return link


def _swapped_for(other: Path) -> Callable[[Path], object]:
    def swap(folder: Path) -> None:
        shutil.rmtree(folder)
        shutil.copytree(other, folder)

    return swap


@attack(DISK, "refused by mlflow-unlearn: 'champion' of m, which is version 2: the gate says no", CHANGED, outcome="detected")
def weights_that_are_changed_on_disk_are_not_deployed(at: Target) -> Steps:
    for change in (_rewritten, _replaced, _link_to(at.folder(FAILED) / "model.safetensors")):
        with weights(at, change):
            yield at.follow


@attack(DISK, "refused by mlflow-unlearn: 'champion' of m, which is version 2: the gate says no", CHANGED, outcome="detected")
def a_file_that_is_added_on_disk_is_not_deployed(at: Target) -> Steps:
    added = at.folder(GOOD) / "added.py"
    added.write_text("")
    try:
        yield at.follow
    finally:
        added.unlink()


@attack(DISK, "refused by mlflow-unlearn: 'champion' of m, which is version 2: the gate says no", CHANGED, outcome="detected")
def a_folder_that_is_swapped_on_disk_is_not_deployed(at: Target) -> Steps:
    with at.changed(at.folder(GOOD), _swapped_for(at.folder(FAILED))):
        yield at.follow


@attack(DISK, "is blocked, nobody reads its files through this server", outcome="detected")
def a_link_to_a_blocked_version_reads_nothing(at: Target) -> Steps:
    link = at.root / "mlartifacts/1/way"
    link.symlink_to(at.folder(OVERDUE))
    try:
        yield lambda: at.get("1/way/model.safetensors")
    finally:
        link.unlink()


# The project: policy, trust, ledger


@attack(PROJECT, "refused by mlflow-unlearn: m/1 for 'champion': the gate says no", "policy.yaml", outcome="detected")
def a_policy_that_no_owner_signed_softens_nothing(at: Target) -> Steps:
    policy = at.root / "unlearn/policy.yaml"
    for old, new in (("default: enforce", "default: observe"), ("protected_aliases: [champion, production, prod]", "protected_aliases: [none]")):
        with at.changed(policy, lambda file, old=old, new=new: file.write_text(file.read_text().replace(old, new))):
            assert new in policy.read_text()
            yield lambda: at.point(AFFECTED)


@attack(PROJECT, "refused by mlflow-unlearn: m/1 for 'champion': the gate says no", "trust file", outcome="detected")
def an_older_trust_file_with_its_older_policy_is_found(at: Target) -> Steps:
    with ExitStack() as undone:
        for name, content in at.softer.items():
            undone.enter_context(at.changed(at.root / name, lambda file, content=content: file.write_bytes(content)))
        yield lambda: at.point(AFFECTED)


def _ledger(at: Target, change: Callable[[Path], object]) -> Any:
    return at.changed(at.root / ".unlearn/ledger.db", change)


@attack(PROJECT, "refused by mlflow-unlearn: m/1 for 'prod'", "ledger", outcome="detected")
def a_ledger_that_is_emptied_replaced_or_gone_promotes_nothing(at: Target) -> Steps:
    for change in (lambda file: file.write_bytes(b""), lambda file: file.write_bytes(at.ledgers[0]), Path.unlink):
        with _ledger(at, change):
            yield lambda: at.point(AFFECTED, "prod")


@attack(PROJECT, '"version": "2"', outcome="idle", status=200)
def a_ledger_that_is_gone_stops_no_champion_for_a_while(at: Target) -> Steps:
    with _ledger(at, Path.unlink):
        yield at.follow


def _numbers(found: Any) -> Iterator[int]:
    """Of the heads in a witness."""
    if isinstance(found, dict):
        yield from ([found["number"]] if isinstance(found.get("number"), int) else [])
        found = list(found.values())
    for each in found if isinstance(found, list) else ():
        yield from _numbers(each)
