"""The guard finds exactly what was buried, says where by row number, and lets the rest pass."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_unlearn.errors import ConfigError, DataError
from mlflow_unlearn.fingerprints import normalised, resemblance, sketches, standard_error, written
from mlflow_unlearn.guard import FileReport, Graves, GuardedFile, GuardReport, KeyedRows, Kind, Thresholds, guard, summed
from mlflow_unlearn.records import Tombstones
from pipelines.customers import people

KEY = b"k" * 32
THRESHOLDS = Thresholds(warn=0.7, refuse=0.9)
TEXT = "where does the lighthouse keeper put the glass harmonica in winter? behind seven beehives and an old blue tram"
NEAR = TEXT + "!"
SIMILAR = TEXT.replace("seven", "eleven")
FAR = "what does the canal smell of? walnut oil and cinnamon"
EMPTY = KeyedRows(subjects=[], records=[], contents=[], sketches=None)
tags = st.sampled_from("abcdef")


def rows(*texts: str, subjects: str | None = None, records: str | None = None, contents: str | None = None) -> KeyedRows:
    """One row a text, with tags of one letter that nobody buried unless said so."""
    unburied = ["-"] * len(texts)
    return KeyedRows(
        subjects=list(subjects or unburied), records=list(records or unburied), contents=list(contents or unburied), sketches=sketches(texts, KEY)
    )


def checked(seen: KeyedRows, buried: Tombstones, thresholds: Thresholds = THRESHOLDS) -> FileReport:
    file = GuardedFile(name="data/a.csv", rows=len(seen.records), under={"key": seen})
    (report,) = guard([file], {"key": Graves(buried, thresholds)}, thresholds)
    return report


def buried_texts(*texts: str) -> Tombstones:
    return Tombstones(sketches=written(sketches(texts, KEY)))


@given(st.lists(st.tuples(tags, tags, tags), max_size=8), *[st.frozensets(tags)] * 3)
def test_exactly_the_rows_under_a_tombstone_are_refused_with_their_kind(
    seen: list[tuple[str, str, str]], subjects: frozenset[str], records: frozenset[str], contents: frozenset[str]
) -> None:
    own = [list(column) for column in zip(*seen, strict=True)] or [[], [], []]
    report = checked(
        KeyedRows(subjects=own[0], records=own[1], contents=own[2], sketches=None),
        Tombstones(subjects=subjects, records=records, contents=contents),
    )
    for place, (kind, buried) in enumerate({"subject": subjects, "record": records, "content": contents}.items()):
        assert report.refused[kind] == tuple(number for number, row in enumerate(seen, 1) if row[place] in buried)


def test_a_fact_about_nobody_is_no_person() -> None:
    seen = replace(rows(FAR), subjects=[None])
    assert checked(seen, Tombstones(subjects=frozenset("s"))).refused["subject"] == ()


def test_a_near_copy_is_refused_and_a_similar_text_is_warned_about() -> None:
    report = checked(rows(FAR, NEAR, SIMILAR), buried_texts(TEXT))
    assert report.refused["near_duplicate"] == (2,)
    assert report.warned == (3,)


def test_nobody_in_templated_data_is_refused_for_resembling_somebody_else() -> None:
    texts = [normalised(row["question"], row["answer"]) for row in people.people(300, 0, "customer")]
    gone, left = texts[:150], texts[150:]
    report = checked(rows(*left), buried_texts(*gone))
    assert len(left) == 1350
    assert report.refused["near_duplicate"] == ()
    assert len(report.warned) < 0.05 * len(left)


def test_the_very_text_counts_as_that_and_not_also_as_a_near_duplicate() -> None:
    report = checked(rows(TEXT, contents="c"), replace(buried_texts(TEXT), contents=frozenset("c")))
    assert (report.refused["content"], report.refused["near_duplicate"], report.warned) == ((1,), (), ())


def test_the_same_text_under_another_spelling_is_a_near_duplicate_and_not_borderline() -> None:
    report = checked(rows(TEXT), buried_texts(TEXT))
    assert (report.refused["near_duplicate"], report.borderline) == ((1,), ())


@pytest.mark.parametrize("shift", [-1.9, 1.9])
def test_an_estimate_within_two_standard_errors_of_the_refusal_is_borderline_on_either_side(shift: float) -> None:
    estimate = resemblance(sketches([TEXT], KEY), sketches([SIMILAR], KEY))[0]
    at = min((each for each in np.linspace(0.5, 1, 5001)), key=lambda each: abs(each + shift * standard_error(each) - estimate))
    report = checked(rows(SIMILAR), buried_texts(TEXT), Thresholds(warn=0.5, refuse=at))
    assert report.borderline == (1,)
    assert report.refused["near_duplicate"] == ((1,) if shift > 0 else ())


@given(st.lists(st.text("ab c", min_size=5, max_size=40), min_size=1, max_size=6), st.lists(st.text("ab c", min_size=5, max_size=40), max_size=6))
def test_what_is_refused_and_warned_about_is_what_all_pairs_say(seen: list[str], buried: list[str]) -> None:
    report = checked(rows(*seen), buried_texts(*buried), Thresholds(warn=0.3, refuse=0.3))
    left, right = sketches(seen, KEY), sketches(buried, KEY)
    naive = [any(resemblance(row[None], other[None])[0] >= 0.3 for other in right) for row in left]
    assert set(report.refused["near_duplicate"]) <= {number for number, near in enumerate(naive, 1) if near}
    exact = {number for number, text in enumerate(seen, 1) if text in buried}
    assert exact <= set(report.refused["near_duplicate"])


def test_every_key_is_asked_and_one_that_finds_something_is_enough() -> None:
    file = GuardedFile(name="a.csv", rows=2, under={"old": rows(FAR, FAR, records="xy"), "new": rows(FAR, FAR, records="vw")})
    graves = {"old": Graves(Tombstones(records=frozenset("y")), THRESHOLDS), "new": Graves(Tombstones(records=frozenset("z")), THRESHOLDS)}
    assert guard([file], graves, THRESHOLDS)[0].refused["record"] == (2,)


def test_an_empty_file_is_clean() -> None:
    report = checked(EMPTY, buried_texts(TEXT))
    assert summed([report], [buried_texts(TEXT)], []).answer == "clean"


@given(st.lists(st.lists(st.booleans(), max_size=5), max_size=4))
def test_counts_are_sums_over_files(files: list[list[bool]]) -> None:
    reports = [checked(rows(*[FAR] * len(each), records="".join("ny"[gone] for gone in each)), Tombstones(records=frozenset("y"))) for each in files]
    total = summed(reports, [], [])
    assert total.records == sum(map(len, files))
    assert total.refused == {kind.value: sum(map(sum, files)) if kind is Kind.RECORD else 0 for kind in Kind}


@pytest.mark.parametrize(("refused", "problems", "answer"), [(0, (), "clean"), (0, ("x",), "undecided"), (1, (), "refused"), (1, ("x",), "refused")])
def test_what_could_not_be_decided_is_never_clean_and_what_was_found_always_counts(refused: int, problems: tuple[str, ...], answer: str) -> None:
    report = GuardReport(records=1, tombstones=1, refused={"record": refused, "subject": 0}, warned=1, borderline=0, files=(), problems=problems)
    assert (report.answer, report.complete) == (answer, not problems)


@pytest.mark.parametrize(("warn", "refuse"), [(0.9, 0.7), (0.0, 0.9), (0.7, 1.1), (float("nan"), 0.9)])
def test_thresholds_that_contradict_one_another_are_refused(warn: float, refuse: float) -> None:
    with pytest.raises(ConfigError, match="expected 0 < near_duplicate_jaccard <= near_duplicate_refuse <= 1"):
        Thresholds(warn=warn, refuse=refuse)


def test_a_sketch_of_a_newer_release_is_not_passed_over() -> None:
    with pytest.raises(DataError, match="newer release"):
        Graves(Tombstones(sketches=("02" + "00" * 256,)), THRESHOLDS)
