"""What the stage `replay` does: the replays that are missing, and build/exact/unlearned.json with the evidence of the claim."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from .. import ensembles
from ..adapters import models
from ..adapters.tables import read_set
from ..digests import md5_of, tensor_digest
from ..documents import decode
from ..errors import TamperedError
from ..exactness import Cut, Exactness, Family, Replay, ShardLog
from ..records import Claim, Split, Unlearned
from ..sisa import log_digest, owner, shard_name, shard_of
from .cutting import read_cut
from .ensembling import logs_of
from .families import base_of, exact_params, replaced, shard_folder, shard_log, shards_folder
from .replaying import known_replay, replay
from .shard_plans import plan_of
from .shard_workers import side_by_side
from .shared_parts import shared_parts
from .workbench import Workbench, body

DONE = "all slices done"


def claim(bench: Workbench) -> str:
    """Repeat what has not been repeated yet, write what is claimed; one line for the user."""
    family, cut = read_cut(bench)
    split, logs = bench.value(Split, "split"), logs_of(bench, family)
    require_bound(bench, family, cut, logs)
    before = parent_digests(bench, split, family)
    changed, base = _changed(logs, before), base_of(bench)
    replays = _replays(bench, logs, changed)
    forgotten = read_set(bench.sets, "forget")
    gone = {record.tag for record in forgotten}
    evidence = Exactness(
        family=family.family,
        shards=family.shards,
        slices=family.slices,
        touched=tuple(sorted({shard_of(owner(record), family.shards) for record in forgotten})),
        digests=_digests(logs),
        logs={shard_name(log.shard): log_digest(log) for log in logs if not log.empty},
        empty=tuple(log.shard for log in logs if log.empty),
        before=before,
        holding=tuple(log.shard for log in logs if _names(log, gone) or _kept_from_parent(bench, split, log, before, gone)),
        replays=tuple(replays),
        shared=shared_parts(bench, split, base.reference, family.base.tensor_digest),
        purge=left_behind(bench, family, cut),
    )
    bench.write("unlearned", body(_unlearned(bench, split, cut, logs, evidence)))
    equal = sum(each.equal for each in replays)
    return f"{len(changed)} of {family.shards} shards retrained; {equal} of {len(replays)} replays equal" + _unequal(replays)


def parent_digests(bench: Workbench, split: Split, family: Family) -> dict[str, str]:
    """Shard -> tensor digest in the parent; empty where the parent is not of this family."""
    folder = bench.registry.files(split.parent.model).model
    if not ensembles.is_ensemble(folder):
        return {}
    manifest = ensembles.read(folder)
    return dict(manifest.digests) if manifest.family == family.family else {}


def require_bound(bench: Workbench, family: Family, cut: Cut, logs: Sequence[ShardLog]) -> None:
    """Refuse evidence that is not of this split, these rows and this model.

    Raises:
        TamperedError: one of them is another one.
    """
    split, again = bench.value(Split, "split"), "run `dvc repro`"
    if (cut.split_digest, cut.requests) != (split.digest, split.requests):
        raise TamperedError(f"{bench.path('cut')}: cut from another split than {bench.path('split')}; {again}")
    stale = [shard for shard in range(family.shards) if not plan_of(bench, family, shard).up_to_date()]
    if stale:
        raise TamperedError(f"shards {', '.join(map(str, stale))}: rows, log and weights are not of one training; {again}")
    retained = {record.tag for record in read_set(bench.sets, "retain")}
    strange = sum(record.tag not in retained for shard in range(family.shards) for record in read_set(shards_folder(bench), str(shard)))
    if strange:
        raise TamperedError(f"{shards_folder(bench)}: {strange} records that the split does not retain; {again}")
    manifest = ensembles.read(bench.route / "model")
    ensembles.verify(bench.route / "model", manifest)
    if (manifest.family, dict(manifest.digests), manifest.off) != (family.family, _digests(logs), ()):
        raise TamperedError(f"{bench.route / 'model'}: not put together from these shards; {again}")


def _names(log: ShardLog, gone: set[str]) -> bool:
    return any(tag in gone for each in log.slices for tag in each.tags)


def _kept_from_parent(bench: Workbench, split: Split, log: ShardLog, before: dict[str, str], gone: set[str]) -> bool:
    """Whether a shard has the very weights of the parent's, whose registered log names a forgotten record: then they were made with it."""
    name = shard_name(log.shard)
    if log.empty or before.get(name) != log.tensor_digest:
        return False
    document = bench.registry.document(split.parent.model, f"shards/{name}")
    if document is None:
        return False
    past = decode(ShardLog, {key: value for key, value in document.items() if key != "schema"}, f"{split.parent.model}: shard {name}")
    return _names(past, gone)


