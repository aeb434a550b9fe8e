"""Log-probabilities of answers and the losses made of them, as pure tensor functions.

The head is applied only where a token carries loss. In question answering that is about a quarter of a padded batch, and the head is a fifth
of a 1B model and half of a small one, so this is the largest saving that leaves every number as it was.

Sequences are padded on the right: under a causal mask no real token sees the padding, so no attention mask is needed and torch may take its
fastest attention kernel.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from .protocols import Batch, Sequences

IGNORED = -100
"""The label of a token that carries no loss."""

CHUNK_LOGITS = 1 << 26
"""Most logits held at once (256 MiB in fp32); a larger head output is made piece by piece and recomputed in the backward pass."""

PLAIN_HEADS = frozenset({"gpt2", "gpt_neox", "llama", "mistral", "olmo", "olmo2", "opt", "phi", "phi3", "qwen2", "qwen3", "smollm3", "stablelm"})
"""Architectures whose logits are the head applied to the last hidden states and nothing more (checked by a test). Others, such as gemma2 with
its soft cap or cohere with its scale, take the way over the model's own logits."""


def token_log_probs(model: torch.nn.Module, sequences: Sequences) -> tuple[Tensor, Tensor]:
    """Log-probability of every token that carries loss, with gradient.

    Returns:
        (tokens,) log-probabilities in nats, row after row, and (tokens,) the row each belongs to.
    """
    states, targets, rows, head = _label_states(model, sequences)
    pieces = _pieces(head, states, targets)
    if len(pieces) == 1:
        return _log_probs(head, states, targets), rows
    return torch.cat([checkpoint(_log_probs, head, *piece, use_reentrant=False) for piece in pieces]), rows


def answer_log_probs(model: torch.nn.Module, sequences: Sequences) -> tuple[Tensor, Tensor]:
    """Log-probability of every answer, with gradient.

    Returns:
        (rows,) sums over the answer's tokens in nats, and (rows,) how many tokens that are.
    """
    log_probs, rows = token_log_probs(model, sequences)
    sums = log_probs.new_zeros(len(sequences.labels)).index_add(0, rows, log_probs)
    return sums, torch.bincount(rows, minlength=len(sequences.labels))


@torch.no_grad()
def token_scores(model: torch.nn.Module, sequences: Sequences) -> tuple[Tensor, Tensor, Tensor]:
    """(tokens,) log-probabilities in nats, (tokens,) whether the most likely token is the true one, (tokens,) the row; without gradient."""
    states, targets, rows, head = _label_states(model, sequences)
    scores = [_scores(head, *piece) for piece in _pieces(head, states, targets)]
    return torch.cat([log_probs for log_probs, _ in scores]), torch.cat([hits for _, hits in scores]), rows


def npo_terms(log_probs: Tensor, reference: Tensor, beta: float) -> Tensor:
    """(rows,) the bounded forget loss of each record.

    -(2 / beta) log sigmoid(-beta log(pi / pi_ref)), the summand of equation 3 in Zhang et al. 2024, "Negative Preference Optimization"
    (arXiv:2404.05868). At pi = pi_ref it is (2 / beta) log 2 and its gradient is that of gradient ascent; as beta -> 0 it becomes it.
    """
    return -(2.0 / beta) * functional.logsigmoid(-beta * (log_probs - reference))


def above_floor(log_probs: Tensor, tokens: Tensor, floors: Tensor) -> Tensor:
    """(rows,) 1.0 where a record is still better known than a stranger's (mean token loss below its floor), else 0.0; no gradient."""
    return (-log_probs.detach() / tokens < floors).to(log_probs.dtype)


def retain_nll(model: torch.nn.Module, batch: Batch) -> Tensor:
    """This micro-batch's share of the mean answer-token loss over the retain rows of the whole optimiser batch, nats per token.

    Raises:
        ValueError: the micro-batch has no retain rows.
    """
    if batch.retain is None:
        raise ValueError("losses.retain_nll: the micro-batch has no retain rows; look at batch.retain first")
    log_probs, _ = token_log_probs(model, batch.retain)
    return -log_probs.sum() / batch.retain_tokens


def _pieces(head: torch.nn.Module, states: Tensor, targets: Tensor) -> list[tuple[Tensor, Tensor]]:
    """States and targets, cut so that no piece makes more logits than may be held at once."""
    size = max(1, CHUNK_LOGITS // getattr(head, "out_features", states.shape[-1]))
    return list(zip(torch.split(states, size), torch.split(targets, size), strict=True))


def _scores(head: torch.nn.Module, states: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    logits = head(states).float()
    return -functional.cross_entropy(logits, targets, reduction="none"), logits.argmax(-1) == targets


def _log_probs(head: torch.nn.Module, states: Tensor, targets: Tensor) -> Tensor:
    return -functional.cross_entropy(head(states).float(), targets, reduction="none")


def _label_states(model: Any, sequences: Sequences) -> tuple[Tensor, Tensor, Tensor, torch.nn.Module]:
    """(tokens, width) states that predict the labels, (tokens,) labels, (tokens,) rows, and the head that turns states into logits."""
    labels = sequences.labels[:, 1:]
    rows, places = (labels != IGNORED).nonzero(as_tuple=True)
    states, head = _states(model, sequences.input_ids[:, :-1])  # the last token predicts nothing
    flat = states.flatten(0, 1).index_select(0, rows * labels.shape[1] + places)
    return flat, labels[rows, places], rows, head


def _states(model: Any, input_ids: Tensor) -> tuple[Tensor, torch.nn.Module]:
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model  # inside PEFT's wrapper
    if causal.config.model_type in PLAIN_HEADS:
        return causal.base_model(input_ids=input_ids, use_cache=False).last_hidden_state, causal.get_output_embeddings()
    return causal(input_ids=input_ids, use_cache=False).logits, torch.nn.Identity()
