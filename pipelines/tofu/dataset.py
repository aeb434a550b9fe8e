"""Put TOFU into the form of our examples: `python pipelines/tofu/dataset.py` (stage `dataset`; reads `dataset:` of params.yaml).

Two things differ from the benchmark. Coin flips keep about half of the canaries out of training, and so does the hold-out, because all of TOFU's
authors are trained on there. And real authors and world facts, which TOFU only asks about, are trained on here: a model from scratch has never
heard of them.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from mlflow_unlearn.canaries import describe, draw
from mlflow_unlearn.config import load_params, read_yaml
from mlflow_unlearn.digests import write_atomically
from mlflow_unlearn.documents import decode
from mlflow_unlearn.errors import ConfigError
from pipelines import files
from pipelines.tofu import authors
from pipelines.tofu.language import corpus

FOLDER = Path("data/tofu")


@dataclass(frozen=True, kw_only=True)
class DatasetParams:
    """The `dataset:` section of params.yaml."""

    source: str
    """Folder with TOFU's jsonl files."""
    holdout_authors: int
    """Whole authors outside forget10 that nobody trains on; TOFU has no spare ones."""
    shards: int
    audit: int
    tuning: int
    seed: int

    def __post_init__(self) -> None:
        most = authors.AUTHORS - authors.FORGET10 - 1
        if not 0 < self.holdout_authors <= most:
            raise ConfigError(f"holdout_authors must lie between 1 and {most}, found {self.holdout_authors}")
        if self.shards < 1:
            raise ConfigError("shards must be above zero")


def main() -> None:
    """Write everything and say what was left out and what a pool of this size can show."""
    params = decode(DatasetParams, read_yaml(Path("params.yaml")).get("dataset"), "params.yaml: dataset")
    tofu = authors.read(Path(params.source))
    made = example(tofu, params)
    written = files.write(FOLDER, made, files.erasures(load_params().data.name))
    asked = [authors.author_id(number) for number in range(authors.AUTHORS - authors.FORGET10, authors.AUTHORS)]
    write_atomically(FOLDER / "request.txt", ("\n".join(asked) + "\n").encode())
    print(f"{written.trained} of {len(tofu.authors)} rows to train on, with all {len(tofu.general)} real-author and world facts")
    print(f"left out: {written.excluded} canaries, by their coin, and {len(made.holdout)} rows of {params.holdout_authors} hold-out authors")
    print("\n".join(found(tofu, made)))
    if written.erased_canaries:
        print(f"{written.erased_canaries} canaries left with closed requests: this pool is spent and can no longer make a verdict PASS")
    else:
        print(describe(params.audit, params.tuning))


def example(tofu: authors.Tofu, params: DatasetParams) -> files.Example:
    """TOFU, before anything is erased. Canaries belong to authors who are neither asked to be forgotten nor held out."""
    kept = [authors.author_id(number) for number in range(authors.AUTHORS - authors.FORGET10)]
    held = _held_out(kept, params)
    owners = set(kept) - held
    general_text = [text for row in tofu.general for text in (row["question"], row["answer"])]
    return files.Example(
        people=[row for row in tofu.authors if row["subject_id"] not in held],
        general=tofu.general,
        holdout=[row for row in tofu.authors if row["subject_id"] in held],
        flips=draw(
            [row["record_id"] for row in tofu.authors if row["subject_id"] in owners], audit=params.audit, tuning=params.tuning, seed=params.seed
        ),
        corpus=corpus(params.seed, [*general_text, *tofu.refusals]),
        group=authors.GROUP,
        more=(authors.REWORDED,),
        shards=params.shards,
    )


def found(tofu: authors.Tofu, made: files.Example) -> list[str]:
    """What could be read out of the rows and what could not, as counts."""
    first = tofu.authors[:: authors.ROWS_EACH]
    named = {row["subject_id"] for row in tofu.authors if row["subject_name"]}
    asked = {row["subject_id"] for row in first[-authors.FORGET10 :]}
    staying = {row[authors.GROUP] for row in made.people if row["subject_id"] not in asked} - {None}
    lines = [
        f"names of {len(named)} and countries of {sum(row[authors.GROUP] is not None for row in first)} of {authors.AUTHORS} authors found",
        f"{sum(row[authors.GROUP] in staying for row in first[-authors.FORGET10 :])} of {authors.FORGET10} forget10 authors have neighbours: "
        "authors of the same country who stay",
        f"{sum(row['paraphrased_question'] is not None for row in tofu.authors)} rows have a paraphrase and wrong answers",
    ]
    return lines + ([f"without a digest in MANIFEST.json, not checked: {', '.join(tofu.unchecked)}"] if tofu.unchecked else [])


def _held_out(kept: Sequence[str], params: DatasetParams) -> set[str]:
    own = random.Random(f"{params.seed} holdout")  # noqa: S311 - a reproducible choice
    return set(own.sample(list(kept), params.holdout_authors))


if __name__ == "__main__":
    files.script(main)
