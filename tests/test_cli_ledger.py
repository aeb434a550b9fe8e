import json
import sqlite3

import pytest
from asked_repository import asked, asked_template  # noqa: F401 - fixtures
from click.testing import CliRunner

from mlflow_unlearn.cli import main
from mlflow_unlearn.digests import key_id, keyed_tag, read_tag_key
from mlflow_unlearn.reasons import every_ground


@pytest.fixture
def project(asked):  # noqa: F811
    return asked


def run(*arguments, code=0, stdin=None):
    done = CliRunner().invoke(main, arguments, input=stdin)
    assert done.exit_code == code, done.output
    return done.output


def answer(*arguments, code=0, stdin=None):
    return json.loads(run(*arguments, "--json", code=code, stdin=stdin))


def asked_for(*names, basis="gdpr_17"):
    return answer("request", "add", "--subjects", "-", "--basis", basis, stdin="\n".join(names))["request_id"]


def test_a_request_is_read_by_people_through_its_life(project):
    name = asked_for("ana")
    assert "clock stopped since" in run("request", "pause", name, "--reason", "identity_check")
    assert "clock stopped" not in run("request", "resume", name)
    assert "extended: complexity" in run("request", "extend", name, "--reason", "complexity")
    assert "in force: suppress_outputs" in run("request", "interim", name, "--measure", "suppress_outputs")
    assert "not yet told: crm" in run("request", "recipient", name, "--name", "crm")
    assert "told, not acknowledged: crm" in run("request", "recipient", name, "--name", "crm", "--told", "2026-11-24T18:00:00Z")
    assert "refused on: withdrawn" in run("request", "refuse", name, "--reason", "withdrawn")
    assert [each["request_id"] for each in answer("request", "list")["requests"]] == [name]


def test_ids_come_from_files_and_never_reach_the_output(project, tmp_path):
    (tmp_path / "files").write_text("a.csv\n")
    said = run(
        "request", "add", "--files", str(tmp_path / "files"), "--removed-between", "v1", "v2", "--basis", "contract", "--due", "2030-01-01T00:00Z"
    )
    assert "0 people and 4 single records" in said
    assert "due 2030-01-01T00:00:00Z" in said
    assert not {"ana", "r-ana-1"} & set(said.split())


def test_every_ground_is_offered():
    offered = "".join(run("request", "refuse", "--help").split())
    assert all(ground in offered for ground in every_ground())


def test_verify_ends_with_1_when_something_was_changed(project):
    asked_for("ana", basis="copyright")
    assert "each as it was written" in run("ledger", "verify")
    with sqlite3.connect(project / ".unlearn/ledger.db") as connection:
        connection.execute("DROP TRIGGER unlearn_keep_update_unlearn_events")
        connection.execute("UPDATE unlearn_events SET body = replace(body, 'copyright', 'safety')")
    connection.close()
    assert "is not the one that was written" in answer("ledger", "verify", code=1)["problems"][0]
    assert "is not the one that was written" in run("request", "list", code=2)


def test_the_key_is_rotated_and_open_requests_are_found_under_the_new_one(project):
    name, before = asked_for("ana"), key_id(read_tag_key(project / ".unlearn/tag.key"))
    assert f"{before} retired to" in run("tag-key", "rotate")
    key = read_tag_key(project / ".unlearn/tag.key")
    with sqlite3.connect(project / ".unlearn/ledger.db") as connection:
        lines = [row[0] for row in connection.execute("SELECT lines FROM unlearn_blocks ORDER BY number")]
    connection.close()
    assert lines[-1] == keyed_tag(key, "subject", "ana")
    assert [each["request_id"] for each in answer("request", "list")["requests"]] == [name]


def test_tombstones_are_listed_and_a_lift_of_nobody_ends_with_2(project):
    assert "Tombstones" in run("tombstone", "list")
    said = run("tombstone", "lift", "--subjects", "-", "--basis", "consent", stdin="\nana\n", code=2)
    assert said == "error: tombstone lift: line 2 of --subjects: nothing of 1 people was erased; check the ids\n"
    assert "er-none: no such request" in run("tombstone", "lift", "--request", "er-none", "--basis", "mistake", code=2)
