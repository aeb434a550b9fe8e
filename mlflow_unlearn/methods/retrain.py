"""Retraining without the forgotten records."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from ..engine.descent import fit
from ..engine.randomness import private_randomness
from ..errors import ConfigError
from ..params import OptimiserParams
from ..protocols import Progress, Task
from ..records import Claim

SCRATCH = "scratch"


@dataclass(frozen=True, kw_only=True)
class Retrain:
    """Starts again from where the parent once started and trains on the retained records alone.

    Paper: the yardstick of every unlearning paper; named "retraining from scratch" in Bourtoule et al. 2021, "Machine Unlearning"
    (arXiv:1912.03817), section 3.

    The claim is exact as far as the weights go: the forgotten records took no part. It does not guarantee that the records are absent from what
    was not retrained, i.e. the base model and the tokenizer, nor that somebody else can replay the run: that takes a replay with equal tensor
    digests, and until there is one the verdict stays inconclusive. The cost is that of training.
    """

    claim: ClassVar[Claim] = Claim.EXACT

    base: str | None = None
    """Where the parent's own training started: `scratch`, or a local path or hub id. None believes the parent's config, where the training script
    may have left `initialised_from`."""
    epochs: int = 40
    """Passes over retain."""
    learning_rate: float = 4e-3
    """Peak of the cosine."""
    batch_size: int = 64
    """Records per optimiser step."""
    token_budget: int = 2048
    """Most padded tokens in one micro-batch; does not change the result."""

    def __post_init__(self) -> None:
        self._optimiser()

    def steps(self, task: Task) -> Iterator[Progress]:
        """Replace the weights of `task.model` and train them; `task.optimiser`, made for unlearning, is not used.

        Raises:
            ConfigError: it is not known where the parent started, or the model is wrapped in adapters.
        """
        _start_again(task.model, self._origin(task.model), task.seed)  # before `fit` shares the model among processes
        yield from fit(task.model, task.retain, self._optimiser(), task.seed, task.pad, task.machine)

    def _optimiser(self) -> OptimiserParams:
        return OptimiserParams(epochs=self.epochs, learning_rate=self.learning_rate, batch_size=self.batch_size, token_budget=self.token_budget)

    def _origin(self, model: Any) -> str:
        if hasattr(model, "get_base_model"):
            raise ConfigError("retrain: trains full weights, found a model with LoRA adapters; remove `unlearn.lora` from params.yaml")
        origin: str | None = self.base or getattr(model.config, "initialised_from", None)
        if origin is None:
            raise ConfigError(
                "retrain: it is not known what the parent was trained from; set unlearn.method.base to `scratch`, a local path or a hub id"
            )
        return origin


def begin_again(model: Any, seed: int) -> None:
    """Give a model, in place, the weights that its own training started from, as its config says.

    Raises:
        ConfigError: it is not known where the training started.
    """
    _start_again(model, Retrain()._origin(model), seed)


def _start_again(model: Any, origin: str, seed: int) -> None:
    """Load the starting weights into the model: drawn anew from its config, or those of the base."""
    if origin == SCRATCH:
        with private_randomness(seed), torch.device(model.device):
            fresh = type(model)(model.config)
    else:
        fresh = _base(type(model), origin)
    try:
        model.load_state_dict(fresh.state_dict())
    except RuntimeError as error:
        raise ConfigError(
            f"retrain: base '{origin}' does not have the parent's shapes ({str(error).splitlines()[-1].strip()}); set unlearn.method.base to the "
            "model that the parent was trained from, with the same vocabulary"
        ) from error


def _base(architecture: Any, origin: str) -> Any:
    try:
        return architecture.from_pretrained(origin)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"retrain: base '{origin}' cannot be loaded ({type(error).__name__}); set unlearn.method.base to a path or hub id"
        ) from error


EXPORT = Retrain
