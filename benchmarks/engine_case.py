"""What `make bench-engine` measures on: records as long as TOFU's, models of Llama's shape, and one gradient as the engine makes it."""

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import transformers

from mlflow_unlearn.engine.batches import Sets, StepRows, batches_of, unlearning_plan
from mlflow_unlearn.engine.machine import Machine
from mlflow_unlearn.engine.reference import Asked, moved, reference_of
from mlflow_unlearn.engine.worker import Worker
from mlflow_unlearn.params import OptimiserParams
from mlflow_unlearn.protocols import Example, LossMethod, Needs, Reference

PREFIX, TEMPLATE = 36, 5
"""Tokens of the system prompt, the same in every record, and of the template between question and answer: TOFU forget10 with the chat template and
tokenizer of Llama-3.2-Instruct, where questions have 17.4 tokens, answers 36.7, and records 95.1 (median 94, 95 % below 121, longest 170)."""

TIMED = {
    "hidden_size": 256,
    "intermediate_size": 1024,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "vocab_size": 8192,
}
"""Llama-3.2-1B in small: its feed-forward width, its grouped keys and its tied head, which has 0.27 of the other matrices' size there as here."""
PEAK = TIMED | {"vocab_size": 32768}
"""For peak memory: a vocabulary as large in proportion to the width as that of 1B models."""

Precision = Literal["float32", "bfloat16"]
Gradients = dict[str, torch.Tensor]


def records(count: int, vocabulary: int, seed: int, *, answer: float = 35.0) -> list[Example]:
    """Records whose lengths are spread like TOFU's; `answer` is the median length of the answers."""
    draw = random.Random(seed)
    prefix = tuple(random.Random(0).choices(range(3, vocabulary), k=PREFIX))
    made = []
    for _ in range(count):
        question = max(8, round(draw.gauss(17.4, 3.5)))
        length = min(112, max(2, round(answer * draw.lognormvariate(0.0, 0.36))))
        body = tuple(draw.choices(range(3, vocabulary), k=question + TEMPLATE + length))
        made.append(Example(tokens=prefix + body, prompt_length=PREFIX + question + TEMPLATE))
    return made


def answered_otherwise(examples: list[Example], vocabulary: int, *, answer: float, seed: int = 9) -> list[Example]:
    """The same prompts with other answers."""
    others = records(len(examples), vocabulary, seed, answer=answer)
    return [
        Example(tokens=one.tokens[: one.prompt_length] + other.tokens[other.prompt_length :], prompt_length=one.prompt_length)
        for one, other in zip(examples, others, strict=True)
    ]


def llama(shape: dict[str, Any], *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Any:
    """A model with random weights; more of its configuration in `shape`."""
    settings = {"tie_word_embeddings": True, "max_position_embeddings": 256, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2} | shape
    config = transformers.AutoConfig.for_model("llama", **settings)
    with torch.random.fork_rng(), torch.device(device):
        torch.default_generator.manual_seed(0)
        return transformers.AutoModelForCausalLM.from_config(config, dtype=dtype).train()


@dataclass(frozen=True, kw_only=True)
class Case:
    """A parent, a model that has moved away from it, and optimiser batches."""

    parent: Any
    model: Any
    sets: Sets
    plan: list[StepRows]
    precision: Precision

    @property
    def device(self) -> torch.device:
        """Where the models lie."""
        return next(self.model.parameters()).device

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The precision of products; both sides use it."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bfloat16")


def case(parent: Any, *, batches: int, batch_size: int = 8, precision: Precision = "float32") -> Case:
    """Batches of `batch_size` forget and as many retain records; alternatives are added by `asking`."""
    forget, retain = (records(batches * batch_size, parent.config.vocab_size, seed) for seed in (1, 2))
    optimiser = OptimiserParams(epochs=1, learning_rate=1e-5, batch_size=batch_size)
    plan = list(unlearning_plan(len(forget), len(retain), optimiser, 0))
    return Case(parent=parent, model=moved_away(parent), sets=Sets(forget=forget, retain=retain, pad=0), plan=plan, precision=precision)


def asking(case: Case, needs: Needs) -> Case:
    """The case with the answers wanted instead, as long as TOFU's wrong ones or as a refusal, where they are needed."""
    if needs.alternatives is None:
        return case
    answer = 35.0 if needs.alternatives == "data" else 9.0
    others = answered_otherwise(list(case.sets.forget), case.model.config.vocab_size, answer=answer)
    return replace(case, sets=replace(case.sets, alternatives=others))


def moved_away(parent: Any) -> Any:
    """A copy whose trainable parameters are a little off, so that ratios to the parent are not all one."""
    model, generator = copy.deepcopy(parent), torch.Generator(next(parent.parameters()).device).manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 1e-3 * torch.randn(parameter.shape, generator=generator, device=parameter.device, dtype=parameter.dtype)
    return model


def reference_for(case: Case, method: LossMethod) -> Reference:
    """What the engine asks the parent, once."""
    asked = Asked(needs=method.needs, sets=case.sets, plan=case.plan)
    return reference_of(Worker(case.parent), asked, Machine(dtype=case.precision))


def engine_step(case: Case, method: LossMethod, reference: Reference, rows: StepRows) -> float:
    """Gradients of one optimiser batch into `case.model`, as the descent makes them; returns the loss."""
    sides = rows if method.needs.retain else replace(rows, retain=())
    total = 0.0
    case.model.train()
    for batch in batches_of(sides, case.sets, OptimiserParams.token_budget):
        with case.autocast():
            loss = method.loss(case.model, moved(batch, case.device), reference)
        if loss.requires_grad:
            loss.backward()
        total += loss.item()
    return total


@contextlib.contextmanager
def fresh_gradients(case: Case) -> Iterator[None]:
    """Inside, gradients begin as none and end as none."""
    case.model.zero_grad(set_to_none=True)
    yield
    case.model.zero_grad(set_to_none=True)


def gradients(case: Case) -> Gradients:
    """Copies in float32, as if one vector."""
    return {name: parameter.grad.float().clone() for name, parameter in case.model.named_parameters() if parameter.grad is not None}


def distance(found: Gradients, true: Gradients) -> float:
    """Relative distance in the 2-norm over all parameters."""
    off = sum(float((found[name].double() - true[name].double()).square().sum()) if name in found else float("inf") for name in true)
    return float((off / sum(float(value.double().square().sum()) for value in true.values())) ** 0.5)
