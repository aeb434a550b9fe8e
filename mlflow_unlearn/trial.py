"""A method tried out on a tiny Llama: what the laws in `testing` look at.

Built as the engine builds it, with the defaults and with the other combinations of switches (bool) and words (Literal) among its settings.
"""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import product
from typing import Any, Literal

import torch
from torch import Tensor

from . import catalog
from .adapters import models
from .documents import decode
from .engine.batches import Sets, StepRows, batches_of
from .engine.machine import Machine
from .engine.randomness import private_randomness
from .engine.reference import Asked, reference_of
from .engine.unlearning import forget_by_loss
from .engine.worker import Worker
from .errors import ConfigError, UnlearnError
from .params import OptimiserParams
from .protocols import Example, LossMethod, Needs, Reference, Side, Task

MISTAKES = (ArithmeticError, AttributeError, LookupError, NameError, RuntimeError, TypeError, ValueError, UnlearnError)
"""What somebody's method may raise by mistake: a report with all broken laws then says so, instead of one traceback."""
MOST_COMBINATIONS = 16
"""Where switches and words have more combinations than this, one is changed at a time."""
_PROMPT = (1, *range(40, 50))
"""More equal leading tokens than the engine needs to run them once."""
_FORGET = [Example(tokens=(*_PROMPT, 3 + i, *range(4 + i, 9 + 2 * i), 2), prompt_length=12) for i in range(6)]
_RETAIN = [Example(tokens=(*_PROMPT, 30 - i, *range(20 - i, 30), 2), prompt_length=12) for i in range(8)]
_TWINS = [None if i % 2 else Example(tokens=(*_PROMPT, 36, *range(4 + i, 9 + 2 * i), 2), prompt_length=12) for i in range(6)]
_ALTERNATIVES = [Example(tokens=(*_PROMPT, 3 + i, *range(31, 33 + i), 2), prompt_length=12) for i in range(6)]
_OPTIMISER = OptimiserParams(epochs=1, learning_rate=1e-2, batch_size=4, token_budget=128)


class LawBrokenError(UnlearnError, AssertionError):
    """A component breaks a law; the message says how, and what to do where that can be known."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One optimiser batch of a loss method as the engine would set it up, some way from the parent."""

    words: str
    """Which settings differ from the defaults; opens a complaint."""
    method: LossMethod
    needs: Needs
    model: Any
    reference: Reference
    sets: Sets
    rows: StepRows

    def losses(self, *sides: Side, token_budget: int = 10_000) -> list[Tensor]:
        """One scalar a micro-batch, of the sides named or of both.

        Raises:
            LawBrokenError: the loss fails.
        """
        batches = batches_of(self.rows, self.sets, token_budget)
        chosen = [each for each in batches if not sides or ("retain" if each.forget is None else "forget") in sides]
        with private_randomness(0), reported(f"{self.words}the loss fails"):
            found = [self.method.loss(self.model, each, self.reference) for each in chosen]
        wrong = [type(each).__name__ for each in found if not isinstance(each, Tensor) or each.ndim]
        if wrong:
            raise LawBrokenError(f"{self.words}the loss is a {wrong[0]}, expected a tensor without dimensions")
        return found

    def gradients(self, total: Tensor) -> dict[str, Tensor]:
        """Of every parameter that may change; zeros where the loss does not reach it.

        Raises:
            LawBrokenError: the backward pass fails.
        """
        named = {name: value for name, value in self.model.named_parameters() if may_change(self.needs, name)}
        if not total.requires_grad:
            return {name: torch.zeros_like(value) for name, value in named.items()}
        with reported(f"{self.words}the backward pass fails"):
            found = torch.autograd.grad(total, list(named.values()), allow_unused=True, materialize_grads=True)
        return dict(zip(named, found, strict=True))

    def distance(self, first: Tensor, second: Tensor) -> float:
        """Between the gradients of two losses, relative to the second's norm."""
        one, other = (torch.cat([each.flatten() for each in self.gradients(total).values()]) for total in (first, second))
        return float((one - other).norm() / other.norm().clamp_min(1e-30))


def cases(component: str | type, *, exactly: bool = False) -> Iterator[Case]:
    """A loss method with each choice of settings; none for other methods."""
    return (_case(words, method, exactly) for words, method in choices(component) if isinstance(method, LossMethod))


