"""The head where a token carries loss, piece by piece: log-probabilities and cross-entropies whose logits are never all held at once.

One kernel serves every method: the cross-entropy of softmax(head(states)) against a token or against the parent's whole distribution. Its gradient
is (softmax - target) times whatever comes from above, so the backward pass needs the logits of one piece at a time: kept where all of them are few,
made again where they are many (as in "Cut Your Losses in Large-Vocabulary Language Models", Wijmans et al. 2024, arXiv:2411.09009, without
its kernels).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from ..protocols import Batch, Sequences
from .forward import AnswerStates, answer_states

PIECE_LOGITS = {"cpu": 1 << 22}
"""Most logits held at once on a kind of device (16 MiB in float32): smaller pieces stay in the processor's cache."""
PIECE_LOGITS_ELSEWHERE = 1 << 26
"""256 MiB in float32 on an accelerator, which needs large products."""
IMPOSSIBLE = -1e4
"""Stands for the log-probability of a token that a mask forbids: its weight is 0, and 0 times infinity would not be a number."""


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """Distributions to be matched: the parent's, perhaps changed where the true token stands."""

    states: Tensor
    """(tokens, width) of the parent, no gradient."""
    head: torch.nn.Module
    """Turns them into the parent's logits."""
    penalties: Tensor | None = None
    """(tokens,) subtracted from the logit of each true token; None subtracts nothing."""

    def log_probs(self, piece: slice, targets: Tensor, dtype: torch.dtype) -> Tensor:
        """(piece, vocabulary) log-probabilities in nats, float32, of products in `dtype`: the same whether asked on the way there or back."""
        with torch.no_grad():
            head, states = self.head, self.states[piece]
            logits = _logits(states, head.weight, head.bias, dtype) if type(head) is torch.nn.Linear else head(states).float()
            if self.penalties is not None:
                logits = logits.scatter_add(1, targets[piece, None], -self.penalties[piece, None].to(logits.dtype))
            return logits.log_softmax(-1)


def token_log_probs(model: torch.nn.Module, rows: Sequences) -> tuple[Tensor, Tensor]:
    """Log-probability of every token that carries loss, with gradient; for a sequence classifier, of every row's class.

    Returns:
        (tokens,) log-probabilities in nats, row after row, and (tokens,) the row each belongs to.
    """
    at = answer_states(model, rows)
    return -cross_entropy(at.head, at.states, at.targets), at.rows


def answer_log_probs(model: torch.nn.Module, rows: Sequences) -> tuple[Tensor, Tensor]:
    """Log-probability of every answer, with gradient.

    Returns:
        (rows,) sums over the answer's tokens in nats, and (rows,) how many tokens that are.
    """
    log_probs, owners = token_log_probs(model, rows)
    return row_sums(log_probs, owners, len(rows.labels)), torch.bincount(owners, minlength=len(rows.labels))


def row_sums(values: Tensor, owners: Tensor, rows: int) -> Tensor:
    """(rows,) sums of (tokens,) values over the tokens of each row."""
    return values.new_zeros(rows).index_add(0, owners, values)


def taught(model: torch.nn.Module, rows: Sequences, teacher: Teacher) -> Tensor:
    """(tokens,) cross-entropy of the model against the teacher's distribution at every token that carries loss, with gradient; nats.

    It is the Kullback-Leibler divergence KL(teacher || model) and the teacher's own entropy, which no gradient sees.
    """
    at = answer_states(model, rows)
    return cross_entropy(at.head, at.states, at.targets, teacher)


def divergences(model: torch.nn.Module, rows: Sequences, teacher: Teacher) -> Tensor:
    """(tokens,) Kullback-Leibler divergence KL(teacher || model) at every token that carries loss, with gradient to the model; nats."""
    at = answer_states(model, rows)
    entropies = torch.cat(
        [_entropy(teacher.log_probs(piece, at.targets, _arithmetic(at.states))) for piece in _pieces(at.states, at.head, at.targets)]
    )
    return cross_entropy(at.head, at.states, at.targets, teacher) - entropies


def retain_nll(model: torch.nn.Module, batch: Batch) -> Tensor:
    """This micro-batch's share of the mean answer-token loss over the retain rows of the whole optimiser batch, nats per token.

    Raises:
        ValueError: the micro-batch has no retain rows.
    """
    if batch.retain is None:
        raise ValueError("retain_nll: the micro-batch has no retain rows; look at batch.retain first")
    log_probs, _ = token_log_probs(model, batch.retain)
    return -log_probs.sum() / batch.retain_tokens


class TokenScores(NamedTuple):
    """What is said of each token that carries loss."""

    log_probs: Tensor
    """(tokens,) log-probability of the true token, nats."""
    hits: Tensor
    """(tokens,) whether the most likely token is the true one; means nothing where the log-probability is not a number."""
    moments: Tensor
    """(tokens, 2) mean and variance of log p over the vocabulary, each token weighted by its own p; nats."""


@torch.no_grad()
def token_scores(at: AnswerStates) -> TokenScores:
    """Scores of all tokens from one set of logits in float32, a piece at a time; without gradient."""
    pieces = [_scores(at.head(at.states[piece]).float(), at.targets[piece]) for piece in _pieces(at.states, at.head, at.targets)]
    return TokenScores(*(torch.cat(each) for each in zip(*pieces, strict=True)))


