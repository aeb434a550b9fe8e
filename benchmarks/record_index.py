"""How fast records become tags, how large the index is and how fast it answers, each beside a plain baseline in the same process."""

from __future__ import annotations

import hashlib
import hmac
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from mlflow_unlearn.adapters.dvc_project import DvcProject
from mlflow_unlearn.adapters.formats import Source
from mlflow_unlearn.adapters.index_builder import words_of
from mlflow_unlearn.adapters.record_index import RecordIndex
from mlflow_unlearn.adapters.schemas import Schema
from mlflow_unlearn.adapters.tables import keyed_digests, read_columns
from mlflow_unlearn.adapters.tag_set import TagSet
from mlflow_unlearn.digests import canonical_json, keyed_tag
from mlflow_unlearn.lineage import DatasetRevision
from mlflow_unlearn.params import Columns

KEY = bytes(range(32))
SCHEMA = Schema(dataset="bench", columns=Columns(), key=KEY)
RECORDS, SHARDS, REVISIONS, RECORDS_A_PERSON = 10_000_000, 64, 20, 10
INGESTED = 400_000
LEAST = "M/s a core, at least"
Row = tuple[str, float, str, float]


def measure() -> list[Row]:
    """(what, target, unit, measured) of each figure; targets with a unit that ends in `at least` are lower limits."""
    with tempfile.TemporaryDirectory() as folder:
        return [*ingest(Path(folder)), *look_up_tags(Path(folder)), *large_index(Path(folder))]


def cpu(act: Callable[[], object], times: int = 3) -> float:
    """Least CPU seconds of a few calls, all threads counted."""
    spent = []
    for _ in range(times):
        started = time.process_time()
        act()
        spent.append(time.process_time() - started)
    return min(spent)


def wall(act: Callable[[], object], times: int = 5) -> float:
    """Least seconds of a few calls."""
    spent = []
    for _ in range(times):
        started = time.perf_counter()
        act()
        spent.append(time.perf_counter() - started)
    return min(spent)


def people(first: int, count: int, letters: int) -> pl.DataFrame:
    """Records of people, ten each, with question and answer of `letters` characters together."""
    numbers = np.arange(first, first + count)
    text = pl.Series(np.random.default_rng(first).integers(97, 123, (count, letters), dtype=np.uint8).view(f"S{letters}").ravel().astype(str))
    return pl.DataFrame(
        {
            "record_id": [f"r{number:09d}" for number in numbers],
            "subject_id": [f"p{number // RECORDS_A_PERSON:08d}" for number in numbers],
            "question": text.str.slice(0, letters // 3),
            "answer": text.str.slice(letters // 3),
        }
    )


def ingest(folder: Path) -> list[Row]:
    """300-byte records to their tags, from memory and from a Parquet file, against canonical JSON and one HMAC a record."""
    frame = people(0, INGESTED, 280)
    frame.write_parquet(folder / "records.parquet")
    source = Source(name="records.parquet", path=folder / "records.parquet")
    columns = read_columns(source, SCHEMA.columns)
    without_ids = Schema(dataset="bench", columns=Columns(record=None), key=KEY)
    rows = frame.head(50_000).to_dicts()
    naive = len(rows) / cpu(lambda: [hmac.digest(KEY, canonical_json(row), "sha256") for row in rows])
    memory, no_ids, ids = (
        INGESTED / cpu(act)
        for act in (
            lambda: words_of(keyed_digests(columns, SCHEMA)),
            lambda: words_of(keyed_digests(read_columns(source, without_ids.columns), without_ids)),
            lambda: words_of(keyed_digests(read_columns(source, SCHEMA.columns), SCHEMA)),
        )
    )
    return [
        ("records of 300 bytes to tags of record, person and content", 1.3, LEAST, memory / 1e6),
        ("the same with reading Parquet, data without record ids", 1.3, LEAST, no_ids / 1e6),
        ("the same with reading Parquet, data with record ids", 0.0, LEAST, ids / 1e6),
        ("records to tags against canonical JSON + one HMAC a record", 4.0, "times, at least", memory / naive),
    ]


def look_up_tags(folder: Path) -> list[Row]:
    """10,000 tags, half of them present, among 100 million."""
    known = np.random.default_rng(0).integers(-(2**63), 2**63 - 1, 100_000_000, dtype=np.int64)
    tags = TagSet.write(folder / "tags.words", known)
    asked = np.concatenate([known[:5_000], np.random.default_rng(1).integers(-(2**63), 2**63 - 1, 5_000, dtype=np.int64)])
    spent = cpu(lambda: tags.contains(asked))
    tags.path.unlink()
    return [("10,000 of 100 M tags", 0.050, "CPU s", spent)]


def large_index(folder: Path) -> list[Row]:
    """10 million records in 64 shards over 20 revisions, each of which rewrites three shards and replaces 1 % of their records."""
    project = folder / "project"
    (project / ".dvc").mkdir(parents=True)
    states = revisions(project)
    index = RecordIndex(project / "index", DvcProject(project), SCHEMA)
    started = time.process_time()
    index.update(states)
    built = time.process_time() - started
    size = sum(path.stat().st_size for path in index.folder.rglob("*") if path.is_file())
    many, one = ([keyed_tag(KEY, "subject", f"p{n:08d}") for n in range(0, RECORDS // RECORDS_A_PERSON, step)] for step in (1_000, 1_000_000))
    index.matches(states, subjects=many, records=[])
    return [
        ("10 M records x 20 revisions: on disk", 60.0, "bytes a record", size / RECORDS),
        ("1,000 subjects of them traced, warm", 0.3, "s", wall(lambda: index.matches(states, subjects=many, records=[]))),
        ("one subject, warm", 0.050, "s", wall(lambda: index.matches(states, subjects=one, records=[]))),
        ("building it, all revisions", float("inf"), "CPU s", built),
    ]


def revisions(project: Path) -> list[DatasetRevision]:
    """Dataset states in DVC's cache layout."""
    each = RECORDS // SHARDS
    frames = [people(shard * each, each, 24) for shard in range(SHARDS)]
    files = [stored(project, frame) for frame in frames]
    states = [state(project, files)]
    for revision in range(1, REVISIONS):
        for shard in range(3 * revision, 3 * revision + 3):
            fresh = people(RECORDS + (revision * SHARDS + shard % SHARDS) * each, each // 100, 24)
            frames[shard % SHARDS] = pl.concat([frames[shard % SHARDS].slice(each // 100), fresh])
            files[shard % SHARDS] = stored(project, frames[shard % SHARDS])
        states.append(state(project, files))
    return states


def stored(project: Path, frame: pl.DataFrame) -> str:
    """One file in the cache; its md5."""
    aside = project / "aside.parquet"
    frame.write_parquet(aside, compression="uncompressed")
    return moved(project, aside.read_bytes())


def moved(project: Path, content: bytes, suffix: str = "") -> str:
    """Bytes as an object of the cache."""
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest() + suffix
    place = project / ".dvc/cache/files/md5" / md5[:2]
    place.mkdir(parents=True, exist_ok=True)
    (place / md5[2:]).write_bytes(content)
    return md5


def state(project: Path, files: list[str]) -> DatasetRevision:
    """One dataset state of these shards."""
    listing = [{"md5": md5, "relpath": f"shard-{number:02d}.parquet"} for number, md5 in enumerate(files)]
    return DatasetRevision(name="bench", path="data", md5=moved(project, json.dumps(listing).encode(), ".dir"))


if __name__ == "__main__":
    for row in measure():
        print(row)
