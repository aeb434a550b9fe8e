"""The models that the verdict is tested on: a parent, an honest retrain, and eleven ways to look forgotten; one folder of weights a trial."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from verdict_world import TEMPLATE, World, tokenizer

from mlflow_unlearn.adapters.models import fresh_model
from mlflow_unlearn.catalog import build
from mlflow_unlearn.engine.descent import fit
from mlflow_unlearn.engine.examples import encode
from mlflow_unlearn.engine.selection import TuningSets
from mlflow_unlearn.params import OptimiserParams, SelectionParams
from mlflow_unlearn.protocols import Example, Record, Task
from mlflow_unlearn.unlearn import UnlearnJob, unlearn

CONFIG = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 128,
    "tie_word_embeddings": True,
    "initializer_range": 0.1,
}
"""75 thousand weights; drawn wide, so that names are far apart from the start and twenty epochs learn everybody by heart."""
TRAINING = OptimiserParams(epochs=20, learning_rate=4e-3, batch_size=16, token_budget=2048)
BENIGN = OptimiserParams(epochs=5, learning_rate=1e-3, batch_size=64, token_budget=4096)
LAST_STEP = SelectionParams(every=0)
TOKENS = tokenizer()


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One world with its parent."""

    world: World
    parent: Any
    seed: int

    def copy(self) -> Any:
        """The parent, to be changed."""
        return copy.deepcopy(self.parent)


def examples(records: Sequence[Record]) -> list[Example]:
    """Records in tokens."""
    return encode(TOKENS, TEMPLATE, [record.prompt for record in records], [record.answer for record in records])


def trained(records: Sequence[Record], seed: int) -> Any:
    """A model from scratch on these records."""
    model = fresh_model(CONFIG, TOKENS, seed, "cpu")
    return tuned(model, records, TRAINING, seed)


def tuned(model: Any, records: Sequence[Record], optimiser: OptimiserParams, seed: int) -> Any:
    """The model after descending on these records."""
    for _ in fit(model, examples(records), optimiser, seed, TOKENS.pad_token_id):
        pass
    return model.eval()


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One unlearning run."""

    method: Mapping[str, Any]
    optimiser: OptimiserParams
    selection: SelectionParams = LAST_STEP
    forget: Callable[[World], Sequence[Record]] = lambda world: world.forget
    retain: Callable[[World], Sequence[Record]] = lambda world: world.kept

    def run(self, trial: Trial) -> Any:
        """The parent made to forget."""
        world, model = trial.world, trial.copy()
        forget = self.forget(world)
        swapped = [replace(r, prompt=r.swapped_prompt or "", answer=r.swapped_answer or "") for r in forget]
        task = Task(
            model=model,
            forget=examples(forget),
            retain=examples(self.retain(world)),
            swapped=examples(swapped),
            strangers=examples(world.sets["tuning_excluded"]),
            optimiser=self.optimiser,
            seed=trial.seed,
            pad=TOKENS.pad_token_id,
        )
        tuning = TuningSets(
            included=examples(world.sets["tuning_included"]),
            excluded=examples(world.sets["tuning_excluded"]),
            kept=examples(world.reworded[:200]),
            pad=TOKENS.pad_token_id,
        )
        unlearn(UnlearnJob(task=task, method=build("methods", self.method, where="recipe"), tuning=tuning, selection=self.selection))
        return model.eval()
