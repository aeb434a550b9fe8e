"""The laws of a method, for whoever writes one: every file in methods/ is held to them, and another package can hold its own to them too.

    from mlflow_unlearn.testing import check_method

    def test_my_method_is_lawful() -> None:
        check_method("my_method")  # its catalog name, or the class itself

Numbers are taken from a tiny Llama on the processor, with the defaults and with the other combinations of switches (bool) and words (Literal).
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from . import catalog
from .adapters import models
from .errors import ConfigError
from .params import LoraParams
from .protocols import LossMethod, Needs, Side, StepsMethod
from .records import Claim
from .trial import LawBrokenError, built, cases, choices, class_of, may_change, needs_of, reported, run, tiny_model

__all__ = ["METHOD_LAWS", "PUBLISHED", "TOLERANCE", "Law", "LawBrokenError", "check_method"]

Law = Callable[[str | type], None]

TOLERANCE = 1e-5
"""How far sums taken in another order may lie apart in float32, relative to their terms."""

PUBLISHED = "published_code"
"""A word among a method's settings that stands for somebody's own code: there a record's loss may depend on who shares its micro-batch."""


def check_method(component: str | type) -> None:
    """Hold a method to all laws.

    Args:
        component: the method's name in the catalog, or its class.

    Raises:
        LawBrokenError: with every law that is broken, one a line; only the first where the method cannot even be built.
        ConfigError: the catalog has no such method, or cannot import it.
    """
    broken = []
    for words, law in METHOD_LAWS.items():
        try:
            law(component)
        except LawBrokenError as error:
            broken.append(f"- {words}: {error}")
            if law is _builds:
                break
    if broken:
        name = component if isinstance(component, str) else component.__qualname__
        raise LawBrokenError("\n".join([f"method '{name}' breaks {len(broken)} of {len(METHOD_LAWS)} laws:", *broken]))


def _builds(component: str | type) -> None:
    class_of(component)
    with reported("with its defaults it cannot be built"):
        method = built(component, {})
    _require(
        isinstance(method, LossMethod | StepsMethod),
        "expected `claim` with `needs` and `loss(model, batch, reference)`, or `claim` with `steps(task)`",
    )
    _require(isinstance(method.claim, Claim), f"its claim is {method.claim!r}, expected a member of records.Claim")
    _require(class_of(component).__dataclass_params__.frozen, "its class is not frozen; write @dataclass(frozen=True, kw_only=True)")
    if isinstance(method, LossMethod):
        _require(isinstance(method.needs, Needs) and method.needs == method.needs, "its `needs` are no protocols.Needs, or others each time")


def _round_trips(component: str | type) -> None:
    if isinstance(component, str):
        with reported("the catalog cannot tell what it built"):
            found = catalog.name_of(built(component, {}), "methods")
        _require(found == component, f"found the name '{found}', expected '{component}'")


def _tells(component: str | type) -> None:
    text = class_of(component).__doc__ or ""
    for phrase in ("Paper:", "not guarantee"):
        _require(phrase in text, f"its docstring lacks the words '{phrase}'")


def _describes(component: str | type) -> None:
    described = {name for each in class_of(component).__mro__ for name in _described(each)}
    bare = [field.name for field in dataclasses.fields(class_of(component)) if field.name not in described]
    _require(not bare, f"no docstring stands under {', '.join(bare)}; say unit and effect there")


def _refuses(component: str | type) -> None:
    names = [field.name for field in dataclasses.fields(class_of(component))]
    for name in ("never_a_key", *names):
        try:
            built(component, {name: object()})
        except ConfigError:
            continue
        raise LawBrokenError(f"'{name}' takes anything at all; give the field a type that params.yaml can be checked against")


def _moves(component: str | type) -> None:
    for case in cases(component):
        forgetting, total = torch.stack(case.losses("forget")).sum(), torch.stack(case.losses()).sum()
        _require(bool(torch.isfinite(total)), f"{case.words}the loss is {total.item()}")
        _require(any(each.any() for each in case.gradients(forgetting).values()), f"{case.words}the loss of forget rows has no gradient")
        still = [name for name, gradient in case.gradients(total).items() if not gradient.isfinite().all() or not gradient.any()]
        _require(not still, f"{case.words}no gradient, or none that is finite, in {_few(still)}; leave them out by Needs.trainable")


def _leaves(component: str | type) -> None:
    for case in cases(component):
        held = {**dict(_tensors(case.reference)), **{f"model.{name}": value for name, value in case.model.state_dict().items()}}
        before = {name: value.detach().clone() for name, value in held.items()}
        case.gradients(torch.stack(case.losses()).sum())
        changed = [name for name, value in held.items() if not torch.equal(value, before[name])]
        _require(not changed, f"{case.words}the loss changes {_few(changed)}")
        pulled = [name for name, value in _tensors(case.reference) if value.requires_grad]
        _require(not pulled, f"{case.words}the loss asks for the gradient of {_few(pulled)}")


