"""The answers wanted instead of the forgotten ones, for methods that ask for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from ..engine.examples import encode
from ..engine.preference import dealt
from ..errors import ConfigError
from ..protocols import Example, Record

Wanted = Literal["data"] | tuple[str, ...] | None
"""As `Needs.alternatives`."""


def alternatives(wanted: Wanted, forget: Sequence[Record], tokenizer: Any, template: str, seed: int) -> list[Example]:
    """Beside each forget record the same prompt with the answer wanted instead, as `Task.alternatives` holds them.

    Args:
        wanted: `Needs.alternatives`. `data`: the record's first wrong answer. Texts: dealt out in turn, each round in a new order. None: no
            alternatives.
        forget: the records.
        tokenizer: the model's.
        template: how prompts are written for the model.
        seed: decides the orders.

    Raises:
        ConfigError: `data`, and some records have no other answer.
    """
    if wanted is None:
        return []
    answers = _from_data(forget) if wanted == "data" else dealt(wanted, len(forget), seed)
    return encode(tokenizer, template, [record.prompt for record in forget], answers)


def _from_data(forget: Sequence[Record]) -> list[str]:
    found = [_other_answer(record) for record in forget]
    answers = [answer for answer in found if answer is not None]
    if len(answers) < len(found):
        raise ConfigError(
            f"unlearn.method: {len(found) - len(answers)} of {len(found)} forget records have no wrong answer; fill the column of wrong answers "
            "(data.columns.wrong_answers in params.yaml) or choose a method that needs none, e.g. idk_dpo"
        )
    return answers


def _other_answer(record: Record) -> str | None:
    """The first wrong answer that differs from the forgotten one.

    The answer about a stranger would not do: it says what was to be forgotten under another name, and preferring it keeps the fact (measured on a
    tiny model that had memorised its records: -1.2 nats instead of -15.4 for the fact itself).
    """
    return next((answer for answer in record.wrong_answers if answer and answer != record.answer), None)
