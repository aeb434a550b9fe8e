"""Text to tokens."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from tokenizers import processors

from mlflow_unlearn.engine.examples import answer_tokens, encode, require_fit
from mlflow_unlearn.errors import ConfigError, DataError
from mlflow_unlearn.protocols import Example

TEMPLATE = "Question: {prompt}\nAnswer: "


def test_the_loss_falls_on_answer_and_end_token(tokenizer: Any) -> None:
    (example,) = encode(tokenizer, TEMPLATE, ["Where?"], ["Here."])
    assert tokenizer.decode(example.tokens[: example.prompt_length]) == "Question: Where?\nAnswer: "
    assert tokenizer.decode(example.tokens[example.prompt_length :]) == "Here.<eos>"
    assert answer_tokens([example]) == len(tokenizer("Here.")["input_ids"]) + 1


def test_a_prompt_has_the_same_tokens_whatever_its_answer(tokenizer: Any) -> None:
    one, other = encode(tokenizer, TEMPLATE, ["Where?", "Where?"], ["Here.", " there"])
    assert one.tokens[: one.prompt_length] == other.tokens[: other.prompt_length]


def test_braces_in_a_prompt_are_text(tokenizer: Any) -> None:
    (example,) = encode(tokenizer, TEMPLATE, ["{x} {prompt}"], ["a"])
    assert "{x} {prompt}" in tokenizer.decode(example.tokens)


def test_chat_uses_the_tokenizers_own_template(tokenizer: Any) -> None:
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = "{% for m in messages %}<bos>{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: "
    (example,) = encode(tokenizer, "chat", ["Where?"], ["Here."])
    assert tokenizer.decode(example.tokens) == "<bos>user: Where?\nassistant: Here.<eos>"


def test_an_end_token_the_tokenizer_adds_by_itself_does_not_cut_off_the_answer(tokenizer: Any) -> None:
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 2)])
    (example,) = encode(tokenizer, TEMPLATE, ["Where?"], ["Here."])
    assert tokenizer.decode(example.tokens) == "<bos>Question: Where?\nAnswer: Here.<eos>"


def test_bad_input_is_refused_by_name(tokenizer: Any) -> None:
    tokenizer = copy.deepcopy(tokenizer)
    with pytest.raises(ConfigError, match=r"data\.template: expected `{prompt}`"):
        encode(tokenizer, "Question:", ["a"], ["b"])
    with pytest.raises(ConfigError, match="has no chat template"):
        encode(tokenizer, "chat", ["a"], ["b"])
    with pytest.raises(DataError, match="found 1 prompts and 2 answers"):
        encode(tokenizer, TEMPLATE, ["a"], ["b", "c"])
    tokenizer.eos_token = None
    with pytest.raises(ConfigError, match="no end token"):
        encode(tokenizer, TEMPLATE, ["a"], ["b"])


def test_records_longer_than_the_model_are_refused(model: Any) -> None:
    with pytest.raises(DataError, match="train: the longest record has 65 tokens, the model takes 64"):
        require_fit(model, [Example(tokens=(3,) * 65, prompt_length=1)], "train")


def test_no_records_make_no_examples(tokenizer: Any) -> None:
    assert encode(tokenizer, TEMPLATE, [], []) == []
