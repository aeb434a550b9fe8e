"""How guarded aliases and stages move: past the gate, from two servers, at once, and with what they rest on; on a real project, in this process."""

# ruff: noqa: F811 - fixtures are imported

from __future__ import annotations

import threading

import pytest
import sqlalchemy as sql
from deployed import FORGOT, _built, asked_template, world  # noqa: F401 - fixtures
from gated_world import Gated, enforced, gated, unplug  # noqa: F401 - fixtures
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mlflow_unlearn.adapters.gate_tables import take_turn, writing
from mlflow_unlearn.lineage import ModelVersion
from mlflow_unlearn.server import registry_store


def test_what_held_an_alias_loses_no_evidence(enforced: Gated):
    enforced.point(FORGOT)
    for act in (
        lambda: enforced.client.rename_registered_model("m", "n"),
        lambda: enforced.client.delete_registered_model("m"),
        lambda: enforced.client.delete_model_version("m", "2"),
        lambda: enforced.client.delete_model_version("m", "1"),
    ):
        with pytest.raises(MlflowException, match="m/2@champion would lose its evidence"):
            act()
    enforced.client.delete_registered_model_alias("m", "champion")
    enforced.client.delete_model_version("m", "2")
    enforced.client.rename_registered_model("m", "n")
    assert [each for each in enforced.told("action") if each[0] != "set alias"][-3:] == [("delete alias",), ("delete version",), ("rename model",)]


@pytest.mark.parametrize("lost", ["delete_model_version", "rename_registered_model"])
def test_a_version_that_becomes_champion_while_it_is_to_be_deleted_stays(enforced: Gated, monkeypatch, lost):
    waiting, told = threading.Event(), []

    def turn(connection) -> None:
        waiting.set()
        take_turn(connection)

    def delete() -> None:
        try:
            getattr(enforced.store, lost)("m", {"delete_model_version": "2", "rename_registered_model": "n"}[lost])
        except MlflowException as error:
            told.append(error.message)

    monkeypatch.setattr(registry_store, "take_turn", turn)
    thread = threading.Thread(target=delete)
    with writing(enforced.store.engine) as connection:
        thread.start()
        assert waiting.wait(60)
        connection.execute(sql.text("insert into registered_model_aliases (workspace, name, alias, version) values ('default', 'm', 'champion', 2)"))
    thread.join(60)
    assert ["m/2@champion would lose its evidence" in each for each in told] == [True]
    assert enforced.client.get_model_version("m", "2")


def test_of_one_who_is_refused_again_and_again_the_log_tells_so_many_a_minute(enforced: Gated, monkeypatch):
    monkeypatch.setattr("mlflow_unlearn.server.clerk._A_MINUTE", 3)
    for _ in range(5):
        assert "m/1 for 'champion'" in enforced.refused(ModelVersion(name="m", version="1"))
    assert enforced.told("version", "outcome") == [("1", "refused")] * 3


def test_who_is_refused_again_and_again_keeps_nothing_else_about_them_from_the_log(enforced: Gated, monkeypatch):
    monkeypatch.setattr("mlflow_unlearn.server.clerk._A_MINUTE", 1)
    enforced.point(FORGOT)
    for _ in range(3):
        enforced.refused(ModelVersion(name="m", version="1"))
    for how in ("warn", "observe"):
        enforced.enforce(how)
        enforced.point(ModelVersion(name="m", version="1"), "prod")
        enforced.follow("prod")
    unplug(enforced)
    enforced.follow("prod")
    told = [outcome for action, outcome in enforced.told("action", "outcome") if action == "resolve alias" or outcome == "refused"]
    assert told == ["refused", "warned", "observed", "alarm"]


def test_an_alias_that_only_looks_like_latest_is_followed_like_every_alias(enforced: Gated):
    enforced.point(FORGOT)
    for alias in ("late\u017ft", "late\ufb06"):
        enforced.sql("insert into registered_model_aliases (workspace, name, alias, version) values ('default', 'm', ?, 1)", [alias])
        assert "moved past the gate" in enforced.refused(alias)


@pytest.mark.parametrize(
    "statement",
    [
        "update registered_model_aliases set version = 1",
        "insert into registered_model_aliases (workspace, name, alias, version) values ('default', 'm', 'prod', 2)",
        "update registered_model_aliases set alias = 'prod'",
        "delete from unlearn_gate_log",
        "update unlearn_gate_log set moves = 0",
    ],
)
def test_an_alias_that_was_moved_in_the_database_is_not_followed(enforced: Gated, statement):
    enforced.point(FORGOT)
    enforced.sql(statement)
    held = next(iter(enforced.client.get_registered_model("m").aliases))
    aliases = enforced.client.get_registered_model("m").aliases
    words = enforced.refused("prod" if "prod" in aliases else held)
    assert "moved past the gate" in words or "is filed under something else" in words
    assert "Next: " in words


