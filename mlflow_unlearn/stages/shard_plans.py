"""A shard as it has to become and as it was trained last: what is out of date, what is kept, what its log will say. Without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..adapters.tables import read_set
from ..digests import sha256_json, source_digest, tensor_digest
from ..errors import TamperedError
from ..exactness import Family, ShardLog, SliceLog
from ..sisa import PlannedSlice, epochs_of_slice, planned
from .families import WEIGHTS, exact_params, shard_folder, shard_log, shards_folder
from .workbench import Workbench


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A shard as it has to become, and as it was trained last."""

    shard: int
    slices: tuple[PlannedSlice, ...]
    log: ShardLog | None
    folder: Path
    own: bool = True
    """Whether the log is one of this shard in this family."""

    @property
    def records(self) -> int:
        """How many there are."""
        return sum(len(each.records) for each in self.slices)

    @property
    def kept_slices(self) -> int:
        """Leading slices that the last training had too."""
        past = self.log.slices if self.log else ()
        pairs = zip(self.slices, past, strict=False)
        return next((number for number, (now, then) in enumerate(pairs) if now.chain != then.chain), min(len(self.slices), len(past)))

    def up_to_date(self) -> bool:
        """Whether the weights that are there come from exactly these slices and are what their log says."""
        if self.log is None or not self.own or _described(self.slices) != _logged(self.log):
            return False
        try:
            return weights_digest(self.folder) == self.log.tensor_digest
        except TamperedError:
            return False


def plan_of(bench: Workbench, family: Family, shard: int) -> Planned:
    """One shard, from its rows and its last log."""
    records = read_set(shards_folder(bench), str(shard))
    slices, log = planned(family, shard, records, exact_params(bench).seed), shard_log(bench, shard)
    expected = (shard, family.family, family.base.tensor_digest, family.settings)
    own = log is not None and (log.shard, log.family, log.base, log.settings) == expected
    return Planned(shard=shard, slices=slices, log=log, folder=shard_folder(bench, shard), own=own)


def _described(slices: Sequence[PlannedSlice]) -> list[tuple[object, ...]]:
    return [(tuple(record.tag for record in each.records), each.data, each.seed, each.chain) for each in slices]


def _logged(log: ShardLog) -> list[tuple[object, ...]]:
    return [(each.tags, each.data, each.seed, each.chain) for each in log.slices]


def weights_digest(folder: Path) -> str:
    """Tensor digest of a shard's weights; that of no tensor where it has none, as an empty shard.

    Raises:
        TamperedError: the file is cut short.
    """
    return tensor_digest(folder.glob(WEIGHTS))


def slice_logs(plan: Planned, optimiser_epochs: int, steps: Sequence[int], seconds: Sequence[float], tokens: Sequence[int]) -> tuple[SliceLog, ...]:
    """What each slice was; of slices taken up, how long they took is what the last log says."""
    past = plan.log.slices if plan.log else ()
    epochs = epochs_of_slice(optimiser_epochs, len(plan.slices))
    return tuple(
        SliceLog(
            tags=tuple(record.tag for record in each.records),
            data=each.data,
            seed=each.seed,
            epochs=epochs,
            steps=steps[number],
            tokens=tokens[number],
            chain=each.chain,
            seconds=round(seconds[number], 3) or (past[number].seconds if number < plan.kept_slices else 0.0),
        )
        for number, each in enumerate(plan.slices)
    )


def run_digest(chain: str, environment: Mapping[str, str]) -> str:
    """What a slice checkpoint counts for: its chain, in this environment. Bits of another one could not be repeated."""
    return sha256_json([chain, environment])


def lost_states(plan: Planned, resumed_after: int) -> list[str]:
    """What to say when a checkpoint that ought to be there could not be taken up."""
    if resumed_after >= plan.kept_slices or plan.log is None:
        return []
    return [
        f"shard {plan.shard}: the checkpoint after slice {plan.kept_slices - 1} is missing, damaged or of another environment; trained again "
        + (f"from slice {resumed_after - 1} on" if resumed_after else "from the base")
    ]


def code_digest() -> str:
    """Digest of this package's source."""
    return source_digest(Path(__file__).parents[1])
