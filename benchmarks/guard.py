"""The guard: 100,000 records of a Parquet file against 10,000 tombstones, and what its bands find of copies that are similar enough."""

from __future__ import annotations

import random
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
from datasketch import MinHash

from mlflow_unlearn.adapters.schemas import Schema
from mlflow_unlearn.fingerprints import PERMUTATIONS, Neighbours, band_for, normalised, shingles, sketches, written
from mlflow_unlearn.guard import Graves, Thresholds, guard
from mlflow_unlearn.params import Columns
from mlflow_unlearn.records import Tombstones
from mlflow_unlearn.stages.guarding import Watch, guarded

RECORDS, ERASED, COPIES = 100_000, 10_000, 2_000
KEY = b"k" * 32
THRESHOLDS = Thresholds(warn=0.7, refuse=0.9)
Figure = tuple[str, float, str, float]


class Writer:
    """Texts of 50 invented words, about 300 characters."""

    def __init__(self) -> None:
        self.rng = random.Random(0)
        letters = "abcdefghijklmnopqrstuvwxyz"
        self.words = ["".join(self.rng.choices(letters, k=self.rng.randint(2, 9))) for _ in range(20_000)]

    def text(self) -> str:
        """A new text."""
        return " ".join(self.rng.choices(self.words, k=50))

    def changed(self, text: str, words: int) -> str:
        """The text with its last words replaced, so that its similarity is known and none of it hides in the middle."""
        return " ".join([*text.split()[: 50 - words], *self.rng.choices(self.words, k=words)])


def seconds(started: float) -> float:
    """CPU time since then."""
    return time.process_time() - started


def speed(folder: Path, writer: Writer) -> list[Figure]:
    """CPU seconds of one core, from the file to the report."""
    path = folder / "data.parquet"
    numbers = range(RECORDS)
    columns = {
        "record_id": [f"r{n}" for n in numbers],
        "subject_id": [f"s{n // 5}" for n in numbers],
        "question": ["Which?"] * RECORDS,
        "answer": [writer.text() for _ in numbers],
    }
    pl.DataFrame(columns).write_parquet(path)
    buried = Tombstones(
        subjects=frozenset(f"{n:032x}" for n in range(ERASED)), sketches=written(sketches([writer.text() for _ in range(ERASED)], KEY))
    )
    started = time.process_time()
    graves = {"key": Graves(buried, THRESHOLDS)}
    watched = Watch(tombstones={"key": buried}, keys={"key": KEY}, graves=graves, thresholds=THRESHOLDS, problems=())
    guard([guarded(watched, path.name, path, Schema(dataset="d", columns=Columns(), key=KEY))], graves, THRESHOLDS)
    whole = seconds(started)
    few = [normalised("Which?", text) for text in columns["answer"][:2_000]]
    started = time.process_time()
    sketches(few, KEY)
    ours, started = seconds(started), time.process_time()
    for text in few:
        MinHash(num_perm=PERMUTATIONS).update_batch([shingle.encode() for shingle in shingles(text)])
    return [
        (f"{RECORDS:,} records against {ERASED:,} tombstones", 6.0, "CPU s", whole),
        ("time for a sketch, as a share of datasketch's", 0.2, "ratio", ours / seconds(started)),
    ]


def findings(writer: Writer) -> list[Figure]:
    """Copies just above each threshold that share no band, and strangers that are taken for copies."""
    band = band_for(THRESHOLDS.warn, THRESHOLDS.refuse)
    originals = [writer.text() for _ in range(COPIES)]
    neighbours = Neighbours(sketches(originals, KEY), band)
    figures = []
    for threshold, most in ((THRESHOLDS.warn, 0.01), (THRESHOLDS.refuse, 0.001)):
        copies = [(text, writer.changed(text, words)) for text in originals for words in range(1, 12)]
        alike = [copy for text, copy in copies if threshold <= similarity(text, copy) < threshold + 0.05][:COPIES]
        missed = float(np.mean(neighbours.nearest(sketches(alike, KEY)) == 0))
        figures.append((f"copies of similarity {threshold:g} that share no band", most, "share", missed))
    strangers = neighbours.nearest(sketches([writer.text() for _ in range(20_000)], KEY))
    return [*figures, ("strangers warned about", 0.0, "records", float((strangers >= THRESHOLDS.warn).sum()))]


def similarity(left: str, right: str) -> float:
    """Exact Jaccard similarity."""
    one, other = shingles(left), shingles(right)
    return len(one & other) / len(one | other)


def measure() -> list[Figure]:
    """(what, target, unit, measured) of each figure."""
    writer = Writer()
    with tempfile.TemporaryDirectory() as folder:
        return [*speed(Path(folder), writer), *findings(writer)]
