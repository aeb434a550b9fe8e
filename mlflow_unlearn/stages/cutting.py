"""What the stage `shards` does: the data that may be trained on, cut by keyed hash of their owners."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..adapters.dvc_history import WORKSPACE
from ..adapters.tables import read_set, write_set
from ..digests import md5_of
from ..documents import decode, encode
from ..errors import ConfigError, DataError
from ..exactness import Cut, Family
from ..lineage import DatasetRevision
from ..protocols import Record
from ..records import Split
from ..sisa import cut, owner, shard_of
from ..split import union
from .families import WEIGHTS, described, replaced, shards_folder
from .guarding import found_in, returned, watch
from .jobs import asked_now
from .tracing import own_datasets
from .workbench import Workbench, body


@dataclass(frozen=True, kw_only=True)
class Data:
    """What is trained on, and what is left out of it."""

    requests: tuple[str, ...]
    datasets: tuple[DatasetRevision, ...]
    kept: Sequence[Record]
    forgotten: Sequence[Record]
    split_digest: str | None = None


def cut_shards(bench: Workbench) -> str:
    """Write build/raw/shards (git-ignored, never cached), build/exact/family.json and cut.json; one line for the user.

    Raises:
        DataError: nothing is left to train on, or an erased person is back in the data.
    """
    before, family, data = _before(bench), described(bench), _data(bench)
    pieces = cut(data.kept, family.shards)
    if not data.kept:
        raise DataError("shards: no record is left to train on; expected at least one. Look at data.path in params.yaml and at the open requests")
    folder = shards_folder(bench)
    folder.mkdir(parents=True, exist_ok=True)
    for shard, piece in enumerate(pieces):
        write_set(folder, str(shard), [_lean(record) for record in piece])
    left_over = _remembered(bench) | _left_over(bench, family.shards)
    touched = tuple(sorted({shard_of(owner(record), family.shards) for record in data.forgotten}))
    bench.write("family", encode(family))
    found = Cut(
        requests=data.requests,
        family=family.family,
        datasets=data.datasets,
        records={str(shard): len(piece) for shard, piece in enumerate(pieces)},
        touched=touched,
        split_digest=data.split_digest,
        left_over=dict(sorted(left_over.items())),
    )
    bench.write("cut", body(found))
    for folder in _beyond(bench, family.shards):  # listed first: a kill in between loses nothing of the list
        shutil.rmtree(folder)
    return _said(found, before, family)


def read_cut(bench: Workbench) -> tuple[Family, Cut]:
    """What `cut_shards` wrote.

    Raises:
        ConfigError: it is not there, or the two documents are of different families.
    """
    family, found = decode(Family, bench.read("family"), str(bench.path("family"))), bench.value(Cut, "cut")
    if found.family != family.family:
        raise ConfigError(f"{bench.path('cut')}: cut for family {found.family[:8]}, family.json is {family.family[:8]}; run `dvc repro`")
    return family, found


def _data(bench: Workbench) -> Data:
    """With open requests what the split retains of the parent's data; without, the dataset as it is here."""
    if bench.read("split")["requests"]:
        return _retained(bench, bench.value(Split, "split"))
    state = _present(bench)
    records = union([bench.reader.records(state)])
    subjects, tags = asked_now(bench)  # an open request whose people the parent never saw starts no batch, and nobody trains on them either
    forgotten = [record for record in records if record.subject in subjects or record.tag in tags]
    kept = [record for record in records if record.subject not in subjects and record.tag not in tags]
    _refuse_returned(bench, kept, state)
    return Data(requests=(), datasets=(state,), kept=kept, forgotten=forgotten)


def _retained(bench: Workbench, split: Split) -> Data:
    """What a base was trained on is part of the parent's data and no part of the shards'."""
    states = own_datasets(bench, split.parent)
    kept, forgotten = read_set(bench.sets, "retain"), read_set(bench.sets, "forget")
    if states != split.parent.datasets:
        own = {record.tag for state in states for record in bench.reader.records(state)}
        kept, forgotten = ([record for record in some if record.tag in own] for some in (kept, forgotten))
    return Data(requests=split.requests, datasets=states, kept=kept, forgotten=forgotten, split_digest=split.digest)


def _present(bench: Workbench) -> DatasetRevision:
    data = bench.params.data
    states = bench.project.dataset_states(data.name, bench.from_root(data.path))
    found = next((state for state in states if WORKSPACE in state.revisions), None)
    if found is None:
        raise DataError(f"{data.path}: DVC does not track it in the workspace, so there is nothing to train on; see params.yaml: data")
    return found


def _refuse_returned(bench: Workbench, records: Sequence[Record], state: DatasetRevision) -> None:
    """Who was erased must not come back by training on new data."""
    watched = watch(bench)
    if watched.problems:
        raise ConfigError("\n".join(watched.problems))
    back, resemblance = returned(found_in(bench, watched, records, [state]), len(records))
    if count := int((back | (resemblance >= bench.policy.near_duplicate_refuse)).sum()):
        raise DataError(f"shards: {count} records of the dataset were erased by a closed request; `mlflow-unlearn guard` names the files")


def _lean(record: Record) -> Record:
    """Only what is trained on, so that a shard's file changes with nothing else."""
    return replace(record, paraphrase=None, wrong_answers=(), swapped_prompt=None, swapped_answer=None, group=None)


def _left_over(bench: Workbench, shards: int) -> dict[str, str]:
    """md5 -> path of the files of shards of a larger family that was here before: their weights know people and nothing would look after them."""
    gone: dict[str, str] = {}
    for folder in _beyond(bench, shards):
        files = [path for path in (*folder.glob(WEIGHTS), *folder.glob("slices/*/*")) if path.is_file()]
        gone |= {md5_of(path): path.relative_to(bench.folder).as_posix() for path in files}
        gone |= {md5: f"{folder.relative_to(bench.folder).as_posix()}/{path}" for md5, path in replaced(folder).items()}
    return gone


def _beyond(bench: Workbench, shards: int) -> list[Path]:
    return [folder for folder in (bench.route / "shards").glob("*") if folder.name.isdigit() and int(folder.name) >= shards]


def _remembered(bench: Workbench) -> dict[str, str]:
    try:
        return dict(decode(Cut, bench.read("cut"), str(bench.path("cut"))).left_over)
    except ConfigError:
        return {}


def _before(bench: Workbench) -> str | None:
    try:
        return str(bench.read("family")["family"])
    except (ConfigError, KeyError):
        return None


def _said(found: Cut, before: str | None, family: Family) -> str:
    counts = sorted(found.records.values())
    sizes = f"{sum(counts)} records in {len(counts)} shards of {counts[0]} to {counts[-1]}"
    lines = [f"{sizes}, {family.slices} slices each" + (f"; {len(found.touched)} touched by what is left out" if found.requests else "")]
    if before is not None and before != family.family:
        lines.append(
            f"a new family, {family.family[:8]} after {before[:8]}: shards, key, base or settings changed, so that every shard is trained anew"
        )
    if empty := [shard for shard, count in found.records.items() if not count]:
        lines.append(f"empty: shard {', '.join(empty)}; they never answer, and the others answer for their people")
    return "\n".join(lines)
