"""The verb `forecast`: what an exact deletion will repeat before it runs, and how many shards would suit the requests there have been. Pure.

Paper: Bourtoule et al. 2021, "Machine Unlearning" (arXiv:1912.03817), sections IV and V: the cost of a deletion is what its shards repeat from the
first slice that held one of the records. Tokens are counted; seconds are those of the shards' last training, token by token.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from .exactness import Family, ShardLog
from .protocols import Record
from .sisa import cut, first_touched, owner, planned, predicted_fraction, sliced, stage_tokens

CHARACTERS_A_TOKEN = 4
"""A rule of thumb for English text, used until a shard was trained here."""
STAGE_SECONDS = 3.5
"""Start of one shard's stage: DVC, a process and its libraries. Measured on two cores, CPU time."""
RUN_SECONDS = 1.5
"""Beside that, the base of a training or replay: one of 0.2 million weights, measured likewise. A large base takes longer to load."""
MIN_RECORDS = 100
"""Fewest records in a shard that are recommended: a chosen floor. Shards of about 250 answered .99 of their own people's questions (measured);
below a hundred nothing was, and a model of so little data answers for fewer people as well.
"""
ASSUMED = (1, 5, 20)
"""People a batch where the ledger has no history."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What a family's arithmetic depends on."""

    shards: int
    slices: int
    epochs: int
    """Passes over a shard in all, as `exact.optimiser.epochs`."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """How much work a record is."""

    tokens_per_character: float = 1 / CHARACTERS_A_TOKEN
    """Of prompt plus answer."""
    seconds_per_token: float | None = None
    """One process, per token trained on; None: nothing was trained here yet."""
    counted: bool = False
    """Whether the tokens are those of the last training; otherwise they are an estimate."""


@dataclass(frozen=True, kw_only=True)
class ForecastJob:
    """Everything a forecast goes by."""

    records: Sequence[Record]
    """What the family is, or would be, trained on, the requested records included."""
    requested: Collection[str]
    """Tags of those of them that are asked for."""
    canaries: Collection[str] = ()
    """Tags of canaries that go with them."""
    shape: Shape
    rates: Rates = field(default_factory=Rates)
    trained: Family | None = None
    """The family that was trained, if params.yaml still describes it."""
    logs: Mapping[int, ShardLog] = field(default_factory=dict)
    """Shard of it -> last training."""
    seed: int = 0
    processes: int = 1
    replay: Literal["all", "retrained", "off"] = "all"
    replayed: Collection[int] = ()
    """Shards whose last training was replayed already."""
    cost_per_hour: float | None = None


@dataclass(frozen=True, kw_only=True)
class Work:
    """Some training."""

    shards: int
    records: int
    tokens: int
    """Trained on, each pass counted."""
    seconds: float | None
    """Wall time, start-up included; None: not known before the first training."""
    cost: float | None = None
    """Seconds times `exact.cost_per_hour`."""


@dataclass(frozen=True, kw_only=True)
class TouchedShard:
    """A shard that holds requested records."""

    shard: int
    requested: int
    canaries: int
    """Records that leave it."""
    resumes_before: int
    """The slice that is trained first, from the checkpoint before it; the number of slices where nothing is left to do."""
    records: int
    """What is left, all of it trained on again."""
    tokens: int
    whole_tokens: int
    """From the base on, as a replay does."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a deletion will cost."""

    people: int
    """Owners of requested records in the data; a record about nobody is its own."""
    requested: int
    canaries: int
    touched: tuple[TouchedShard, ...]
    again: Work
    """Of the touched shards."""
    full: Work
    """All shards from the base on, without the records."""
    replay: Work
    """The repetition that the claim needs; not in `again`."""
    fraction: float
    """`again` in tokens of `full`."""
    formula: float
    """What is expected of so many people before it is known where they are."""
    also_due: tuple[int, ...] = ()
    """Shards that hold none of the records and are out of date for another reason; trained in the same run, not counted in `again`."""


def forecast(job: ForecastJob) -> Forecast:
    """Count what the deletion repeats."""
    shape, gone = job.shape, {*job.requested, *job.canaries}
    requested = [record for record in job.records if record.tag in job.requested]
    owners = {owner(record) for record in requested}
    first = first_touched(map(owner, (record for record in job.records if record.tag in gone)), shape.shards, shape.slices)
    before = cut(job.records, shape.shards)
    after = [[record for record in piece if record.tag not in gone] for piece in before]
    shards = [_shard(job, number, (before[number], after[number]), first.get(number)) for number in range(shape.shards)]
    touched = tuple(each for each in shards if each.shard in first)
    due = [each for each in touched if each.resumes_before < shape.slices]
    again = _work(job, due, [each.tokens for each in due], len(due))
    full = _work(job, shards, [each.whole_tokens for each in shards], shape.shards)
    repeated = [each for each in shards if each.records and _to_replay(job, each, due)]
    return Forecast(
        people=len(owners),
        requested=len(requested),
        canaries=sum(each.canaries for each in touched),
        touched=touched,
        again=again,
        full=full,
        replay=_work(job, repeated, [each.whole_tokens for each in repeated], min(1, len(repeated))),
        fraction=again.tokens / full.tokens if full.tokens else 0.0,
        formula=predicted_fraction(len(owners), shape.shards, shape.slices),
        also_due=tuple(each.shard for each in shards if job.trained and each.shard not in first and each.resumes_before < shape.slices),
    )


