"""A method from somebody else's package: found, trained with, and held to the laws that ours are held to."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlflow_unlearn import catalog
from mlflow_unlearn.engine.batches import Sets, StepRows, batches_of
from mlflow_unlearn.engine.reference import mean_losses
from mlflow_unlearn.engine.selection import TuningSets
from mlflow_unlearn.errors import ConfigError
from mlflow_unlearn.params import OptimiserParams, SelectionParams
from mlflow_unlearn.protocols import Example, Needs, Task
from mlflow_unlearn.testing import METHOD_LAWS, LawBrokenError, check_method
from mlflow_unlearn.trial import tiny_model
from mlflow_unlearn.unlearn import UnlearnJob, unlearn

CONTRIBUTING = Path(__file__).parent.parent / "CONTRIBUTING.md"

PUSH = '''"""Pushing answers away from where the parent has them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import Any, ClassVar

import torch
from torch.nn.functional import softplus

from mlflow_unlearn.engine.head import answer_log_probs, retain_nll
from mlflow_unlearn.protocols import Batch, Needs, Reference
from mlflow_unlearn.records import Claim

CALLS = count(1)


@dataclass(frozen=True, kw_only=True)
class Push:
    """Makes an answer less likely than the parent finds it.

    Paper: none, it was made for a test. It does not guarantee anything.
    """

    claim: ClassVar[Claim] = Claim.APPROXIMATE

    margin: float = 0.5
    """How much less likely, nats."""
    squared: bool = False
    """Whether what is missing counts squared."""

    @property
    def needs(self) -> Needs:
        return Needs(log_probs=True)

    def loss(self, model: torch.nn.Module, batch: Batch, reference: Reference) -> torch.Tensor:
        if batch.forget is None:
            return retain_nll(model, batch)
        log_probs, _ = answer_log_probs(model, batch.forget)
        missing = softplus(log_probs - reference.forget.log_probs[batch.forget.index] + self.margin)
        return (missing.square() if self.squared else missing).sum() / batch.forget_records
