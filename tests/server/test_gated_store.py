"""MLflow's registry with the gate in it: what guarded aliases may point at and who follows them, on a real project, in this process."""

# ruff: noqa: F811 - fixtures are imported

from __future__ import annotations

import logging
from datetime import UTC, datetime

import pytest
from deployed import FORGOT, TRAINED, _built, asked_template, world  # noqa: F401 - fixtures
from gated_world import Gated, enforced, gated, later, unplug  # noqa: F401 - fixtures
from mlflow.exceptions import MlflowException

from mlflow_unlearn.commands.promoting import review
from mlflow_unlearn.statements import ReviewKind


def test_what_is_enforced_decides_what_a_no_does_and_the_log_says_all(gated: Gated):
    for how in ("observe", "warn"):
        gated.enforce(how)
        gated.point(TRAINED)
        assert gated.follow() == "1"
    gated.enforce()
    gated.point(FORGOT)
    words = gated.refused(TRAINED, "prod")
    assert words.startswith("refused by mlflow-unlearn: m/1 for 'prod': the gate says no.\naffected by er-")
    assert "Next: make it forget (`dvc repro`)" in words
    moved = [each for each in gated.told("action", "version", "alias", "replaced", "answer", "outcome", "moves") if each[0] == "set alias"]
    assert moved == [
        ("set alias", "1", "champion", "", "no", "observed", True),
        ("set alias", "1", "champion", "1", "no", "warned", True),
        ("set alias", "2", "champion", "1", "yes", "granted", True),
        ("set alias", "1", "prod", "", "no", "refused", False),
    ]
    assert gated.follow() == "2"
    assert gated.client.get_registered_model("m").aliases == {"champion": 2}


def test_a_guarded_alias_is_guarded_however_it_and_the_version_are_spelled(enforced: Gated):
    for alias in ("champion", "Champion", "PROD", "production", "\uff43hampion", "champ\u0131on"):
        assert f"m/1 for '{alias}'" in enforced.refused(TRAINED, alias)
    for version in ("01", " 1", "+1", "\uff11", 1):
        with pytest.raises(MlflowException, match="m/1 for 'champion'"):
            enforced.client.set_registered_model_alias("m", "champion", version)


def test_a_guarded_alias_with_a_newline_at_its_end_is_guarded_too(enforced: Gated):
    with pytest.raises(MlflowException):
        enforced.point(TRAINED, "champion\n")


def test_an_alias_that_is_not_guarded_points_anywhere_and_is_written_down(enforced: Gated):
    enforced.point(TRAINED, "staging")
    enforced.point(FORGOT, "staging")
    enforced.client.delete_registered_model_alias("m", "staging")
    told = enforced.told("action", "version", "replaced", "answer", "outcome", "moves")
    assert told == [
        ("set alias", "1", "", "none", "granted", True),
        ("set alias", "2", "1", "none", "granted", True),
        ("delete alias", "", "2", "none", "granted", True),
    ]


def test_a_version_about_which_nothing_is_signed_is_read_and_holds_no_guarded_alias(enforced: Gated):
    bare = enforced.world.version(6.0, enforced.world.state("v2"))
    assert "the gate could not decide" in enforced.refused(bare)
    enforced.look()
    assert enforced.read(bare.version)


def test_a_request_that_comes_in_later_stops_new_aliases_now_and_what_is_deployed_when_it_is_due(enforced: Gated, monkeypatch):
    enforced.point(FORGOT)
    enforced.world.ask("cy")
    assert enforced.follow() == "2"
    enforced.look()
    assert (enforced.follow(), bool(enforced.read("2"))) == ("2", True)
    assert "is due in" in enforced.refused(FORGOT, "prod")
    later(monkeypatch, days=40)
    assert "due" in enforced.refused()
    with pytest.raises(MlflowException, match="models:/m/2 is blocked"):
        enforced.read("2")


def test_a_request_that_was_closed_is_not_waited_for_because_another_is_open(enforced: Gated):
    third = enforced.clear()
    enforced.point(third)
    closed, _ = enforced.world.ask("cy"), enforced.world.ask("dee")
    enforced.world.bench.ledger.close(closed, (), datetime.now(UTC))
    enforced.look()
    assert "affected by" in enforced.refused()


def test_a_policy_that_stops_at_once_stops_what_is_deployed_at_once(enforced: Gated):
    enforced.enforce(on_request="at_once")
    enforced.point(FORGOT)
    assert enforced.follow() == "2"
    enforced.world.ask("cy")
    assert "affected by er-" in enforced.refused()
    enforced.look()
    with pytest.raises(MlflowException, match="models:/m/2 is blocked"):
        enforced.read("2")


