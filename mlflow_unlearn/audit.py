"""The audit: which states of a model are looked at, one after another, and what every state is asked.

The parent, the unlearned model as it is, the same in every other deployed precision, and the same after a benign fine-tune on what stays. One model
is in memory at a time, made anew for each state and only if something is asked that the folder of remembered answers does not hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, cast

from . import evaluate
from .audit_sets import AuditSets, subject_of
from .catalog import build
from .digests import sha256_json
from .documents import encode
from .engine.calibration import CalibratedAttack
from .engine.descent import fit
from .engine.examples import padding
from .engine.precision import FULL, at_precision
from .engine.remembered import RememberedSubject
from .evaluate import Measures, Subjects
from .measurements import ModelReport, Score
from .params import EvaluateParams
from .protocols import Progress, Record, Subject

FINE_TUNED = "after_finetune"
Loaded = tuple[Any, Any]
"""A model, or an ensemble of shards, and its tokenizer."""
Report = Callable[[str, Progress], None]
"""Called with what is being done and how far it is."""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where the weights of a state come from."""

    load: Callable[[], Loaded]
    """Makes the model anew, so that it may be changed."""
    digest: str
    """Tensor digest of the weights."""
    many: bool = False
    """Whether it is an ensemble: it is asked through its shards, and nothing of it is remembered."""


@dataclass(frozen=True, kw_only=True)
class Retraining:
    """How models like the one under test are made, for the probes that train some."""

    train: Callable[[Sequence[Record], int], Any]
    """Canaries to train on beside everything that stays, and a seed, to a model."""
    unlearn: Callable[[Any, Sequence[Record], int], Any]
    """A model, canaries that it is to forget, and a seed, to the model that has forgotten them."""
    settings: str
    """Digest of all that decides what both do."""


@dataclass(frozen=True, kw_only=True)
class AuditJob:
    """What an audit works on; nothing here knows where models and records were kept."""

    parent: Origin
    model: Origin
    sets: AuditSets
    measures: Measures
    params: EvaluateParams
    reference: Origin | None = None
    """A model that never saw the records; None: what compares with one is absent."""
    retraining: Retraining | None = None
    """None: what trains models of its own is absent."""
    precisions: tuple[str, ...] = (FULL,)
    """In which the model is deployed."""
    folder: Path | None = None
    """Where what models say is remembered; None remembers nothing."""
    tell: Report = field(default=lambda _what, _how_far: None)

    def reference_subject(self, name: str) -> Subject | None:
        """One set as the reference model sees it; None without one."""
        return None if self.reference is None else self._compared.subject(replace(self, reference=None), name)

    @cached_property
    def _compared(self) -> State:
        return State(name="reference", origin=cast("Origin", self.reference))


