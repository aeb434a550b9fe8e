"""The record index against a brute-force reading of every state: whatever the order, the batches and the compaction, nobody is missed."""

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlflow_unlearn.adapters import index_builder, index_parts
from mlflow_unlearn.adapters.dvc_project import DvcProject
from mlflow_unlearn.adapters.record_index import RecordIndex
from mlflow_unlearn.adapters.schemas import Schema
from mlflow_unlearn.digests import keyed_tag
from mlflow_unlearn.lineage import DatasetRevision
from mlflow_unlearn.params import Columns

KEY = bytes(range(32))
HEADER = "record_id,subject_id,question,answer\n"
PEOPLE, RECORDS = ("", "ana", "bo", "cy"), tuple(f"r{i}" for i in range(6))
rows = st.lists(st.tuples(st.sampled_from(RECORDS), st.sampled_from(PEOPLE), st.sampled_from("ab")), max_size=5, unique_by=lambda row: row[0])
states = st.lists(st.dictionaries(st.sampled_from(["x.csv", "y.csv", "z.csv"]), rows, max_size=3), min_size=1, max_size=5)
slow = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


def stored(root: Path, content: bytes, suffix: str = "") -> str:
    """An object in DVC's cache."""
    md5 = hashlib.md5(content).hexdigest() + suffix
    (root / ".dvc/cache/files/md5" / md5[:2]).mkdir(parents=True, exist_ok=True)
    (root / ".dvc/cache/files/md5" / md5[:2] / md5[2:]).write_bytes(content)
    return md5


def revision(root, shards):
    files = [
        {"md5": stored(root, (HEADER + "".join(f"{r},{s},{w}?,{w}!\n" for r, s, w in lines)).encode()), "relpath": name}
        for name, lines in sorted(shards.items())
    ]
    return DatasetRevision(name="d", path="data", md5=stored(root, json.dumps(files).encode(), ".dir"))


def brute_force(shards, people, records):
    return len({r for lines in shards.values() for r, s, _ in lines if (s and s in people) or r in records})


@pytest.fixture(params=[(1, 1), (4, 2), (10**6, 8)], ids=["a state a batch, always compacted", "small batches", "one batch"])
def sizes(request, monkeypatch):
    monkeypatch.setattr(index_builder, "BATCH_ROWS", request.param[0])
    monkeypatch.setattr(index_parts, "MOST_PARTS", request.param[1])


def new_index(root):
    (root / ".dvc").mkdir(parents=True, exist_ok=True)
    return RecordIndex(root / "index", DvcProject(root), Schema(dataset="d", columns=Columns(), key=KEY))


@slow
@given(
    history=states,
    people=st.sets(st.sampled_from(["ana", "bo", "zed"])),
    records=st.sets(st.sampled_from(["r0", "r1", "r9"])),
    split=st.integers(0, 5),
)
def test_matches_of_every_state_are_those_of_a_full_reading(sizes, tmp_path_factory, history, people, records, split):
    root = tmp_path_factory.mktemp("project")
    revisions = {revision(root, shards).md5: shards for shards in history}
    asked = [DatasetRevision(name="d", path="data", md5=md5) for md5 in revisions]
    new_index(root).update(asked[:split])
    index = new_index(root)
    index.update(asked)
    subjects, tags = [keyed_tag(KEY, "subject", s) for s in sorted(people)], [keyed_tag(KEY, "record", "d", r) for r in sorted(records)]
    expected = {md5: n for md5, shards in revisions.items() if (n := brute_force(shards, people, records))}
    assert index.matches(asked, subjects=subjects, records=tags) == expected


@slow
@given(history=states)
def test_rows_files_and_differences_are_those_of_a_full_reading(sizes, tmp_path_factory, history):
    root = tmp_path_factory.mktemp("project")
    revisions = [revision(root, shards) for shards in history]
    index = new_index(root)
    index.update(revisions)
    first, last = ({r for lines in shards.values() for r, _, _ in lines} for shards in (history[0], history[-1]))
    tag = {r: keyed_tag(KEY, "record", "d", r) for r in RECORDS}
    assert index.removed_between(revisions[0], revisions[-1]) == sorted(tag[r] for r in first - last)
    assert set(index.rows(revisions)) == {
        (tag[r], keyed_tag(KEY, "content", f"{w}?", f"{w}!")) for shards in history for lines in shards.values() for r, _, w in lines
    }
    if any("x.csv" in shards for shards in history):
        expected = sorted({tag[r] for shards in history for r, _, _ in shards.get("x.csv", ())})
        assert index.records_of_files(revisions, ["x.csv"]) == expected
