"""Which step of a run is kept, and when it may stop. Looks at tuning data alone, never at records or canaries that a verdict will use.

The rule: of the steps looked at, those that keep utility come first (mean loss on watched retained records at most `utility_margin` nats per token
above the parent's; where no step does, the one that exceeds it least), among them the one whose tuning canaries look most like records never seen
(AUC of the loss nearest to one half), then the earliest. Without tuning canaries the last step that keeps utility. The parent itself is no candidate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .. import stats
from ..errors import DivergedError
from ..params import SelectionParams
from ..protocols import Example
from .reference import mean_losses
from .worker import Worker

LOOKS = 5
"""A short run is looked at this often, whatever `every` says: in a few steps everything can be over."""


@dataclass(frozen=True, kw_only=True)
class TuningSets:
    """What selection may look at."""

    included: Sequence[Example] = ()
    """Tuning canaries the parent was trained on, being forgotten in this run."""
    excluded: Sequence[Example] = ()
    """Tuning canaries the parent never saw."""
    kept: Sequence[Example] = ()
    """Retained records that no verdict looks at."""
    pad: int


@dataclass(frozen=True, kw_only=True)
class Look:
    """What one look saw."""

    step: int
    auc: float | None
    """Of the loss, excluded above included tuning canaries: 1 fully remembered, 0.5 like never seen; None without canaries."""
    kept_loss: float | None
    """Mean answer-token loss on the watched retained records, nats per token; None without any."""

    def values(self) -> dict[str, float]:
        """For the step's report."""
        return {f"tuning_{name}": value for name in ("auc", "kept_loss") if (value := getattr(self, name)) is not None}


@dataclass(kw_only=True)
class Selection:
    """Looks at the model every few steps and remembers the best."""

    tuning: TuningSets
    params: SelectionParams
    looks: list[Look] = field(default_factory=list)
    """First the parent's."""
    best: Look | None = None
    weights: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """Of the best step."""

    worker: Worker | None = None
    """The model, once the run has begun."""

    def begin(self, worker: Worker, state: Mapping[str, Any] | None = None) -> None:
        """Look at the parent, or go on from a checkpoint's state."""
        self.worker = worker
        if state is None:
            self.looks = [worker.said(self._look(worker, 0))]
        else:
            self.looks = [Look(**look) for look in state["looks"]]
            self.best, self.weights = (Look(**state["best"]) if state["best"] else None), state["weights"]

    def due(self, step: int, steps: int) -> bool:
        """Whether to look after this step of so many: every few, at least LOOKS times in a run, and after the last."""
        if not self.params.every:
            return False
        return step == steps or step % max(1, min(self.params.every, steps // LOOKS)) == 0

    def look(self, worker: Worker, step: int) -> Look:
        """Look at the model after `step`, and keep its weights if it is the best so far.

        Raises:
            DivergedError: on retained records the model is worse than one that guesses at random.
        """
        look = worker.said(self._look(worker, step))  # one process decides: a difference in the last bit must not send two of them different ways
        self._require_sane(look, worker)
        self.looks.append(look)
        if self.best is None or self._order(look) < self._order(self.best):
            self.best, self.weights = look, worker.trained()
        return look

    def target_met(self) -> bool:
        """Whether the last look found the tuning canaries no better known than never-seen ones, and utility kept."""
        last = self.looks[-1]
        return last.step > 0 and last.auc is not None and last.auc <= self.params.forget_target and not self.excess(last)

    def state(self) -> dict[str, Any]:
        """What to keep in a checkpoint."""
        best = asdict(self.best) if self.best else None
        return {"looks": [asdict(look) for look in self.looks], "best": best, "weights": dict(self.weights)}

    def restore(self) -> None:
        """Give the model the weights of the best step."""
        if self.worker is not None and self.best is not None:
            self.worker.restore(self.weights)

    def _look(self, worker: Worker, step: int) -> Look:
        tuning, auc = self.tuning, None
        if tuning.included and tuning.excluded:
            included, excluded = (self._losses(worker, canaries) for canaries in (tuning.included, tuning.excluded))
            auc = stats.area(-included, -excluded).value if np.isfinite([*included, *excluded]).all() else math.nan
        kept = float(self._losses(worker, tuning.kept).mean()) if tuning.kept else None
        return Look(step=step, auc=auc, kept_loss=kept)

    def _losses(self, worker: Worker, examples: Sequence[Example]) -> NDArray[np.float64]:
        losses: NDArray[np.float64] = mean_losses(worker, examples, self.tuning.pad).double().cpu().numpy()
        return losses

    def _order(self, look: Look) -> tuple[float, float]:
        return self.excess(look), abs(look.auc - 0.5) if look.auc is not None else -float(look.step)

    def excess(self, look: Look) -> float:
        """By how much the look misses the margin of utility, nats per token."""
        if look.kept_loss is None or (before := self.looks[0].kept_loss) is None:
            return 0.0
        return max(0.0, look.kept_loss - before - self.params.utility_margin)

    def _require_sane(self, look: Look, worker: Worker) -> None:
        if any(value is not None and not math.isfinite(value) for value in (look.auc, look.kept_loss)):
            raise DivergedError(f"step {look.step}: the model's losses are no longer numbers; lower optimiser.learning_rate in params.yaml")
        if look.kept_loss is None or (before := self.looks[0].kept_loss) is None:
            return
        config, kept = worker.model.config, self.tuning.kept
        uniform = math.log(config.vocab_size if not kept or kept[0].label is None else config.num_labels)
        if look.kept_loss >= max(uniform, before + self.params.utility_margin):
            raise DivergedError(
                f"step {look.step}: the loss on retained records is {look.kept_loss:.2f} nats per token, expected below {uniform:.2f}, that of "
                "guessing at random; lower optimiser.learning_rate or raise the method's retain_weight in params.yaml"
            )
