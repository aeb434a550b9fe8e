"""The description of a version: short enough for MLflow, and complete in what matters."""

from __future__ import annotations

from dataclasses import replace

import pytest
from exact_evidence import made, part, sound
from simulated import honest

from mlflow_unlearn.exact_conditions import SHARED, TRUSTED
from mlflow_unlearn.exactness import ShardLog, SliceLog
from mlflow_unlearn.judge import judge
from mlflow_unlearn.policy import Policy
from mlflow_unlearn.records import Claim, Evaluation, ModelReport, Outcome, Unlearned, Verdict
from mlflow_unlearn.review import LIMIT, describe, describe_trained, what_would_pass

NOT_PROBED = replace(honest(), after_finetune=ModelReport(scores={}))


def test_the_reviewer_sees_parent_requests_claim_verdicts_and_limits(
    unlearned: Unlearned, evaluation: Evaluation, verdicts: tuple[Verdict, ...]
) -> None:
    text = describe(unlearned, evaluation, verdicts)
    expected = ("customers/2", "er-1", "er-2", "approximate", "npo", "| removal | **FAIL**", "| suppression | **PASS**", "Not claimed", "0.500")
    assert [word for word in expected if word not in text] == []
    assert "benign fine-tune: upper limit" in text


def test_it_holds_no_image(unlearned: Unlearned, evaluation: Evaluation, verdicts: tuple[Verdict, ...]) -> None:
    assert "![" not in describe(unlearned, evaluation, verdicts)


@pytest.mark.parametrize("requests", [1, 40, 1000])
@pytest.mark.parametrize("reasons", [1, 40, 1000])
def test_however_much_there_is_to_say_verdict_and_limits_are_said(
    unlearned: Unlearned, evaluation: Evaluation, verdicts: tuple[Verdict, ...], requests: int, reasons: int
) -> None:
    many = tuple(f"er-20261124-{n:08x}" for n in range(requests))
    wordy = tuple(replace(verdict, reasons=("a condition: " + "long " * 40,) * reasons) for verdict in verdicts)
    text = describe(replace(unlearned, requests=many), replace(evaluation, requests=many), wordy)
    assert len(text) <= LIMIT
    assert [word for word in ("| removal | **FAIL**", "| suppression | **PASS**", "Not claimed") if word not in text] == []


def test_a_state_without_figures_or_canaries_is_said(unlearned: Unlearned, evaluation: Evaluation, verdicts: tuple[Verdict, ...]) -> None:
    bare = replace(evaluation.after, scores={}, canaries=())
    text = describe(unlearned, replace(evaluation, before=bare, after=bare, after_finetune=bare), verdicts)
    assert "No canaries" in text


def test_a_passed_removal_needs_no_way_out(unlearned: Unlearned, verdicts: tuple[Verdict, ...]) -> None:
    assert what_would_pass(unlearned, (replace(verdicts[0], outcome=Outcome.PASS),)) == ""
    assert "retrain" in what_would_pass(unlearned, verdicts)


def test_an_exact_version_says_what_its_evidence_is_and_what_it_does_not_claim() -> None:
    run = made(Claim.EXACT, sound())
    text = describe(run, NOT_PROBED, judge(NOT_PROBED, Policy(), run))
    expected = ("aaaaaaaa, the parent's family", "| 4 x 2 |", "1 held a forgotten record; 1 of 4 with weights were retrained", "4 equal, 0 unequal")
    expected += (
        f"clean: {', '.join(SHARED)} |",
        "800 in the touched shards",
        "1 files that may have seen",
        "| removal | **PASS**",
        "adaptive requests: Gupta",
    )
    assert [word for word in expected if word not in text] == []
    assert "fine-tune" not in text
    assert "What would pass" not in text


def test_a_base_that_is_only_trusted_is_not_called_clean_and_comes_with_the_yes() -> None:
    shared = (replace(sound().shared[0], detail=f"{TRUSTED}: some/base@abc"), *sound().shared[1:])
    run = made(Claim.EXACT, replace(sound(), shared=shared))
    text = describe(run, NOT_PROBED, judge(NOT_PROBED, Policy(), run))
    assert "trusted, not examined: base model; clean: tokenizer" in text
    assert text.count("every condition holds; replay: 4 of 4 shards") == text.count(f"base model: {TRUSTED}: some/base@abc") == 2


def test_an_exact_version_that_did_not_pass_names_what_is_missing() -> None:
    shared = (part("base model", False), part("tokenizer", None), *sound().shared[2:])
    run = made(Claim.EXACT, replace(sound(), replays=sound().replays[:1], shared=shared, before={}))
    text = describe(run, NOT_PROBED, judge(NOT_PROBED, Policy(), run))
    expected = ("not the parent's family", "1 equal, 0 unequal, 3 not made", "saw forgotten records: base model; unknown: tokenizer")
    assert [word for word in (*expected, "What would pass: replay, shared state, shown to hold") if word not in text] == []


@pytest.mark.parametrize("notes", [0, 5, 200])
def test_however_many_shards_had_something_to_note_the_limits_are_said(notes: int) -> None:
    run = replace(made(Claim.EXACT, replace(sound(), replays=())), notes=tuple(f"shard {n}: trained again from the base" for n in range(notes)))
    wordy = tuple(replace(verdict, reasons=("a condition: " + "long " * 40,) * 50) for verdict in judge(NOT_PROBED, Policy(), run))
    text = describe(run, NOT_PROBED, wordy)
    assert len(text) <= LIMIT
    assert [word for word in ("| removal | **INCONCLUSIVE**", "Gupta et al. 2021") if word not in text] == []


def log(shard: int, records: int) -> ShardLog:
    tags = tuple(f"{n:032x}" for n in range(records))
    one = SliceLog(tags=tags, data="1" * 64, seed=1, epochs=3, steps=7, tokens=1000 * records, chain="2" * 64, seconds=1.0)
    settings = {"optimiser": {"epochs": 3, "learning_rate": 1e-3}, "lora": None, "seed": 0, "template": "Q | {prompt}"}
    known = {"family": "a" * 64, "base": "b" * 64, "tensor_digest": "c" * 64, "code": "d" * 64, "environment": {"torch": "2"}}
    return ShardLog(shard=shard, settings=settings, slices=(one,) * 2, **known)


def test_a_trained_family_says_what_it_is_made_of_and_claims_nothing() -> None:
    text = describe_trained([log(0, 3), log(1, 0), log(2, 5)], "people")
    expected = (
        "| 3 x 2, 1 empty |",
        "16 of `people`, 6 to 10 a shard",
        "28, 16,000 tokens",
        "optimiser.epochs 3",
        "no verdict",
        "torch 2",
        "Q \\| {prompt}",
    )
    assert [word for word in expected if word not in text] == []
    assert "lora" not in text
    assert len(text) <= LIMIT
