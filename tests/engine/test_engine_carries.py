"""What comes later needs no other engine: weight edits, classifiers, certified noise, and methods that wrap another one."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import pytest
import torch
import transformers
from torch.func import functional_call
from torch.nn import functional

from mlflow_unlearn import catalog
from mlflow_unlearn.engine.batches import Sets, StepRows, batches_of, collate
from mlflow_unlearn.engine.descent import TARGET_MET, fit
from mlflow_unlearn.engine.head import answer_log_probs
from mlflow_unlearn.engine.machine import Machine
from mlflow_unlearn.engine.reference import Asked, mean_losses, reference_of
from mlflow_unlearn.engine.selection import TuningSets
from mlflow_unlearn.engine.unlearning import forget_by_loss
from mlflow_unlearn.engine.worker import Worker
from mlflow_unlearn.errors import ConfigError
from mlflow_unlearn.params import OptimiserParams, SelectionParams
from mlflow_unlearn.protocols import Batch, Example, LossMethod, Needs, Progress, Reference, Task
from mlflow_unlearn.records import Claim
from mlflow_unlearn.testing import check_method
from mlflow_unlearn.unlearn import UnlearnJob, UnlearnRun, unlearn

OPTIMISER = OptimiserParams(epochs=10, learning_rate=3e-3, batch_size=8, weight_decay=0.0)
CONFIG = transformers.LlamaConfig(
    vocab_size=32,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=2,
    max_position_embeddings=32,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
    num_labels=3,
)


def trained(architecture: Any, examples: list[Example]) -> Any:
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(1)
        model = architecture(CONFIG)
    for _ in fit(model, examples, OptimiserParams(epochs=60, learning_rate=5e-3, batch_size=8), 0, 0):
        pass
    return model.eval()


def forgotten(model: Any, method: Any, **task: Any) -> UnlearnRun:
    """The run; the model is changed in place."""
    job = Task(**{"model": model, "forget": FORGET, "retain": RETAIN, "optimiser": OPTIMISER, "seed": 0, "pad": 0} | task)
    return unlearn(UnlearnJob(task=job, method=method, tuning=TuningSets(pad=0), selection=SelectionParams(every=0)))


def loss(model: Any, examples: list[Example]) -> float:
    return mean_losses(model, examples, 0).mean().item()


def records(first: int, count: int) -> list[Example]:
    """Prompt of two tokens that name the record, answer of three that follow no rule."""
    return [
        Example(tokens=(3 + n // 7, 10 + n % 7, *(3 + (n * k * k + k) % 26 for k in (5, 11, 17)), 2), prompt_length=2)
        for n in range(first, first + count)
    ]


FORGET, RETAIN, NEVER_SEEN = records(0, 8), records(8, 12), records(20, 8)


@pytest.fixture(scope="module")
def taught() -> Any:
    return trained(transformers.LlamaForCausalLM, FORGET + RETAIN)


@pytest.fixture
def model(taught: Any) -> Any:
    return copy.deepcopy(taught)


# Weight edits


@dataclass(frozen=True, kw_only=True)
class Prune:
    """Silences the feed-forward neurons that forgotten records excite most in proportion to retained ones.

    A neuron's score is its mean absolute activation over the tokens of forget, divided by that over the tokens of retain.

    Paper: Pochinkov and Schoots 2024, "Dissecting Language Models: Machine Unlearning via Selective Pruning" (arXiv:2403.01267), section 3.

    Does not guarantee that what one neuron knew is known by no other.
    """

    claim: ClassVar[Claim] = Claim.APPROXIMATE

    fraction: float = 0.1
    """Share of each layer's neurons."""

    def steps(self, task: Task) -> Iterator[Progress]:
        """One step a layer."""
        if hasattr(task.model, "get_base_model"):
            raise ConfigError("prune: edits full weights, found a model with LoRA adapters")
        forget, retain = excitement(task, task.forget), excitement(task, task.retain)
        for step, matrix in enumerate(forget, start=1):
            scores = forget[matrix] / retain[matrix]
            silenced = scores.topk(math.ceil(self.fraction * len(scores))).indices
            with torch.no_grad():
                matrix.weight[:, silenced] = 0.0
            yield Progress(step=step, steps=len(forget), losses={"silenced": float(len(silenced))})