@dataclass(frozen=True, kw_only=True)
class Audited:
    """What was found, as the fields of `records.Evaluation` of these names."""

    before: ModelReport
    after: ModelReport
    after_finetune: ModelReport
    precisions: Mapping[str, ModelReport]
    utility: Mapping[str, Score]
    paraphrase_gap: Score | None
    subjects: Mapping[str, Subjects] = field(default_factory=dict)
    """State -> set -> what was said; for whoever shows some of it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class State:
    """One state of a model, loaded when it is first needed."""

    name: str
    origin: Origin
    change: Callable[[Any, Any], Any] = lambda model, _tokenizer: model
    """The model, which may be changed, and its tokenizer to the model of this state."""
    change_key: str = ""
    """What decides the change, for the key of what is remembered."""

    @cached_property
    def seen(self) -> dict[str, Subject]:
        """Sets that were asked about."""
        return {}

    @cached_property
    def loaded(self) -> Loaded:
        """The model, kept until `release`; not to be changed."""
        return self.fresh()

    def fresh(self) -> Loaded:
        """The model made anew, so that it may be changed."""
        model, tokenizer = self.origin.load()
        return self.change(model, tokenizer), tokenizer

    def subject(self, job: AuditJob, name: str) -> Subject:
        """One set as this state sees it."""
        records = job.sets.records[name]

        def ask() -> Subject:
            return subject_of(self.loaded, job.sets, records, job.params, job.reference_subject(name))

        if name not in self.seen:
            self.seen[name] = self._remembered(job, records, ask) if job.folder is not None and not self.origin.many else ask()
        return self.seen[name]

    def _remembered(self, job: AuditJob, records: Sequence[Record], ask: Callable[[], Subject]) -> Subject:
        asked = [[r.prompt, r.answer, r.paraphrased_answer, list(r.wrong_answers)] for r in records]
        how = [job.sets.template, job.sets.other_answers, job.params.batch_tokens, job.params.max_new_tokens]
        key = sha256_json([self.origin.digest, self.change_key, asked, how])
        return RememberedSubject(ask=ask, answers=[r.answer for r in records], folder=cast("Path", job.folder), key=key[:40])

    def subjects(self, job: AuditJob) -> dict[str, Subject]:
        """Every set as this state sees it, asked now what every report needs."""
        found = {name: self.subject(job, name) for name in job.sets.records}
        for number, (name, subject) in enumerate(found.items(), start=1):
            _ = subject.token_log_probs if name.endswith(evaluate.SWAPPED) else (subject.token_log_probs, subject.token_hits)
            job.tell(f"asking {self.name}", Progress(step=number, steps=len(found)))
        return found

    def release(self) -> None:
        """Let go of the model; what it said stays."""
        self.__dict__.pop("loaded", None)


@dataclass(frozen=True, kw_only=True)
class Known:
    """A parent that was looked at already, through the same sets and measures."""

    report: ModelReport
    subjects: Subjects


def measures_of(params: EvaluateParams, where: str) -> Measures:
    """The metrics and attacks that settings name; `where` begins what complaints call the place.

    Raises:
        ConfigError: one of them is not known.
    """
    return Measures(
        metrics={name: build("metrics", name, where=f"{where}metrics") for name in params.metrics},
        attacks={name: CalibratedAttack(build("attacks", name, where=f"{where}attacks")) for name in params.attacks},
        bootstrap=params.bootstrap,
        permutations=params.permutations,
        seed=params.seed,
    )


def audit(job: AuditJob, parent: Known | None = None) -> Audited:
    """Look at every state in turn.

    Args:
        job: what to look at.
        parent: what an earlier audit of another model found of the same parent; None looks at it now.

    Raises:
        UnlearnError: a model answers with what are not numbers.
        ConfigError: a deployed precision is not known.
    """
    known = parent or _known(job)
    before = known.subjects
    seen: dict[str, Subjects] = {"before": before}
    reports: dict[str, ModelReport] = {"before": known.report}
    for state in states(job):
        seen[state.name] = state.subjects(job)
        found = evaluate.report(seen[state.name], job.measures)
        reports[state.name] = replace(found, gap=evaluate.remaining(before, seen[state.name], job.sets.kinds))
        state.release()
    nothing = ModelReport(scores={})
    return Audited(
        before=reports.pop("before"),
        after=reports.pop("after"),
        after_finetune=reports.pop(FINE_TUNED, nothing),
        precisions=reports,
        utility=evaluate.utility(before, seen["after"], job.measures),
        paraphrase_gap=evaluate.paraphrase_gap(seen["after"], job.measures),
        subjects=seen,
    )


def _known(job: AuditJob) -> Known:
    state = State(name="before", origin=job.parent)
    subjects = state.subjects(job)
    found = Known(report=evaluate.report(subjects, job.measures), subjects=subjects)
    state.release()
    return found


def states(job: AuditJob) -> Iterator[State]:
    """The unlearned model's states, in the order they are looked at.

    What was never learned cannot come back: an ensemble, whose claim is exact, is not fine-tuned. Nor is it rounded: then its outputs in that
    precision count as not measured.
    """
    yield State(name="after", origin=job.model)
    for name in job.precisions:
        if name != FULL and not job.model.many:
            yield State(name=name, origin=job.model, change=partial(_rounded, name=name), change_key=name)
    if not job.model.many:
        decides = [encode(job.params.finetune), job.params.seed, [[r.prompt, r.answer] for r in job.sets.retained]]
        yield State(name=FINE_TUNED, origin=job.model, change=partial(fine_tuned, job), change_key=sha256_json(decides))


def fine_tuned(job: AuditJob, model: Any, tokenizer: Any) -> Any:
    """The model after the benign fine-tune on everything that stays; changed in place."""
    examples = job.sets.examples(tokenizer, job.sets.retained, job.sets.classes(model))
    for done in fit(model, examples, job.params.finetune, job.params.seed, padding(tokenizer)):
        job.tell("benign fine-tune", done)
    return model


def _rounded(model: Any, _tokenizer: Any, name: str) -> Any:
    return at_precision(model, name)
