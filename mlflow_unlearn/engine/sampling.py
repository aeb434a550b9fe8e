"""Answers drawn at temperature 1: what greedy decoding hides comes out in some of many draws.

Paper: Scholten et al. 2025, "A Probabilistic Perspective on Unlearning and Alignment for Large Language Models" (arXiv:2410.03523). The limit of a
leak's probability is Clopper-Pearson's; without a single leak in n draws it is about 3 / n.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch

from .examples import device_of
from .randomness import private_randomness

AT_ONCE = 300
"""Draws in one batch."""


@torch.no_grad()
def drawn(model: Any, tokenizer: Any, prompt: Sequence[int], draws: int, max_new_tokens: int, seed: int) -> list[str]:
    """`draws` answers to one prompt, sampled from the model's own distribution (temperature 1, nothing cut off), without special tokens.

    Args:
        model: a Hugging Face causal language model.
        tokenizer: of the model; needs an end token.
        prompt: token ids.
        draws: how many answers.
        max_new_tokens: where an answer is cut that does not end.
        seed: of the draws.
    """
    model.eval()
    answers: list[str] = []
    rows = torch.tensor([list(prompt)], device=device_of(model))
    seeds = random.Random(seed)  # noqa: S311 - reproducible draws
    while len(answers) < draws:
        with private_randomness(seeds.getrandbits(32)):
            found = model.generate(
                input_ids=rows,
                attention_mask=torch.ones_like(rows),
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                num_return_sequences=min(AT_ONCE, draws - len(answers)),
                max_new_tokens=max_new_tokens,
                pad_token_id=tokenizer.eos_token_id,
                eos_token_id=tokenizer.eos_token_id,
            )
        answers += [tokenizer.decode(line[rows.shape[1] :], skip_special_tokens=True).strip() for line in found]
    return answers