def test_aliases_of_before_the_gate_are_followed_as_they_were_found(world, monkeypatch):
    monkeypatch.setenv("MLFLOW_UNLEARN_PROJECT", str(world.root / "unlearn"))
    database = f"sqlite:///{world.root}/mlflow.db"
    MlflowClient(database).set_registered_model_alias("m", "champion", "2")
    found = Gated(world, MlflowClient(database, f"unlearn-{database}"))
    found.enforce()
    assert found.follow() == "2"
    assert found.told("version", "alias", "outcome", "moves") == [("2", "champion", "found", True)]


def test_two_servers_on_one_database_know_what_the_other_decided(enforced: Gated):
    other = enforced.restarted()
    enforced.point(FORGOT)
    assert other.get_model_version_by_alias("m", "champion").version == 2
    other.delete_registered_model_alias("m", "champion")
    other.set_registered_model_alias("m", "prod", "2")
    assert enforced.follow("prod") == "2"
    assert enforced.told("action", "alias")[-2:] == [("delete alias", "champion"), ("set alias", "prod")]


def test_of_those_who_promote_at_once_each_has_a_turn_or_is_told_who_was_faster(enforced: Gated):
    third, stores = enforced.clear(), [enforced.restarted() for _ in range(3)]
    for store in stores:
        store.get_registered_model("m")
    enforced.warden.pointing(FORGOT, "champion")
    enforced.warden.pointing(third, "champion")
    told: list[str] = []

    def promote(store, version: str) -> None:
        try:
            store.set_registered_model_alias("m", "champion", version)
            told.append("done")
        except MlflowException as error:
            told.append(f"{error.error_code}: {error.message}")

    versions = [FORGOT.version, third.version] * 4
    threads = [threading.Thread(target=promote, args=(stores[n % 3], version)) for n, version in enumerate(versions)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    lost = [each for each in told if each != "done"]
    assert len(told) == len(versions)
    assert all(each.startswith("RESOURCE_CONFLICT: refused by mlflow-unlearn: m/") and "promote again" in each for each in lost)
    moves = [each for each in enforced.entries() if each.moves]
    assert (len(moves), enforced.follow()) == (told.count("done"), moves[-1].version)
    assert [each.replaced for each in moves] == ["", *(each.version for each in moves[:-1])]


def test_a_guarded_stage_asks_for_the_same_evidence_and_others_do_not(enforced: Gated):
    store = enforced.store
    with pytest.raises(MlflowException, match="m/1 for 'Production': the gate says no"):
        store.transition_model_version_stage("m", "1", "Production", archive_existing_versions=False)
    store.transition_model_version_stage("m", "1", "Staging", archive_existing_versions=False)
    store.transition_model_version_stage("m", "2", "Production", archive_existing_versions=False)
    assert [(each.version, each.current_stage) for each in store.get_latest_versions("m")] == [(1, "Staging"), (2, "Production")]
    assert [each.version for each in store.get_latest_versions("m", ["Production"])] == [2]
    with pytest.raises(MlflowException, match="would lose its evidence"):
        store.delete_model_version("m", "2")


def test_a_stage_in_another_case_is_the_same_stage(enforced: Gated):
    enforced.store.transition_model_version_stage("m", "2", "production", archive_existing_versions=False)
    assert [each.version for each in enforced.store.get_latest_versions("m", ["Production"])] == [2]


def test_a_version_in_a_guarded_stage_that_was_changed_is_not_given_out_by_it(enforced: Gated):
    enforced.store.transition_model_version_stage("m", "2", "Production", archive_existing_versions=False)
    enforced.sql("update model_versions set current_stage = 'Production' where version = 1")
    enforced.sql("update model_versions set current_stage = 'None' where version = 2")
    with pytest.raises(MlflowException, match="moved past the gate"):
        enforced.store.get_latest_versions("m", ["Production"])


def test_what_is_not_there_is_said_in_the_words_of_mlflow(enforced: Gated):
    for act in (lambda: enforced.point("9", "staging"), lambda: enforced.follow("nobody"), lambda: enforced.read("9")):
        with pytest.raises(MlflowException, match="not found") as told:
            act()
        assert told.value.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
    for version in ("two", "", "0x1"):
        with pytest.raises(MlflowException, match="version"):
            enforced.point(version)


def test_a_guarded_alias_for_a_version_that_is_not_there_is_no_matter_of_the_ledger(enforced: Gated):
    with pytest.raises(MlflowException) as told:
        enforced.point("9")
    assert told.value.error_code == "RESOURCE_DOES_NOT_EXIST"
