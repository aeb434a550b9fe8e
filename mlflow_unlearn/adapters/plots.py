"""An evaluation as pictures: frozen values to matplotlib figures, drawn without a display and without pyplot's global state.

What a figure shows of people is a count. Intervals are 95 % and drawn wherever there are any; colours are Okabe and Ito's, which colour-blind readers
tell apart, and every state also has a marker or a dash of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ..measurements import Curve, ModelReport, Score
from ..power import Power
from ..roc import Roc

INK, FAINT, GRID = "#222222", "#666666", "#e3e3e3"
BLUE, VERMILION, ORANGE, GREEN, PURPLE, SKY = "#0072B2", "#D55E00", "#E69F00", "#009E73", "#CC79A7", "#56B4E9"
DPI = 160


@dataclass(frozen=True, kw_only=True)
class Look:
    """How a state of the model is drawn, everywhere alike."""

    label: str
    colour: str
    marker: str
    dash: str


LOOKS = {
    "before": Look(label="before", colour=BLUE, marker="s", dash="--"),
    "after": Look(label="unlearned", colour=VERMILION, marker="o", dash="-"),
    "after_finetune": Look(label="after benign fine-tune", colour=ORANGE, marker="^", dash="-."),
    "retrained": Look(label="retrained", colour=GREEN, marker="D", dash=":"),
}
"""State -> look, in the order of the legend."""
GOES = {
    "requested": "requested",
    "requested_paraphrased": "requested, reworded",
    "audit_included": "forgotten canaries",
    "audit_excluded": "never-seen canaries",
    "holdout": "held-out people",
}
STAYS = {"retain": "retained people", "neighbours": "neighbours", "general": "general facts", "general_paraphrased": "general, reworded"}
"""Set -> its name in a figure: what should be unknown, and what should stay known."""


def knowledge(reports: Mapping[str, ModelReport]) -> Figure | None:
    """What each state still knows, a panel a metric and a row a set, with intervals; None where nothing was scored.

    Args:
        reports: states of `LOOKS` -> what was measured on them.
    """
    known = {state: reports[state].scores for state in LOOKS if state in reports and reports[state].scores}
    sets = [name for name in (*GOES, *STAYS) if any(name in scores for scores in known.values())]
    metrics = list(dict.fromkeys(metric for scores in known.values() for name in sets for metric in scores.get(name, ())))
    if not metrics:
        return None
    figure = _figure(width=2.2 + 2.7 * len(metrics), height=1.7 + 0.62 * len(sets))
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for panel, metric in zip(panels, metrics, strict=True):
        for state in known:
            found = {row: known[state][name][metric] for row, name in enumerate(sets) if metric in known[state].get(name, {})}
            _points(panel, found, _offset(state, list(known)), LOOKS[state])
        _knowledge_panel(panel, metric, sets)
    _groups(panels[-1], sets)
    _legend(figure, panels[0], columns=len(known))
    figure.suptitle("What is still known: means over records, 95 % intervals", color=INK, fontweight="bold")
    return figure


def roc_curves(attack: str, curves: Mapping[str, Roc], areas: Mapping[str, Score]) -> Figure:
    """How many forgotten canaries an attack finds at each false positive rate, with pointwise bands; the right panel shows small rates.

    Args:
        attack: its name.
        curves: states of `LOOKS` -> curve of included against excluded canaries.
        areas: the same states -> AUC with its interval.
    """
    figure = _figure(width=9.4, height=5.0)
    whole, small = figure.subplots(1, 2)
    for panel in (whole, small):
        panel.plot([0, 1], [0, 1], color=FAINT, linewidth=0.9, label="chance")
        for state in (each for each in LOOKS if each in curves):
            _roc_line(panel, curves[state], LOOKS[state], areas.get(state))
        panel.set(xlabel="never-seen canaries called members (false positive rate)", ylabel="forgotten canaries found (true positive rate)")
        _percent(panel.xaxis, panel.yaxis)
        _plain(panel)
    whole.set(xlim=(0, 1), ylim=(0, 1.005), title="all rates")
    small.set(xlim=(0, 0.1), ylim=(0, 1.005), title="rates up to 10 %")
    _legend(figure, whole, columns=2)
    figure.suptitle(f"The {attack.replace('_', ' ')} attack on the canaries, pointwise 95 % bands", color=INK, fontweight="bold")
    return figure


def relearning(curves: Mapping[str, Curve], level: Mapping[str, Score] | None = None) -> Figure | None:
    """How well canaries are known while a copy of the model is trained on, step by step, with bands; None without a curve.

    Args:
        curves: what was taught -> curve.
        level: names -> mean probability of the forgotten canaries in other states (before, retrained), drawn as lines to compare with.
    """
    if not curves:
        return None
    figure = _figure(width=1.2 + 4.2 * len(curves), height=6.4)
    panels = figure.subplots(2, len(curves), sharex="col", sharey="row", squeeze=False)
    for (name, curve), (known, told) in zip(curves.items(), panels.T, strict=True):
        _band(known, curve.steps, curve.included, VERMILION, "forgotten canaries", "-")
        _band(known, curve.steps, curve.excluded, SKY, "never-seen canaries", "--")
        for state, score in (level or {}).items():
            look = LOOKS[state]
            known.axhline(score.value, color=look.colour, linestyle=look.dash, linewidth=1.1, label=f"forgotten canaries, {look.label}")
        told.axhline(0.5, color=FAINT, linewidth=0.9, label="chance")
        _band(told, curve.steps, curve.auc, PURPLE, "forgotten against never-seen (AUC)", "-")
        known.set(title=name, ylim=(-0.02, 1.02))
        told.set(xlabel="optimiser steps on the copy", ylim=(-0.02, 1.02))
        told.xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[0, 0].set_ylabel("mean probability of the answer")
    panels[1, 0].set_ylabel("AUC")
    _legend(figure, panels[0, 0], panels[1, 0], columns=2)
    figure.suptitle("What relearning brings back, 95 % bands", color=INK, fontweight="bold")
    return figure


def power_curve(powers: Sequence[Power], pool: int | None = None) -> Figure:
    """How often an honest retrain passes with a pool of so many canaries, and how weak a leak such a pool sees.

    Args:
        powers: one for each size, ascending.
        pool: the size at hand, drawn as a line.
    """
    figure = _figure(width=9.4, height=4.6)
    chances, reach = figure.subplots(1, 2)
    sizes = [each.canaries for each in powers]
    for values, colour, dash, label in (
        ([each.auc_all for each in powers], BLUE, "--", "within the AUC margin, all states"),
        ([each.gap_all for each in powers], ORANGE, "-.", "within the margin of what remains, all states"),
        ([each.passes for each in powers], VERMILION, "-", "passes all of these (at least)"),
    ):
        chances.plot(sizes, values, color=colour, linestyle=dash, linewidth=1.8, label=label)
    chances.set(xlabel="canaries in the pool, included plus excluded", ylabel="chance of an honest retrain", ylim=(-0.02, 1.02))
    _percent(chances.yaxis)
    reach.plot(sizes, [each.visible_auc for each in powers], color=GREEN, linewidth=1.8, label="AUC seen in 80 of 100 cases")
    reach.plot(
        sizes, [0.5 + each.auc_error for each in powers], color=FAINT, linestyle=":", linewidth=1.6, label="chance alone: 0.5 + one standard error"
    )
    reach.set(xlabel="canaries in the pool, included plus excluded", ylabel="AUC", ylim=(0.5, None))
    for panel in (chances, reach):
        _plain(panel)
        if pool is not None:
            panel.axvline(pool, color=INK, linestyle=(0, (1, 2)), linewidth=1.3, label=f"this pool: {pool}")
    _legend(figure, chances, reach, columns=2)
    figure.suptitle("What a pool of canaries can show", color=INK, fontweight="bold")
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a PNG; equal figures give equal bytes."""
    figure.savefig(path, dpi=DPI, metadata={"Software": None})


