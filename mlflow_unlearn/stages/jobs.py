"""What the verbs work on, put together from the adapters: the jobs of `split`, `validate` and `unlearn`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..adapters.datasets import CanaryFile
from ..adapters.tables import read_set
from ..digests import tensor_digest
from ..ensembles import is_ensemble
from ..errors import ConfigError, TamperedError
from ..lineage import DatasetRevision, Parent
from ..records import Split, State
from ..split import Canary, SplitJob, union
from ..validate import ValidationJob
from .guarding import found_in, returned, watch
from .pools import grid, named, of_pieces, touched_cells, usable
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
    holdout, general = (bench.from_root(path) if path else None for path in (data.holdout, data.general))
    subjects, records = asked_for(bench)
    strangers = reader.strangers(holdout, states)
    dataset = union(reader.records(state, strangers) for state in states)
    found = _canary_file(bench, states, bench.registry.training_commit(parent.model), strangers)
    canaries = _canaries(found, {record.tag for record in dataset}, bench.ledger.erased()[1])
    known: dict[str, int | str | bool] = {"commitment": found.commitment, "committed": found.committed} if found else {}
    if found and (cut := grid(bench)):
        pieces = usable(bench, cut, found.commitment, touched_cells(cut, asked_now(bench), dataset))
        canaries, known["pieces"] = of_pieces(canaries, cut, pieces), named(cut, pieces)
    job = SplitJob(
        dataset=dataset,
        subjects=subjects,
        records=records,
        canaries=canaries,
        holdout=reader.beside(holdout, states, strangers),
        general=reader.beside(general, states),
    )
    return job, known


def included_canaries(bench: Workbench, states: Sequence[DatasetRevision]) -> tuple[frozenset[str], str | None]:
    """Record tags of the audit canaries that are trained on, and the commitment that names their pool; None where there is no file of them."""
    found = _canary_file(bench, states)
    if found is None:
        return frozenset(), None
    return frozenset(flip.record_id for flip in found.flips if flip.included and flip.pool == "audit"), found.commitment


def _canary_file(
    bench: Workbench, states: Sequence[DatasetRevision], trained_at: str | None = None, strangers: Sequence[str] = ()
) -> CanaryFile | None:
    path = bench.params.data.canaries
    return bench.reader.canaries(bench.from_root(path) if path else None, states, trained_at, strangers)


def asked_now(bench: Workbench) -> tuple[frozenset[str], frozenset[str]]:
    """Keyed tags of the people and of the single records that open requests name."""
    requests = bench.ledger.open()
    return frozenset(tag for each in requests for tag in each.subjects), frozenset(tag for each in requests for tag in each.records)


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
    """The parent's model, or ensemble, and tokenizer, refused unless its weights are those that were pinned; on the device of params.yaml unless
    told.
    """
    files = bench.registry.files(split.parent.model)
    found = tensor_digest(files.weights)
    if found != split.parent.tensor_digest:
        raise TamperedError(f"{split.parent.model}: weights have digest {found[:16]}, pinned were {split.parent.tensor_digest[:16]}; restore them")
    return load_files(files.model, files.tokenizer, device or bench.params.unlearn.device, dtype)


def load_files(model: Path, tokenizer: Path, device: str, dtype: str = "float32") -> tuple[Any, Any]:
    """One model, or an ensemble of shards, and its tokenizer."""
    from ..adapters import ensembles, models  # torch, which the other jobs do without

    if is_ensemble(model):
        ensemble, its_tokenizer, _ = ensembles.load(model, device)
        return ensemble, its_tokenizer
    return models.load_model(model, device, dtype), models.load_tokenizer(tokenizer)
