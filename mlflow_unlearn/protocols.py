"""What a method, a metric and an attack are. Components know these types and nothing of DVC, MLflow or files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, runtime_checkable

from .records import Claim, Direction

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from .engine.machine import Machine
    from .engine.ragged import Ragged
    from .params import OptimiserParams


@dataclass(frozen=True, kw_only=True)
class Record:
    """One record as text: held in memory and under build/raw only."""

    tag: str
    """Keyed tag of the record, hex."""
    subject: str | None
    """Keyed tag of its owner; None for a general fact."""
    prompt: str
    answer: str
    paraphrase: str | None = None
    """The same question in other words."""
    paraphrased_answer: str | None = None
    """The true answer in other words."""
    wrong_answers: tuple[str, ...] = ()
    swapped_prompt: str | None = None
    """The same question about a person who was never trained on."""
    swapped_answer: str | None = None
    group: str | None = None
    """Keyed tag of the people this owner belongs with (a household, a team): who counts as a neighbour."""
    kind: str | None = None
    """Keyed tag of the question without its owner's name: records of one kind ask the same of different people."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """A tokenised record: prompt tokens, then answer tokens and the end token, which alone carry the loss."""

    tokens: tuple[int, ...]
    prompt_length: int
    """How many leading tokens carry no loss."""
    label: int | None = None
    """The class of a record whose model is a sequence classifier: then every token is prompt and the class alone carries the loss."""


@dataclass(frozen=True, kw_only=True)
class Sequences:
    """A padded micro-batch. `labels` equals `input_ids` where a token carries loss and -100 elsewhere."""

    input_ids: torch.Tensor
    """(rows, length) int64."""
    attention_mask: torch.Tensor
    """(rows, length), 1 on real tokens."""
    labels: torch.Tensor
    """(rows, length) int64."""
    index: torch.Tensor
    """(rows,) position of each row in the set it was drawn from."""
    shared: int = 0
    """Leading tokens that are equal in all rows and that the engine may run once; always fewer than any row's prompt."""
    classes: torch.Tensor | None = None
    """(rows,) int64 for sequence classifiers; `labels` is then -100 everywhere."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One micro-batch of an optimiser batch: forget rows or retain rows, never both.

    Losses divide by the totals of the whole, so that micro-batches sum to its exact loss.
    """

    forget: Sequences | None = None
    alternative: Sequences | None = None
    """Row by row beside `forget`: the same prompts with the answers wanted instead; None unless the method needs them."""
    retain: Sequences | None = None
    forget_records: int = 0
    """Forget rows in the whole optimiser batch."""
    forget_tokens: int = 0
    """Tokens of those rows that carry loss."""
    forget_sequence_tokens: int = 0
    """All tokens of those rows but each one's first, which nothing predicts."""
    alternative_tokens: int = 0
    retain_records: int = 0
    """Retain rows in the whole optimiser batch."""
    retain_tokens: int = 0
    """Tokens of those rows that carry loss."""
    retain_sequence_tokens: int = 0
    """All tokens of those rows but each one's first."""


Side = Literal["forget", "retain"]


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a loss method asks of the engine, which computes it once, before the first step, with the frozen parent."""

    retain: bool = True
    """Whether the loss looks at retained records; where not, none are drawn."""
    log_probs: bool = False
    """The parent's log-probability of each forgotten answer, and of its alternative where there are any."""
    floors: bool = False
    """How strange each forgotten answer should become: the loss of the same record about a person never trained on."""
    answer_states: frozenset[Side] = frozenset()
    """Sides whose whole predictive distributions the parent must give, kept as last hidden states; as logits where an architecture does more than
    apply its head to them (those outside `engine.forward.PLAIN_HEADS`), which takes as much room as the vocabulary is large."""
    prompts_too: bool = False
    """Whether `answer_states` covers the prompt's tokens as well; see `engine.forward.with_prompts`."""
    layer: int | None = None
    """The decoder layer, counted from 0, whose output the loss looks at; nothing above it is computed."""
    layer_outputs: frozenset[Side] = frozenset({"forget", "retain"})
    """Sides whose output of `layer` the parent must give."""
    alternatives: Literal["data"] | tuple[str, ...] | None = None
    """Answers wanted instead: `data` takes the records' wrong answers, texts are dealt out in turn."""
    trainable: str | None = None
    """Regular expression searched in parameter names; only matching ones may change. None: all that require gradient."""


@dataclass(frozen=True, kw_only=True)
class View:
    """What the frozen parent says about one set; None where it was not asked for."""

    log_probs: torch.Tensor | None = None
    """(records,) summed log-probability of the answer tokens, nats."""
    floors: torch.Tensor | None = None
    """(records,) mean answer-token loss, nats, of the same record about a person never trained on; inf when the data cannot say."""
    answer_states: Ragged | None = None
    """Per record (answer tokens, width): the last hidden states, which `Reference.head` turns into logits."""
    layer_inputs: Ragged | None = None
    """Per record (tokens, width): what enters the lowest decoder layer that may change."""
    layer_outputs: Ragged | None = None
    """Per record (tokens, width): the parent's output of layer `Needs.layer`."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What the frozen parent says, computed once. The rows of a batch are found by `Sequences.index`."""

    forget: View = field(default_factory=View)
    alternative: View = field(default_factory=View)
    retain: View = field(default_factory=View)
    head: torch.nn.Module | None = None
    """Turns `answer_states` into the parent's logits; frozen."""
    first_layer: int = 0
    """The decoder layer that `layer_inputs` enter."""


