"""Negative preference optimisation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from .. import losses
from ..engine.head import answer_log_probs
from ..engine.retaining import Keeping, Normalization, Retain
from ..errors import ConfigError
from ..protocols import Batch, Needs, Reference
from ..records import Claim


@dataclass(frozen=True, kw_only=True)
class NPO:
    """Makes each forgotten answer less likely than the parent finds it, ever more gently, while retained answers keep their loss.

    L = -(2 / beta) E_forget[log sigmoid(-beta log(pi / pi_parent))] + retain_weight * L_retain, with log pi summed over the answer's tokens.

    Paper: Zhang, Lin, Bai and Mei 2024, "Negative Preference Optimization: From Catastrophic Collapse to Effective Unlearning"
    (arXiv:2404.05868), equation 3, with the retain term of section 3.2 ("NPO+RT", and "NPO+KL" with retain: kl).

    Does not guarantee that anything is removed from the weights: a little benign fine-tuning can bring the forgotten back. Small models lose what
    they should keep at the paper's retain weight. The authors' published code averages the retain loss per micro-batch and runs the parent again in
    every step; its log-probabilities are the same here, computed once.
    """

    claim: ClassVar[Claim] = Claim.APPROXIMATE

    beta: float = 0.1
    """Inverse temperature, 1/nats: the larger, the sooner a record that has moved away from the parent is left alone."""
    retain: Retain = "nll"
    """Loss on retained records: their own (nll) or the distance from the parent (kl)."""
    retain_weight: float = 1.0
    """Factor of the retain loss; 0 looks at no retained record."""
    normalization: Normalization = "paper"
    """The kl retain loss over answers (paper) or over all tokens, prompts included (published_code); see engine/retaining.py."""
    clamp: bool = False
    """Whether a record leaves the loss once it is as strange as the same record about a person never trained on; not in the paper."""

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
        """The parent's log-probabilities, and what clamp and retain loss ask for."""
        return self.keeping.needs(Needs(log_probs=True, floors=self.clamp))

    def loss(self, model: torch.nn.Module, batch: Batch, reference: Reference) -> torch.Tensor:
        """This micro-batch's share of the loss of its optimiser batch; clamped records stay in the mean with weight 0.

        Raises:
            ConfigError: what the parent says is missing.
        """
        if batch.forget is None:
            return self.keeping.loss(model, batch, reference)
        parent, index = reference.forget, batch.forget.index
        if parent.log_probs is None:
            raise ConfigError("npo: needs the parent's log-probabilities, found none; compute a reference with engine.reference.reference_of")
        log_probs, tokens = answer_log_probs(model, batch.forget)
        terms = losses.npo_terms(log_probs, parent.log_probs[index], self.beta)
        if self.clamp:
            terms = losses.clamped(terms, log_probs, tokens, None if parent.floors is None else parent.floors[index])
        return terms.sum() / batch.forget_records


EXPORT = NPO
