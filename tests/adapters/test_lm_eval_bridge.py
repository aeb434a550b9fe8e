"""The bridge to lm-eval: with the package a task of our own is run, without it the absence is worded; the mapping of results needs neither."""

from __future__ import annotations

import json
import random
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ensemble_files import small_base
from scipy import stats as oracle

from mlflow_unlearn.adapters import bases, lm_eval
from mlflow_unlearn.adapters.lm_eval import Harness, _entries, _Entry
from mlflow_unlearn.errors import ConfigError, UnmeasurableError
from mlflow_unlearn.records import Direction

has_harness = pytest.mark.skipif(find_spec("lm_eval") is None, reason="lm-eval is not installed: pip install 'mlflow-unlearn[lm-eval]'")
quiet_harness = pytest.mark.filterwarnings("ignore")  # its own libraries warn as they are imported
TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {questions}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}} Answer:"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 1}}
"""
GROUP = """
group: both
task: [one, two]
aggregate_metric_list: [{metric: acc, aggregation: mean, weight_by_size: true}]
metadata: {version: 1}
"""


def found(hits: list[float], **measures: Any) -> dict[str, Any]:
    """A result as lm-eval 0.4 lays it out."""
    own = {"name": "t", "alias": "t", "sample_len": len(hits), "acc,none": float(np.mean(hits)), "acc_stderr,none": 0.1, **measures}
    samples = [{"doc_id": i, "filter": "none", "acc": hit} for i, hit in enumerate(hits)]
    return {"results": {"t": own}, "samples": {"t": samples}, "higher_is_better": {"t": {"acc": True}}, "versions": {"t": 1}}


def only(document: dict[str, Any]) -> _Entry:
    (entry,) = _entries(document)
    return entry


def test_a_share_of_questions_has_its_exact_interval() -> None:
    score = only(found([1.0, 0.0, 0.0, 1.0, 1.0])).score(Harness(tasks=("t",)))
    exact = oracle.binomtest(3, 5).proportion_ci(method="exact")
    assert (score.value, score.low, score.high, score.n) == (pytest.approx(0.6), pytest.approx(exact.low), pytest.approx(exact.high), 5)


def test_nothing_right_is_no_certainty() -> None:
    assert only(found([0.0] * 10)).score(Harness(tasks=("t",))).high == pytest.approx(1 - 0.025 ** (1 / 10))


def test_less_is_better_on_a_task_that_asks_what_should_be_forgotten() -> None:
    entry = only(found([1.0, 0.0]))
    assert entry.score(Harness(tasks=("t",))).direction is Direction.HIGHER
    assert entry.score(Harness(tasks=("t",), forgotten={"t"})).direction is Direction.LOWER


def test_a_measure_that_is_no_mean_takes_lm_evals_standard_error() -> None:
    document = found([1.0, 0.0], **{"acc,none": 7.0})
    score = only(document).score(Harness(tasks=("t",)))
    assert (score.value, score.low, score.high, score.interval) == (
        7.0,
        pytest.approx(7 - 0.196, abs=1e-4),
        pytest.approx(7 + 0.196, abs=1e-4),
        "normal",
    )


@pytest.mark.parametrize("error", ["N/A", 0.0, float("nan")])
def test_a_measure_without_an_interval_is_no_score(error: Any) -> None:
    with pytest.raises(UnmeasurableError, match="no standard error"):
        only(found([1.0, 0.0], **{"acc,none": 7.0, "acc_stderr,none": error})).score(Harness(tasks=("t",)))


def test_filters_are_kept_apart_by_name() -> None:
    document = found([1.0, 0.0], **{"acc,strict": 0.5, "acc_stderr,strict": 0.2})
    assert [entry.name for entry in _entries(document)] == ["t/acc", "t/acc/strict"]


@pytest.mark.skipif(find_spec("lm_eval") is not None, reason="lm-eval is installed")
def test_without_the_package_the_absence_says_what_to_install() -> None:
    with pytest.raises(UnmeasurableError, match=r"wmdp_bio cannot be run; pip install 'mlflow-unlearn\[lm-eval\]'"):
        lm_eval.run(None, None, Harness(tasks=("wmdp_bio",)))


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "tasks"
    folder.mkdir()
    rows = [{"question": f"where is key {i}?", "choices": ["the lamp", "by the door", "cup", "on"], "answer": i % 4} for i in range(12)]
    questions = folder / "questions.jsonl"
    questions.write_text("\n".join(map(json.dumps, rows)))
    for name in ("one", "two"):
        (folder / f"{name}.yaml").write_text(TASK.format(name=name, questions=questions))
    (folder / "both.yaml").write_text(GROUP)
    return folder


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    folder = small_base(tmp_path_factory.mktemp("harness") / "base", max_position_embeddings=128)
    return bases.load(bases.fetch(str(folder)), "cpu")


@has_harness
@quiet_harness
def test_a_task_of_our_own_is_run_and_the_process_draws_as_if_it_had_not(tasks: Path, loaded: tuple[Any, Any]) -> None:
    state = random.getstate()
    ran = lm_eval.run(*loaded, Harness(tasks=("one",), include=tasks))
    assert random.getstate() == state
    score = ran.scores["one/acc"]
    assert (score.n, score.interval) == (12, "clopper-pearson")
    assert score.value * 12 == pytest.approx(round(score.value * 12))
    assert ran.versions["one"] == "1"


@has_harness
@quiet_harness
def test_a_group_weighs_its_tasks(tasks: Path, loaded: tuple[Any, Any]) -> None:
    scores = lm_eval.run(*loaded, Harness(tasks=("both",), include=tasks)).scores
    assert scores["both/acc"].value == pytest.approx((scores["one/acc"].value + scores["two/acc"].value) / 2)
    assert (scores["both/acc"].n, scores["both/acc"].interval) == (24, "normal")


@has_harness
@quiet_harness
def test_the_choice_of_a_multiple_choice_task_is_the_likeliest_answer(tasks: Path, loaded: tuple[Any, Any]) -> None:
    from mlflow_unlearn.engine.asked_sets import Asked
    from mlflow_unlearn.protocols import Record

    rows = [json.loads(line) for line in (tasks / "questions.jsonl").read_text().splitlines()]
    asked = Asked(model=loaded[0], tokenizer=loaded[1], batch_tokens=512)
    records = [Record(tag="0", subject=None, prompt=row["question"], answer=f" {choice}") for row in rows for choice in row["choices"]]
    said = asked.questions(records, "{prompt} Answer:", 1, "choices").token_log_probs
    totals = np.array([tokens[:-1].sum() for tokens in said]).reshape(len(rows), 4)  # lm-eval does not ask for the end token
    right = float((totals.argmax(axis=1) == [row["answer"] for row in rows]).mean())
    assert lm_eval.run(*loaded, Harness(tasks=("one",), include=tasks)).scores["one/acc"].value == pytest.approx(right)


@has_harness
@quiet_harness
def test_unknown_tasks_and_questions_out_of_reach_are_refused_in_words(loaded: tuple[Any, Any]) -> None:
    with pytest.raises(ConfigError, match="no task called nothing_of_the_kind"):
        lm_eval.run(*loaded, Harness(tasks=("nothing_of_the_kind",)))
    with pytest.raises(ConfigError, match="wmdp_bio could not be run"):
        lm_eval.run(*loaded, Harness(tasks=("wmdp_bio",), limit=1))
