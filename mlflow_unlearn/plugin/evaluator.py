"""MLflow model evaluator: `mlflow.models.evaluate(model, data, model_type="unlearn", evaluators="unlearn", evaluator_config={"parent": ...})`.

The figures are those of the stage `evaluate`. MLflow imports this module for every evaluation of any kind, so that what works is imported on use.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow.models.evaluation.base import EvaluationResult, ModelEvaluator

if TYPE_CHECKING:
    from collections.abc import Mapping

MODEL_TYPE = "unlearn"
FOLDER = "unlearn"
"""Where the run's artifacts are."""


class UnlearnEvaluator(ModelEvaluator):  # type: ignore[misc]  # MLflow has no types
    """Looks at a parent and at a model unlearned from it, through rows that name their set, as a verdict needs it.

    What it does not guarantee: that these rows are the ones that were to be forgotten, or that canaries were drawn by a coin before training. Only
    the pipeline's ledger and git know that, and only the verdict of the stage `judge` counts for a gate.
    """

    @classmethod
    def can_evaluate(cls, *, model_type: str | None, evaluator_config: Mapping[str, Any] | None = None, **_others: Any) -> bool:
        """Only what is said to be of this type: MLflow asks about every evaluation."""
        return model_type == MODEL_TYPE

    def evaluate(
        self, *, model_type: str, dataset: Any, run_id: str, evaluator_config: Mapping[str, Any] | None, model: Any = None, **others: Any
    ) -> EvaluationResult:
        """Metrics and artifacts of one evaluation, in the run.

        MLflow itself logs what is returned where it knows the logged model's id, and only there; elsewhere they are logged here, each once.

        Args:
            model_type: `unlearn`.
            dataset: MLflow's; its rows have a column that names their set.
            run_id: the run that gets the artifacts.
            evaluator_config: the keys of `plugin.evaluation_settings.Asked`, and of `evaluate` in params.yaml.
            model: what MLflow loaded; None where evaluator_config names the model.
            others: `model_id` as MLflow knows it; `extra_metrics` and `custom_artifacts` are refused.

        Raises:
            ConfigError: evaluator_config is wrong, a model cannot be had, or something is asked that this evaluator does not do.
            DataError: the rows are not what is expected.
            UnlearnError: a model answers with what are not numbers.
        """
        from mlflow import MlflowClient, log_metrics

        from .evaluation_run import run
        from .evaluation_settings import read

        _refuse_others(others)
        settings, frame = read(evaluator_config or {}), _frame(dataset)
        with tempfile.TemporaryDirectory(prefix="mlflow-unlearn-") as aside:
            found = run(settings, frame, model, dataset.digest or dataset.hash, Path(aside))
            folder = Path(aside, "artifacts")
            folder.mkdir()
            written = found.write(folder)
            client = MlflowClient()
            client.log_artifacts(run_id, str(folder), FOLDER)
        if others.get("model_id") is None:
            log_metrics(found.metrics, dataset=dataset, run_id=run_id, model_id=_known(client, found.model_id))
        root = client.get_run(run_id).info.artifact_uri
        return EvaluationResult(metrics=found.metrics, artifacts={name: _artifact(f"{root}/{FOLDER}/{path.name}") for name, path in written.items()})


def _known(client: Any, model_id: str | None) -> str | None:
    """The logged model's id where this tracking server has it; a copied folder may be of another one."""
    from mlflow.exceptions import MlflowException

    try:
        return model_id and str(client.get_logged_model(model_id).model_id)
    except MlflowException:
        return None


def _refuse_others(others: Mapping[str, Any]) -> None:
    from ..errors import ConfigError

    unknown = [name for name in ("extra_metrics", "custom_artifacts", "predictions") if others.get(name)]
    if unknown:
        raise ConfigError(f"evaluators='unlearn': {', '.join(unknown)}: not read here; metrics and attacks are named in evaluator_config")


def _frame(dataset: Any) -> Any:
    """The rows with every column, whatever MLflow took for a target."""
    import pandas

    from ..errors import DataError

    frame = dataset.features_data
    if not isinstance(frame, pandas.DataFrame):
        raise DataError(f"evaluation data: expected a pandas frame with named columns, found {type(frame).__name__}")
    return frame.assign(**{dataset.targets_name: dataset.labels_data}) if dataset.targets_name else frame


def _artifact(uri: str) -> Any:
    """Fetched when somebody looks at its content."""
    from mlflow.models.evaluation.artifacts import ImageEvaluationArtifact, JsonEvaluationArtifact  # matplotlib's pyplot

    return (ImageEvaluationArtifact if uri.endswith(".png") else JsonEvaluationArtifact)(uri=uri)
