"""Intervals, tests and bounds against naive formulas and printed values."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as distributions

from mlflow_unlearn import stats
from mlflow_unlearn.epsilon import detectable_epsilon, guessed_epsilon, guesses, one_run_epsilon, right_guesses
from mlflow_unlearn.errors import UnmeasurableError
from mlflow_unlearn.records import Direction

SHARES = st.lists(st.floats(0, 1), min_size=1, max_size=30).map(np.array)
SMALL = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=12).map(np.array)


def canary_epsilon(included: np.ndarray, excluded: np.ndarray, seed: int = 0) -> float:
    return guessed_epsilon(len(included) + len(excluded), right_guesses(included, excluded, seed))


@given(SMALL, SMALL)
def test_area_is_the_share_of_pairs_that_a_member_wins(members: np.ndarray, others: np.ndarray) -> None:
    wins = [1.0 if a > b else 0.5 if a == b else 0.0 for a in members for b in others]
    assert stats.area(members, others).value == pytest.approx(sum(wins) / len(wins))


@given(SMALL.filter(lambda x: len(x) > 1), SMALL.filter(lambda x: len(x) > 1))
def test_the_error_of_an_area_is_delongs_from_placements(members: np.ndarray, others: np.ndarray) -> None:
    psi = np.array([[1.0 if a > b else 0.5 if a == b else 0.0 for b in others] for a in members])
    variance = psi.mean(axis=1).var(ddof=1) / len(members) + psi.mean(axis=0).var(ddof=1) / len(others)
    assert stats.area(members, others).error == pytest.approx(max(math.sqrt(variance), 0.5 / min(len(members), len(others))), abs=1e-12)


def test_an_area_of_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="area: expected"):
        stats.area(np.array([math.nan]), np.array([1.0]))


@pytest.mark.parametrize("sides", [(0, 3), (3, 0), (0, 0)])
def test_an_attack_that_saw_one_class_only_is_unmeasurable_and_says_what_it_lacks(sides: tuple[int, int]) -> None:
    members, others = (np.zeros(n) for n in sides)
    for measure in (lambda: stats.area(members, others), lambda: stats.permutation_p(members, others, 9, 0)):
        with pytest.raises(UnmeasurableError, match=f"found {sides[0]} members and {sides[1]} non-members, expected some of each"):
            measure()


@given(SMALL, SMALL)
def test_the_interval_of_an_area_holds_it_and_is_possible(members: np.ndarray, others: np.ndarray) -> None:
    found = stats.area(members, others)
    low, high = found.interval()
    assert 0.0 <= low <= found.value <= high <= 1.0
    assert low < high


def test_the_interval_of_a_central_area_is_that_of_its_error() -> None:
    found = stats.Area(value=0.5, error=0.02)
    assert found.interval() == pytest.approx((0.5 - 1.96 * 0.02, 0.5 + 1.96 * 0.02), abs=2e-4)


def test_one_record_among_k_controls_cannot_have_a_smaller_p_than_one_in_k_and_one() -> None:
    assert [stats.smallest_p(1, k) for k in (3, 99)] == pytest.approx([1 / 4, 1 / 100])
    assert stats.smallest_p(2, 3) == pytest.approx(1 / 10)
    assert stats.smallest_p(500, 500) == pytest.approx(0.0, abs=1e-200)


@pytest.mark.parametrize(("own", "controls", "permutations"), [(1, 4, 5000), (20, 20, 99)])
def test_the_smallest_p_is_reached_by_records_that_all_lie_outside(own: int, controls: int, permutations: int) -> None:
    p, _ = stats.permutation_p(np.arange(own) + 100.0, np.arange(controls) + 0.0, permutations, 0)
    assert p == pytest.approx(stats.smallest_p(own, controls, permutations), rel=0.1)


def test_areas_of_honest_coin_flips_keep_their_confidence() -> None:
    generator = np.random.default_rng(3)
    areas = [stats.area(generator.normal(size=40), generator.normal(size=60)) for _ in range(500)]
    covered = np.mean([abs(a.value - 0.5) <= 1.96 * a.error for a in areas])
    assert 0.92 <= covered <= 0.98


def test_permutation_p_agrees_with_all_permutations() -> None:
    members, others = np.array([1.0, 2.0, 2.0, 5.0]), np.array([0.0, 2.0, 3.0, 1.0])
    ranks = distributions.rankdata(np.concatenate([members, others]))
    sums = np.array([ranks[list(chosen)].sum() for chosen in itertools.combinations(range(8), 4)])
    more, less = stats.permutation_p(members, others, 4000, 1)
    assert more == pytest.approx((sums >= ranks[:4].sum()).mean(), abs=0.03)
    assert less == pytest.approx((sums <= ranks[:4].sum()).mean(), abs=0.03)


@given(SMALL, SMALL)
def test_permutation_p_turns_round_with_the_sign_and_is_never_zero(members: np.ndarray, others: np.ndarray) -> None:
    more, less = stats.permutation_p(members, others, 19, 5)
    assert stats.permutation_p(-members, -others, 19, 5) == (less, more)
    assert min(more, less) >= 1 / 20


def test_permutation_p_finds_a_planted_member_direction() -> None:
    more, less = stats.permutation_p(np.arange(50.0) + 30, np.arange(50.0), 999, 0)
    assert (more, less) == (0.001, 1.0)


@given(SHARES)
def test_every_interval_of_a_mean_holds_it_and_is_finite(values: np.ndarray) -> None:
    score = stats.mean_score(values, Direction.LOWER, 100, 0)
    assert 0.0 <= score.low <= score.value <= score.high <= 1.0
    assert score.n == len(values)


@pytest.mark.parametrize("value", [-3.0, 0.3, 7.5])
def test_alike_values_get_an_interval_around_them_that_shrinks_with_n(value: float) -> None:
    few, many = (stats.mean_score(np.full(n, value), Direction.LOWER, 100, 0) for n in (1, 100))
    assert few.low < many.low < value < many.high < few.high
    assert few.interval == "clopper-pearson"


@pytest.mark.parametrize("values", [[], [math.nan], [math.inf]])
def test_a_mean_of_nothing_or_of_nan_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="mean_score: expected at least one value"):
        stats.mean_score(np.array(values), Direction.LOWER, 100, 0)


def test_bca_agrees_with_scipy_on_skewed_data() -> None:
    values = np.random.default_rng(2).exponential(size=60)
    theirs = distributions.bootstrap((values,), np.mean, n_resamples=20000, rng=np.random.default_rng(1)).confidence_interval
    assert stats.bca(values, 20000, 3) == pytest.approx((theirs.low, theirs.high), abs=0.02)


def test_bca_survives_the_probabilities_of_a_wrecked_model() -> None:
    values = np.exp(-np.array([290.0, 300.0, 310.0]))
    low, high = stats.bca(values, 200, 0)
    assert 0.0 < low <= values.mean() <= high < 1e-120


def test_limits_without_draws_are_those_of_many_draws_and_survive_a_wrecked_model() -> None:
    skewed, wrecked = np.random.default_rng(2).beta(0.3, 2, 300), np.exp(-np.array([290.0, 300.0, 310.0]))
    assert stats.mean_limits(skewed, (0.0, 1.0)) == pytest.approx(stats.bca(skewed, 20000, 3), abs=0.001)
    low, high = stats.mean_limits(wrecked, (0.0, 1.0))
    assert 0.0 <= low <= wrecked.mean() <= high < 1e-120


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=30))
def test_a_paired_interval_holds_the_difference_and_stays_possible(pairs: list[tuple[float, float]]) -> None:
    after, before = np.array(pairs).T
    score = stats.paired_score(after, before)
    assert -1.0 <= score.low <= score.value <= score.high <= 1.0
    assert score.value == pytest.approx(np.mean(after - before))


def test_no_change_in_n_records_excludes_a_small_loss_only_when_n_is_large() -> None:
    lows = {n: stats.paired_score(np.ones(n), np.ones(n)).low for n in (182, 183)}
    assert lows[182] < -0.02 <= lows[183]


def test_what_does_not_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="found 2 and 3"):
        stats.paired_score(np.ones(2), np.ones(3))
    with pytest.raises(ValueError, match="found 0 and 3"):
        stats.difference_score(np.ones(0), np.ones(3))


@given(SHARES, SHARES)
def test_an_interval_of_a_difference_holds_it_and_is_open_for_few(left: np.ndarray, right: np.ndarray) -> None:
    score = stats.difference_score(left, right)
    assert score.low <= score.value <= score.high
    assert score.n == len(left) + len(right)
    assert min(len(left), len(right)) > 1 or score.high - score.low > 0.1


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_clopper_pearson_limits_leave_the_tails_they_promise(counts: tuple[int, int]) -> None:
    hits, n = counts
    low, high = stats.clopper_pearson(hits, n)
    assert low <= hits / n <= high
    assert hits == 0 or distributions.binom.sf(hits - 1, n, low) == pytest.approx(0.025)
    assert hits == n or distributions.binom.cdf(hits, n, high) == pytest.approx(0.025)


def test_no_leak_in_300_samples_has_an_upper_limit_near_one_percent() -> None:
    assert stats.clopper_pearson(0, 300, level=0.90)[1] == pytest.approx(3 / 300, rel=0.01)  # one-sided 95 %: the rule of three


@given(st.integers(0, 8), st.integers(1, 8), st.integers(0, 8), st.integers(1, 8))
def test_fisher_counts_tables_at_least_as_extreme(a: int, m: int, b: int, n: int) -> None:
    a, b = min(a, m), min(b, n)
    tables = range(max(0, a + b - n), min(m, a + b) + 1)
    weight = {k: math.comb(m, k) * math.comb(n, a + b - k) for k in tables}
    assert stats.fisher_p(a, m, b, n) == pytest.approx(sum(w for k, w in weight.items() if k >= a) / sum(weight.values()))


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1), max_size=8))
def test_holm_is_the_step_down_rule_at_every_alpha(p: dict[str, float]) -> None:
    adjusted, ordered = stats.holm(p), sorted(p.values())
    for alpha in (0.01, 0.05, 0.2):
        stop = next((i for i, value in enumerate(ordered) if value * (len(p) - i) >= alpha), len(p))
        rejected = sorted(value for name, value in p.items() if adjusted[name] < alpha)
        assert rejected == ordered[:stop]
    assert all(adjusted[name] >= value for name, value in p.items())


def test_a_later_attempt_asks_for_more_confidence_and_none_overflows() -> None:
    levels = [stats.attempt_level(k) for k in (1, 2, 3, stats.ATTEMPTS, 5000)]
    assert levels[:3] == pytest.approx([0.95, 0.975, 0.9875])
    assert levels == sorted(levels)
    assert len({stats.level_key(stats.attempt_level(k)) for k in range(1, stats.ATTEMPTS + 1)}) == stats.ATTEMPTS


@pytest.mark.parametrize(("m", "r", "v", "delta", "printed"), [(1000, 100, 75, 1e-4, 0.673), (100_000, 1510, 1439, 1e-5, 2.676)])
def test_one_run_epsilon_gives_the_papers_values(m: int, r: int, v: int, delta: float, printed: float) -> None:
    assert one_run_epsilon(m, r, v, delta, 0.05) == pytest.approx(printed, abs=5e-4)


@given(st.integers(1, 200).flatmap(lambda r: st.tuples(st.just(r), st.integers(0, r))))
def test_more_right_guesses_never_show_less(counts: tuple[int, int]) -> None:
    r, v = counts
    assert 0.0 <= one_run_epsilon(1000, r, v, 0.0, 0.05) <= one_run_epsilon(1000, r, min(v + 1, r), 0.0, 0.05)


@pytest.mark.parametrize(("m", "epsilon"), [(400, 3.05), (800, 3.76), (1000, 3.98)])
def test_a_perfect_attack_shows_all_that_the_pool_can_show(m: int, epsilon: float) -> None:
    included, excluded = np.arange(m / 2) + 1.0, -np.arange(m / 2)
    assert canary_epsilon(included, excluded) == pytest.approx(epsilon, abs=0.01)
    assert canary_epsilon(excluded, included) == canary_epsilon(included, excluded) == pytest.approx(detectable_epsilon(m))


def test_an_attack_that_says_nothing_shows_no_epsilon() -> None:
    assert canary_epsilon(np.zeros(400), np.zeros(400)) == 0.0


def test_honest_pools_seldom_show_any_epsilon() -> None:
    generator = np.random.default_rng(0)
    shown = [canary_epsilon(generator.normal(size=200), generator.normal(size=200), seed=i) > 0 for i in range(400)]
    assert np.mean(shown) <= 0.07


@pytest.mark.parametrize("m", [0, 1, 9])
def test_too_few_canaries_for_a_guess_show_nothing(m: int) -> None:
    assert guesses(m) < 2
    assert canary_epsilon(np.ones(m), np.zeros(0)) == detectable_epsilon(m) == 0.0
