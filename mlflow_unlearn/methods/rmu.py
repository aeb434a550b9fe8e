"""Representation misdirection for unlearning, with fixed or adaptive steering."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..engine.forward import IGNORED
from ..engine.layers import layer_output
from ..engine.ragged import Ragged
from ..errors import ConfigError
from ..protocols import Batch, Needs, Reference, Sequences, Side
from ..records import Claim

DOWN_PROJECTIONS = ("down_proj", "mlp.c_proj", "dense_4h_to_h", "fc2", "fc_out")
"""What the second matrix of the feed-forward block is called: llama and its kin, gpt2, gpt_neox and bloom, phi and opt, gptj and codegen."""


@dataclass(frozen=True, kw_only=True)
class RMU:
    """Turns what an early layer makes of forgotten records into one random direction, and leaves what it makes of retained ones as the parent has it.

    L = E_forget[(1 / n) sum_t |h_t - c u|^2] + retain_weight * E_retain[(1 / n) sum_t |h_t - parent h_t|^2], where h_t is the output of `layer` at
    token t of a record's n tokens (prompt and answer, no padding), u a unit vector whose entries were drawn uniformly from [0, 1), and c the
    coefficient, or with adaptive steering beta * |parent h_t|. Nothing above `layer` is computed, and what enters the lowest layer that may
    change comes from the frozen parent, once.

    Paper: Li et al. 2024, "The WMDP Benchmark: Measuring and Reducing Malicious Use With Unlearning" (arXiv:2403.03218), section 4, with the
    settings published for Zephyr-7B; adaptive steering from Dang, Pham, Hoang and Inoue 2024, "On Effects of Steering Latent Representation for
    Large Language Model Unlearning" (arXiv:2408.06223), with beta as in the command they published.

    Does not guarantee that anything is removed from the weights: the model turns incoherent where it recognises the topic, and taking one direction
    out of its activations, or a little fine-tuning, brings much back. Words that forgotten and retained records share are pulled both ways. The
    coefficient is in the units of the model's activations: another model needs another one, or adaptive steering.

    Published code takes the mean over the width too: neither the balance of the terms nor AdamW's steps change, only what is clipped. The authors'
    own counts padding as tokens. The leading toolkit's counts answer tokens alone (tokens: answers) and divides the sum of each record by the
    length of every record of the micro-batch in turn (normalization: published_code). The authors of adaptive steering take c once, from the mean
    over the first batch.
    """

    claim: ClassVar[Claim] = Claim.APPROXIMATE

    layer: int = 7
    """The decoder layer whose output is steered, counted from 0."""
    trained_layers: int = 3
    """How many layers may change, `layer` and those right below: of each the second feed-forward matrix."""
    parameters: str | None = None
    """Regular expression searched in parameter names: those may change instead. `.` lets everything up to `layer` change, at the full cost."""
    steering: Literal["fixed", "adaptive"] = "fixed"
    """Whether forgotten tokens go to the same vector, or to one as long as the parent's own activation times beta."""
    coefficient: float = 6.5
    """Length of the vector with fixed steering, in units of the activations."""
    beta: float = 5.0
    """Length of the vector with adaptive steering, as a multiple of the parent's."""
    retain_weight: float = 1200.0
    """Factor of the retain loss (alpha in the paper); 0 looks at no retained record."""
    tokens: Literal["all", "answers"] = "all"
    """Which tokens count: a record's own, or those of its answer."""
    normalization: Literal["paper", "published_code"] = "paper"
    """The mean over each record's own tokens, or the leading toolkit's; that one depends on which records share a micro-batch."""
    direction_seed: int = 0
    """Decides the random direction."""

    def __post_init__(self) -> None:
        if not 1 <= self.trained_layers <= self.layer + 1:
            raise ConfigError(f"trained_layers must lie between 1 and layer + 1, found {self.trained_layers} with layer {self.layer}")
        if self.coefficient <= 0 or self.beta <= 0 or self.retain_weight < 0:
            raise ConfigError("coefficient and beta must be above zero and retain_weight not below")

    @property
    def needs(self) -> Needs:
        """The parent's activations, and the parameters that may change."""
        numbers = "|".join(str(self.layer - below) for below in range(self.trained_layers))
        names = "|".join(DOWN_PROJECTIONS).replace(".", r"\.")
        pattern = rf"(^|\.)(layers|h|blocks)\.({numbers})\.(.+\.)?({names})(\.(?!bias)|$)"
        outputs: frozenset[Side] = frozenset({"retain"} if self.steering == "fixed" else {"forget", "retain"})
        return Needs(retain=self.retain_weight > 0, layer=self.layer, layer_outputs=outputs, trainable=self.parameters or pattern)

    def loss(self, model: torch.nn.Module, batch: Batch, reference: Reference) -> Tensor:
        """This micro-batch's share of the loss of its optimiser batch."""
        if batch.forget is not None:
            states = layer_output(model, batch.forget, self.layer, reference.forget, reference.first_layer)
            return self._distance(states, self._target(batch.forget, states, reference), batch.forget, batch.forget_records)
        if batch.retain is None:
            raise ValueError("rmu: the micro-batch has neither forget nor retain rows")
        states = layer_output(model, batch.retain, self.layer, reference.retain, reference.first_layer)
        parent = _padded(reference.retain.layer_outputs, batch.retain)
        return self.retain_weight * self._distance(states, parent, batch.retain, batch.retain_records)

    def _target(self, rows: Sequences, states: Tensor, reference: Reference) -> Tensor:
        """(width,) where all forgotten tokens shall go, or (rows, length, width) where each shall; float32."""
        drawn = torch.rand(states.shape[-1], generator=torch.Generator().manual_seed(self.direction_seed))
        direction: Tensor = (drawn / torch.linalg.vector_norm(drawn)).to(states.device)
        if self.steering == "fixed":
            return self.coefficient * direction
        lengths: Tensor = torch.linalg.vector_norm(_padded(reference.forget.layer_outputs, rows).float(), dim=-1, keepdim=True)
        return self.beta * lengths * direction

    def _distance(self, states: Tensor, target: Tensor, rows: Sequences, records: int) -> Tensor:
        """Scalar: these rows' share of the mean squared distance over all `records` of a side."""
        if rows.classes is not None and self.tokens == "answers":
            raise ConfigError("rmu: a sequence classifier's records have no answer tokens; set unlearn.method.tokens to all")
        counted = rows.attention_mask if self.tokens == "all" else rows.labels != IGNORED
        lengths = counted.sum(1).clamp(min=1)
        squares: Tensor = (states.float() - target.float()).square()
        if self.normalization == "paper":
            share: Tensor = ((squares.sum(-1) * counted).sum(1) / lengths).sum() / records
            return share
        sums = (squares.mean(-1) * counted).sum(1)
        return (sums / lengths[:, None]).mean() * (len(sums) / records)


def _padded(parent: Ragged | None, rows: Sequences) -> Tensor:
    """(rows, length, width) the parent's activations.

    Raises:
        ConfigError: there are none.
    """
    if parent is None:
        raise ConfigError("rmu: needs the parent's activations, found none; compute a reference with engine.reference.reference_of")
    return parent.padded(rows.index, rows.input_ids.shape[1])


EXPORT = RMU
