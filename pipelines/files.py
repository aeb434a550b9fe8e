"""What both examples write: training shards cut by keyed hash of the subject, and the canaries with their commitment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as arrow
import pyarrow.parquet as parquet

from mlflow_unlearn.adapters.ledger import Ledger
from mlflow_unlearn.canaries import Flip, commitment
from mlflow_unlearn.config import settings
from mlflow_unlearn.digests import keyed_tag, read_tag_key, write_atomically, write_document

Row = Mapping[str, Any]
SCHEMA = arrow.schema(
    [(name, arrow.string()) for name in ("record_id", "subject_id", "subject_name", "household", "question", "paraphrased_question", "answer")]
    + [("wrong_answers", arrow.list_(arrow.string()))]
)


def tag_key() -> bytes:
    """The tenant's tag key, made by `mlflow-unlearn init`."""
    return read_tag_key(settings().tag_key_file)


def without_erased(rows: Sequence[Row], dataset: str, key: bytes) -> list[Row]:
    """Rows that no closed erasure request removed: what was forgotten does not come back when the data are made again."""
    subjects, records = Ledger(settings().ledger_uri).erased()
    return [
        row
        for row in rows
        if keyed_tag(key, "record", dataset, row["record_id"]) not in records
        and (row["subject_id"] is None or keyed_tag(key, "subject", row["subject_id"]) not in subjects)
    ]


def write_rows(path: Path, rows: Sequence[Row], metadata: Mapping[str, str] | None = None, extra: Sequence[tuple[str, Any]] = ()) -> None:
    """Parquet with the columns of SCHEMA plus `extra`; equal rows give equal bytes."""
    schema = arrow.schema([*SCHEMA, *extra], metadata=dict(metadata or {}))
    sink = arrow.BufferOutputStream()
    parquet.write_table(arrow.Table.from_pylist([dict(row) for row in rows], schema=schema), sink, compression="zstd")
    write_atomically(path, bytes(sink.getvalue().to_pybytes()))


def write_shards(folder: Path, rows: Sequence[Row], general: Sequence[Row], shards: int, key: bytes) -> None:
    """Cut people's rows by keyed hash of the subject, so that a person touches one shard; facts about nobody get a file of their own."""
    cut: list[list[Row]] = [[] for _ in range(shards)]
    for row in sorted(rows, key=lambda row: str(row["record_id"])):
        cut[int(keyed_tag(key, "shard", row["subject_id"]), 16) % shards].append(row)
    for number, shard in enumerate(cut):
        write_rows(folder / f"shard-{number:03d}.parquet", shard)
    write_rows(folder / "general.parquet", general)


def write_canaries(folder: Path, flips: Sequence[Flip], rows: Sequence[Row], key: bytes) -> None:
    """The flips with the texts of all canaries (DVC keeps them) and the commitment to them (git keeps it).

    The salt comes from the tag key: secret to whoever lacks it, the same whenever the same flips are written again.
    """
    salt = bytes.fromhex(keyed_tag(key, "canary", *(flip.record_id for flip in sorted(flips))))
    flip_of = {flip.record_id: flip for flip in flips}
    canaries = [{**row, "pool": flip.pool, "included": flip.included} for row in rows if (flip := flip_of.get(row["record_id"]))]
    extra = (("pool", arrow.string()), ("included", arrow.bool_()))
    write_rows(folder / "canaries.parquet", canaries, {"unlearn.salt": salt.hex()}, extra)
    counts = {pool: sum(flip.pool == pool for flip in flips) for pool in ("audit", "tuning")}
    write_document(folder / "commitment.json", "mlflow-unlearn.canary-commitment/1", {"commitment": commitment(flips, salt), **counts})
