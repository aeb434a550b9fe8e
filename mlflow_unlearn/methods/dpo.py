"""Direct preference optimisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ..engine.preference import preference_loss
from ..engine.retaining import Keeping, Normalization, Retain
from ..errors import ConfigError
from ..protocols import Batch, Needs, Reference
from ..records import Claim


@dataclass(frozen=True, kw_only=True)
class DPO:
    """Makes the model prefer a wrong answer from the data to each forgotten one, more than the parent does, while retained answers keep their loss.

    L = -E_forget[log sigmoid(beta (log(pi(wrong) / pi_parent(wrong)) - log(pi(right) / pi_parent(right))))] + retain_weight * L_retain,
    with log pi summed over the answer's tokens.

    Paper: Rafailov et al. 2023, "Direct Preference Optimization: Your Language Model is Secretly a Reward Model" (arXiv:2305.18290), equation 7; with
    plausible wrong answers of the same kind as the preferred ones in Mekala et al. 2024, "Alternate Preference Optimization for Unlearning Factual
    Knowledge in Large Language Models" (arXiv:2409.13474), whose wrong answers are written by a model.

    Does not guarantee that anything is removed from the weights, nor that the forgotten answer becomes unlikely: the loss sees only the difference of
    the two, and both may rise or fall. It teaches false statements about a real person, which may be as unlawful as true ones. Equation 2 of
    Zhang et al. 2024 (arXiv:2404.05868) divides the loss by beta and their published code multiplies it by 2 / beta; `normalization` chooses.
    """

    claim: ClassVar[Claim] = Claim.APPROXIMATE

    beta: float = 0.1
    """Inverse temperature, 1/nats: the larger, the sooner a record whose preference has turned is left alone."""
    normalization: Normalization = "paper"
    """Factor of the forget loss: 1 (paper) or 2 / beta (published_code), which published learning rates and retain weights go with; and whether a kl
    retain loss is taken over answers (paper) or over all tokens, prompts included (published_code)."""
    retain: Retain = "nll"
    """Loss on retained records: their own (nll) or the distance from the parent (kl)."""
    retain_weight: float = 1.0
    """Factor of the retain loss; 0 looks at no retained record."""

    def __post_init__(self) -> None:
        _ = self.keeping  # refuses what is out of range
        if self.beta <= 0:
            raise ConfigError("beta must be above zero")

    @property
    def keeping(self) -> Keeping:
        """The retain side."""
        return Keeping(retain=self.retain, weight=self.retain_weight, normalization=self.normalization)

    @property
    def needs(self) -> Needs:
        """The parent's log-probabilities of right and wrong answers, and what the retain loss asks for."""
        return self.keeping.needs(Needs(log_probs=True, alternatives="data"))

    def loss(self, model: torch.nn.Module, batch: Batch, reference: Reference) -> torch.Tensor:
        """This micro-batch's share of the loss of its optimiser batch.

        Raises:
            ConfigError: an answer, or what the parent says of it, is missing.
        """
        if batch.forget is None:
            return self.keeping.loss(model, batch, reference)
        return preference_loss(model, batch, reference, self.beta, self.normalization)


EXPORT = DPO
