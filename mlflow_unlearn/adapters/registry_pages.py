"""The same rows through MLflow's client: for servers, and for tables that are not the ones we know. Slower, by pages."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import ViewType

from .registry_files import KeptAnswers
from .registry_rows import DVC, DatasetRow, LoggedModelRow, RunRow, VersionRow, chunks, names_base, origin_tags, our_tags

_PAGE = 1000
_IDS_A_QUERY = 200
_THREADS = 8
_RUN_ID = re.compile(r"[\w-]+", re.ASCII)
"""Whoever registers a version may give it any text for its run, and a quote would be part of the question."""


@dataclass(frozen=True)
class PageRows:
    """Rows as a client pages through them."""

    client: MlflowClient
    kept: KeptAnswers
    """Inputs of ended runs: a search leaves them out, so that each run has to be asked for."""

    def versions(self) -> list[VersionRow]:
        """Every version that is not deleted; no prompts."""
        found = _pages(lambda token: self.client.search_model_versions(None, max_results=_PAGE, page_token=token))
        return [
            VersionRow(
                name=each.name, version=str(each.version), run_id=each.run_id or None, source=each.source or "", tags=our_tags(each.tags.items())
            )
            for each in found
        ]

    def untagged(self) -> list[VersionRow]:
        """The same: a page of versions has their tags."""
        return self.versions()

    def tags(self, versions: Collection[tuple[str, str]]) -> dict[tuple[str, str], dict[str, str]]:
        """(name, version) -> the tags that this project reads."""
        return {key: our_tags(self.client.get_model_version(*key).tags.items()) for key in versions}

    def aliases(self) -> dict[tuple[str, str], tuple[str, ...]]:
        """(name, version) -> aliases, sorted."""
        found: dict[tuple[str, str], tuple[str, ...]] = {}
        for model in _pages(lambda token: self.client.search_registered_models(None, max_results=_PAGE, page_token=token)):
            for alias, version in sorted(model.aliases.items()):
                found[model.name, str(version)] = (*found.get((model.name, str(version)), ()), alias)
        return found

    def runs(self, ids: Collection[str]) -> dict[str, RunRow]:
        """Runs by id; one that is gone for good is missing."""
        found: dict[str, RunRow] = {}
        for some in chunks({each for each in ids if _RUN_ID.fullmatch(each)}, _IDS_A_QUERY):
            runs = self._search_runs(f"attributes.run_id IN ({_quoted(some)})")
            read = self._models_read(runs)
            found |= {run.info.run_id: self._run(run, read[run.info.run_id]) for run in runs}
        self.kept.save()
        return found

    def logged_models(self, ids: Collection[str]) -> dict[str, LoggedModelRow]:
        """Logged models by id; a deleted one is missing."""
        found: dict[str, LoggedModelRow] = {}
        for some in chunks(ids, _IDS_A_QUERY):
            found |= {each.model_id: _logged_model(each) for each in self._search_models(f"model_id IN ({_quoted(some)})")}
        return found

    def readers(self, digests: Collection[str]) -> set[str]:
        """Ids of runs that have a dataset under DVC with one of these digests as an input."""
        wanted, found = set(digests), set()
        for some in chunks(wanted, _IDS_A_QUERY):
            for run in self._search_runs(f"dataset.digest IN ({_quoted(some)})"):
                inputs = [each.dataset for each in run.inputs.dataset_inputs]
                if any(dataset.source_type == DVC and dataset.digest in wanted for dataset in inputs):
                    found.add(run.info.run_id)
        return found

    def models_of(self, run_ids: Collection[str]) -> dict[str, tuple[str, ...]]:
        """Run -> ids of the logged models whose source it is."""
        found: dict[str, tuple[str, ...]] = {}
        for some in chunks(run_ids, _IDS_A_QUERY):
            for each in sorted(self._search_models(f"source_run_id IN ({_quoted(some)})"), key=lambda model: str(model.model_id)):
                found[each.source_run_id] = (*found.get(each.source_run_id, ()), each.model_id)
        return found

    @cached_property
    def _experiments(self) -> dict[str, str]:
        """Id -> name of every experiment, deleted ones too."""
        found = _pages(lambda token: self.client.search_experiments(ViewType.ALL, max_results=_PAGE, page_token=token))
        return {each.experiment_id: each.name for each in found}

    def _search_runs(self, question: str) -> list[Any]:
        return _pages(
            lambda token: self.client.search_runs(list(self._experiments), question, ViewType.ALL, max_results=_IDS_A_QUERY, page_token=token)
        )

    def _search_models(self, question: str) -> list[Any]:
        return _pages(lambda token: self.client.search_logged_models(list(self._experiments), question, max_results=_IDS_A_QUERY, page_token=token))

    def _models_read(self, runs: list[Any]) -> dict[str, tuple[str, ...]]:
        """Run -> logged models that are its inputs."""
        known = {run.info.run_id: self.kept.get(run.info.run_id, run.info.end_time) for run in runs}
        with ThreadPoolExecutor(_THREADS) as pool:
            asked = dict(pool.map(self._model_inputs, [run_id for run_id, kept in known.items() if kept is None]))
        for run in runs:
            if run.info.run_id in asked and run.info.end_time:
                self.kept.keep(run.info.run_id, run.info.end_time, list(asked[run.info.run_id]))
        return {run_id: tuple(kept if kept is not None else asked[run_id]) for run_id, kept in known.items()}

    def _model_inputs(self, run_id: str) -> tuple[str, list[str]]:
        return run_id, sorted(each.model_id for each in self.client.get_run(run_id).inputs.model_inputs)

    def _run(self, run: Any, read: tuple[str, ...]) -> RunRow:
        return RunRow(
            run_id=run.info.run_id,
            experiment=self._experiments[run.info.experiment_id],
            tags=origin_tags(run.data.tags),
            params=_base_params(run.data.params),
            datasets=tuple(sorted(_dataset(each.dataset) for each in run.inputs.dataset_inputs)),
            read=read,
            made=tuple(sorted(each.model_id for each in (run.outputs.model_outputs if run.outputs else ()))),
        )


def _dataset(dataset: Any) -> DatasetRow:
    source = "" if dataset.source_type == DVC else dataset.source
    return DatasetRow(name=dataset.name, digest=dataset.digest, source_type=dataset.source_type, source=source)


def _logged_model(model: Any) -> LoggedModelRow:
    return LoggedModelRow(
        model_id=model.model_id,
        run_id=model.source_run_id or None,
        location=model.artifact_location,
        tags=origin_tags(model.tags),
        params=_base_params(model.params),
    )


def _base_params(params: Any) -> dict[str, str]:
    return {key: value for key, value in params.items() if names_base(key, str(value))}


def _quoted(ids: Collection[str]) -> str:
    return ",".join(f"'{each}'" for each in ids)


def _pages(page: Callable[[str | None], Any]) -> list[Any]:
    found, token = [], None
    while True:
        some = page(token)
        found += some
        token = some.token
        if not token:
            return found
