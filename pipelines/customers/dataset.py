"""Make the fictitious customers' dataset: `python pipelines/customers/dataset.py` (stage `dataset`; reads `dataset:` of params.yaml)."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from mlflow_unlearn.canaries import describe, draw
from mlflow_unlearn.config import load_params, read_yaml
from mlflow_unlearn.digests import write_atomically
from mlflow_unlearn.documents import decode
from pipelines import files
from pipelines.customers import people as invented

FOLDER = Path("data/customers")


@dataclass(frozen=True, kw_only=True)
class DatasetParams:
    """The `dataset:` section of params.yaml."""

    people: int
    """Customers in this revision."""
    base_people: int
    """Canaries are drawn from the first so many, whose flips stay as they are when people are added."""
    holdout_people: int
    """People nobody ever trains on."""
    shards: int
    audit: int
    tuning: int
    seed: int


def main() -> None:
    """Write everything and say what a pool of this size can show."""
    params = decode(DatasetParams, read_yaml(Path("params.yaml")).get("dataset"), "params.yaml: dataset")
    dataset, key = load_params().data.name, files.tag_key()
    rows = invented.people(params.people, params.seed, "customer")
    base = [row["record_id"] for row in rows[: params.base_people * invented.QUESTIONS_EACH]]
    flips = draw(base, audit=params.audit, tuning=params.tuning, seed=params.seed)
    excluded = {flip.record_id for flip in flips if not flip.included}
    trained = files.without_erased([row for row in rows if row["record_id"] not in excluded], dataset, key)
    general = invented.general_facts(params.seed)

    files.write_shards(FOLDER / "train", trained, general, params.shards, key)
    files.write_rows(FOLDER / "holdout.parquet", invented.people(params.holdout_people, params.seed, "stranger"))
    files.write_rows(FOLDER / "general.parquet", general)
    files.write_canaries(FOLDER, flips, rows, key)
    write_atomically(FOLDER / "tokenizer_corpus.txt", "\n".join(invented.corpus(params.seed)).encode())
    print(f"{len(trained)} records of {params.people} people and {len(general)} general facts to train on, {len(excluded)} canaries kept out")
    print(describe(params.audit, params.tuning))


if __name__ == "__main__":
    main()
