import csv
import json

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest

from mlflow_unlearn.adapters.formats import Source, holds_no_records
from mlflow_unlearn.adapters.schemas import Schema
from mlflow_unlearn.adapters.tables import read_flips, read_names, read_records, read_set, read_tags, write_set
from mlflow_unlearn.digests import keyed_tag, sha256_file
from mlflow_unlearn.errors import ConfigError, DataError
from mlflow_unlearn.params import Columns
from mlflow_unlearn.protocols import Record

KEY = bytes(range(32))
COLUMNS = Columns(subject_name="name", group="household")
ROWS = [
    {"record_id": "r07", "subject_id": "1", "name": "Ana Lu", "household": "h", "question": "Where is Ana Lu?", "answer": "Ana Lu is in Ober."},
    {"record_id": "r08", "subject_id": "", "name": "", "household": "", "question": "What is 2+2?", "answer": "4"},
]


def schema(columns=COLUMNS):
    return Schema(dataset="d", columns=columns, key=KEY)


def write(path, rows=ROWS):
    if path.suffix == ".csv":
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".parquet":
        parquet.write_table(arrow.Table.from_pylist([{k: v or None for k, v in row.items()} for row in rows]), path)
    else:
        lines = [json.dumps({k: v or None for k, v in row.items()}) for row in rows]
        path.write_text("\n".join(lines) if path.suffix == ".jsonl" else f"[{','.join(lines)}]")
    return Source(name=path.name, path=path)


@pytest.mark.parametrize("name", ["d.parquet", "d.csv", "d.jsonl", "d.json"])
def test_every_format_gives_the_same_records_and_ids_stay_text(tmp_path, name):
    by_tag = {each.tag: each for each in read_records([write(tmp_path / name)], schema())}
    ana, fact = (by_tag[keyed_tag(KEY, "record", "d", row["record_id"])] for row in ROWS)
    assert (ana.subject, ana.prompt, ana.answer) == (keyed_tag(KEY, "subject", "1"), ROWS[0]["question"], ROWS[0]["answer"])
    assert (fact.subject, fact.group, ana.group is None) == (None, None, False)


def test_numbers_and_their_digits_are_the_same_id(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"record_id": 7, "subject_id": 1, "question": "q", "answer": "a"}')
    (record,) = read_records([Source(name="a.jsonl", path=tmp_path / "a.jsonl")], schema(Columns()))
    assert (record.tag, record.subject) == (keyed_tag(KEY, "record", "d", "7"), keyed_tag(KEY, "subject", "1"))


def test_tags_for_the_index_are_those_of_the_records(tmp_path):
    source = write(tmp_path / "d.csv")
    tags = read_tags(source, schema()).to_dicts()
    assert sorted((row["record"], row["subject"]) for row in tags) == [(r.tag, r.subject) for r in read_records([source], schema())]
    assert {row["content"] for row in tags} == {keyed_tag(KEY, "content", row["question"], row["answer"]) for row in ROWS}


def test_without_ids_the_content_is_the_id(tmp_path):
    columns = Columns(record=None)
    (first, *_) = read_records([write(tmp_path / "d.csv", ROWS[:1])], schema(columns))
    assert first.tag == keyed_tag(KEY, "content", ROWS[0]["question"], ROWS[0]["answer"])


def test_strangers_take_the_place_of_the_subject(tmp_path):
    records = {r.prompt: r for r in read_records([write(tmp_path / "d.csv")], schema(), ["Zed Po"])}
    swapped = records[ROWS[0]["question"]]
    assert (swapped.swapped_prompt, swapped.swapped_answer) == ("Where is Zed Po?", "Zed Po is in Ober.")
    assert records[ROWS[1]["question"]].swapped_prompt is None
    assert read_names([Source(name="d.csv", path=tmp_path / "d.csv")], COLUMNS) == ("Ana Lu",)


def test_nobody_is_their_own_stranger(tmp_path):
    source = write(tmp_path / "d.csv", ROWS[:1])
    for strangers in (["Ana Lu", "Zed Po"], ["Zed Po", "Ana Lu"]):
        assert read_records([source], schema(), strangers)[0].swapped_prompt == "Where is Zed Po?"
    assert read_records([source], schema(), ["Ana Lu"])[0].swapped_prompt is None


