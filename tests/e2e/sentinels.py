"""Where a person's name or id is after a run: in the data, and nowhere else."""

from __future__ import annotations

import gzip
import json
import subprocess
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as parquet
from small_project import Project

ALLOWED = ("data/", "build/raw/", ".dvc/cache/")


def require_only_in_data(project: Project, person: str, revisions: Sequence[str]) -> None:
    """Search the folder, git's objects and DVC's cache, packed contents opened, for a person whom the same search finds in the data."""
    row = next(row for row in project.rows() if row["subject_id"] == person)
    sentinels = [row["subject_name"].encode(), row["subject_id"].encode()]
    assert holders(project.folder / "data", sentinels), "the search must find the person in the dataset itself"
    project.must("git", "add", "-A")
    assert [path for path in holders(project.folder, sentinels) if not path.startswith(ALLOWED)] == []
    objects = git_objects(project)
    assert b"mlflow-unlearn stage trace" in objects, "the search must be able to read what git holds"
    assert not [sentinel for sentinel in sentinels if sentinel in objects]
    assert set(holders(project.folder / ".dvc/cache", sentinels)) <= cache_objects_of_datasets(project, revisions)


def cache_objects_of_datasets(project: Project, revisions: Sequence[str]) -> set[str]:
    """Cache paths of every file of every dataset revision and of the files beside it."""
    known: set[str] = set()
    for revision in revisions:
        for line in project.must("git", "show", f"{revision}:pipelines/customers/dvc.lock").splitlines():
            if "md5: " in line and "hash" not in line:
                md5 = line.split()[-1]
                path = project.folder / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
                known.add(f"files/md5/{md5[:2]}/{md5[2:]}")
                if md5.endswith(".dir") and path.exists():
                    known |= {f"files/md5/{e['md5'][:2]}/{e['md5'][2:]}" for e in json.loads(path.read_bytes())}
    return known


def holders(folder: Path, sentinels: list[bytes]) -> list[str]:
    """Files below `folder` whose content, decoded where it is packed, holds a sentinel."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and any(sentinel in content for content in contents(path) for sentinel in sentinels):
            found.append(path.relative_to(folder).as_posix())
    return found


def contents(path: Path) -> list[bytes]:
    """The raw bytes, and what they say once Parquet is decoded and archives are opened."""
    raw = path.read_bytes()
    if raw[:4] == b"PAR1":
        return [raw, json.dumps(parquet.read_table(path).to_pylist(), default=str).encode()]
    if raw[:2] == b"\x1f\x8b":
        return [raw, gzip.decompress(raw)]
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return [raw, *(archive.read(name) for name in archive.namelist())]
    return [raw]


def git_objects(project: Project) -> bytes:
    """Every object of the repository, loose or packed, inflated."""
    command = ["git", "cat-file", "--batch-all-objects", "--batch"]
    return subprocess.run(command, cwd=project.folder, capture_output=True, check=True).stdout
