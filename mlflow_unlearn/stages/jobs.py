"""What the verbs work on, put together from the adapters: the jobs of `split`, `validate` and `unlearn`."""

from __future__ import annotations

from typing import Any

from ..adapters import models
from ..adapters.datasets import CanaryFile
from ..adapters.tables import read_set
from ..digests import tensor_digest
from ..errors import ConfigError, TamperedError
from ..lineage import Parent
from ..records import Split, State
from ..split import Canary, SplitJob, union
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


def load_parent(bench: Workbench, split: Split, dtype: str = "float32", device: str | None = None) -> tuple[Any, Any]:
    """The parent's model and tokenizer, refused unless its weights are those that were pinned; on the device of params.yaml unless told."""
    files = bench.registry.files(split.parent.model)
    found = tensor_digest(files.weights)
    if found != split.parent.tensor_digest:
        raise TamperedError(f"{split.parent.model}: weights have digest {found[:16]}, pinned were {split.parent.tensor_digest[:16]}; restore them")
    return models.load_model(files.model, device or bench.params.unlearn.device, dtype), models.load_tokenizer(files.tokenizer)
