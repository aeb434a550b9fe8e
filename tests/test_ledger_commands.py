from datetime import UTC, datetime, timedelta

import pytest
from asked_repository import asked, asked_template  # noqa: F401 - fixtures

from mlflow_unlearn.adapters.ledger import Ledger
from mlflow_unlearn.commands import ledger as commands
from mlflow_unlearn.digests import key_id, keyed_tag, read_retired_keys, read_tag_key, retired_key_file
from mlflow_unlearn.errors import LedgerError
from mlflow_unlearn.records import Basis, Effect, ErasureRequest, Project, Recipient, Tombstones

NOW = datetime(2026, 11, 24, 18, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def project(asked):  # noqa: F811
    return asked


def key(project):
    return read_tag_key(project / ".unlearn/tag.key")


def opened(project):
    return Ledger(f"sqlite:///{project / '.unlearn/ledger.db'}", key_id(key(project)), project / ".unlearn/ledger.head")


def add(ledger, name, subjects=("s1",), records=(), due_at=None):
    made = ErasureRequest(
        request_id=name,
        basis=Basis.GDPR_17,
        effect=Effect.REMOVAL,
        received_at=NOW,
        due_at=due_at or NOW + 30 * DAY,
        subjects=tuple(subjects),
        records=tuple(records),
    )
    ledger.add(made, NOW)


def subject(project, *names):
    return sorted(keyed_tag(key(project), "subject", name) for name in names)


def close(project, name, *names):
    """A closed request with a grave for each of its people."""
    tags = subject(project, *names)
    add(opened(project), name, tags)
    opened(project).bury(name, [Tombstones(subjects=frozenset({tag}), contents=frozenset({tag[::-1]})) for tag in tags], NOW)
    opened(project).close(name, (), NOW)


def test_what_is_due_comes_most_urgent_first(tmp_path):
    ledger = Ledger(f"sqlite:///{tmp_path / 'l.db'}", "a" * 16)
    for name, days in (("er-late", 30), ("er-over", 1), ("er-soon", 5)):
        add(ledger, name, (f"tag of {name}",), due_at=NOW + days * DAY)
    ledger.pause("er-late", "identity_check", NOW + DAY)
    found = commands.due_document(ledger, NOW + 2 * DAY)
    assert [(request["request_id"], request["days_left"]) for request in found["open"]] == [("er-over", -1), ("er-soon", 3), ("er-late", 29)]
    assert (found["overdue"], found["paused"], found["ledger"]) == (1, 1, {"events": 5, "problems": []})


def test_status_says_what_is_left_beside_the_models(tmp_path):
    ledger = Ledger(f"sqlite:///{tmp_path / 'l.db'}", "a" * 16)
    add(ledger, "er-1")
    ledger.interim("er-1", "block_version", NOW)
    ledger.recipient("er-1", Recipient(name="crm"), NOW)
    ledger.recipient("er-1", Recipient(name="ads", told_at=NOW, acknowledged_at=NOW), NOW)
    ledger.bury("er-1", Tombstones(subjects=frozenset({"s1"}), sketches=("ab",)), NOW)
    found = commands.due_document(ledger, NOW)
    assert found["interim"] == {"er-1": ["block_version"]}
    assert found["recipients"] == {"er-1": {"untold": ["crm"], "unacknowledged": ["crm"]}}
    assert found["tombstones"] == {"a" * 16: {"subjects": 1, "records": 0, "contents": 0, "sketches": 1}}


def test_an_empty_ledger_is_nothing_due(tmp_path):
    found = commands.due_document(Ledger(f"sqlite:///{tmp_path / 'l.db'}"), NOW)
    assert (found["open"], found["overdue"], found["not_traced"], found["ledger"]["problems"]) == ([], 0, {}, [])


def test_projects_that_have_not_planned_a_request_are_named(tmp_path):
    ledger = Ledger(f"sqlite:///{tmp_path / 'l.db'}")
    for name in ("a", "b"):
        ledger.enrol(Project(name=name, repository="", folder=".", model="m", dataset="d"), NOW)
    add(ledger, "er-1")
    add(ledger, "er-2", ("s2",))
    ledger.record_plan("er-1", "a", [], NOW)
    assert commands.due_document(ledger, NOW)["not_traced"] == {"er-1": ["b"], "er-2": ["a", "b"]}


def test_a_new_key_finds_every_open_request_again_and_keeps_the_old_key(project):
    before, record = key(project), "r-cy-1"
    add(opened(project), "er-1", subject(project, "ana", "bo"), [keyed_tag(before, "record", "train", record)])
    close(project, "er-2", "dee")
    answer = commands.rotate_key()
    after = key(project)
    assert (answer["key_id"], answer["retired"], answer["requests"]) == (key_id(after), key_id(before), 2)
    assert read_retired_keys(project / ".unlearn/tag.key") == {key_id(before): before}
    found = opened(project).get("er-1")
    assert (list(found.subjects), list(found.records)) == (subject(project, "ana", "bo"), [keyed_tag(after, "record", "train", record)])
    assert opened(project).tombstones().keys() == {key_id(before)}
    assert opened(project).verify() == ()


def test_a_new_key_is_refused_when_an_open_request_is_in_no_data(project):
    before = key(project)
    add(opened(project), "er-1", subject(project, "ana", "zoe"))
    with pytest.raises(LedgerError, match=r"tag-key rotate: no readable data of this project hold some tags .*\(1 of er-1\)"):
        commands.rotate_key()
    assert (key(project), opened(project).written_with()) == (before, key_id(before))


def test_a_rotation_that_stopped_before_the_key_file_is_finished_by_the_next(project):
    before = key(project)
    add(opened(project), "er-1", subject(project, "ana"))
    in_the_way = retired_key_file(project / ".unlearn/tag.key", key_id(before))
    in_the_way.mkdir()
    with pytest.raises(OSError, match="directory"):
        commands.rotate_key()
    with pytest.raises(LedgerError, match="wrong or lost tag key"):
        opened(project).open()
    in_the_way.rmdir()
    assert commands.rotate_key()["requests"] == 0
    assert list(opened(project).get("er-1").subjects) == subject(project, "ana")
    assert not (project / ".unlearn/tag.key.next").exists()


@pytest.mark.parametrize("left", ["tag.key.next", "retired"])
def test_half_a_key_that_a_kill_left_is_written_anew(project, left):
    before = key(project)
    path = retired_key_file(project / ".unlearn/tag.key", key_id(before)) if left == "retired" else project / ".unlearn" / left
    path.write_bytes(b"half")
    commands.rotate_key()
    assert read_retired_keys(project / ".unlearn/tag.key") == {key_id(before): before}
    assert key(project) != before


def test_a_person_is_lifted_by_id_also_under_a_retired_key(project):
    close(project, "er-1", "ana", "bo")
    commands.rotate_key()
    answer = commands.lift_tombstones(None, ("", "ana"), "consent")
    assert answer["lifted"] == 2  # under the old key and, since old revisions still hold them, under the new one
    assert list(answer["tombstones"].values()) == [{"subjects": 1, "records": 0, "contents": 1, "sketches": 0}]
    assert not opened(project).erased()[0] & set(subject(project, "ana"))
    assert opened(project).erased()[0] >= set(subject(project, "bo"))


def test_a_request_is_lifted_as_a_whole_and_once(project):
    close(project, "er-1", "ana", "bo")
    assert commands.lift_tombstones("er-1", (), "mistake")["tombstones"] == {}
    with pytest.raises(LedgerError, match="tombstone lift: nothing of er-1 is in force any more"):
        commands.lift_tombstones("er-1", (), "mistake")


def test_who_was_not_erased_cannot_be_lifted_and_is_named_by_line(project):
    close(project, "er-1", "ana")
    with pytest.raises(LedgerError, match="tombstone lift: line 3 of --subjects: nothing of 1 people was erased; check the ids") as caught:
        commands.lift_tombstones(None, ("ana", "", "zoe"), "consent")
    assert "zoe" not in str(caught.value)


@pytest.mark.parametrize(("request_id", "subjects"), [(None, ()), (None, ("", "")), ("er-1", ("ana",))])
def test_a_lift_names_either_a_request_or_people(project, request_id, subjects):
    with pytest.raises(LedgerError, match="tombstone lift: expected either --request ID or --subjects"):
        commands.lift_tombstones(request_id, subjects, "consent")


def test_verify_says_what_it_read(project):
    add(opened(project), "er-1")
    assert commands.verify_ledger() == {"events": 2, "head": opened(project).head().digest, "problems": []}
