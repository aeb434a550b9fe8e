"""The model that all shards start from: fetched by folder, hub id or registered version, and known by what it is."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from ..digests import sha256_file, sha256_json, tensor_digest
from ..engine.classifying import SEQUENCE_CLASSIFIER
from ..errors import ConfigError
from ..exactness import PinnedBase
from . import models

_WEIGHTS = re.compile(r"\.(safetensors|bin|pt|pth|msgpack|h5|onnx|gguf)$|\.index\.json$")
_VOLATILE = frozenset({"_name_or_path", "transformers_version", "initialised_from", "torch_dtype", "dtype"})
"""Keys of config.json that say where a model was and who wrote it."""
_MODEL_ONLY = frozenset({"config.json", "generation_config.json", "model.safetensors.index.json", "README.md", ".gitattributes", ".gitignore"})


@dataclass(frozen=True, kw_only=True)
class BaseFiles:
    """A base on this machine."""

    reference: str
    model: Path
    tokenizer: Path

    @property
    def pinned(self) -> PinnedBase:
        """What it is, read from the files now.

        Raises:
            ConfigError: no weights as safetensors.
        """
        weights = sorted(self.model.glob("*.safetensors"))
        if not weights:
            raise ConfigError(f"{self.reference}: no safetensors files; save the base with `save_pretrained`")
        return PinnedBase(
            reference=self.reference,
            tensor_digest=tensor_digest(weights),
            tokenizer_digest=tokenizer_digest(self.tokenizer),
            config_digest=sha256_json({key: value for key, value in self.config.items() if key not in _VOLATILE}),
        )

    @property
    def config(self) -> dict[str, Any]:
        """config.json of the model.

        Raises:
            ConfigError: there is none.
        """
        try:
            found: dict[str, Any] = json.loads((self.model / "config.json").read_bytes())
        except (OSError, ValueError):
            raise ConfigError(f"{self.reference}: no readable config.json; expected a folder as `save_pretrained` writes it") from None
        return found

    @property
    def task(self) -> str:
        """`classification` for a sequence classifier, else `causal`."""
        return "classification" if any(SEQUENCE_CLASSIFIER in name for name in self.config.get("architectures") or ()) else "causal"


def fetch(reference: str) -> BaseFiles:
    """The files of a base: a folder as it is, a hub id (`name/id@revision`) or a registered version (`models:/NAME/VERSION`) downloaded.

    Raises:
        ConfigError: nothing there.
    """
    if reference.startswith("models:/"):
        return _registered(reference)
    folder = Path(reference)
    if folder.is_dir():
        return BaseFiles(reference=reference, model=folder, tokenizer=folder)
    if reference.startswith((".", "/", "~")) or reference.partition("@")[0].count("/") != 1:
        raise ConfigError(f"{reference}: no such folder, and not a hub id; correct exact.base in params.yaml, or run what makes it")
    return _from_hub(reference)


def load(files: BaseFiles, device: str, dtype: str = "float32") -> tuple[Any, Any]:
    """Model in eval mode and tokenizer; a sequence classifier where the base is one.

    Raises:
        ConfigError: transformers cannot load it, or no such device.
    """
    if files.task == "causal":
        return models.load_model(files.model, device, dtype), models.load_tokenizer(files.tokenizer)
    try:
        with models.quiet():
            model = transformers.AutoModelForSequenceClassification.from_pretrained(str(files.model), dtype=getattr(torch, dtype))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{files.reference}: no classifier that transformers can load ({type(error).__name__})") from error
    return model.to(models.device(device)).eval(), models.load_tokenizer(files.tokenizer)


def tokenizer_digest(folder: Path) -> str:
    """sha256 over every file of a tokenizer's folder that is not the model's, by name."""
    found = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name not in _MODEL_ONLY and not _WEIGHTS.search(path.name):
            found.update(f"{path.name} {sha256_file(path)}\n".encode())
    return found.hexdigest()


def _registered(reference: str) -> BaseFiles:
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        root = Path(mlflow.artifacts.download_artifacts(artifact_uri=reference))
    except (MlflowException, OSError) as error:
        raise ConfigError(
            f"{reference}: MLflow does not give it ({type(error).__name__}); check the name, the version and MLFLOW_TRACKING_URI"
        ) from error
    tokenizer = root / "components" / "tokenizer"
    return BaseFiles(reference=reference, model=root / "model", tokenizer=tokenizer if tokenizer.is_dir() else root / "model")


def _from_hub(reference: str) -> BaseFiles:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    name, _, revision = reference.partition("@")
    try:
        folder = Path(snapshot_download(name, revision=revision or None, ignore_patterns=["*.bin", "*.h5", "*.msgpack", "*.onnx", "*.gguf", "*.pth"]))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise ConfigError(f"{reference}: neither a folder here nor a model that the hub gives ({type(error).__name__})") from error
    return BaseFiles(reference=reference, model=folder, tokenizer=folder)