@torch.no_grad()
def excitement(task: Task, examples: Sequence[Example]) -> dict[torch.nn.Linear, torch.Tensor]:
    """(neurons,) mean absolute value of what enters the second matrix of each feed-forward block."""
    matrices = [module for name, module in task.model.named_modules() if name.endswith("down_proj")]
    sums: dict[Any, torch.Tensor] = {matrix: torch.zeros(matrix.in_features) for matrix in matrices}
    handles = [matrix.register_forward_pre_hook(lambda self, inputs: sums[self].add_(inputs[0].abs().sum((0, 1)))) for matrix in matrices]
    for i in range(len(examples)):  # one by one: padding would count
        answer_log_probs(task.model, collate(examples, [i], task.pad))
    for handle in handles:
        handle.remove()
    return {matrix: total / sum(len(example.tokens) - 1 for example in examples) for matrix, total in sums.items()}


def test_a_weight_edit_is_a_method_like_any_other(model: Any, taught: Any) -> None:
    check_method(Prune)
    run = forgotten(model, Prune())
    assert (run.steps, run.kept_step, run.losses) == (2, 2, ({"silenced": 7.0}, {"silenced": 7.0}))
    assert loss(model, FORGET) - loss(taught, FORGET) > 2 * (loss(model, RETAIN) - loss(taught, RETAIN)) > 0


# Classifiers


