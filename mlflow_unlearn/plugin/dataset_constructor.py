"""`mlflow.data.from_dvc(path)`: a dataset under DVC as an MLflow dataset input, so that a run says which data it learned from.

MLflow checks the annotation of the constructor with issubclass, so this module must not postpone the evaluation of annotations.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from mlflow.data.dataset import Dataset

from .dataset_source import DvcDatasetSource


class DvcDataset(Dataset):  # type: ignore[misc]  # MLflow has no types
    """A dataset whose digest is DVC's md5."""

    def _compute_digest(self) -> str:
        return str(self._source.md5)

    @property
    def profile(self) -> Any | None:
        """Nothing: a profile would have to read the records."""
        return None

    @property
    def schema(self) -> Any | None:
        """Nothing, for the same reason."""
        return None

    def to_dict(self) -> dict[str, str]:
        """Plain values, for MLflow's store."""
        return {**super().to_dict(), "profile": "{}", "schema": "{}"}


def from_dvc(path: str, rev: str | None = None, name: str | None = None, digest: str | None = None) -> DvcDataset:
    """A DVC output as an MLflow dataset.

    Without `rev` the bytes in the workspace are read once and hashed as DVC does: data changed since the last `dvc add`, `commit` or `repro` get
    the digest of what they are now, never that of what is recorded. Until it is committed no git revision holds it, and a trace says unknown.

    Args:
        path: the output (a file or directory under DVC), relative to the current folder.
        rev: git revision to read its md5 from; default: the workspace.
        name: name of the dataset; default: the last part of `path`.
        digest: md5 that is expected; anything else is refused.

    Raises:
        LineageError: DVC does not track `path`, or it has another md5 than `digest`.
        StoreError: this is not a Git and DVC repository.
    """
    import os

    from ..adapters.dvc_project import DvcProject
    from ..config import git_root
    from ..errors import LineageError

    root = git_root(Path.cwd())
    project = DvcProject(root)
    inside = Path(os.path.relpath(path, root)).as_posix()
    name = name or Path(path).stem
    output = project.output_at(inside, rev) if rev else None
    if rev and output is None:
        raise LineageError(f"{path}: not a DVC output at {rev}; check path and revision")
    recorded = output.md5 if output else project.current_state(name, inside).md5
    md5 = recorded if rev else _md5_now(root / inside) or recorded
    if digest not in (None, md5):
        raise LineageError(f"{path}: expected md5 {digest}, found {md5}; run `dvc checkout` or `dvc commit`")
    return DvcDataset(source=DvcDatasetSource(path=inside, md5=md5, rev=rev or project.head(), repo=None), name=name, digest=md5)


def _md5_now(path: Path) -> str | None:
    """DVC 3's md5 of a file or directory as it lies here; None when it is not checked out."""
    if path.is_file():
        return _md5_of_file(path)
    if not path.is_dir():
        return None
    files = sorted((file.relative_to(path).as_posix(), file) for file in path.rglob("*") if file.is_file())
    listing = json.dumps([{"md5": _md5_of_file(file), "relpath": relpath} for relpath, file in files])
    return hashlib.md5(listing.encode(), usedforsecurity=False).hexdigest() + ".dir"


def _md5_of_file(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
