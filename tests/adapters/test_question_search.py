"""Questions are found in whatever a file makes of them, and never counted twice or in part."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_unlearn.adapters.formats import Source
from mlflow_unlearn.adapters.question_search import held, loose, needles
from mlflow_unlearn.protocols import Record

QUESTION = 'Where did "Zoë" \\ put it,\nand why?'
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)


def record(prompt: str, answer: str = "there") -> Record:
    return Record(tag=prompt, subject=None, prompt=prompt, answer=answer)


def write(path: Path, text: str) -> None:
    """One text among others, as the format of the file's name keeps it."""
    rows = [{"q": "before", "n": 1}, {"q": text, "n": 2}]
    if path.suffix == ".parquet":
        pl.DataFrame(rows).write_parquet(path)
    elif path.suffix == ".csv":
        with path.open("w", newline="") as stream:
            csv.writer(stream).writerows([row["q"], row["n"]] for row in rows)
    else:
        ascii_only = path.name.startswith("ascii")
        path.write_text(json.dumps(rows, ensure_ascii=ascii_only) if path.suffix == ".json" else text, encoding="utf-8")


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.json", "ascii.json", "a.txt", "a.unknown"])
@pytest.mark.parametrize("change", [str, str.upper, lambda text: text.replace(" ", "\n  ")])
def test_a_question_is_found_in_every_format(tmp_path: Path, name: str, change) -> None:
    write(tmp_path / name, f"so: {change(QUESTION)} - nobody knows")
    assert held([Source(name=name, path=tmp_path / name)], needles([record(QUESTION), record("Who else?")], [])) == 1


def test_a_piece_of_a_longer_word_is_no_question(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Tell me about Alan")
    file = Source(name="a.txt", path=tmp_path / "a.txt")
    assert held([file], needles([record("Tell me about Al")], [])) == 0
    assert held([file], needles([record("tell me about alan"), record("me about")], [])) == 2


def test_where_others_are_asked_the_same_the_answer_has_to_be_there_too(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Classify: nice. Classify: bad hat.")
    file, others = Source(name="a.txt", path=tmp_path / "a.txt"), [record("Classify:", "fine")]
    assert held([file], needles([record("Classify:", "a bad hat")], others)) == 0
    assert held([file], needles([record("Classify:", "Bad  hat")], others)) == 1


@pytest.mark.parametrize("content", [b"\0\1", b"\xff\xfe\xfd", b"PAR1"])
def test_what_is_neither_text_nor_table_is_not_called_empty(tmp_path: Path, content: bytes) -> None:
    name = "a.parquet" if content == b"PAR1" else "a.bin"
    (tmp_path / name).write_bytes(content)
    (tmp_path / "b.txt").write_text("Who?")
    files = [Source(name=each, path=tmp_path / each) for each in (name, "b.txt")]
    assert held(files[:1], needles([record("Who?")], [])) is None
    assert held(files, needles([record("Who?")], [])) == 1
    assert held(files, needles([record("Whom?")], [])) is None


def test_a_wide_text_is_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("Who is it?".encode("utf-16"))
    assert held([Source(name="a.txt", path=tmp_path / "a.txt")], needles([record("who is it?")], [])) == 1


@given(TEXT)
def test_what_json_makes_of_a_text_reads_the_same(text: str) -> None:
    if "\\" not in text:  # a backslash before n or u means either
        assert loose(json.dumps(text)) == loose(json.dumps(text, ensure_ascii=False)) == loose(text)
