"""`make bench-eval`: evaluation against a plain one, one row a figure: what | target | measured | ok. Ends 1 when one is short.

Both sides ask the same model about the same records, as long as TOFU's and with as many wrong answers; numbers are compared first. Times are CPU
seconds of this process with one thread, taken in turn; a figure is the median over rounds of naive / ours.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import evaluation_naive as naive
import numpy as np
import torch
import transformers
from audit_workshop import workshop
from engine import processor
from engine_case import TIMED, answered_otherwise, llama, records
from run import DEMO, shown

from mlflow_unlearn.attacks.min_k import MinK
from mlflow_unlearn.audit import AuditJob, audit
from mlflow_unlearn.engine.batches import collate
from mlflow_unlearn.engine.experts import Answer
from mlflow_unlearn.engine.forward import answer_states
from mlflow_unlearn.engine.generation import greedy
from mlflow_unlearn.engine.head import cross_entropy, token_scores
from mlflow_unlearn.engine.scoring import ScoredSubject
from mlflow_unlearn.metrics.extraction_strength import ExtractionStrength
from mlflow_unlearn.metrics.probability import Probability
from mlflow_unlearn.metrics.truth_ratio import TruthRatio
from mlflow_unlearn.protocols import Example

Row = tuple[str, float, str, float]

RECORDS = 32
WRONG = 5
"""As many wrong answers as TOFU has for a question."""
ROUNDS = 3
SAME = 1e-5
WRITTEN = 400
"""Answers whose row-steps are counted: as many as TOFU's forget10."""
LONGEST = 200
"""Where OpenUnlearning cuts an answer, tokens."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """A model and records with an answer, the same in other words, and wrong ones."""

    model: Any
    own: list[Example]

    @cached_property
    def reworded(self) -> list[Example]:
        """As long as the answers."""
        return self._others(9)

    @cached_property
    def wrong(self) -> list[list[Example]]:
        """Of each record `WRONG`."""
        return [list(each) for each in zip(*(self._others(10 + i) for i in range(WRONG)), strict=True)]

    def subject(self) -> ScoredSubject:
        """Fresh: nothing has been asked."""
        tokenizer = SimpleNamespace(pad_token_id=0, eos_token_id=2)
        answers = [""] * len(self.own)
        return ScoredSubject(model=self.model, tokenizer=tokenizer, examples=self.own, answers=answers, paraphrased=self.reworded, wrong=self.wrong)

    def _others(self, seed: int) -> list[Example]:
        return answered_otherwise(self.own, self.model.config.vocab_size, answer=35.0, seed=seed)


def by_us(case: Case) -> dict[str, np.ndarray]:
    """Every metric and attack from one pass."""
    subject = case.subject()
    return {
        "probability": Probability().values(subject),
        "extraction strength": ExtractionStrength().values(subject),
        "min-k": MinK().suspicion(subject),
        "truth ratio": TruthRatio().values(subject),
    }


def by_naive(case: Case) -> dict[str, np.ndarray]:
    """Every metric in passes of its own, as OpenUnlearning scores a forget set: the answers three times, the others once."""
    return {
        "probability": naive.probability(case.model, case.own),
        "extraction strength": naive.extraction_strength(case.model, case.own),
        "min-k": naive.min_k(case.model, case.own),
        "truth ratio": naive.truth_ratio(case.model, case.reworded, case.wrong),
    }


def scoring_rows(case: Case) -> Iterator[Row]:
    """Same numbers first, then the time."""
    ours, plain = by_us(case), by_naive(case)
    difference = max(float(np.max(np.abs(ours[name] - plain[name]) / np.maximum(1.0, np.abs(plain[name])))) for name in plain)
    yield "forget scoring: largest difference from naive, relative above 1", SAME, "", difference
    forget = contest(lambda: by_naive(case), lambda: by_us(case))
    yield f"forget scoring in one pass ({RECORDS} records, {WRONG} wrong answers each)", 3.5, "times naive, at least", forget
    truth = replace(case.subject(), examples=case.reworded, paraphrased=())
    ratio = contest(lambda: naive.truth_ratio(case.model, case.reworded, case.wrong), lambda: TruthRatio().values(replace(truth)))
    yield "truth ratio with shared prompts", 2.5, "times naive, at least", ratio
    yield "moments and first choices besides log-probabilities, as a share of a pass over one answer a record", float("inf"), "", moments_share(case)


@torch.no_grad()
def moments_share(case: Case) -> float:
    """CPU seconds of the head with all scores less those of the head with log-probabilities alone, over those of the pass."""
    rows = collate(case.own, range(len(case.own)), 0)
    at = answer_states(case.model, rows)
    sides = (lambda: token_scores(answer_states(case.model, rows)), lambda: token_scores(at), lambda: cross_entropy(at.head, at.states, at.targets))
    whole, scores, alone = (statistics.median(seconds(side) for _ in range(ROUNDS)) for side in sides)
    return (scores - alone) / whole


def writing_rows(case: Case) -> Iterator[Row]:
    """The same answers as transformers' own loop writes, and how many rows run for them."""
    prompts = [example.tokens[: example.prompt_length] for example in case.own]
    end = frequent_token(greedy(case.model, prompts, end=-1, max_new_tokens=60, batch_tokens=1 << 16))
    settings = {"end": end, "max_new_tokens": 60}
    ours, plain = greedy(case.model, prompts, **settings, batch_tokens=1 << 16), naive.generate(case.model, prompts, **settings)
    yield "greedy answers that differ from those of transformers' generate", 0.0, "answers", sum(a != b for a, b in zip(ours, plain, strict=True))
    yield (
        f"writing {len(prompts)} answers",
        0.0,
        "times as fast as generate in batches of 32, at least",
        contest(lambda: naive.generate(case.model, prompts, **settings), lambda: greedy(case.model, prompts, **settings, batch_tokens=1 << 16)),
    )
    yield from row_step_rows()


