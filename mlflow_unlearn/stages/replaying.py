"""Shards trained once more from their logs, and compared: the evidence that nothing but the logged data made them."""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from ..digests import write_document
from ..documents import decode, encode
from ..errors import ConfigError, DataError, TamperedError
from ..exactness import Family, Replay, ShardLog
from ..protocols import Progress, Record
from ..sisa import log_digest, planned
from .families import shard_folder
from .shard_plans import Planned, code_digest
from .workbench import Workbench, progress_bar, stage_schema

if TYPE_CHECKING:
    from ..adapters.bases import BaseFiles

SCHEMA = stage_schema("replay")


def replays_folder(bench: Workbench) -> Path:
    """One document a replay; a training is repeated once, and what was found stays."""
    return bench.route / "replays"


def known_replay(bench: Workbench, log: ShardLog) -> Replay | None:
    """What a replay of these very weights found earlier."""
    path = _path(bench, log)
    try:
        document = json.loads(path.read_bytes())
        document.pop("schema")
        found = decode(Replay, document, str(path))
    except (OSError, ValueError, KeyError, ConfigError):
        return None
    return found if (found.shard, found.logged, found.log) == (log.shard, log.tensor_digest, log_digest(log)) else None


def replay(bench: Workbench, logs: Sequence[ShardLog], rows: Mapping[int, Sequence[Record]], base: BaseFiles) -> list[Replay]:
    """Train every shard again and keep what was found.

    Args:
        bench: where params.yaml is; of it only the device counts.
        logs: of shards of one family, which are not empty.
        rows: shard -> the records its log names, as `records_of` finds them.
        base: what they started from.

    Raises:
        ConfigError: the base is another one.
    """
    from .shard_models import Trainer

    family = family_of(logs[0], base)
    trainer = Trainer(bench=bench, family=family, base=base)
    plans = {log.shard: _planned(bench, log, family, rows[log.shard]) for log in logs}
    done, total = count(1), sum(trainer.steps_left(plan) for plan in plans.values())
    found = []
    bench.scratch.mkdir(parents=True, exist_ok=True)
    with progress_bar(f"replaying {len(logs)} shards") as show, tempfile.TemporaryDirectory(dir=bench.scratch, prefix=".aside.") as aside:
        for log in logs:
            started = time.monotonic()
            digests = trainer.replay([plans[log.shard]], Path(aside), lambda: show(Progress(step=next(done), steps=total)))
            one = Replay(
                shard=log.shard,
                logged=log.tensor_digest,
                found=digests[log.shard],
                log=log_digest(log),
                differences=differences(log, trainer.environment),
                device=trainer.environment.get("device", "cpu"),
                seconds=round(time.monotonic() - started, 3),
            )
            write_document(_path(bench, log), SCHEMA, encode(one))
            found.append(one)
    return found


def records_of(log: ShardLog, records: Sequence[Record]) -> list[Record]:
    """The records that a log names, in its order, from a dataset that holds them; texts are compared by digest.

    Raises:
        DataError: one is not there any more.
        TamperedError: a text is not what was trained on.
    """
    by_tag: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda record: (record.tag, record.prompt, record.answer)):
        by_tag.setdefault(record.tag, []).append(record)  # one record may have several wordings, in several revisions
    named = [tag for each in log.slices for tag in each.tags]
    if absent := sum(count > len(by_tag.get(tag, ())) for tag, count in Counter(named).items()):
        raise DataError(
            f"shard {log.shard}: {absent} of {len(named)} records are in no dataset revision of this version; its data have to be kept as long"
        )
    wordings = {tag: iter(some) for tag, some in by_tag.items()}
    return [next(wordings[tag]) for tag in named]


def family_of(log: ShardLog, base: BaseFiles) -> Family:
    """The family of a log; how many shards it has does not matter to one of them."""
    pinned = base.pinned
    if pinned.tensor_digest != log.base:
        raise ConfigError(f"{base.reference}: base has digest {pinned.tensor_digest[:16]}, shard {log.shard} started from {log.base[:16]}")
    return Family(family=log.family, shards=log.shard + 1, slices=len(log.slices), base=pinned, settings=log.settings)


def differences(log: ShardLog, environment: Mapping[str, str]) -> tuple[str, ...]:
    """What is not as it was when the shard was trained."""
    names = sorted({*log.environment, *environment})
    pairs = [(name, log.environment.get(name, "none"), environment.get(name, "none")) for name in names]
    pairs.append(("source", log.code[:8], code_digest()[:8]))
    return tuple(f"{name}: {then} then, {now} now" for name, then, now in pairs if then != now)


def _planned(bench: Workbench, log: ShardLog, family: Family, records: Sequence[Record]) -> Planned:
    seed = log.settings.get("seed")
    if not isinstance(seed, int):
        raise ConfigError(f"shard {log.shard}: its log has no seed, so that nobody can repeat it")
    slices = planned(family, log.shard, records, seed)
    if wrong := [number for number, (now, then) in enumerate(zip(slices, log.slices, strict=True)) if now.data != then.data]:
        raise TamperedError(f"shard {log.shard}: slice {wrong[0]} is not what was trained on: same records, other texts or another order")
    return Planned(shard=log.shard, slices=slices, log=None, folder=shard_folder(bench, log.shard))


def _path(bench: Workbench, log: ShardLog) -> Path:
    return replays_folder(bench) / f"{log.shard}-{log.tensor_digest[:16]}.json"
