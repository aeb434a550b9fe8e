"""The runs that one process and two processes do alike; started as a program by test_engine_sharding.py, alone or by torchrun.

python sharding_cases.py FOLDER
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import transformers

from mlflow_unlearn import catalog
from mlflow_unlearn.adapters.models import with_lora
from mlflow_unlearn.engine.checkpoints import Checkpoints
from mlflow_unlearn.engine.machine import Machine
from mlflow_unlearn.engine.selection import Selection, TuningSets
from mlflow_unlearn.engine.sharding import together, whole
from mlflow_unlearn.engine.unlearning import forget_by_loss
from mlflow_unlearn.engine.worker import Worker
from mlflow_unlearn.params import LoraParams, OptimiserParams, SelectionParams
from mlflow_unlearn.protocols import Example, LossMethod, Task

PREFIX = tuple(range(3, 12))
FORGET = [Example(tokens=(*PREFIX, *range(13 + i, 19 + 2 * i)), prompt_length=11 + i % 3) for i in range(7)]
WANTED = [Example(tokens=(*PREFIX, *range(40 + i, 44 + i)), prompt_length=11) for i in range(7)]
RETAIN = [Example(tokens=(*PREFIX, *range(30 + i, 40 + i)), prompt_length=12) for i in range(9)]
OPTIMISER = OptimiserParams(epochs=2, learning_rate=1e-3, batch_size=5, token_budget=45)
"""Five forget rows a batch, then two: with two processes and small micro-batches one of them is often without a row."""
ALONE = "left by 1"
SETTINGS: dict[str, dict[str, Any]] = {
    "npo": {},
    "grad_diff": {"retain": "kl"},
    "undial": {},
    "rmu": {"layer": 1, "trained_layers": 1, "retain_weight": 1.0},
    "dpo": {},
    "sim_npo": {},
    "wga": {},
    "idk_dpo": {"retain": "kl"},
    "grad_ascent": {},
}


def tiny(*, tied: bool = True) -> Any:
    config = transformers.AutoConfig.for_model(
        "llama",
        vocab_size=64,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=tied,
    )
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(5)
        return transformers.AutoModelForCausalLM.from_config(config).eval()


def task(model: Any, machine: Machine) -> Task:
    return Task(
        model=model, forget=FORGET, retain=RETAIN, alternatives=WANTED, strangers=RETAIN[:2], optimiser=OPTIMISER, seed=1, pad=0, machine=machine
    )


def selection() -> Selection:
    tuning = TuningSets(included=WANTED[:3], excluded=FORGET[:3], kept=RETAIN[5:], pad=0)  # far from the target: the run goes to its end
    return Selection(tuning=tuning, params=SelectionParams(every=2, forget_target=0.0, utility_margin=10.0))


def methods() -> Iterator[tuple[str, LossMethod]]:
    for name in catalog.names("methods"):
        if isinstance(method := catalog.build("methods", {"name": name, **SETTINGS.get(name, {})}, where="test"), LossMethod):
            yield name, method


def every_method(share: Callable[[Any], Worker]) -> dict[str, Any]:
    """Losses of each step and the weights in the end, for every loss method."""
    found = {}
    for name, method in methods():
        model = tiny()
        losses = [dict(p.losses) for p in forget_by_loss(task(model, Machine(share=share)), method)]
        found[name] = {"losses": losses, "weights": whole(model)}
    return found


def kinds_of_model(share: Callable[[Any], Worker]) -> dict[str, Any]:
    """NPO with untied weights, with LoRA over float32 and over a bfloat16 base, and with activations made again."""
    npo, found = catalog.build("methods", "npo", where="test"), {}
    cases = {
        "untied": (tiny(tied=False), Machine(share=share)),
        "lora": (with_lora(tiny(), LoraParams(rank=2), seed=0), Machine(share=share)),
        "lora over bfloat16": (with_lora(tiny().to(torch.bfloat16), LoraParams(rank=2), seed=0), Machine(share=share, dtype="bfloat16")),
        "recomputed": (tiny(), Machine(share=share, activation_checkpointing="on")),
    }
    for name, (model, machine) in cases.items():
        losses = [dict(p.losses) for p in forget_by_loss(task(model, machine), npo)]
        found[name] = {"losses": losses, "weights": {k: v for k, v in whole(model).items() if name != "lora over bfloat16" or "lora_" in k}}
    return found


def checkpoints(folder: Path, name: str) -> Checkpoints:
    return Checkpoints(folder=folder / name, run="r", seconds=0.0)


def run(share: Callable[[Any], Worker], kept: Checkpoints | None, steps: int | None = None) -> dict[str, Any]:
    """NPO with selection, taken up from what is kept, for so many steps or to its end, where the best weights are put back."""
    model, chosen = tiny(), selection()
    done = forget_by_loss(task(model, Machine(share=share, checkpoints=kept)), catalog.build("methods", "npo", where="test"), chosen)
    losses = [dict(p.losses) for p in islice(done, steps)]
    chosen.restore()
    return {"losses": losses, "weights": whole(model), "best": chosen.best and chosen.best.step}


def killed_and_resumed(share: Callable[[Any], Worker], folder: Path, left: str) -> dict[str, Any]:
    """A run that is whole; and one that is cut after two steps and taken up, also from what another number of processes left."""
    run(share, checkpoints(folder, left), 2)
    if os.environ.get("RANK", "0") == "0":
        shutil.copytree(folder / left, folder / f"{left} for all")
    cases = {"not killed": None, "resumed": checkpoints(folder, left)}
    if left != ALONE:
        cases["resumed from one process"] = checkpoints(folder, f"{ALONE} for all")
    return {name: run(share, kept) for name, kept in cases.items()}


@contextmanager
def alone() -> Iterator[Callable[[Any], Worker]]:
    yield Worker


def main(folder: Path) -> None:
    with together(torch.device("cpu")) if "RANK" in os.environ else alone() as share:
        processes = os.environ.get("WORLD_SIZE", "1")
        found = {**every_method(share), **kinds_of_model(share), **killed_and_resumed(share, folder, f"left by {processes}")}
        if os.environ.get("RANK", "0") == "0":
            torch.save(found, folder / f"of {processes}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
