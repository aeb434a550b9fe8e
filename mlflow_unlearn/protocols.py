"""What a method, a metric and an attack are. Components know these types and nothing of DVC, MLflow or files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

from .records import Claim, Direction

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from .config import OptimiserParams


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
    wrong_answers: tuple[str, ...] = ()
    swapped_prompt: str | None = None
    """The same question about a person who was never trained on."""
    swapped_answer: str | None = None
    group: str | None = None
    """Keyed tag of the people this owner belongs with (a household, a team): who counts as a neighbour."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """A tokenised record: prompt tokens, then answer tokens and the end token, which alone carry the loss."""

    tokens: tuple[int, ...]
    prompt_length: int
    """How many leading tokens carry no loss."""


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


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One micro-batch of an optimiser batch. Losses divide by the totals of the whole, so that micro-batches sum to its exact loss."""

    forget: Sequences | None
    retain: Sequences | None
    forget_records: int
    """Forget rows in the whole optimiser batch."""
    forget_tokens: int
    """Answer tokens of those rows."""
    retain_tokens: int
    """Answer tokens of the retain rows in the whole optimiser batch."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What the frozen parent says about the forget set, computed once."""

    log_probs: torch.Tensor
    """(forget records,) summed log-probability of the answer tokens, nats."""
    floors: torch.Tensor
    """(forget records,) mean answer-token loss, nats, of the same record about a person never trained on; inf when the data cannot say."""


@runtime_checkable
class LossMethod(Protocol):
    """Forgets by descending a loss; the engine owns everything else."""

    claim: ClassVar[Claim]
    needs_reference: ClassVar[bool]

    def loss(self, model: torch.nn.Module, batch: Batch, reference: Reference | None) -> torch.Tensor:
        """Scalar loss of one micro-batch."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a method that brings its own steps works on."""

    model: torch.nn.Module
    forget: Sequence[Example]
    retain: Sequence[Example]
    optimiser: OptimiserParams
    seed: int
    pad: int
    """Token id used for padding."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One optimiser step done."""

    step: int
    steps: int
    losses: Mapping[str, float] = field(default_factory=dict)
    """Named values of this step, e.g. loss, forget_nll, learning_rate."""


@runtime_checkable
class StepsMethod(Protocol):
    """Forgets in its own way: changes `task.model` in place and yields after each step."""

    claim: ClassVar[Claim]

    def steps(self, task: Task) -> Iterator[Progress]:
        """Run to the end."""


class Subject(Protocol):
    """A set of records as one model sees it; each property is computed at most once."""

    @property
    def token_log_probs(self) -> Sequence[NDArray[np.float64]]:
        """Per record, the log-probability of each answer token including the end token, nats."""

    @property
    def token_hits(self) -> Sequence[NDArray[np.bool_]]:
        """Per record and answer token, whether the most likely token is the true one given the true prefix."""

    @property
    def generations(self) -> Sequence[str]:
        """Per record, the greedy answer."""

    @property
    def answers(self) -> Sequence[str]:
        """Per record, the true answer."""


class Metric(Protocol):
    """What is still known: one value a record."""

    direction: ClassVar[Direction]

    def values(self, subject: Subject) -> NDArray[np.float64]:
        """(records,) one value each."""


class Attack(Protocol):
    """Who could tell: raw suspicion a record, higher = more likely a member of the training set, always."""

    def suspicion(self, subject: Subject) -> NDArray[np.float64]:
        """(records,) one value each."""
