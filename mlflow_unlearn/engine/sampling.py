"""Answers drawn at temperature 1: what greedy decoding hides comes out in some of many draws.

Paper: Scholten et al. 2025, "A Probabilistic Perspective on Unlearning and Alignment for Large Language Models" (arXiv:2410.03523). The limit of a
leak's probability is Clopper-Pearson's; without a single leak in n draws it is about 3 / n.

The prompt runs once for all draws, and a draw that has ended costs nothing more. Each draw has random numbers of its own, which pick its tokens by
their cumulative probability: what it says does not hang on how many are drawn at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import DivergedError, UnmeasurableError
from .examples import device_of
from .forward import unwrapped
from .generation import KEEP_ROWS, end_of

PROBABILITIES = 1 << 24
"""Most probabilities held at once (128 MiB in float64): draws times vocabulary."""


@torch.no_grad()
def drawn(model: Any, tokenizer: Any, prompt: Sequence[int], draws: int, max_new_tokens: int, seed: int) -> list[str]:
    """`draws` answers to one prompt, sampled from the model's own distribution (temperature 1, nothing cut off), without special tokens.

    Args:
        model: a Hugging Face causal language model.
        tokenizer: of the model; needs an end token.
        prompt: token ids.
        draws: how many answers.
        max_new_tokens: where an answer is cut that does not end; it is also cut where the positions end that the model was made for.
        seed: of the draws.

    Raises:
        UnmeasurableError: the model cannot write, the prompt is longer than it takes, or the tokenizer has no end token.
        DivergedError: what it says is not a number.
    """
    end, causal = end_of(tokenizer), unwrapped(model)
    if not getattr(causal, "can_generate", lambda: False)():
        raise UnmeasurableError(
            f"draws: {type(causal).__name__} cannot write answers, expected a causal language model; leave the probe `sampled` out"
        )
    positions = getattr(causal.config, "max_position_embeddings", None) or sys.maxsize
    if len(prompt) > positions:
        raise UnmeasurableError(f"draws: a prompt has {len(prompt)} tokens, the model takes {positions}; ask shorter questions")
    steps = min(max_new_tokens, positions - len(prompt) + 1)  # what the last position predicts is written too
    luck = torch.rand(draws, steps, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    at_once = max(1, PROBABILITIES // causal.config.get_text_config(decoder=True).vocab_size)
    lines = [line for piece in torch.split(luck, at_once) for line in _written(model.eval(), prompt, end, piece.to(device_of(model)))]
    return [text.strip() for text in tokenizer.batch_decode(lines, skip_special_tokens=True)]


def _written(model: Any, prompt: Sequence[int], end: int, luck: Tensor) -> list[list[int]]:
    """One answer for each row of (draws, steps) numbers in [0, 1), without the end token."""
    written = torch.full(luck.shape, end, device=luck.device)
    rows = torch.arange(len(luck), device=luck.device)  # whose cache each line is
    answer = model(input_ids=torch.tensor([list(prompt)], device=luck.device), use_cache=True, logits_to_keep=1)
    cache, logits = answer.past_key_values, answer.logits[:, -1].expand(len(luck), -1)
    cache.batch_repeat_interleave(len(luck))
    for step in range(luck.shape[1]):
        written[rows, step] = _picked(logits, luck[rows, step])
        alive = (written[rows, : step + 1] != end).all(1)
        if step + 1 == luck.shape[1] or not alive.any():
            break
        if alive.float().mean() < KEEP_ROWS:
            kept = alive.nonzero()[:, 0]
            cache.batch_select_indices(kept)
            rows = rows[kept]
        answer = model(input_ids=written[rows, step, None], past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache, logits = answer.past_key_values, answer.logits[:, -1]
    return [line[: line.index(end)] if end in line else line for line in written.tolist()]


def _picked(logits: Tensor, luck: Tensor) -> Tensor:
    """(rows,) the first token up to which the probabilities sum to more than the row's number; one of probability 0 is never picked."""
    reached = logits.float().softmax(-1).cumsum(-1, dtype=torch.float64)
    if not reached[:, -1].isfinite().all():
        raise DivergedError(
            "draws: the model's logits are not numbers; its weights have most likely diverged: lower the learning rate and train again"
        )
    return torch.searchsorted(reached, luck[:, None] * reached[:, -1:], right=True)[:, 0].clamp(max=logits.shape[-1] - 1)
