"""What a deletion will cost: against counting it out, drawing it, and the trainings that were logged."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_unlearn import sisa
from mlflow_unlearn.digests import keyed_tag
from mlflow_unlearn.exactness import Family, PinnedBase, ShardLog, SliceLog
from mlflow_unlearn.forecast import ASSUMED, RUN_SECONDS, STAGE_SECONDS, Forecast, ForecastJob, Rates, Shape, forecast, rates_of, recommend
from mlflow_unlearn.protocols import Record

KEY, SHAPE = bytes(range(32)), Shape(shards=4, slices=3, epochs=6)
FAMILY = Family(family="f", shards=4, slices=3, base=PinnedBase(reference="b", tensor_digest="d", tokenizer_digest="t"), settings={})
ONE_A_CHARACTER = Rates(tokens_per_character=1.0)


def record(number: int, people: int = 30) -> Record:
    subject = None if number % 7 == 0 else keyed_tag(KEY, "subject", str(number % people))
    return Record(tag=keyed_tag(KEY, "record", str(number)), subject=subject, prompt="?" * (1 + number % 5), answer="!" * (1 + number % 3))


RECORDS = [record(number) for number in range(120)]
PEOPLE = sorted({each.subject for each in RECORDS if each.subject})


def asked(*people: str, **fields: object) -> Forecast:
    requested = {each.tag for each in RECORDS if each.subject in people}
    return forecast(ForecastJob(**{"records": RECORDS, "requested": requested, "shape": SHAPE, "rates": ONE_A_CHARACTER, **fields}))


def log_of(records: list[Record], shard: int, seconds: float = 1.0) -> ShardLog:
    """As a training would have logged it, one token a character."""
    plan = sisa.planned(FAMILY, shard, sisa.cut(records, 4)[shard], seed=0)
    tokens = sisa.stage_tokens([sum(len(each.prompt + each.answer) for each in part.records) for part in plan], SHAPE.epochs)
    slices = tuple(
        SliceLog(
            tags=tuple(each.tag for each in part.records),
            data=part.data,
            seed=part.seed,
            epochs=sisa.epochs_of_slice(SHAPE.epochs, 3),
            steps=1,
            tokens=count,
            chain=part.chain,
            seconds=seconds,
        )
        for part, count in zip(plan, tokens, strict=True)
    )
    return ShardLog(shard=shard, family="f", base="d", settings={}, slices=slices, tensor_digest="w", code="c", environment={})


def logs(records: list[Record] = RECORDS) -> dict[int, ShardLog]:
    return {shard: log_of(records, shard) for shard in range(4)}


def counted_out(gone: set[str]) -> tuple[int, int]:
    """Tokens of every stage whose records are not those of before, and of all stages: each stage trains on all slices so far."""
    again = full = 0
    for piece in sisa.cut(RECORDS, SHAPE.shards):
        for stage in range(SHAPE.slices):
            before = [each for each in piece if sisa.slice_of(sisa.owner(each), SHAPE.slices) <= stage]
            after = [each for each in before if each.tag not in gone]
            cost = sum(len(each.prompt + each.answer) for each in after) * round(2 * SHAPE.epochs / (SHAPE.slices + 1))
            full, again = full + cost, again + cost * (after != before)
    return again, full


@given(st.sets(st.sampled_from(PEOPLE), max_size=8), st.sets(st.sampled_from([each.tag for each in RECORDS]), max_size=3))
def test_the_tokens_are_those_of_counting_every_stage_out(people: set[str], single: set[str]) -> None:
    gone = single | {each.tag for each in RECORDS if each.subject in people}
    found = asked(requested=gone)
    assert (found.again.tokens, found.full.tokens) == counted_out(gone)


@pytest.mark.parametrize(("deletions", "shards", "slices"), [(1, 4, 3), (5, 8, 4), (20, 16, 2), (20, 64, 1)])
def test_the_formula_is_what_drawing_people_gives_within_two_percent(deletions: int, shards: int, slices: int) -> None:
    chance, draws, total = random.Random(0), 4000, 0.0
    for _ in range(draws):
        first: dict[int, int] = {}
        for _ in range(deletions):
            shard, number = chance.randrange(shards), chance.randrange(slices)
            first[shard] = min(number, first.get(shard, slices))
        total += sum(sum(range(number + 1, slices + 1)) for number in first.values()) / (shards * slices * (slices + 1) / 2)
    assert sisa.predicted_fraction(deletions, shards, slices) == pytest.approx(total / draws, rel=0.02)


def test_the_forecast_of_people_drawn_at_random_is_the_formula_within_two_percent() -> None:
    people = [keyed_tag(KEY, "subject", f"drawn {number}") for number in range(1000)]
    records = [Record(tag=keyed_tag(KEY, "record", tag), subject=tag, prompt="????", answer="!!!!") for tag in people]
    chance, shape = random.Random(1), Shape(shards=16, slices=2, epochs=3)
    drawn = [{keyed_tag(KEY, "record", tag) for tag in chance.sample(people, 20)} for _ in range(60)]
    found = [forecast(ForecastJob(records=records, requested=gone, shape=shape, rates=ONE_A_CHARACTER)) for gone in drawn]
    assert sum(each.fraction for each in found) / len(found) == pytest.approx(found[0].formula, rel=0.02)


def test_nobody_costs_nothing_and_everybody_leaves_nothing_to_train() -> None:
    nobody, everybody = asked(), asked(requested={each.tag for each in RECORDS})
    assert (nobody.touched, nobody.again.tokens, nobody.fraction, nobody.formula) == ((), 0, 0.0, 0.0)
    assert (everybody.full.tokens, everybody.fraction, everybody.replay.shards) == (0, 0.0, 0)
    assert {each.records for each in everybody.touched} == {0}


@settings(max_examples=20)
@given(st.sets(st.sampled_from(PEOPLE), min_size=1, max_size=5))
def test_logs_of_the_data_as_they_are_change_no_forecast(people: set[str]) -> None:
    assert asked(*people, trained=FAMILY, logs=logs()).touched == asked(*people).touched


def test_shards_that_are_trained_without_the_records_already_cost_nothing_again() -> None:
    done = logs([each for each in RECORDS if each.subject != PEOPLE[0]])
    found = asked(PEOPLE[0], trained=FAMILY, logs=done)
    assert [each.resumes_before for each in found.touched] == [SHAPE.slices]
    assert (found.again.shards, found.again.tokens, found.also_due) == (0, 0, ())


def test_a_shard_that_is_out_of_date_for_another_reason_is_named_and_not_charged() -> None:
    (touched,) = asked(PEOPLE[0]).touched
    other = (touched.shard + 1) % 4
    changed = logs([replace(each, answer="other") if sisa.shard_of(sisa.owner(each), 4) == other else each for each in RECORDS])
    found = asked(PEOPLE[0], trained=FAMILY, logs=changed)
    assert (found.also_due, found.again.tokens) == ((other,), asked(PEOPLE[0]).again.tokens)


def test_a_missing_log_means_from_the_base_on() -> None:
    (touched,) = asked(PEOPLE[0]).touched
    found = asked(PEOPLE[0], trained=FAMILY, logs={shard: log for shard, log in logs().items() if shard != touched.shard})
    assert [(each.resumes_before, each.tokens) for each in found.touched] == [(0, touched.whole_tokens)]


def test_canaries_leave_with_the_request_but_are_nobody_who_asked() -> None:
    (touched,) = asked(PEOPLE[0]).touched
    beside = next(each for each in RECORDS if each.subject != PEOPLE[0] and sisa.shard_of(sisa.owner(each), 4) == touched.shard)
    found = asked(PEOPLE[0], canaries={beside.tag})
    assert (found.people, found.canaries, found.touched[0].records) == (1, 1, touched.records - 1)


def test_tokens_and_seconds_are_those_of_the_last_training() -> None:
    rates = rates_of(logs().values(), RECORDS)
    assert rates.tokens_per_character == pytest.approx(1.0)
    assert rates.seconds_per_token == pytest.approx(12 / sum(part.tokens for log in logs().values() for part in log.slices))
    assert rates_of([], RECORDS) == Rates()
    assert asked(PEOPLE[0], rates=Rates()).again.seconds is None


def test_the_training_itself_is_forecast_to_the_token_and_the_second() -> None:
    found = asked(rates=rates_of(logs().values(), RECORDS))
    assert found.full.tokens == sum(part.tokens for log in logs().values() for part in log.slices)
    assert found.full.seconds == pytest.approx(12 + RUN_SECONDS + 4 * STAGE_SECONDS)


def test_processes_share_the_seconds_and_an_hour_has_its_price() -> None:
    rates = Rates(tokens_per_character=1.0, seconds_per_token=1.0)
    one, many = (asked(rates=rates, processes=number, cost_per_hour=7.2).full for number in (1, 4))
    busiest = max(sum(sisa.stage_tokens([sum(len(e.prompt + e.answer) for e in s) for s in sisa.sliced(p, 3)], 6)) for p in sisa.cut(RECORDS, 4))
    assert one.seconds is not None
    assert many.seconds is not None
    assert (one.seconds - many.seconds, many.cost) == (one.tokens - busiest, pytest.approx(many.seconds * 0.002))


@pytest.mark.parametrize(("replay", "replayed", "shards"), [("all", (), 4), ("all", range(4), 1), ("retrained", (), 1), ("off", (), 0)])
def test_a_replay_repeats_what_was_not_repeated_yet(replay: str, replayed: tuple[int, ...], shards: int) -> None:
    assert asked(PEOPLE[0], replay=replay, replayed=replayed).replay.shards == shards


@given(st.integers(1, 10**5), st.integers(1, 8), st.lists(st.integers(1, 500), max_size=6), st.floats(0, 1), st.integers(1, 500))
def test_a_recommended_shard_is_never_below_the_floor_and_never_dearer(
    records: int, slices: int, batches: list[int], share: float, floor: int
) -> None:
    found = recommend(records, slices, batches, share, floor)
    assert all(each.records >= floor or each.shards == 1 for each in found.choices)
    best = next(each for each in found.choices if each.shards == found.shards)
    assert all(best.cost <= each.cost + 1e-5 for each in found.choices)


def test_cost_is_the_mean_of_the_batches_and_the_start_of_what_they_touch() -> None:
    found = recommend(6400, 1, [1, 20], stage_share=0.01)
    for each in found.choices:
        touched = [each.shards * (1 - (1 - 1 / each.shards) ** people) for people in (1, 20)]
        assert each.touched == pytest.approx(sum(touched) / 2)
        assert each.cost == pytest.approx(sum(touched) / 2 / each.shards + 0.01 * sum(touched) / 2)
    assert [each.shards for each in found.choices] == [1, 2, 4, 8, 16, 32, 64]


def test_stages_that_are_dear_to_start_make_shards_few_and_no_history_is_said() -> None:
    assert recommend(10**5, 2, [20]).shards == 512
    assert recommend(10**5, 2, [20], stage_share=0.2).shards < 16
    found = recommend(10**5, 2, [])
    assert (found.assumed, found.batches) == (True, ASSUMED)