def _digests(logs: Sequence[ShardLog]) -> dict[str, str]:
    return {shard_name(log.shard): log.tensor_digest for log in logs if not log.empty}


def _changed(logs: Sequence[ShardLog], before: dict[str, str]) -> list[ShardLog]:
    """Shards whose weights are not the parent's."""
    return [log for log in logs if not log.empty and before.get(shard_name(log.shard)) != log.tensor_digest]


def _replays(bench: Workbench, logs: Sequence[ShardLog], changed: Sequence[ShardLog]) -> list[Replay]:
    """Of each shard that has to be replayed what was found, now or earlier, in the order of the shards."""
    wanted = {"all": [log for log in logs if not log.empty], "retrained": list(changed), "off": []}[exact_params(bench).replay]
    due = {log.shard: sum(len(each.tags) for each in log.slices) for log in wanted if known_replay(bench, log) is None}
    if due:
        side_by_side(bench, "replay", due, replay_here)
    return [found for log in wanted if (found := known_replay(bench, log)) is not None]


def replay_here(bench: Workbench, shards: Sequence[int]) -> None:
    """Replay these shards in this process; what is found is kept beside the others."""
    logs = [log for shard in shards if (log := shard_log(bench, shard)) is not None]
    rows = {log.shard: read_set(shards_folder(bench), str(log.shard)) for log in logs}
    replay(bench, logs, rows, base_of(bench))


def left_behind(bench: Workbench, family: Family, cut: Cut) -> dict[str, str]:
    """Replaced files of touched shards, md5 -> path; not those in use again, since a record came back and its training gave the same bits."""
    listed = [*cut.left_over.items(), *(item for shard in cut.touched for item in _replaced(bench, shard))]
    return {md5: path for md5, path in sorted(listed) if not _in_use(bench.folder / path, md5)}


def _in_use(path: Path, md5: str) -> bool:
    return path.is_file() and md5_of(path) == md5


def _replaced(bench: Workbench, shard: int) -> Iterator[tuple[str, str]]:
    folder = shard_folder(bench, shard)
    home = folder.relative_to(bench.folder).as_posix()
    yield from ((md5, f"{home}/{path}") for md5, path in replaced(folder).items())


def _unlearned(bench: Workbench, split: Split, cut: Cut, logs: Sequence[ShardLog], evidence: Exactness) -> Unlearned:
    changed = _changed(logs, dict(evidence.before))
    trained = [each for log in changed for each in log.slices[log.resumed_after :]]
    sharding = {"shards": evidence.shards, "slices": evidence.slices, "aggregation": exact_params(bench).aggregation}
    return Unlearned(
        requests=cut.requests,
        parent=split.parent,
        tensor_digest=tensor_digest((bench.route / "model").glob("*.safetensors")),
        split_digest=split.digest,
        method={"name": "sisa", **sharding, **logs[0].settings},
        claim=Claim.EXACT,
        steps=sum(each.steps for each in trained),
        seconds=round(sum(each.seconds for each in trained), 1),
        stopped=DONE,
        notes=tuple(note for log in changed for note in log.notes),
        environment=models.environment(),
        exactness=evidence,
    )


def _unequal(replays: Sequence[Replay]) -> str:
    return "".join(
        f"\nshard {each.shard}: repeated to {each.found[:8]}, logged {each.logged[:8]}; {'; '.join(each.differences) or 'nothing else differs'}"
        for each in replays
        if not each.equal
    )
