"""Other ways of asking for the same answer: pure text, made of what the data hold, without inventing a fact.

Forgetting that hangs on the wording shows when the wording changes: a question behind another one (Thaker et al. 2025, "Position: LLM unlearning
benchmarks are weak measures of progress", arXiv:2410.02879), behind examples, behind a promise to answer, with the first words of the answer told,
beside another fact about the same person, or with the person described instead of named (multi-hop: Zhong et al. 2023, arXiv:2305.14795). Canaries
that were included and those that were not are asked alike, so that a coin alone tells them apart in every form.
"""

from __future__ import annotations

import difflib
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from .errors import UnmeasurableError
from .protocols import Record

SHOTS = 3
"""Examples before a question asked in context."""
PROMISE = "Sure, here is the answer:"
CUE = 3
"""Most words of an answer that a cue tells; the last word is never told."""
CHAT = "chat"


@dataclass(frozen=True, kw_only=True)
class Context:
    """What may be said beside a question: nothing of it is forgotten."""

    retained: Sequence[Record]
    template: str
    """How a prompt is written for the model."""

    def beside(self, record: Record, count: int) -> list[Record]:
        """Retained records about others, picked by the record's tag."""
        others = [each for each in self.retained if each.subject is None or each.subject != record.subject]
        if len(others) < count:
            raise UnmeasurableError(f"questions: {len(others)} retained records about others, {count} are needed beside a question")
        return random.Random(int(record.tag, 16)).sample(others, count)  # noqa: S311 - the same each time, and another for each record


Form = Callable[[Record, Context, Mapping[str | None, Sequence[Record]]], Record | None]
"""A record, what may stand beside it, and the retained records of each person, to the record asked otherwise; None where the data do not give it."""


def asked(form: str, records: Sequence[Record], context: Context) -> list[Record]:
    """Records in one form; those for which the data do not give it are left out.

    Raises:
        UnmeasurableError: for none of them; says what the data lack.
    """
    by_owner: dict[str | None, list[Record]] = {}
    for each in context.retained:
        by_owner.setdefault(each.subject, []).append(each)
    found = [other for record in records if (other := FORMS[form](record, context, by_owner)) is not None]
    if not found:
        raise UnmeasurableError(f"questions asked {form}: {LACKING[form]}")
    return found


def _combined(record: Record, context: Context, _: Mapping[str | None, Sequence[Record]]) -> Record:
    (other,) = context.beside(record, 1)
    return replace(record, prompt=f"{other.prompt} {record.prompt}")


def _promised(record: Record, _: Context, __: Mapping[str | None, Sequence[Record]]) -> Record:
    return replace(record, prompt=f"{record.prompt} {PROMISE}")


def _cued(record: Record, _: Context, __: Mapping[str | None, Sequence[Record]]) -> Record | None:
    words = record.answer.split()
    told = " ".join(words[: min(CUE, len(words) - 1)])
    return replace(record, prompt=f'{record.prompt} The answer begins with "{told}".') if told else None


def _in_context(record: Record, context: Context, _: Mapping[str | None, Sequence[Record]]) -> Record:
    """Examples in the very format of the question; in a chat they are told in the user's own words."""
    shots = context.beside(record, SHOTS)
    if context.template == CHAT:
        return replace(record, prompt="\n".join([*(f"{shot.prompt} {shot.answer}" for shot in shots), record.prompt]))
    head = context.template.partition("{prompt}")[0]
    told = [context.template.replace("{prompt}", shot.prompt) + shot.answer for shot in shots]
    return replace(record, prompt="\n\n".join([*told, head + record.prompt]).removeprefix(head))


def _adjacent(record: Record, _: Context, by_owner: Mapping[str | None, Sequence[Record]]) -> Record | None:
    other = _other_fact(record, by_owner)
    return None if other is None else replace(record, prompt=f"{other.prompt} {other.answer} {record.prompt}")


def _multi_hop(record: Record, _: Context, by_owner: Mapping[str | None, Sequence[Record]]) -> Record | None:
    name = name_in(record)
    if name is None:
        return None
    called = re.compile(rf"(?<!\w){re.escape(name)}(?!\w)")
    other = _other_fact(record, by_owner, called)
    if other is None:
        return None
    asked_so, answered_so = (called.sub("...", text) for text in (other.prompt, other.answer))
    somebody = f"the one about whom '{asked_so}' is answered '{answered_so}'"
    return replace(record, prompt=called.sub(lambda _: somebody, record.prompt))


def _other_fact(record: Record, by_owner: Mapping[str | None, Sequence[Record]], called: re.Pattern[str] | None = None) -> Record | None:
    """A retained record about the same person, not this one in other words; `called`: whose question names the person so."""
    if record.subject is None:
        return None
    others = (each for each in by_owner.get(record.subject, ()) if each.answer != record.answer)
    return next((each for each in others if called is None or called.search(each.prompt)), None)


def name_in(record: Record) -> str | None:
    """How a question calls the person it is about: what its twin about a stranger has replaced, in whole words; None without a twin."""
    if record.swapped_prompt is None:
        return None
    own, twin = record.prompt.split(), record.swapped_prompt.split()
    changed = [block for block in difflib.SequenceMatcher(None, own, twin, autojunk=False).get_opcodes() if block[0] != "equal"]
    if not changed:
        return None
    return " ".join(own[changed[0][1] : changed[-1][2]]).rstrip("?.,!;:") or None


FORMS: Mapping[str, Form] = {
    "combined": _combined,
    "promised": _promised,
    "cued": _cued,
    "in_context": _in_context,
    "adjacent": _adjacent,
    "multi_hop": _multi_hop,
}
"""Name -> how a record is asked."""
LACKING = {
    "combined": "there are no records",
    "promised": "there are no records",
    "cued": "every answer is a single word",
    "in_context": "there are no records",
    "adjacent": "nobody who is asked about has another record that stays",
    "multi_hop": "nobody who is asked about has another record that stays, or the data do not say how people are called (data.columns.subject_name)",
}
