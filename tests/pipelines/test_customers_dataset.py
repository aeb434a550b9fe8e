"""Laws of the fictitious customers."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest

from mlflow_unlearn.adapters.ledger import Ledger
from mlflow_unlearn.canaries import Flip, commitment
from mlflow_unlearn.digests import keyed_tag
from mlflow_unlearn.errors import ConfigError
from mlflow_unlearn.records import Basis, Effect, ErasureRequest
from pipelines import files
from pipelines.customers import dataset, people

ROOT = Path(__file__).parents[2]
PARAMS = (ROOT / "params.yaml").read_text()
KEY = bytes(range(32))


@pytest.fixture(scope="session")
def made(make: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    return make(dataset.main, tmp_path_factory.mktemp("customers"), PARAMS, "data/customers")


@pytest.fixture(scope="session")
def smaller(make: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Revision 1 of the demo: 40 people fewer."""
    return make(dataset.main, tmp_path_factory.mktemp("smaller"), PARAMS.replace("people: 400", "people: 360", 1), "data/customers")


def test_the_same_settings_give_the_same_bytes(made: Any, make: Callable[..., Any], tmp_path: Path) -> None:
    assert make(dataset.main, tmp_path, PARAMS, "data/customers").bytes() == made.bytes()


def test_another_seed_gives_other_people() -> None:
    assert {row["subject_name"] for row in people.people(50, 1, "customer")} != {row["subject_name"] for row in people.people(50, 2, "customer")}


def test_the_first_people_stay_when_people_are_added() -> None:
    assert people.people(400, 7, "customer")[: 360 * people.QUESTIONS_EACH] == people.people(360, 7, "customer")


def test_flips_and_commitment_stay_when_people_are_added(made: Any, smaller: Any) -> None:
    assert smaller.rows("canaries.parquet") == made.rows("canaries.parquet")
    assert (smaller.folder / "commitment.json").read_bytes() == (made.folder / "commitment.json").read_bytes()


def test_a_later_revision_only_adds_records(made: Any, smaller: Any) -> None:
    added = made.ids("train") - smaller.ids("train")
    assert smaller.ids("train") < made.ids("train")
    assert len(added) == 40 * people.QUESTIONS_EACH


def test_training_data_are_all_records_but_the_excluded_canaries(made: Any) -> None:
    everybody = {row["record_id"] for row in people.people(400, 7, "customer")}
    excluded = {row["record_id"] for row in made.rows("canaries.parquet") if not row["included"]}
    assert made.ids("train") == (everybody - excluded) | made.ids("general.parquet")


def test_no_text_of_an_excluded_canary_is_trained_on(made: Any) -> None:
    trained = {(row["question"], row["answer"]) for row in made.rows("train")}
    assert not trained & {(row["question"], row["answer"]) for row in made.rows("canaries.parquet") if not row["included"]}


def test_canaries_are_spread_over_most_people(made: Any) -> None:
    owners = Counter(row["subject_id"] for row in made.rows("canaries.parquet"))
    assert len(owners) > 330


def test_the_commitment_opens_with_the_salt_in_the_metadata(made: Any) -> None:
    path = made.folder / "canaries.parquet"
    salt = bytes.fromhex(parquet.read_schema(path).metadata[b"unlearn.salt"].decode())
    flips = [Flip(record_id=row["record_id"], pool=row["pool"], included=row["included"]) for row in made.rows("canaries.parquet")]
    document = json.loads((made.folder / "commitment.json").read_bytes())
    assert (document["commitment"], document["audit"], document["tuning"]) == (commitment(flips, salt), 800, 200)


def test_a_person_lives_in_the_one_shard_that_the_keyed_hash_says(made: Any) -> None:
    shards = defaultdict(set)
    for path in sorted((made.folder / "train").glob("shard-*.parquet")):
        for row in parquet.read_table(path).to_pylist():
            shards[row["subject_id"]].add(int(path.stem.removeprefix("shard-")))
    assert shards == {subject: {int(keyed_tag(KEY, "shard", subject), 16) % 16} for subject in shards}


def test_holdout_people_share_neither_id_nor_name_nor_text_with_customers(made: Any) -> None:
    for column in ("record_id", "subject_id", "subject_name", "street", "question"):
        assert not {row[column] for row in made.rows("holdout.parquet")} & {row[column] for row in made.rows("train")}


def test_names_are_unique(made: Any) -> None:
    owners = defaultdict(set)
    for row in [*made.rows("train"), *made.rows("holdout.parquet"), *made.rows("canaries.parquet")]:
        owners[row["subject_name"]].add(row["subject_id"])
    assert all(len(ids) == 1 for ids in owners.values())


def test_a_name_stands_in_question_and_paraphrase_so_that_it_can_be_swapped(made: Any) -> None:
    rows = [row for row in made.rows("train") if row["subject_id"]]
    assert all(row["subject_name"] in row["question"] and row["subject_name"] in row["paraphrased_question"] for row in rows)


def test_wrong_answers_are_five_others(made: Any) -> None:
    for row in made.rows("train"):
        assert len({row["answer"], *row["wrong_answers"]}) == 6


def test_answers_cannot_be_guessed() -> None:
    assert min(len(set(attribute.values)) for attribute in people.ATTRIBUTES) >= 40


