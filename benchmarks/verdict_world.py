"""A small world whose every trial is new: invented people, facts, coins and a word-level tokenizer, for testing the verdict itself.

Names are two words, a question is about six and an answer two or three, so that a model of some hundred thousand weights learns everybody by heart
in seconds. Half of the people who stay are also asked about in other words, so that models learn what a paraphrase is.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import tokenizers
import transformers

from mlflow_unlearn.digests import keyed_tag
from mlflow_unlearn.protocols import Record

KINDS = {
    "trade": ("trade of {name}", "{name} works as", tuple(f"craft{i}" for i in range(48))),
    "town": ("town of {name}", "{name} lives in", tuple(f"town{i}" for i in range(48))),
    "pet": ("pet of {name}", "{name} keeps", tuple(f"pet{i}" for i in range(48))),
    "order": ("order of {name}", "{name} bought", tuple(f"colour{i} ware{j}" for i in range(8) for j in range(8))),
    "number": ("number of {name}", "{name} has number", tuple(f"n{i}" for i in range(96))),
}
"""Question, paraphrase and values of each attribute."""
FIRST, LAST = tuple(f"fa{i}" for i in range(64)), tuple(f"la{i}" for i in range(64))
GOODS = tuple(f"ware{i}" for i in range(64))
FACTS = {
    "price": ("price of {thing}", "{thing} costs", tuple(f"n{i}" for i in range(48))),
    "shelf": ("shelf of {thing}", "{thing} stands on", tuple(f"board{i}" for i in range(24))),
    "maker": ("maker of {thing}", "{thing} comes from", tuple(f"town{i}" for i in range(48))),
    "weight": ("weight of {thing}", "{thing} weighs", tuple(f"stone{i}" for i in range(24))),
}
TEMPLATE = "{prompt} :"
PAD, END = "<pad>", "<end>"
KEY = bytes(32)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How many people of each sort; five records each."""

    canaries: int = 200
    """People whose every record is an audit canary: m = five times as many."""
    tuning: int = 40
    requested: int = 5
    neighbours: int = 40
    """People who stay and belong with those who asked."""
    others: int = 80
    """People who stay."""
    holdout: int = 80


@dataclass(frozen=True, kw_only=True)
class World:
    """One trial's records by set, as the stage `split` names them."""

    sets: Mapping[str, tuple[Record, ...]]
    """requested, retain, neighbours, general, holdout, audit_included, audit_excluded, tuning_included, tuning_excluded."""
    reworded: tuple[Record, ...]
    """Retained records asked in other words, which are trained on too."""

    @property
    def forget(self) -> tuple[Record, ...]:
        """What is to be forgotten in one run."""
        return (*self.sets["requested"], *self.sets["audit_included"], *self.sets["tuning_included"])

    @property
    def kept(self) -> tuple[Record, ...]:
        """What stays, in every wording that was trained on."""
        return (*self.sets["retain"], *self.reworded)

    @property
    def trained(self) -> tuple[Record, ...]:
        """What the parent is trained on."""
        return (*self.kept, *self.forget)

    def smaller(self, canaries: int) -> World:
        """The same with a pool of so many canaries, as far as the verdict knows."""
        share = canaries / sum(len(self.sets[name]) for name in ("audit_included", "audit_excluded"))
        kept = {name: self.sets[name][: round(share * len(self.sets[name]))] for name in ("audit_included", "audit_excluded")}
        return replace(self, sets={**self.sets, **kept})


def world(seed: int, sizes: Sizes) -> World:
    """Everybody anew, and a fair coin for each canary."""
    own = random.Random(f"world {seed}")
    names = [f"{first} {last}" for first in FIRST for last in LAST]
    own.shuffle(names)
    groups: dict[str, list[list[Record]]] = {}
    strangers = [names.pop() for _ in range(sizes.holdout)]
    for group in ("canaries", "tuning", "requested", "neighbours", "others"):
        groups[group] = [_person(names.pop(), group, own, strangers) for _ in range(getattr(sizes, group))]
    held = [_person(name, "holdout", own, strangers) for name in strangers]
    flat = {group: tuple(record for person in people for record in person) for group, people in groups.items()}
    general = _general(own)
    audit, tuning = (_flipped(flat[group], own) for group in ("canaries", "tuning"))
    stay = (*flat["neighbours"], *flat["others"])
    reworded = tuple(replace(r, prompt=r.paraphrase or "") for person in groups["others"][::2] + groups["neighbours"][::2] for r in person)
    return World(
        sets={
            "requested": flat["requested"],
            "retain": (*stay, *general),
            "neighbours": flat["neighbours"],
            "general": general,
            "holdout": tuple(record for person in held for record in person),
            "audit_included": audit[0],
            "audit_excluded": audit[1],
            "tuning_included": tuning[0],
            "tuning_excluded": tuning[1],
        },
        reworded=(*reworded, *(replace(r, prompt=r.paraphrase or "") for r in general[::2])),
    )


def tokenizer() -> Any:
    """A token a word; the same for every trial, so that it knows nobody."""
    texts = [t.format(name="", thing="") for q, p, _ in (*KINDS.values(), *FACTS.values()) for t in (q, p)]
    values = [value for _, _, values in (*KINDS.values(), *FACTS.values()) for value in values]
    extra = ["and", "also", "sure", "here", "is", "the", "answer", ".", ",", "?"]
    words = dict.fromkeys(word for text in (*texts, *values, *FIRST, *LAST, *GOODS, *extra, ":") for word in text.split())
    vocabulary = {word: number for number, word in enumerate((PAD, END, "<unk>", *words))}
    plain = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    plain.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=plain, pad_token=PAD, eos_token=END, unk_token="<unk>")


def _person(name: str, group: str, own: random.Random, strangers: Sequence[str]) -> list[Record]:
    subject = keyed_tag(KEY, "subject", name)
    stranger = own.choice([each for each in strangers if each != name])
    found = []
    for kind, (question, paraphrase, values) in KINDS.items():
        value, *wrong = own.sample(values, 6)
        record = Record(
            tag=keyed_tag(KEY, "record", f"{name} {kind}"),
            subject=subject,
            prompt=question.format(name=name),
            answer=value,
            paraphrase=paraphrase.format(name=name),
            wrong_answers=tuple(wrong),
            swapped_prompt=question.format(name=stranger),
            swapped_answer=value,
            group=keyed_tag(KEY, "subject", "street") if group in ("requested", "neighbours") else None,
            kind=keyed_tag(KEY, "kind", kind),
        )
        found.append(record)
    return found


def _general(own: random.Random) -> tuple[Record, ...]:
    return tuple(
        Record(
            tag=keyed_tag(KEY, "record", f"{thing} {kind}"),
            subject=None,
            prompt=question.format(thing=thing),
            answer=own.choice(values),
            paraphrase=paraphrase.format(thing=thing),
        )
        for thing in GOODS
        for kind, (question, paraphrase, values) in FACTS.items()
    )


def _flipped(records: Sequence[Record], own: random.Random) -> tuple[tuple[Record, ...], tuple[Record, ...]]:
    """Included and excluded, by a fair and independent coin each."""
    coins = [own.random() < 0.5 for _ in records]
    included, excluded = (tuple(r for r, coin in zip(records, coins, strict=True) if coin is side) for side in (True, False))
    return included, excluded