def labelled(first: int, count: int) -> list[Example]:
    """Seven tokens that name the record and one of three classes, which follow no rule."""
    return [
        Example(tokens=(1, *(3 + (n * k * k + k) % 29 for k in (1, 2, 3, 5, 7, 11))), prompt_length=7, label=(n**5 // 7 + n // 2) % 3)
        for n in range(first, first + count)
    ]


FORGET_CLASSES, RETAIN_CLASSES = labelled(0, 6), labelled(6, 18)


@pytest.fixture(scope="module")
def taught_classifier() -> Any:
    return trained(transformers.LlamaForSequenceClassification, FORGET_CLASSES + RETAIN_CLASSES)


def class_log_probs(model: Any, examples: Sequence[Example]) -> torch.Tensor:
    """(records,) from the logits, one record at a time."""
    return torch.stack([model(input_ids=torch.tensor([each.tokens])).logits.log_softmax(-1)[0, each.label] for each in examples])


def naive_npo(method: Any, forget: torch.Tensor, parent: torch.Tensor) -> torch.Tensor:
    return -2 / method.beta * functional.logsigmoid(-method.beta * (forget - parent)).mean()


def naive_grad_diff(method: Any, forget: torch.Tensor, parent: torch.Tensor) -> torch.Tensor:
    return forget.mean()


def naive_sim_npo(method: Any, forget: torch.Tensor, parent: torch.Tensor) -> torch.Tensor:
    """A class is an answer of one token."""
    return -2 / method.beta * functional.logsigmoid(-method.beta * forget - method.gamma).mean()


NAIVE = {"npo": naive_npo, "grad_diff": naive_grad_diff, "sim_npo": naive_sim_npo}


@pytest.mark.parametrize("name", NAIVE)
def test_losses_are_their_formulas_on_the_class_of_a_record(name: str, taught_classifier: Any) -> None:
    method, model = catalog.build("methods", name, where="test"), copy.deepcopy(taught_classifier)
    sets, rows = Sets(forget=FORGET_CLASSES, retain=RETAIN_CLASSES, pad=0), StepRows(forget=(0, 2, 3), retain=(1, 4))
    reference = reference_of(Worker(model), Asked(needs=method.needs, sets=sets, plan=[rows]), Machine())
    with torch.no_grad():
        model.score.weight.mul_(0.7)
    found = torch.stack([method.loss(model, batch, reference) for batch in batches_of(rows, sets, 20)]).sum()
    forget, retain = class_log_probs(model, [FORGET_CLASSES[i] for i in (0, 2, 3)]), class_log_probs(model, [RETAIN_CLASSES[i] for i in (1, 4)])
    parent = class_log_probs(taught_classifier, [FORGET_CLASSES[i] for i in (0, 2, 3)]).detach()
    naive = NAIVE[name](method, forget, parent) - method.retain_weight * retain.mean()
    torch.testing.assert_close(found, naive, rtol=1e-6, atol=0)
    parameters = list(model.parameters())
    torch.testing.assert_close(torch.autograd.grad(found, parameters), torch.autograd.grad(naive, parameters), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("section", [*NAIVE, {"name": "npo", "retain": "kl"}], ids=str)
def test_a_classifier_forgets_by_the_methods_as_they_are(section: Any, taught_classifier: Any) -> None:
    model = copy.deepcopy(taught_classifier)
    method = catalog.build("methods", section, where="test")
    forgotten(model, method, forget=FORGET_CLASSES, retain=RETAIN_CLASSES, optimiser=replace(OPTIMISER, learning_rate=1e-3))
    assert loss(taught_classifier, FORGET_CLASSES) < 0.01 < 1.0 < loss(model, FORGET_CLASSES)
    assert loss(model, RETAIN_CLASSES) < 0.05


# Certified noise


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Clips the weights to a ball, hides in noise which point of it they were, and fine-tunes on retained records.

    Two models within the ball lie at most 2 * radius apart, so that noise of standard deviation 2 * radius * sqrt(2 log(1.25 / delta)) / epsilon
    makes them (epsilon, delta)-indistinguishable, and fine-tuning that looks at retained records alone keeps that.

    Paper: Koloskova et al. 2025, "Certified Unlearning for Neural Networks" (arXiv:2506.06985), model clipping; the Gaussian mechanism is theorem A.1
    of Dwork and Roth 2014, "The Algorithmic Foundations of Differential Privacy".

    Does not guarantee a useful model: the noise is as large as the ball.
    """

    claim: ClassVar[Claim] = Claim.CERTIFIED

    epsilon: float = 0.9
    """Nats; the theorem holds below 1."""
    delta: float = 1e-5
    """Probability."""
    radius: float = 0.1
    """Largest Euclidean norm of all weights together."""

    @property
    def deviation(self) -> float:
        return 2 * self.radius * math.sqrt(2 * math.log(1.25 / self.delta)) / self.epsilon

    def steps(self, task: Task) -> Iterator[Progress]:
        """The steps of the fine-tuning; the last one says what is certified."""
        weights = [parameter for parameter in task.model.parameters() if parameter.requires_grad]
        generator = torch.Generator().manual_seed(task.seed)
        with torch.no_grad():
            norm = torch.stack([weight.norm() for weight in weights]).norm()
            for weight in weights:
                weight.mul_(min(1.0, self.radius / float(norm)))
                weight.add_(torch.randn(weight.shape, generator=generator), alpha=self.deviation)
        for progress in fit(task.model, task.retain, task.optimiser, task.seed, task.pad, task.machine):
            last = progress.step == progress.steps
            yield replace(progress, losses={**progress.losses, "epsilon": self.epsilon, "delta": self.delta}) if last else progress


def test_certified_noise_is_a_method_like_any_other(model: Any) -> None:
    check_method(Noise)
    run = forgotten(model, Noise())
    assert (run.losses[-1]["epsilon"], run.losses[-1]["delta"]) == (0.9, 1e-5)
    assert not any("epsilon" in losses for losses in run.losses[:-1])
    assert loss(model, RETAIN) < loss(model, FORGET)


def test_the_noise_is_as_large_as_the_theorem_asks_and_follows_the_seed(model: Any) -> None:
    still, others = replace(OPTIMISER, epochs=1, learning_rate=1e-12), [copy.deepcopy(model) for _ in range(2)]
    for seed, each in enumerate((model, *others)):
        forgotten(each, Noise(), optimiser=still, seed=seed // 2)
    first, again, other = (torch.cat([weight.flatten() for weight in each.parameters()]) for each in (model, *others))
    assert torch.equal(first, again)
    assert (first - other).std().item() == pytest.approx(math.sqrt(2) * Noise().deviation, rel=0.02)


# Methods that wrap another one


@dataclass(frozen=True, kw_only=True)
class Sharp:
    """Another method whose forget loss is taken where the weights make it worst, at most `radius` away.

    Paper: Fan et al. 2025, "Towards LLM Unlearning Resilient to Relearning Attacks: A Sharpness-Aware Minimization Perspective and Beyond"
    (arXiv:2502.05374), equation 6; the worst place is that of one micro-batch here, of the whole batch there.

    Does not guarantee that relearning far from here is slow.
    """

    claim: ClassVar[Claim] = Claim.APPROXIMATE

    inner: Mapping[str, Any] = field(default_factory=lambda: {"name": "npo"})
    """The other method, as `unlearn.method` would name it."""
    radius: float = 0.01
    """Euclidean distance over all weights that may change."""

    @property
    def method(self) -> Any:
        return catalog.build("methods", self.inner, where="unlearn.method.inner")

    @property
    def needs(self) -> Needs:
        return self.method.needs

    def loss(self, model: torch.nn.Module, batch: Batch, reference: Reference) -> torch.Tensor:
        method = self.method
        if batch.forget is None:
            return method.loss(model, batch, reference)
        weights = {f"model.{name}": weight for name, weight in model.named_parameters() if weight.requires_grad}
        uphill = torch.autograd.grad(method.loss(model, batch, reference), list(weights.values()))
        scale = self.radius / torch.stack([each.norm() for each in uphill]).norm()
        moved = {name: weight + scale * each for (name, weight), each in zip(weights.items(), uphill, strict=True)}
        return functional_call(Worker(model), moved, (method.loss, batch, reference))


@pytest.mark.parametrize("inner", ["npo", "grad_diff"])
def test_a_wrapper_takes_another_method_s_loss_at_other_weights(inner: str, model: Any) -> None:
    method, sharp = catalog.build("methods", inner, where="test"), Sharp(inner={"name": inner})
    sets, rows = Sets(forget=FORGET, retain=RETAIN, pad=0), StepRows(forget=(0, 2, 3))
    reference = reference_of(Worker(model), Asked(needs=sharp.needs, sets=sets, plan=[rows]), Machine())
    (batch,) = batches_of(rows, sets, 1000)
    uphill = torch.autograd.grad(method.loss(model, batch, reference), list(model.parameters()))
    norm = math.sqrt(sum(float(each.square().sum()) for each in uphill))
    there = copy.deepcopy(model)
    with torch.no_grad():
        for weight, each in zip(there.parameters(), uphill, strict=True):
            weight.add_(each, alpha=0.01 / norm)
    expected = torch.autograd.grad(method.loss(there, batch, reference), list(there.parameters()))
    found = torch.autograd.grad(sharp.loss(model, batch, reference), list(model.parameters()))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_a_wrapper_that_changes_the_loss_keeps_alternatives_selection_and_early_stop(model: Any) -> None:
    assert Sharp(inner={"name": "idk_dpo"}).needs.alternatives
    assert isinstance(Sharp(), LossMethod)
    task = Task(model=model, forget=FORGET, retain=RETAIN, optimiser=replace(OPTIMISER, epochs=60, learning_rate=1e-3), seed=0, pad=0)
    tuning = TuningSets(included=FORGET[:4], excluded=NEVER_SEEN[:4], kept=RETAIN[:6], pad=0)
    gentle = Sharp(inner={"name": "npo", "retain_weight": 5.0})
    run = unlearn(UnlearnJob(task=task, method=gentle, tuning=tuning, selection=SelectionParams(every=1)))
    assert run.stopped == TARGET_MET
    assert loss(model, FORGET) > 1.0 > 0.2 > loss(model, RETAIN)


@dataclass(frozen=True, kw_only=True)
class Salient:
    """Another method that may change only the weights that forgotten records pull at most.

    Paper: Fan et al. 2023, "SalUn" (arXiv:2310.12508), equations 3 and 4.

    Does not guarantee that other weights know nothing.
    """

    claim: ClassVar[Claim] = Claim.APPROXIMATE

    inner: Mapping[str, Any] = field(default_factory=lambda: {"name": "grad_diff"})
    """The other method, as `unlearn.method` would name it."""
    fraction: float = 0.5
    """Share of each matrix that may change."""

    def steps(self, task: Task) -> Iterator[Progress]:
        """The other method's steps, with gradients cut to a mask."""
        weights = [weight for weight in task.model.parameters() if weight.requires_grad]
        masks = salient(task, weights, self.fraction)
        handles = [weight.register_hook(mask.mul) for weight, mask in zip(weights, masks, strict=True)]
        yield from forget_by_loss(task, catalog.build("methods", self.inner, where="unlearn.method.inner"))
        for handle in handles:
            handle.remove()


def salient(task: Task, weights: list[torch.nn.Parameter], fraction: float) -> list[torch.Tensor]:
    """1.0 where the gradient of the forget loss is largest, else 0.0."""
    rows = collate(task.forget, range(len(task.forget)), task.pad)
    pulls = [each.abs() for each in torch.autograd.grad(answer_log_probs(task.model, rows)[0].sum(), weights)]
    return [(pull >= pull.flatten().quantile(1 - fraction)).float() for pull in pulls]


def test_a_wrapper_that_changes_the_gradient_runs_through_the_same_descent(model: Any, taught: Any) -> None:
    check_method(Salient)
    masks = salient(Task(model=taught, forget=FORGET, retain=RETAIN, optimiser=OPTIMISER, seed=0, pad=0), list(taught.parameters()), 0.5)
    run = forgotten(model, Salient())
    assert run.steps == 10
    for mask, before, after in zip(masks, taught.parameters(), model.parameters(), strict=True):
        assert torch.equal(before[mask == 0], after[mask == 0])
        assert not torch.equal(before[mask == 1], after[mask == 1])
    assert loss(model, FORGET) > 1.0
