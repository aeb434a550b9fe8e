"""The raw sets as one model sees them: what `evaluate` measures and what the models say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..adapters.tables import read_set
from ..digests import sha256_file
from ..engine.classifying import known_classes
from ..engine.ensemble import Ensemble, EnsembleSubject
from ..engine.examples import encode, encode_classes
from ..engine.scoring import ScoredSubject
from ..errors import TamperedError
from ..params import EvaluateParams, Params
from ..protocols import Example, Record, Subject
from ..records import Split
from ..split import SETS
from .workbench import Workbench

_PARAPHRASED = ("requested", "general", "holdout", "audit_included", "audit_excluded")
_MEASURED = ("requested", "retain", "neighbours", "general", "holdout", "audit_included", "audit_excluded")


def in_keyed_order(retain: Sequence[Record]) -> Sequence[Record]:
    """Retained records about people, else all of them, as they lie in the set: sorted by keyed tag, which is as good as drawn."""
    return [record for record in retain if record.subject is not None] or retain


def watched_retain(retain: Sequence[Record], most: int) -> Sequence[Record]:
    """Retained records that choosing the best step may look at: the last in keyed order, at most a quarter. No verdict measures them."""
    ordered = in_keyed_order(retain)
    return ordered[len(ordered) - min(most, len(ordered) // 4) :]


@dataclass(frozen=True)
class RawSets:
    """Records by set name; `retain_all` is retain before sampling."""

    records: Mapping[str, Sequence[Record]]
    template: str

    @classmethod
    def read(cls, bench: Workbench, split: Split) -> RawSets:
        """The sets of a split, its larger ones sampled.

        Raises:
            TamperedError: a file is not the one that the split stage wrote.
        """
        changed = [name for name in SETS if sha256_file(bench.sets / f"{name}.parquet") != split.files[name]]
        if changed:
            raise TamperedError(f"{bench.sets}: {', '.join(changed)} changed since the split; run `dvc repro -f split`")
        sets: dict[str, Sequence[Record]] = {name: read_set(bench.sets, name) for name in SETS}
        params = bench.params.evaluate
        sets["retain_all"] = sets["retain"]
        watched = {record.tag for record in watched_retain(sets["retain"], bench.params.unlearn.selection.kept_sample)}
        sets["retain"] = [record for record in in_keyed_order(sets["retain"]) if record.tag not in watched][: params.retain_sample]
        sets["neighbours"] = sets["neighbours"][: params.neighbour_sample]
        for name in _PARAPHRASED:
            reworded = [replace(record, prompt=record.paraphrase) for record in sets[name] if record.paraphrase]
            sets[f"{name}_paraphrased"] = reworded
        return cls(sets, bench.params.data.template)

    def examples(self, tokenizer: Any, name: str, classes: Mapping[str, int] | None = None) -> list[Example]:
        """One set in the model's tokens; of a sequence classifier, whose answers are classes.

        Raises:
            DataError: an answer is no class that the classifier knows.
        """
        prompts, answers = [record.prompt for record in self.records[name]], [record.answer for record in self.records[name]]
        if classes is None:
            return encode(tokenizer, self.template, prompts, answers)
        return encode_classes(tokenizer, self.template, prompts, answers, classes)


def subjects(model: Any, tokenizer: Any, sets: RawSets, params: Params) -> dict[str, Subject]:
    """Every measured set as this model sees it, lazily; an ensemble is asked by whom a record is about, as it is when it is served."""
    names = (*_MEASURED, *(f"{name}_paraphrased" for name in _PARAPHRASED))
    return {name: _subject(model, tokenizer, sets, name, params.evaluate) for name in names}


def _subject(model: Any, tokenizer: Any, sets: RawSets, name: str, params: EvaluateParams) -> Subject:
    many = isinstance(model, Ensemble)
    records, examples = sets.records[name], sets.examples(tokenizer, name, known_classes((model.experts if many else model).config))
    answers, sizes = [record.answer for record in records], {"batch_tokens": params.batch_tokens, "max_new_tokens": params.max_new_tokens}
    if many:
        known = [model.owner_shard(record.subject) for record in records]
        return EnsembleSubject(ensemble=model, tokenizer=tokenizer, examples=examples, answers=answers, known=known, **sizes)
    return ScoredSubject(model=model, tokenizer=tokenizer, examples=examples, answers=answers, **sizes)


def spoken(sets: RawSets, states: Mapping[str, Mapping[str, Subject]]) -> list[dict[str, str]]:
    """One forgotten person's and one neighbour's question with the answer of each state: the first each that the parent knew."""
    lines = []
    for about, name in (("a forgotten person", "requested"), ("a neighbour who stays", "neighbours"), ("a general fact", "general")):
        records, known = sets.records[name], states["before"][name]
        if records:
            pick = next((i for i, answer in enumerate(known.generations) if answer == records[i].answer), 0)
            said = {state: found[name].generations[pick] for state, found in states.items() if found}
            lines.append({"about": about, "question": records[pick].prompt, "answer": records[pick].answer, **said})
    return lines
