"""Verdicts of exact claims: what is shown passes, what is missing never does, and what contradicts the claim fails it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from exact_evidence import BREAKS, CPU, GPU, made, part, replay, sound
from hypothesis import given
from hypothesis import strategies as st
from simulated import KNOWN, UNKNOWN, evaluation_of, honest, under

from mlflow_unlearn.exact_conditions import SHARED, replays_of
from mlflow_unlearn.exactness import Exactness
from mlflow_unlearn.judge import judge
from mlflow_unlearn.policy import Policy
from mlflow_unlearn.records import Claim, Condition, Effect, Evaluation, ModelReport, Outcome, Verbatim, Verdict

POLICY = Policy()
NOT_PROBED = replace(honest(), after_finetune=ModelReport(scores={}), canary_shards=(1,))
"""What is measured of an ensemble."""
REPLAYS = {f"replay of shard {shard}": shard for shard in range(4)}


def judged(evidence: Exactness, evaluation: Evaluation = NOT_PROBED, policy: Policy = POLICY, **run: Any) -> tuple[Verdict, Verdict]:
    return judge(evaluation if policy is POLICY else under(evaluation, policy), policy, made(Claim.EXACT, evidence, **run))


def condition(verdict: Verdict, name: str) -> Condition:
    return next(found for found in verdict.conditions if found.name == name)


def without(evidence: Exactness, dropped: set[str]) -> Exactness:
    replays = tuple(each for each in evidence.replays if f"replay of shard {each.shard}" not in dropped)
    return replace(evidence, replays=replays, shared=tuple(each for each in evidence.shared if each.name not in dropped))


def with_canaries(**kinds: Any) -> Evaluation:
    return replace(NOT_PROBED, after=replace(NOT_PROBED.after, **kinds))


def test_sound_evidence_passes_both_and_says_what_the_canaries_could_see_and_that_utility_decides_nothing() -> None:
    for verdict in judged(sound()):
        assert verdict.outcome is Outcome.PASS, verdict.reasons
        alarm = condition(verdict, "canary alarm").detail
        assert "800 canaries of 1 of 1 touched shards, which could show epsilon" in alarm
        assert "was found in the parent" in alarm
        assert "Utility, which decides nothing about an exact claim, changed by" in verdict.reasons[0]


@pytest.mark.parametrize("what", BREAKS)
def test_each_piece_of_evidence_is_needed_for_either_effect(what: str) -> None:
    change, name, outcome = BREAKS[what]
    for verdict in judged(replace(sound(), **change)):
        assert verdict.outcome is outcome
        assert condition(verdict, name).holds is (False if outcome is Outcome.FAIL else None)
        assert any(reason.startswith(f"{name}: ") for reason in verdict.reasons)


def test_of_a_parent_of_another_family_nothing_is_taken_over_and_every_shard_has_to_be_replayed() -> None:
    new = replace(sound(), before={})
    assert judged(new)[0].outcome is Outcome.PASS
    some = replace(new, replays=(replay(1),))
    assert judged(some, policy=replace(POLICY, replayed_shards="retrained"))[0].outcome is Outcome.INCONCLUSIVE


def test_the_policy_may_ask_for_replays_of_the_retrained_alone() -> None:
    some = replace(sound(), replays=(replay(1),))
    assert judged(some)[0].outcome is Outcome.INCONCLUSIVE
    removal = judged(some, policy=replace(POLICY, replayed_shards="retrained"))[0]
    assert removal.outcome is Outcome.PASS
    assert "no replay of the other 3" in condition(removal, "replay").detail


def test_a_shard_that_lost_all_its_records_needs_no_replay() -> None:
    left = {name: digest for name, digest in sound().digests.items() if name != "001"}
    emptied = replace(sound(), digests=left, empty=(1,), replays=tuple(replay(shard) for shard in (0, 2, 3)))
    removal = judged(emptied)[0]
    assert removal.outcome is Outcome.PASS
    assert "1 of 4 shards have no records" in condition(removal, "forgotten records").detail


def test_a_replay_of_another_log_says_nothing_of_these_weights() -> None:
    other = replace(replay(1), log="of other records")
    removal = judged(replace(sound(), replays=(other, *map(replay, (0, 2, 3)))))[0]
    assert removal.outcome is Outcome.INCONCLUSIVE
    assert "1 of 4 shards have no replay of these weights" in condition(removal, "replay").detail


def test_a_shard_of_which_nothing_is_said_passes_nothing() -> None:
    left = {name: digest for name, digest in sound().digests.items() if name != "001"}
    removal = judged(replace(sound(), digests=left))[0]
    assert removal.outcome is Outcome.INCONCLUSIVE
    assert "nothing is said of shard 001" in condition(removal, "forgotten records").detail


@pytest.mark.parametrize(
    ("environment", "differences", "way", "outcome"),
    [
        (CPU, ("threads: 1 then, 2 now",), "equal", Outcome.INCONCLUSIVE),
        (CPU, ("threads: 1 then, 2 now",), "attempted", Outcome.INCONCLUSIVE),
        (CPU, (), "attempted", Outcome.FAIL),
        (GPU, (), "equal", Outcome.INCONCLUSIVE),
        (GPU, (), "attempted", Outcome.PASS),
        (GPU, ("torch: 2 then, 3 now",), "attempted", Outcome.INCONCLUSIVE),
    ],
)
def test_only_an_accelerator_may_come_out_otherwise_and_only_where_the_policy_says_so(
    environment: dict[str, str], differences: tuple[str, ...], way: str, outcome: Outcome
) -> None:
    unequal = replace(
        sound(), replays=(replay(1, equal=False, differences=differences, device=environment["device"]), *(replay(shard) for shard in (0, 2, 3)))
    )
    removal = judged(unequal, policy=replace(POLICY, replay=way))[0]
    detail = condition(removal, "replay").detail
    assert removal.outcome is outcome
    assert "shard 001" in detail
    assert [difference for difference in differences if difference not in detail] == []


def test_canaries_that_speak_fail_an_exact_claim_whatever_else_is_shown() -> None:
    removal, suppression = judged(sound(), evaluation_of(KNOWN, KNOWN))
    assert removal.outcome is suppression.outcome is Outcome.FAIL
    assert removal.reasons[0].startswith("canary alarm")
    assert len(suppression.reasons) > len(removal.reasons)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"after": replace(honest().after, canaries=())}, "touched shards have none that no closed request has used"),
        ({"after": replace(honest().after, canaries=honest().after.canaries[:1])}, "no min_k attack"),
        ({"canaries_committed": False}, "fixed before training"),
        ({"pool_spent_by": "er-0"}, "spent by er-0"),
        ({"settings": {"permutations": 100}}, "with 100 permutations"),
    ],
)
def test_silence_of_canaries_that_could_not_have_spoken_is_not_measured(change: dict[str, Any], why: str) -> None:
    removal = judged(sound(), replace(NOT_PROBED, **change))[0]
    assert removal.outcome is Outcome.INCONCLUSIVE
    assert why in condition(removal, "canary alarm").detail


@pytest.mark.parametrize(("n", "holds"), [(10, None), (12, True)])
def test_canaries_that_can_be_dealt_in_too_few_ways_raise_no_alarm_and_give_no_all_clear(n: int, holds: bool | None) -> None:
    few = tuple(replace(test, auc=replace(test.auc, n=n)) for test in honest().after.canaries)
    assert condition(judged(sound(), with_canaries(canaries=few))[0], "canary alarm").holds is holds


@pytest.mark.parametrize(
    ("seen", "said"), [((), "not recorded"), ((1,), "1 of 2 touched shards; shard 003 has none left"), ((0, 1, 3), "2 of 2 touched")]
)
def test_the_alarm_says_whose_canaries_it_heard(seen: tuple[int, ...], said: str) -> None:
    two = replace(sound(), touched=(1, 3))
    assert said in condition(judged(two, replace(NOT_PROBED, canary_shards=seen))[0], "canary alarm").detail


def test_a_parent_that_knew_nothing_is_told_and_decides_nothing() -> None:
    blank = replace(NOT_PROBED, before=NOT_PROBED.after)
    removal = judged(sound(), blank)[0]
    assert removal.outcome is Outcome.PASS
    assert "nothing shows they could have seen an error" in condition(removal, "canary alarm").detail


def test_suppression_fails_on_what_comes_out_even_if_removal_passes() -> None:
    guessed = tuple(replace(test, p_member=0.0001) for test in honest().after.own)
    removal, suppression = judged(sound(), with_canaries(own=guessed))
    assert (removal.outcome, suppression.outcome) == (Outcome.PASS, Outcome.FAIL)
    assert "to be guessed from what stays" in suppression.reasons[0]


def test_neither_power_nor_utility_is_asked_of_an_exact_claim() -> None:
    wrecked = evaluation_of(UNKNOWN, UNKNOWN, kept=UNKNOWN)
    strict = replace(POLICY, n_min=10**6, auc_margin={}, finetune_epochs=100, utility_margin=0.0)
    assert {verdict.outcome for verdict in judged(sound(), wrecked, strict)} == {Outcome.PASS}


@given(st.sets(st.sampled_from([*SHARED, *REPLAYS])), st.sets(st.integers(0, 3)), st.sets(st.sampled_from(SHARED)), st.booleans())
def test_dropping_a_replay_or_a_shared_part_never_turns_a_no_into_a_yes(dropped: set[str], unequal: set[int], saw: set[str], spoke: bool) -> None:
    replays = tuple(replay(shard, equal=shard not in unequal) for shard in range(4))
    whole = replace(sound(), replays=replays, shared=tuple(part(name, name not in saw) for name in SHARED))
    evaluation = evaluation_of(KNOWN, KNOWN) if spoke else NOT_PROBED
    for full, less in zip(judged(whole, evaluation), judged(without(whole, dropped), evaluation), strict=True):
        held = {found.name for found in full.conditions if found.holds is True}
        assert {found.name for found in less.conditions if found.holds is True} <= held
        assert [found.name for found in less.conditions] == [found.name for found in full.conditions]
        assert less.outcome is not Outcome.PASS or full.outcome is Outcome.PASS


@given(st.sets(st.integers(0, 3)), st.integers(0, 3), st.sampled_from([(), ("threads: 1 then, 2 now",)]), st.booleans())
def test_an_unequal_replay_more_never_makes_a_pass(there: set[int], shard: int, differences: tuple[str, ...], first: bool) -> None:
    some = replace(sound(), replays=tuple(replay(each) for each in sorted(there)))
    bad = (replay(shard, equal=False, differences=differences),)
    more = replace(some, replays=bad + some.replays if first else some.replays + bad)
    assert judged(more)[0].outcome is not Outcome.PASS or judged(some)[0].outcome is Outcome.PASS
    assert all(each.equal for name, each in replays_of(more).items() if int(name) in there and (differences or int(name) != shard))


@given(st.sets(st.sampled_from(["loss", "min_k"])), st.booleans(), st.sampled_from(Effect))
def test_dropping_canaries_never_turns_a_no_into_a_yes(attacks: set[str], verbatim: bool, effect: Effect) -> None:
    told = Verbatim(included_matches=45, included=211, excluded_matches=0, excluded=189, p=1e-9)
    for evaluation in (NOT_PROBED, evaluation_of(KNOWN, KNOWN), with_canaries(verbatim=told)):
        kept = tuple(test for test in evaluation.after.canaries if test.attack not in attacks)
        report = replace(evaluation.after, canaries=kept, verbatim=None if verbatim else evaluation.after.verbatim)
        whole, less = (next(v for v in judged(sound(), e) if v.effect is effect) for e in (evaluation, replace(evaluation, after=report)))
        assert less.outcome is not Outcome.PASS or whole.outcome is Outcome.PASS
