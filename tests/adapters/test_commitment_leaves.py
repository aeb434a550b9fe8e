import hashlib
import hmac

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
from hypothesis import given
from hypothesis import strategies as some

from mlflow_unlearn.adapters.commitment_leaves import Retained, leaf_table, packed, tree_name
from mlflow_unlearn.adapters.formats import Source
from mlflow_unlearn.adapters.schemas import Schema
from mlflow_unlearn.adapters.tables import read_records, write_set
from mlflow_unlearn.commitments import leaf
from mlflow_unlearn.errors import TamperedError
from mlflow_unlearn.params import Columns

KEY, TAG_KEY = bytes(range(32)), bytes(32)
SCHEMA = Schema(dataset="d", columns=Columns(), key=TAG_KEY)
texts = some.text(some.characters(codec="utf-8"), min_size=1)
ids = texts.filter(lambda text: bool(text.strip(" \t\n")) and text == text.strip())
tables = some.lists(some.tuples(ids, some.none() | ids, texts, texts), max_size=8, unique_by=lambda row: row[0])


def source(folder, rows, name="d.parquet") -> Source:
    names = ("record_id", "subject_id", "question", "answer")
    columns = {each: arrow.array([row[place] for row in rows], arrow.string()) for place, each in enumerate(names)}
    parquet.write_table(arrow.table(columns), folder / name)
    return Source(name=name, path=folder / name)


def by_hand(rows) -> bytes:
    """Every leaf with `hmac` of the standard library."""
    values = [("record", row[0]) for row in rows] + [("subject", row[1]) for row in rows if row[1]] + [("content", *row[2:]) for row in rows]
    framed = ["".join(f"{len(part.encode())}:{part}" for part in value).encode() for value in values]
    return b"".join(sorted({hmac.new(KEY.hex().encode(), message, hashlib.sha256).digest() for message in framed}))


@given(tables)
def test_the_leaves_of_a_file_are_those_computed_by_hand(tmp_path_factory, rows):
    table = leaf_table(source(tmp_path_factory.mktemp("leaves"), rows), SCHEMA, KEY)
    assert packed([table]) == by_hand(rows)


ROWS = [("r1", "ana", "Where?", "Here."), ("r2", "bo", "Where?", "There."), ("r3", None, "What?", "That."), ("r4", "ana", "When?", "Now.")]


def test_an_id_has_the_leaf_that_an_auditor_computes_whatever_spaces_are_around_it(tmp_path):
    leaves = packed([leaf_table(source(tmp_path, [(" r1\t", " ana ", "Where?", "Here.")]), SCHEMA, KEY)])
    assert leaves == b"".join(sorted([leaf(KEY, "record", "r1"), leaf(KEY, "subject", "ana"), leaf(KEY, "content", "Where?", "Here.")]))


def test_leaves_of_several_files_are_distinct(tmp_path):
    files = [leaf_table(source(tmp_path, rows, f"{number}.parquet"), SCHEMA, KEY) for number, rows in enumerate([ROWS[:2], ROWS[1:]])]
    assert packed(files) == by_hand(ROWS)


def test_no_file_has_no_leaves():
    assert packed([]) == b""


def test_data_without_record_ids_have_leaves_of_people_and_contents(tmp_path):
    schema = Schema(dataset="d", columns=Columns(record=None), key=TAG_KEY)
    found = packed([leaf_table(source(tmp_path, ROWS[:1]), schema, KEY)])
    assert found == b"".join(sorted([leaf(KEY, "subject", "ana"), leaf(KEY, "content", "Where?", "Here.")]))


def test_other_columns_are_another_tree():
    assert len({tree_name("m", SCHEMA), tree_name("n", SCHEMA), tree_name("m", Schema(dataset="d", columns=Columns(subject="x"), key=TAG_KEY))}) == 3


def retain(folder, rows):
    write_set(folder, "retain", read_records([source(folder, rows, "retained.parquet")], SCHEMA))
    return folder / "retain.parquet"


@given(tables, some.sets(some.integers(0, 7)))
def test_what_was_retained_is_committed_to_and_nothing_else(tmp_path_factory, rows, kept):
    folder, stay = tmp_path_factory.mktemp("retain"), [row for place, row in enumerate(rows) if place in kept]
    gathered = Retained(retain(folder, stay), KEY)
    for _ in range(2):  # as in two revisions that share their rows
        gathered.add(leaf_table(source(folder, rows), SCHEMA, KEY))
    assert gathered.packed() == by_hand(stay)


def test_a_record_id_that_was_somebody_elses_in_an_earlier_revision_brings_nobody_back(tmp_path):
    gathered = Retained(retain(tmp_path, [("r1", "bo", "Where?", "Here.")]), KEY)
    for person in ("ana", "bo"):
        gathered.add(leaf_table(source(tmp_path, [("r1", person, "Where?", "Here.")]), SCHEMA, KEY))
    assert gathered.packed() == by_hand([("r1", "bo", "Where?", "Here.")])


def test_a_retained_record_that_no_file_has_is_refused(tmp_path):
    gathered = Retained(retain(tmp_path, ROWS), KEY)
    gathered.add(leaf_table(source(tmp_path, ROWS[1:]), SCHEMA, KEY))
    with pytest.raises(TamperedError, match="1 retained records are not in the dataset revisions"):
        gathered.packed()
