"""What the stage `train_shard` does: one shard from its last kept slice on, and with it every other shard that is out of date.

Loading a base and the libraries takes longer than training a small shard, and adapters may share passes: so the first stage that runs trains ahead,
and the stages of the other shards find theirs done. Which shard is out of date follows from its rows and the family alone, as DVC sees it too.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path

from ..digests import md5_of, read_document, write_document
from ..documents import encode
from ..errors import ConfigError
from ..exactness import ShardLog
from ..protocols import Progress
from .cutting import read_cut
from .families import REPLACED, TRAINING, WEIGHTS, base_of, exact_params, log_schema, replaced, shard_log
from .shard_plans import Planned, plan_of
from .workbench import Workbench, progress_bar, stage_schema


def train_shard(bench: Workbench, shard: int) -> str:
    """Bring one shard up to date, training others that are not on the way; one line for the user.

    Raises:
        ConfigError: no such shard.
    """
    family, _ = read_cut(bench)
    if shard not in range(family.shards):
        raise ConfigError(f"train_shard: no shard {shard}; exact.shards of params.yaml has {family.shards}")
    own = plan_of(bench, family, shard)
    if own.up_to_date():
        _settle(own)
        return _said(own.log, ahead=True)
    from .shard_workers import side_by_side  # torch, which a shard that was trained ahead does without

    others = [plan_of(bench, family, other) for other in range(family.shards) if other != shard]
    due = [own, *(other for other in others if not other.up_to_date())]
    if exact_params(bench).lora is None:
        side_by_side(bench, "train", {plan.shard: plan.records for plan in due}, train_here)
    else:  # adapters share their passes instead
        train_here(bench, [plan.shard for plan in due])
    return _said(shard_log(bench, shard), ahead=False)


def train_here(bench: Workbench, shards: Sequence[int]) -> None:
    """Train these shards in this process, write weights and logs.

    What a deletion made wrong is noted for purging first, so that a kill loses nothing of the note.
    """
    from .shard_models import Trainer

    family, _ = read_cut(bench)
    plans = [plan_of(bench, family, shard) for shard in shards]
    for plan in plans:
        _note_replaced(plan)
    trainer = Trainer(bench=bench, family=family, base=base_of(bench))
    groups = [[plan] for plan in plans] if exact_params(bench).lora is None else [list(plans)]  # adapters may share their passes
    total, done = sum(trainer.steps_left(plan) for plan in plans), count(1)
    with progress_bar(f"training {len(plans)} shards") as show:
        for group in groups:
            for plan, log in trainer.train(group, lambda: show(Progress(step=next(done), steps=total))):
                write_document(plan.folder / f"{TRAINING}.json", log_schema(), encode(log))
                _settle(plan)


def _note_replaced(plan: Planned) -> None:
    """Remember which files are replaced, and remove them: they saw records that have left or may leave, and may have been copied elsewhere.

    Once a log: what a killed run wrote since, under the same log, was made without the record.
    """
    for aside in [*plan.folder.rglob(".aside.*")]:  # what a kill left half written
        shutil.rmtree(aside, ignore_errors=True)
    first = _first_changed(plan)
    log = plan.folder / f"{TRAINING}.json"
    if first is None or _read(plan.folder).get("log") == md5_of(log):
        return
    files = [*_states(plan.folder, first), *plan.folder.glob(WEIGHTS)]
    found = replaced(plan.folder) | {md5_of(path): path.relative_to(plan.folder).as_posix() for path in files}
    _keep(plan.folder, found, md5_of(log))
    for path in files:
        path.unlink()


def _first_changed(plan: Planned) -> int | None:
    """The first slice of the last training that is another one now; None where none is."""
    if plan.log is None:
        return None
    kept = plan.kept_slices if plan.own else 0
    return None if kept == len(plan.log.slices) == len(plan.slices) else kept


def _states(folder: Path, first: int) -> list[Path]:
    """Files of the checkpoints from some slice on."""
    return [
        path for path in sorted((folder / "slices").glob("*/*")) if path.is_file() and path.parent.name.isdigit() and int(path.parent.name) >= first
    ]


def _settle(plan: Planned) -> None:
    """Remove checkpoints that belong to no slice with records so far; the log is a new one, of which nothing was noted yet."""
    used = {number for number in range(len(plan.slices)) if any(each.records for each in plan.slices[: number + 1])}
    for folder in (plan.folder / "slices").glob("*"):
        if not folder.name.isdigit() or int(folder.name) not in used:
            shutil.rmtree(folder)
    if found := replaced(plan.folder):
        _keep(plan.folder, found, None)


def _keep(folder: Path, files: Mapping[str, str], log: object) -> None:
    write_document(folder / f"{REPLACED}.json", stage_schema("replaced"), {"files": dict(sorted(files.items())), "log": log})


def _read(folder: Path) -> dict[str, object]:
    try:
        return read_document(folder / f"{REPLACED}.json", stage_schema("replaced"))
    except ConfigError:
        return {}


def _said(log: ShardLog | None, *, ahead: bool) -> str:
    if log is None:
        return "trained"
    records = sum(len(each.tags) for each in log.slices)
    if log.empty:
        return f"shard {log.shard} is empty: its model is the base, and it never answers"
    start = f"slice {log.resumed_after} of {len(log.slices)}" if log.resumed_after else "the base"
    how = f"trained from {start} on{', ahead of its turn' if ahead else ''}"
    seconds = sum(each.seconds for each in log.slices[log.resumed_after :])
    return "\n".join([f"shard {log.shard}: {records} records, {how}, {seconds:.1f} s, weights {log.tensor_digest[:8]}", *log.notes])
