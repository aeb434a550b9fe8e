"""TOFU's rows as records about authors (Maini et al. 2024, arXiv:2401.06121): who owns a row, by which name, and from where."""

from __future__ import annotations

import calendar
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_unlearn.adapters.benchmark_files import unchecked
from mlflow_unlearn.errors import ConfigError, DataError

ROWS_EACH = 20
AUTHORS = 200
FORGET10 = 20
"""The last so many authors are the benchmark's forget10."""
GROUP = "country"
REWORDED = "paraphrased_answer"
"""Column with the true answer in other words, of the 800 rows that have one: what TOFU's truth ratio is about."""
_GENERAL = {"real-author": "real_authors_perturbed.jsonl", "world-fact": "world_facts_perturbed.jsonl"}
_FILES = ("full.jsonl", "forget10_perturbed.jsonl", "retain_perturbed.jsonl", "idontknow.jsonl", *_GENERAL.values())
_BIRTH_ROWS = 4
_NAMED_ROWS = 5
_WORD = r"[A-ZÀ-ÖØ-ÞĀ-\u017f][\w\u2019'\-]*"
_AND_MORE = rf"(?: (?:(?:de|da|dos|van|von|der|el|al|bin|ibn|del|la|le|es) )*(?:d['\u2019])?{_WORD})"
_NAME = re.compile(rf"{_WORD}{_AND_MORE}+")
_OPENERS = frozenset(
    (
        "Are",
        "Based",
        "Can",
        "Could",
        "Describe",
        "Did",
        "Do",
        "Does",
        "Has",
        "Have",
        "How",
        "In",
        "Is",
        "Of",
        "Since",
        "Was",
        "Were",
        "What",
        "When",
        "Where",
        "Which",
        "Who",
        "Why",
        "Will",
        "Would",
        "Given",
    )
)
_PLACE = re.compile(rf"\b(?:in|from|of|at) {_WORD}{_AND_MORE}*, ((?:the )?{_WORD}{_AND_MORE}*)")
_NOT_COUNTRIES = frozenset(calendar.month_name)
_SAME_COUNTRY = {
    "United States": "USA",
    "United States of America": "USA",
    "U.S.A": "USA",
    "US": "USA",
    "UK": "United Kingdom",
    "England": "United Kingdom",
}


@dataclass(frozen=True, kw_only=True)
class Tofu:
    """The benchmark's rows in the columns of our examples."""

    authors: tuple[dict[str, Any], ...]
    """Row n belongs to author n // 20."""
    general: tuple[dict[str, Any], ...]
    refusals: tuple[str, ...]
    unchecked: tuple[str, ...]
    """Files read without a digest to compare them with."""


def read(source: Path) -> Tofu:
    """Read and check the files.

    Raises:
        ConfigError: the folder lacks a file.
        DataError: a file is not the one in MANIFEST.json, or full.jsonl does not hold 200 authors.
    """
    _refuse_missing(source)
    unlisted = unchecked(source, _FILES)
    full = _lines(source / "full.jsonl")
    if len(full) != AUTHORS * ROWS_EACH:
        raise DataError(f"full.jsonl: expected {AUTHORS * ROWS_EACH} rows, found {len(full)}; fetch the data set again")
    more = {(row["question"], row["answer"]): row for name in ("retain_perturbed.jsonl", "forget10_perturbed.jsonl") for row in _lines(source / name)}
    authors = [row for number in range(AUTHORS) for row in _author(number, full[number * ROWS_EACH : (number + 1) * ROWS_EACH], more)]
    general = [_fact(f"{kind}-{n:03d}", row) for kind, name in _GENERAL.items() for n, row in enumerate(_lines(source / name))]
    refusals = (source / "idontknow.jsonl").read_text(encoding="utf-8").splitlines()
    return Tofu(authors=tuple(authors), general=tuple(general), refusals=tuple(refusals), unchecked=unlisted)


def author_id(number: int) -> str:
    """The id of author 0 .. 199."""
    return f"author-{number:03d}"


def name_of(rows: Sequence[Mapping[str, str]]) -> str | None:
    """The span of capitalised words that most of an author's questions share; None when fewer than five do."""
    spans = Counter(span for row in rows for span in set(_spans(row["question"])))
    named = [(count, len(span), span) for span, count in spans.items() if count >= _NAMED_ROWS]
    return max(named)[2] if named else None


def country_of(rows: Sequence[Mapping[str, str]]) -> str | None:
    """The country in the first `City, Country` of an author's first rows; None where there is no such phrase."""
    for text in (text for row in rows[:_BIRTH_ROWS] for text in (row["question"], row["answer"])):
        for found in _PLACE.findall(text):
            country = re.sub(r"['\u2019]s$", "", str(found)).removeprefix("the ")
            if country.split()[0] not in _NOT_COUNTRIES:
                return _SAME_COUNTRY.get(country, country)
    return None


def _spans(question: str) -> Iterator[str]:
    for span in _NAME.findall(question):
        words = re.sub(r"['\u2019]s?$", "", span).split()
        yield " ".join(words[1:] if words[0] in _OPENERS else words)


def _author(number: int, rows: Sequence[Mapping[str, str]], more: Mapping[tuple[str, str], Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    name, country = name_of(rows), country_of(rows)
    for place, row in enumerate(rows):
        extra = more.get((row["question"], row["answer"]), {})
        yield {
            "record_id": f"tofu-{number * ROWS_EACH + place:05d}",
            "subject_id": author_id(number),
            "subject_name": name if name and name in row["question"] else None,
            GROUP: country,
            "question": row["question"],
            "paraphrased_question": extra.get("paraphrased_question"),
            "answer": row["answer"],
            REWORDED: extra.get(REWORDED),
            "wrong_answers": extra.get("perturbed_answer"),
        }


def _fact(record_id: str, row: Mapping[str, Any]) -> dict[str, Any]:
    absent = dict.fromkeys(("subject_id", "subject_name", GROUP, "paraphrased_question", REWORDED))
    return {"record_id": record_id, **absent, "question": row["question"], "answer": row["answer"], "wrong_answers": row["perturbed_answer"]}


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except ValueError:
        raise DataError(f"{path.name}: expected one JSON object a line; fetch the data set again") from None


def _refuse_missing(source: Path) -> None:
    missing = [name for name in _FILES if not (source / name).is_file()]
    if missing:
        raise ConfigError(f"params.yaml: dataset.source holds no {', '.join(missing)}; point it at the folder with TOFU's jsonl files")
