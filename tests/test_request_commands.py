from datetime import UTC, datetime, timedelta

import pytest
from asked_repository import asked, asked_template  # noqa: F401 - fixtures
from click.testing import CliRunner

from mlflow_unlearn.cli import main
from mlflow_unlearn.commands import requests as commands
from mlflow_unlearn.commands.requests import Requested, Terms
from mlflow_unlearn.digests import keyed_tag, read_tag_key
from mlflow_unlearn.errors import ConfigError, DataError, LedgerError, LineageError
from mlflow_unlearn.records import Basis, Effect, ErasureRequest, Recipient
from mlflow_unlearn.stages.workbench import Workbench

NOW = datetime(2026, 11, 24, 18, tzinfo=UTC)
DAY = timedelta(days=1)
pytestmark = pytest.mark.usefixtures("asked")


def add(basis="gdpr_17", received="2026-11-24T18:00:00Z", due=None, **named):
    return commands.add_request(Requested(**named), Terms(basis=basis, received=received, due=due))


def tags(root, domain, *ids):
    key = read_tag_key(root / ".unlearn/tag.key")
    before = () if domain == "subject" else ("train",)
    return tuple(sorted(keyed_tag(key, domain, *before, each) for each in ids))


def held(document):
    return Workbench().ledger.get(document["request_id"])


def test_people_and_records_become_keyed_tags(asked):  # noqa: F811
    made = add(subjects=("ana", "", "bo"), records=("r-cy-1",))
    assert (made["subjects"], made["records"], made["due_at"]) == (2, 1, "2026-12-24T18:00:00Z")
    assert (held(made).subjects, held(made).records) == (tags(asked, "subject", "ana", "bo"), tags(asked, "record", "r-cy-1"))


def test_a_file_stands_for_its_records_in_every_revision(asked):  # noqa: F811
    made = add(files=("a.csv", ""))
    assert held(made).records == tags(asked, "record", "r-ana-1", "r-ana-2", "r-bo-1", "r-bo-2")


def test_what_one_revision_lacks_of_another_can_be_asked_for(asked):  # noqa: F811
    made = add(removed_between=("v1", "v2"))
    assert (held(made).subjects, held(made).records) == ((), tags(asked, "record", "r-bo-1", "r-bo-2"))


def test_revisions_that_lack_nothing_or_are_unknown_are_refused():
    with pytest.raises(LedgerError, match="--removed-between: every record of v1 is still in v1"):
        add(removed_between=("v1", "v1"))
    with pytest.raises(LineageError, match="v9"):
        add(removed_between=("v1", "v9"))


def test_a_file_in_no_revision_is_refused():
    with pytest.raises(DataError, match="1 of the named files are in no revision of train"):
        add(files=("a.csv", "c.csv"))


def test_unknown_ids_are_named_by_their_lines_and_not_repeated():
    with pytest.raises(LedgerError, match="request add: line 2 of --subjects: in no readable revision of dataset train; check the id") as caught:
        add(subjects=("ana", "zoe"), records=("r-zoe-1",))
    assert "line 1 of --records" in str(caught.value)
    assert "zoe" not in str(caught.value)


def test_of_many_unknown_ids_the_first_are_named():
    with pytest.raises(LedgerError, match="request add: 80 more ids are in no readable revision") as caught:
        add(subjects=tuple(f"zoe {number}" for number in range(100)))
    assert len(str(caught.value).splitlines()) == 21


@pytest.mark.parametrize("named", [{}, {"subjects": ("", "")}, {"files": ("",)}])
def test_a_request_for_nobody_is_refused(named):
    with pytest.raises(LedgerError, match="request add: no id given"):
        add(**named)