def _adds_up(component: str | type) -> None:
    for case in cases(component):
        if PUBLISHED in case.words:
            continue
        sides: tuple[Side, ...] = ("forget", "retain") if case.needs.retain else ("forget",)
        for side in sides:
            pieces, whole = torch.stack(case.losses(side, token_budget=1)), torch.stack(case.losses(side)).sum()
            far = (pieces.sum() - whole).abs() / pieces.abs().sum().clamp_min(1e-30)
            alone = f"{case.words}{side} rows one by one give {pieces.sum():.6g}, all together {whole:.6g}"
            _require(bool(far <= TOLERANCE), f"{alone}; divide by the totals of the batch, not of the micro-batch")
            apart = case.distance(pieces.sum(), whole)
            _require(apart <= TOLERANCE, f"{case.words}gradients of {side} rows one by one lie {apart:.1g} of their norm from that of all together")


def _repeats(component: str | type) -> None:
    for case, again in zip(cases(component), cases(component), strict=True):
        first, second = torch.stack(case.losses()), torch.stack(again.losses())
        _require(torch.equal(first, second), f"{case.words}the loss is {first.sum().item()!r}, then {second.sum().item()!r}")


def _asks(component: str | type) -> None:
    for case, exact in zip(cases(component), cases(component, exactly=True), strict=True):
        same = torch.equal(torch.stack(case.losses()), torch.stack(exact.losses()))
        _require(same, f"{case.words}the loss changes with what the parent says beyond its needs")


def _runs(component: str | type) -> None:
    for words, method in choices(component):
        with reported(f"{words}the run fails"):
            first, second = (run(method, tiny_model(needs_of(method))) for _ in range(2))
        _require(first.steps == list(range(1, len(first.steps) + 1)) != [], f"{words}its steps are numbered {first.steps}, expected 1, 2, ...")
        _require(first.flags_kept, f"{words}afterwards other parameters may change than before")
        _require(first.randomness_kept, f"{words}the process's random numbers move on; draw from a generator of its own")
        _require(bool(first.changed), f"{words}no weight changes")
        wrong = [name for name in first.changed if not may_change(needs_of(method), name)]
        _require(not wrong, f"{words}weights change that Needs.trainable leaves out: {_few(wrong)}")
        same = all(torch.equal(value, second.weights[name]) for name, value in first.weights.items())
        _require(same, f"{words}the same seed gives other weights")


def _adapts(component: str | type) -> None:
    method = built(component, {})
    model = models.with_lora(tiny_model(needs_of(method)), LoraParams(rank=2), seed=0)
    try:
        with reported("the run fails on a model with adapters; raise ConfigError where that is not meant to work", but=ConfigError):
            changed = run(method, model).changed
    except ConfigError:
        return
    wrong = [name for name in changed if "lora_" not in name]
    _require(not wrong, f"on a model with adapters frozen weights change: {_few(wrong)}")
    _require(bool(changed), "on a model with adapters no weight changes")


METHOD_LAWS: Mapping[str, Law] = {
    "builds with its defaults and is frozen": _builds,
    "is known by its name": _round_trips,
    "names its paper and what it does not guarantee": _tells,
    "describes every setting": _describes,
    "refuses keys nobody reads and values of another type": _refuses,
    "moves every weight that it may change": _moves,
    "leaves the parent's answers and the weights alone while taking the loss": _leaves,
    "micro-batches add up to the loss of the whole batch": _adds_up,
    "gives the same loss twice": _repeats,
    "looks at nothing that it did not ask for": _asks,
    "runs to its end, counts its steps and follows the seed": _runs,
    "changes adapters alone where there are any, or refuses them": _adapts,
}
"""Words to laws. Each takes a catalog name or a class and raises LawBrokenError; those about losses have nothing to say of methods with own steps."""


def _described(cls: type) -> Iterator[str]:
    """Names in the body of a class that a docstring follows; all of them where the source cannot be read."""
    try:
        body = typing.cast(ast.ClassDef, ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]).body
    except (OSError, TypeError, SyntaxError):
        yield from vars(cls).get("__annotations__", {})
        return
    for field, below in pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            yield ast.unparse(field.target)


def _tensors(value: Any, place: str = "reference") -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield place, value
    elif isinstance(value, torch.nn.Module):
        yield from ((f"{place}.{name}", parameter) for name, parameter in value.named_parameters())
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _tensors(getattr(value, field.name), f"{place}.{field.name}")


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _require(holds: bool, words: str) -> None:
    if not holds:
        raise LawBrokenError(words)
