"""`mlflow.data.from_dvc(path)`: a dataset under DVC as an MLflow dataset input, so that a run says which data it learned from.

MLflow checks the annotation of the constructor with issubclass, so this module must not postpone the evaluation of annotations.
"""

from pathlib import Path, PurePath
from typing import Any

from mlflow.data.dataset import Dataset
from mlflow.data.pyfunc_dataset_mixin import PyFuncConvertibleDatasetMixin, PyFuncInputsOutputs

from .dataset_source import DvcDatasetSource


class DvcDataset(Dataset, PyFuncConvertibleDatasetMixin):  # type: ignore[misc]  # MLflow has no types
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

    def to_pyfunc(self) -> PyFuncInputsOutputs:
        """The rows, as `to_evaluation_dataset` reads them."""
        return PyFuncInputsOutputs([self.to_evaluation_dataset().features_data])

    def to_evaluation_dataset(self, path: str | None = None, feature_names: list[str] | None = None) -> Any:
        """The rows of this very state for `mlflow.models.evaluate`, fetched aside and read; the copy is removed.

        Raises:
            StoreError: nobody has the bytes.
            DataError: the files are not Parquet, CSV or JSONL.
        """
        import tempfile

        from mlflow.data.evaluation_dataset import EvaluationDataset

        from ..adapters.evaluation_rows import read_frame

        with tempfile.TemporaryDirectory(prefix="mlflow-unlearn-") as folder:
            frame = read_frame(Path(self._source.load(folder)))
        return EvaluationDataset(frame, path=path, feature_names=feature_names, name=self.name, digest=self.digest)

    def to_dict(self) -> dict[str, str]:
        """Plain values, for MLflow's store."""
        return {**super().to_dict(), "profile": "{}", "schema": "{}"}


def from_dvc(path: str, rev: str | None = None, name: str | None = None, digest: str | None = None, repo: str | None = None) -> DvcDataset:
    """A DVC output as an MLflow dataset, in any Git repository with DVC.

    Without `rev` the bytes in the workspace are read once and hashed as DVC does: data changed since the last `dvc add`, `commit` or `repro` get
    the digest of what they are now, never that of what is recorded. Until they are committed no git revision holds them: the source says
    `dirty`, and a trace says unknown. A path inside an output stands for the output, of which it is a part.

    Args:
        path: the output (a file or directory under DVC) or something in it, relative to the current folder, or to the root of `repo`.
        rev: git revision to read its md5 from; default: the workspace, or the newest commit of a `repo` that has to be cloned.
        name: name of the dataset; default: the last part of `path`.
        digest: md5 that is expected of the output; anything else is refused.
        repo: another repository with DVC, a folder or a URL. Data that `dvc import` brought here are named by their path here, without it.

    Raises:
        LineageError: DVC does not track `path`, or it has another md5 than `digest`.
        ConfigError: this is not a Git and DVC repository.
        StoreError: git or a tracking file cannot be read.
    """
    from ..adapters.training_data import training_data
    from ..errors import LineageError

    data = training_data(path, rev, repo)
    if digest not in (None, data.md5):
        raise LineageError(f"{path}: expected md5 {digest}, found {data.md5}; run `dvc checkout` or `dvc commit`")
    return DvcDataset(source=DvcDatasetSource.of(data), name=name or PurePath(path).stem or data.path, digest=data.md5)