def test_only_where_the_law_sets_no_deadline_one_is_agreed():
    with pytest.raises(ConfigError, match="--due: the law sets the deadline of gdpr_17"):
        add(subjects=("ana",), due="2027-01-01T00:00:00Z")
    with pytest.raises(ConfigError, match="--due: expected a moment after the request was received, 2026-11-24T18:00:00Z"):
        add("contract", subjects=("ana",), due="2026-11-24T18:00:00Z")
    assert add("contract", subjects=("ana",), due="2027-01-01T00:00:00Z")["due_at"] == "2027-01-01T00:00:00Z"
    assert add("copyright", subjects=("bo",))["due_at"] is None


@pytest.mark.parametrize("received", ["9999-12-31T23:00:00Z", "0026-11-24T18:00:00Z"])
def test_a_year_that_must_be_a_slip_is_refused_in_words(received):
    with pytest.raises(ConfigError, match="--received: expected a year from 1970 to 2200, found"):
        add(subjects=("ana",), received=received)


@pytest.mark.parametrize("received", ["yesterday", "2026-11-24", "2026-11-24T18:00:00", "0001-01-01T00:00:00+01:00"])
def test_a_moment_needs_its_zone(received):
    with pytest.raises(ConfigError, match="--received: expected a moment with its zone such as 2026-11-24T18:00:00Z"):
        add(subjects=("ana",), received=received)


def test_a_request_lives_through_its_commands():
    name = add(subjects=("ana",), received=None)["request_id"]
    assert commands.pause_request(name, "identity_check")["paused_at"]
    assert commands.resume_request(name)["paused_at"] is None
    assert commands.extend_request(name, "complexity", None)["extension"] == "complexity"
    assert commands.interim_measure(name, "block_version", ended=False)["interim"] == ["block_version"]
    assert commands.note_recipient(name, "crm", None, None)["untold"] == ["crm"]
    assert commands.note_recipient(name, "ads", "2026-11-24T18:00:00Z", None)["unacknowledged"] == ["ads", "crm"]
    assert [words.split()[0] for words in commands.open_ends(name)] == ["crm", "ads", "block_version"]
    assert commands.refuse_request(name, "gdpr_17_3_e")["ground"] == "gdpr_17_3_e"
    assert commands.list_requests("refused")["requests"][0]["request_id"] == name


def request(**values):
    given = {"request_id": "er-1", "basis": Basis.GDPR_17, "effect": Effect.REMOVAL, "received_at": NOW, "due_at": NOW + 30 * DAY}
    return ErasureRequest(**given | values)


@pytest.mark.parametrize(("days", "left", "overdue"), [(0, 30, False), (29.5, 0, False), (30, 0, False), (30.1, -1, True), (35, -5, True)])
def test_days_left_are_whole_days_and_negative_once_overdue(days, left, overdue):
    found = commands.summary(request(), NOW + days * DAY)
    assert (found["days_left"], found["overdue"]) == (left, overdue)


def test_a_paused_request_keeps_its_days_and_one_without_deadline_has_none():
    assert commands.summary(request(paused_at=NOW + 10 * DAY), NOW + 50 * DAY)["days_left"] == 20
    assert commands.summary(request(due_at=None), NOW)["days_left"] is None


def test_a_summary_holds_counts_and_no_tag():
    found = commands.summary(request(subjects=("s" * 32,), records=("r" * 32, "q" * 32), recipients=(Recipient(name="crm"),)), NOW)
    assert (found["subjects"], found["records"], found["untold"]) == (1, 2, ["crm"])
    assert not {"s" * 32, "r" * 32} & set(str(found).replace("'", " ").split())


def test_in_a_pipe_every_request_is_one_whole_line(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    made = [add(subjects=(each,))["request_id"] for each in ("ana", "bo")]
    shown = CliRunner().invoke(main, ["request", "list"]).stdout.splitlines()
    assert [sum(request in line and "2026-12-24T18:00:00Z" in line for line in shown) for request in made] == [1, 1]


def test_where_no_version_is_blocked_the_status_says_so(mlflow_store, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_store)
    add(subjects=("ana",))
    shown = CliRunner().invoke(main, ["status"]).stdout
    assert "No version is blocked." in shown
    assert "must not be deployed" not in shown