def cross_entropy(head: torch.nn.Module, states: Tensor, targets: Tensor, teacher: Teacher | None = None) -> Tensor:
    """(tokens,) cross-entropy of softmax(head(states)) against the true tokens, or against a teacher's distributions; nats, float32, with gradient.

    Args:
        head: an `nn.Linear`, for which the gradient is written out here, or any other module.
        states: (tokens, width).
        targets: (tokens,) true tokens; a teacher may want them too.
        teacher: whose distributions are to be matched.
    """
    if type(head) is torch.nn.Linear:
        loss: Tensor = _LinearCrossEntropy.apply(states, head.weight, head.bias, targets, teacher)  # type: ignore[no-untyped-call]
        return loss
    pieces = list(_pieces(states, head, targets))
    if len(pieces) == 1:
        return _plain(head, states, targets, teacher, pieces[0])
    parts = [checkpoint(_plain, head, states, targets, teacher, piece, use_reentrant=False) for piece in pieces]
    return torch.cat(parts)


def _plain(head: torch.nn.Module, states: Tensor, targets: Tensor, teacher: Teacher | None, piece: slice) -> Tensor:
    logits = head(states[piece]).float()
    if teacher is None:
        return functional.cross_entropy(logits, targets[piece], reduction="none")
    cross: Tensor = -(teacher.log_probs(piece, targets, _arithmetic(states)).exp() * logits.log_softmax(-1)).sum(-1)
    return cross


class _LinearCrossEntropy(torch.autograd.Function):
    """Cross-entropy after a linear head, with the logits of one piece at a time."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, teacher: Teacher | None) -> Tensor:
        dtype = _arithmetic(states)
        pieces = list(_pieces(states, weight, targets))
        losses, kept = [], None
        for piece in pieces:
            logits = _logits(states[piece], weight, bias, dtype)
            normaliser = logits.logsumexp(-1)
            losses.append(normaliser - _expected(logits, targets, teacher, piece, dtype))
            kept = (logits, normaliser) if len(pieces) == 1 else None
        ctx.save_for_backward(states, weight, bias, targets, *(kept or ()))
        ctx.teacher, ctx.dtype = teacher, dtype
        return torch.cat(losses)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        states, weight, bias, targets, *kept = ctx.saved_tensors
        of_states = torch.empty_like(states) if ctx.needs_input_grad[0] else None
        of_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        of_bias = torch.zeros_like(bias) if ctx.needs_input_grad[2] else None
        with torch.autocast(states.device.type, enabled=False):
            for piece in _pieces(states, weight, targets):
                logits, normaliser = kept or _again(states[piece], weight, bias, ctx.dtype)
                error = _error(logits, normaliser, targets, ctx.teacher, piece, ctx.dtype).mul_(upstream[piece, None]).to(ctx.dtype)
                if of_states is not None:
                    of_states[piece] = error @ weight.to(ctx.dtype)
                if of_weight is not None:
                    of_weight += error.T @ states[piece].to(ctx.dtype)
                if of_bias is not None:
                    of_bias += error.sum(0)
        return of_states, of_weight, of_bias, None, None


def _logits(states: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """(piece, vocabulary) float32 logits of products in `dtype`."""
    with torch.autocast(states.device.type, enabled=False):
        return functional.linear(states.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)).float()


def _again(states: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    logits = _logits(states, weight, bias, dtype)
    return logits, logits.logsumexp(-1)


def _expected(logits: Tensor, targets: Tensor, teacher: Teacher | None, piece: slice, dtype: torch.dtype) -> Tensor:
    """(piece,) the logit expected under the target distribution."""
    if teacher is None:
        return logits.gather(1, targets[piece, None])[:, 0]
    return (teacher.log_probs(piece, targets, dtype).exp_() * logits).sum(-1)


def _error(logits: Tensor, normaliser: Tensor, targets: Tensor, teacher: Teacher | None, piece: slice, dtype: torch.dtype) -> Tensor:
    """(piece, vocabulary) softmax minus target distribution."""
    probabilities = (logits - normaliser[:, None]).exp_()
    if teacher is None:
        probabilities[torch.arange(len(probabilities), device=probabilities.device), targets[piece]] -= 1.0
        return probabilities
    return probabilities.sub_(teacher.log_probs(piece, targets, dtype).exp_())


def _arithmetic(states: Tensor) -> torch.dtype:
    """The precision products are made in: autocast's where it is on."""
    kind = states.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else states.dtype


def _pieces(states: Tensor, head: torch.nn.Module | Tensor, targets: Tensor) -> Iterator[slice]:
    """Cuts of the tokens, so that no piece makes more logits than may be held at once."""
    vocabulary = len(head) if isinstance(head, Tensor) else getattr(head, "out_features", states.shape[-1])
    size = max(1, PIECE_LOGITS.get(states.device.type, PIECE_LOGITS_ELSEWHERE) // vocabulary)
    return (slice(start, start + size) for start in range(0, max(1, len(targets)), size))


def _scores(logits: Tensor, targets: Tensor) -> TokenScores:
    log_probs = logits.log_softmax(-1)
    true, weights = log_probs.gather(1, targets[:, None])[:, 0], log_probs.exp()
    log_probs.clamp_(min=IMPOSSIBLE)
    mean = torch.linalg.vecdot(weights, log_probs)
    # From deviations, not from squares: where a model is sure, the difference of two large numbers would be noise.
    variance = torch.linalg.vecdot(weights, log_probs.sub_(mean[:, None]).square_())
    return TokenScores(true, logits.argmax(-1) == targets, torch.stack([mean, variance], -1))


def _entropy(log_probs: Tensor) -> Tensor:
    return -(log_probs.exp() * log_probs).sum(-1)
