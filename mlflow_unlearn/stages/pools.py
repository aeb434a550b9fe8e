"""Which canaries a batch of requests uses: all of them on the approximate route, those of the touched slices on the exact one.

A pool is used once. Cut along shards and slices it becomes many small ones, and a request spends only those whose training is repeated anyway.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ..protocols import Record
from ..records import Split
from ..sisa import owner, shard_of, slice_of
from ..split import Canary
from .workbench import Workbench

Cell = tuple[int, int]
"""Shard and slice."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """How a family cuts its canaries."""

    shards: int
    slices: int

    def cell(self, tag: str) -> Cell:
        """Where an owner is."""
        return shard_of(tag, self.shards), slice_of(tag, self.slices)

    def pool(self, commitment: str, cell: Cell) -> str:
        """Name of one small pool in the ledger."""
        return f"{commitment}/{self.shards}x{self.slices}/{cell[0]}.{cell[1]}"


def grid(bench: Workbench) -> Grid | None:
    """How the canaries are cut; None where they are one pool."""
    exact = bench.params.exact
    return Grid(shards=len(exact.shards), slices=exact.slices) if bench.params.unlearn.strategy == "exact" and exact else None


def touched_cells(cut: Grid, asked: tuple[Collection[str], Collection[str]], records: Sequence[Record]) -> frozenset[Cell]:
    """Shards and slices that hold records of these people, or these single records."""
    subjects, tags = asked
    return frozenset(cut.cell(owner(record)) for record in records if record.subject in subjects or record.tag in tags)


def usable(bench: Workbench, cut: Grid, commitment: str, cells: Collection[Cell]) -> tuple[Cell, ...]:
    """Touched cells whose canaries no closed request has used."""
    return tuple(sorted(cell for cell in cells if bench.ledger.pool_spent_by(cut.pool(commitment, cell)) is None))


def of_cells(canaries: Sequence[Canary], cut: Grid, cells: Collection[Cell]) -> list[Canary]:
    """Audit canaries of these cells; the others stay as they are, trained on or not. Nothing is tuned on the exact route."""
    return [canary for canary in canaries if canary.pool == "audit" and cut.cell(owner(canary.record)) in cells]


def named(cut: Grid, cells: Sequence[Cell]) -> str:
    """Cells as split.json says them."""
    return " ".join([f"{cut.shards}x{cut.slices}", *(f"{shard}.{number}" for shard, number in cells)])


def pools(split: Split) -> tuple[str, ...]:
    """Names in the ledger of the pools that a split uses; none where there are no canaries."""
    commitment, cells = split.canaries.get("commitment"), split.canaries.get("cells")
    if not commitment:
        return ()
    if cells is None:
        return (str(commitment),)
    shape, *found = str(cells).split()
    return tuple(f"{commitment}/{shape}/{cell}" for cell in found)


def shards_of(split: Split) -> tuple[int, ...]:
    """Shards whose canaries a split uses; none where the canaries are one pool."""
    _, *found = str(split.canaries.get("cells") or "").split() or [""]
    return tuple(sorted({int(cell.partition(".")[0]) for cell in found}))
