"""The states that predict answers: the forward pass without what no loss looks at.

Four savings leave every number as it was: the head is applied only where a token carries loss (a quarter of a padded batch of questions and
answers), leading tokens that all rows share run once a pack, with gradient (a chat template's system prompt is more than a third of TOFU's tokens),
rows stand behind one another instead of being padded, and the last token of a row, which predicts nothing, does not run.

Where nothing is gained by packing, sequences are padded on the right: under a causal mask no real token sees the padding, so no attention mask is
needed and torch may take its fastest attention kernel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..protocols import Sequences
from .packing import may_pack, packs_of

IGNORED = -100
"""The label of a token that carries no loss."""

PLAIN_HEADS = frozenset({"gpt2", "gpt_neox", "llama", "mistral", "olmo", "olmo2", "opt", "phi", "phi3", "qwen2", "qwen3", "smollm3", "stablelm"})
"""Architectures whose logits are the head applied to the last hidden states and nothing more (checked by a test). Others, such as gemma2 with
its soft cap or cohere with its scale, take the way over the model's own logits."""


@dataclass(frozen=True, kw_only=True)
class AnswerStates:
    """Where the loss of a micro-batch lies."""

    states: Tensor
    """(tokens, width) states that predict the labels, row after row; the logits themselves where `head` is the identity."""
    targets: Tensor
    """(tokens,) int64 labels."""
    rows: Tensor
    """(tokens,) int64, the row each belongs to."""
    head: torch.nn.Module
    """Turns states into logits."""


def answer_states(model: Any, rows: Sequences) -> AnswerStates:
    """The states that predict every token that carries loss, with gradient; of a sequence classifier, one a row."""
    causal = unwrapped(model)
    if rows.classes is not None:
        owners = torch.arange(len(rows.classes), device=rows.classes.device)
        logits = causal(input_ids=rows.input_ids, attention_mask=rows.attention_mask, use_cache=False).logits
        return AnswerStates(states=logits, targets=rows.classes, rows=owners, head=torch.nn.Identity())
    labels = rows.labels[:, 1:]
    owners, places = (labels != IGNORED).nonzero(as_tuple=True)
    states, head, first = _states(causal, rows)
    flat = states.flatten(0, 1).index_select(0, owners * states.shape[1] + places - first)
    return AnswerStates(states=flat, targets=labels[owners, places], rows=owners, head=head)


def with_prompts(rows: Sequences) -> Sequences:
    """The same rows with every real token but the first of each carrying loss, the prompt's included."""
    return replace(rows, labels=rows.input_ids.masked_fill(rows.attention_mask == 0, IGNORED), shared=0)


def head_of(model: Any) -> torch.nn.Module:
    """What turns `AnswerStates.states` into logits: the head, or the identity where the states are logits already."""
    causal = unwrapped(model)
    head: torch.nn.Module | None = causal.get_output_embeddings() if causal.config.model_type in PLAIN_HEADS else None
    return torch.nn.Identity() if head is None else head  # sequence classifiers have none


def unwrapped(model: Any) -> Any:
    """The causal model inside PEFT's wrapper."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _states(causal: Any, rows: Sequences) -> tuple[Tensor, torch.nn.Module, int]:
    """(rows, places, width) states, the head, and the place in the row of the first of them."""
    head = head_of(causal)
    if isinstance(head, torch.nn.Identity):
        return causal(input_ids=rows.input_ids[:, :-1], use_cache=False).logits, head, 0
    packs = packs_of(rows) if may_pack(causal, rows) else None
    if packs is None:
        return causal.base_model(input_ids=rows.input_ids[:, :-1], use_cache=False).last_hidden_state, head, 0
    run = causal.base_model(
        input_ids=packs.input_ids, position_ids=packs.position_ids, attention_mask=packs.attention_mask, use_cache=False
    ).last_hidden_state
    return run.flatten(0, 1)[packs.places], head, rows.shared
