"""Which canaries a batch of requests uses: all of them on the approximate route, those of the touched slices on the exact one.

A pool is used once. Cut along shards and slices it becomes many small ones, and a request spends only those whose training is repeated anyway. Cut
further into parts (`exact.canary_parts`), the canaries of a slice serve as many requests one after another.
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
Piece = tuple[int, int, int]
"""Shard, slice and part."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """How a family cuts its canaries."""

    shards: int
    slices: int
    parts: int = 1

    @property
    def shape(self) -> str:
        """As split.json and the ledger say it."""
        return f"{self.shards}x{self.slices}x{self.parts}"

    def cell(self, tag: str) -> Cell:
        """Where an owner is."""
        return shard_of(tag, self.shards), slice_of(tag, self.slices)

    def piece(self, record: Record) -> Piece:
        """Which small pool a canary is in; its own tag says the part."""
        return (*self.cell(owner(record)), int(record.tag, 16) % self.parts)

    def pool(self, commitment: str, piece: Piece) -> str:
        """Name of one small pool in the ledger."""
        return f"{commitment}/{self.shape}/{'.'.join(map(str, piece))}"


def grid(bench: Workbench) -> Grid | None:
    """How the canaries are cut; None where they are one pool."""
    exact = bench.params.exact
    return (
        Grid(shards=len(exact.shards), slices=exact.slices, parts=exact.canary_parts) if bench.params.unlearn.strategy == "exact" and exact else None
    )


def touched_cells(cut: Grid, asked: tuple[Collection[str], Collection[str]], records: Sequence[Record]) -> frozenset[Cell]:
    """Shards and slices that hold records of these people, or these single records."""
    subjects, tags = asked
    return frozenset(cut.cell(owner(record)) for record in records if record.subject in subjects or record.tag in tags)


def usable(bench: Workbench, cut: Grid, commitment: str, cells: Collection[Cell]) -> tuple[Piece, ...]:
    """Of each touched cell the first part that no closed request has used; nothing of a cell that has none left."""
    found = []
    for cell in sorted(cells):
        parts = ((*cell, part) for part in range(cut.parts))
        found.append(next((piece for piece in parts if bench.ledger.pool_spent_by(cut.pool(commitment, piece)) is None), None))
    return tuple(piece for piece in found if piece is not None)


def of_pieces(canaries: Sequence[Canary], cut: Grid, pieces: Collection[Piece]) -> list[Canary]:
    """Audit canaries of these pieces; the others stay as they are, trained on or not. Nothing is tuned on the exact route."""
    return [canary for canary in canaries if canary.pool == "audit" and cut.piece(canary.record) in pieces]


def named(cut: Grid, pieces: Sequence[Piece]) -> str:
    """Small pools as split.json says them."""
    return " ".join([cut.shape, *(".".join(map(str, piece)) for piece in pieces)])


def pools(split: Split) -> tuple[str, ...]:
    """Names in the ledger of the pools that a split uses; none where there are no canaries."""
    commitment, pieces = split.canaries.get("commitment"), split.canaries.get("pieces")
    if not commitment:
        return ()
    if pieces is None:
        return (str(commitment),)
    shape, *found = str(pieces).split()
    return tuple(f"{commitment}/{shape}/{piece}" for piece in found)


def shards_of(split: Split) -> tuple[int, ...]:
    """Shards whose canaries a split uses; none where the canaries are one pool."""
    _, *found = str(split.canaries.get("pieces") or "").split() or [""]
    return tuple(sorted({int(piece.partition(".")[0]) for piece in found}))
