"""What both examples write: training shards cut by keyed hash of the subject, and the canaries with their commitment.

Everything is made in a git-ignored folder aside and then moved into place, so that a kill leaves no half-written file and no stale shard.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as arrow
import pyarrow.parquet as parquet

from mlflow_unlearn.adapters.ledger import Ledger
from mlflow_unlearn.canaries import Flip, commitment
from mlflow_unlearn.config import settings
from mlflow_unlearn.digests import key_id, keyed_tag, read_tag_key, write_atomically, write_document
from mlflow_unlearn.errors import UnlearnError

Row = Mapping[str, Any]
ASIDE = Path("build/raw")  # git-ignored, so that a killed run leaves no people for `git add -A`
COMMITMENT = "mlflow-unlearn.canary-commitment/1"
_TEXTS = ("record_id", "subject_id", "subject_name", "question", "paraphrased_question", "answer")
_FLIPS = (("pool", arrow.string()), ("included", arrow.bool_()))


@dataclass(frozen=True, kw_only=True)
class Erasures:
    """What closed requests removed for good, as keyed tags."""

    key: bytes
    dataset: str
    subjects: frozenset[str]
    records: frozenset[str]

    def left(self, rows: Sequence[Row]) -> list[Row]:
        """The rows that no closed request removed: what was forgotten does not come back when the data are made again."""
        return [row for row in rows if not self._gone(row)]

    def _gone(self, row: Row) -> bool:
        subject = row["subject_id"]
        if subject is not None and keyed_tag(self.key, "subject", subject) in self.subjects:
            return True
        return keyed_tag(self.key, "record", self.dataset, row["record_id"]) in self.records


@dataclass(frozen=True, kw_only=True)
class Example:
    """Everything an example is made of, before anything is erased or left out."""

    people: Sequence[Row]
    """Records with a subject; excluded canaries among them."""
    general: Sequence[Row]
    """Facts about no customer or author: trained on, and asked for utility."""
    holdout: Sequence[Row]
    """Records of people nobody ever trains on."""
    flips: Sequence[Flip]
    corpus: Sequence[str]
    """Lines for the tokenizer: no person in them."""
    group: str
    """Column that says who is a neighbour of whom."""
    shards: int
    more: tuple[str, ...] = ()
    """Further columns of text that only this example has."""

    @property
    def texts(self) -> tuple[str, ...]:
        """Every column of text."""
        return (*_TEXTS, self.group, *self.more)


@dataclass(frozen=True, kw_only=True)
class Written:
    """Counts of what was written."""

    trained: int
    excluded: int
    """Canaries kept out of training by their coin."""
    erased_canaries: int
    """Canaries that closed requests removed; the pool is spent when there are any."""


def erasures(dataset: str) -> Erasures:
    """What the ledger of this repository says was erased, with the tag key that `mlflow-unlearn init` made."""
    here = settings()
    key = read_tag_key(here.tag_key_file)
    subjects, records = Ledger(here.ledger_uri, key_id(key), here.state / "ledger.head").erased()
    return Erasures(key=key, dataset=dataset, subjects=subjects, records=records)


def write(folder: Path, example: Example, erased: Erasures) -> Written:
    """Write an example's files into `folder`, each of them new."""
    excluded = {flip.record_id for flip in example.flips if not flip.included}
    left = erased.left(example.people)
    ids = {row["record_id"] for row in left}
    flips = [flip for flip in example.flips if flip.record_id in ids]
    trained = [row for row in left if row["record_id"] not in excluded]
    with _moved_into(folder) as aside:
        _write_train(aside / "train", trained, example, erased.key)
        write_rows(aside / "holdout.parquet", erased.left(example.holdout), example.texts)
        write_rows(aside / "general.parquet", example.general, example.texts)
        _write_canaries(aside, left, flips, example.texts, erased.key)
        write_atomically(aside / "tokenizer_corpus.txt", ("\n".join(example.corpus) + "\n").encode())
    return Written(trained=len(trained), excluded=len(excluded & ids), erased_canaries=len(example.flips) - len(flips))


def write_rows(
    path: Path, rows: Sequence[Row], texts: Sequence[str], metadata: Mapping[str, str] | None = None, extra: Sequence[tuple[str, Any]] = ()
) -> None:
    """Parquet with columns of text, the wrong answers and `extra`; equal rows give equal bytes."""
    columns = [*((name, arrow.string()) for name in texts), ("wrong_answers", arrow.list_(arrow.string())), *extra]
    table = arrow.Table.from_pylist([dict(row) for row in rows], schema=arrow.schema(columns, metadata=dict(metadata or {})))
    sink = arrow.BufferOutputStream()
    parquet.write_table(table, sink, compression="zstd")
    write_atomically(path, bytes(sink.getvalue().to_pybytes()))


def script(main: Callable[[], None]) -> None:
    """Run a script; known trouble is one clear line a complaint and exit code 2."""
    try:
        main()
    except UnlearnError as error:
        print("\n".join(f"error: {line}" for line in str(error).splitlines()), file=sys.stderr)
        sys.exit(2)


def _write_train(folder: Path, rows: Sequence[Row], example: Example, key: bytes) -> None:
    """Cut people's rows by keyed hash of the subject, so that a person touches one shard; facts about nobody get a file of their own."""
    cut: list[list[Row]] = [[] for _ in range(example.shards)]
    for row in sorted(rows, key=lambda row: str(row["record_id"])):
        cut[int(keyed_tag(key, "shard", row["subject_id"]), 16) % example.shards].append(row)
    for number, shard in enumerate(cut):
        write_rows(folder / f"shard-{number:03d}.parquet", shard, example.texts)
    write_rows(folder / "general.parquet", example.general, example.texts)


def _write_canaries(folder: Path, rows: Sequence[Row], flips: Sequence[Flip], texts: Sequence[str], key: bytes) -> None:
    """The flips with the texts of all canaries (DVC keeps them) and the commitment to them (git keeps it).

    The salt comes from the tag key: secret to whoever lacks it, the same whenever the same flips are written again.
    """
    salt = bytes.fromhex(keyed_tag(key, "canary", *(flip.record_id for flip in sorted(flips))))
    flip_of = {flip.record_id: flip for flip in flips}
    canaries = [{**row, "pool": flip.pool, "included": flip.included} for row in rows if (flip := flip_of.get(row["record_id"]))]
    write_rows(folder / "canaries.parquet", canaries, texts, {"unlearn.salt": salt.hex()}, _FLIPS)
    counts = {pool: sum(flip.pool == pool for flip in flips) for pool in ("audit", "tuning")}
    write_document(folder / "commitment.json", COMMITMENT, {"commitment": commitment(flips, salt), **counts})


@contextmanager
def _moved_into(folder: Path) -> Iterator[Path]:
    """A new folder whose entries replace those of the same name in `folder` when the block ends without an error."""
    aside = ASIDE / f"new-{folder.name}"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    yield aside
    folder.mkdir(parents=True, exist_ok=True)
    for entry in sorted(aside.iterdir()):
        target = folder / entry.name
        if target.is_dir():
            shutil.rmtree(target)
        shutil.move(entry, target)
    aside.rmdir()
