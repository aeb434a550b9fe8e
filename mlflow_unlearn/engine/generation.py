"""Greedy answers in batches with a key-value cache; rows that have ended are dropped, so that no step is spent on them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import DivergedError, UnmeasurableError
from .examples import device_of
from .forward import unwrapped

KEEP_ROWS = 0.75
"""The cache is compacted once fewer than this share of its rows are still being written: copying it at every ending costs more than it saves."""

ModelOf = Callable[[Sequence[int]], torch.nn.Module]
"""Positions of some rows to the model that computes them."""


def greedy(
    model: torch.nn.Module | ModelOf, prompts: Sequence[Sequence[int]], *, end: int, max_new_tokens: int, batch_tokens: int
) -> list[list[int]]:
    """The most likely continuation of each prompt, token by token, without the end token.

    Args:
        model: a Hugging Face causal language model, or what gives one for some rows of `prompts`.
        prompts: token ids, at least one a prompt.
        end: the token that ends an answer.
        max_new_tokens: where an answer is cut that does not end.
        batch_tokens: most tokens, prompts and answers with padding, in one batch.

    An answer is also cut where the positions end that the model was made for.

    Raises:
        UnmeasurableError: the model cannot write.
        DivergedError: what it says is not a number.
    """
    return [answer for answer, _ in _written(model, prompts, _Writing(end, max_new_tokens), batch_tokens)]


@dataclass(frozen=True, kw_only=True)
class Written:
    """An answer and how sure the model was of it."""

    tokens: list[int]
    """Without the end token."""
    confidence: float
    """Mean log-probability of its tokens, the end token included where the answer ended; nats."""


def greedy_with_confidence(
    model: torch.nn.Module | ModelOf, prompts: Sequence[Sequence[int]], *, end: int, max_new_tokens: int, batch_tokens: int
) -> list[Written]:
    """What `greedy` writes, and how sure the model was of it: no further pass is needed to know."""
    written = _written(model, prompts, _Writing(end, max_new_tokens, sure=True), batch_tokens)
    # The token behind an answer is its end, unless it was cut.
    return [Written(tokens=answer, confidence=float(said[: len(answer) + 1].mean())) for answer, said in written]


def end_of(tokenizer: Any) -> int:
    """The token that ends an answer.

    Raises:
        UnmeasurableError: there is none.
    """
    if tokenizer.eos_token_id is None:
        raise UnmeasurableError("generations: the tokenizer has no end token, so answers could not end; set `eos_token` in its tokenizer_config.json")
    return int(tokenizer.eos_token_id)


@dataclass(frozen=True)
class _Writing:
    end: int
    max_new_tokens: int
    sure: bool = False
    """Whether the log-probabilities of what is written are kept."""


Line = tuple[list[int], torch.Tensor]
"""An answer and, where asked for, (max_new_tokens,) log-probabilities of what was written, float64 on the processor."""


def _written(model: torch.nn.Module | ModelOf, prompts: Sequence[Sequence[int]], how: _Writing, batch_tokens: int) -> list[Line]:
    found: dict[int, Line] = {}
    for rows in _batches(prompts, how.max_new_tokens, batch_tokens):
        of_rows = model if isinstance(model, torch.nn.Module) else model(rows)
        found.update(zip(rows, _worded([prompts[i] for i in rows], of_rows.eval(), how), strict=True))
    return [found[i] for i in range(len(prompts))]


def _worded(prompts: Sequence[Sequence[int]], model: Any, how: _Writing) -> list[Line]:
    """`_continue`, with what a model raises that was not made to write said in words."""
    able = getattr(unwrapped(model), "can_generate", None)
    if able is not None and not able():
        raise _unable(model, "it has no language model head")
    try:
        return _continue(prompts, model, how)
    except (TypeError, ValueError, AttributeError, IndexError, NotImplementedError) as error:
        raise _unable(model, f"it raised {type(error).__name__}") from error


def _unable(model: Any, found: str) -> UnmeasurableError:
    return UnmeasurableError(
        f"generations: {type(unwrapped(model)).__name__} cannot write answers ({found}), expected a causal language model that keeps a cache; take "
        "the metrics that look at what is written out of evaluate.metrics, or give a model that can"
    )


def _batches(prompts: Sequence[Sequence[int]], max_new_tokens: int, batch_tokens: int) -> list[list[int]]:
    """Positions of prompts of similar length."""
    batches: list[list[int]] = []
    for i in sorted(range(len(prompts)), key=lambda i: len(prompts[i])):
        if batches and (len(batches[-1]) + 1) * (len(prompts[i]) + max_new_tokens) <= batch_tokens:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


@torch.no_grad()
def _continue(prompts: Sequence[Sequence[int]], model: Any, how: _Writing) -> list[Line]:
    device = device_of(model)
    tokens, mask = _left_padded(prompts, device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    rows = torch.arange(len(prompts), device=device)  # whose cache each line is
    written = torch.full((len(prompts), how.max_new_tokens), how.end, device=device)
    said = torch.zeros(len(prompts), how.max_new_tokens if how.sure else 0, device=device)
    cache, last = None, _positions(model) - 1
    room = (last + 1 - mask.sum(1)).clamp(max=how.max_new_tokens - 1) + 1  # what the last position predicts is written too
    broken = torch.zeros((), dtype=torch.bool, device=device)
    for step in range(how.max_new_tokens):
        answer = model(input_ids=tokens, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache, tokens = answer.past_key_values, answer.logits[:, -1].argmax(-1, keepdim=True)
        broken |= answer.logits[:, -1].gather(1, tokens).isnan().any()  # to argmax nothing is larger
        # An ended line keeps writing until it is compacted away; what it writes after its end is cut off below.
        written[rows, step] = tokens[:, 0]
        if how.sure:
            said[rows, step] = answer.logits[:, -1].float().log_softmax(-1).amax(-1)
        alive = (written[rows, : step + 1] != how.end).all(1) & (step + 1 < room[rows])
        if not alive.any():
            break
        positions = (positions[:, -1:] + 1).clamp(max=last)
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        if alive.float().mean() < KEEP_ROWS:
            kept = alive.nonzero()[:, 0]
            cache.batch_select_indices(kept)
            rows, tokens, mask, positions = rows[kept], tokens[kept], mask[kept], positions[kept]
    if broken:
        raise DivergedError("generations: the logits are not numbers; the weights have most likely diverged: lower the learning rate and train again")
    lines = zip(written.tolist(), room.tolist(), said.double().cpu(), strict=True)
    return [(_until(line[:most], how.end), own) for line, most, own in lines]


def _left_padded(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """(prompts, longest) tokens and mask; on the left, so that every answer begins in the same column. Any token will do where the mask is 0."""
    longest = max(len(prompt) for prompt in prompts)
    tokens = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    return tokens, mask


def _positions(model: Any) -> int:
    """How many tokens the model was made for."""
    limit: int | None = getattr(model.config, "max_position_embeddings", None)
    return sys.maxsize if limit is None else limit


def _until(line: Sequence[int], end: int) -> list[int]:
    return list(line[: line.index(end)]) if end in line else list(line)
