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

from .examples import device_of


@dataclass(frozen=True, eq=False)
class Guided:
    """A logits processor: the new version's next-token scores, pushed towards what the old one would have said."""

    before: Any
    weight: float

    @torch.no_grad()
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """(rows, vocabulary) guided scores."""
        mask = torch.ones_like(input_ids)
        known = self.before(input_ids=input_ids, attention_mask=mask, use_cache=False, logits_to_keep=1).logits[:, -1].float().log_softmax(-1)
        after = scores.float().log_softmax(-1)
        guided: Tensor = after + self.weight * (known - after)
        return guided


@torch.no_grad()
def guided_answers(before: Any, after: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], weight: float, max_new_tokens: int) -> list[str]:
    """What both versions together answer to each prompt, one prompt at a time.

    Args:
        before: the version from before the unlearning; a causal language model with the same tokens.
        after: the unlearned version.
        tokenizer: of both.
        prompts: token ids.
        weight: 0 decodes the new version, 1 the old one, above 1 extrapolates beyond it.
        max_new_tokens: where an answer is cut that does not end.
    """
    guide, end = Guided(before.eval(), weight), tokenizer.eos_token_id
    answers = []
    for prompt in prompts:
        rows = torch.tensor([list(prompt)], device=device_of(after))
        found = after.eval().generate(
            input_ids=rows,
            attention_mask=torch.ones_like(rows),
            do_sample=False,
            logits_processor=[guide],
            max_new_tokens=max_new_tokens,
            pad_token_id=end,
            eos_token_id=end,
        )
        answers.append(tokenizer.decode(found[0, rows.shape[1] :], skip_special_tokens=True).strip())
    return answers
