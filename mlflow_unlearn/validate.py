"""The verb `validate`: the split as boolean columns and counts, so that a checker outside sees neither ids nor texts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from .protocols import Record

SHINGLE = 5
"""Characters in a shingle."""


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
    forgotten_texts = {_normalised(record) for record in job.forget}
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
        Check(name="no exact duplicate of forgotten text in retain", obeyed=_flags(_normalised(r) not in forgotten_texts for r in job.retain)),
        Check(
            name="no near duplicate of forgotten text in retain",
            obeyed=~near_duplicates(job.forget, job.retain, job.near_duplicate_jaccard),
            severity="warn",
        ),
    )


def near_duplicates(forget: Sequence[Record], retain: Sequence[Record], threshold: float) -> NDArray[np.bool_]:
    """(retain records,) whether the Jaccard similarity of character shingles of prompt + answer with any forget record reaches the threshold.

    Exact: one sparse product counts the shingles that each pair shares.
    """
    if not forget or not retain:
        return np.zeros(len(retain), dtype=np.bool_)
    shingles = [_shingles(record) for record in (*forget, *retain)]
    matrix, sizes = _incidence(shingles), np.array([len(each) for each in shingles])
    left, right = matrix[: len(forget)], matrix[len(forget) :]
    found = np.zeros(len(retain), dtype=np.bool_)
    for start in range(0, len(forget), 256):  # bounds memory on large sets
        shared = (left[start : start + 256] @ right.T).tocoo()
        union = sizes[start + shared.row] + sizes[len(forget) + shared.col] - shared.data
        found[shared.col[shared.data / union >= threshold]] = True  # dividing keeps ties: 14 / 25 is 0.56, but 0.56 * 25 is above 14
    return found


def _incidence(shingles: Sequence[set[str]]) -> sparse.csr_matrix:
    vocabulary: dict[str, int] = {}
    columns = [vocabulary.setdefault(shingle, len(vocabulary)) for each in shingles for shingle in each]
    starts = np.concatenate([[0], np.cumsum([len(each) for each in shingles])])
    return sparse.csr_matrix((np.ones(len(columns), dtype=np.int32), columns, starts), shape=(len(shingles), len(vocabulary)))


def _shingles(record: Record) -> set[str]:
    text = _normalised(record)
    return {text[i : i + SHINGLE] for i in range(max(1, len(text) - SHINGLE + 1))}


def _normalised(record: Record) -> str:
    return re.sub(r"\s+", " ", f"{record.prompt} {record.answer}").strip().casefold()


def _flags(values: Iterable[bool]) -> NDArray[np.bool_]:
    return np.fromiter(values, dtype=np.bool_)
