"""What a model says of given answers, token by token, in one pass without gradient."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..protocols import Example
from .answer_packs import Group, group_cuts, group_states, may_share
from .batches import micro_batches
from .examples import device_of
from .forward import AnswerStates, answer_states
from .head import cross_entropy, token_scores
from .reference import moved_rows

PASS_TOKENS = {"cpu": 2048}
"""Most tokens of one pass on a kind of device, where that is less than the budget: what a processor computes of more leaves its cache on the way, and
packs of few groups have less to fill up (docs/benchmarks.md)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class GroupScores:
    """What is said of the answers to one prompt."""

    log_probs: NDArray[np.float64]
    """(tokens,) log-probability of each token of the first answer, nats."""
    hits: NDArray[np.bool_]
    """(tokens,) whether the most likely token is the true one."""
    moments: NDArray[np.float64]
    """(tokens, 2) mean and variance of log p over the vocabulary; nats."""
    others: list[NDArray[np.float64]]
    """Of each other answer the log-probability of its tokens, nats: nobody asks for more, and the head is a third of the work."""


@torch.no_grad()
def answer_scores(model: Any, groups: Sequence[Group], batch_tokens: int, pad: int) -> list[GroupScores]:
    """Score every answer of every group; answers to one prompt share its pass where the architecture allows.

    Args:
        model: a Hugging Face causal language model or sequence classifier; it is put in eval mode.
        groups: examples with the same prompt, at least one a group.
        batch_tokens: most tokens in one forward pass, padding included.
        pad: token id used for padding.
    """
    model.eval()
    batch_tokens = min(batch_tokens, PASS_TOKENS.get(device_of(model).type, batch_tokens))
    scored = _together(model, groups, batch_tokens, pad) if may_share(model, groups, pad) else _apart(model, groups, batch_tokens, pad)
    found: list[dict[int, Any]] = [{} for _ in groups]
    for group, answer, scores in scored:
        found[group][answer] = scores
    return [_of_group(answers) for answers in found]


Scored = Iterator[tuple[int, int, Any]]
"""Group, answer in it, and the scores of the first answer or the log-probabilities of another."""


def _of_group(answers: dict[int, Any]) -> GroupScores:
    log_probs, hits, moments = answers[0]
    return GroupScores(log_probs=log_probs, hits=hits, moments=moments, others=[answers[i] for i in range(1, len(answers))])


def _together(model: Any, groups: Sequence[Group], batch_tokens: int, pad: int) -> Scored:
    for cut in group_cuts(groups, batch_tokens):
        yield from _scored(group_states(model, [groups[i] for i in cut], pad), [(i, answer) for i in cut for answer in range(len(groups[i]))])


def _apart(model: Any, groups: Sequence[Group], batch_tokens: int, pad: int) -> Scored:
    names = [(i, answer) for i, group in enumerate(groups) for answer in range(len(group))]
    examples: list[Example] = [example for group in groups for example in group]
    for rows in micro_batches(examples, range(len(examples)), batch_tokens, pad):
        yield from _scored(answer_states(model, moved_rows(rows, device_of(model))), [names[i] for i in rows.index.tolist()])


def _scored(at: AnswerStates, names: Sequence[tuple[int, int]]) -> Scored:
    """Everything of first answers, log-probabilities of the others; `names` says of each row which it is."""
    first = torch.tensor([answer == 0 for _, answer in names], device=at.rows.device)
    for kind, score in ((first, _all_scores), (~first, _log_probs)):
        chosen = [name for name, own in zip(names, kind.tolist(), strict=True) if own]
        tokens = kind[at.rows]
        if chosen:
            scores = score(AnswerStates(states=at.states[tokens], targets=at.targets[tokens], rows=at.rows[tokens], head=at.head))
            yield from ((group, answer, own) for (group, answer), own in zip(chosen, scores, strict=True))


def _all_scores(at: AnswerStates) -> list[Any]:
    return list(zip(*(_split(each, at.rows) for each in token_scores(at)), strict=True))


def _log_probs(at: AnswerStates) -> list[Any]:
    return _split(-cross_entropy(at.head, at.states, at.targets), at.rows)


def _split(values: Tensor, rows: Tensor) -> list[NDArray[Any]]:
    """The values of each row, one row after another."""
    cuts = torch.unique_consecutive(rows, return_counts=True)[1].cumsum(0)[:-1].cpu().numpy()
    own = values if values.dtype == torch.bool else values.double()
    return np.split(own.cpu().numpy(), cuts)
