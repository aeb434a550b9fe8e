"""`gate-log` on a real database: what it shows, and that a changed, missing, inserted or cut entry is found."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
import sqlalchemy as sql
from click.testing import CliRunner

from mlflow_unlearn.adapters.gate_log import Entry, GateLog
from mlflow_unlearn.adapters.gate_reading import place
from mlflow_unlearn.adapters.gate_tables import prepare, take_turn
from mlflow_unlearn.adapters.ledger_witness import Head, Witness
from mlflow_unlearn.cli import main
from mlflow_unlearn.digests import create_tag_key, read_gate_key

GRANTED = Entry(
    at=datetime(2026, 11, 27, 8, tzinfo=UTC),
    actor="ana",
    method="POST",
    path="/api/2.0/mlflow/registered-models/alias",
    action="set alias",
    model="m",
    version="2",
    alias="champion",
    replaced="1",
    answer="yes",
    outcome="granted",
    codes=("signed", "clear"),
    moves=True,
)
REFUSED = replace(GRANTED, version="1", replaced="2", answer="no", outcome="refused", reasons=("m/1 is affected by er-1",), moves=False)
ODD = replace(REFUSED, model="k[red]\x1b[2J", actor="", codes=("affected",), reasons=())


class Kept:
    """A database with three entries, in the project whose server wrote them."""

    def __init__(self, root):
        self.uri, self.root = f"sqlite:///{root / 'mlflow.db'}", root
        create_tag_key(root / ".unlearn/gate.key")
        self.log = GateLog(read_gate_key(root / ".unlearn/gate.key"))
        self.engine = sql.create_engine(self.uri, poolclass=sql.pool.NullPool)
        prepare(self.engine)
        self.heads = [self.append(entry) for entry in (GRANTED, REFUSED, ODD)]

    def append(self, entry):
        with self.engine.begin() as connection:
            take_turn(connection)
            return self.log.append(connection, entry)

    def see(self, head):
        Witness(path=self.root / ".unlearn/gate.head", place=place(self.uri)).advance(head)

    def change(self, statement):
        with self.engine.begin() as connection:
            assert connection.exec_driver_sql(statement).rowcount


@pytest.fixture
def kept(tmp_path, monkeypatch):
    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in ("GATE_KEY_FILE", "LEDGER_URI", "PROJECT"):
        monkeypatch.delenv(f"MLFLOW_UNLEARN_{name}", raising=False)
    return Kept(tmp_path)


def run(*arguments, code=0):
    done = CliRunner().invoke(main, ["gate-log", *arguments])
    assert done.exit_code == code, done.output
    return done.output


def answer(*arguments, code=0):
    return json.loads(run(*arguments, "--json", code=code))


def problems(code=1):
    return answer("--verify", code=code)["problems"]


def test_every_entry_is_exported_with_its_place_in_the_chain(kept):
    found = answer()
    assert [(each["number"], each["actor"], each["outcome"], each["mac"]) for each in found["entries"]] == [
        (1, "ana", "granted", kept.heads[0].digest),
        (2, "ana", "refused", kept.heads[1].digest),
        (3, "", "refused", kept.heads[2].digest),
    ]
    assert [each["previous"] for each in found["entries"]][1:] == [each["mac"] for each in found["entries"]][:-1]
    assert (found["head"], found["verified"]) == ({"number": 3, "mac": kept.heads[2].digest}, None)
    assert found["entries"][1]["reasons"] == ["m/1 is affected by er-1"]


def test_later_entries_and_those_of_one_model_can_be_chosen(kept):
    assert [each["number"] for each in answer("--after", "1")["entries"]] == [2, 3]
    assert [each["number"] for each in answer("--model", "m")["entries"]] == [1, 2]
    assert [each["number"] for each in answer("--after", "1", "--model", "m", "--verify")["entries"]] == [2]


def test_people_see_who_asked_for_what_and_why_it_was_refused(kept, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    shown = run()
    assert [
        word for word in ("ana", "set alias", "m/1", "champion", "refused", "m/1 is affected by er-1", "--verify does that") if word not in shown
    ] == []
    assert run("--verify").splitlines()[0] == f"3 entries, each as it was written; head {kept.heads[2].digest}"


def test_a_name_steers_no_terminal_and_is_no_markup(kept, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    assert "k[red]\\x1b[2J/1" in run()


def test_the_database_may_be_named_as_the_server_names_it_from_anywhere(kept, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert len(answer("--database", f"unlearn-{kept.uri}")["entries"]) == 3


CHANGES = {
    "body": ("update unlearn_gate_log set body = replace(body, 'ana', 'eve') where number = 2", "entry 2 is not the one that was written"),
    "a column beside it": ("update unlearn_gate_log set alias = 'other' where number = 1", "entry 1 is filed under something else"),
    "missing": ("delete from unlearn_gate_log where number = 2", "entry 2 is missing"),
    "another order": ("update unlearn_gate_log set previous = mac where number = 3", "entry 3 is missing or not the one"),
    "inserted": (
        "insert into unlearn_gate_log select 4, at, model, alias, version, moves, body, mac, mac from unlearn_gate_log where number = 3",
        "entry 4 is not the one that was written",
    ),
    "no JSON": ("update unlearn_gate_log set body = '{' where number = 3", "entry 3 is not the one that was written"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_log_is_found_and_ends_with_1(kept, change):
    statement, words = CHANGES[change]
    kept.change(statement)
    assert words in problems()[0]
    assert words in run("--verify", code=1)


def test_a_cut_end_is_found_by_the_witness_alone(kept):
    kept.see(kept.heads[2])
    assert problems(code=0) == []
    kept.change("delete from unlearn_gate_log where number = 3")
    assert problems() == ["gate log: entry 3 was seen by this machine and is gone or another one now: the log was cut or exchanged"]


def test_another_log_of_the_same_length_is_found_by_the_witness(kept):
    kept.see(Head(number=2, digest="f" * 64))
    assert "entry 2 was seen by this machine" in problems()[0]


def test_a_log_that_grew_since_it_was_seen_is_whole(kept):
    kept.see(kept.heads[0])
    found = answer("--verify")
    assert (found["verified"], found["notes"]) == (3, [])


def test_without_a_witness_it_is_said_that_a_cut_end_was_not_looked_for(kept):
    assert "whether the end of the log was cut off was not checked" in run("--verify")


def test_reading_writes_nothing(kept):
    def bytes_here():
        return {path: path.read_bytes() for path in sorted(kept.root.rglob("*")) if path.is_file()}

    before = bytes_here()
    run()
    run("--verify")
    assert bytes_here() == before


def test_without_the_key_it_is_exported_and_cannot_be_verified(kept):
    (kept.root / ".unlearn/gate.key").unlink()
    assert len(answer()["entries"]) == 3
    assert "no gate key here, and only who holds it can verify the log" in run("--verify", code=2)
    assert not (kept.root / ".unlearn/gate.key").exists()


def test_under_another_key_the_first_entry_fails_and_the_key_is_doubted(kept):
    (kept.root / ".unlearn/gate.key").unlink()
    create_tag_key(kept.root / ".unlearn/gate.key")
    assert problems()[0].endswith("gate.key is not the key of that server; nothing after it was looked at")


PLACES = {
    "unlearn-postgresql+psycopg2://u:p/w@host:5432/db": "postgresql+psycopg2://host:5432/db",
    "postgresql://u@host/db?sslmode=require": "postgresql://host/db?sslmode=require",
    "postgresql:///db": "postgresql:///db",
    "sqlite:////a@b/mlflow.db": "sqlite:////a@b/mlflow.db",
}


@pytest.mark.parametrize("uri", PLACES)
def test_the_place_of_a_database_has_neither_user_nor_password_and_is_otherwise_as_it_was_given(uri):
    assert place(uri) == PLACES[uri]


UNREAD = {
    "http://127.0.0.1:5000": "expected sqlite or postgresql, found http",
    "nonsense": "not the URI of a database",
    "mysql://u:secret@host/db": "mysql://host/db: expected sqlite or postgresql, found mysql",
    "postgresql://u:secret@127.0.0.1:1/db": "postgresql://127.0.0.1:1/db: OperationalError; check the URI and that the database answers",
    "sqlite:///none.db": "sqlite:///none.db: no such file; run this on the server's machine",
    "sqlite:///text.db": "sqlite:///text.db: DatabaseError",
}


@pytest.mark.parametrize("uri", UNREAD)
def test_what_cannot_be_read_ends_with_2_in_words_without_the_password(kept, uri):
    (kept.root / "text.db").write_text("no database, and longer than the first page's header of a hundred bytes" * 9)
    said = run("--database", uri, code=2)
    assert UNREAD[uri] in said
    assert "secret" not in said
    assert not (kept.root / "none.db").exists()


def test_a_database_without_a_gate_and_a_server_in_place_of_one_are_told_apart(kept, monkeypatch):
    sql.create_engine(f"sqlite:///{kept.root / 'plain.db'}", poolclass=sql.pool.NullPool).connect().close()
    assert "no gate wrote here yet" in run("--database", f"sqlite:///{kept.root / 'plain.db'}", code=2)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example")
    assert "MLFLOW_TRACKING_URI is no database: the gate's log lies in the database of its server" in run(code=2)


def test_an_entry_that_cannot_be_read_is_named(kept):
    kept.change("update unlearn_gate_log set body = '{}' where number = 2")
    assert "gate log: entry 2: cannot be read" in run(code=2)
