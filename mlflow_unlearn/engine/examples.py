"""Text to tokens: a prompt written in the model's format, then the answer and the end token, which alone carry the loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ..errors import ConfigError, DataError
from ..protocols import Example

CHAT = "chat"


def encode(tokenizer: Any, template: str, prompts: Sequence[str], answers: Sequence[str]) -> list[Example]:
    """Tokenise records.

    Prompt and answer are tokenised apart and joined, so that the tokens of a prompt are the same with and without its answer: what is scored
    and what is generated then begin alike.

    Args:
        tokenizer: a Hugging Face tokenizer with an end token.
        template: text with `{prompt}` in it, or `chat` for the tokenizer's own chat template.
        prompts: one a record.
        answers: one a record.

    Raises:
        ConfigError: the template has no `{prompt}`, or the tokenizer has no end token or no chat template.
        DataError: there are not as many answers as prompts.
    """
    end = tokenizer.eos_token_id
    if end is None:
        raise ConfigError("tokenizer: it has no end token, so answers could not end; set `eos_token` in its tokenizer_config.json")
    if len(prompts) != len(answers):
        raise DataError(f"encode: found {len(prompts)} prompts and {len(answers)} answers, expected as many of each")
    if not prompts:
        return []
    heads = _prompt_tokens(tokenizer, template, prompts)
    tails = tokenizer(list(answers), add_special_tokens=False)["input_ids"]
    return [Example(tokens=(*head, *tail, end), prompt_length=len(head)) for head, tail in zip(heads, tails, strict=True)]


def encode_classes(tokenizer: Any, template: str, prompts: Sequence[str], classes: Sequence[str], label2id: Mapping[str, int]) -> list[Example]:
    """Tokenise records of a sequence classifier, whose answers are names of classes.

    Raises:
        ConfigError: what `encode` raises about the template.
        DataError: a class that the model does not know; counts and the known names only.
    """
    unknown = sum(name not in label2id for name in classes)
    if unknown:
        raise DataError(f"encode: {unknown} of {len(classes)} records have a class that the model does not know; it knows {', '.join(label2id)}")
    heads = _prompt_tokens(tokenizer, template, prompts) if prompts else []
    return [Example(tokens=tuple(head), prompt_length=len(head), label=label2id[name]) for head, name in zip(heads, classes, strict=True)]


def require_fit(model: Any, examples: Sequence[Example], where: str) -> None:
    """Refuse examples that are longer than the positions a model was made for, or whose tokens it does not know.

    Raises:
        DataError: with the longest length found and the length that fits, or the largest token id and the size of the vocabulary.
    """
    limit = getattr(model.config, "max_position_embeddings", None)
    longest = max((len(example.tokens) for example in examples), default=0)
    if limit is not None and longest > limit:
        raise DataError(f"{where}: the longest record has {longest} tokens, the model takes {limit}; shorten it or train with more positions")
    vocabulary = model.get_input_embeddings().weight.shape[0]
    largest = max((max(example.tokens, default=0) for example in examples), default=0)
    if largest >= vocabulary:
        raise DataError(
            f"{where}: found token id {largest}, the model knows {vocabulary} tokens; give it the tokenizer that it was trained with "
            "(the parent version's own)"
        )


def answer_tokens(examples: Sequence[Example]) -> int:
    """How many tokens carry loss; a sequence classifier's record counts one, and nothing predicts a record's first token."""
    return sum(1 if example.label is not None else len(example.tokens) - max(1, example.prompt_length) for example in examples)


def padding(tokenizer: Any) -> int:
    """The token that fills up rows: a classifier looks for the last token that is not this one; a language model looks at no padding."""
    pad: int | None = tokenizer.pad_token_id
    return int(tokenizer.eos_token_id) if pad is None else pad


def device_of(model: torch.nn.Module) -> torch.device:
    """Where the model's first parameter lies: batches follow it there."""
    return next(model.parameters()).device


def _prompt_tokens(tokenizer: Any, template: str, prompts: Sequence[str]) -> list[list[int]]:
    if template == CHAT:
        return _chat_tokens(tokenizer, prompts)
    if "{prompt}" not in template:
        raise ConfigError("params.yaml: data.template: expected `{prompt}` somewhere in the text, or `chat`; found neither")
    texts = [template.replace("{prompt}", prompt) for prompt in prompts]
    tokens: list[list[int]] = tokenizer(texts)["input_ids"]
    # Some tokenizers close every text with an end token; the answer has to follow here.
    return [ids[:-1] if ids[-1] == tokenizer.eos_token_id else ids for ids in tokens]


def _chat_tokens(tokenizer: Any, prompts: Sequence[str]) -> list[list[int]]:
    if not tokenizer.chat_template:
        raise ConfigError("params.yaml: data.template is `chat`, but the tokenizer has no chat template; write a template with `{prompt}`")
    conversations = [[{"role": "user", "content": prompt}] for prompt in prompts]
    texts = tokenizer.apply_chat_template(conversations, add_generation_prompt=True, tokenize=False)
    tokens: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]  # the template has written them
    return tokens
