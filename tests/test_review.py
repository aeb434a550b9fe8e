"""The description of a version: short enough for MLflow, and complete in what matters."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mlflow_unlearn.records import Evaluation, Outcome, Unlearned, Verdict
from mlflow_unlearn.review import LIMIT, describe, what_would_pass


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
