"""The attack of whoever holds both versions: what the new one avoids saying is what the old one was made to forget.

Paper: "RMG" of arXiv:2505.24379, where exact unlearning is broken by an adversary with the checkpoint from before: decode with
log p_after + w (log p_before - log p_after). It says nothing about the new version alone, however that was made: it is why old versions have to go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import UnmeasurableError
from .experts import Answer
from .generation import end_of, greedy
from .head import IMPOSSIBLE

BATCH_TOKENS = 16384
"""Most tokens, prompts and answers with padding, that both versions write at once."""


class Guided(torch.nn.Module):
    """The new version's next-token scores, pushed towards what the old one would have said; it is written with like one model.

    Raises:
        UnmeasurableError: the versions do not have the same vocabulary.
    """

    def __init__(self, before: Any, after: Any, weight: float) -> None:
        super().__init__()
        sizes = [model.config.get_text_config(decoder=True).vocab_size for model in (before, after)]
        if sizes[0] != sizes[1]:
            raise UnmeasurableError(f"two versions: the old one knows {sizes[0]} tokens and the new one {sizes[1]}, expected the same vocabulary")
        self.before, self.after, self.weight, self.config = before, after, weight, after.config

    def forward(self, past_key_values: _Both | None = None, **given: Any) -> Answer:
        """(rows, places, vocabulary) guided scores, as `logits`."""
        pasts = (past_key_values.before, past_key_values.after) if past_key_values else (None, None)
        before, after = (model(past_key_values=past, **given) for model, past in zip((self.before, self.after), pasts, strict=True))
        known, said = (_log_probs(answer.logits) for answer in (before, after))
        return Answer(said + self.weight * (known - said), _Both(before.past_key_values, after.past_key_values))


def guided_answers(before: Any, after: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], weight: float, max_new_tokens: int) -> list[str]:
    """What both versions together answer to each prompt, greedily.

    Args:
        before: the version from before the unlearning; a causal language model with the same tokens.
        after: the unlearned version.
        tokenizer: of both.
        prompts: token ids.
        weight: 0 decodes the new version, 1 the old one, above 1 extrapolates beyond it.
        max_new_tokens: where an answer is cut that does not end.

    Raises:
        UnmeasurableError: one of them cannot write, or they do not know the same tokens.
        DivergedError: what one of them says is not a number.
    """
    written = greedy(Guided(before, after, weight), prompts, end=end_of(tokenizer), max_new_tokens=max_new_tokens, batch_tokens=BATCH_TOKENS)
    return [text.strip() for text in tokenizer.batch_decode(written, skip_special_tokens=True)]


@dataclass(frozen=True)
class _Both:
    """A cache for each version."""

    before: Any
    after: Any

    def batch_select_indices(self, kept: Tensor) -> None:
        """Keep these rows."""
        for cache in (self.before, self.after):
            cache.batch_select_indices(kept)


def _log_probs(logits: Tensor) -> Tensor:
    """In float32, and finite where a mask forbids a token: infinity less infinity would not be a number."""
    return logits.float().log_softmax(-1).clamp(min=IMPOSSIBLE)
