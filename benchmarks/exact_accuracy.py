"""What shards cost in accuracy: the same people learned by one model and by 4, 8 and 16 shards, asked with and without knowing whom it is about.

The people are those of the customers' example, invented; every shard starts from a small base that has seen none of them.
"""

from __future__ import annotations

import copy
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from mlflow_unlearn import sisa
from mlflow_unlearn.adapters import models
from mlflow_unlearn.config import read_yaml
from mlflow_unlearn.digests import keyed_tag
from mlflow_unlearn.engine.descent import fit
from mlflow_unlearn.engine.ensemble import Ensemble, EnsembleSubject, WeightExperts
from mlflow_unlearn.engine.examples import encode
from mlflow_unlearn.engine.generation import greedy
from mlflow_unlearn.engine.slices import ShardTraining, ShardWork, Slice, train_shards
from mlflow_unlearn.params import OptimiserParams
from mlflow_unlearn.protocols import Example, Record
from pipelines.customers import people as invented

Row = tuple[str, float, str, float]

PEOPLE, SHARDS, KEY = 200, (1, 4, 8, 16), bytes(32)
TEMPLATE = "Question: {prompt}\nAnswer: "
OPTIMISER = OptimiserParams(epochs=50, learning_rate=4e-3, batch_size=16, token_budget=2048)
ASKED = 4
"""Every so many records are asked."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """A base that has seen nobody."""

    model: Any
    tokenizer: Any

    def examples(self, records: Sequence[Record]) -> list[Example]:
        """In its tokens."""
        return encode(self.tokenizer, TEMPLATE, [record.prompt for record in records], [record.answer for record in records])


def start() -> Start:
    """Tokenizer and model of params.yaml, trained on the example's text without people."""
    settings = read_yaml(Path(__file__).parents[1] / "params.yaml")["base"]
    with tempfile.TemporaryDirectory() as name:
        corpus = Path(name, "corpus.txt")
        corpus.write_text("\n".join(invented.corpus(7)) + "\n")
        tokenizer = models.train_tokenizer(corpus, settings["vocabulary"], TEMPLATE)
    model = models.fresh_model(settings["init"], tokenizer, 0, "cpu")
    lines = [Example(tokens=(*ids, tokenizer.eos_token_id), prompt_length=1) for ids in tokenizer(invented.corpus(7))["input_ids"]]
    for _ in fit(model, lines, OptimiserParams(**settings["optimiser"]), 0, tokenizer.pad_token_id):
        pass
    return Start(model=model, tokenizer=tokenizer)


def learned() -> list[Record]:
    """The people's records and the general facts."""
    rows = [*invented.people(PEOPLE, 7, "customer"), *invented.general_facts(7)]
    return [
        Record(
            tag=keyed_tag(KEY, "record", row["record_id"]),
            subject=row["subject_id"] and keyed_tag(KEY, "subject", row["subject_id"]),
            prompt=row["question"],
            answer=row["answer"],
        )
        for row in rows
    ]


def shard_models(base: Start, records: Sequence[Record], shards: int) -> Mapping[int, Any]:
    """One trained model a shard."""
    found = {}
    for shard, piece in enumerate(sisa.cut(records, shards)):
        work = ShardWork(shard=shard, slices=[Slice(examples=base.examples(piece), seed=sisa.seed_of(0, shard, 0), run="-")], states=None)
        steps = train_shards(base.model, [work], ShardTraining(optimiser=OPTIMISER, pad=base.tokenizer.pad_token_id))
        weights = _end(steps)[0].weights
        model = copy.deepcopy(base.model)
        model.load_state_dict(dict(weights), strict=False)
        model.tie_weights()
        found[shard] = model.eval()
    return found


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Trained shards that are asked."""

    base: Start
    experts: WeightExperts
    shards: int

    def rows(self, what: str, records: Sequence[Record], way: Any, *, known: bool) -> Iterator[Row]:
        """Exact match of the greedy answer, and the loss of the true one."""
        ensemble = Ensemble(experts=self.experts, aggregation=way, shards=self.shards)
        subject = EnsembleSubject(
            ensemble=ensemble,
            tokenizer=self.base.tokenizer,
            examples=self.base.examples(records),
            answers=[record.answer for record in records],
            known=[ensemble.owner_shard(record.subject) if known else None for record in records],
        )
        yield f"{what}: exact match", 0.0, ", at least", float(np.mean([hits.all() for hits in subject.token_hits]))
        yield f"{what}: loss", 0.0, "nats a token, at least", float(-np.mean(np.concatenate(subject.token_log_probs)))


def accuracy_rows() -> Iterator[Row]:
    """Exact match and loss for each number of shards, and of every aggregation at 8."""
    base, records = start(), learned()
    people, facts = [record for record in records if record.subject][::ASKED], [record for record in records if not record.subject]
    for shards in SHARDS:
        started = time.process_time()
        experts = WeightExperts(shard_models(base, records, shards))
        asked = Asked(base=base, experts=experts, shards=shards)
        where = f"{shards} shards" if shards > 1 else "one model"
        yield f"{where}: training of {len(records)} records", 0.0, "CPU s, at least", time.process_time() - started
        ways = ("confident", "average", "vote") if shards == 8 else ("confident",)
        yield from asked.rows(f"{where}, people, subject known", people, "confident", known=True)
        for way in ways:
            how = f"{where}, {{}}, subject unknown" + (f", {way}" if shards > 1 else "")
            yield from asked.rows(how.format("people"), people, way, known=False)
            yield from asked.rows(how.format("general facts"), facts, way, known=False)
        if shards == 8:
            yield generation_row(base, experts, people)


def generation_row(base: Start, experts: WeightExperts, asked: Sequence[Record]) -> Row:
    """Answers by 8 whole models, each to its own people, against one model's to all of them: as many tokens, in eight batches instead of one."""
    prompts = [example.tokens[: example.prompt_length] for example in base.examples(asked)]
    shards = [sisa.shard_of(sisa.owner(record), 8) for record in asked]
    settings = {"end": -1, "max_new_tokens": 12, "batch_tokens": 16384}  # no token is -1: every answer is as long
    times: dict[str, list[float]] = {"routed": [], "one": []}
    for _ in range(5):
        for name, model in (("routed", lambda rows: experts.routed([shards[i] for i in rows])), ("one", experts.expert(0))):
            started = time.process_time()
            greedy(model, prompts, **settings)
            times[name].append(time.process_time() - started)
    return "8 whole models: generation by the routed shard, over one model on the same tokens", 0.0, "times, at least", _median_ratio(times)


def _median_ratio(times: Mapping[str, list[float]]) -> float:
    return float(np.median(np.array(times["routed"]) / np.array(times["one"])))


def _end(steps: Any) -> Any:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


if __name__ == "__main__":
    from engine import told

    torch.set_num_threads(1)
    for row in accuracy_rows():
        told(row)
