"""10^5 damaged inputs in all; `make fuzz` tries 10^6."""

import pytest
from fuzz_targets import TARGETS
from fuzzing import fuzz

from mlflow_unlearn.verifier import RefusedError, UndecidedError

pytestmark = pytest.mark.e2e  # seconds each


@pytest.mark.parametrize("name", TARGETS)
def test_a_parser_says_no_or_could_not_decide_and_nothing_else(name):
    target = TARGETS[name]
    answers = fuzz(target.parse, target.seeds(), 100 * target.share, 7, (RefusedError, UndecidedError))
    assert answers["UndecidedError"] > answers.total() / 4


@pytest.mark.parametrize("damage", [KeyError("x"), RecursionError(), AssertionError()])
def test_any_other_error_is_found(damage):
    def parser(raw):
        raise damage

    with pytest.raises(AssertionError, match=type(damage).__name__):
        fuzz(parser, [b"{}"], 1, 0, (RefusedError, UndecidedError))
