"""Hugging Face models and tokenizers: load, make, save, wrap in LoRA. The only module that knows transformers' loaders, tokenizers and peft."""

from __future__ import annotations

import os
import platform
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from tokenizers import decoders, models, pre_tokenizers, trainers
from transformers.utils import logging as transformers_logging

from ..engine.randomness import private_randomness
from ..errors import ConfigError, StoreError
from ..params import LoraParams

SPECIAL_TOKENS = ("<pad>", "<bos>", "<eos>")
TEMPLATE_WEIGHT = 1000
"""How often the tokenizer meets the template: more often than any rare word, so that it is merged first."""

LIBRARIES = ("mlflow-unlearn", "torch", "transformers", "tokenizers", "peft", "safetensors", "numpy")


def device(name: str) -> torch.device:
    """A device by its name in params.yaml; `auto` is cuda where there is one, else cpu.

    Raises:
        ConfigError: no such device on this machine.
    """
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
    try:
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError):  # torch built without CUDA asserts
        raise ConfigError(f"params.yaml: device '{name}' is not on this machine; use auto or cpu") from None
    return torch.device(chosen)


def load_model(folder_or_id: str | Path, device_name: str = "auto", dtype: str = "float32") -> Any:
    """A causal language model in eval mode.

    Weights are read as float32 unless told otherwise, also for bfloat16 unlearning, which rounds its arithmetic and not its weights.

    Raises:
        ConfigError: there is no model, or the device does not exist.
    """
    with quiet(), _loading(folder_or_id, "model"):
        model = transformers.AutoModelForCausalLM.from_pretrained(str(folder_or_id), dtype=getattr(torch, dtype))
    return model.to(device(device_name)).eval()


def load_tokenizer(folder_or_id: str | Path) -> Any:
    """A tokenizer with a padding token (its end token where it has none).

    Raises:
        ConfigError: there is none.
    """
    with quiet(), _loading(folder_or_id, "tokenizer"):
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder_or_id))
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def fresh_model(config: Mapping[str, Any], tokenizer: Any, seed: int, device_name: str = "auto") -> Any:
    """A model with random weights, the same for the same seed.

    Its config says `initialised_from: scratch`, so that `retrain` later knows where to start.

    Args:
        config: `model_type` and the keys of that type's transformers config; the vocabulary and special tokens come from the tokenizer.
        tokenizer: the tokenizer it will work with.
        seed: of the initial weights.
        device_name: where it goes.

    Raises:
        ConfigError: an unknown model type or wrong values.
    """
    tokens = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    settings = dict(config)
    try:
        full = transformers.AutoConfig.for_model(settings.pop("model_type"), **(tokens | settings), initialised_from="scratch")
        with quiet(), private_randomness(seed):
            model = transformers.AutoModelForCausalLM.from_config(full)
    except (KeyError, ValueError, TypeError) as error:
        raise ConfigError(f"params.yaml: train.init: not a configuration transformers accepts: {error}") from error
    return model.to(device(device_name))


def train_tokenizer(corpus: Path, vocabulary: int, template: str = "") -> Any:
    """A byte-level BPE tokenizer trained on a text file, one passage a line; it cannot meet an unknown character.

    The corpus should hold no text about people: the tokenizer is shared by every later model and is not unlearned.

    Args:
        corpus: the text.
        vocabulary: number of tokens, special ones included.
        template: how prompts are written for the model; its words, which stand in every record, become single tokens.

    Raises:
        ConfigError: the corpus is missing or the vocabulary smaller than the 256 bytes and three special tokens.
    """
    if vocabulary < 256 + len(SPECIAL_TOKENS):
        raise ConfigError(f"params.yaml: train.vocabulary: expected at least {256 + len(SPECIAL_TOKENS)}, found {vocabulary}")
    if not corpus.is_file():
        raise ConfigError(f"{corpus}: no text to train the tokenizer on; run the dataset stage")
    bpe = tokenizers.Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=list(SPECIAL_TOKENS), initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(chain(_lines(corpus), repeat(template.replace("{prompt}", ""), TEMPLATE_WEIGHT)), trainer)
    pad, bos, eos = SPECIAL_TOKENS
    return transformers.PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token=pad, bos_token=bos, eos_token=eos, clean_up_tokenization_spaces=False)


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write weights (safetensors), config and tokenizer aside, then rename: `folder` holds the old model or the new one, never half of one.

    Raises:
        StoreError: the disk refuses.
    """
    try:
        _write_model(model, tokenizer, folder)
    except OSError as error:
        raise StoreError(f"{folder}: the model could not be saved ({error.strerror}); free some space and run again") from error


def with_lora(model: Any, lora: LoraParams, seed: int) -> Any:
    """The model with low-rank adapters (Hu et al. 2021), which alone may change; they start as the identity."""
    import peft  # seconds of import that full weights do not need

    modules = lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules)
    settings = peft.LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=modules, task_type="CAUSAL_LM")
    try:
        with private_randomness(seed), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)  # peft asks transformers 5
            return peft.get_peft_model(model, settings)
    except ValueError as error:
        raise ConfigError(f"params.yaml: lora: {error}") from error


def merged(model: Any) -> Any:
    """The plain model with its adapters added into the weights; a model without adapters as it is."""
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model


def share_cores(processes: int) -> None:
    """Have this process take its share of the machine's cores, so that several do not get into each other's way; OMP_NUM_THREADS wins."""
    if processes > 1 and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))


def environment() -> dict[str, str]:
    """What else decides the last bits of the weights: library versions, Python, threads, processor."""
    device_name = torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu ({platform.machine()})"
    versions = {library: version(library) for library in LIBRARIES}
    return versions | {"python": platform.python_version(), "threads": str(torch.get_num_threads()), "device": device_name}


def requirements() -> list[str]:
    """What a saved model needs to be loaded again, pinned. MLflow's own guess imports torchvision, which text models do not need."""
    return [f"{library}=={version(library)}" for library in ("torch", "transformers", "accelerate")]


def _write_model(model: Any, tokenizer: Any, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as name, quiet():
        aside = Path(name)
        model.save_pretrained(aside / "new")
        tokenizer.save_pretrained(aside / "new")
        _sync(aside / "new")
        if folder.exists():
            folder.rename(aside / "old")
        (aside / "new").rename(folder)


def _lines(corpus: Path) -> Iterable[str]:
    with corpus.open(encoding="utf-8") as stream:
        yield from stream


def _sync(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb") as stream:
            os.fsync(stream.fileno())


@contextmanager
def _loading(folder_or_id: str | Path, what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder_or_id}: no {what} here that transformers can load ({type(error).__name__}); give a folder or a hub id") from error


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no advice from transformers while it reads and writes."""
    bars, level = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
