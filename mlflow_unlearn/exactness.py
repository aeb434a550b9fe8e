"""Values of the exact route: what a shard was trained on and how, what a replay found, what else the shards share. Standard library only.

A shard's log is enough to repeat its training; a replay says whether the repetition gave the same tensors. Records are keyed tags, never texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .lineage import DatasetRevision


@dataclass(frozen=True, kw_only=True)
class PinnedBase:
    """What every shard starts from, by name and by what it is."""

    reference: str
    """Folder, hub id or `models:/NAME/VERSION`."""
    tensor_digest: str
    tokenizer_digest: str
    """sha256 over the files of the tokenizer."""
    config_digest: str = ""
    """sha256 over config.json without paths and versions: equal weights under another configuration are another model."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """What makes shards comparable and their ensemble one model; equal as long as nothing of it changes, whatever is forgotten."""

    family: str
    """Digest of all the rest and of the tag key's check value. Another number of shards or slices, key, base or setting is another family."""
    shards: int
    slices: int
    base: PinnedBase
    settings: Mapping[str, object]
    """Everything of params.yaml that decides weights, complete with defaults."""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """How the data are divided now."""

    requests: tuple[str, ...]
    """Open requests whose records are left out."""
    family: str
    datasets: tuple[DatasetRevision, ...]
    """What is cut, before anything is left out."""
    records: Mapping[str, int]
    """Shard -> records to train on."""
    touched: tuple[int, ...] = ()
    """Shards that held a record which is left out."""
    split_digest: str | None = None
    left_over: Mapping[str, str] = field(default_factory=dict)
    """md5 -> path of files of shards that are no more, since the family was a larger one; carried on, to be purged elsewhere."""


@dataclass(frozen=True, kw_only=True)
class SliceLog:
    """One slice of a shard: the records that joined with it and the training that followed, on them and on all slices before."""

    tags: tuple[str, ...]
    """Keyed tags of the records that joined, in the order in which the run was given them."""
    data: str
    """sha256 over these records, tag and text."""
    seed: int
    epochs: int
    steps: int
    """Optimiser steps of this slice."""
    tokens: int
    """Tokens trained on: those of all records so far times the epochs, padding not counted."""
    chain: str
    """sha256 over everything that decides the weights after this slice, slices before included; the environment is apart."""
    seconds: float


@dataclass(frozen=True, kw_only=True)
class ShardLog:
    """How one shard's weights came about."""

    shard: int
    family: str
    """Digest of what makes shards comparable: number of shards and slices, key, base, settings. Another one is another family."""
    base: str
    """Tensor digest of the base model."""
    settings: Mapping[str, object]
    """Everything of params.yaml that decides the weights, complete with defaults."""
    slices: tuple[SliceLog, ...]
    tensor_digest: str
    """Of the shard's weights, or of its adapter."""
    code: str
    """Digest of this package's source files."""
    environment: Mapping[str, str]
    """Library versions, threads, device: what else decides the last bits."""
    resumed_after: int = 0
    """Slices taken from checkpoints; 0: trained from the base on."""
    together: tuple[int, ...] = ()
    """Shards whose adapters were trained in the same passes; empty when alone."""
    notes: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether no record is in this shard."""
        return not any(each.tags for each in self.slices)


@dataclass(frozen=True, kw_only=True)
class Replay:
    """A shard trained once more, from its base, from what its log says."""

    shard: int
    logged: str
    found: str
    """Tensor digests of the log and of the repetition."""
    log: str = ""
    """Digest of what was repeated (`sisa.log_digest`): a replay of other records, seeds or settings says nothing of these weights."""
    differences: tuple[str, ...] = ()
    """What was not as logged: `threads: 1 then, 2 now`; explains an unequal result and excuses nothing."""
    device: str = "cpu"
    """Where it was repeated."""
    seconds: float = 0.0

    @property
    def equal(self) -> bool:
        """Whether the repetition gave the same tensors."""
        return self.logged == self.found


@dataclass(frozen=True, kw_only=True)
class SharedPart:
    """Something all shards share, which retraining a shard does not touch."""

    name: str
    """`base model`, `tokenizer`, `normalisation`, `deduplication`, `early stopping`, `thresholds`, `aggregation`."""
    holds: bool | None
    """True: saw no forgotten record, or was made again without; False: it did; None: nobody can say."""
    detail: str


@dataclass(frozen=True, kw_only=True)
class Exactness:
    """The evidence of an exact claim."""

    family: str
    shards: int
    """How many there are."""
    slices: int
    touched: tuple[int, ...] = ()
    """Shards that held a forgotten record."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """Shard (`000`) -> tensor digest now."""
    logs: Mapping[str, str] = field(default_factory=dict)
    """Shard (`000`) -> digest of its log, which a replay has to name."""
    empty: tuple[int, ...] = ()
    """Shards into which no record falls any more: they have no weights."""
    before: Mapping[str, str] = field(default_factory=dict)
    """The same of the parent, where it is of this family; empty otherwise."""
    holding: tuple[int, ...] = ()
    """Shards whose log names a forgotten record, or whose weights are the parent's, whose log does: none, or the claim is wrong."""
    replays: tuple[Replay, ...] = ()
    shared: tuple[SharedPart, ...] = ()
    purge: Mapping[str, str] = field(default_factory=dict)
    """Files that saw a forgotten record and were replaced, md5 -> path: to be deleted wherever they were copied to."""
