"""Unlearning via self-distillation on adjusted logits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from ..engine.forward import IGNORED, with_prompts
from ..engine.head import taught
from ..engine.retaining import Keeping, Normalization, Retain, counts_prompts, parent_of
from ..errors import ConfigError
from ..protocols import Batch, Needs, Reference, Sequences
from ..records import Claim


@dataclass(frozen=True, kw_only=True)
class UNDIAL:
    """Teaches the model the parent's own distribution with the true token's logit lowered, at every token of a forgotten answer.

    L = E_forget[-sum_v q_t(v) log p_t(v)] + retain_weight * L_retain, mean over answer tokens, q_t = softmax(parent's logits - beta * onehot(y_t)).

    Paper: Dong et al. 2024, "UNDIAL: Self-Distillation with Adjusted Logits for Robust Unlearning in Large Language Models" (arXiv:2402.10052),
    section 3.

    Does not guarantee that anything is removed from the weights: the loss has a minimum, where the model is as the parent but for the true tokens,
    and the parent's runner-up may be another form of the same fact. The paper needs no retained records; retain_weight 0 is its setting. The leading
    toolkit's code (locuslab/open-unlearning, src/trainer/utils.py at d3d7cf9) takes the mean over prompt and padding too and, where there
    is no label, lowers an unrelated entry of the vocabulary: published_code here takes the mean over all tokens, with prompts taught the parent's
    own distribution; padding and the unrelated entry are left out. The authors' own code (dong-river/LLM_unlearning, utils/ft_utils.py at 89856dc)
    works on texts without prompts, lowers every token of them and has beta 5 where nothing is said, 3 to 30 in its searches.
    """

    claim: ClassVar[Claim] = Claim.APPROXIMATE

    beta: float = 10.0
    """How far the true token's logit is lowered, nats (the leading toolkit's default)."""
    retain: Retain = "nll"
    """Loss on retained records: their own (nll) or the distance from the parent (kl)."""
    retain_weight: float = 0.0
    """Factor of the retain loss; 0 looks at no retained record."""
    normalization: Normalization = "paper"
    """Means over answers (paper) or over all tokens, prompts included (published_code)."""

    def __post_init__(self) -> None:
        _ = self.keeping  # refuses what is out of range
        if not 0 < self.beta < math.inf:
            raise ConfigError("beta must be above zero and finite")

    @property
    def keeping(self) -> Keeping:
        """The retain side."""
        return Keeping(retain=self.retain, weight=self.retain_weight, normalization=self.normalization)

    @property
    def needs(self) -> Needs:
        """The parent's distributions over forgotten answers, and what the retain loss asks for."""
        return self.keeping.needs(Needs(answer_states=frozenset({"forget"}), prompts_too=self.normalization == "published_code"))

    def loss(self, model: torch.nn.Module, batch: Batch, reference: Reference) -> torch.Tensor:
        """This micro-batch's share of the loss of its optimiser batch."""
        rows = batch.forget
        if rows is None:
            return self.keeping.loss(model, batch, reference)
        everywhere = counts_prompts(rows, self.normalization)
        taken, tokens = (with_prompts(rows), batch.forget_sequence_tokens) if everywhere else (rows, batch.forget_tokens)
        teacher = parent_of(reference.forget, reference, rows.index, penalties=self.beta * _lowered(rows, taken))
        return taught(model, taken, teacher).sum() / tokens


def _lowered(rows: Sequences, taken: Sequences) -> torch.Tensor:
    """(tokens of `taken`,) 1 where the true token, or a classifier's class, is to be forgotten; 0 in prompts."""
    if rows.classes is not None:
        return torch.ones_like(rows.classes, dtype=torch.float32)
    return (rows.labels[:, 1:] != IGNORED)[taken.labels[:, 1:] != IGNORED].float()


EXPORT = UNDIAL
