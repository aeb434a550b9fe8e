"""A request uses the canaries of the slices it touches, once, and leaves the others alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from mlflow_unlearn.adapters.ledger import Ledger
from mlflow_unlearn.digests import keyed_tag
from mlflow_unlearn.lineage import DatasetRevision, ModelVersion, Parent
from mlflow_unlearn.protocols import Record
from mlflow_unlearn.records import Effect, Split
from mlflow_unlearn.sisa import owner
from mlflow_unlearn.split import Canary
from mlflow_unlearn.stages.pools import Grid, named, of_pieces, pools, shards_of, touched_cells, usable
from mlflow_unlearn.stages.workbench import Workbench

GRID = Grid(shards=4, slices=2)
NOW = datetime(2026, 5, 1, tzinfo=UTC)
KEY = bytes(32)


def record(number: int) -> Record:
    return Record(tag=keyed_tag(KEY, "record", str(number)), subject=keyed_tag(KEY, "subject", str(number // 3)), prompt="q", answer="a")


RECORDS = [record(number) for number in range(90)]
CANARIES = [Canary(record=each, pool="tuning" if i % 5 == 0 else "audit", included=i % 2 == 0) for i, each in enumerate(RECORDS)]


def split(canaries: dict[str, int | str | bool]) -> Split:
    state = DatasetRevision(name="d", path="d", md5="m")
    parent = Parent(model=ModelVersion(name="m", version="1"), tensor_digest="t", datasets=(state,))
    return Split(requests=("er-1",), parent=parent, effects=(Effect.REMOVAL,), rows={}, files={}, digest="d", canaries=canaries)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(f"sqlite:///{tmp_path / 'ledger.db'}", "0" * 16, tmp_path / "ledger.head")


def test_only_audit_canaries_of_touched_slices_are_used() -> None:
    asked = RECORDS[7]
    cells = touched_cells(GRID, ({str(asked.subject)}, ()), RECORDS)
    assert cells == {GRID.cell(owner(asked))}
    used = of_pieces(CANARIES, GRID, [(*cell, 0) for cell in cells])
    assert used
    assert used == [each for each in CANARIES if each.pool == "audit" and GRID.cell(owner(each.record)) in cells]


def test_a_request_for_one_record_touches_the_slice_of_its_owner() -> None:
    assert touched_cells(GRID, ((), {RECORDS[4].tag}), RECORDS) == {GRID.cell(str(RECORDS[4].subject))}
    nobody = replace(RECORDS[4], subject=None)
    assert touched_cells(GRID, ((), {nobody.tag}), [nobody]) == {GRID.cell(nobody.tag)}


def test_a_split_names_its_small_pools_and_a_whole_one_where_nothing_is_cut() -> None:
    pieces = named(GRID, [(0, 1, 0), (3, 0, 0)])
    assert pools(split({"commitment": "c", "pieces": pieces})) == ("c/4x2x1/0.1.0", "c/4x2x1/3.0.0")
    assert shards_of(split({"commitment": "c", "pieces": pieces})) == (0, 3)
    assert pools(split({"commitment": "c"})) == ("c",)
    assert pools(split({})) == ()
    assert pools(split({"commitment": "c", "pieces": named(GRID, [])})) == ()


def test_parts_deal_out_a_slice_s_canaries_and_are_spent_one_after_another(ledger: Ledger) -> None:
    grid = Grid(shards=4, slices=2, parts=3)
    dealt = [of_pieces(CANARIES, grid, [(1, 0, part)]) for part in range(3)]
    assert sorted(each.record.tag for part in dealt for each in part) == sorted(each.record.tag for each in of_pieces(CANARIES, GRID, [(1, 0, 0)]))
    bench = cast(Workbench, SimpleNamespace(ledger=ledger))
    for part in range(3):
        assert usable(bench, grid, "c", [(1, 0)]) == ((1, 0, part),)
        ledger.spend_pool(grid.pool("c", (1, 0, part)), "er-1", NOW)
    assert usable(bench, grid, "c", [(1, 0)]) == ()


def test_a_spent_part_spends_the_whole_and_no_other_part(ledger: Ledger) -> None:
    ledger.spend_pool("c/4x2/3.0", "er-1", NOW)
    found = {name: ledger.pool_spent_by(name) for name in ("c/4x2/3.0", "c", "c/4x2/3.1", "cd", "c/4x2/3.01")}
    assert found == {"c/4x2/3.0": "er-1", "c": "er-1", "c/4x2/3.1": None, "cd": None, "c/4x2/3.01": None}


def test_a_spent_whole_spends_every_part(ledger: Ledger) -> None:
    ledger.spend_pool("c", "er-1", NOW)
    assert ledger.pool_spent_by("c/4x2/3.0") == "er-1"


def test_looking_at_the_whole_counts_for_its_parts(ledger: Ledger) -> None:
    assert ledger.attempt("m/1", "c", "weights 1", NOW) == 1
    assert ledger.attempt("m/1", "c/4x2/0.0", "weights 2", NOW) == 2
    assert ledger.attempt("m/1", "c/4x2/1.0", "weights 2", NOW) == 2  # the other part was looked at with the whole alone
    assert ledger.attempt("m/1", "c", "weights 3", NOW) == 3
    assert ledger.attempt("m/1", "c", "weights 2", NOW) == 2