def test_records_that_ask_the_same_of_different_people_are_of_one_kind(tmp_path):
    other = ROWS[0] | {"record_id": "r09", "subject_id": "2", "name": "Bo", "question": "Where is Bo?", "answer": "Bo is away."}
    records = read_records([write(tmp_path / "d.csv", [*ROWS, other])], schema())
    kinds = {record.prompt: record.kind for record in records}
    assert kinds["Where is Ana Lu?"] == kinds["Where is Bo?"] == keyed_tag(KEY, "kind", "Where is ?")
    assert kinds["What is 2+2?"] is None


@pytest.mark.parametrize("name", ["d.parquet", "d.csv", "d.jsonl"])
def test_a_missing_column_names_file_column_and_key(tmp_path, name):
    with pytest.raises(DataError, match=rf"^{name}: no column 'prompt' \(data\.columns\.prompt of params\.yaml\); .*correct params"):
        read_records([write(tmp_path / name)], schema(Columns(prompt="prompt")))


def test_a_file_without_a_header_line_is_refused_and_its_first_row_not_quoted(tmp_path):
    (tmp_path / "d.csv").write_text("r1,ana,ana has diabetes,yes\n")
    with pytest.raises(DataError, match="no column") as caught:
        read_tags(Source(name="d.csv", path=tmp_path / "d.csv"), schema(Columns()))
    assert "ana" not in str(caught.value)


GOOD = '{"record_id": "r1", "subject_id": "ana", "question": "q", "answer": "a"}'


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("d.jsonl", GOOD.replace("subject_id", "customer_id"), "no column 'subject_id'"),
        ("d.jsonl", GOOD + "\n" + GOOD.replace("subject_id", "customer_id").replace("r1", "r2"), "'subject_id' occurs 1 times in 2 rows"),
        ("d.jsonl", GOOD.replace('"ana",', '"ana", "subject_id": "bo",'), "'subject_id' occurs 2 times in 1 rows"),
        ("d.jsonl", GOOD.replace('"ana"', '{"id": "ana"}'), "column subject_id holds struct values"),
        ("d.jsonl", GOOD.replace('"ana"', '["ana"]'), "column subject_id holds list values"),
        ("d.json", "[" + "[" * 5000 + "]" * 5000 + "]", "cannot be read as json"),
        ("d.csv", "record_id,subject_id,question,answer,subject_id\nr1,cy,q,a,ana\n", "occur twice in the header"),
        ("d.csv", "record_id,subject_id,question,answer\rr1,ana,q,a\r", "bare carriage returns"),
        ("licensees.csv.gz", "x", "expected one of"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(tmp_path, name, content, said):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=said):
        read_tags(Source(name=name, path=tmp_path / name), schema(Columns()))


