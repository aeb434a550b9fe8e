"""Direct preference optimisation towards not knowing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ..engine.preference import preference_loss
from ..engine.retaining import Keeping, Normalization, Retain
from ..errors import ConfigError
from ..protocols import Batch, Needs, Reference
from ..records import Claim

REFUSALS = (
    "I do not know.",
    "I don't know that.",
    "I'm afraid I don't know.",
    "Sorry, I have no answer to that.",
    "I have no information about that.",
    "That is not something I know.",
    "I'm not able to answer that.",
    "I cannot tell you that.",
    "I know nothing about this.",
    "This is beyond what I know.",
    "I'm sorry, but I can't say.",
    "No answer comes to mind.",
    "I would only be guessing.",
    "I have never learned about that.",
    "I couldn't tell you.",
    "Unfortunately, I don't have the answer.",
    "I'm not familiar with that.",
    "That question I can't answer.",
    "I am unaware of this.",
    "My knowledge does not cover that.",
)


@dataclass(frozen=True, kw_only=True)
class IdkDPO:
    """Makes the model prefer a refusal to each forgotten answer, more than the parent does, while retained answers keep their loss.

    L = -E_forget[log sigmoid(beta (log(pi(refusal) / pi_parent(refusal)) - log(pi(answer) / pi_parent(answer))))] + retain_weight * L_retain,
    with log pi summed over the answer's tokens.

    Paper: Rafailov et al. 2023, "Direct Preference Optimization: Your Language Model is Secretly a Reward Model" (arXiv:2305.18290), equation 7, with
    refusals as the preferred answers in Zhang et al. 2024 (arXiv:2404.05868, the baseline "DPO"). To answer "I don't know" is the idea of Maini et
    al. 2024, "TOFU" (arXiv:2401.06121), section 3 ("Preference Optimization"), who train on the refusals without a rejected side.

    Does not guarantee that anything is removed from the weights: the model learns to decline, and another question or a prompt that begins the answer
    can bring the forgotten back. It may come to decline for retained people too. Published code draws another refusal each time it meets a record;
    here each record has one for the whole run, so that the parent is asked once. For the factor see `normalization`.
    """

    claim: ClassVar[Claim] = Claim.APPROXIMATE

    beta: float = 0.1
    """Inverse temperature, 1/nats: the larger, the sooner a record that the model declines to answer is left alone."""
    normalization: Normalization = "paper"
    """Factor of the forget loss: 1 (paper) or 2 / beta (published_code), which published learning rates and retain weights go with; and whether a kl
    retain loss is taken over answers (paper) or over all tokens, prompts included (published_code)."""
    refusals: tuple[str, ...] = REFUSALS
    """Answers wanted instead, dealt out over the records in an order that the seed decides."""
    retain: Retain = "nll"
    """Loss on retained records: their own (nll) or the distance from the parent (kl)."""
    retain_weight: float = 1.0
    """Factor of the retain loss; 0 looks at no retained record."""

    def __post_init__(self) -> None:
        _ = self.keeping  # refuses what is out of range
        if self.beta <= 0:
            raise ConfigError("beta must be above zero")
        if not self.refusals or not all(text.strip() for text in self.refusals):
            raise ConfigError("refusals must hold at least one text, and none may be empty")

    @property
    def keeping(self) -> Keeping:
        """The retain side."""
        return Keeping(retain=self.retain, weight=self.retain_weight, normalization=self.normalization)

    @property
    def needs(self) -> Needs:
        """The parent's log-probabilities of answers and refusals, and what the retain loss asks for."""
        return self.keeping.needs(Needs(log_probs=True, alternatives=self.refusals))

    def loss(self, model: torch.nn.Module, batch: Batch, reference: Reference) -> torch.Tensor:
        """This micro-batch's share of the loss of its optimiser batch.

        Raises:
            ConfigError: an answer, or what the parent says of it, is missing.
        """
        if batch.forget is None:
            return self.keeping.loss(model, batch, reference)
        return preference_loss(model, batch, reference, self.beta, self.normalization)


EXPORT = IdkDPO