'''

EDIT = '''"""Shrinking the head."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from mlflow_unlearn.errors import ConfigError
from mlflow_unlearn.protocols import Progress, Task
from mlflow_unlearn.records import Claim


@dataclass(frozen=True, kw_only=True)
class Edit:
    """Makes every answer less certain.

    Paper: none, it was made for a test. It does not guarantee anything.
    """

    claim: ClassVar[Claim] = Claim.APPROXIMATE

    factor: float = 0.5
    """What the head is multiplied by."""

    def steps(self, task: Task) -> Iterator[Progress]:
        head = task.model.get_output_embeddings().weight
        if not head.requires_grad:
            raise ConfigError("edit: changes the head, which is frozen")
        with torch.no_grad():
            head.mul_(self.factor)
        yield Progress(step=1, steps=1)
'''

BROKEN = {
    "builds with its defaults and is frozen": [
        ("push", "frozen=True, ", "", "its class is not frozen"),
        ("push", "margin: float = 0.5", "margin: float", "missing key 'margin'"),
        ("push", "def needs", "def wants", "expected `claim` with `needs`"),
        ("push", "return Needs(log_probs=True)", "return {'log_probs': True}", "its `needs` are no protocols.Needs"),
        ("edit", "Claim.APPROXIMATE", "'approximate'", "its claim is 'approximate'"),
    ],
    "is known by its name": [("twice", "", "", "found the name 'push', expected 'twice'")],
    "names its paper and what it does not guarantee": [
        ("push", "Paper:", "From:", "lacks the words 'Paper:'"),
        ("edit", "It does not guarantee anything.", "", "lacks the words 'not guarantee'"),
    ],
    "describes every setting": [("push", '    """How much less likely, nats."""\n', "", "no docstring stands under margin")],
    "refuses keys nobody reads and values of another type": [("push", "margin: float", "margin: Any", "'margin' takes anything at all")],
    "moves every weight that it may change": [
        ("push", "missing.square()", "missing.square().log().log()", "with squared: True the loss is nan"),
        ("push", "answer_log_probs(model", "torch.no_grad()(answer_log_probs)(model", "forget rows has no gradient"),
        ("push", "log_probs=True", "log_probs=True, trainable='never'", "the loss of forget rows has no gradient"),
        (
            "push",
            "if batch.forget is",
            "return model.get_output_embeddings().weight.sum()\n        if batch.forget is",
            "no gradient.* in model.embed_tokens",
        ),
        ("push", "if batch.forget is", "model.requires_grad_(False)\n        if batch.forget is", "the loss of forget rows has no gradient"),
    ],
    "leaves the parent's answers and the weights alone while taking the loss": [
        ("push", "log_probs[batch.forget.index]", "log_probs.mul_(0.9)[batch.forget.index]", "the loss changes reference.forget.log_probs"),
    ],
    "micro-batches add up to the loss of the whole batch": [
        ("push", "/ batch.forget_records", "/ len(missing)", "divide by the totals of the batch")
    ],
    "gives the same loss twice": [("push", "/ batch.forget_records", "/ next(CALLS)", "then")],
    "looks at nothing that it did not ask for": [
        ("push", "log_probs=True", "", "NoneType"),
        ("push", "+ self.margin", "+ (self.margin if reference.head else 0)", "the loss changes with what the parent says beyond its needs"),
    ],
    "runs to its end, counts its steps and follows the seed": [
        ("edit", "step=1", "step=0", r"its steps are numbered \[0\]"),
        ("edit", "self.factor", "torch.rand(1)", "random numbers move on"),
        ("edit", "self.factor", "1.0", "no weight changes"),
        ("edit", "head.mul_(self.factor)", "head.requires_grad_(False).mul_(self.factor)", "other parameters may change than before"),
        ("edit", "head.mul_(self.factor)", "head.missing()", "the run fails: AttributeError"),
    ],
    "changes adapters alone where there are any, or refuses them": [
        ("edit", "if not head.requires_grad", "if False", "frozen weights change: base_model")
    ],
}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with an installed package, `forgetting`, whose methods are `push`, `edit` and, again, `twice`."""
    package, about = tmp_path / "forgetting", tmp_path / "forgetting-1.0.dist-info"
    package.mkdir()
    about.mkdir()
    (package / "__init__.py").write_text("")
    (package / "push.py").write_text(PUSH)
    (package / "edit.py").write_text(EDIT)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: forgetting\nVersion: 1.0\n")
    offer(tmp_path, push="forgetting.push:Push", edit="forgetting.edit:Edit", twice="forgetting.push:Push")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] == "forgetting"]:
        del sys.modules[name]


def offer(site: Path, **methods: str) -> None:
    lines = "\n".join(f"{name} = {value}" for name, value in methods.items())
    (site / "forgetting-1.0.dist-info" / "entry_points.txt").write_text(f"[mlflow_unlearn.methods]\n{lines}\n")


def change(site: Path, module: str, old: str, new: str) -> None:
    path = site / "forgetting" / f"{module}.py"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def few(first: int) -> list[Example]:
    """Records of different lengths."""
    return [Example(tokens=(1, first + i, 20 + first + i, *range(50, 52 + i % 3), 2), prompt_length=2) for i in range(8)]


@pytest.mark.parametrize("name", ["push", "edit"])
def test_a_lawful_method_passes_by_name_and_by_class(site: Path, name: str) -> None:
    check_method(name)
    check_method(catalog.load("methods", name, "test"))


def test_every_law_is_broken_by_some_method_below() -> None:
    assert BROKEN.keys() == METHOD_LAWS.keys()


@pytest.mark.parametrize(("words", "name", "old", "new", "found"), [(words, *case) for words, cases in BROKEN.items() for case in cases])
def test_who_breaks_a_law_is_told(site: Path, words: str, name: str, old: str, new: str, found: str) -> None:
    if old:
        change(site, name, old, new)
    with pytest.raises(LawBrokenError, match=found):
        METHOD_LAWS[words](name)