def rates_of(logs: Iterable[ShardLog], records: Sequence[Record]) -> Rates:
    """What trainings that were logged say about records like these; the rule of thumb where they say nothing."""
    characters = {record.tag: len(record.prompt) + len(record.answer) for record in records}
    passes, length, trained, seconds = 0.0, 0, 0, 0.0
    for log in logs:
        tags = [tag for each in log.slices for tag in each.tags]
        known = [characters[tag] for tag in tags if tag in characters]
        if known:
            passes += log.slices[-1].tokens / log.slices[-1].epochs * len(known) / len(tags)
            length += sum(known)
        timed = [each for each in log.slices if each.seconds]
        trained, seconds = trained + sum(each.tokens for each in timed), seconds + sum(each.seconds for each in timed)
    speed = seconds / trained if trained else None
    return Rates(tokens_per_character=passes / length, seconds_per_token=speed, counted=True) if length else Rates(seconds_per_token=speed)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A number of shards, and what the batches would have cost with it."""

    shards: int
    records: float
    """In a shard, on average."""
    touched: float
    """Shards a batch, expected."""
    fraction: float
    """Expected share of a full training a batch."""
    cost: float
    """That, and the start of each touched shard's stage in the same unit."""


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """How many shards would suit."""

    shards: int
    slices: int
    batches: tuple[int, ...]
    """People in each batch that the figures are means of."""
    assumed: bool
    """Whether there is no history and these are assumed."""
    stage_share: float
    """Start of one shard's stage as a share of a full training; 0 where that is not known."""
    floor: int
    choices: tuple[Choice, ...]


def recommend(records: int, slices: int, batches: Sequence[int], stage_share: float = 0.0, floor: int = MIN_RECORDS) -> Recommendation:
    """The cheapest number of shards, a power of two, that leaves `floor` records in each; of equally cheap ones the fewest.

    Args:
        records: how many there are to train on.
        slices: of a shard.
        batches: people in each batch of the past; none: `ASSUMED`.
        stage_share: start of one shard's stage as a share of a full training.
        floor: fewest records in a shard; smaller ones answer worse.
    """
    sizes = tuple(batches) or ASSUMED
    most = max(1, records // floor)
    choices = tuple(_choice(records, 2**power, slices, sizes, stage_share) for power in range(most.bit_length()))
    best = min(choices, key=lambda choice: (round(choice.cost, 6), choice.shards))
    return Recommendation(
        shards=best.shards,
        slices=slices,
        batches=sizes,
        assumed=not batches,
        stage_share=stage_share,
        floor=floor,
        choices=choices,
    )


def _choice(records: int, shards: int, slices: int, batches: Sequence[int], stage_share: float) -> Choice:
    fraction = sum(predicted_fraction(people, shards, slices) for people in batches) / len(batches)
    touched = sum(shards * predicted_fraction(people, shards, 1) for people in batches) / len(batches)
    return Choice(shards=shards, records=records / shards, touched=touched, fraction=fraction, cost=fraction + stage_share * touched)


def _shard(job: ForecastJob, number: int, records: tuple[Sequence[Record], Sequence[Record]], first: int | None) -> TouchedShard:
    before, after = records
    shape = job.shape
    per_slice = [round(sum(map(_length, each)) * job.rates.tokens_per_character) for each in sliced(after, shape.slices)]
    stages = stage_tokens(per_slice, shape.epochs)
    resumes = _kept(job, job.trained, number, after) if job.trained else (shape.slices if first is None else first)
    return TouchedShard(
        shard=number,
        requested=sum(record.tag in job.requested for record in before),
        canaries=sum(record.tag in job.canaries and record.tag not in job.requested for record in before),
        resumes_before=resumes,
        records=len(after),
        tokens=sum(stages[resumes:]),
        whole_tokens=sum(stages),
    )


def _length(record: Record) -> int:
    return len(record.prompt) + len(record.answer)


def _kept(job: ForecastJob, family: Family, shard: int, records: Sequence[Record]) -> int:
    """Leading slices that the last training had too, as the stage itself will find them."""
    log = job.logs.get(shard)
    if log is None or log.family != family.family or len(log.slices) != family.slices:
        return 0
    pairs = zip(planned(family, shard, records, job.seed), log.slices, strict=True)
    return next((number for number, (now, then) in enumerate(pairs) if now.chain != then.chain), family.slices)


def _to_replay(job: ForecastJob, shard: TouchedShard, due: Sequence[TouchedShard]) -> bool:
    if job.replay == "off":
        return False
    return shard in due or (job.replay == "all" and shard.shard not in job.replayed)


def _work(job: ForecastJob, shards: Sequence[TouchedShard], tokens: Sequence[int], stages: int) -> Work:
    speed = job.rates.seconds_per_token
    seconds = None if speed is None else _wall(tokens, speed, job.processes) + STAGE_SECONDS * stages
    return Work(
        shards=len(shards),
        records=sum(each.records for each in shards),
        tokens=sum(tokens),
        seconds=seconds,
        cost=None if seconds is None or job.cost_per_hour is None else seconds / 3600 * job.cost_per_hour,
    )


def _wall(tokens: Sequence[int], seconds_per_token: float, processes: int) -> float:
    """The start, and the process with most to do, the dearest shard dealt first."""
    spent = [0] * max(1, processes)
    for each in sorted(tokens, reverse=True):
        spent[spent.index(min(spent))] += each
    return (RUN_SECONDS if tokens else 0.0) + max(spent) * seconds_per_token
