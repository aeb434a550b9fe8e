"""MLflow dataset source `dvc`: an output under DVC by path, md5, commit and repository, from which the bytes can be fetched again anywhere."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow.data.dataset_source import DatasetSource

if TYPE_CHECKING:
    from ..adapters.training_data import TrainingData

_FIELDS = ("path", "md5", "rev", "repo", "repository", "dirty", "part")


class DvcDatasetSource(DatasetSource):  # type: ignore[misc]  # MLflow has no types
    """Where a dataset under DVC comes from; the fields are those of `adapters.training_data.TrainingData`."""

    def __init__(self, path: str, md5: str, rev: str | None = None, **origin: Any) -> None:
        unknown = origin.keys() - set(_FIELDS)
        if unknown:
            raise TypeError(f"{', '.join(sorted(unknown))}: not a field of a DVC source; there are {', '.join(_FIELDS)}")
        self.path, self.md5, self.rev = path, md5, rev
        self.repo: str | None = origin.get("repo")
        self.repository: str | None = origin.get("repository")
        self.dirty: bool = origin.get("dirty") is True
        self.part: str | None = origin.get("part")

    @classmethod
    def of(cls, data: TrainingData) -> DvcDatasetSource:
        """The source of these data."""
        return cls(**asdict(data))

    @staticmethod
    def _get_source_type() -> str:
        return "dvc"

    def load(self, dst_path: str | None = None) -> str:
        """Copy the files of this very state into a folder, checked against the digest; its path.

        Args:
            dst_path: an empty folder, or one to make; default: a new temporary folder, which is the caller's to remove.

        Raises:
            StoreError: neither the current repository nor the one it came from has the bytes; the folder is not empty.
            TamperedError: the bytes that were found are others than the digest names.
        """
        import shutil
        import tempfile

        from ..adapters.training_data import TrainingData, load
        from ..errors import StoreError, UnlearnError

        if dst_path is not None and Path(dst_path).exists() and any(Path(dst_path).iterdir()):
            raise StoreError("dst_path: the folder is not empty; name a new one")
        folder = Path(dst_path or tempfile.mkdtemp(prefix="dvc-dataset-"))
        folder.mkdir(parents=True, exist_ok=True)
        try:
            load(TrainingData(**self.to_dict()), folder)
        except (UnlearnError, OSError):
            shutil.rmtree(folder)  # half a dataset must not look like one
            raise
        return str(folder)

    @staticmethod
    def _can_resolve(raw_source: Any) -> bool:
        return isinstance(raw_source, dict) and raw_source.get("type") == "dvc"

    @classmethod
    def _resolve(cls, raw_source: Any) -> DvcDatasetSource:
        return cls.from_dict(raw_source)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for MLflow's store."""
        return {field: getattr(self, field) for field in _FIELDS}

    @classmethod
    def from_dict(cls, source_dict: dict[Any, Any]) -> DvcDatasetSource:
        """The source that `to_dict` described, by this version or another."""
        origin = {field: source_dict.get(field) for field in _FIELDS if field not in ("path", "md5")}
        return cls(source_dict["path"], source_dict["md5"], **origin)
