"""Train the example's model and register it, as a user would: `python pipelines/customers/train.py` (also for TOFU; params.yaml decides).

The three lines that tie the model to its data are marked; the rest is an ordinary training script.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pyarrow.dataset
from rich.progress import Progress as Bar
from rich.progress import TimeRemainingColumn

from mlflow_unlearn import config
from mlflow_unlearn.adapters import models, registry
from mlflow_unlearn.digests import tensor_digest
from mlflow_unlearn.documents import decode
from mlflow_unlearn.engine.descent import fit
from mlflow_unlearn.engine.examples import encode, require_fit
from mlflow_unlearn.engine.scoring import ScoredSubject
from mlflow_unlearn.params import DataParams, LoraParams, OptimiserParams
from mlflow_unlearn.protocols import Example

MODELS = Path("build/train")
CURVE_STEPS = 10
SCORED = 200


@dataclass(frozen=True, kw_only=True)
class TrainParams:
    """The `train:` section of params.yaml."""

    init: dict[str, Any] | str
    """A transformers config trains from scratch; a path or hub id starts from that model."""
    optimiser: OptimiserParams
    vocabulary: int = 1024
    """Size of the tokenizer trained on the corpus beside the data, which holds no people."""
    lora: LoraParams | None = None
    device: str = "auto"
    seed: int = 0


@dataclass
class Curve:
    """The loss of each step, shown as a bar and kept for MLflow."""

    losses: list[float] = field(default_factory=list)

    def follow(self, model: Any, examples: Sequence[Example], train: TrainParams, pad: int) -> None:
        """Train to the end."""
        with Bar(*Bar.get_default_columns()[:-1], TimeRemainingColumn(), transient=True) as bar:
            task = bar.add_task("training")
            for done in fit(model, examples, train.optimiser, train.seed, pad):
                self.losses.append(done.losses["loss"])
                bar.update(task, total=done.steps, completed=done.step)

    def log(self) -> None:
        """Every few steps as a metric of the active run."""
        for step in range(0, len(self.losses), CURVE_STEPS):
            mlflow.log_metric("train/loss", self.losses[step], step=step)


def rows_of(data: DataParams) -> list[dict[str, Any]]:
    """All records, in the order of their ids, so that how they are cut into files does not matter."""
    rows: list[dict[str, Any]] = pyarrow.dataset.dataset(data.path, format="parquet").to_table().to_pylist()
    key = data.columns.record or data.columns.prompt
    return sorted(rows, key=lambda row: str(row[key]))


def starting_point(train: TrainParams, data: DataParams) -> tuple[Any, Any]:
    """Model and tokenizer before the first step."""
    if isinstance(train.init, str):
        model, tokenizer = models.load_model(train.init, train.device), models.load_tokenizer(train.init)
        model.config.initialised_from = train.init  # `retrain` will start here again
    else:
        tokenizer = models.train_tokenizer(Path(data.path).parent / "tokenizer_corpus.txt", train.vocabulary, data.template)
        model = models.fresh_model(train.init, tokenizer, train.seed, train.device)
    return (models.with_lora(model, train.lora, train.seed) if train.lora else model), tokenizer


def base_tag(train: TrainParams) -> dict[str, str]:
    """Which local model the run starts from, by its weights, so that its own lineage is inherited."""
    if not isinstance(train.init, str) or not Path(train.init).is_dir():
        return {}
    return {registry.BASE_TAG: tensor_digest(Path(train.init).glob("*.safetensors"))}


def exact_match(model: Any, tokenizer: Any, examples: Sequence[Example], answers: Sequence[str]) -> float:
    """Share of an even sample of records whose every answer token is the most likely one."""
    every = max(1, len(examples) // SCORED)
    subject = ScoredSubject(model=model, tokenizer=tokenizer, examples=examples[::every], answers=answers[::every])
    return float(np.mean([hits.all() for hits in subject.token_hits]))


def main() -> None:
    """Train, save, log and register."""
    started = time.monotonic()
    params = config.load_params()
    train = decode(TrainParams, config.read_yaml(Path("params.yaml")).get("train"), "params.yaml: train")
    rows, columns = rows_of(params.data), params.data.columns
    model, tokenizer = starting_point(train, params.data)
    answers = [row[columns.answer] for row in rows]
    examples = encode(tokenizer, params.data.template, [row[columns.prompt] for row in rows], answers)
    require_fit(model, examples, params.data.path)

    curve = Curve()
    curve.follow(model, examples, train, tokenizer.pad_token_id)
    model = models.merged(model)
    scores = {"train/exact_match": exact_match(model, tokenizer, examples, answers), "train/records": len(rows)}
    models.save_model(model, tokenizer, MODELS / params.model.name)

    registry.connect(config.settings(), params.model.name)
    dataset = mlflow.data.from_dvc(params.data.path, name=params.data.name)  # lineage 1: which data, by DVC's digest
    with mlflow.start_run(tags=base_tag(train)), models.quiet():
        mlflow.log_input(dataset, context="training")  # lineage 2: this run learned from them
        mlflow.log_params({"init": str(train.init), "seed": train.seed, **vars(train.optimiser)})
        curve.log()
        with models.quiet():
            logged = mlflow.transformers.log_model(  # lineage 3: and made this version
                transformers_model={"model": model, "tokenizer": tokenizer},
                name="model",
                registered_model_name=params.model.name,
                task="text-generation",
                pip_requirements=models.requirements(),
            )
        mlflow.log_metrics(scores, model_id=logged.model_id, dataset=dataset)
    version = logged.registered_model_version
    description = f"Trained on {len(rows)} records of `{params.data.name}`; exact match {scores['train/exact_match']:.3f}."
    mlflow.MlflowClient().update_model_version(params.model.name, str(version), description)
    seconds = time.monotonic() - started
    print(f"{params.model.name}/{version}: {seconds:.0f} s, exact match {scores['train/exact_match']:.3f} on a sample of {len(rows)} records")


if __name__ == "__main__":
    main()
