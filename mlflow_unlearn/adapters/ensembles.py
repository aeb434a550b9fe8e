"""An ensemble's folder written, loaded so that it answers, and switched off in part. Needs neither tag key nor ledger, git or DVC."""

from __future__ import annotations

import copy
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers

from .. import ensembles
from ..engine.ensemble import Ensemble, Experts, WeightExperts
from ..engine.randomness import private_randomness
from ..ensembles import EnsembleManifest, shard_file
from ..errors import ConfigError, StoreError, TamperedError
from . import bases, models
from .shard_files import read_weights


def write(folder: Path, manifest: EnsembleManifest, shard_files: Mapping[int, Path], base: bases.BaseFiles) -> None:
    """Put an ensemble together aside, then rename: `folder` holds the old one or the new one, never half of one.

    Args:
        folder: where it goes.
        manifest: what ensemble.json says.
        shard_files: shard -> its file, which is linked and not written again; tensor names as `tensor_prefix` begins them.
        base: gives tokenizer and config; its weights stay where they are.

    Raises:
        TamperedError: a file is not the one that the manifest names, or is missing.
        StoreError: the disk refuses.
    """
    with _replacing(folder) as new, models.quiet():
        for shard, path in shard_files.items():
            _link(path, shard_file(new, shard))
        transformers.AutoTokenizer.from_pretrained(str(base.tokenizer)).save_pretrained(new)
        transformers.AutoConfig.from_pretrained(str(base.model)).save_pretrained(new)
        ensembles.write(new, manifest)
        ensembles.verify(new, manifest)


def load(folder: Path, device: str = "auto", base: bases.BaseFiles | None = None) -> tuple[Ensemble, Any, EnsembleManifest]:
    """The ensemble in eval mode, its tokenizer and what its ensemble.json says; all digests are compared first.

    Args:
        folder: as `write` makes it.
        device: by its name in params.yaml.
        base: files of the base, where its reference is a folder that only the caller can find; default: by the reference.

    Raises:
        TamperedError: a shard or the base is not the one that ensemble.json names.
        ConfigError: no shard is left that could answer, or the base cannot be found.
    """
    manifest = ensembles.read(folder)
    ensembles.verify(folder, manifest)
    if not manifest.alive:
        raise ConfigError(f"{folder}: every shard is empty or switched off, so that nobody can answer; train them with `dvc repro`")
    experts = _whole_models(folder, manifest, device) if manifest.kind == "weights" else _adapters(folder, manifest, device, base)
    ensemble = Ensemble(experts=experts, aggregation=manifest.aggregation, shards=manifest.shards)
    return ensemble, models.load_tokenizer(folder), manifest


def switch_off(source: Path, shards: Sequence[int], target: Path) -> EnsembleManifest:
    """The same ensemble without the files of some shards, in a new folder; seconds, since nothing is trained and files are linked.

    Paper: Chowdhury et al. 2024, "Towards Scalable Exact Machine Unlearning Using Parameter-Efficient Fine-Tuning" (arXiv:2406.16257), which
    switches off the layers that saw the record; here a shard is the unit. It is an interim measure: what replaces it is the shard trained again.

    Raises:
        ConfigError: there is no such shard, all of them are off already, or none would be left.
    """
    before = ensembles.read(source)
    after = before.without(shards)
    if after.off == before.off:
        raise ConfigError(f"{source}: none of the shards {sorted(shards)} answers now, so there is nothing to switch off")
    if not after.alive:
        raise ConfigError(f"{source}: no shard would be left to answer; train the shards again with `dvc repro` instead")
    _relinked(source, target, after)
    return after


def with_base(source: Path, reference: str, target: Path) -> None:
    """The same ensemble in a new folder, its base under another name; files are linked."""
    _relinked(source, target, ensembles.read(source).based_on(reference))


def _relinked(source: Path, target: Path, manifest: EnsembleManifest) -> None:
    """A folder's files in a new one, but only the shards that the manifest names."""
    kept = {shard_file(source, shard) for shard in manifest.alive}
    with _replacing(target) as new:
        for path in sorted(source.iterdir()):
            if path.is_file() and path.name != ensembles.MANIFEST and (path.suffix != ".safetensors" or path in kept):
                _link(path, new / path.name)
        ensembles.write(new, manifest)
        ensembles.verify(new, manifest)


def _whole_models(folder: Path, manifest: EnsembleManifest, device: str) -> Experts:
    """Every shard's own model; one is made of the config and the others are its copies."""
    with models.quiet(), private_randomness(0):  # nothing of it stays: every parameter is read from a file
        blank = _auto_class(manifest).from_config(transformers.AutoConfig.from_pretrained(str(folder)), dtype=torch.float32)
    where = models.device(device)
    return WeightExperts({shard: _filled(copy.deepcopy(blank), shard_file(folder, shard), shard).to(where).eval() for shard in manifest.alive})


def _filled(model: Any, path: Path, shard: int) -> Any:
    """The model with a shard's tensors. Tied ones are in the file once.

    Raises:
        ConfigError: the file is not of this model.
    """
    found = model.load_state_dict(read_weights(path, shard), strict=False)
    named = dict(model.named_parameters(remove_duplicate=False))
    tied = {id(value) for name, value in named.items() if name not in found.missing_keys}
    missing = [name for name in found.missing_keys if id(named.get(name)) not in tied]
    if missing or found.unexpected_keys:
        raise ConfigError(f"{path}: {len(missing)} tensors of config.json's model missing, {len(found.unexpected_keys)} too many; run `dvc repro`")
    return model


def _adapters(folder: Path, manifest: EnsembleManifest, device: str, base: bases.BaseFiles | None) -> Experts:
    """One base in memory and every shard's adapter."""
    from ..engine.adapter_bank import AdapterExperts

    files = base or bases.fetch(manifest.base.reference)
    found = files.pinned.tensor_digest
    if found != manifest.base.tensor_digest:
        raise TamperedError(f"{files.reference}: base has digest {found[:16]}, ensemble.json says {manifest.base.tensor_digest[:16]}; restore it")
    model, _ = bases.load(files, device, manifest.dtype)
    adapters = {shard: read_weights(shard_file(folder, shard), shard, str(models.device(device))) for shard in manifest.alive}
    if manifest.lora is None:
        raise ConfigError(f"{folder}: ensemble.json has adapters and no `lora`; run `dvc repro`")
    return AdapterExperts(model, adapters, manifest.lora)


def _auto_class(manifest: EnsembleManifest) -> Any:
    causal = manifest.task == "causal"
    return transformers.AutoModelForCausalLM if causal else transformers.AutoModelForSequenceClassification


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """A folder to fill, which takes the place of `folder` at the end; an error leaves what was there.

    Raises:
        StoreError: the disk refuses.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as name:
            aside = Path(name)
            (aside / "new").mkdir()
            yield aside / "new"
            _sync(aside / "new")
            if folder.exists():
                folder.rename(aside / "old")
            (aside / "new").rename(folder)
    except OSError as error:
        raise StoreError(f"{folder}: the ensemble could not be saved ({error.strerror}); free some space and run again") from error


def _link(source: Path, target: Path) -> None:
    """A hard link, or a copy where the file system has none. Nothing here writes into a file that is there: all is written aside and renamed."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def _sync(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
