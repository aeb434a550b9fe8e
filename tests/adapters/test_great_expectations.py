"""Great Expectations itself, in a folder of the test's own: one checkpoint serves all laws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mlflow_unlearn.adapters.great_expectations import Column, ColumnResult, run_checkpoint

Checked = tuple[Path, dict[str, ColumnResult]]


def column(name: str, *flags: bool, warn_only: bool = False) -> Column:
    return Column(name=name, obeyed=np.array(flags, dtype=bool), warn_only=warn_only)


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Checked:
    folder = tmp_path_factory.mktemp("docs")
    rules = [column("sound", *[True] * 5), column("broken", True, False, False), column("near", False, warn_only=True), column("empty")]
    return folder, {result.name: result for result in run_checkpoint(rules, folder)}


@pytest.mark.parametrize(
    ("name", "success", "rows", "violations"), [("sound", True, 5, 0), ("broken", False, 3, 2), ("near", False, 1, 1), ("empty", True, 0, 0)]
)
def test_a_rule_holds_exactly_when_no_row_disobeys(checked: Checked, name: str, success: bool, rows: int, violations: int) -> None:
    result = checked[1][name]
    assert (result.success, result.rows, result.violations) == (success, rows, violations)


def test_only_the_rules_that_say_so_merely_warn(checked: Checked) -> None:
    assert [name for name, result in checked[1].items() if result.warn_only] == ["near"]


def test_data_docs_can_be_opened_and_name_every_rule(checked: Checked) -> None:
    folder = checked[0]
    (page,) = folder.glob("validations/**/*.html")
    assert "<html" in (folder / "index.html").read_text()
    assert all(name in page.read_text() for name in checked[1])


def test_data_docs_repeat_no_value_of_a_row(checked: Checked) -> None:
    pages = [page.read_text() for page in checked[0].rglob("*.html")]
    assert not any(word in page for page in pages for word in ("unexpected values", "Unexpected Value", "unexpected_list"))