def test_all_broken_laws_are_told_at_once(site: Path) -> None:
    change(site, "edit", "Paper:", "From:")
    change(site, "edit", "step=1", "step=7")
    with pytest.raises(LawBrokenError, match="'edit' breaks 2 of 12 laws") as told:
        check_method("edit")
    assert [line.split(":")[0] for line in str(told.value).splitlines()[1:]] == [
        "- names its paper and what it does not guarantee",
        "- runs to its end, counts its steps and follows the seed",
    ]


def test_of_what_cannot_be_built_only_that_is_told(site: Path) -> None:
    change(site, "push", "margin: float = 0.5", "margin: float")
    with pytest.raises(LawBrokenError, match="breaks 1 of 12 laws"):
        check_method("push")


def test_it_trains_like_one_of_ours(site: Path) -> None:
    model, forget, retain = tiny_model(Needs()), few(3), few(13)
    before = mean_losses(model, forget, 0).mean()
    task = Task(model=model, forget=forget, retain=retain, optimiser=OptimiserParams(epochs=10, learning_rate=1e-2), seed=0, pad=0)
    method = catalog.build("methods", {"name": "push", "margin": 2.0}, where="params.yaml: unlearn.method")
    unlearn(UnlearnJob(task=task, method=method, tuning=TuningSets(pad=0), selection=SelectionParams(every=0)))
    assert mean_losses(model, forget, 0).mean() > before > mean_losses(model, retain, 0).mean()


def test_its_settings_are_read_as_strictly_as_ours(site: Path) -> None:
    with pytest.raises(ConfigError, match=r"params.yaml: unlearn.method: unknown key 'margn'; did you mean 'margin'\?"):
        catalog.build("methods", {"name": "push", "margn": 2.0}, where="params.yaml: unlearn.method")


def test_a_class_may_be_offered_from_another_module_of_its_package(site: Path) -> None:
    (site / "forgetting" / "__init__.py").write_text("from .push import Push\n")
    offer(site, push="forgetting:Push")
    assert catalog.name_of(catalog.build("methods", "push", where="test"), "methods") == "push"


@pytest.mark.parametrize(
    ("source", "found"),
    [("import not_installed", "No module named 'not_installed'"), ("class Pull: ...", "no attribute 'Push'"), ("class Push", "expected ':'")],
)
def test_a_method_that_cannot_be_imported_is_a_wrong_setting(site: Path, source: str, found: str) -> None:
    (site / "forgetting" / "push.py").write_text(source)
    with pytest.raises(ConfigError, match=f"method 'push' of another package cannot be imported .*{found}"):
        check_method("push")


def test_a_name_that_nobody_offers_is_a_wrong_setting(site: Path) -> None:
    with pytest.raises(ConfigError, match="no method called 'pusch'; did you mean 'push'"):
        check_method("pusch")


def test_the_worked_example_of_contributing_is_lawful_and_passes_its_own_test(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method, its_test = re.findall(r"```python\n(.*?)```", CONTRIBUTING.read_text(), re.DOTALL)[:2]
    (site / "forgetting" / "sat_imp.py").write_text(method.replace("from ..", "from mlflow_unlearn."))
    offer(site, sat_imp="forgetting.sat_imp:SatImp")
    check_method("sat_imp")
    monkeypatch.syspath_prepend(CONTRIBUTING.parent / "tests" / "methods")
    namespace: dict[str, Any] = {}
    exec(compile(its_test.replace("mlflow_unlearn.methods.sat_imp", "forgetting.sat_imp"), "CONTRIBUTING.md", "exec"), namespace)
    (proof,) = [value for name, value in namespace.items() if name.startswith("test_")]
    proof(tiny_model(Needs()), batches_of(StepRows(forget=(0, 1), retain=(2,)), Sets(forget=few(3), retain=few(13), pad=0), 1000))
