import secrets
import time
from datetime import UTC, datetime, timedelta

import pytest

from mlflow_unlearn.adapters.ledger import Ledger
from mlflow_unlearn.errors import LedgerError
from mlflow_unlearn.lineage import DatasetRevision, ModelVersion, Parent
from mlflow_unlearn.records import Basis, Effect, ErasureRequest, Project, State

NOW = datetime(2026, 11, 24, 18, tzinfo=UTC)
PARENT = Parent(
    model=ModelVersion(name="m", version="2"),
    tensor_digest="c" * 64,
    datasets=(DatasetRevision(name="d", path="p", md5="a.dir", revisions=("main",)),),
)
PROJECT = Project(name="customers", repository="https://example.invalid/a.git", folder=".", model="m", dataset="d")


@pytest.fixture
def ledger(ledger_uri):
    return Ledger(ledger_uri)


def request(ledger, *subjects, records=(), received_at=NOW, effect=Effect.REMOVAL):
    name = ledger.new_request_id(received_at, (*subjects, *records, effect))
    made = ErasureRequest(
        request_id=name,
        basis=Basis.GDPR_17,
        effect=effect,
        received_at=received_at,
        due_at=NOW + timedelta(days=30),
        subjects=tuple(sorted(subjects)),
        records=tuple(sorted(records)),
    )
    ledger.add(made, NOW)
    return made


def test_what_goes_in_comes_out_also_in_another_process(ledger):
    made = request(ledger, "s2", "s1", records=["r1"])
    assert made.request_id.startswith("er-20261124-")
    assert len(made.request_id) == len("er-20261124-1a2b3c4d")
    assert Ledger(ledger.uri).get(made.request_id) == made
    assert Ledger(ledger.uri).open() == (made,)


def test_an_empty_ledger_is_empty(ledger):
    assert (ledger.requests(), ledger.erased(), ledger.projects()) == ((), (frozenset(), frozenset()), ())
    assert (ledger.tombstones(), ledger.verify(), ledger.head().number, ledger.written_with()) == ({}, (), 0, None)


def test_requests_come_oldest_first(ledger):
    late, early = request(ledger, "s1"), request(ledger, "s2", received_at=NOW - timedelta(days=1))
    assert ledger.requests() == (early, late)


def test_a_request_twice_is_refused_and_the_first_is_named(ledger):
    first = request(ledger, "s1", "s2")
    with pytest.raises(LedgerError, match=f"open request {first.request_id} already asks"):
        request(ledger, "s2", "s3")
    assert ledger.requests() == (first,)


def test_removal_may_follow_suppression_of_the_same_person(ledger):
    both = request(ledger, "s1", effect=Effect.SUPPRESSION), request(ledger, "s1", effect=Effect.REMOVAL)
    assert set(ledger.open()) == set(both)


def test_the_same_request_may_come_again_on_the_day_it_was_refused(ledger):
    first = request(ledger, "s1")
    ledger.refuse(first.request_id, "cannot_identify", NOW)
    again = request(ledger, "s1")
    assert again.request_id != first.request_id
    assert ledger.open() == (again,)


def test_closing_makes_tags_and_canaries_erased_for_good(ledger):
    made, other = request(ledger, "s1", records=["r1"]), request(ledger, "s9")
    assert ledger.erased() == (frozenset(), frozenset())
    ledger.close(made.request_id, {"c1", "r1"}, NOW)
    assert ledger.erased() == (frozenset({"s1"}), frozenset({"r1", "c1"}))
    assert (ledger.get(made.request_id).state, ledger.get(made.request_id).records) == (State.CLOSED, ("r1",))
    assert ledger.requests(State.OPEN) == (other,)


@pytest.mark.parametrize("change", ["close", "refuse", "extend", "pause", "resume", "interim"])
def test_only_an_open_request_changes(ledger, change):
    made = request(ledger, "s1")
    ledger.refuse(made.request_id, "withdrawn", NOW)
    arguments = {"close": ((), NOW), "refuse": ("duplicate", NOW), "extend": ("complexity", NOW), "pause": ("identity_check", NOW), "resume": (NOW,)}
    for name, words in ((made.request_id, "it is refused, and only an open request can be"), ("er-none", "no such request")):
        with pytest.raises(LedgerError, match=f"{name}: {words}"):
            getattr(ledger, change)(name, *arguments.get(change, ("block_version", NOW)))


