"""`mlflow.data.from_dvc(path)`: a dataset under DVC as an MLflow dataset input, so that a run says which data it learned from.

MLflow checks the annotation of the constructor with issubclass, so this module must not postpone the evaluation of annotations.
"""

from pathlib import Path
from typing import Any

from mlflow.data.dataset import Dataset

from .dataset_source import DvcDatasetSource


class DvcDataset(Dataset):
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

    Args:
        path: the output (a file or directory under DVC), relative to the current folder.
        rev: git revision to read its md5 from; default: the workspace's dvc.lock or .dvc file.
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
    md5 = output.md5 if output else project.current_state(name, inside).md5
    if digest not in (None, md5):
        raise LineageError(f"{path}: expected md5 {digest}, DVC records {md5}; run `dvc checkout` or `dvc commit`")
    return DvcDataset(source=DvcDatasetSource(path=inside, md5=md5, rev=rev or project.head(), repo=None), name=name, digest=md5)
