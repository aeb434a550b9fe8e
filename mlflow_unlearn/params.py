"""The sections of params.yaml as frozen values: their fields are its keys, their docstrings say unit and effect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ModelParams:
    """Which registered model the pipeline makes forget."""

    name: str
    """Name in the registry."""
    parent: str
    """The version to unlearn: `models:/NAME@ALIAS` or `models:/NAME/VERSION`. Pinned when a batch of requests is first traced."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of the dataset's columns. None means that the data has no such column."""

    record: str | None = "record_id"
    """Unique id of a record; without one the content's keyed tag is the id."""
    subject: str = "subject_id"
    """Whom the record is about; empty for general facts."""
    prompt: str = "question"
    answer: str = "answer"
    paraphrase: str | None = None
    """The question in other words."""
    paraphrased_answer: str | None = None
    """The answer in other words."""
    wrong_answers: str | None = None
    """A list of wrong answers."""
    subject_name: str | None = None
    """The name by which prompt and answer call the subject; lets a record be compared with the same one about a stranger."""
    group: str | None = None
    """People with the same value are neighbours."""


@dataclass(frozen=True, kw_only=True)
class AlsoData:
    """Another DVC output about the same people: indexed too, so that what was trained on it can be decided exactly."""

    name: str
    path: str
    """Relative to this params.yaml."""
    columns: Columns | None = None
    """None: the columns of the main dataset."""
    records_of: str | None = None
    """The dataset whose record ids the rows keep. Say so only if a row holds text of that one record and of no other."""


@dataclass(frozen=True, kw_only=True)
class DataParams:
    """The dataset the model was trained on, as DVC tracks it."""

    name: str
    path: str
    """A DVC output: a directory or file of Parquet, JSONL or CSV, relative to this params.yaml."""
    columns: Columns = field(default_factory=Columns)
    earlier_columns: tuple[Columns, ...] = ()
    """Names that the columns had in earlier revisions, tried in turn where the present ones are missing."""
    also: tuple[AlsoData, ...] = ()
    """Other datasets about these people, and outputs derived from this one that keep record ids."""
    holdout: str | None = None
    """Records of people never trained on, same columns."""
    general: str | None = None
    """Records about no person, for utility; they may be part of the training data."""
    canaries: str | None = None
    """Coin flips committed before training: record id, pool (audit | tuning), included; and the excluded records' texts."""
    template: str = "Question: {prompt}\nAnswer: "
    """How a prompt is written for the model; `chat` uses the tokenizer's own chat template. The answer and an end token follow."""

    def __post_init__(self) -> None:
        if any((each.record is None) != (self.columns.record is None) for each in self.earlier_columns):
            raise ConfigError("earlier_columns: give `record` in all of them or in none: a record is known by its id or by its content, not by both")


@dataclass(frozen=True, kw_only=True)
class LoraParams:
    """Low-rank adapters (Hu et al. 2021) instead of full weights."""

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    target_modules: tuple[str, ...] | Literal["all-linear"] = "all-linear"


