"""What is asked of every state of a model: the sets of a split, sampled, and the same in other words and with the names of strangers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from .engine.classifying import known_classes
from .engine.ensemble import Ensemble, EnsembleSubject
from .engine.examples import encode, encode_classes
from .engine.scoring import ScoredSubject
from .errors import DataError
from .evaluate import EXCLUDED, INCLUDED, PARAPHRASED, SWAPPED
from .params import EvaluateParams
from .protocols import Example, Record, Subject

MEASURED = ("requested", "retain", "neighbours", "general", "holdout", INCLUDED, EXCLUDED)
REWORDED = ("requested", "general", "holdout", INCLUDED, EXCLUDED)
CALIBRATING = ("holdout", INCLUDED, EXCLUDED)


def in_keyed_order(retain: Sequence[Record]) -> Sequence[Record]:
    """Retained records about people, else all of them, as they lie in the set: sorted by keyed tag, which is as good as drawn."""
    return [record for record in retain if record.subject is not None] or retain


def watched_retain(retain: Sequence[Record], most: int) -> Sequence[Record]:
    """Retained records that choosing the best step may look at: the last in keyed order, at most a quarter. No verdict measures them."""
    ordered = in_keyed_order(retain)
    return ordered[len(ordered) - min(most, len(ordered) // 4) :]


@dataclass(frozen=True, kw_only=True)
class AuditSets:
    """Records by set name, ready to be asked."""

    records: Mapping[str, Sequence[Record]]
    retained: Sequence[Record]
    """Everything that stays, before sampling: what a benign fine-tune trains on."""
    template: str
    other_answers: bool = False
    """Whether wrong answers and the true one in other words are scored too, which some metrics need."""

    @classmethod
    def of(cls, sets: Mapping[str, Sequence[Record]], template: str, params: EvaluateParams, kept_sample: int = 0) -> AuditSets:
        """The sets of a split, its larger ones sampled.

        Args:
            sets: by name, as the verb `split` makes them.
            template: how a prompt is written.
            params: sizes of the samples.
            kept_sample: how many retained records choosing a step may have watched; they are not measured.

        Raises:
            DataError: an excluded canary is asked and answered word for word as a record that was trained on: then no coin tells them apart.
        """
        _refuse_duplicates(sets)
        found = {name: sets.get(name, ()) for name in MEASURED}
        watched = {record.tag for record in watched_retain(found["retain"], kept_sample)}
        found["retain"] = [record for record in in_keyed_order(found["retain"]) if record.tag not in watched][: params.retain_sample]
        found["neighbours"] = found["neighbours"][: params.neighbour_sample]
        found |= {f"{name}{PARAPHRASED}": [replace(r, prompt=r.paraphrase) for r in found[name] if r.paraphrase] for name in REWORDED}
        found |= {f"{name}{SWAPPED}": _swapped(found[name]) for name in CALIBRATING}
        return cls(records=found, retained=sets.get("retain", ()), template=template)

    def with_other_answers(self) -> AuditSets:
        """The same, with wrong answers and the true one in other words scored too."""
        return replace(self, other_answers=True)

    @property
    def kinds(self) -> dict[str, list[str | None]]:
        """Set -> per record what kind of question it is."""
        return {name: [record.kind for record in self.records[name]] for name in CALIBRATING}

    def examples(self, tokenizer: Any, records: Sequence[Record], classes: Mapping[str, int] | None = None) -> list[Example]:
        """Records in the model's tokens; of a sequence classifier, whose answers are classes.

        Raises:
            DataError: an answer is no class that the classifier knows.
        """
        kept = self._tokens.get((id(tokenizer), id(records)))
        if kept is None or kept[0] is not tokenizer or kept[1] is not records:
            prompts, answers = [record.prompt for record in records], [record.answer for record in records]
            if classes is None:
                found = encode(tokenizer, self.template, prompts, answers)
            else:
                found = encode_classes(tokenizer, self.template, prompts, answers, classes)
            kept = self._tokens[id(tokenizer), id(records)] = (tokenizer, records, found)
        return kept[2]

    @cached_property
    def _tokens(self) -> dict[tuple[int, int], tuple[Any, Sequence[Record], list[Example]]]:
        """What was encoded: every state of one model asks the same. Both keys are kept alive, so that no other object takes their place."""
        return {}

    def prefix(self, tokenizer: Any, count: int) -> tuple[int, ...]:
        """Tokens of the first so many held-out records, one after another; nobody was ever trained on them."""
        return tuple(token for each in self.examples(tokenizer, self.records["holdout"][:count]) for token in each.tokens)

    @staticmethod
    def classes(model: Any) -> Mapping[str, int] | None:
        """The classes that a model, or an ensemble of them, tells apart; None for language models."""
        return known_classes((model.experts if isinstance(model, Ensemble) else model).config)

    def paraphrased(self, tokenizer: Any, records: Sequence[Record]) -> list[Example | None]:
        """Per record, its prompt with the true answer in other words."""
        known = [record for record in records if record.paraphrased_answer]
        found = iter(self.examples(tokenizer, [replace(record, answer=record.paraphrased_answer or "") for record in known]))
        return [next(found) if record.paraphrased_answer else None for record in records]

    def wrong(self, tokenizer: Any, records: Sequence[Record]) -> list[list[Example]]:
        """Per record, its prompt with each wrong answer."""
        found = iter(self.examples(tokenizer, [replace(record, answer=answer) for record in records for answer in record.wrong_answers]))
        return [[next(found) for _ in record.wrong_answers] for record in records]


def subject_of(
    loaded: tuple[Any, Any], sets: AuditSets, records: Sequence[Record], params: EvaluateParams, reference: Subject | None = None
) -> Subject:
    """Some records as a model sees them, lazily; an ensemble is asked by whom a record is about, as it is when it is served.

    Args:
        loaded: the model, or the ensemble, and its tokenizer.
        sets: what all of them are asked.
        records: those that are asked here.
        params: sizes of batches and answers, and of the prefix of `prefixed_log_probs`.
        reference: the same records as a model sees them that never saw them.
    """
    model, tokenizer = loaded
    classes = sets.classes(model)
    others = sets.other_answers and classes is None
    given: dict[str, Any] = {
        "tokenizer": tokenizer,
        "examples": sets.examples(tokenizer, records, classes),
        "answers": [record.answer for record in records],
        "paraphrased": sets.paraphrased(tokenizer, records) if others else (),
        "wrong": sets.wrong(tokenizer, records) if others else (),
        "reference": reference,
        "prefix": sets.prefix(tokenizer, params.prefix_records) if classes is None else (),
        "batch_tokens": params.batch_tokens,
        "max_new_tokens": params.max_new_tokens,
    }
    if isinstance(model, Ensemble):
        return EnsembleSubject(ensemble=model, known=[model.owner_shard(record.subject) for record in records], **given)
    return ScoredSubject(model=model, **given)


def _swapped(records: Sequence[Record]) -> list[Record]:
    """The same with the names of strangers; none unless every record has its twin, since losses are compared record by record."""
    if not all(record.swapped_prompt and record.swapped_answer for record in records):
        return []
    return [replace(record, prompt=record.swapped_prompt or "", answer=record.swapped_answer or "") for record in records]


def _refuse_duplicates(sets: Mapping[str, Sequence[Record]]) -> None:
    excluded = {(r.prompt, r.answer) for r in sets.get(EXCLUDED, ())}
    both = sum((record.prompt, record.answer) in excluded for record in sets.get("holdout", ()))
    if both:
        raise DataError(
            f"evaluate: {both} held-out records are excluded canaries word for word; keep them out of the hold-out, some probes train on it"
        )
    trained = {(r.prompt, r.answer) for name in ("requested", "retain", INCLUDED) for r in sets.get(name, ())}
    for name in (EXCLUDED, "holdout"):
        twice = sum((record.prompt, record.answer) in trained for record in sets.get(name, ()))
        if twice:
            raise DataError(
                f"evaluate: {twice} of {len(sets[name])} records of {name}, which were never trained on, are word for word records that were; "
                "drop them from the hold-out, or draw canaries from distinct records"
            )
