"""Which answer each forget record gets instead of its own."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mlflow_unlearn.adapters import models
from mlflow_unlearn.engine.examples import encode
from mlflow_unlearn.errors import ConfigError
from mlflow_unlearn.protocols import Example, Record
from mlflow_unlearn.stages.alternatives import alternatives

TEMPLATE = "Question: {prompt}\nAnswer: "
REFUSALS = ("I do not know.", "No idea.", "Ask somebody else.")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    corpus: Path = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    corpus.write_text("Question: where is the lamp?\nAnswer: on the table.\n" * 20)
    return models.train_tokenizer(corpus, 300)


def record(number: int, **answers: Any) -> Record:
    return Record(tag=f"{number:032x}", subject=None, prompt=f"Where is lamp {number}?", answer="On the table.", **answers)


def read(tokenizer: Any, examples: list[Example]) -> list[str]:
    """The answers without their end token."""
    return [tokenizer.decode(example.tokens[example.prompt_length : -1]) for example in examples]


def test_the_prompt_stays_and_the_answer_is_another(tokenizer: Any) -> None:
    forget = [record(n, wrong_answers=(f"In box {n}.", "Lost.")) for n in range(3)]
    found = alternatives("data", forget, tokenizer, TEMPLATE, 0)
    assert found == encode(tokenizer, TEMPLATE, [each.prompt for each in forget], ["In box 0.", "In box 1.", "In box 2."])


def test_empty_and_equal_answers_are_passed_over(tokenizer: Any) -> None:
    forget = [record(0, wrong_answers=("", "Gone.")), record(1, wrong_answers=("On the table.", "Lost."))]
    assert read(tokenizer, alternatives("data", forget, tokenizer, TEMPLATE, 0)) == ["Gone.", "Lost."]


def test_records_without_a_wrong_answer_are_counted_and_refused_even_if_one_about_a_stranger_is_there(tokenizer: Any) -> None:
    """The stranger's answer is the forgotten fact under another name."""
    forget = [record(0, wrong_answers=("Lost.",)), record(1, swapped_answer="Hers."), record(2, wrong_answers=("On the table.",))]
    with pytest.raises(ConfigError, match=r"2 of 3 forget records have no wrong answer; fill .* e\.g\. idk_dpo"):
        alternatives("data", forget, tokenizer, TEMPLATE, 0)


def test_texts_are_dealt_out_evenly(tokenizer: Any) -> None:
    dealt = read(tokenizer, alternatives(REFUSALS, [record(n) for n in range(7)], tokenizer, TEMPLATE, 0))
    assert set(dealt[:3]) == set(dealt[3:6]) == set(REFUSALS)
    assert max(Counter(dealt).values()) == 3


def test_the_seed_decides_who_gets_which(tokenizer: Any) -> None:
    first, again, other = (alternatives(REFUSALS, [record(n) for n in range(12)], tokenizer, TEMPLATE, seed) for seed in (0, 0, 1))
    assert first == again != other


def test_a_method_that_wants_none_gets_none(tokenizer: Any) -> None:
    assert alternatives(None, [record(0)], tokenizer, TEMPLATE, 0) == []
