"""What follows from the gate's answer: laws over any standing, any use and any moment."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_unlearn.gate_values import Answer, Reason
from mlflow_unlearn.lineage import ModelVersion
from mlflow_unlearn.policy import GatePolicy
from mlflow_unlearn.ruling import _NEXT, Standing, Use, blocked_from, fresh, rule, stricter, under

NOW = datetime(2026, 11, 27, 8, tzinfo=UTC)
DAY = timedelta(days=1)
MODEL = ModelVersion(name="m", version="3")
NO = ("affected", "due", "overdue", "failed", "statement_refused", "registry_differs", "moved")
UNDECIDED = ("unsigned", "inconclusive", "approvals", "no_trust", "unavailable")


def reason(answer: str, code: str) -> Reason:
    return Reason(answer=answer, code=code, text=f"because of {code}")  # type: ignore[arg-type]


REASONS = st.one_of(
    st.builds(reason, st.just("no"), st.sampled_from(NO)),
    st.builds(reason, st.just("undecided"), st.sampled_from(UNDECIDED)),
    st.just(reason("note", "signed")),
)
DUE = st.one_of(st.none(), st.integers(-50, 50).map(lambda days: NOW + days * DAY))
MOMENTS = st.integers(-60, 60).map(lambda days: NOW + days * DAY)
POLICIES = st.builds(GatePolicy, on_request=st.sampled_from(["due", "at_once"]))
USES, HELD = st.sampled_from(Use), st.booleans()
HOW = st.sampled_from(["observe", "warn", "enforce"])


def standing(*reasons: Reason, due: datetime | None = None, enforcement: str = "enforce", at: datetime = NOW - 70 * DAY) -> Standing:
    """As the gate answers: no where something speaks against it, undecided where something is missing."""
    against = {each.answer for each in reasons}
    answer: Answer = "no" if "no" in against else "undecided" if "undecided" in against else "yes"
    kept = {"rests_on": "r", "asked": "1:a", "ancestry": "c", "location": "file:///m", "bound": "b", "at": at, "due": due}
    return Standing(model=MODEL, alias="champion", answer=answer, reasons=reasons, enforcement=enforcement, **kept)  # type: ignore[arg-type]


STANDINGS = st.builds(lambda reasons, due, how: standing(*reasons, due=due, enforcement=how), st.lists(REASONS, max_size=7), DUE, st.just("enforce"))


@given(st.lists(REASONS, max_size=6), REASONS, DUE, USES, POLICIES, MOMENTS, HELD)
def test_more_against_a_version_never_allows_what_was_refused(reasons, more, due, use, policy, now, held):
    if not rule(standing(*reasons, due=due), use, policy, now, held_lately=held).allowed:
        assert not rule(standing(*reasons, more, due=due), use, policy, now, held_lately=held).allowed


@given(STANDINGS, USES, POLICIES, MOMENTS, HELD)
def test_who_enforces_more_allows_no_more(found, use, policy, now, held):
    each = [rule(replace(found, enforcement=how), use, policy, now, held_lately=held).allowed for how in ("observe", "warn", "enforce")]
    assert each[0] >= each[1] >= each[2]
    assert each[0]


@given(STANDINGS, HOW, HOW, USES, POLICIES, MOMENTS, HELD)
def test_a_kept_answer_never_makes_more_allowed_than_the_terms_of_now_nor_than_those_it_was_given_under(found, then, now, use, policy, at, held):
    def allowed(standing: Standing) -> bool:
        return rule(standing, use, policy, at, held_lately=held).allowed

    kept = replace(found, enforcement=then)
    assert allowed(under(kept, now)) == (allowed(kept) and allowed(replace(kept, enforcement=now)))


@given(HOW, HOW)
def test_of_two_ways_to_enforce_the_stricter_is_one_of_them_whatever_their_order(one, other):
    assert stricter(one, other) == stricter(other, one) == under(standing(enforcement=one), other).enforcement
    assert stricter(one, one) == one
    assert (stricter("enforce", one), stricter("observe", one)) == ("enforce", one)


@given(STANDINGS, USES, POLICIES, MOMENTS, MOMENTS, HELD)
def test_time_that_passes_allows_no_more(found, use, policy, one, other, held):
    before, after = (rule(found, use, policy, moment, held_lately=held).allowed for moment in sorted((one, other)))
    assert before >= after


@given(STANDINGS, USES, MOMENTS, HELD)
def test_a_policy_that_stops_at_once_allows_no_more_than_one_that_waits(found, use, now, held):
    waits, stops = (rule(found, use, GatePolicy(on_request=how), now, held_lately=held).allowed for how in ("due", "at_once"))
    assert waits >= stops


@given(STANDINGS, POLICIES, MOMENTS, HELD)
def test_to_follow_asks_no_more_than_to_point_and_to_read_no_more_than_to_follow(found, policy, now, held):
    point, follow, read = (rule(found, use, policy, now, held_lately=held).allowed for use in (Use.POINT, Use.FOLLOW, Use.READ))
    assert read >= follow >= point


@given(STANDINGS, USES, POLICIES, MOMENTS, HELD)
def test_a_refusal_says_what_why_and_where_to_look_and_a_grant_of_a_yes_says_nothing(found, use, policy, now, held):
    ruling = rule(found, use, policy, now, held_lately=held)
    if found.answer == "yes":
        assert (ruling.outcome, ruling.words, ruling.codes, ruling.reasons) == ("granted", "", (), ())
    if ruling.allowed:
        return
    first, *lines = ruling.words.splitlines()
    assert first.startswith("refused by mlflow-unlearn: ")
    assert "m" in first
    assert "3" in first
    assert [line.rstrip(".") for line in lines[: len(ruling.reasons[:5])]] == list(ruling.reasons[:5])
    assert lines[-1] == "All reasons: `mlflow-unlearn gate models:/m/3`."


@given(STANDINGS, USES, POLICIES, MOMENTS)
def test_a_refusal_names_what_to_do_about_every_reason(found, use, policy, now):
    ruling = rule(found, use, policy, now)
    if not ruling.allowed and ruling.codes != ("due",):
        told = next(line for line in ruling.words.splitlines() if line.startswith("Next: "))
        assert all(_NEXT[code] in told for code in ruling.codes if code != "due")


@given(STANDINGS, USES, POLICIES, MOMENTS, HELD)
def test_an_old_version_comes_back_only_for_who_held_it_lately_before_the_due_date_and_for_requests_that_came_in_later(found, use, policy, now, held):
    ruling = rule(found, use, policy, now, held_lately=held)
    late = found.due is not None and now >= found.due
    wanted = use is Use.POINT and held and policy.on_request == "due" and set(found.codes) <= {"affected", "due"} and not late
    assert (ruling.outcome == "rollback") == (wanted and found.answer == "no" and found.due is not None)


@given(STANDINGS, POLICIES, MOMENTS)
def test_files_are_blocked_from_the_moment_on_from_which_reading_is_refused(found, policy, now):
    since = blocked_from(found, policy)
    assert rule(found, Use.READ, policy, now).allowed == (since is None or now < since)


@pytest.mark.parametrize("how", ["observe", "warn"])
@given(found=STANDINGS, policy=POLICIES)
def test_nothing_is_blocked_where_nothing_is_enforced(how, found, policy):
    assert blocked_from(replace(found, enforcement=how), policy) is None


def test_a_version_that_was_never_shown_to_be_wrong_is_read_and_holds_no_alias():
    found = standing(reason("undecided", "unsigned"))
    assert rule(found, Use.READ, GatePolicy(), NOW).outcome == "granted"
    assert [rule(found, use, GatePolicy(), NOW, held_lately=True).outcome for use in (Use.POINT, Use.FOLLOW)] == ["refused", "refused"]


def test_what_is_deployed_stays_until_the_due_date_and_a_late_request_is_called_so():
    found = standing(reason("no", "affected"), reason("no", "due"), due=NOW + DAY)
    assert [rule(found, use, GatePolicy(), NOW).outcome for use in (Use.FOLLOW, Use.READ)] == ["observed", "observed"]
    late = rule(found, Use.FOLLOW, GatePolicy(), NOW + DAY)
    assert (late.outcome, late.codes) == ("refused", ("affected", "overdue"))
    assert late.reasons[-1] == "the first request that reaches it was due at 2026-11-28"


def test_what_is_observed_says_nothing_what_is_warned_of_says_what_would_be_refused():
    observed, warned, refused = (
        rule(standing(reason("no", "failed"), enforcement=how), Use.POINT, GatePolicy(), NOW) for how in ("observe", "warn", "enforce")
    )
    assert (observed.outcome, observed.words, observed.codes) == ("observed", "", ("failed",))
    assert (warned.outcome, warned.allowed) == ("warned", True)
    assert warned.words.splitlines()[0] == "warning of mlflow-unlearn: m/3 for 'champion': the gate says no."
    assert refused.words.splitlines()[0] == "refused by mlflow-unlearn: m/3 for 'champion': the gate says no."
    assert warned.words.splitlines()[1:] == refused.words.splitlines()[1:]


@pytest.mark.parametrize(
    ("use", "said"),
    [(Use.POINT, "m/3 for 'champion'"), (Use.FOLLOW, "'champion' of m, which is version 3"), (Use.READ, "reading m/3")],
)
def test_the_words_say_what_was_asked_for(use, said):
    assert said in rule(standing(reason("no", "failed")), use, GatePolicy(), NOW).words


def test_of_many_reasons_five_are_told_and_the_rest_counted():
    found = standing(*(Reason(answer="no", code="failed", text=f"condition {number}") for number in range(8)))
    lines = rule(found, Use.POINT, GatePolicy(), NOW).words.splitlines()
    assert lines[1:7] == [*(f"condition {number}." for number in range(5)), "There are 3 more reasons."]
    assert len([line for line in lines if line.startswith("Next: ")]) == 1


@given(st.integers(-48, 72), st.one_of(st.none(), st.integers(-48, 72)), st.floats(0, 48))
def test_a_decision_stands_in_as_long_as_the_policy_and_its_own_end_allow(hours, until, stale):
    made = standing(at=NOW)
    end = None if until is None else NOW + timedelta(hours=until)
    found = fresh(replace(made, until=end), GatePolicy(max_stale_hours=stale), NOW + timedelta(hours=hours))
    assert found == (0 <= hours <= stale and (until is None or hours <= until))


def test_there_is_something_to_do_about_every_code_of_the_gate():
    codes = {"unknown", "not_traced", "not_registered", "other_requests", "request_differs", "no_request", "tampered", "returned", "interim"}
    assert codes | {"statement_unreadable", "unreadable", "not_compared"} <= _NEXT.keys()