def test_a_million_people_are_one_request_in_seconds_and_little_memory(tmp_path):
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    tags = [secrets.token_hex(16) for _ in range(10**6)]
    began = time.process_time()
    made = request(ledger, *tags)
    assert ledger.get(made.request_id).subjects == made.subjects
    assert time.process_time() - began < 20
    assert (tmp_path / "ledger.db").stat().st_size < 40 * 10**6
    with pytest.raises(LedgerError, match="already asks for some of this"):
        request(ledger, tags[500_000])


def test_the_first_pin_stays_until_it_is_released(ledger):
    assert ledger.pinned_parent("m", "models:/m@champion") is None
    ledger.pin_parent("m", "models:/m@champion", PARENT)
    ledger.pin_parent("m", "models:/m@champion", Parent(model=ModelVersion(name="m", version="3"), tensor_digest="d" * 64, datasets=()))
    assert ledger.pinned_parent("m", "models:/m@champion") == PARENT
    assert ledger.pinned_parent("m", "models:/m/1") is None
    ledger.release_parent("m")
    assert ledger.pinned_parent("m", "models:/m@champion") is None


def test_attempts_count_distinct_weights_for_a_pool_whatever_the_parent(ledger):
    numbers = [ledger.attempt("m/2", "pool", weights, NOW) for weights in ("w1", "w1", "w2", "w1", "w3")]
    assert numbers == [1, 1, 2, 1, 3]
    assert ledger.attempt("m/2", "other pool", "w3", NOW) == 1
    assert ledger.attempt("m/3", "pool", "w4", NOW) == 4


def test_a_pool_is_spent_once(ledger):
    assert ledger.pool_spent_by("pool") is None
    ledger.spend_pool("pool", "er-1,er-2", NOW)
    ledger.spend_pool("pool", "er-3", NOW)
    assert ledger.pool_spent_by("pool") == "er-1,er-2"


def test_a_project_is_enrolled_once_and_its_latest_settings_count(ledger):
    ledger.enrol(PROJECT, NOW)
    ledger.enrol(PROJECT, NOW)
    ledger.enrol(Project(**{**vars(PROJECT), "repository": "git@example.invalid:a.git"}), NOW)
    assert (ledger.projects(), ledger.head().number) == ((PROJECT,), 1)
    moved = Project(**{**vars(PROJECT), "folder": "unlearn"})
    ledger.enrol(moved, NOW)
    assert Ledger(ledger.uri).projects() == (moved,)


def test_the_latest_plan_of_a_project_counts(ledger):
    made = request(ledger, "s1")
    ledger.record_plan(made.request_id, "b", (), NOW)
    for jobs in ([{"model": "m"}], [{"model": "m"}], [{"model": "m", "versions": ["1", "2"]}]):
        ledger.record_plan(made.request_id, "a", jobs, NOW)
    assert ledger.plans(made.request_id) == {"a": (NOW, ({"model": "m", "versions": ["1", "2"]},)), "b": (NOW, ())}
    assert ledger.head().number == 4
    with pytest.raises(LedgerError, match="er-none: no such request"):
        ledger.record_plan("er-none", "a", (), NOW)


def test_only_the_owner_can_read_the_file(tmp_path):
    Ledger(f"sqlite:///{tmp_path / 'state/ledger.db'}").requests()
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "state/ledger.db").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "uri", ["sqlite:////proc/none/ledger.db", "nosuch://u:secret@host/db", "not a uri", "postgresql+psycopg://u:secret@127.0.0.1:1/db"]
)
def test_a_ledger_that_does_not_answer_is_one_line_without_its_password(uri):
    with pytest.raises(LedgerError, match=r"^ledger [^\n]*; check MLFLOW_UNLEARN_LEDGER_URI and that the database answers$") as caught:
        Ledger(uri).open()
    assert "secret" not in str(caught.value)


def test_the_policy_of_the_first_attempt_is_the_one_that_counts(ledger):
    assert ledger.first_policy("pool/2x1x1/0.0.0") == ""
    ledger.attempt("m/2", "pool/2x1x1/0.0.0", "w1", NOW, "first")
    ledger.attempt("m/2", "pool/2x1x1/0.0.0", "w2", NOW, "second")
    assert ledger.first_policy("pool/2x1x1/0.0.0") == ledger.first_policy("pool") == "first"
    assert ledger.first_policy("other pool") == ""