@runtime_checkable
class LossMethod(Protocol):
    """Forgets by descending a loss; the engine owns everything else."""

    claim: ClassVar[Claim]

    @property
    def needs(self) -> Needs:
        """What the loss needs beside the model and the batch; may depend on the settings."""

    def loss(self, model: torch.nn.Module, batch: Batch, reference: Reference) -> torch.Tensor:
        """Scalar: this micro-batch's share of the loss of its optimiser batch."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a method that brings its own steps works on."""

    model: torch.nn.Module
    """The parent; changed in place."""
    forget: Sequence[Example]
    retain: Sequence[Example]
    swapped: Sequence[Example | None] = ()
    """Beside each forget record the same one about a person never trained on; None where the data cannot say."""
    alternatives: Sequence[Example] = ()
    """Beside each forget record the same prompt with the answer wanted instead; empty unless the method asked."""
    strangers: Sequence[Example] = ()
    """Records never trained on: their mean loss stands in where a forget record has no swapped one."""
    optimiser: OptimiserParams
    seed: int
    pad: int
    """Token id used for padding."""
    machine: Machine | None = None
    """Precision, processes, checkpoints and caches; None: float32 in one process that keeps nothing. `engine.descent` takes it as it is."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One optimiser step done."""

    step: int
    steps: int
    losses: Mapping[str, float] = field(default_factory=dict)
    """Named values of this step, e.g. loss, forget, retain, learning_rate."""
    notes: tuple[str, ...] = ()
    """What a reader of the run should know, said once: a halved micro-batch, a checkpoint taken up."""
    stop: str | None = None
    """Why no further step follows although some were planned."""


@runtime_checkable
class StepsMethod(Protocol):
    """Forgets in its own way: changes `task.model` in place and yields after each step."""

    claim: ClassVar[Claim]

    def steps(self, task: Task) -> Iterator[Progress]:
        """Run to the end."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Shadows:
    """What models say that were trained on random halves of the records, and then made to forget those halves (for U-LiRA)."""

    confidences: NDArray[np.float64]
    """(models, records) log(p / (1 - p)) of the answer, p its length-normalised probability."""
    trained_on: NDArray[np.bool_]
    """(models, records) whether the model was trained on the record, before it forgot it."""


class Subject(Protocol):
    """A set of records as one model sees it, each property computed once, on first use. The last three may raise `UnmeasurableError`."""

    @property
    def token_log_probs(self) -> Sequence[NDArray[np.float64]]:
        """Per record, the log-probability of each answer token including the end token, nats."""

    @property
    def token_hits(self) -> Sequence[NDArray[np.bool_]]:
        """Per record and answer token, whether the most likely token is the true one given the true prefix."""

    @property
    def token_moments(self) -> Sequence[NDArray[np.float64]]:
        """Per record (answer tokens, 2): mean and variance of log p over the vocabulary at that place, tokens of probability 0 left out; nats."""

    @property
    def paraphrased_log_probs(self) -> Sequence[NDArray[np.float64]]:
        """Per record, the log-probability of each token of the true answer in other words; empty where the data have none."""

    @property
    def wrong_log_probs(self) -> Sequence[Sequence[NDArray[np.float64]]]:
        """Per record and wrong answer, the log-probability of each token; empty where the data have none."""

    @property
    def gradient_norms(self) -> NDArray[np.float64]:
        """(records,) L2 norm of the whole gradient of the mean answer-token loss, in eval mode."""

    @property
    def generations(self) -> Sequence[str]:
        """Per record, the greedy answer."""

    @property
    def answers(self) -> Sequence[str]:
        """Per record, the true answer."""

    @property
    def reference_log_probs(self) -> Sequence[NDArray[np.float64]]:
        """`token_log_probs` of a reference model, which never saw the records."""

    @property
    def prefixed_log_probs(self) -> Sequence[NDArray[np.float64]]:
        """`token_log_probs` behind a prefix of records that were never trained on."""

    @property
    def shadows(self) -> Shadows:
        """What shadow models say of the same records."""


class Metric(Protocol):
    """What is still known: one value a record."""

    direction: ClassVar[Direction]

    def values(self, subject: Subject) -> NDArray[np.float64]:
        """(records,) one value each."""


@runtime_checkable
class PartialMetric(Protocol):
    """A metric that needs what not every record has; the others stay out of its mean, and where none has it the metric is absent, by name."""

    lacking: ClassVar[str]
    """What the records without a value lack, e.g. `wrong answers`."""

    def defined(self, subject: Subject) -> NDArray[np.bool_]:
        """(records,) whether `values` means anything there."""


class Attack(Protocol):
    """Who could tell: raw suspicion a record, higher = more likely a member of the training set, always."""

    def suspicion(self, subject: Subject) -> NDArray[np.float64]:
        """(records,) one value each."""
