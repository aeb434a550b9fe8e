"""What the verbs work on, put together from the adapters: the jobs of `split`, `validate` and `unlearn`."""

from __future__ import annotations

from typing import Any

from ..adapters import models
from ..adapters.datasets import CanaryFile
from ..adapters.tables import read_set
from ..digests import tensor_digest
from ..engine.examples import encode
from ..errors import ConfigError, TamperedError
from ..lineage import Parent
from ..protocols import Example, Record
from ..records import Split, State
from ..split import Canary, SplitJob, union
from ..unlearn import UnlearnJob
from ..validate import ValidationJob
from .guarding import found_in, returned, watch
from .workbench import Workbench


def asked_for(bench: Workbench) -> tuple[frozenset[str], frozenset[str]]:
    """Keyed tags of every person, and of every single record, that a request names which was not refused, and of what went with closed ones."""
    requests = [request for request in bench.ledger.requests() if request.state is not State.REFUSED]
    subjects, records = bench.ledger.erased()
    return subjects.union(*(request.subjects for request in requests)), records.union(*(request.records for request in requests))


def split_job(bench: Workbench, parent: Parent) -> tuple[SplitJob, dict[str, int | str | bool]]:
    """The parent's own data as DVC kept them, who asked so far, and what is known of the canary pool."""
    data, reader = bench.params.data, bench.reader
    states = parent.datasets
    holdout, general, file = (bench.from_root(path) if path else None for path in (data.holdout, data.general, data.canaries))
    subjects, records = asked_for(bench)
    found, strangers = reader.canaries(file, states, bench.registry.training_commit(parent.model)), reader.strangers(holdout, states)
    dataset = union(reader.records(state, strangers) for state in states)
    job = SplitJob(
        dataset=dataset,
        subjects=subjects,
        records=records,
        canaries=_canaries(found, {record.tag for record in dataset}, bench.ledger.erased()[1]),
        holdout=reader.beside(holdout, states),
        general=reader.beside(general, states),
    )
    return job, {"commitment": found.commitment, "committed": found.committed} if found else {}


def _canaries(found: CanaryFile | None, present: set[str], erased: frozenset[str]) -> list[Canary]:
    """The flips of a revision; canaries that left the data when a request was closed are no contradiction, they are gone."""
    flips = {flip.record_id: flip for flip in found.flips} if found else {}
    return [
        Canary(record=record, pool=flips[record.tag].pool, included=flips[record.tag].included)
        for record in (found.records if found else ())
        if record.tag in flips and not (record.tag in erased and record.tag not in present)
    ]


def validation_job(bench: Workbench, split: Split) -> ValidationJob:
    """The sets as the split wrote them, the dataset as the index knows it, and what earlier erasures say about retain.

    The hold-out is not asked about: it is read as of the parent's revision, which may lie before an erasure, and nothing is trained on it.

    Raises:
        ConfigError: a tombstone cannot be looked for, so that nobody could say whether its person is back.
    """
    rows, watched, retain = bench.index.rows(split.parent.datasets), watch(bench), read_set(bench.sets, "retain")
    if watched.problems:
        raise ConfigError("\n".join(watched.problems))
    back, resemblance = returned(found_in(bench, watched, retain, split.parent.datasets), len(retain))
    excluded = [record for name in ("audit_excluded", "tuning_excluded") for record in read_set(bench.sets, name)]
    return ValidationJob(
        dataset_tags={record for record, _ in rows},
        dataset_rows=len(rows),
        forget=read_set(bench.sets, "forget"),
        retain=retain,
        holdout=read_set(bench.sets, "holdout"),
        excluded_canaries=excluded,
        subjects=asked_for(bench)[0],
        near_duplicate_jaccard=bench.policy.near_duplicate_jaccard,
        near_duplicate_refuse=bench.policy.near_duplicate_refuse,
        returned=back,
        resemblance=resemblance,
    )


def load_parent(bench: Workbench, split: Split) -> tuple[Any, Any]:
    """The parent's model and tokenizer, refused unless its weights are those that were pinned."""
    files = bench.registry.files(split.parent.model)
    found = tensor_digest(files.weights)
    if found != split.parent.tensor_digest:
        raise TamperedError(f"{split.parent.model}: weights have digest {found[:16]}, pinned were {split.parent.tensor_digest[:16]}; restore them")
    return models.load_model(files.model, bench.params.unlearn.device), models.load_tokenizer(files.tokenizer)


def unlearn_job(bench: Workbench, method: Any, model: Any, tokenizer: Any) -> UnlearnJob:
    """The sets in the model's tokens."""
    sets = {name: read_set(bench.sets, name) for name in ("forget", "retain", "tuning_included", "tuning_excluded")}
    template, included = bench.params.data.template, {record.tag for record in sets["tuning_included"]}

    def examples(records: list[Record]) -> list[Example]:
        return encode(tokenizer, template, [r.prompt for r in records], [r.answer for r in records])

    return UnlearnJob(
        model=model,
        forget=examples(sets["forget"]),
        retain=examples(sets["retain"]),
        swapped=_swapped(tokenizer, template, sets["forget"]),
        tuning_included=[i for i, record in enumerate(sets["forget"]) if record.tag in included],
        tuning_excluded=examples(sets["tuning_excluded"]),
        method=method,
        params=bench.params.unlearn,
        pad=tokenizer.pad_token_id,
    )


def _swapped(tokenizer: Any, template: str, forget: list[Record]) -> list[Example | None]:
    """The twin of each record about a stranger, None where the data cannot say."""
    pairs = [(r.swapped_prompt, r.swapped_answer) for r in forget]
    known = [(prompt, answer) for prompt, answer in pairs if prompt is not None and answer is not None]
    twins = iter(encode(tokenizer, template, [prompt for prompt, _ in known], [answer for _, answer in known]))
    return [next(twins) if prompt is not None and answer is not None else None for prompt, answer in pairs]
