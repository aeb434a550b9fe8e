"""Pictures of an evaluation: what is drawn is what was measured, with its intervals, and nothing is left behind in the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from mlflow_unlearn.adapters import plots
from mlflow_unlearn.measurements import Curve, Direction, ModelReport, Score
from mlflow_unlearn.policy import Policy
from mlflow_unlearn.power import Judged, power
from mlflow_unlearn.roc import roc

POWERS = [power(size, Policy(), Judged()) for size in (200, 400, 800)]


def score(value: float) -> Score:
    return Score(value=value, low=value - 0.05, high=value + 0.1, n=400, direction=Direction.LOWER)


def report(**values: float) -> ModelReport:
    return ModelReport(scores={name: {"probability": score(value)} for name, value in values.items()})


def curve() -> Curve:
    rising = tuple(score(value) for value in (0.1, 0.2, 0.4))
    return Curve(steps=(0, 5, 10), included=rising, excluded=rising[:1] * 3, auc=tuple(score(value) for value in (0.5, 0.6, 0.8)))


def every_figure() -> dict[str, Figure | None]:
    suspicions = np.random.default_rng(0).normal(loc=[[1.0], [0.0]], size=(2, 200))
    return {
        "knowledge": plots.knowledge({"before": report(requested=0.9, retain=0.8), "after": report(requested=0.1, retain=0.8)}),
        "roc": plots.roc_curves("min_k", {"before": roc(*suspicions)}, {"before": score(0.7)}),
        "relearning": plots.relearning({"relearned half": curve()}, {"before": score(0.9)}),
        "power": plots.power_curve(POWERS, 520),
    }


def labels(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_a_row_of_the_knowledge_figure_is_a_set_and_a_point_a_state_with_its_interval() -> None:
    figure = plots.knowledge({"after": report(requested=0.1, retain=0.8), "before": report(requested=0.7, retain=0.75)})
    assert figure is not None
    panel = figure.axes[0]
    assert [text.get_text() for text in panel.get_yticklabels()] == ["requested", "retained people"]
    assert labels(figure) == ["before", "unlearned"]
    before, unlearned = panel.containers
    assert list(before.lines[0].get_xdata()) == [0.7, 0.75]
    assert list(unlearned.lines[0].get_xdata()) == [0.1, 0.8]
    reach = unlearned.lines[2][0].get_segments()[0][:, 0]
    assert list(reach) == pytest.approx([0.05, 0.2])


def test_metrics_that_only_some_sets_have_get_a_panel_all_the_same() -> None:
    some = ModelReport(scores={"requested": {"truth_ratio": score(0.4)}, "retain": {"probability": score(0.8)}})
    figure = plots.knowledge({"after": some})
    assert figure is not None
    assert [panel.get_title() for panel in figure.axes] == ["truth ratio", "probability"]
    assert [[len(each.lines[0].get_xdata()) for each in panel.containers] for panel in figure.axes] == [[1], [1]]


def test_a_roc_figure_draws_the_curve_and_its_band_and_says_the_area() -> None:
    suspicions = np.random.default_rng(0).normal(loc=[[1.0], [0.0]], size=(2, 200))
    found = roc(*suspicions)
    figure = plots.roc_curves("loss", {"after": found}, {"after": score(0.7)})
    assert labels(figure) == ["chance", "unlearned: AUC 0.700 (0.650 to 0.800)"]
    line = figure.axes[0].get_lines()[1]
    assert np.array_equal(line.get_ydata(), found.tpr)
    band = figure.axes[0].collections[0].get_paths()[0].vertices
    assert {round(float(y), 9) for y in band[:, 1]} >= {round(float(y), 9) for y in found.low}
    assert figure.axes[1].get_xlim() == (0.0, 0.1)


def test_a_relearning_figure_has_a_column_a_curve_and_lines_to_compare_with() -> None:
    figure = plots.relearning({"relearned half": curve(), "relearned strangers": curve()}, {"before": score(0.9)})
    assert figure is not None
    assert [panel.get_title() for panel in figure.axes[:2]] == ["relearned half", "relearned strangers"]
    drawn = {line.get_label(): list(line.get_ydata()) for line in figure.axes[0].get_lines()}
    assert drawn == {"forgotten canaries": [0.1, 0.2, 0.4], "never-seen canaries": [0.1] * 3, "forgotten canaries, before": [0.9, 0.9]}
    assert list(figure.axes[2].get_lines()[1].get_ydata()) == [0.5, 0.6, 0.8]


def test_a_power_figure_draws_the_chances_and_the_pool_at_hand() -> None:
    figure = plots.power_curve(POWERS, 520)
    drawn = {line.get_label(): list(line.get_ydata()) for line in figure.axes[0].get_lines()}
    assert drawn["passes all of these (at least)"] == [each.passes for each in POWERS]
    assert list(next(line for line in figure.axes[0].get_lines() if line.get_label() == "this pool: 520").get_xdata()) == [520, 520]
    assert "this pool: 520" not in labels(plots.power_curve(POWERS))


def test_every_axis_says_what_it_is_and_every_legend_lies_outside_the_data() -> None:
    for name, figure in every_figure().items():
        assert figure is not None
        figure.canvas.draw()
        assert all(panel.get_xlabel() or panel.get_title() or panel.get_ylabel() for panel in figure.axes), name
        box = figure.legends[0].get_window_extent()
        assert not any(box.overlaps(panel.get_window_extent()) for panel in figure.axes), name


def test_states_differ_in_colour_marker_and_dash() -> None:
    looks = plots.LOOKS.values()
    for what in ("label", "colour", "marker", "dash"):
        assert len({getattr(look, what) for look in looks}) == len(looks)


def test_of_nothing_there_is_no_picture() -> None:
    assert plots.knowledge({"after": ModelReport(scores={})}) is None
    assert plots.relearning({}) is None


def test_equal_values_give_equal_bytes_and_no_clock_or_folder_is_in_them(tmp_path: Path) -> None:
    for again in ("a", "b"):
        for name, figure in every_figure().items():
            assert figure is not None
            plots.save(figure, tmp_path / f"{name}-{again}.png")
    for name in every_figure():
        first, second = ((tmp_path / f"{name}-{again}.png").read_bytes() for again in ("a", "b"))
        assert first == second
        assert first.startswith(b"\x89PNG")
        assert str(tmp_path).encode() not in first


def test_drawing_needs_no_pyplot() -> None:
    code = (
        "import sys; from mlflow_unlearn.adapters import plots; from mlflow_unlearn.power import power, Judged\n"
        "from mlflow_unlearn.policy import Policy; plots.power_curve([power(400, Policy(), Judged())])\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