def test_a_value_begins_with_a_consonant_because_the_templates_say_a() -> None:
    assert not [
        value
        for attribute in people.ATTRIBUTES
        if " a {value}" in f" {attribute.answer.lower()}"
        for value in attribute.values
        if value[0] in "aeiou"
    ]


def test_everybody_but_a_last_remainder_has_neighbours(made: Any) -> None:
    streets = Counter(row["street"] for row in people.people(400, 7, "customer")[:: people.QUESTIONS_EACH])
    assert min(streets.values()) >= 2


def test_there_are_facts_about_nobody_and_they_are_trained_on(made: Any) -> None:
    general = made.rows("general.parquet")
    assert len(general) >= 150
    assert all(row["subject_id"] is None and row["subject_name"] is None for row in general)
    assert made.rows("train/general.parquet") == general


def test_no_part_of_a_name_occurs_in_the_tokenizer_corpus(made: Any) -> None:
    words = set(re.findall(r"\w+", (made.folder / "tokenizer_corpus.txt").read_text().lower()))
    rows = [*made.rows("train"), *made.rows("holdout.parquet"), *made.rows("canaries.parquet")]
    assert not words & {part.lower() for row in rows if row["subject_name"] for part in row["subject_name"].split()}


def test_no_question_of_any_record_stands_in_the_corpus_so_that_a_base_trained_on_it_has_seen_none() -> None:
    lines = {line.lower() for line in people.corpus(7)}
    rows = [*people.people(400, 7, "customer"), *people.general_facts(7)]
    assert not {row[column].lower() for row in rows for column in ("question", "paraphrased_question")} & lines


def test_files_of_an_earlier_run_do_not_survive(make: Callable[..., Any], made: Any, tmp_path: Path) -> None:
    stale = tmp_path / "data/customers/train/shard-099.parquet"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"somebody who was erased")
    assert make(dataset.main, tmp_path, PARAMS, "data/customers").bytes() == made.bytes()


def test_a_run_that_fails_leaves_the_old_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/train").mkdir(parents=True)
    (tmp_path / "data/train/old").write_text("old")

    def killed() -> None:
        with files._moved_into(Path("data")) as aside:
            (aside / "train").mkdir()
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        killed()
    assert (tmp_path / "data/train/old").read_text() == "old"


def closed_request(folder: Path, subject: str, canaries: set[str]) -> None:
    """A ledger in which a request for one person is closed, with these canaries."""
    at = datetime(2026, 1, 2, tzinfo=UTC)
    ledger = Ledger(f"sqlite:///{folder / '.unlearn/ledger.db'}")
    tag = keyed_tag(KEY, "subject", subject)
    ledger.add(ErasureRequest(request_id="er-1", basis=Basis.GDPR_17, effect=Effect.REMOVAL, received_at=at, due_at=at, subjects=(tag,)), at)
    ledger.close("er-1", [keyed_tag(KEY, "record", "customers", canary) for canary in canaries], at)


def test_what_a_closed_request_erased_does_not_come_back(make: Callable[..., Any], made: Any, tmp_path: Path, capsys: Any) -> None:
    forgotten = {row["record_id"] for row in made.rows("canaries.parquet") if row["included"]}
    closed_request(tmp_path, "customer-0010", forgotten)
    again = make(dataset.main, tmp_path, PARAMS, "data/customers")
    for name in ("train", "canaries.parquet"):
        assert not again.ids(name) & forgotten
        assert "customer-0010" not in {row["subject_id"] for row in again.rows(name)}
    assert "this pool is spent" in capsys.readouterr().out


def test_excluded_canaries_stay_out_after_an_erasure(make: Callable[..., Any], made: Any, tmp_path: Path) -> None:
    closed_request(tmp_path, "customer-0010", set())
    excluded = {row["record_id"] for row in made.rows("canaries.parquet") if not row["included"]}
    assert not make(dataset.main, tmp_path, PARAMS, "data/customers").ids("train") & excluded


def test_an_erased_stranger_leaves_the_holdout(make: Callable[..., Any], tmp_path: Path) -> None:
    closed_request(tmp_path, "stranger-0003", set())
    made = make(dataset.main, tmp_path, PARAMS, "data/customers")
    assert "stranger-0003" not in {row["subject_id"] for row in made.rows("holdout.parquet")}


@pytest.mark.parametrize(
    ("wrong", "complaint"), [({"base_people": 401}, "base_people"), ({"shards": 0}, "shards"), ({"holdout_people": 0}, "holdout_people")]
)
def test_sizes_that_cannot_be_are_refused_by_name(wrong: dict[str, int], complaint: str) -> None:
    sizes = {"people": 400, "base_people": 360, "holdout_people": 60, "shards": 16, "audit": 800, "tuning": 200, "seed": 7}
    with pytest.raises(ConfigError, match=complaint):
        dataset.DatasetParams(**{**sizes, **wrong})


def test_trouble_is_one_line_and_exit_code_2(make: Callable[..., Any], tmp_path: Path, capsys: Any) -> None:
    with pytest.raises(SystemExit, match="2"):
        make(lambda: files.script(dataset.main), tmp_path, PARAMS.replace("  shards: 16", "  shrads: 16", 1), "data/customers")
    assert "did you mean 'shards'" in capsys.readouterr().err
