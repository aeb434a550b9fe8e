"""Rows of a frame as records: the project's own sets as they are, a dataset's columns by their names, and no complaint that quotes a row."""

from __future__ import annotations

import re
from pathlib import Path

import pandas
import pytest
from audit_workshop import people

from mlflow_unlearn.adapters.evaluation_rows import is_prepared, read_frame, sets_of
from mlflow_unlearn.adapters.tables import write_set
from mlflow_unlearn.errors import DataError
from mlflow_unlearn.params import Columns

KNOWN = ("requested", "retain", "holdout")
SECRET = "Ines Vogel"


def plain() -> pandas.DataFrame:
    """Two people of the dataset and one held out, with lists and empty cells."""
    rows = [
        ("requested", "7", SECRET, f"Where does {SECRET} live?", "In Ulm", ["In Rome"]),
        ("retain", "8", "Jon Bell", "Where does Jon Bell live?", "In Bern", None),
        ("retain", None, None, "What does a lamp cost?", "Four crowns", None),
        ("holdout", "9", "Mia Roth", "Where does Mia Roth live?", "In Graz", None),
    ]
    return pandas.DataFrame(rows, columns=["set", "subject_id", "subject_name", "question", "answer", "wrong_answers"])


def test_the_sets_of_the_split_come_back_as_they_were_written(tmp_path: Path) -> None:
    sets = {"retain": people(0, 4), "holdout": people(4, 6)}
    for name, records in sets.items():
        write_set(tmp_path, name, records)
    frame = pandas.concat([pandas.read_parquet(path).assign(set=path.stem) for path in tmp_path.glob("*.parquet")])
    assert is_prepared(frame)
    assert sets_of(frame, "set", KNOWN) == sets


def test_a_datasets_rows_become_records_with_swapped_twins_and_other_answers() -> None:
    found = sets_of(plain(), "set", KNOWN)
    asked = found["requested"][0]
    assert (asked.prompt, asked.answer, asked.wrong_answers) == (f"Where does {SECRET} live?", "In Ulm", ("In Rome",))
    assert (asked.swapped_prompt, asked.swapped_answer) == ("Where does Mia Roth live?", "In Ulm")
    assert asked.kind == found["holdout"][0].kind
    assert sorted(record.subject is None for record in found["retain"]) == [False, True]


def test_equal_rows_give_equal_records_in_equal_order() -> None:
    assert sets_of(plain(), "set", KNOWN) == sets_of(plain().sample(frac=1, random_state=1), "set", KNOWN)


def test_other_names_of_columns_are_read_when_they_are_given() -> None:
    names = {"subject_id": "who", "question": "q", "answer": "a", "set": "part"}
    used = Columns(record=None, subject="who", prompt="q", answer="a", subject_name="subject_name", wrong_answers="wrong_answers")
    assert sets_of(plain().rename(columns=names), "part", KNOWN, used) == sets_of(plain(), "set", KNOWN)


def test_people_need_not_be_named() -> None:
    found = sets_of(plain()[["set", "question", "answer"]], "set", KNOWN)
    assert [record.subject for records in found.values() for record in records] == [None] * 4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda frame: frame.drop(columns="set"), "no column 'set' that names the set of a row (requested, retain, holdout)"),
        (
            lambda frame: frame.assign(set=frame["set"].replace("retain", "retian")),
            "2 rows of column 'set' name no set that is known; did you mean 'retain'",
        ),
        (lambda frame: frame.assign(set=frame["subject_name"]), "known are requested, retain, holdout"),
        (lambda frame: frame.rename(columns={"answer": "reply"}), "no column answer; rename the frame's columns"),
        (lambda frame: frame.assign(answer=[None, *frame["answer"][1:]]), "1 rows without question or answer"),
        (lambda frame: pandas.concat([frame, frame.iloc[:1]]), "1 records are more than once in requested"),
        (lambda frame: frame.assign(question=[1, *frame["question"][1:]]), "a column mixes types"),
    ],
)
def test_what_cannot_be_read_is_refused_without_a_word_of_it(change: object, said: str) -> None:
    with pytest.raises(DataError, match=re.escape(said)) as refused:
        sets_of(change(plain()), "set", KNOWN)  # type: ignore[operator]
    assert SECRET not in str(refused.value)


def test_a_record_may_be_in_several_sets() -> None:
    frame = pandas.concat([plain(), plain().assign(set="holdout").iloc[1:2]])
    found = sets_of(frame, "set", KNOWN)
    assert {record.tag for record in found["retain"]} & {record.tag for record in found["holdout"]}


def test_empty_cells_of_prepared_rows_are_counted(tmp_path: Path) -> None:
    write_set(tmp_path, "retain", people(0, 2))
    frame = read_frame(tmp_path).assign(set="retain")
    frame.loc[0, "answer"] = None
    with pytest.raises(DataError, match="1 cells of tag, prompt, answer are empty"):
        sets_of(frame, "set", KNOWN)


def test_files_of_every_kind_are_read_alike_and_others_refused(tmp_path: Path) -> None:
    frame = plain().drop(columns="wrong_answers").fillna("")
    for name, kind in (("csv", "csv"), ("parquet", "parquet"), ("json", "jsonl")):
        (tmp_path / kind).mkdir()
        how = {"orient": "records", "lines": True} if kind == "jsonl" else {"index": False}
        getattr(frame, f"to_{name}")(tmp_path / kind / f"rows.{kind}", **how)
    found = [sets_of(read_frame(tmp_path / kind), "set", KNOWN) for kind in ("csv", "parquet", "jsonl")]
    assert found[0] == found[1] == found[2]
    (tmp_path / "csv/notes.docx").write_text("x")
    with pytest.raises(DataError, match="1 of 2 files are none of"):
        read_frame(tmp_path / "csv")
