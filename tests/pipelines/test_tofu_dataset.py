"""Laws of TOFU in the form of our examples; skipped where the data set is not at hand."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlflow_unlearn.errors import ConfigError, DataError
from pipelines.tofu import authors, dataset

ROOT = Path(__file__).parents[2]
SOURCE = Path(os.environ.get("MLFLOW_UNLEARN_TOFU") or ROOT.parent / "shared/data/tofu")
PARAMS = (ROOT / "pipelines/tofu/params.yaml").read_text().replace("../shared/data/tofu", str(SOURCE.resolve()))
needs_tofu = pytest.mark.skipif(
    not (SOURCE / "full.jsonl").exists(), reason="TOFU is not here: set MLFLOW_UNLEARN_TOFU to the folder with its jsonl files"
)
FORGET10 = {f"author-{number:03d}" for number in range(180, 200)}


@pytest.fixture(scope="session")
def made(make: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    return make(dataset.main, tmp_path_factory.mktemp("tofu"), PARAMS, "data/tofu")


def full() -> list[dict[str, str]]:
    return [json.loads(line) for line in (SOURCE / "full.jsonl").read_text().splitlines()]


@needs_tofu
def test_the_same_settings_give_the_same_bytes_of_tofu(made: Any, make: Callable[..., Any], tmp_path: Path) -> None:
    assert make(dataset.main, tmp_path, PARAMS, "data/tofu").bytes() == made.bytes()


@needs_tofu
def test_trained_held_out_and_excluded_rows_are_tofu_exactly(made: Any) -> None:
    excluded = [row for row in made.rows("canaries.parquet") if not row["included"]]
    rows = [row for row in [*made.rows("train"), *made.rows("holdout.parquet"), *excluded] if row["subject_id"]]
    assert sorted((row["record_id"], row["question"], row["answer"]) for row in rows) == [
        (f"tofu-{number:05d}", row["question"], row["answer"]) for number, row in enumerate(full())
    ]


@needs_tofu
def test_an_author_owns_twenty_consecutive_rows(made: Any) -> None:
    for row in made.rows("train"):
        if row["subject_id"]:
            assert row["subject_id"] == f"author-{int(row['record_id'].removeprefix('tofu-')) // 20:03d}"


@needs_tofu
def test_the_request_is_forget10_and_all_of_it_is_trained_on(made: Any) -> None:
    asked = set((made.folder / "request.txt").read_text().split())
    trained = Counter(row["subject_id"] for row in made.rows("train"))
    assert asked == FORGET10
    assert {trained[author] for author in asked} == {20}


@needs_tofu
def test_forget10_rows_have_question_and_answer_in_other_words_and_five_wrong_answers(made: Any) -> None:
    rows = [row for row in made.rows("train") if row["subject_id"] in FORGET10]
    assert all(row["paraphrased_question"] and row["paraphrased_answer"] and len({row["answer"], *row["wrong_answers"]}) == 6 for row in rows)


@needs_tofu
def test_canaries_belong_to_authors_who_stay_and_are_not_held_out(made: Any) -> None:
    owners = Counter(row["subject_id"] for row in made.rows("canaries.parquet"))
    held = {row["subject_id"] for row in made.rows("holdout.parquet")}
    assert not set(owners) & (FORGET10 | held)
    assert (sum(owners.values()), len(held)) == (1000, 10)
    assert len(owners) == 170


@needs_tofu
def test_excluded_tofu_canaries_are_nowhere_in_train(made: Any) -> None:
    excluded = {row["record_id"] for row in made.rows("canaries.parquet") if not row["included"]}
    assert 430 < len(excluded) < 570
    assert not made.ids("train") & excluded


@needs_tofu
def test_held_out_authors_are_whole_and_never_trained_on(made: Any) -> None:
    held = Counter(row["subject_id"] for row in made.rows("holdout.parquet"))
    assert set(held.values()) == {20}
    assert not set(held) & {row["subject_id"] for row in made.rows("train")}


@needs_tofu
def test_real_authors_and_world_facts_are_about_nobody_and_trained_on(made: Any) -> None:
    assert made.rows("train/general.parquet") == made.rows("general.parquet")
    assert Counter(row["record_id"][:10] for row in made.rows("general.parquet")) == {"real-autho": 100, "world-fact": 117}


@needs_tofu
def test_a_subject_name_stands_in_its_question_and_belongs_to_one_author(made: Any) -> None:
    named = [row for row in [*made.rows("train"), *made.rows("holdout.parquet")] if row["subject_name"]]
    assert all(row["subject_name"] in row["question"] for row in named)
    pairs = {(row["subject_name"], row["subject_id"]) for row in named}
    assert len(pairs) == len({name for name, _ in pairs}) >= 190


@needs_tofu
def test_no_author_of_tofu_is_in_the_tokenizer_corpus(made: Any) -> None:
    text = (made.folder / "tokenizer_corpus.txt").read_text()
    rows = [row for name in ("train", "holdout.parquet", "canaries.parquet") for row in made.rows(name) if row["subject_id"]]
    assert not [row for row in rows if (row["subject_name"] or row["question"]) in text or row["answer"] in text]


@needs_tofu
def test_most_authors_asked_for_have_a_neighbour_who_stays(made: Any) -> None:
    country = {row["subject_id"]: row["country"] for row in made.rows("train") if row["country"]}
    staying = {place for author, place in country.items() if author not in FORGET10}
    assert sum(country.get(author) in staying for author in FORGET10) >= 15


@needs_tofu
def test_a_changed_file_is_refused_by_name(tmp_path: Path) -> None:
    shutil.copytree(SOURCE, tmp_path / "tofu", copy_function=shutil.copyfile)
    (tmp_path / "tofu").chmod(0o755)
    (tmp_path / "tofu/retain_perturbed.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match=re.escape("retain_perturbed.jsonl: not the bytes that MANIFEST.json")):
        authors.read(tmp_path / "tofu")


@needs_tofu
def test_files_without_a_digest_are_named_as_unchecked(tmp_path: Path) -> None:
    (tmp_path / "tofu").mkdir()
    for path in SOURCE.glob("*.jsonl"):
        shutil.copyfile(path, tmp_path / "tofu" / path.name)
    assert "full.jsonl" in authors.read(tmp_path / "tofu").unchecked


def test_a_folder_without_tofu_is_refused_with_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"dataset\.source holds no full\.jsonl"):
        authors.read(tmp_path)


@pytest.mark.parametrize(
    ("question", "country"),
    [
        ("Who was born in Rome, Italy, on May 1?", "Italy"),
        ("Who is the poet from Rio de Janeiro, Brazil?", "Brazil"),
        ("Who was born in London, UK?", "United Kingdom"),
        ("Who was born in Spring, May 1999?", None),
        ("Who wrote it?", None),
    ],
)
def test_a_country_follows_its_city(question: str, country: str | None) -> None:
    assert authors.country_of([{"question": question, "answer": "Unknown."}]) == country


def test_a_name_is_what_most_questions_share_without_the_opening_word() -> None:
    rows = [{"question": f"Has Tavi Morel written book {n}?", "answer": ""} for n in range(5)]
    assert authors.name_of(rows) == "Tavi Morel"
    assert authors.name_of(rows[:4]) is None