def _figure(width: float, height: float) -> Figure:
    """A figure that draws into memory."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _offset(state: str, states: Sequence[str]) -> float:
    """How far from the middle of its row a state is drawn; the first above."""
    return (states.index(state) - (len(states) - 1) / 2) * 0.62 / max(len(states), 2)


def _points(panel: Axes, found: Mapping[int, Score], offset: float, look: Look) -> None:
    """Values with their intervals, one a row."""
    values = [score.value for score in found.values()]
    reach = [[score.value - score.low for score in found.values()], [score.high - score.value for score in found.values()]]
    rows = [row + offset for row in found]
    style: dict[str, Any] = {"color": look.colour, "marker": look.marker, "markersize": 4.5, "linestyle": "none", "elinewidth": 1.6, "capsize": 2}
    panel.errorbar(values, rows, xerr=[[max(0.0, each) for each in side] for side in reach], label=look.label, **style)


def _knowledge_panel(panel: Axes, metric: str, sets: Sequence[str]) -> None:
    goes = sum(name in GOES for name in sets)
    panel.set(title=metric.replace("_", " "), yticks=range(len(sets)), ylim=(len(sets) - 0.5, -0.5))
    panel.set_yticklabels([(GOES | STAYS)[name] for name in sets])
    low, high = panel.get_xlim()
    panel.set_xlim(min(low, -0.03), max(high, 1.03))
    for row in range(1, len(sets)):
        panel.axhline(row - 0.5, color=INK if row == goes else GRID, linewidth=0.9)
    _plain(panel, "x")
    panel.tick_params(axis="y", length=0)


def _groups(panel: Axes, sets: Sequence[str]) -> None:
    """Beside the last panel, what is wanted of the rows above and below the line."""
    goes = sum(name in GOES for name in sets)
    for first, end, words in ((0, goes, "should be unknown"), (goes, len(sets), "should stay known")):
        if end > first:
            style: dict[str, Any] = {"rotation": 270, "ha": "left", "va": "center", "color": FAINT, "fontsize": "small"}
            panel.text(1.03, (first + end - 1) / 2, words, transform=panel.get_yaxis_transform(), **style)


def _roc_line(panel: Axes, curve: Roc, look: Look, area: Score | None) -> None:
    label = look.label if area is None else f"{look.label}: AUC {area.value:.3f} ({area.low:.3f} to {area.high:.3f})"
    panel.fill_between(curve.fpr, curve.low, curve.high, color=look.colour, alpha=0.13, linewidth=0)
    panel.plot(curve.fpr, curve.tpr, color=look.colour, linestyle=look.dash, linewidth=1.8, label=label)


def _band(panel: Axes, steps: Sequence[int], scores: Sequence[Score], colour: str, label: str, dash: str) -> None:
    """A line of scores with their intervals."""
    panel.fill_between(steps, [score.low for score in scores], [score.high for score in scores], color=colour, alpha=0.18, linewidth=0)
    panel.plot(steps, [score.value for score in scores], color=colour, linestyle=dash, linewidth=1.8, marker="o", markersize=3.5, label=label)
    _plain(panel)


def _percent(*axes: Axis) -> None:
    for axis in axes:
        axis.set_major_formatter(PercentFormatter(xmax=1, decimals=0, symbol=" %"))


def _plain(panel: Axes, grid: Literal["both", "x"] = "both") -> None:
    """No box around the data, a faint grid behind them, and nothing in front."""
    panel.grid(axis=grid, color=GRID, linewidth=0.8)
    panel.spines[["top", "right"]].set_visible(False)
    panel.spines[["left", "bottom"]].set_color(FAINT)
    panel.tick_params(colors=INK)
    panel.set_axisbelow(True)


def _legend(figure: Figure, *panels: Axes, columns: int) -> None:
    """One legend below all panels, each label once."""
    named: dict[str, Any] = {}
    for panel in panels:
        handles, labels = panel.get_legend_handles_labels()
        named |= {label: handle for label, handle in zip(labels, handles, strict=True) if label not in named}
    figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=columns, frameon=False, fontsize="small", labelcolor=INK)
