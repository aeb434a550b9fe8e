"""The index's expressions on two engines: what DuckDB answers, another one answers too."""

import ibis
import pyarrow as arrow
import pytest

from mlflow_unlearn.adapters.index_queries import holding, merged, present_in, records_by_state, settled
from mlflow_unlearn.adapters.tag_words import OPEN

pytestmark = pytest.mark.filterwarnings("ignore:The .future.infer_string. option is deprecated")  # Ibis 12 with pandas 3, on SQLite
NAMES = ("record_high", "record_low", "shard", "first", "last")


def rows_of(rows):
    columns = zip(*rows, strict=True) if rows else [[]] * len(NAMES)
    return ibis.memtable(arrow.table({name: arrow.array(list(column), arrow.int64()) for name, column in zip(NAMES, columns, strict=True)}))


@pytest.fixture(params=["duckdb", "sqlite"])
def engine(request):
    return getattr(ibis, request.param).connect()


def answer(engine, expression):
    return sorted(tuple(row.values()) for row in engine.to_pyarrow(expression).to_pylist())


def test_intervals_that_touch_become_one_and_others_stay_apart(engine):
    rows = rows_of(((1, 1, 0, 0, 1), (1, 1, 0, 2, 4), (1, 1, 0, 6, OPEN), (1, 1, 1, 2, 3), (2, 1, 0, 1, 1), (1, 1, 0, 2, 4)))
    assert answer(engine, merged(rows)) == [(1, 1, 0, 0, 4), (1, 1, 0, 6, OPEN), (1, 1, 1, 2, 3), (2, 1, 0, 1, 1)]


def test_the_smallest_last_of_a_first_counts(engine):
    rows = rows_of(((1, 1, 0, 0, OPEN), (1, 1, 0, 0, 3), (1, 1, 0, 5, OPEN)))
    assert answer(engine, settled(rows)) == [(1, 1, 0, 0, 3), (1, 1, 0, 5, OPEN)]
    assert answer(engine, present_in(rows, [3])) == [(1, 1, 0, 0, 3)]
    assert answer(engine, present_in(rows, [4])) == []


def test_records_are_counted_once_a_state(engine):
    rows = rows_of(((1, 1, 0, 0, OPEN), (1, 1, 1, 1, OPEN), (2, 2, 0, 0, 0), (9, 9, 0, 0, OPEN)))
    wanted = ibis.memtable(arrow.table({"high": [1, 2, 3], "low": [1, 2, 3]}))
    states = ibis.memtable(arrow.table({"ordinal": [0, 1]}))
    found = holding(rows, wanted, ("record_high", "record_low")).select("record_high", "record_low", "first", "last")
    assert answer(engine, records_by_state(found, states)) == [(0, 2), (1, 1)]
