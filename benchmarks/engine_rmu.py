"""RMU against the way the leading toolkit runs it: three whole forward passes with hooks, weight gradients for everything below the hook.

One thread, process CPU time, the sides interleaved, medians: ratios that a busy machine does not decide. A model as deep as Llama-3.2-1B (16 layers,
hook after layer 7, three matrices that may change) and records as long as TOFU's in the toolkit's chat template.
"""

from __future__ import annotations

import copy
import re
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import transformers

from mlflow_unlearn.engine.batches import Sets, StepRows, batches_of
from mlflow_unlearn.engine.machine import Machine
from mlflow_unlearn.engine.randomness import private_randomness
from mlflow_unlearn.engine.reference import Asked, reference_of
from mlflow_unlearn.engine.worker import Worker
from mlflow_unlearn.methods.rmu import RMU
from mlflow_unlearn.protocols import Batch, Example, Reference, Sequences

ROUNDS = 5
RECORDS = 4
PREFIX, QUESTION, ANSWER = 36, 22, 37
"""Tokens: the chat template's own (equal in all records), the question with what surrounds it, the mean answer with its end (docs/benchmarks.md)."""
VOCABULARY = 16384
"""So large that the head is to the rest what it is in Llama-3.2-1B (0.27 of its products)."""
CONFIG = {
    "vocab_size": VOCABULARY,
    "hidden_size": 256,
    "intermediate_size": 1024,
    "num_hidden_layers": 16,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}
METHOD = RMU(retain_weight=100.0)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One optimiser batch and the models it is worked on with."""

    parent: Any
    toolkit: Any
    """The model with every parameter asking for a gradient."""
    model: Any
    """The same with the three matrices alone."""
    sets: Sets
    step: StepRows
    batches: Sequence[Batch]

    @property
    def matrices(self) -> list[str]:
        """Names of what may change."""
        return [name for name, parameter in self.model.named_parameters() if parameter.requires_grad]


def measure() -> list[tuple[str, float, str, float]]:
    """(what, target, unit, measured); `at least` at the end of a unit makes a lower limit."""
    torch.set_num_threads(1)
    case = a_case()
    kept = reference(case)
    sides: dict[str, Callable[[], None]] = {
        "naive": lambda: naive_step(case.toolkit, case),
        "three": lambda: naive_step(case.model, case),
        "in step": lambda: our_step(case, reference(case)),
        "kept": lambda: our_step(case, kept),
    }
    seconds = interleaved(sides)
    float32, bfloat16 = (differing(case, dtype) for dtype in ("float32", "bfloat16"))
    return [
        ("RMU: gradients that differ from the naive ones in any bit", 0.0, "of 3", float32),
        ("RMU: the same in bfloat16", 0.0, "of 3", bfloat16),
        ("RMU: relative distance of all gradients from the naive ones with a padding mask", 1e-6, "", masked_distance(case, kept)),
        ("RMU step, the parent asked in the same step, against naive", 3.5, "x, at least", seconds["naive"] / seconds["in step"]),
        ("RMU step, the parent's activations kept, against naive", 7.0, "x, at least", seconds["naive"] / seconds["kept"]),
        (
            "RMU step, the parent asked in the same step, against naive with three trainable matrices",
            2.4,
            "x, at least",
            seconds["three"] / seconds["in step"],
        ),
        (
            "RMU step, the parent's activations kept, against naive with three trainable matrices",
            5.0,
            "x, at least",
            seconds["three"] / seconds["kept"],
        ),
    ]


def a_case() -> Case:
    """Models in the middle of a run: the matrices that may change have moved away from the parent's."""
    with private_randomness(0):
        parent = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model("llama", **CONFIG)).eval()
        forget, retain = records(), records()
        toolkit = copy.deepcopy(parent)
        for name, parameter in toolkit.named_parameters():
            if re.search(str(METHOD.needs.trainable), name):
                parameter.data.add_(torch.randn_like(parameter), alpha=0.01)
    model = copy.deepcopy(toolkit)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(bool(re.search(str(METHOD.needs.trainable), name)))
    sets, step = Sets(forget=forget, retain=retain, pad=0), StepRows(forget=tuple(range(RECORDS)), retain=tuple(range(RECORDS)))
    batches = batches_of(step, sets, token_budget=1 << 20)
    for name, parameter in parent.named_parameters():
        parameter.requires_grad_(model.get_parameter(name).requires_grad)
    return Case(parent=parent, toolkit=toolkit, model=model, sets=sets, step=step, batches=batches)


