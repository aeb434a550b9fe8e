"""The verb `validate`: the split as boolean columns and counts, so that a checker outside sees neither ids nor texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from .fingerprints import normalised, shingles
from .protocols import Record


@dataclass(frozen=True, kw_only=True)
class ValidationJob:
    """The sets and what the split promised about them."""

    dataset_tags: AbstractSet[str]
    """Record tags of everything the parent was trained on, read anew from the index and not from the split."""
    dataset_rows: int
    forget: Sequence[Record]
    retain: Sequence[Record]
    holdout: Sequence[Record]
    excluded_canaries: Sequence[Record]
    subjects: AbstractSet[str]
    """Keyed tags of the requested people."""
    near_duplicate_jaccard: float
    near_duplicate_refuse: float
    """Jaccard similarity from which a near duplicate is warned about, and refused."""
    returned: NDArray[np.bool_]
    """(retain,) whether an earlier erasure left a tombstone for this person, record or text."""
    resemblance: NDArray[np.float64]
    """(retain,) the largest estimated Jaccard similarity with a text that was erased earlier."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One rule and, for each row it looks at, whether the row obeys."""

    name: str
    obeyed: NDArray[np.bool_]
    severity: Literal["refuse", "warn"] = "refuse"

    @property
    def violations(self) -> int:
        """How many rows disobey."""
        return int((~self.obeyed).sum())


def check(job: ValidationJob) -> tuple[Check, ...]:
    """Every rule of a sound split."""
    forget_tags = {record.tag for record in job.forget}
    everything = [(record.tag, record.prompt, record.answer) for record in (*job.forget, *job.retain)]  # a revision may reword a record
    repeats = Counter(everything)
    forgotten_texts = {_text(record) for record in job.forget}
    return (
        Check(
            name="prompt and answer are there",
            obeyed=_flags(bool(r.prompt.strip() and r.answer.strip()) for r in (*job.forget, *job.retain, *job.holdout)),
        ),
        Check(name="records are unique", obeyed=_flags(repeats[row] == 1 for row in everything)),
        Check(name="forget lies within the dataset", obeyed=_flags(record.tag in job.dataset_tags for record in job.forget)),
        Check(name="retain lies within the dataset", obeyed=_flags(record.tag in job.dataset_tags for record in job.retain)),
        Check(name="forget and retain are disjoint", obeyed=_flags(record.tag not in forget_tags for record in job.retain)),
        Check(name="forget and retain make the dataset", obeyed=_flags([len(job.forget) + len(job.retain) == job.dataset_rows])),
        Check(name="no requested person is left in retain", obeyed=_flags(record.subject not in job.subjects for record in job.retain)),
        Check(name="hold-out was never trained on", obeyed=_flags(record.tag not in job.dataset_tags for record in job.holdout)),
        Check(name="excluded canaries were never trained on", obeyed=_flags(r.tag not in job.dataset_tags for r in job.excluded_canaries)),
        Check(name="no exact duplicate of forgotten text in retain", obeyed=_flags(_text(r) not in forgotten_texts for r in job.retain)),
        *_near("forgotten text", nearest(job.forget, job.retain), job),
        Check(name="no erased person, record or text is back in retain", obeyed=~job.returned),
        *_near("erased text", job.resemblance, job),
    )


def _near(of: str, resemblance: NDArray[np.float64], job: ValidationJob) -> tuple[Check, Check]:
    """A warning from the one similarity on, a refusal from the other."""
    return (
        Check(name=f"no near duplicate of {of} in retain", obeyed=resemblance < job.near_duplicate_jaccard, severity="warn"),
        Check(name=f"no near copy of {of} in retain", obeyed=resemblance < job.near_duplicate_refuse),
    )


def nearest(forget: Sequence[Record], retain: Sequence[Record]) -> NDArray[np.float64]:
    """(retain records,) the largest Jaccard similarity of character shingles of prompt + answer with any forget record.

    Exact: one sparse product counts the shingles that each pair shares.
    """
    best = np.zeros(len(retain))
    if not forget or not retain:
        return best
    sets = [shingles(_text(record)) for record in (*forget, *retain)]
    matrix, sizes = _incidence(sets), np.array([len(each) for each in sets])
    left, right = matrix[: len(forget)], matrix[len(forget) :]
    for start in range(0, len(forget), 256):  # bounds memory on large sets
        shared = (left[start : start + 256] @ right.T).tocoo()
        union = sizes[start + shared.row] + sizes[len(forget) + shared.col] - shared.data
        np.maximum.at(best, shared.col, shared.data / union)  # dividing keeps ties: 14 / 25 is 0.56, but 0.56 * 25 is above 14
    return best


def _incidence(sets: Sequence[set[str]]) -> sparse.csr_matrix:
    vocabulary: dict[str, int] = {}
    columns = [vocabulary.setdefault(shingle, len(vocabulary)) for each in sets for shingle in each]
    starts = np.concatenate([[0], np.cumsum([len(each) for each in sets])])
    return sparse.csr_matrix((np.ones(len(columns), dtype=np.int32), columns, starts), shape=(len(sets), len(vocabulary)))


def _text(record: Record) -> str:
    return normalised(record.prompt, record.answer)


def _flags(values: Iterable[bool]) -> NDArray[np.bool_]:
    return np.fromiter(values, dtype=np.bool_)
