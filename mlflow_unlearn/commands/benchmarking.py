"""What `benchmark tofu | muse | tasks` do, as functions from arguments to JSON-ready documents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from .. import muse_report, tofu_report
from ..adapters import bases, lm_eval, models
from ..adapters.benchmark_files import BenchmarkFiles, read_muse, read_tofu
from ..digests import canonical_json, write_atomically
from ..documents import encode
from ..engine.asked_sets import Asked
from ..errors import ConfigError
from ..metrics.truth_ratio import TruthRatio
from ..protocols import Subject

T = TypeVar("T")
About = dict[str, str]
QUESTION = "Question: {prompt}\nAnswer: "
VERBATIM_TOKENS, ANSWER_TOKENS, TEXT_TOKENS = 128, 32, 2048
"""MUSE's: longest continuation and longest answer; its texts are cut into pieces of at most 2,048 tokens."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """Which models are asked, with what, and where the answer goes."""

    models: Mapping[str, str]
    """State (original, unlearned, retrained) -> folder, `models:/NAME/VERSION` or hub id."""
    data: str = ""
    device: str = "auto"
    dtype: str = "float32"
    batch_tokens: int = 16384
    limit: int | None = None
    """Only the first so many records of each set; None: all."""
    bootstrap: int = 1000
    seed: int = 0
    out: Path | None = None
    """Folder for the document; None: it is only printed."""

    @property
    def settings(self) -> dict[str, Any]:
        """What else decides the figures."""
        return {name: getattr(self, name) for name in ("dtype", "batch_tokens", "limit", "bootstrap", "seed")}


@dataclass(frozen=True, kw_only=True)
class TofuAsked:
    """What is TOFU's own."""

    forget: str = "forget10"
    template: str = QUESTION
    """How a question is written for the model; `chat` for its own chat template."""
    truth_ratio: Literal["arithmetic", "geometric"] = "arithmetic"
    """`arithmetic` as in the paper; `geometric` as in the published code and tables."""
    max_new_tokens: int = 200


def tofu(run: Run, asked: TofuAsked) -> dict[str, Any]:
    """TOFU's forget and utility tables of every model given.

    Raises:
        ConfigError: a model or the data cannot be read.
        DataError: the data are not TOFU's, or a record is longer than a model takes.
        UnlearnError: a model answers with what is no number.
    """
    files = read_tofu(run.data, asked.forget)

    def subjects(model: Asked) -> dict[str, Subject]:
        return {name: model.questions(rows[: run.limit], asked.template, asked.max_new_tokens, name) for name, rows in files.records.items()}

    states = _each(run, lambda model: tofu_report.measure(subjects(model), TruthRatio(mean=asked.truth_ratio)))
    report = tofu_report.report({name: found for name, (found, _) in states.items()}, run.bootstrap, run.seed)
    return _document("tofu", run, files, (encode(report), _about(states)), encode(asked))


def muse(run: Run) -> dict[str, Any]:
    """MUSE's table of every model given.

    Raises:
        ConfigError: a model or the data cannot be read.
        DataError: the data are not MUSE's, or a record is longer than a model takes.
        UnlearnError: a model answers with what is no number.
    """
    files = read_muse(run.data)
    states = _each(run, lambda model: muse_report.measure(_muse_subjects(model, files, run.limit)))
    report = muse_report.report({name: found for name, (found, _) in states.items()}, run.bootstrap, run.seed)
    asked = {"template": QUESTION, "verbatim_tokens": VERBATIM_TOKENS, "answer_tokens": ANSWER_TOKENS, "text_tokens": TEXT_TOKENS}
    return _document("muse", run, files, (encode(report), _about(states)), asked)


def tasks(run: Run, harness: lm_eval.Harness) -> dict[str, Any]:
    """Tasks of lm-eval on every model given.

    Raises:
        ConfigError: a model cannot be read, or there is no such task.
        UnmeasurableError: lm-eval is not installed.
    """
    states = _each(run, lambda model: lm_eval.run(model.model, model.tokenizer, harness))
    report = {"states": {name: encode(found) for name, (found, _) in states.items()}}
    return _document("tasks", run, None, (report, _about(states)), encode({"tasks": harness.tasks, "shots": harness.shots, "chat": harness.chat}))


def _each(run: Run, measure: Callable[[Asked], T]) -> dict[str, tuple[T, About]]:
    """State -> what was measured, and on which weights."""
    return {state: _one(reference, run, measure) for state, reference in run.models.items()}


def _one(reference: str, run: Run, measure: Callable[[Asked], T]) -> tuple[T, About]:
    """The model is let go before the next one is loaded."""
    model, tokenizer, about = _loaded(reference, run)
    return measure(Asked(model=model, tokenizer=tokenizer, batch_tokens=run.batch_tokens)), about


def _about(states: Mapping[str, tuple[Any, About]]) -> dict[str, About]:
    return {name: about for name, (_, about) in states.items()}


def _loaded(reference: str, run: Run) -> tuple[Any, Any, About]:
    """Model, tokenizer and what they are."""
    if not reference.startswith("models:/") and not Path(reference).is_dir() and reference.partition("@")[0].count("/") != 1:
        raise ConfigError(f"{reference}: no such folder, and neither models:/NAME/VERSION nor a hub id (OWNER/NAME)")
    files = bases.fetch(reference)
    if files.task != "causal":
        raise ConfigError(f"{reference}: a sequence classifier writes no answers; benchmarks need a causal language model")
    model, tokenizer = bases.load(files, run.device, run.dtype)
    pinned = files.pinned
    return model, tokenizer, {"model": reference, "tensor_digest": pinned.tensor_digest, "tokenizer_digest": pinned.tokenizer_digest}


def _muse_subjects(model: Asked, files: BenchmarkFiles, limit: int | None) -> dict[str, Subject]:
    subjects: dict[str, Subject] = {}
    for side in ("forget", "retain"):
        name = f"{side}_questions"
        examples = "".join(f"{QUESTION.format(prompt=each.prompt)}{each.answer}\n\n" for each in files.records.get(f"{side}_examples", ()))
        if name in files.records:
            subjects[name] = model.questions(files.records[name][:limit], examples + QUESTION, ANSWER_TOKENS, name)
    if "verbatim" in files.records:
        subjects["verbatim"] = model.begun(files.records["verbatim"][:limit], VERBATIM_TOKENS, "verbatim")
    return subjects | {name: model.texts(texts[:limit], TEXT_TOKENS, name) for name, texts in files.texts.items()}


def _document(
    kind: str, run: Run, files: BenchmarkFiles | None, found: tuple[Mapping[str, Any], Mapping[str, About]], asked: Mapping[str, Any]
) -> dict[str, Any]:
    report, about = found
    data = {} if files is None else {"data": {"source": run.data, "files": files.files, "unchecked": list(files.unchecked)}}
    document = {
        "benchmark": kind,
        "models": encode(about),
        **report,
        **data,
        "settings": {**run.settings, **asked},
        "environment": models.environment(),
    }
    if run.out is not None:
        run.out.mkdir(parents=True, exist_ok=True)
        write_atomically(run.out / f"{kind}.json", canonical_json(document) + b"\n")
        document["written"] = str(run.out / f"{kind}.json")
    return document
