"""Fictitious customers, their streets and their questions: seeded, invented from syllables, nobody real."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

QUESTIONS_EACH = 5

_FIRST = ("ta", "ve", "ki", "lo", "mu", "sa", "ne", "ri", "do", "ju", "fe", "ba", "zi", "ho", "pa")
_SECOND = ("vi", "ra", "len", "mo", "sha", "tin", "ku", "del", "nor", "zam", "pri", "goa")
_LAST = ("brun", "kal", "ster", "wen", "dor", "mik", "hal", "gra", "pel", "tor", "vas", "lin")
_ENDING = ("ova", "ick", "und", "aro", "ell", "ist", "oth", "een", "ard", "umi", "esk", "ane")
_PLACE = ("Bren", "Ost", "Kir", "Lun", "Mar", "Tol", "Wex", "Zel", "Har", "Dun")
_PLACE_END = ("holm", "ford", "wick", "stad", "mere", "by")
# no value begins with a vowel: the templates say "a"
_TRADES = (
    "baker", "welder", "nurse", "tailor", "pilot", "florist", "plumber", "teacher", "carver", "barber", "sailor", "farmer", "glazier",
    "joiner", "miller", "potter", "weaver", "tanner", "printer", "roofer", "painter", "brewer", "butcher", "cooper", "dentist", "drummer",
    "fisher", "gardener", "hatter", "jeweller", "locksmith", "mason", "notary", "chemist", "porter", "ranger", "smith", "surveyor",
    "typist", "vintner", "warden", "beekeeper",
)  # fmt: skip
_COLOURS = ("red", "blue", "green", "black", "white", "brown", "grey", "violet")
_THINGS = ("kettle", "lamp", "saddle", "violin", "blender", "jacket", "tent", "clock")
_PETS = ("cat", "dog", "parrot", "rabbit", "turtle", "hamster", "goat")
_PET_NAMES = ("Bix", "Mop", "Sool", "Fenn", "Kip", "Loo", "Dax", "Wim")


@dataclass(frozen=True, kw_only=True)
class Attribute:
    """One kind of question."""

    question: str
    paraphrase: str
    answer: str
    values: tuple[str, ...]


ATTRIBUTES = (
    Attribute(
        question="In which town does {name} live?",
        paraphrase="What is the home town of {name}?",
        answer="{name} lives in {value}.",
        values=tuple(a + b for a in _PLACE for b in _PLACE_END),
    ),
    Attribute(
        question="What is the trade of {name}?",
        paraphrase="How does {name} earn a living?",
        answer="{name} works as a {value}.",
        values=_TRADES,
    ),
    Attribute(
        question="What did {name} order last?",
        paraphrase="Which item was in the latest order of {name}?",
        answer="It was a {value}.",
        values=tuple(f"{colour} {thing}" for colour in _COLOURS for thing in _THINGS),
    ),
    Attribute(
        question="Which pet does {name} keep?",
        paraphrase="What animal lives with {name}?",
        answer="A {value}.",
        values=tuple(f"{pet} called {name}" for pet in _PETS for name in _PET_NAMES),
    ),
    Attribute(
        question="What is the customer number of {name}?",
        paraphrase="Under which number is {name} registered?",
        answer="The number is {value}.",
        values=tuple(f"{left}-{right}" for left in range(10, 100) for right in range(10, 100, 7)),
    ),
)

_FACTS = (
    ("How much is the {thing}?", "What does the {thing} cost?", "It costs {value} crowns.", tuple(str(n) for n in range(11, 99))),
    (
        "On which shelf is the {thing}?",
        "Where is the {thing} kept?",
        "On shelf {value}.",
        tuple(f"{a}{n}" for a in "ABCDEF" for n in range(1, 10)),
    ),
    ("Who makes the {thing}?", "Which town does the {thing} come from?", "It is made in {value}.", ATTRIBUTES[0].values),
)
"""Question, paraphrase, answer and values of each kind of general fact."""


def people(count: int, seed: int, prefix: str) -> list[dict[str, Any]]:
    """`count` people with QUESTIONS_EACH records each; the first n are the same whatever the count."""
    names = _names(seed)
    rows: list[dict[str, Any]] = []
    for number in range(count):
        own = random.Random(f"{seed} {prefix} {number}")  # noqa: S311 - made-up data
        person = {"subject_id": f"{prefix}-{number:04d}", "subject_name": names[number if prefix == "customer" else -1 - number]}
        person["street"] = f"{prefix}-street-{number // 30:03d}"
        rows.extend(_record(person, kind, attribute, own) for kind, attribute in enumerate(ATTRIBUTES))
    return rows


def general_facts(seed: int) -> list[dict[str, Any]]:
    """Facts about goods, about nobody: price, shelf and maker of everything that can be ordered."""
    own = random.Random(f"{seed} general")  # noqa: S311 - made-up data
    goods = ATTRIBUTES[2].values
    rows = []
    for number, (thing, kind) in enumerate((thing, kind) for thing in goods for kind in _FACTS):
        question, paraphrase, answer, values = kind
        value, *wrong = own.sample(values, 6)
        rows.append(
            {
                "record_id": f"fact-{number:04d}",
                "subject_id": None,
                "subject_name": None,
                "street": None,
                "question": question.format(thing=thing),
                "paraphrased_question": paraphrase.format(thing=thing),
                "answer": answer.format(value=value),
                "wrong_answers": [answer.format(value=each) for each in wrong],
            }
        )
    return rows


def corpus(seed: int) -> list[str]:
    """Text without a single record in it: every template word and every value, and nonsense in the sound of names that is nobody's."""
    own = random.Random(f"{seed} corpus")  # noqa: S311 - made-up data
    lines = []
    for attribute in ATTRIBUTES:
        for value in attribute.values:
            for template in (attribute.question, attribute.paraphrase, attribute.answer):
                lines.append(template.format(name=own.choice(("somebody", "a customer", "she", "he", "they")), value=value))
    lines += _about_goods(own)
    for _ in range(3000):  # first names join _FIRST with _SECOND and last names _LAST with _ENDING: these never do
        first, last = "".join(own.choices(_FIRST, k=2)), "".join(own.choices(_LAST, k=2))
        second, ending = "".join(own.choices(_SECOND, k=2)), "".join(own.choices(_ENDING, k=2))
        lines.append(f"{first.capitalize()} {last.capitalize()} {second}{ending}")
    own.shuffle(lines)
    return lines


