"""What the stage `train_shard` does: one shard from its last kept slice on, and with it every other shard that is out of date.

Loading a base and the libraries takes longer than training a small shard, and adapters may share passes: so the first stage that runs trains ahead,
and the stages of the other shards find theirs done. Which shard is out of date follows from its rows and the family alone, as DVC sees it too.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from itertools import count

from ..digests import md5_of, write_document
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
        _sweep(own)
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
                _sweep(plan)


def _note_replaced(plan: Planned) -> None:
    """Remember which files saw a record that has left: they are about to be replaced here, and may have been copied elsewhere."""
    if plan.log is None:
        return
    now = {record.tag for each in plan.slices for record in each.records}
    first = next((number for number, each in enumerate(plan.log.slices) if not set(each.tags) <= now), None)
    if first is None:
        return
    files = [path for number in range(first, len(plan.log.slices)) for path in sorted((plan.folder / "slices" / str(number)).glob("*"))]
    files += sorted(plan.folder.glob(WEIGHTS))
    found = replaced(plan.folder) | {md5_of(path): path.relative_to(plan.folder).as_posix() for path in files}
    write_document(plan.folder / f"{REPLACED}.json", stage_schema("replaced"), {"files": dict(sorted(found.items()))})
    for number in range(first, len(plan.log.slices)):
        shutil.rmtree(plan.folder / "slices" / str(number), ignore_errors=True)


def _sweep(plan: Planned) -> None:
    """Slices beyond the last one: what a family of more slices left."""
    for folder in (plan.folder / "slices").glob("*"):
        with suppress(ValueError):
            if int(folder.name) >= len(plan.slices):
                shutil.rmtree(folder)


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