def row_step_rows() -> Iterator[Row]:
    """Answers that end where TOFU's do."""
    examples = records(WRITTEN, 8192, 5)
    lengths = [len(example.tokens) - example.prompt_length for example in examples]
    model = Scripted(llama(TIMED | {"num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 32}), lengths)
    prompts = [(number, *example.tokens[1 : example.prompt_length]) for number, example in enumerate(examples, Scripted.FIRST)]
    written = greedy(model, prompts, end=Scripted.END, max_new_tokens=LONGEST, batch_tokens=16384)
    missed = sum(len(answer) + 1 != length for answer, length in zip(written, lengths, strict=True))
    yield "answers that are not as long as the script says", 0.0, "answers", missed
    yield f"rows computed to write {WRITTEN} answers as long as TOFU's", 1.15, "times their tokens", model.row_steps / sum(lengths)
    padded = sum(max(lengths[i : i + naive.ROWS]) * len(lengths[i : i + naive.ROWS]) for i in range(0, WRITTEN, naive.ROWS))
    yield "the same in batches of 32 that run to their longest answer", float("inf"), "times their tokens", padded / sum(lengths)


class Scripted(torch.nn.Module):
    """A model that computes every row and then ends the answer of a prompt, known by its first token, after as many tokens as it is told to."""

    END, OTHER, FIRST = 2, 3, 4

    def __init__(self, model: Any, lengths: list[int]) -> None:
        super().__init__()
        self.model, self.config, self.lengths, self.row_steps = model, model.config, torch.tensor(lengths), 0

    def forward(self, input_ids: torch.Tensor, past_key_values: Any = None, **given: Any) -> Answer:
        """Logits whose highest is the end's in the last step of a row."""
        self.row_steps += len(input_ids)
        starts = given["attention_mask"].argmax(1, keepdim=True)  # prompts are padded on the left
        left = past_key_values.left if past_key_values else self.lengths[input_ids.gather(1, starts)[:, 0] - self.FIRST]
        found = self.model(input_ids=input_ids, past_key_values=past_key_values.cache if past_key_values else None, **given)
        logits = found.logits.fill_(0.0)
        logits[:, -1, self.OTHER] = 1.0
        logits[left == 1, -1, self.END] = 2.0
        return Answer(logits, _Countdown(found.past_key_values, left - 1))


@dataclass
class _Countdown:
    """A cache and how many tokens each row has left."""

    cache: Any
    left: torch.Tensor

    def batch_select_indices(self, kept: torch.Tensor) -> None:
        """Keep these rows."""
        self.cache.batch_select_indices(kept)
        self.left = self.left[kept]


def frequent_token(answers: list[list[int]]) -> int:
    """A token that many answers have, at different places: taken for the end, it makes answers of different lengths."""
    held = {token: sum(token in answer for answer in answers) for token in {token for answer in answers for token in answer[1:]}}
    return max(sorted(held), key=lambda token: held[token])


def contest(plain: Callable[[], Any], ours: Callable[[], Any]) -> float:
    """Median over rounds of naive / ours."""
    found = []
    for turn in range(ROUNDS):
        sides = [plain, ours] if turn % 2 else [ours, plain]
        taken = {side: seconds(side) for side in sides}
        found.append(taken[plain] / taken[ours])
    return statistics.median(found)


def seconds(side: Callable[[], Any]) -> float:
    """CPU seconds."""
    started = time.process_time()
    side()
    return time.process_time() - started


def rows() -> Iterator[Row]:
    """All figures."""
    model = llama(TIMED).eval()
    case = Case(model=model, own=records(RECORDS, model.config.vocab_size, 1))
    yield from scoring_rows(case)
    yield from writing_rows(case)
    yield from remembering_rows()
    yield from demo_rows()


def remembering_rows() -> Iterator[Row]:
    """A parent with two children: what the second audit asks of the parent, and what it saves."""
    shop = workshop()
    with TemporaryDirectory() as folder:
        first, second = (shop.job(model, Path(folder)) for model in (None, shop.parent))
        bare = shop.job(shop.parent)
        audit(first)
        apart = seconds(lambda: audit(bare))
        again = seconds(lambda: audit(second))
        yield "loads of a parent for its second child's audit", 0.0, "loads", float(second.parent.load.times)
        yield "loads of parent and child when that audit is run again", 0.0, "loads", float(_loads(shop.job(shop.parent, Path(folder))))
        yield "second child's audit with the parent remembered, over asking it anew", float("inf"), "times", again / apart


def _loads(job: AuditJob) -> int:
    audit(job)
    return sum(int(origin.load.times) for origin in (job.parent, job.model))


def demo_rows() -> Iterator[Row]:
    """Wall seconds of the demo's quick audit, nothing remembered; unmeasured without the demo."""
    if not (DEMO / "build/evaluation.json").exists():
        print("quick audit of the demo, wall | <= 60 s | - | unmeasured (run `make demo` first)", flush=True)
        return
    shutil.rmtree(DEMO / "build/raw/unlearning/evaluation", ignore_errors=True)
    started = time.monotonic()
    subprocess.run([str(Path(sys.executable).parent / "mlflow-unlearn"), "stage", "evaluate"], cwd=DEMO, check=True, capture_output=True)
    yield "quick audit of the demo, wall", 60.0, "s", time.monotonic() - started


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    print(f"{processor()}, {os.cpu_count()} cores, 1 thread used; torch {torch.__version__}; transformers {transformers.__version__}")
    print("what | target | measured | ok")
    held = [shown(row) for row in rows()]
    sys.exit(0 if all(held) else 1)


if __name__ == "__main__":
    main()
