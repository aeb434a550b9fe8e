"""An ensemble as an MLflow model: `mlflow.pyfunc.load_model` and `mlflow models serve` answer questions with it. MLflow imports this module by name.

It needs the files and, for adapters, their base; no tag key, no ledger, no git and no DVC. Whoever asks may say whom the question is about by the
keyed tag of the subject (`mlflow-unlearn tag`): it says which shard would hold that person, never whether anybody is in it.
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import pandas
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from ..engine.ensemble import Ensemble, EnsembleSubject
from ..engine.examples import encode, encode_classes
from ..ensembles import Aggregation, EnsembleManifest
from ..errors import UnlearnError
from ..protocols import Example
from .ensembles import load
from .logged_models import MAX_NEW_TOKENS

PROMPT, SUBJECT_TAG = "prompt", "subject_tag"
MOST_NEW_TOKENS = 1024
_TAG = re.compile("[0-9a-f]{32}")


@dataclass(frozen=True, kw_only=True, eq=False)
class ServedEnsemble:
    """What MLflow calls."""

    ensemble: Ensemble
    tokenizer: Any
    manifest: EnsembleManifest
    lock: threading.Lock = field(default_factory=threading.Lock)
    """MLflow's server asks from many threads, and shards over one base share the base's forward pass: one question after another."""

    def predict(self, model_input: Any, params: Mapping[str, Any] | None = None) -> pandas.DataFrame:
        """Answers in the order of the questions.

        Args:
            model_input: a DataFrame or a list of mappings: `prompt`, and `subject_tag` (32 hex characters) where it is known whom it is about.
            params: `max_new_tokens` and `aggregation` (confident | average | vote), for questions about nobody known.

        Returns:
            `answer`, and `shard`: which one answered, null where several did.

        Raises:
            MlflowException: a column is missing or of another type, or a value is not what is expected.
        """
        rows = pandas.DataFrame(model_input)
        prompts, tags = _prompts(rows), _tags(rows)
        asked = _Params.of(params or {}, self.manifest)
        ensemble = replace(self.ensemble, aggregation=asked.aggregation)
        try:
            examples = self._examples(prompts)
            subject = EnsembleSubject(
                ensemble=ensemble,
                tokenizer=self.tokenizer,
                examples=examples,
                answers=[""] * len(prompts),
                known=[ensemble.owner_shard(tag) for tag in tags],
                max_new_tokens=min(asked.max_new_tokens, _room(ensemble, examples)),
            )
            with self.lock:
                answered = {"answer": list(subject.generations), "shard": pandas.Series(subject.shards, dtype=object)}
        except UnlearnError as error:
            raise _refused(str(error)) from error
        return pandas.DataFrame(answered)

    def _examples(self, prompts: Sequence[str]) -> list[Example]:
        """Questions in the model's tokens; the answers and classes that examples have are not looked at."""
        if self.manifest.task == "causal":
            return encode(self.tokenizer, self.manifest.template, prompts, [""] * len(prompts))
        classes = dict(self.ensemble.experts.config.label2id)
        return encode_classes(self.tokenizer, self.manifest.template, prompts, [next(iter(classes))] * len(prompts), classes)


@dataclass(frozen=True, kw_only=True)
class _Params:
    max_new_tokens: int
    aggregation: Aggregation

    @classmethod
    def of(cls, given: Mapping[str, Any], manifest: EnsembleManifest) -> _Params:
        if unknown := sorted(given.keys() - {"max_new_tokens", "aggregation"}):
            raise _refused(f"params: expected max_new_tokens and aggregation, found also {', '.join(unknown)}")
        longest, aggregation = given.get("max_new_tokens", MAX_NEW_TOKENS), given.get("aggregation", manifest.aggregation)
        if isinstance(longest, bool) or not isinstance(longest, int) or not 1 <= longest <= MOST_NEW_TOKENS:
            raise _refused(f"params: max_new_tokens: expected a whole number from 1 to {MOST_NEW_TOKENS}")
        if aggregation not in get_args(Aggregation):
            raise _refused(f"params: aggregation: expected one of {', '.join(get_args(Aggregation))}")
        return cls(max_new_tokens=longest, aggregation=aggregation)


def _load_pyfunc(path: str, model_config: Mapping[str, Any] | None = None) -> ServedEnsemble:
    """What MLflow calls with the ensemble's folder; `device` of the model config is one of params.yaml's.

    Raises:
        MlflowException: the files are not what ensemble.json says, or the base cannot be had.
    """
    try:
        ensemble, tokenizer, manifest = load(Path(path), str((model_config or {}).get("device", "auto")))
    except UnlearnError as error:
        raise MlflowException(str(error)) from error
    return ServedEnsemble(ensemble=ensemble, tokenizer=tokenizer, manifest=manifest)


def _prompts(rows: pandas.DataFrame) -> list[str]:
    if unknown := sorted(str(name) for name in set(rows.columns) - {PROMPT, SUBJECT_TAG}):
        raise _refused(f"expected the columns {PROMPT} and, where known, {SUBJECT_TAG}; found {len(unknown)} others")
    if PROMPT not in rows.columns:
        raise _refused(f"expected a column {PROMPT} with one question a row, found none; {SUBJECT_TAG} is the other column there may be")
    prompts: list[str] = rows[PROMPT].tolist()
    if wrong := [number for number, prompt in enumerate(prompts) if not isinstance(prompt, str) or not prompt.strip()]:
        raise _refused(f"{PROMPT}: expected text in every row, found none in row {wrong[0]}" + (f" and {len(wrong) - 1} others" if wrong[1:] else ""))
    return prompts


def _tags(rows: pandas.DataFrame) -> list[str | None]:
    if SUBJECT_TAG not in rows.columns:
        return [None] * len(rows)
    tags = [None if _is_missing(value) else value for value in rows[SUBJECT_TAG].tolist()]
    wrong = [number for number, tag in enumerate(tags) if tag is not None and not (isinstance(tag, str) and _TAG.fullmatch(tag))]
    if wrong:
        raise _refused(
            f"{SUBJECT_TAG}: expected 32 hex characters as `mlflow-unlearn tag` gives them, or nothing; found something else in row {wrong[0]}"
            f"{f' and {len(wrong) - 1} others' if wrong[1:] else ''}. Never send the id itself"
        )
    return tags


def _is_missing(value: object) -> bool:
    return value is None or value is pandas.NA or value == "" or (isinstance(value, float) and math.isnan(value))


def _room(ensemble: Ensemble, examples: Sequence[Example]) -> int:
    """How many tokens fit behind the longest prompt."""
    longest = max((example.prompt_length for example in examples), default=0)
    limit = getattr(ensemble.experts.config, "max_position_embeddings", None)
    room = MOST_NEW_TOKENS if limit is None else int(limit) - longest
    if room < 1:
        raise _refused(f"{PROMPT}: the longest has {longest} tokens, the model takes {limit} with its answer; ask a shorter question")
    return room


def _refused(words: str) -> MlflowException:
    """400 for a client of the server; no word of what was asked."""
    return MlflowException(words, error_code=INVALID_PARAMETER_VALUE)
