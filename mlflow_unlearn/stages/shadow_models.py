"""How a project's models are made once more, for the probes of the deep audit that train: from the parent's start, and by the run's own method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..audit import Retraining
from ..audit_sets import AuditSets
from ..catalog import build
from ..digests import sha256_json
from ..documents import encode
from ..engine.descent import fit
from ..engine.examples import padding
from ..engine.selection import TuningSets
from ..methods.retrain import begin_again
from ..params import OptimiserParams
from ..protocols import Record, Task
from ..records import Split
from ..unlearn import UnlearnJob, unlearn
from .jobs import load_parent
from .unlearning import swapped_twins
from .workbench import Workbench


def retraining(bench: Workbench, split: Split, sets: AuditSets) -> Retraining | None:
    """None where params.yaml does not say how the parent was trained, and for adapters, which are made in another way."""
    training, params = bench.params.evaluate.training, bench.params.unlearn
    if training is None or params.lora is not None:
        return None
    making = _Making(bench=bench, split=split, sets=sets, training=training)
    decides = [split.parent.tensor_digest, split.digest, encode(training), encode(params), sets.template]
    return Retraining(train=making.trained, unlearn=making.unlearned, settings=sha256_json(decides))


@dataclass(frozen=True, kw_only=True)
class _Making:
    bench: Workbench
    split: Split
    sets: AuditSets
    training: OptimiserParams

    @cached_property
    def tokenizer(self) -> Any:
        """The parent's, which all of them have."""
        return load_parent(self.bench, self.split)[1]

    def trained(self, canaries: Sequence[Record], seed: int) -> Any:
        """From where the parent once started, on what stays and on these canaries."""
        model, _ = load_parent(self.bench, self.split)
        begin_again(model, seed)
        examples = self.sets.examples(self.tokenizer, [*self.sets.retained, *canaries], self.sets.classes(model))
        for _ in fit(model, examples, self.training, seed, padding(self.tokenizer)):
            pass
        return model

    def unlearned(self, model: Any, canaries: Sequence[Record], seed: int) -> Any:
        """By the run's own method and settings; without tuning data, so that shadows keep their last step."""
        params, pad, template = self.bench.params.unlearn, padding(self.tokenizer), self.sets.template
        task = Task(
            model=model,
            forget=self.sets.examples(self.tokenizer, canaries),
            retain=self.sets.examples(self.tokenizer, self.sets.retained),
            swapped=swapped_twins(self.tokenizer, template, canaries),
            strangers=self.sets.examples(self.tokenizer, self.sets.records["holdout"]),
            optimiser=params.optimiser,
            seed=seed,
            pad=pad,
        )
        method = build("methods", params.method, where="params.yaml: unlearn.method")
        unlearn(UnlearnJob(task=task, method=method, tuning=TuningSets(pad=pad), selection=params.selection))
        return model.eval()