def _case(words: str, method: LossMethod, exactly: bool) -> Case:
    """The parent says what the method needs and no more if `exactly`, else all that it can."""
    needs = method.needs
    model, rows = tiny_model(needs), StepRows(forget=(0, 1, 2, 3), retain=(1, 2, 3, 5) if needs.retain else ())
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(may_change(needs, name))
    retain, alternatives = _RETAIN if needs.retain else (), _ALTERNATIVES if needs.alternatives is not None else ()
    sets = Sets(forget=_FORGET, alternatives=alternatives, retain=retain, pad=0)
    asked = needs if exactly else dataclasses.replace(needs, log_probs=True, floors=True, answer_states=frozenset({"forget", "retain"}))
    with reported(f"{words}the parent cannot give what it needs"):
        reference = reference_of(Worker(model), Asked(needs=asked, sets=sets, plan=[rows], swapped=_TWINS), Machine())
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # at the parent itself some losses have no gradient, e.g. the distance from it
        for parameter in filter(lambda each: each.requires_grad, model.parameters()):
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return Case(words=words, method=method, needs=needs, model=model, reference=reference, sets=sets, rows=rows)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """What a method did from its first step to its last."""

    steps: list[int]
    """The numbers it gave them."""
    weights: dict[str, Tensor]
    changed: list[str]
    """Names of parameters that are new or have other bits than before."""
    flags_kept: bool
    """Whether the same parameters may change as before."""
    randomness_kept: bool
    """Whether the process's generator stands where it stood."""


def run(method: Any, model: Any) -> Run:
    """Let the method forget, as the verb does."""
    before = {name: (value.detach().clone(), value.requires_grad) for name, value in model.named_parameters()}
    state = torch.get_rng_state()
    alternatives = _ALTERNATIVES if needs_of(method).alternatives is not None else ()
    task = Task(model=model, forget=_FORGET, retain=_RETAIN, swapped=_TWINS, alternatives=alternatives, optimiser=_OPTIMISER, seed=3, pad=0)
    steps = [progress.step for progress in (forget_by_loss(task, method) if isinstance(method, LossMethod) else method.steps(task))]
    after = dict(model.named_parameters())
    return Run(
        steps=steps,
        weights={name: value.detach() for name, value in after.items()},
        changed=[name for name, value in after.items() if name not in before or not torch.equal(value, before[name][0])],
        flags_kept={name: value.requires_grad for name, value in after.items()} == {name: flag for name, (_, flag) in before.items()},
        randomness_kept=torch.equal(state, torch.get_rng_state()),
    )


class _Vocabulary:
    """What a fresh model asks of a tokenizer."""

    pad_token_id, bos_token_id, eos_token_id = 0, 1, 2

    def __len__(self) -> int:
        return 64


def tiny_model(needs: Needs) -> Any:
    """A Llama with random weights, as deep as the method looks."""
    layers = 2 if needs.layer is None else max(2, needs.layer + 1)
    config = {"model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": layers}
    return models.fresh_model(config | {"max_position_embeddings": 64}, _Vocabulary(), seed=1, device_name="cpu").eval()


def class_of(component: str | type) -> Any:
    """The class behind a catalog name, or the class itself."""
    return catalog.load("methods", component, "law") if isinstance(component, str) else component


def built(component: str | type, settings: Mapping[str, Any]) -> Any:
    """The method with settings as params.yaml would give them.

    Raises:
        ConfigError: unknown keys, wrong types or values out of range.
    """
    if isinstance(component, str):
        return catalog.build("methods", {"name": component, **settings}, where="law")
    return decode(component, settings, "law")


def choices(component: str | type) -> Iterator[tuple[str, Any]]:
    """The method with its defaults, then with the other combinations of its switches and words; combinations that it refuses are left out.

    Yields:
        Words for the settings that are no defaults, and the method.
    """
    yield "", built(component, {})
    switches = dict(_switches(component))
    combinations = [dict(zip(switches, values, strict=True)) for values in product(*switches.values())][1:]
    if len(combinations) >= MOST_COMBINATIONS:
        combinations = [{name: value} for name, values in switches.items() for value in values[1:]]
    for settings in combinations:
        with suppress(ConfigError):
            yield "with " + ", ".join(f"{name}: {value}" for name, value in settings.items()) + " ", built(component, settings)


def _switches(component: str | type) -> Iterator[tuple[str, list[Any]]]:
    """Names and values of the settings that are bool or Literal, the default first."""
    hints = typing.get_type_hints(class_of(component))
    for field in dataclasses.fields(class_of(component)):
        hint = hints[field.name]
        values = [True, False] if hint is bool else list(typing.get_args(hint)) if typing.get_origin(hint) is Literal else []
        if values and field.default in values:
            yield field.name, [field.default, *(value for value in values if value != field.default)]


def needs_of(method: Any) -> Needs:
    """What a method needs; one with its own steps may say so too, if it wraps another."""
    needs: Needs = getattr(method, "needs", Needs())
    return needs


def may_change(needs: Needs, name: str) -> bool:
    """Whether a parameter of this name is one that the method wants to change."""
    return needs.trainable is None or re.search(needs.trainable, name) is not None


@contextmanager
def reported(words: str, but: type[Exception] = LawBrokenError) -> Iterator[None]:
    """Whatever a method raises by mistake becomes a broken law, except `but`."""
    try:
        yield
    except (LawBrokenError, but):
        raise
    except MISTAKES as error:
        raise LawBrokenError(f"{words}: {type(error).__name__}: {error}") from error