@dataclass(frozen=True, kw_only=True)
class OptimiserParams:
    """AdamW and its schedule."""

    epochs: int
    """Passes over the set that drives the run (forget for unlearning, data for training)."""
    learning_rate: float
    batch_size: int = 64
    """Records per optimiser step."""
    token_budget: int = 8192
    """Most padded tokens in one micro-batch; changes the result by rounding only, and by what dropout draws where there is any."""
    weight_decay: float = 0.01
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """What the learning rate does after the warm-up: half a cosine down to zero, a straight line down to zero, or nothing."""
    warmup_fraction: float = 0.05
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        low = [k for k in ("epochs", "batch_size", "token_budget") if getattr(self, k) < 1]
        low += [k for k in ("learning_rate", "max_grad_norm") if getattr(self, k) <= 0]
        if low:
            raise ConfigError(f"{', '.join(low)} must be above zero")
        out = [k for k in ("warmup_fraction", "weight_decay") if not 0 <= getattr(self, k) <= 1]
        if out:
            raise ConfigError(f"{', '.join(out)} must lie between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class SelectionParams:
    """Which step of a run is kept and when it stops; decided on tuning canaries and on retained records that no verdict looks at."""

    every: int = 10
    """Look every so many steps; 0 never looks, keeps the last step and never stops early."""
    forget_target: float = 0.5
    """Stop once the tuning canaries' AUC is at most this at a step that keeps utility: 0.5 is like records never seen."""
    utility_margin: float = 0.02
    """How much the mean loss on watched retained records may exceed the parent's before a step counts as damaged, nats per token. Measured on a small
    model that had memorised TOFU: 0.01 more left 0.99 of the retained answers word for word, 0.02 more 0.9, 0.07 more 0.6."""
    kept_sample: int = 200
    """Retained records that are watched."""

    def __post_init__(self) -> None:
        if min(self.every, self.utility_margin, self.kept_sample) < 0 or not 0 <= self.forget_target <= 1:
            raise ConfigError("every, utility_margin and kept_sample must not be below zero, forget_target must lie between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class UnlearnParams:
    """How to forget."""

    method: Mapping[str, Any]
    """`name` and the settings of one file in methods/."""
    optimiser: OptimiserParams
    strategy: Literal["approximate", "exact"] = "approximate"
    seed: int = 0
    device: str = "auto"
    """`auto` (cuda where there is one), `cpu`, `cuda:0`, ..."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    lora: LoraParams | None = None
    activation_checkpointing: Literal["auto", "on", "off"] = "auto"
    """Make activations again in the backward pass instead of keeping them; `auto` where they would not fit into the accelerator's memory."""
    processes: int = 1
    """Processes that share the model (FSDP2), one an accelerator; the result is the same up to rounding."""
    checkpoint_minutes: float | None = 2.0
    """Keep the state of the run at most so often, so that it goes on after a kill; 0 after every step, null never."""
    selection: SelectionParams = field(default_factory=SelectionParams)

    def __post_init__(self) -> None:
        if self.processes < 1 or (self.checkpoint_minutes or 0) < 0:
            raise ConfigError("processes must be at least 1 and checkpoint_minutes not below zero")


@dataclass(frozen=True, kw_only=True)
class ExactParams:
    """Sharded training for the exact route: what decides which weights a shard gets."""

    shards: tuple[int, ...]
    """0, 1, ... up to one less than their number, written out: DVC makes one stage of each. Another number is another family of models."""
    base: str
    """What every shard starts from: a folder, a hub id (`id@revision` pins it) or `models:/NAME/VERSION`. It must not have seen the data."""
    optimiser: OptimiserParams
    """`epochs` are what a shard costs in all, whatever the number of slices."""
    slices: int = 1
    """Slices of a shard, trained in order with a checkpoint after each; a deletion repeats only what came after its slice."""
    lora: LoraParams | None = None
    """An adapter a shard over the frozen base; null trains full weights, as a base with little or nothing in it needs."""
    seed: int = 0
    aggregation: Literal["confident", "average", "vote"] = "confident"
    """Who answers where it is not known whom a question is about: the shard most certain of its answer, the mean of all, the majority."""
    canary_parts: int = 1
    """Parts of each slice's audit canaries; a request spends one part of every slice it touches. More parts serve more requests, each with fewer
    canaries: below 12 in all no alarm can be raised, and the verdict stays undecided."""
    processes: int = 1
    """Processes that train or replay shards side by side, where there are cores to spare and `lora` is null; the numbers are the same."""
    together: Literal["auto", "on", "off"] = "auto"
    """Train adapters of several shards in the same passes; `auto` measures and takes the faster way. The numbers are the same."""
    cost_per_hour: float | None = None
    """What an hour of training costs, in whatever currency, for `mlflow-unlearn plan`."""
    replay: Literal["all", "retrained", "off"] = "all"
    """Which shards have to be trained a second time, with equal digests, before exactness is claimed; each training is replayed once."""

    def __post_init__(self) -> None:
        if self.shards != tuple(range(len(self.shards))) or not self.shards:
            raise ConfigError(f"shards: expected 0, 1, 2, ... without gaps, found {list(self.shards)}")
        if min(self.slices, self.processes, self.canary_parts) < 1:
            raise ConfigError("slices, processes and canary_parts must be at least 1")


@dataclass(frozen=True, kw_only=True)
class EvaluateParams:
    """What to measure."""

    audit: Literal["quick", "deep"] = "quick"
    """`quick` (minutes) is what a verdict needs; `deep` (hours) also asks in every other way, draws answers, relearns and looks into the layers."""
    metrics: tuple[str, ...] = ("probability", "rouge_l_recall", "extraction_strength", "exact_memorization")
    attacks: tuple[str, ...] = ("loss", "min_k")
    finetune: OptimiserParams = field(default_factory=lambda: OptimiserParams(epochs=3, learning_rate=1e-3))
    """The benign fine-tune on retain that shows whether the forgotten returns."""
    retain_sample: int = 400
    """Retain records that are scored, drawn by keyed order."""
    neighbour_sample: int = 400
    probes: tuple[str, ...] | None = None
    """Which probes of the deep audit to run; null runs all."""
    reference: str | None = None
    """A model that never saw the records (a retrained one, else what training started from): a folder, hub id or `models:/NAME/VERSION`. The attack
    `reference` and the probes `activation patching` and `closer to` compare with it; null: they are absent."""
    training: OptimiserParams | None = None
    """How the parent was trained; the probes `u-lira` and `swap` train models of their own so. null: they are absent."""
    shadows: int = 0
    """Shadow models of the probe `u-lira`, an even number; 16 or more say something."""
    prefix_records: int = 4
    """Held-out records that the attack `recall` puts before each record."""
    draws: int = 300
    """Answers drawn of each of the worst records: without a leak the limit of its probability is about 3 / draws."""
    worst: int = 20
    """How many records, the best known ones, answers are drawn of."""
    bootstrap: int = 2000
    permutations: int = 2000
    """A p cannot be below one in so many; a deep audit, with more tests, needs 20,000."""
    seed: int = 0
    batch_tokens: int = 16384
    """Most padded tokens in one scoring batch."""
    max_new_tokens: int = 48

    def __post_init__(self) -> None:
        low = [k for k in ("draws", "worst", "bootstrap", "permutations", "batch_tokens", "max_new_tokens") if getattr(self, k) < 1]
        low += [k for k in ("retain_sample", "neighbour_sample", "prefix_records", "shadows") if getattr(self, k) < 0]
        if low:
            raise ConfigError(f"evaluate: {', '.join(low)}: too small")


@dataclass(frozen=True, kw_only=True)
class Params:
    """The keys of params.yaml that this package reads; others are the project's own."""

    model: ModelParams
    data: DataParams
    unlearn: UnlearnParams
    evaluate: EvaluateParams = field(default_factory=EvaluateParams)
    exact: ExactParams | None = None
    """Needed where `unlearn.strategy` is `exact`."""

    def __post_init__(self) -> None:
        if self.unlearn.strategy == "exact" and self.exact is None:
            raise ConfigError("unlearn.strategy is exact, so that a section `exact` is needed: shards, base, optimiser")