def test_who_held_an_alias_lately_holds_it_again_until_the_request_is_due_and_the_log_calls_it_a_rollback(enforced: Gated, monkeypatch):
    third = enforced.clear()
    for each in (FORGOT, third):
        enforced.point(each)
    enforced.world.ask("cy")
    assert "affected" in enforced.refused(FORGOT, "prod")
    assert "affected" in enforced.refused(TRAINED)
    enforced.point(FORGOT)
    assert enforced.told("version", "replaced", "outcome", "moves")[-1] == ("2", "3", "rollback", True)
    enforced.policy(rollback_days=0)
    assert "affected" in enforced.refused(third)
    enforced.policy(rollback_days=60)
    later(monkeypatch, days=40)
    assert "overdue" in enforced.refused(third)


def test_an_unlearned_version_that_was_certified_before_the_gate_came_stays_readable(enforced: Gated, monkeypatch):
    enforced.point(FORGOT)
    later(monkeypatch, days=40)
    enforced.look()
    assert enforced.follow() == "2"
    assert enforced.read("2")


def approve(holder: str, monkeypatch) -> None:
    monkeypatch.setenv("MLFLOW_UNLEARN_SIGNER", holder)
    review("models:/m/2", "champion", ReviewKind.APPROVAL, "reviewed")


def test_as_many_people_as_the_policy_says_have_to_approve(enforced: Gated, monkeypatch):
    enforced.policy(approvals=2)
    approve("rae", monkeypatch)
    approve("sol", monkeypatch)
    enforced.point(FORGOT)
    assert "0 of 2 people have approved it for prod" in enforced.refused(FORGOT, "prod")


def test_an_approval_that_comes_after_a_refusal_counts_at_once(enforced: Gated, monkeypatch):
    enforced.policy(approvals=1)
    assert "0 of 1 people have approved it" in enforced.refused(FORGOT)
    approve("rae", monkeypatch)
    enforced.point(FORGOT)


def test_files_that_were_changed_lose_the_alias_and_are_read_by_nobody_until_they_are_restored(enforced: Gated):
    enforced.point(FORGOT)
    path = next(each for each in (enforced.world.root / "models").glob("*/model.safetensors") if each.parent.as_uri() == enforced.read("2"))
    before = path.read_bytes()
    path.write_bytes(before[:-1] + b"\1")
    assert "Next: restore the files that were signed" in enforced.refused()
    assert "m/2 for 'champion'" in enforced.refused(FORGOT)
    with pytest.raises(MlflowException, match="models:/m/2 is blocked"):
        enforced.read("2")
    path.write_bytes(before)
    enforced.point(FORGOT)
    enforced.look()
    assert (enforced.follow(), bool(enforced.read("2"))) == ("2", True)


def test_an_ancestor_that_is_another_one_is_seen_before_an_alias_is_set_and_at_the_next_look_by_who_follows(enforced: Gated):
    enforced.point(FORGOT)
    enforced.sql("update model_versions set creation_time = creation_time + 1 where version = 1")
    assert enforced.refused(FORGOT, "prod")
    enforced.look()
    assert enforced.refused()


def test_an_ancestor_of_which_the_registry_has_more_than_was_signed_stops_new_aliases_and_is_told_by_an_alarm(enforced: Gated):
    enforced.point(FORGOT)
    enforced.sql(
        "insert into model_version_tags (workspace, name, version, key, value) values ('default', 'm', 1, 'unlearn.base_model', 'models:/m/9')"
    )
    assert enforced.refused(FORGOT, "prod")
    enforced.look()
    assert enforced.follow() == "2"
    assert enforced.told("outcome")[-1] == ("alarm",)


def test_under_a_policy_that_no_owner_signed_every_alias_is_guarded_and_every_no_holds(enforced: Gated):
    enforced.policy(signed=False, protected_aliases=["none"], enforcement={"default": "observe"})
    assert "policy.yaml: not the file that the owner signed" in enforced.refused(TRAINED, "staging")
    assert "policy.yaml" in enforced.refused(FORGOT)
    enforced.policy()
    enforced.point(TRAINED)
    assert enforced.follow() == "1"


def test_without_the_ledger_no_alias_is_set_and_those_that_are_set_are_followed_for_a_while_with_an_alarm(enforced: Gated, caplog, monkeypatch):
    enforced.point(FORGOT)
    unplug(enforced)
    with caplog.at_level(logging.ERROR, "mlflow_unlearn.gate"):
        assert enforced.follow() == "2"
    assert "ALARM: m/2@champion is followed by an old decision" in caplog.text
    assert enforced.told("action", "outcome", "codes")[-1] == ("resolve alias", "alarm", ("unavailable",))
    assert "the gate could not decide" in enforced.refused(FORGOT)
    assert "the gate could not decide" in enforced.refused(FORGOT, "prod")
    later(monkeypatch, hours=23)
    assert enforced.follow() == "2"
    later(monkeypatch, hours=25)
    assert "Next: see to the ledger" in enforced.refused()


def test_after_a_restart_without_the_ledger_the_last_decision_still_stands_in(enforced: Gated):
    enforced.point(FORGOT)
    unplug(enforced)
    store = enforced.restarted()
    assert store.get_model_version_by_alias("m", "champion").version == 2
    with pytest.raises(MlflowException, match="the gate could not decide"):
        store.set_registered_model_alias("m", "prod", "2")
