"""A tiny model that knows some people, and what the audit asks of it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from mlflow_unlearn.adapters.models import fresh_model
from mlflow_unlearn.attacks.loss import Loss
from mlflow_unlearn.audit import AuditJob, Origin, Retraining
from mlflow_unlearn.audit_sets import AuditSets
from mlflow_unlearn.engine.descent import fit
from mlflow_unlearn.engine.examples import encode
from mlflow_unlearn.evaluate import Measures
from mlflow_unlearn.metrics.exact_memorization import ExactMemorization
from mlflow_unlearn.metrics.probability import Probability
from mlflow_unlearn.params import EvaluateParams, OptimiserParams
from mlflow_unlearn.protocols import Record

TEMPLATE = "{prompt} :"
CONFIG = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "tie_word_embeddings": True,
    "initializer_range": 0.1,
}
NAMES, VALUES = [f"name{i}" for i in range(40)], [f"value{i}" for i in range(12)]
WORDS = ["town", "trade", "of", "home", "work", "in", ":", "Sure,", "here", "is", "the", "answer:", *NAMES, *VALUES]
PARAMS = EvaluateParams(
    bootstrap=50, permutations=99, max_new_tokens=4, draws=20, worst=3, finetune=OptimiserParams(epochs=2, learning_rate=1e-3, batch_size=16)
)


def tokenizer() -> Any:
    """A token a word."""
    plain = Tokenizer(models.WordLevel({word: i for i, word in enumerate(("<pad>", "<end>", "<unk>", *WORDS))}, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=plain, pad_token="<pad>", eos_token="<end>", unk_token="<unk>")


def people(first: int, last: int) -> list[Record]:
    """Two records each: where somebody lives and what they do."""
    return [_record(i, kind) for i in range(first, last) for kind in ("town", "trade")]


def _record(i: int, kind: str) -> Record:
    other = {"town": "home", "trade": "work"}[kind]
    return Record(
        tag=f"{i:031x}{'0' if kind == 'town' else '1'}",
        subject=f"{i:032x}",
        prompt=f"{kind} of {NAMES[i]}",
        answer=VALUES[(7 * i + len(kind)) % len(VALUES)],
        paraphrase=f"{other} of {NAMES[i]}",
        wrong_answers=tuple(VALUES[:3]),
        swapped_prompt=f"{kind} of {NAMES[-1]}",
        swapped_answer=VALUES[(7 * i + len(kind)) % len(VALUES)],
        kind=kind,
    )


@dataclass
class Counted:
    """Loads a copy of a model and counts how often."""

    model: Any
    words: Any
    times: int = 0

    def __call__(self) -> tuple[Any, Any]:
        self.times += 1
        return copy.deepcopy(self.model), self.words


@dataclass
class AuditWorkshop:
    """A parent that knows everybody it was trained on, and a model that never saw the canaries."""

    parent: Any
    retrained: Any
    words: Any
    sets: dict[str, Sequence[Record]] = field(default_factory=dict)

    def job(self, model: Any = None, folder: Path | None = None, params: EvaluateParams = PARAMS, **more: Any) -> AuditJob:
        """An audit of a model, the retrained one unless told."""
        chosen = self.retrained if model is None else model
        return AuditJob(
            parent=Origin(load=Counted(self.parent, self.words), digest="parent"),
            model=Origin(load=Counted(chosen, self.words), digest="model" if model is None else f"model {id(model)}"),
            sets=AuditSets.of(self.sets, TEMPLATE, params),
            measures=Measures(
                metrics={"probability": Probability(), "exact_memorization": ExactMemorization()},
                attacks={"loss": Loss()},
                bootstrap=params.bootstrap,
                permutations=params.permutations,
                seed=0,
            ),
            params=params,
            folder=folder,
            **more,
        )


def workshop() -> AuditWorkshop:
    """Trained in seconds."""
    words = tokenizer()
    asked, canaries, stay, held = people(0, 2), people(2, 14), people(14, 28), people(28, 36)
    included, excluded = canaries[0::4] + canaries[1::4], canaries[2::4] + canaries[3::4]
    sets = {"requested": asked, "audit_included": included, "audit_excluded": excluded, "retain": stay, "neighbours": stay[:8], "holdout": held}
    return AuditWorkshop(_trained([*asked, *included, *stay], words, 0), _trained(stay, words, 1), words, sets)


def _trained(records: Sequence[Record], words: Any, seed: int) -> Any:
    model = fresh_model(CONFIG, words, seed, "cpu")
    examples = encode(words, TEMPLATE, [r.prompt for r in records], [r.answer for r in records])
    for _ in fit(model, examples, OptimiserParams(epochs=30, learning_rate=4e-3, batch_size=8), seed, words.pad_token_id):
        pass
    return model.eval()


def retraining(shop: AuditWorkshop, *, forgets: bool) -> Retraining:
    """Shadows made as the workshop's models are; they forget by being trained again without, or not at all."""

    def train(canaries: Sequence[Record], seed: int) -> Any:
        return _trained([*shop.sets["retain"], *canaries], shop.words, seed)

    def unlearn(model: Any, canaries: Sequence[Record], seed: int) -> Any:
        return _trained(shop.sets["retain"], shop.words, seed + 100) if forgets else model

    return Retraining(train=train, unlearn=unlearn, settings=f"forgets {forgets}")
