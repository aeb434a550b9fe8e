"""Sequence classifiers as shards: trained, asked and aggregated like language models."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from mlflow_unlearn.engine.classifying import class_names, class_probabilities
from mlflow_unlearn.engine.ensemble import Ensemble, EnsembleSubject, WeightExperts
from mlflow_unlearn.engine.examples import encode_classes
from mlflow_unlearn.engine.randomness import private_randomness
from mlflow_unlearn.engine.slices import ShardTraining, ShardWork, Slice, train_shards
from mlflow_unlearn.errors import DataError
from mlflow_unlearn.params import OptimiserParams

LABELS = {0: "yes", 1: "no", 2: "maybe"}
PROMPTS = [f"is the lamp {number} on" for number in range(12)]
CLASSES = [LABELS[number % 3] for number in range(12)]
OPTIMISER = OptimiserParams(epochs=60, learning_rate=2e-2, batch_size=4, token_budget=200)


@pytest.fixture
def classifier(tokenizer: Any) -> Any:
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        pad_token_id=tokenizer.pad_token_id,
        id2label=LABELS,
        label2id={name: number for number, name in LABELS.items()},
    )
    with private_randomness(0):
        return transformers.LlamaForSequenceClassification(config).eval()


def examples(classifier: Any, tokenizer: Any, rows: range) -> list[Any]:
    prompts, classes = [PROMPTS[i] for i in rows], [CLASSES[i] for i in rows]
    return encode_classes(tokenizer, "Question: {prompt}", prompts, classes, classifier.config.label2id)


@pytest.fixture
def trained(classifier: Any, tokenizer: Any) -> WeightExperts:
    """Two shards of six records, each of which learns its own."""
    models = {}
    for shard, rows in enumerate((range(6), range(6, 12))):
        work = ShardWork(shard=shard, slices=[Slice(examples=examples(classifier, tokenizer, rows), seed=shard, run="-")], states=None)
        steps = train_shards(classifier, [work], ShardTraining(optimiser=OPTIMISER, pad=tokenizer.pad_token_id))
        while True:
            try:
                next(steps)
            except StopIteration as end:
                models[shard] = type(classifier)(classifier.config)
                models[shard].load_state_dict(dict(end.value[0].weights))
                break
    return WeightExperts(models)


def subject(trained: WeightExperts, found: list[Any], tokenizer: Any, aggregation: Any, known: list[int | None]) -> EnsembleSubject:
    ensemble = Ensemble(experts=trained, aggregation=aggregation, shards=2)
    return EnsembleSubject(ensemble=ensemble, tokenizer=tokenizer, examples=found, answers=CLASSES, known=known)


def test_each_shard_classifies_its_own_records_and_routing_finds_it(trained: WeightExperts, classifier: Any, tokenizer: Any) -> None:
    routed = subject(trained, examples(classifier, tokenizer, range(12)), tokenizer, "confident", [0] * 6 + [1] * 6)
    assert routed.generations == CLASSES
    assert all(hits.tolist() == [True] for hits in routed.token_hits)


def test_averaged_and_voted_classes_are_those_counted_by_hand(trained: WeightExperts, classifier: Any, tokenizer: Any) -> None:
    found = examples(classifier, tokenizer, range(12))
    pad = tokenizer.pad_token_id
    tables = torch.stack([class_probabilities(trained.expert(shard), found, 400, pad) for shard in trained.alive])
    votes = torch.nn.functional.one_hot(tables.argmax(-1), 3).sum(0) + tables.mean(0)
    for way, table in (("average", tables.mean(0)), ("vote", votes)):
        asked = subject(trained, found, tokenizer, way, [None] * 12)
        assert asked.generations == [LABELS[i] for i in table.argmax(-1).tolist()]


def test_the_most_certain_shard_answers_where_nobody_is_known(trained: WeightExperts, classifier: Any, tokenizer: Any) -> None:
    found = examples(classifier, tokenizer, range(12))
    peaks = torch.stack([class_probabilities(trained.expert(shard), found, 400, tokenizer.pad_token_id).amax(-1) for shard in (0, 1)])
    assert subject(trained, found, tokenizer, "confident", [None] * 12).shards == peaks.argmax(0).tolist()


def test_padding_changes_no_class(trained: WeightExperts, classifier: Any, tokenizer: Any) -> None:
    found = examples(classifier, tokenizer, range(12))
    alone = [class_names(trained.expert(0), [each], 10_000, tokenizer.pad_token_id)[0] for each in found]
    assert class_names(trained.expert(0), found, 10_000, tokenizer.pad_token_id) == alone


def test_an_unknown_class_is_counted_and_not_quoted(classifier: Any, tokenizer: Any) -> None:
    with pytest.raises(DataError, match="1 of 2 records have a class that the model does not know; it knows yes, no, maybe"):
        encode_classes(tokenizer, "{prompt}", ["a", "b"], ["yes", "secret"], classifier.config.label2id)