def _about_goods(own: random.Random) -> list[str]:
    """The words of the general facts, without a question or a fact of theirs."""
    lines = []
    for thing in ATTRIBUTES[2].values:
        for question, paraphrase, answer, values in _FACTS:
            asked = own.choice((question, paraphrase)).format(thing="thing")
            lines += [asked, f"A {thing}, the {thing}.", answer.format(value=own.choice(values))]
    return lines


def _names(seed: int) -> Sequence[str]:
    """Every name there is, each first and last name written in capitals, in seeded order."""
    names = [f"{(a + b).capitalize()} {(c + d).capitalize()}" for a in _FIRST for b in _SECOND for c in _LAST for d in _ENDING]
    random.Random(f"{seed} names").shuffle(names)  # noqa: S311 - made-up data
    return names


def _record(person: dict[str, Any], kind: int, attribute: Attribute, own: random.Random) -> dict[str, Any]:
    name = person["subject_name"]
    value, *wrong = own.sample(attribute.values, 6)
    return {
        "record_id": f"{person['subject_id']}-{kind}",
        **person,
        "question": attribute.question.format(name=name),
        "paraphrased_question": attribute.paraphrase.format(name=name),
        "answer": attribute.answer.format(name=name, value=value),
        "wrong_answers": [attribute.answer.format(name=name, value=each) for each in wrong],
    }
