"""MLflow dataset source `dvc`: a DVC output by path, md5 and git revision, from which the bytes can be fetched again."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from mlflow.data.dataset_source import DatasetSource


class DvcDatasetSource(DatasetSource):  # type: ignore[misc]  # MLflow has no types
    """Where a dataset under DVC comes from; its bytes are read through DVC's cache or remote."""

    def __init__(self, path: str, md5: str, rev: str | None = None, repo: str | None = None) -> None:
        self.path, self.md5, self.rev, self.repo = path, md5, rev, repo

    @staticmethod
    def _get_source_type() -> str:
        return "dvc"

    def load(self) -> str:
        """Copy the files of this very state into a new temporary folder; its path."""
        from ..adapters.dvc_project import DvcProject
        from ..config import git_root

        project = DvcProject(git_root(Path.cwd()))
        folder = Path(tempfile.mkdtemp(prefix="dvc-dataset-"))
        for relpath, md5 in project.files(self.md5):
            target = folder / (relpath or Path(self.path).name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(project.local_path(md5).read_bytes())
        return str(folder)

    @staticmethod
    def _can_resolve(raw_source: Any) -> bool:
        return isinstance(raw_source, dict) and raw_source.get("type") == "dvc"

    @classmethod
    def _resolve(cls, raw_source: Any) -> DvcDatasetSource:
        return cls.from_dict(raw_source)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for MLflow's store."""
        return {"path": self.path, "md5": self.md5, "rev": self.rev, "repo": self.repo}

    @classmethod
    def from_dict(cls, source_dict: dict[Any, Any]) -> DvcDatasetSource:
        """The source that `to_dict` described."""
        return cls(**{key: source_dict.get(key) for key in ("path", "md5", "rev", "repo")})  # type: ignore[arg-type]
