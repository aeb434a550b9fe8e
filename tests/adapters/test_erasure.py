import csv
import json

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest

from mlflow_unlearn.adapters.erasure import Erased, erase
from mlflow_unlearn.adapters.schemas import Schema
from mlflow_unlearn.digests import keyed_tag
from mlflow_unlearn.errors import DataError
from mlflow_unlearn.params import Columns

KEY = bytes(range(32))
ROWS = [{"record_id": f"r{i}", "subject_id": f"s{i % 3}", "question": f"q{i}", "answer": f"a{i}"} for i in range(9)]


def gone(subjects=(), records=(), columns=Columns()):  # noqa: B008 - frozen
    return Erased(
        schema=Schema(dataset="d", columns=columns, key=KEY),
        subjects=frozenset(keyed_tag(KEY, "subject", s) for s in subjects),
        records=frozenset(keyed_tag(KEY, "record", "d", r) for r in records),
    )


def write(path):
    if path.suffix == ".parquet":
        parquet.write_table(arrow.Table.from_pylist(ROWS), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, ROWS[0])
            writer.writeheader()
            writer.writerows(ROWS)
    elif path.suffix == ".json":
        path.write_text(json.dumps(ROWS))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


@pytest.mark.parametrize("name", ["d.parquet", "d.jsonl", "d.csv", "d.json", "d.JSONL"])
def test_erased_records_leave_the_file_and_repeating_changes_nothing(tmp_path, name):
    path = write(tmp_path / name)
    assert erase([path], gone(subjects=["s0"], records=["r4"])) == 4
    left = path.read_bytes()
    assert all(text not in left for text in (b"q0", b"q3", b"q6", b"q4"))
    assert all(f"q{i}".encode() in left or name.endswith("parquet") for i in (1, 2, 5, 7, 8))
    assert erase([path], gone(subjects=["s0"], records=["r4"])) == 0
    assert path.read_bytes() == left


def test_files_without_an_erased_record_keep_their_bytes(tmp_path):
    path = write(tmp_path / "d.parquet")
    path.chmod(0o444)
    before = path.read_bytes()
    assert erase([path], gone(subjects=["stranger"])) == 0
    assert path.read_bytes() == before


def test_csv_ids_are_text_so_that_007_is_found(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text("record_id,subject_id,question,answer\n1,007,q1,a1\n2,7,q2,a2\n")
    assert erase([path], gone(subjects=["007"])) == 1
    assert path.read_text().splitlines()[1:] == ['"2","7","q2","a2"'] or path.read_text().splitlines()[1:] == ["2,7,q2,a2"]


def test_without_ids_the_content_is_the_id(tmp_path):
    path = write(tmp_path / "d.jsonl")
    columns = Columns(record=None)
    content = Erased(
        schema=Schema(dataset="d", columns=columns, key=KEY), subjects=frozenset(), records=frozenset([keyed_tag(KEY, "content", "q1", "a1")])
    )
    assert erase([path], content) == 1
    assert b"q1" not in path.read_bytes()


def test_an_unknown_format_is_refused_by_name(tmp_path):
    path = tmp_path / "d.xml"
    path.write_text("<x/>")
    with pytest.raises(DataError, match=r"d\.xml"):
        erase([path], gone())