def records() -> list[Example]:
    """Of TOFU's lengths, answers from half to one and a half times the mean."""
    prefix = tuple(range(3, 3 + PREFIX))
    examples = []
    for i in range(RECORDS):
        own = QUESTION + ANSWER // 2 + i * ANSWER // (RECORDS - 1)
        tokens = torch.randint(100, VOCABULARY, (own,)).tolist()
        examples.append(Example(tokens=(*prefix, *tokens), prompt_length=PREFIX + QUESTION))
    return examples


def interleaved(sides: dict[str, Callable[[], None]]) -> dict[str, float]:
    """Median CPU seconds of each side; every round runs all of them, after one that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(ROUNDS + 1):
        for name, run in sides.items():
            started = time.process_time()
            run()
            seconds[name].append(time.process_time() - started)
    return {name: statistics.median(each[1:]) for name, each in seconds.items()}


def naive_step(model: Any, case: Case) -> None:
    """Losses and gradients as the leading toolkit computes them."""
    model.zero_grad(set_to_none=True)
    torch.autograd.backward(sum(naive_terms(model, case)))  # type: ignore[arg-type]


def naive_terms(model: Any, case: Case, masked: bool = True) -> list[torch.Tensor]:
    """Three whole passes; the logits and the cross-entropy that the model makes of the labels are thrown away."""
    (forget,), (retain,) = [each.forget for each in case.batches if each.forget], [each.retain for each in case.batches if each.retain]
    drawn = torch.rand(CONFIG["hidden_size"], generator=torch.Generator().manual_seed(METHOD.direction_seed))
    target = METHOD.coefficient * (drawn / drawn.norm())
    steered = distance(activations(model, forget, masked), target, forget)
    with torch.no_grad():
        before = activations(case.parent, retain, masked)
    return [steered, METHOD.retain_weight * distance(activations(model, retain, masked), before, retain)]


def activations(model: Any, rows: Sequences, masked: bool) -> torch.Tensor:
    """(rows, length, width) caught by a hook."""
    caught: list[torch.Tensor] = []
    handle = model.model.layers[METHOD.layer].register_forward_hook(lambda _, __, output: caught.append(output))
    model(input_ids=rows.input_ids, attention_mask=rows.attention_mask if masked else None, labels=rows.labels)
    handle.remove()
    return caught[0]


def distance(states: torch.Tensor, target: torch.Tensor, rows: Sequences) -> torch.Tensor:
    """Scalar: squared distance a token, mean over each record's tokens, mean over records."""
    mask = rows.attention_mask
    return ((((states - target) ** 2).sum(2) * mask).sum(1) / mask.sum(1)).mean()


def reference(case: Case, dtype: Literal["float32", "bfloat16"] = "float32") -> Reference:
    """What the engine asks the parent, whose layers below the matrices that may change are shared by all."""
    return reference_of(Worker(case.parent), Asked(needs=METHOD.needs, sets=case.sets, plan=[case.step]), Machine(dtype=dtype))


def our_step(case: Case, kept: Reference) -> None:
    """Losses and gradients of one optimiser batch as the engine computes them."""
    case.model.zero_grad(set_to_none=True)
    for batch in batches_of(case.step, case.sets, token_budget=1 << 20):
        torch.autograd.backward(METHOD.loss(case.model, batch, kept))


def differing(case: Case, dtype: Literal["float32", "bfloat16"]) -> float:
    """How many of the matrices get another gradient from us: against passes without a mask, since torch's kernels with and without one round
    differently, and against each term on its own, since one backward pass of both would add them up in autocast's bfloat16.
    """
    kept = reference(case, dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bfloat16"):
        theirs, ours = naive_terms(case.toolkit, case, masked=False), [METHOD.loss(case.model, batch, kept) for batch in case.batches]
    pairs = zip(gradients(case.toolkit, case, theirs), gradients(case.model, case, ours), strict=True)
    return float(sum(not torch.equal(one, other) for one, other in pairs))


def masked_distance(case: Case, kept: Reference) -> float:
    """Of all gradients together, 2-norm."""
    theirs = gradients(case.toolkit, case, naive_terms(case.toolkit, case))
    ours = gradients(case.model, case, [METHOD.loss(case.model, batch, kept) for batch in case.batches])
    one, other = (torch.cat([each.flatten() for each in side]) for side in (theirs, ours))
    return float((one - other).norm() / one.norm())


def gradients(model: Any, case: Case, losses: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Of the matrices that may change, each loss on its own, added up."""
    pieces = [torch.autograd.grad(loss, [model.get_parameter(name) for name in case.matrices]) for loss in losses]
    return [torch.stack(same).sum(0) for same in zip(*pieces, strict=True)]


if __name__ == "__main__":
    for row in measure():
        print(row)
