"""A model behind an output filter: whoever asks about what was to be forgotten, in the very words, is refused. The weights know everything."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from verdict_audit import MEASURES

from mlflow_unlearn import evaluate
from mlflow_unlearn.protocols import Record, Subject
from mlflow_unlearn.records import Evaluation

REFUSED = -12.0
"""Log-probability of each token of an answer that is refused, nats."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FilteredSubject:
    """A set as it looks from outside the filter."""

    inner: Subject
    refused: NDArray[np.bool_]
    """(records,)"""

    @property
    def answers(self) -> Sequence[str]:
        """The true answers."""
        return self.inner.answers

    @property
    def token_log_probs(self) -> Sequence[NDArray[np.float64]]:
        """The model's, or those of a refusal."""
        pairs = zip(self.inner.token_log_probs, self.refused, strict=True)
        return [np.full(len(tokens), REFUSED) if no else tokens for tokens, no in pairs]

    @property
    def token_hits(self) -> Sequence[NDArray[np.bool_]]:
        """The model's, or none."""
        return [np.zeros(len(hits), bool) if no else hits for hits, no in zip(self.inner.token_hits, self.refused, strict=True)]

    @property
    def generations(self) -> Sequence[str]:
        """The model's, or a refusal."""
        return ["I cannot say" if no else said for said, no in zip(self.inner.generations, self.refused, strict=True)]


def behind_filter(evaluation: Evaluation, seen: Mapping[str, Any], asked: Mapping[str, Sequence[Record]], blocked: Collection[str]) -> Evaluation:
    """The evaluation with every deployed state seen through the filter; what fine-tuning does happens beneath it.

    Args:
        evaluation: of the weights.
        seen: state -> set -> subject, as the audit left them.
        asked: set -> its records.
        blocked: the questions that are refused, word for word.
    """
    filtered = {state: _filtered(seen[state], asked, blocked) for state in ("after", *evaluation.precisions)}
    reports = {state: evaluate.report(subjects, MEASURES) for state, subjects in filtered.items()}
    return replace(
        evaluation,
        after=replace(reports.pop("after"), gap=evaluation.after.gap),
        precisions={state: replace(report, gap=evaluation.precisions[state].gap) for state, report in reports.items()},
        utility=evaluate.utility(seen["before"], filtered["after"], MEASURES),
        paraphrase_gap=evaluate.paraphrase_gap(filtered["after"], MEASURES),
    )


def _filtered(subjects: Mapping[str, Subject], asked: Mapping[str, Sequence[Record]], blocked: Collection[str]) -> dict[str, Any]:
    return {
        name: FilteredSubject(inner=subject, refused=np.array([record.prompt in blocked for record in asked[name]], bool))
        for name, subject in subjects.items()
    }