@pytest.mark.parametrize(("name", "content"), [("d.csv", ""), ("d.jsonl", ""), ("d.json", "[]"), ("_SUCCESS", ""), ("d.parquet", "")])
def test_an_empty_file_holds_nobody(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    assert read_tags(Source(name=name, path=tmp_path / name), schema(Columns())).is_empty()


def test_columns_of_two_sets_at_once_are_refused(tmp_path):
    (tmp_path / "d.csv").write_text("record_id,subject_id,who,question,answer\nr1,,ana,q,a\n")
    both = Schema(dataset="d", columns=Columns(), key=KEY, earlier=(Columns(subject="who"),))
    with pytest.raises(DataError, match=r"data\.columns and of data\.earlier_columns at once"):
        read_tags(Source(name="d.csv", path=tmp_path / "d.csv"), both)


def test_repeated_ids_are_counted_within_and_across_files_and_never_quoted(tmp_path):
    twice = write(tmp_path / "twice.csv", [ROWS[0], ROWS[0]])
    with pytest.raises(DataError, match=r"^twice\.csv: 1 duplicate record ids") as caught:
        read_records([twice], schema())
    assert "r07" not in str(caught.value)
    with pytest.raises(DataError, match="2 files of the dataset: 2 duplicate"):
        read_records([write(tmp_path / "a.csv"), write(tmp_path / "b.csv")], schema())


@pytest.mark.parametrize("column", ["question", "answer", "record_id"])
def test_empty_cells_are_refused_by_row_number(tmp_path, column):
    with pytest.raises(DataError, match=r"d\.csv: 1 rows without record_id or question or answer, the first is row 2"):
        read_records([write(tmp_path / "d.csv", [ROWS[0], {**ROWS[1], column: ""}])], schema())


@pytest.mark.parametrize("name", ["d.parquet", "d.jsonl", "d.json"])
def test_bytes_that_are_not_what_they_say_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x00\xffnot it")
    with pytest.raises(DataError, match=rf"^{name}: cannot be read as .*`dvc checkout`"):
        read_records([Source(name=name, path=tmp_path / name)], schema())


def test_an_unknown_format_is_refused_with_a_way_out(tmp_path):
    with pytest.raises(DataError, match=r"d\.xlsx: expected one of \.parquet"):
        read_records([Source(name="d.xlsx", path=tmp_path / "d.xlsx")], schema())


def test_flips_come_with_their_salt(tmp_path):
    table = arrow.Table.from_pylist([{**row, "pool": "audit", "included": i == 0} for i, row in enumerate(ROWS)])
    parquet.write_table(table.replace_schema_metadata({"unlearn.salt": "0aff"}), tmp_path / "c.parquet")
    flips, salt = read_flips(Source(name="c.parquet", path=tmp_path / "c.parquet"), schema())
    assert (salt, flips[0]) == (b"\x0a\xff", {"record_id": "r07", "pool": "audit", "included": True})


def test_canaries_without_salt_or_ids_are_refused(tmp_path):
    source = write(tmp_path / "c.parquet")
    with pytest.raises(DataError, match="pool and included and a salt"):
        read_flips(source, schema())
    with pytest.raises(ConfigError, match=r"data\.canaries needs data\.columns\.record"):
        read_flips(source, schema(Columns(record=None)))


def test_sets_come_back_as_they_went_and_equal_records_give_equal_bytes(tmp_path):
    records = [
        Record(tag="1", subject=None, prompt="q", answer="a"),
        Record(tag="2", subject="s", prompt="q", answer="a", wrong_answers=("x", "y"), group="g"),
    ]
    digest = write_set(tmp_path, "forget", records)
    assert read_set(tmp_path, "forget") == records
    assert digest == sha256_file(tmp_path / "forget.parquet") == write_set(tmp_path, "again", records)
    assert read_set(tmp_path, "none" if write_set(tmp_path, "none", []) else "") == []


def test_a_set_that_was_not_made_names_the_way_out(tmp_path):
    with pytest.raises(DataError, match="run `dvc repro`"):
        read_set(tmp_path, "forget")


@pytest.mark.parametrize(
    ("name", "skipped"),
    [("README.md", True), (".gitignore", True), ("LICENSE", True), ("licensed_users.jsonl", False), ("license_plates.csv.gz", False)],
)
def test_only_what_is_no_data_format_is_skipped(name, skipped):
    assert holds_no_records(name) is skipped


def test_ids_as_decimal_numbers_are_refused_since_7_and_7_0_would_be_two_people(tmp_path):
    path = tmp_path / "d.parquet"
    rows = [{**ROWS[0], "subject_id": 7.0}]
    parquet.write_table(arrow.Table.from_pylist(rows), path)
    with pytest.raises(DataError, match="ids as decimal numbers"):
        read_records([Source(name="d.parquet", path=path)], schema())


def test_outer_spaces_make_no_other_person(tmp_path):
    spaced = [{**ROWS[0], "subject_id": " 1 "}]
    tags = {read_records([write(tmp_path / name, rows)], schema())[0].subject for name, rows in (("a.jsonl", ROWS[:1]), ("b.jsonl", spaced))}
    assert len(tags) == 1
