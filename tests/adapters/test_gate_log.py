"""The gate's log: whatever is changed, added, taken away or exchanged in it is found, and a cut end by who saw it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sql
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.engine import Engine
from sqlalchemy.pool import StaticPool

from mlflow_unlearn.adapters import gate_log
from mlflow_unlearn.adapters.gate_log import NO_ENTRY, Entry, GateLog
from mlflow_unlearn.adapters.gate_tables import LOG, mac, prepare, writing
from mlflow_unlearn.adapters.ledger_witness import Head, Witness
from mlflow_unlearn.errors import TamperedError
from mlflow_unlearn.lineage import ModelVersion

NOW = datetime(2026, 11, 27, 8, tzinfo=UTC)
DAY = timedelta(days=1)
SET = Entry(
    at=NOW,
    actor="ana",
    method="POST",
    path="/api/2.0/mlflow/registered-models/alias",
    action="set alias",
    model="m",
    version="1",
    alias="champion",
    replaced="",
    answer="yes",
    outcome="granted",
    codes=("signed", "clear"),
    reasons=(),
    evidence=("a" * 64,),
    moves=True,
)
READ = replace(SET, action="read", alias="", answer="no", outcome="refused", reasons=("m/1 is affected by er-1",), moves=False)
FIVE = (SET, READ, replace(SET, version="2", replaced="1"), replace(READ, version="2"), replace(SET, model="n"))
GATE_LOG = GateLog(b"k" * 32)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
ENTRIES = st.builds(
    Entry,
    at=st.datetimes(datetime(1970, 1, 2), datetime(2999, 1, 1)).map(lambda at: at.replace(microsecond=0, tzinfo=UTC)),
    codes=st.tuples(TEXT),
    reasons=st.tuples(TEXT),
    evidence=st.tuples(TEXT),
    moves=st.booleans(),
    **dict.fromkeys(("actor", "method", "path", "action", "model", "version", "alias", "replaced", "answer", "outcome"), TEXT),
)


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = sql.create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    prepare(made)
    yield made
    made.dispose()


@pytest.fixture
def written(engine: Engine) -> Engine:
    """With five entries."""
    for entry in FIVE:
        append(engine, entry)
    return engine


def append(engine: Engine, entry: Entry) -> Head:
    with writing(engine) as connection:
        return GATE_LOG.append(connection, entry)


def read(engine: Engine, after: int = 0, log: GateLog = GATE_LOG) -> list[Entry]:
    with engine.connect() as connection:
        return [each.entry for each in log.entries(connection, after)]


def change(engine: Engine, *statements: Any) -> None:
    with engine.begin() as connection:
        for each in statements:
            connection.execute(each)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(entries=st.lists(ENTRIES, max_size=4))
def test_entries_come_back_as_they_were_written_in_their_order(engine, entries):
    change(engine, LOG.delete())
    heads = [append(engine, each) for each in entries]
    assert read(engine) == entries
    assert [each.number for each in heads] == list(range(1, len(entries) + 1))
    with engine.connect() as connection:
        assert GATE_LOG.head(connection) == (heads[-1] if heads else Head(number=0, digest=NO_ENTRY))


def test_reading_goes_on_after_an_entry_that_was_read_and_over_pages(written, monkeypatch):
    monkeypatch.setattr("mlflow_unlearn.adapters.gate_log._AT_ONCE", 2)
    assert read(written) == list(FIVE)
    assert read(written, after=3) == list(FIVE[3:])
    assert read(written, after=5) == []


def row(number: int) -> Any:
    return LOG.c.number == number


def moved(one: int, other: int) -> list[Any]:
    return [LOG.update().where(row(old)).values(number=new) for old, new in ((one, 99), (other, one), (99, other))]


def forged(key: bytes) -> Any:
    """An entry at the end by who has no key, or another."""
    previous = sql.select(LOG.c.mac).where(row(5)).scalar_subquery()
    made = mac(key, 6, "{}", NO_ENTRY)
    return LOG.insert().values(number=6, at="", model="m", alias="a", version="1", moves=1, body="{}", previous=previous, mac=made)


WRONG: dict[str, list[Any]] = {
    **{
        f"{name} of entry {number}": [LOG.update().where(row(number)).values(**{name: value})]
        for number in (1, 3, 5)
        for name, value in {
            "body": LOG.c.body + " ",
            "mac": "0" * 64,
            "previous": "1" * 64,
            "model": "x",
            "alias": "x",
            "version": "7",
            "moves": 1 - LOG.c.moves,
        }.items()
    },
    **{f"entry {number} is gone": [LOG.delete().where(row(number))] for number in (1, 2, 4)},
    "the first two are gone": [LOG.delete().where(LOG.c.number <= 2)],
    "a neighbour's body": [LOG.update().where(row(3)).values(body=sql.select(LOG.c.body).where(row(4)).scalar_subquery())],
    "two are exchanged": moved(2, 3),
    "the first and the last are exchanged": moved(1, 5),
    "the last one has another number": [LOG.update().where(row(5)).values(number=6)],
    "one is added at the end": [forged(b"o" * 32)],
    "one is there twice": [
        LOG.insert().from_select(list(LOG.c.keys()), sql.select(*(sql.literal(6) if each.name == "number" else each for each in LOG.c)).where(row(5)))
    ],
}


@pytest.mark.parametrize("statements", WRONG.values(), ids=WRONG)
def test_whatever_is_changed_is_found(written, statements):
    change(written, *statements)
    with pytest.raises(TamperedError, match=r"gate log: entry \d"):
        read(written)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(number=st.integers(1, 5), at=st.integers(0, 10_000), letter=st.sampled_from('x0"}{ \u00e9'))
def test_no_single_letter_of_an_entry_can_be_another(written, number, at, letter):
    with written.connect() as connection:
        body = connection.execute(sql.select(LOG.c.body).where(row(number))).scalar_one()
        place = at % len(body)
        other = body[:place] + letter + body[place + 1 :]
        connection.execute(LOG.update().where(row(number)).values(body=other))
        if other != body:
            with pytest.raises(TamperedError):
                list(GATE_LOG.entries(connection))
        connection.rollback()


def test_a_mac_that_is_no_hex_is_found(written):
    change(written, LOG.update().where(row(5)).values(mac="é" * 64))
    with pytest.raises(TamperedError, match="entry 5"):
        read(written)


def test_who_has_another_key_reads_nothing(written):
    with pytest.raises(TamperedError, match="entry 1 is not the one that was written"):
        read(written, log=GateLog(b"o" * 32))


def test_the_time_beside_an_entry_says_what_the_entry_says(written):
    with written.connect() as connection:
        assert set(connection.execute(sql.select(LOG.c.at)).scalars()) == {"2026-11-27T08:00:00Z"}


@pytest.mark.parametrize("left", [0, 1, 4])
def test_a_cut_end_is_found_by_who_saw_it(written, left, tmp_path):
    witness = Witness(path=tmp_path / "gate.head", place="sqlite:///mlflow.db")
    with written.connect() as connection:
        witness.advance(GATE_LOG.head(connection))
        assert GATE_LOG.holds(connection, witness.head())
    change(written, LOG.delete().where(LOG.c.number > left))
    assert len(read(written)) == left
    with written.connect() as connection:
        assert not GATE_LOG.holds(connection, witness.head())


def test_an_end_that_was_cut_and_written_anew_is_another(written):
    with written.connect() as connection:
        seen = GATE_LOG.head(connection)
    change(written, LOG.delete().where(row(5)))
    append(written, replace(FIVE[4], actor="bo"))
    with written.connect() as connection:
        assert not GATE_LOG.holds(connection, seen)


def last(engine: Engine, model: str = "m", alias: str = "champion") -> Entry | None:
    with engine.connect() as connection:
        return GATE_LOG.last_move(connection, model, alias)


def test_the_last_move_is_the_last_that_was_allowed(written):
    assert last(written) == FIVE[2]
    append(written, replace(SET, version="3", outcome="refused", moves=False))
    assert last(written) == FIVE[2]
    append(written, replace(SET, action="delete alias", version="", replaced="2"))
    assert last(written).version == ""
    assert (last(written, "n"), last(written, "m", "other"), last(written, "other")) == (FIVE[4], None, None)


def test_what_let_a_version_into_a_stage_is_found_beside_other_versions_in_it(engine):
    stages = ("None", "Staging", "Production")
    first = replace(SET, alias="Production")
    for each in (first, replace(first, version="2"), replace(first, version="3", outcome="refused", moves=False), replace(first, model="n")):
        append(engine, each)
    with engine.connect() as connection:
        assert GATE_LOG.let(connection, "m", stages, "1") == first
        assert [GATE_LOG.let(connection, "m", stages, each) for each in ("3", "9")] == [None, None]
    append(engine, replace(first, alias="Staging"))
    with engine.connect() as connection:
        assert GATE_LOG.let(connection, "m", stages, "1").alias == "Staging"
    change(engine, LOG.update().where(row(5)).values(body="{}"))
    with engine.connect() as connection, pytest.raises(TamperedError, match="entry 5"):
        GATE_LOG.let(connection, "m", stages, "1")


@pytest.mark.parametrize("name", ["Champion", "champion ", "CHAMPION"])
def test_an_alias_of_another_spelling_was_moved_by_nobody(written, name):
    assert last(written, alias=name) is None


@pytest.mark.parametrize(
    ("name", "value"), [("body", "{}"), ("mac", "0" * 64), ("moves", 1), ("model", "m"), ("alias", "champion"), ("version", "2")]
)
def test_a_last_move_that_was_not_written_with_the_key_is_none(written, name, value):
    here = {"model": "m", "alias": "champion", "version": "2", "moves": 1}
    change(written, LOG.update().where(row(4)).values(**here), LOG.update().where(row(4)).values(**{name: value}))
    with pytest.raises(TamperedError, match="entry 4"):
        last(written)


def pointed(engine: Engine, version: str, days: int, alias: str = "champion") -> bool:
    with engine.connect() as connection:
        return GATE_LOG.pointed(connection, ModelVersion(name="m", version=version), alias, NOW - days * DAY)


def test_an_alias_pointed_at_a_version_since_a_moment_if_it_came_since_or_was_there_then(engine):
    for days, version in ((40, "1"), (35, "2"), (20, "3"), (3, "4"), (2, "")):
        append(engine, replace(SET, at=NOW - days * DAY, version=version))
    assert [pointed(engine, each, 30) for each in "1234"] == [False, True, True, True]
    assert [pointed(engine, each, 90) for each in "1234"] == [True] * 4
    assert [pointed(engine, each, 1) for each in "1234"] == [False] * 4
    assert not pointed(engine, "4", 30, alias="other")
    append(engine, replace(SET, at=NOW - DAY, version="1"))
    assert (pointed(engine, "1", 0), pointed(engine, "4", 0)) == (True, False)


def test_a_version_that_came_back_was_there_and_one_that_was_refused_never_was(engine):
    for days, version in ((40, "1"), (35, "2"), (1, "1")):
        append(engine, replace(SET, at=NOW - days * DAY, version=version))
    append(engine, replace(SET, version="3", outcome="refused", moves=False))
    assert [pointed(engine, each, 10) for each in "123"] == [True, True, False]


def test_a_thousand_moves_of_others_hide_none_and_are_not_read(engine):
    staged = replace(SET, alias="stage:Production")
    with writing(engine) as connection:
        for entry in (staged, SET, *(replace(each, version="7") for _ in range(500) for each in (staged, SET))):
            GATE_LOG.append(connection, entry)
    with engine.connect() as connection:
        assert GATE_LOG.let(connection, "m", ("stage:Production", "stage:Archived"), "1") == staged
        assert GATE_LOG.pointed(connection, ModelVersion(name="m", version="1"), "champion", NOW)


@pytest.mark.parametrize("name", ["_LAST_MOVE", "_LAST_MOVE_OF", "_NEXT_MOVE"])
def test_a_move_is_found_by_an_index_that_has_its_order_too(engine, name):
    asked = getattr(gate_log, name).compile(engine)
    about = tuple({"of": "m", "name": "champion", "to": "1", "after": 0}.get(each, 1) for each in asked.positiontup)
    with engine.connect() as connection:
        plan = [row[3] for row in connection.exec_driver_sql(f"explain query plan {asked}", about)]
    assert len(plan) == 1
    assert plan[0].startswith("SEARCH unlearn_gate_log USING INDEX unlearn_gate_log_")
    assert "moves=?" in plan[0]


def test_an_entry_belongs_to_the_transaction_that_moves_the_alias(written):
    def fail() -> None:
        with writing(written) as connection:
            GATE_LOG.append(connection, SET)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert len(read(written)) == 5
