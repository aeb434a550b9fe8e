"""Runs, logged models and versions in a real store, made through MLflow's client as libraries make them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, LoggedModelInput, LoggedModelOutput

from mlflow_unlearn.adapters.registry import Registry, connect
from mlflow_unlearn.config import Settings
from mlflow_unlearn.lineage import ModelVersion

MD5, OTHER = "a" * 32 + ".dir", "b" * 32


def registry_at(root: Path, uri: str) -> Registry:
    return connect(Settings(root=root, tag_key_file=root / "tag.key", ledger_uri="sqlite://", tracking_uri=uri), "customers")


def dataset(name: str, digest: str, kind: str = "dvc", source: str = "{}") -> DatasetInput:
    return DatasetInput(dataset=Dataset(name=name, digest=digest, source_type=kind, source=source), tags=[])


@dataclass(frozen=True)
class Maker:
    """Makes runs, logged models and versions through a client, as libraries do."""

    client: MlflowClient
    experiment: str

    def run(self, *inputs: DatasetInput, read: tuple[str, ...] = (), tags: dict[str, str] | None = None, params: dict[str, str] | None = None) -> str:
        run_id: str = self.client.create_run(self.experiment, tags=tags).info.run_id
        for key, value in (params or {}).items():
            self.client.log_param(run_id, key, value)
        self.client.log_inputs(run_id, list(inputs), [LoggedModelInput(model_id=each) for each in read])
        self.client.set_terminated(run_id)
        return run_id

    def logged(self, run_id: str | None, tags: dict[str, str] | None = None, params: dict[str, str] | None = None) -> str:
        model = self.client.create_logged_model(self.experiment, name="model", source_run_id=run_id, tags=tags, params=params)
        if run_id:
            self.client.log_outputs(run_id, [LoggedModelOutput(model_id=model.model_id, step=0)])
        return str(model.model_id)

    def version(self, name: str, run_id: str | None = None, source: str | None = None, tags: dict[str, str] | None = None) -> ModelVersion:
        source = source or f"models:/{self.logged(run_id)}"
        if name not in {each.name for each in self.client.search_registered_models()}:
            self.client.create_registered_model(name)
        made = self.client.create_model_version(
            name, source, run_id, tags=tags, model_id=source.removeprefix("models:/") if "/m-" in source else None
        )
        return ModelVersion(name=name, version=str(made.version))

    def trained(self, name: str, *inputs: DatasetInput, **run: object) -> tuple[ModelVersion, str]:
        """A version with its run and logged model; the latter's id too."""
        run_id = self.run(*inputs, **run)  # type: ignore[arg-type]
        model_id = self.logged(run_id)
        return self.version(name, run_id, f"models:/{model_id}"), model_id


def every_kind(make: Maker) -> None:
    """Trained, fine-tuned, through an unregistered model, merged, quantised, unlearned, copied, deleted, without a run, foreign, a prompt."""
    client = make.client
    base, base_id = make.trained("base", dataset("customers", MD5))
    make.trained("tuned", dataset("invoices", OTHER), read=(base_id,), params={"lr": "1", "base_model_name_or_path": "org/public"})
    between = make.logged(make.run(dataset("calls", OTHER)))
    make.trained("tuned", dataset("customers", OTHER), dataset("customers", MD5), read=(between,))
    make.trained("tuned", dataset("synthetic", "1", "code", f'{{"uri": "models:/{base}"}}'), dataset("web", "2", "http", '{"url": "http://x"}'))
    make.version("merged", tags={"unlearn.base_model": "models:/base/1, models:/tuned/1"})
    make.version("merged", tags={"unlearn.base_model": base_id, "unlearn.relation": "quantised", "other": "tag"})
    make.version("merged", make.run(params={"trainer.base_model": "models:/gone/7"}))
    make.version("base", make.run(tags={"unlearn.lineage.problem": "git is missing", "unlearn.dvc.x": MD5}))
    make.version("base", tags={"unlearn.dvc.customers": MD5, "unlearn.parent": "base/1", "unlearn.request": "er-1,er-2"})
    client.copy_model_version("models:/base/1", "production")
    client.set_registered_model_alias("production", "champion", "1")
    client.set_registered_model_alias("production", "best", "1")
    gone = make.version("base")
    client.delete_model_version(gone.name, gone.version)
    client.delete_run(make.client.get_model_version("tuned", "1").run_id)
    client.delete_logged_model(make.trained("tuned", dataset("customers", MD5))[1])
    client.register_prompt("a-prompt", "say {{what}}")
