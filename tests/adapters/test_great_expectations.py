import numpy as np
import pytest

from mlflow_unlearn.adapters.great_expectations import Column, run_checkpoint


def column(name, flags, warn_only=False):
    return Column(name=name, obeyed=np.array(flags, dtype=bool), warn_only=warn_only)


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs")
    rules = [column("sound", [True] * 5), column("broken", [True, False, False]), column("near", [False], warn_only=True), column("empty", [])]
    return folder, {result.name: result for result in run_checkpoint(rules, folder)}


@pytest.mark.parametrize(("name", "success", "rows", "violations"), [("sound", True, 5, 0), ("broken", False, 3, 2), ("near", False, 1, 1), ("empty", True, 0, 0)])
def test_a_rule_holds_exactly_when_no_row_disobeys(checked, name, success, rows, violations):
    result = checked[1][name]
    assert (result.success, result.rows, result.violations) == (success, rows, violations)


def test_data_docs_can_be_opened(checked):
    folder = checked[0]
    assert "<html" in (folder / "index.html").read_text()
    assert list(folder.glob("validations/**/*.html"))
