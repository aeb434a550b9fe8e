"""A small base and shards cut from it, on disk as the exact route leaves them: weights under the names of their shards."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import peft
import torch
import transformers

from mlflow_unlearn.adapters import bases, ensembles, models
from mlflow_unlearn.adapters.shard_files import write_weights
from mlflow_unlearn.digests import tensor_digest
from mlflow_unlearn.ensembles import EnsembleManifest
from mlflow_unlearn.params import LoraParams
from mlflow_unlearn.sisa import shard_name

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64}
CONFIG = {"model_type": "llama", "tie_word_embeddings": True, **SIZES}
LORA = LoraParams(rank=2, alpha=4)
TEMPLATE = "Question: {prompt}\nAnswer: "
PROMPTS = ("where is the lamp?", "who keeps the key?", "is the door open?", "where is the cup?")


def small_base(folder: Path, classes: Sequence[str] = (), seed: int = 0, **sizes: int) -> Path:
    """A base with a tokenizer of its own; a sequence classifier where there are classes."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    corpus = folder.with_name("corpus.txt")
    corpus.write_text("Question: where is the lamp?\nAnswer: on the table.\nthe key and the cup are by the door\n")
    tokenizer = models.train_tokenizer(corpus, 300, TEMPLATE)
    model = models.fresh_model({**CONFIG, **sizes}, tokenizer, seed, "cpu")
    if classes:
        labels = {"id2label": dict(enumerate(classes)), "label2id": {name: number for number, name in enumerate(classes)}}
        config = transformers.LlamaConfig(**SIZES, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **labels)
        model = transformers.LlamaForSequenceClassification(config)
    models.save_model(model, tokenizer, folder)
    return folder


def shifted(model: Any, seed: int) -> dict[str, torch.Tensor]:
    """Weights near a model's, as training would leave them; tied ones once."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        return {name: value + 0.3 * torch.randn(value.shape, generator=generator) for name, value in model.named_parameters()}


def adapter(model: Any, seed: int) -> dict[str, torch.Tensor]:
    """A trained adapter under peft's names, from peft itself."""
    wrapped = models.with_lora(copy.deepcopy(model), LORA, seed)
    generator = torch.Generator().manual_seed(seed)
    return {name: 0.3 * torch.randn(value.shape, generator=generator) for name, value in peft.get_peft_model_state_dict(wrapped).items()}


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Shards on disk, and what ensemble.json is to say of them."""

    base: Path
    manifest: EnsembleManifest
    files: Mapping[int, Path]

    def assembled(self, folder: Path) -> Path:
        ensembles.write(folder, self.manifest, self.files, bases.fetch(str(self.base)))
        return folder


def cut_shards(base: Path, folder: Path, *, adapters: bool = False, shards: int = 4, empty: tuple[int, ...] = (), reference: str = "") -> Cut:
    model, make = bases.load(bases.fetch(str(base)), "cpu")[0], adapter if adapters else shifted
    files = {shard: folder / str(shard) / "weights.safetensors" for shard in range(shards) if shard not in empty}
    for shard, path in files.items():
        write_weights(path, shard, make(model, 1 + shard))
    manifest = EnsembleManifest(
        family="f" * 64,
        kind="adapters" if adapters else "weights",
        task=bases.fetch(str(base)).task,
        shards=shards,
        slices=1,
        empty=empty,
        aggregation="confident",
        template=TEMPLATE,
        lora=LORA if adapters else None,
        base=replace(bases.fetch(str(base)).pinned, reference=reference or str(base)),
        digests={shard_name(shard): tensor_digest([path]) for shard, path in files.items()},
    )
    return Cut(base=base, manifest=manifest, files=files)
