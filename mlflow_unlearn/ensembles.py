"""The folder of an ensemble: one safetensors file a shard, and ensemble.json, which says what each of them is and what they stand on.

`shard-007.safetensors` holds its tensors under names that begin with `shard-007/`, so that the tensor digest of the folder is that of the model.
A shard without records and one that was switched off have no file and never answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from .digests import read_document, tensor_digest, write_document
from .documents import decode, encode
from .errors import ConfigError, TamperedError
from .exactness import PinnedBase
from .params import LoraParams
from .sisa import shard_name

SCHEMA = "mlflow-unlearn.ensemble/1"
MANIFEST = "ensemble.json"
Aggregation = Literal["confident", "average", "vote"]


@dataclass(frozen=True, kw_only=True)
class EnsembleManifest:
    """ensemble.json."""

    family: str
    kind: Literal["weights", "adapters"]
    """Whether a shard's file is a whole model or an adapter over the pinned base, which then lies elsewhere."""
    task: Literal["causal", "classification"]
    shards: int
    slices: int
    empty: tuple[int, ...] = ()
    """Shards into which no record fell."""
    off: tuple[int, ...] = ()
    """Shards switched off until they are trained again."""
    aggregation: Aggregation
    """Who answers where it is not known whom a question is about, or their shard has no file."""
    template: str
    """How a prompt is written for the model; `chat` uses the tokenizer's own chat template."""
    lora: LoraParams | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What the base is read as; a shard's whole model is always read as float32."""
    base: PinnedBase
    digests: Mapping[str, str] = field(default_factory=dict)
    """Shard (`007`) -> tensor digest of its file."""

    def __post_init__(self) -> None:
        named = {shard_name(shard) for shard in self.alive}
        complaints = [
            *([f"digests: expected those of shards {_listed(named)}, found {_listed(self.digests)}"] if named != set(self.digests) else []),
            *(["lora: expected for adapters, and for nothing else"] if (self.kind == "adapters") != (self.lora is not None) else []),
        ]
        if complaints:
            raise ConfigError("\n".join(f"{MANIFEST}: {each}" for each in complaints))

    @property
    def alive(self) -> tuple[int, ...]:
        """Shards that can answer, ascending."""
        return tuple(shard for shard in range(self.shards) if shard not in self.empty and shard not in self.off)

    def without(self, shards: Iterable[int]) -> EnsembleManifest:
        """The same ensemble with these shards switched off as well.

        Raises:
            ConfigError: the family has no such shard.
        """
        chosen = set(shards)
        if unknown := sorted(shard for shard in chosen if not 0 <= shard < self.shards):
            raise ConfigError(f"{MANIFEST}: expected shards 0 to {self.shards - 1} to switch off, found {unknown}")
        off = tuple(sorted({*self.off, *(chosen - set(self.empty))}))
        gone = {shard_name(shard) for shard in off}
        return replace(self, off=off, digests={name: digest for name, digest in self.digests.items() if name not in gone})

    def based_on(self, reference: str) -> EnsembleManifest:
        """The same ensemble with the same base under another name."""
        return replace(self, base=replace(self.base, reference=reference))


def shard_file(folder: Path, shard: int) -> Path:
    """Where a shard's tensors lie in an ensemble's folder."""
    return folder / f"shard-{shard_name(shard)}.safetensors"


def tensor_prefix(shard: int) -> str:
    """What the names of a shard's tensors begin with, in its file and in its digest."""
    return f"shard-{shard_name(shard)}/"


def is_ensemble(folder: Path) -> bool:
    """Whether a model's folder is an ensemble's; otherwise it is one model as `save_pretrained` writes it."""
    return (folder / MANIFEST).is_file()


def write(folder: Path, manifest: EnsembleManifest) -> None:
    """Write ensemble.json into a folder."""
    write_document(folder / MANIFEST, SCHEMA, encode(manifest))


def read(folder: Path) -> EnsembleManifest:
    """What ensemble.json says; `verify` compares it with the files.

    Raises:
        ConfigError: missing, not JSON, of another schema or not consistent.
    """
    path = folder / MANIFEST
    return decode(EnsembleManifest, read_document(path, SCHEMA), str(path))


def verify(folder: Path, manifest: EnsembleManifest) -> None:
    """Compare each shard's file with its digest.

    Raises:
        TamperedError: a file is missing, one too many or not the one that ensemble.json names.
    """
    expected = {shard_file(folder, shard) for shard in manifest.alive}
    if strange := set(folder.glob("*.safetensors")) ^ expected:
        names = _listed(path.name for path in strange)
        raise TamperedError(f"{folder}: ensemble.json and the files disagree about {names}; fetch the model again or run `dvc repro`")
    for shard in manifest.alive:
        path = shard_file(folder, shard)
        found, logged = tensor_digest([path]), manifest.digests[shard_name(shard)]
        if found != logged:
            raise TamperedError(f"{path}: tensor digest {found[:16]}, ensemble.json says {logged[:16]}; fetch the model again or run `dvc repro`")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
