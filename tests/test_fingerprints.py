"""Sketches estimate what they claim to, within the error they claim, for who holds the key and for nobody else."""

from __future__ import annotations

import random

import numpy as np
import pytest
from datasketch import MinHash
from hypothesis import given
from hypothesis import strategies as st

from mlflow_unlearn import fingerprints
from mlflow_unlearn.errors import DataError
from mlflow_unlearn.fingerprints import (
    PERMUTATIONS,
    Neighbours,
    band_for,
    normalised,
    read,
    recall,
    resemblance,
    shingles,
    sketches,
    standard_error,
    written,
)

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
texts = st.text(min_size=1, max_size=40)


def jaccard(left: str, right: str) -> float:
    one, other = shingles(left), shingles(right)
    return len(one & other) / len(one | other)


def pairs(count: int, length: int = 300) -> list[tuple[str, str]]:
    """Random texts and copies with some words replaced, of every similarity."""
    rng = random.Random(0)
    word = lambda: "".join(rng.choices("abcdefghijklmnop", k=rng.randint(2, 9)))  # noqa: E731
    made = []
    for number in range(count):
        words = [word() for _ in range(length // 6)]
        copy = [word() if rng.random() < number / count / 3 else each for each in words]
        made.append((" ".join(words), " ".join(copy)))
    return made


PAIRS = pairs(300)
TRUE = np.array([jaccard(*pair) for pair in PAIRS])
LEFT, RIGHT = (sketches([pair[side] for pair in PAIRS], KEY) for side in (0, 1))


@given(st.lists(texts, min_size=1, max_size=6))
def test_a_sketch_is_of_the_text_alone_and_not_of_its_company(many: list[str]) -> None:
    assert (sketches(many, KEY) == np.concatenate([sketches([text], KEY) for text in many])).all()


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprints, "_BLOCK", 700)
    assert (sketches([left for left, _ in PAIRS[:20]], KEY) == LEFT[:20]).all()


@given(st.text(min_size=5, max_size=30))
def test_equal_sets_of_shingles_have_equal_sketches_however_often_they_occur(text: str) -> None:
    assert shingles(text * 2) == shingles(text * 3)
    assert (sketches([text * 2], KEY) == sketches([text * 3], KEY)).all()


@given(texts, texts)
def test_the_estimate_lies_near_the_truth(left: str, right: str) -> None:
    made = sketches([left, right], KEY)
    truth = jaccard(left.ljust(5, "\0"), right.ljust(5, "\0"))
    assert abs(resemblance(made[:1], made[1:])[0] - truth) <= 6 * standard_error(truth) + 0.03


def test_the_error_over_many_pairs_is_the_one_of_the_formula() -> None:
    scaled = (resemblance(LEFT, RIGHT) - TRUE) / [max(standard_error(truth), 1e-3) for truth in TRUE]
    assert abs(scaled.mean()) < 0.2
    assert 0.85 < np.sqrt((scaled[TRUE < 1] ** 2).mean()) < 1.15


def test_we_are_as_near_the_truth_as_a_library_that_we_did_not_write() -> None:
    def of(text: str) -> MinHash:
        made = MinHash(num_perm=PERMUTATIONS)
        made.update_batch([shingle.encode() for shingle in shingles(text)])
        return made

    theirs = np.array([of(left).jaccard(of(right)) for left, right in PAIRS])
    assert np.abs(resemblance(LEFT, RIGHT) - theirs).max() < 5 * np.sqrt(2) * standard_error(0.5)
    assert np.square(resemblance(LEFT, RIGHT) - TRUE).mean() < 1.1 * np.square(theirs - TRUE).mean()


def test_without_the_key_equal_texts_look_like_strangers() -> None:
    strangers = resemblance(LEFT, sketches([left for left, _ in PAIRS], OTHER_KEY))
    assert strangers.max() < 0.05


def test_a_byte_of_a_sketch_takes_every_value_evenly() -> None:
    counts = np.bincount(np.concatenate([LEFT, RIGHT]).ravel(), minlength=256)
    assert counts.min() > 0.7 * counts.mean()
    assert counts.max() < 1.3 * counts.mean()


def test_the_sketch_of_a_text_never_changes_between_releases() -> None:
    text = written(sketches(["where does ana keep the glass harmonica? in the old lighthouse."], KEY))[0]
    assert text.startswith("0122049ccd21ce94655f23064c7faedcb2")


@given(st.lists(texts, max_size=4))
def test_hex_text_round_trips_and_fits_the_ledger(many: list[str]) -> None:
    text = written(sketches(many, KEY))
    assert (read(text) == sketches(many, KEY)).all()
    assert all(len(each) == 2 * 257 <= 4096 for each in text)


@pytest.mark.parametrize("change", [lambda text: "02" + text[2:], lambda text: text[:-2], lambda text: ""])
def test_a_sketch_of_another_version_or_length_is_refused(change) -> None:
    good = written(LEFT[:1])[0]
    with pytest.raises(DataError, match="1 of 2 sketches are not of version 1 with 256 bytes"):
        read([good, change(good)])


def test_a_sketch_that_is_no_hex_is_refused() -> None:
    with pytest.raises(DataError, match="not hex text"):
        read(["01" + "zz" * 256])


def test_spacing_case_and_unicode_forms_do_not_matter() -> None:
    assert normalised(" Caf\u00e9\n open?", "YES ") == normalised("cafe\u0301 open?", "yes") == "caf\u00e9 open? yes"


def test_short_texts_are_their_own_only_shingle() -> None:
    assert shingles("abc") == {"abc"}
    assert (sketches(["abc"], KEY) != sketches(["abd"], KEY)).mean() > 0.95


def test_the_band_of_the_default_thresholds_misses_one_pair_in_a_thousand_at_most() -> None:
    band = band_for(0.7, 0.9)
    assert band == 6
    assert recall(0.7, band) > 0.99
    assert recall(0.9, band) > 0.999999


@given(st.floats(0.05, 1), st.floats(0.05, 1))
def test_the_band_is_the_longest_that_finds_enough(one: float, other: float) -> None:
    warn, refuse = sorted((one, other))
    band = band_for(warn, refuse)
    assert band == 1 or (recall(warn, band) >= 0.99 and recall(refuse, band) >= 0.999)
    assert band == 8 or recall(warn, band + 1) < 0.99 or recall(refuse, band + 1) < 0.999


def test_pairs_share_a_band_as_often_as_recall_says() -> None:
    strict = 8
    shared = Neighbours(RIGHT, strict).nearest(LEFT) > 0
    expected = np.array([recall(truth, strict) for truth in TRUE])
    assert abs(shared.mean() - expected.mean()) < 0.06


@given(st.lists(st.text("ab", min_size=5, max_size=30), max_size=8), st.lists(st.text("ab", min_size=5, max_size=30), max_size=8))
def test_with_the_shortest_band_nearest_is_the_largest_of_all_pairs(found: list[str], kept: list[str]) -> None:
    left, right = sketches(found, KEY), sketches(kept, KEY)
    naive = [max((resemblance(row[None], other[None])[0] for other in right), default=0.0) for row in left]
    assert Neighbours(right, 1).nearest(left).tolist() == naive


def test_more_pairs_than_one_step_holds_lose_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprints, "_PAIRS", 7)
    assert (Neighbours(LEFT, 6).nearest(LEFT) == 1.0).all()


def test_nothing_kept_resembles_nothing() -> None:
    assert Neighbours(LEFT[:0], 6).nearest(LEFT).tolist() == [0.0] * len(LEFT)
