"""Make the fictitious customers' dataset: `python pipelines/customers/dataset.py` (stage `dataset`; reads `dataset:` of params.yaml)."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from mlflow_unlearn.canaries import describe, draw
from mlflow_unlearn.config import load_params, read_yaml
from mlflow_unlearn.documents import decode
from mlflow_unlearn.errors import ConfigError
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

    def __post_init__(self) -> None:
        low = [name for name in ("people", "base_people", "holdout_people", "shards") if getattr(self, name) < 1]
        if low:
            raise ConfigError(f"{', '.join(low)} must be above zero")
        if self.base_people > self.people:  # else adding people would draw other canaries
            raise ConfigError(f"base_people must not exceed people ({self.people}), found {self.base_people}")


def main() -> None:
    """Write everything and say what a pool of this size can show."""
    params = decode(DatasetParams, read_yaml(Path("params.yaml")).get("dataset"), "params.yaml: dataset")
    made = example(params)
    written = files.write(FOLDER, made, files.erasures(load_params().data.name))
    print(f"{written.trained} records about people and {len(made.general)} general facts to train on; {params.people} people in all")
    print(f"left out: {written.excluded} canaries, by their coin, and {len(made.holdout)} records of {params.holdout_people} hold-out people")
    if written.erased_canaries:
        print(f"{written.erased_canaries} canaries left with closed requests: this pool is spent and can no longer make a verdict PASS")
    else:
        print(describe(params.audit, params.tuning))


def example(params: DatasetParams) -> files.Example:
    """The customers, before anything is erased."""
    rows = invented.people(params.people, params.seed, "customer")
    base = [row["record_id"] for row in rows[: params.base_people * invented.QUESTIONS_EACH]]
    return files.Example(
        people=rows,
        general=invented.general_facts(params.seed),
        holdout=invented.people(params.holdout_people, params.seed, "stranger"),
        flips=draw(base, audit=params.audit, tuning=params.tuning, seed=params.seed),
        corpus=invented.corpus(params.seed),
        group="street",
        shards=params.shards,
    )


if __name__ == "__main__":
    files.script(main)
