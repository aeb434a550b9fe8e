"""What was measured on one state of a model: scores with intervals, tests on canaries, what remains, what could not be measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Direction(StrEnum):
    """Whether more or less of a score is better for the set it was measured on."""

    HIGHER = "higher"
    LOWER = "lower"
    NEAR_CENTRE = "near_centre"


@dataclass(frozen=True, kw_only=True)
class Score:
    """A measured value with its 95 % interval. A score without an interval does not exist."""

    value: float
    low: float
    high: float
    n: int
    direction: Direction
    interval: str = "bootstrap"
    values: tuple[tuple[float, ...], ...] = ()
    """Of means that decide: the sorted values, 9 significant digits, that the figures were computed from. One list of differences, or two lists."""


@dataclass(frozen=True, kw_only=True)
class CanaryTest:
    """One attack on the canaries of one model."""

    attack: str
    auc: Score
    """Chance that an included canary looks more like a member than an excluded one; 0.5 is its true centre."""
    auc_upper: Mapping[str, float]
    """Confidence level (e.g. "0.95") -> upper limit of |AUC - 0.5|, for the levels the policy may ask for."""
    p_member: float
    p_non_member: float
    """Permutation p that included canaries look more (under-forgotten), and less (over-forgotten), like members than excluded ones."""
    epsilon: float
    detectable_epsilon: float
    """One-run lower bound on epsilon (Steinke et al. 2023), both signs at alpha / 2, and the largest that so many canaries could show."""
    order: str = ""
    """Canaries from least to most suspicious: `i` included, `e` excluded, equally suspicious ones in parentheses, `i` first, as in `ee(ie)i`.

    AUC, its error and limits, the ranks behind p and the range of `right` follow from it. In `own` tests `i` is a record of the request.
    """
    right: int = 0
    """Right guesses behind `epsilon`: the most suspicious tenth called included, the least suspicious excluded; ties fell by a seeded draw."""


@dataclass(frozen=True, kw_only=True)
class Verbatim:
    """Exact matches of greedy answers among included and excluded canaries, with Fisher's one-sided p."""

    included_matches: int
    included: int
    excluded_matches: int
    excluded: int
    p: float


@dataclass(frozen=True, kw_only=True)
class Gap:
    """How much of what the parent had memorised of the canaries a model still shows."""

    parent: Score
    """Loss of excluded above included canaries in the parent, calibrated on held-out people; nats."""
    share: Score
    """The same in the model, in shares of the parent's: 1 is all of it, 0 nothing."""
    share_upper: Mapping[str, float]
    """Confidence level -> upper limit of the share's distance from 0."""
    explained: float
    """How much of the held-out records' loss the calibration explains (R squared); 0 where it could not be made."""
    holdout: int
    """Held-out records it was fitted on."""
    included: tuple[tuple[float, float], ...] = ()
    excluded: tuple[tuple[float, float], ...] = ()
    """Calibrated losses of each canary (in the parent, in this model), nats: sorted, 9 significant digits. Both scores are computed from them."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """The canaries asked in one more way: what included ones betray against excluded ones, whom a coin alone tells apart."""

    tests: tuple[CanaryTest, ...] = ()
    verbatim: Verbatim | None = None
    """Records that came out, e.g. in any of many draws."""
    outputs_only: bool = True
    """Whether it shows on what the model says; else only whoever holds the weights could see it."""
    note: str = ""
    """What it says in words, with its limit."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """How well canaries are known while a copy of the model is trained on; step 0 is the model itself."""

    steps: tuple[int, ...]
    included: tuple[Score, ...]
    excluded: tuple[Score, ...]
    """Mean probability of the answers, step by step."""
    auc: tuple[Score, ...]
    """Included above excluded canaries."""


@dataclass(frozen=True, kw_only=True)
class ModelReport:
    """Everything measured on one model state."""

    scores: Mapping[str, Mapping[str, Score]]
    """Set name (forget, paraphrased, retain, neighbours, general, holdout, ...) -> metric name -> score."""
    canaries: tuple[CanaryTest, ...] = ()
    paraphrased_canaries: tuple[CanaryTest, ...] = ()
    """Each attack on included against excluded audit canaries, asked as trained and in other words."""
    verbatim: Verbatim | None = None
    own: tuple[CanaryTest, ...] = ()
    own_paraphrased: tuple[CanaryTest, ...] = ()
    """The request's own records against excluded canaries. No coin decided about them, so they can only cause FAIL."""
    gap: Gap | None = None
    """None for the parent, and where nothing could be compared."""
    probes: Mapping[str, Probe] = field(default_factory=dict)
    """Way of asking -> what it showed."""
    absent: Mapping[str, str] = field(default_factory=dict)
    """`set/metric`, attack or probe -> why it was not measured."""
