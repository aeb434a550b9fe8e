"""Commitments to a million leaves: building the tree, proofs from what is stored, and leaves from the rows of a dataset file."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl

from mlflow_unlearn.adapters.commitment_leaves import leaf_table, packed
from mlflow_unlearn.adapters.commitment_store import CommitmentStore
from mlflow_unlearn.adapters.formats import Source
from mlflow_unlearn.adapters.schemas import Schema
from mlflow_unlearn.params import Columns
from mlflow_unlearn.verifier.merkle import WIDTH, Inclusion, Tree, verify_absence, verify_inclusion

LEAVES, PROOFS = 1_000_000, 1_000
Figure = tuple[str, float, str, float]


def cpu(act: Callable[[], object], times: int = 3) -> float:
    """CPU seconds of this process for one call, the best of a few."""
    taken = []
    for _ in range(times):
        started = time.process_time()
        act()
        taken.append(time.process_time() - started)
    return min(taken)


def trees(folder: Path) -> list[Figure]:
    """Random leaves: half of the proofs are of members, half of others."""
    leaves = b"".join(sorted(os.urandom(WIDTH) for _ in range(LEAVES)))
    kept = CommitmentStore(folder=folder, dataset="bench")
    key = kept.key()
    kept.keep("m", leaves, key)
    (path,) = folder.rglob("*.tree")
    places = range(0, LEAVES, LEAVES // PROOFS * 2)
    wanted = [*(leaves[WIDTH * place : WIDTH * (place + 1)] for place in places), *(os.urandom(WIDTH) for _ in places)]
    tree = kept.find("m", key)
    if tree is None:
        raise SystemExit("the stored tree was not found")
    proofs = [tree.prove(each) for each in wanted]

    def proven() -> None:
        found = kept.find("m", key)
        for each in wanted:
            found.prove(each)  # type: ignore[union-attr]

    def verified() -> None:
        for proof in proofs:
            verify_inclusion(tree.head, proof) if isinstance(proof, Inclusion) else verify_absence(tree.head, proof)

    return [
        (f"tree of {LEAVES:,} leaves", 1.2, "CPU s", cpu(lambda: Tree.build(leaves))),
        (f"{PROOFS:,} proofs from the stored tree, opened anew", 0.2, "CPU s", cpu(proven)),
        (f"{PROOFS:,} proofs verified", 0.1, "CPU s", cpu(verified)),
        ("stored tree", 36.5, "bytes a leaf", path.stat().st_size / LEAVES),
    ]


def rows(folder: Path) -> list[Figure]:
    """Leaves of a Parquet file: a record, its content and one person in five records, with the tags that a split needs."""
    number = LEAVES // 2
    frame = pl.DataFrame({"record_id": [f"record-{each}" for each in range(number)], "subject_id": [f"person-{each // 5}" for each in range(number)]})
    frame.with_columns(question=pl.lit("Where does ") + pl.col("record_id") + pl.lit(" live? " + "x" * 100), answer=pl.lit("y" * 150)).write_parquet(
        folder / "rows.parquet"
    )
    source, schema = Source(name="rows.parquet", path=folder / "rows.parquet"), Schema(dataset="d", columns=Columns(), key=bytes(32))
    return [(f"sorted leaves of {number:,} records of 300 bytes", 2.5, "CPU s", cpu(lambda: packed([leaf_table(source, schema, bytes(32))])))]


def measure() -> list[Figure]:
    """(what, target, unit, measured) of each figure."""
    with tempfile.TemporaryDirectory() as folder:
        return [*trees(Path(folder) / "commitments"), *rows(Path(folder))]
