"""What a sequence classifier is asked and what it says: the same whatever rows go together and however they are padded."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers

from mlflow_unlearn.engine.classifying import class_names, class_probabilities, known_classes
from mlflow_unlearn.engine.examples import encode, encode_classes
from mlflow_unlearn.engine.randomness import private_randomness
from mlflow_unlearn.errors import ConfigError, DataError
from mlflow_unlearn.protocols import Example

LABELS = {"yes": 0, "no": 1, "maybe": 2}
TEMPLATE = "Question: {prompt}\nAnswer: "
PROMPTS = ["where", "where is the lamp", "is it on the table or under it", "lamp"]
CLASSES = ["no", "yes", "maybe", "no"]


@pytest.fixture
def classifier(model: Any) -> Any:
    labels = {"id2label": {number: name for name, number in LABELS.items()}, "label2id": LABELS}
    config = transformers.LlamaConfig(**{**model.config.to_dict(), **labels, "architectures": ["LlamaForSequenceClassification"]})
    with private_randomness(0):
        return transformers.LlamaForSequenceClassification(config).eval()


@pytest.fixture
def examples(tokenizer: Any) -> list[Example]:
    return encode_classes(tokenizer, TEMPLATE, PROMPTS, CLASSES, LABELS)


def test_a_classifiers_tokens_are_a_language_models_prompt_and_nothing_else(tokenizer: Any, examples: list[Example]) -> None:
    prompts = [each.tokens[: each.prompt_length] for each in encode(tokenizer, TEMPLATE, PROMPTS, CLASSES)]
    assert [each.tokens for each in examples] == prompts
    assert all(each.prompt_length == len(each.tokens) for each in examples)
    assert [each.label for each in examples] == [LABELS[name] for name in CLASSES]


def test_no_record_is_no_example(tokenizer: Any) -> None:
    assert encode_classes(tokenizer, TEMPLATE, [], [], LABELS) == []


def test_unknown_classes_are_counted_and_none_is_quoted(tokenizer: Any) -> None:
    with pytest.raises(DataError, match="2 of 4 records have a class that the model does not know; it knows yes, no, maybe") as told:
        encode_classes(tokenizer, TEMPLATE, PROMPTS, ["sentinel", "yes", "Yes", "no"], LABELS)
    assert "sentinel" not in str(told.value)


def test_a_template_without_a_place_for_the_prompt_is_refused(tokenizer: Any) -> None:
    with pytest.raises(ConfigError, match=r"expected `\{prompt\}` somewhere in the text"):
        encode_classes(tokenizer, "none", PROMPTS, CLASSES, LABELS)


def test_probabilities_are_the_softmax_of_each_row_alone(classifier: Any, examples: list[Example]) -> None:
    with torch.no_grad():
        alone = torch.cat([classifier(torch.tensor([each.tokens])).logits.softmax(-1) for each in examples])
    for budget in (1, 40, 10_000):
        found = class_probabilities(classifier, examples, budget, classifier.config.pad_token_id)
        torch.testing.assert_close(found, alone)
        torch.testing.assert_close(found.sum(-1), torch.ones(len(examples)))


def test_rows_keep_their_places(classifier: Any, examples: list[Example]) -> None:
    pad, order = classifier.config.pad_token_id, [2, 0, 3, 1]
    found = class_probabilities(classifier, examples, 40, pad)
    torch.testing.assert_close(class_probabilities(classifier, [examples[i] for i in order], 40, pad), found[order])


def test_labels_are_not_looked_at(classifier: Any, examples: list[Example]) -> None:
    pad = classifier.config.pad_token_id
    others = [replace(each, label=None) for each in examples]
    assert torch.equal(class_probabilities(classifier, others, 40, pad), class_probabilities(classifier, examples, 40, pad))


def test_asking_nothing_gives_nothing(classifier: Any) -> None:
    assert class_probabilities(classifier, [], 40, 0).shape == (0, 0)
    assert class_names(classifier, [], 40, 0) == []


def test_classes_are_known_of_classifiers_alone(classifier: Any, model: Any) -> None:
    assert known_classes(classifier.config) == LABELS
    assert known_classes(model.config) is None
