"""Simple negative preference optimisation."""

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
class SimNPO:
    """Makes each forgotten answer less likely per token, measured against nothing but itself, while retained answers keep their loss.

    L = -(2 / beta) E_forget[log sigmoid(-(beta / |y|) log pi - gamma)] + retain_weight * L_retain, |y| answer tokens.

    Paper: Fan et al. 2024, "Simplicity Prevails: Rethinking Negative Preference Optimization for LLM Unlearning" (arXiv:2410.07163), the objective of
    section 5.

    Does not guarantee that anything is removed from the weights. Without a reference nothing says how well a record was known: one that is
    easy to guess is pushed although nobody learned it, and one whose tokens are unlikely is left alone although the parent knew it better than a
    stranger would. The authors' code (OPTML-Group/Unlearn-Simple, TOFU/dataloader.py and config/forget.yaml at f1a355d) multiplies the
    margin by beta too, so that its gamma is gamma / beta here, and weighs the forget loss by npo_coeff 0.1375 (forget05, beta 2.5): retain_weight
    7.27 here. The leading toolkit calls that margin delta, the factor of the forget loss gamma and that of the retain loss alpha
    (locuslab/open-unlearning, configs/trainer at d3d7cf9): its beta 4.5, delta 0, gamma 0.125, alpha 1 are beta 4.5, gamma 0, retain_weight 8
    here at an eighth of the loss, which AdamW sees through clipping and its epsilon alone.
    """

    claim: ClassVar[Claim] = Claim.APPROXIMATE

    beta: float = 2.5
    """Inverse temperature, 1/(nats per token): the larger, the sooner a record that has become unlikely is left alone."""
    gamma: float = 0.0
    """Reward margin, dimensionless: the larger, the later a record is left alone."""
    retain: Retain = "nll"
    """Loss on retained records: their own (nll) or the distance from the parent (kl)."""
    retain_weight: float = 1.0
    """Factor of the retain loss; 0 looks at no retained record. The authors' code has about 7 on TOFU (see above)."""
    normalization: Normalization = "paper"
    """The kl retain loss over answers (paper) or over all tokens, prompts included (published_code); see engine/retaining.py."""

    def __post_init__(self) -> None:
        _ = self.keeping  # refuses what is out of range
        if not (0 < self.beta < math.inf and 0 <= self.gamma < math.inf):
            raise ConfigError("beta must be above zero and gamma not below, both finite")

    @property
    def keeping(self) -> Keeping:
        """The retain side."""
        return Keeping(retain=self.retain, weight=self.retain_weight, normalization=self.normalization)

    @property
    def needs(self) -> Needs:
        """What the retain loss asks for."""
        return self.keeping.needs(Needs())

    def loss(self, model: torch.nn.Module, batch: Batch, reference: Reference) -> torch.Tensor:
        """This micro-batch's share of the loss of its optimiser batch."""
        if batch.forget is None:
            return self.keeping.loss(model, batch, reference)
        log_probs, tokens = answer_log_probs(model, batch.forget)
        return losses.sim_npo_terms(log_probs, tokens, self.beta, self.gamma).sum() / batch.forget_records


EXPORT = SimNPO
