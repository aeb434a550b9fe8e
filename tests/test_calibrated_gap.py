"""The share that remains: by hand, by planted truth, and its interval by simulation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mlflow_unlearn import stats
from mlflow_unlearn.calibrated_gap import Losses, Sides, remaining

LEVEL = stats.level_key(stats.attempt_level(1))
KINDS = ("a", "b", "c")
HARD = {"a": 1.0, "b": 3.0, "c": 5.0}


def losses(n: int, rng: np.random.Generator, known: float = 0.0) -> Losses:
    """Records whose loss is that of their kind and half of their swapped one, less what the model knows of them, and noise."""
    kinds = [KINDS[i % 3] for i in range(n)]
    swapped = rng.gamma(4.0, 1.0, n)
    own = np.array([HARD[kind] for kind in kinds]) + 0.5 * swapped - known + rng.normal(0, 0.5, n)
    return Losses(own=own, swapped=swapped, kinds=kinds)


def sides(known: float, seed: int, n: int = 400) -> Sides:
    rng = np.random.default_rng(seed)
    return Sides(included=losses(n, rng, known), excluded=losses(n, rng), holdout=losses(300, rng))


def plain(included: list[float], excluded: list[float]) -> Sides:
    """Nothing to calibrate with."""
    of = {name: Losses(own=np.array(v), swapped=np.full(len(v), np.nan), kinds=[None] * len(v)) for name, v in (("i", included), ("e", excluded))}
    return Sides(included=of["i"], excluded=of["e"], holdout=Losses(own=np.empty(0), swapped=np.empty(0), kinds=[]))


def test_without_a_hold_out_the_share_is_the_ratio_of_two_plain_gaps() -> None:
    gap = remaining(plain([0.0, 0.2, 0.1, 0.1], [4.0, 4.2, 4.1, 4.1]), plain([3.0, 3.2, 3.1, 3.1], [4.0, 4.2, 4.1, 4.1]))
    assert gap is not None
    assert gap.parent.value == pytest.approx(4.0)
    assert gap.share.value == pytest.approx(0.25)
    assert gap.explained == 0


@pytest.mark.parametrize("left", [0.0, 0.5, 1.0, 4.0])
def test_a_planted_share_is_found(left: float) -> None:
    gap = remaining(sides(4.0, 1), sides(left, 2))
    assert gap is not None
    assert gap.share.value == pytest.approx(left / 4.0, abs=0.04)
    assert gap.share.low <= gap.share.value <= gap.share.high
    assert gap.explained > 0.9
    assert gap.holdout == 300


def test_calibration_narrows_the_interval_where_losses_can_be_explained() -> None:
    parent, model = sides(4.0, 3), sides(0.0, 4)
    blind = [replace(each, holdout=Losses(own=np.empty(0), swapped=np.empty(0), kinds=[])) for each in (parent, model)]
    fitted, unfitted = remaining(parent, model), remaining(*blind)
    assert fitted is not None
    assert unfitted is not None
    assert fitted.share.high - fitted.share.low < 0.5 * (unfitted.share.high - unfitted.share.low)


def test_a_parent_that_remembers_nothing_has_no_share() -> None:
    assert remaining(sides(0.0, 5), sides(0.0, 6)) is None


def test_limits_grow_with_the_attempt_and_hold_the_share() -> None:
    gap = remaining(sides(4.0, 7), sides(0.3, 8))
    assert gap is not None
    limits = [gap.share_upper[stats.level_key(stats.attempt_level(k))] for k in range(1, stats.ATTEMPTS + 1)]
    assert limits == sorted(limits)
    assert limits[0] >= abs(gap.share.value)


def test_what_is_shunned_is_as_far_from_zero_as_what_is_known() -> None:
    gap = remaining(sides(4.0, 9), sides(-1.0, 10))
    assert gap is not None
    assert gap.share.value < 0
    assert gap.share_upper[LEVEL] > 0.2


@pytest.mark.parametrize("left", [0.0, 0.4])
def test_the_interval_of_the_share_covers_as_it_promises(left: float) -> None:
    found = [remaining(sides(4.0, seed, 100), sides(left, 10_000 + seed, 100)) for seed in range(600)]
    covered = [gap.share.low <= left / 4.0 <= gap.share.high for gap in found if gap is not None]
    assert len(covered) == 600
    assert 0.93 <= np.mean(covered) <= 0.975


def test_one_record_without_a_twin_leaves_the_kind_to_calibrate_with() -> None:
    parent, model = sides(4.0, 11), sides(0.0, 12)
    lame = replace(model.included, swapped=np.where(np.arange(400) == 0, np.nan, model.included.swapped))
    gap = remaining(parent, replace(model, included=lame))
    assert gap is not None
    assert 0.3 < gap.explained < 0.95
