"""The picture of a trace: everything is in it, nothing in it is markup of others, and it stays small."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import pydot
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_unlearn.drawing import COLOURS, MARKS
from mlflow_unlearn.graph import to_dot, to_html, to_svg
from mlflow_unlearn.layers import layered
from mlflow_unlearn.lineage import DatasetRevision, HeldRevision, Hop, ModelVersion, Step, Trace, TracedOutput, TracedRun, TracedVersion
from mlflow_unlearn.picture import MOST, Standing, picture
from mlflow_unlearn.story import GAP

SVG = "{http://www.w3.org/2000/svg}"
STATE = DatasetRevision(name="d", path="data", md5="a" * 32, revisions=("main",))
DATA = Step(kind=Hop.DATASET, name="d aaaaaaaa (main)", how="holds 3 of the requested records")


def step(name: str, how: str = "trained on it", kind: Hop = Hop.VERSION) -> Step:
    return Step(kind=kind, name=name, how=how)


def line(name: str, version: str, *before: Step, **facts) -> TracedVersion:
    path = (*before, step(f"{name}/{version}")) if before else ()
    return TracedVersion(model=ModelVersion(name=name, version=version), why=f"why {name}/{version}", path=path, **facts)


def traced(affected: Sequence[TracedVersion] = (), **more) -> Trace:
    return Trace(requests=("er-1",), affected=tuple(affected), held=(HeldRevision(state=STATE, records=3),), **more)


OUTPUT = step("f.csv bbbbbbbb", "made from it by dvc.yaml:f", Hop.OUTPUT)
WHOLE = traced(
    [line("m", "1", DATA, aliases=("champion",)), line("m", "2", DATA, OUTPUT, exact=False)],
    clear=(line("m", "3", DATA, requests=("er-1",)), line("m", "4")),
    unknown=(line("m", "5", step("g.csv cccccccc", "is not indexed", Hop.DATASET)),),
    outputs=(TracedOutput(path="f.csv", md5="b" * 32, exact=False, why=(DATA, OUTPUT)),),
    runs=(TracedRun(run_id="r1", experiment="e", logged_models=("m-1",), exact=True, path=(DATA, step("r1", "read it", Hop.RUN))),),
    warnings=("main~3: dvc.lock is in conflict",),
)
pytestmark = pytest.mark.filterwarnings("ignore:'[a-zA-Z]+' deprecated - use:DeprecationWarning")  # pydot 4 with pyparsing 3.3
TEXT = st.text(max_size=20)
NASTY = st.one_of(TEXT, st.sampled_from(["</svg><script>alert(1)</script>", '"];x[label="', "a\\", "&amp;", "\x00\ud800\uffff", "é ü 漢"]))


def test_every_kind_of_standing_is_drawn_once_for_each_thing() -> None:
    standings = {node.title: node.standing for node in picture(WHOLE).nodes}
    assert standings == {
        "er-1": Standing.REQUEST,
        "d aaaaaaaa": Standing.AFFECTED,
        "m/1": Standing.AFFECTED,
        "f.csv bbbbbbbb": Standing.DOWNSTREAM,
        "m/2": Standing.DOWNSTREAM,
        "m/3": Standing.FORGOT,
        "m/4": Standing.CLEAR,
        "g.csv cccccccc": Standing.UNKNOWN,
        "m/5": Standing.UNKNOWN,
        "r1": Standing.AFFECTED,
    }


def test_lines_follow_the_paths_and_begin_at_the_request() -> None:
    titles = {node.key: node.title for node in picture(WHOLE).nodes}
    lines = {(titles[source], titles[target]) for source, target in picture(WHOLE).lines}
    assert ("er-1", "d aaaaaaaa") in lines
    assert {("d aaaaaaaa", "f.csv bbbbbbbb"), ("f.csv bbbbbbbb", "m/2"), ("g.csv cccccccc", "m/5"), ("d aaaaaaaa", "r1")} <= lines
    assert not [each for each in lines if "m/4" in each]


def test_graphviz_reads_the_dot_as_the_same_graph() -> None:
    (graph,) = pydot.graph_from_dot_data(to_dot(WHOLE))
    drawn = picture(WHOLE)
    assert len([node for node in graph.get_nodes() if node.get_name() != "node"]) == len(drawn.nodes)
    assert len(graph.get_edges()) == len(drawn.lines)


def test_the_svg_is_xml_with_a_title_a_description_and_a_box_for_each_node() -> None:
    root = ElementTree.fromstring(to_svg(WHOLE))
    frames = [each for each in root.iter(f"{SVG}rect") if each.get("class") == "frame"]
    assert root.find(f"{SVG}title").text == "Trace of er-1"
    assert "2 affected, 1 unknown and 2 clear" in root.find(f"{SVG}desc").text
    assert len(frames) == len(picture(WHOLE).nodes)


@pytest.mark.parametrize("drawn", [to_svg(WHOLE), to_html(WHOLE)], ids=["svg", "html"])
def test_nothing_is_loaded_from_anywhere_and_nothing_runs(drawn: str) -> None:
    assert not re.search(r"<script|<img|<link|<iframe|@import|url\(|\bsrc=|\bon\w+=|javascript:", drawn)
    assert set(re.findall(r'href="([^"]*)"', drawn)) <= {"#affected", "#unknown", "#clear"}
    assert set(re.findall(r"https?://[^\"' ]+", drawn)) == {"http://www.w3.org/2000/svg"}


@given(NASTY, NASTY, NASTY)
def test_names_of_others_stay_text(name: str, how: str, request: str) -> None:
    path = (Step(kind=Hop.DATASET, name=name, how=how), step(f"{name}/1", how))
    hostile = TracedVersion(model=ModelVersion(name=name, version="1"), why=how, path=path, aliases=(how,))
    whole = replace(traced([hostile], warnings=(how,)), requests=(request,))
    root = ElementTree.fromstring(to_svg(whole))
    assert {each.tag.removeprefix(SVG) for each in root.iter()} <= {"svg", "title", "desc", "style", "rect", "path", "g", "text"}
    assert "<script" not in to_html(whole)
    (graph,) = pydot.graph_from_dot_data(to_dot(whole))
    assert len(graph.get_edges()) == len(picture(whole).lines)


def test_many_alike_are_one_box_that_names_them_and_an_alias_stays_apart() -> None:
    many = [line("m", str(number), DATA) for number in range(1, 301)]
    many[6] = line("m", "7", DATA, aliases=("champion",))
    drawn = picture(traced(many))
    folded = next(node for node in drawn.nodes if node.members and node.kind == "version")
    assert (folded.title, len(drawn.nodes)) == ("299 versions of m", 4)
    assert {"m/7"} == {f"m/{number}" for number in range(1, 301)} - set(folded.members)


def test_a_very_long_chain_stays_one_picture_without_losing_a_version() -> None:
    gap = step("90 more", GAP)
    chain = [line("m", str(number), DATA, step("m/1"), *([gap] if number > 12 else []), step(f"m/{number - 1}")) for number in range(3, 1000)]
    drawn = picture(traced(chain))
    assert len(drawn.nodes) <= MOST
    assert {f"m/{number}" for number in range(1, 1000)} == {title for node in drawn.nodes for title in node.members if node.kind == "version"}


class Page(HTMLParser):
    """What a screen reader gets to know of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.labels: list[str] = []
        self.cells: list[str] = []
        self.reading = False
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        named = dict(attributes)
        self.ids += [named["id"] or ""] if "id" in named else []
        self.labels += (named.get("aria-labelledby") or "").split()
        self.reading = tag in ("td", "th")
        if self.reading:
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        self.reading = self.reading and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.reading and self.cells:
            self.cells[-1] += data


def test_the_page_says_every_line_in_words_under_labels_that_exist() -> None:
    page = Page(to_html(WHOLE))
    lines = (*WHOLE.affected, *WHOLE.clear, *WHOLE.unknown)
    assert {each.why for each in lines} <= set(page.cells)
    assert "d aaaaaaaa (main) → f.csv bbbbbbbb" in page.cells
    assert set(page.labels) <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))


def test_long_lists_of_clear_versions_are_shut_and_an_empty_trace_is_a_page() -> None:
    clear = tuple(line("m", str(number)) for number in range(30))
    assert "<details><summary>Show all 30</summary>" in to_html(traced(clear=clear))
    assert "<details>" not in to_html(traced(clear=clear[:3]))
    assert to_html(Trace(requests=())).count("<p>None.</p>") == 3


def luminance(colour: str) -> float:
    """Relative luminance of sRGB (WCAG 2.1)."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    return sum(w * (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4) for w, c in zip((0.2126, 0.7152, 0.0722), parts, strict=True))


def contrast(one: str, other: str) -> float:
    dark, light = sorted(map(luminance, (one, other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("standing", [each for each in Standing if each is not Standing.REQUEST])
def test_marks_and_text_can_be_read_on_their_box_by_light_and_by_dark(standing: Standing) -> None:
    fill, stroke, dark_fill, dark_stroke = COLOURS[standing]
    assert min(contrast(fill, stroke), contrast(dark_fill, dark_stroke), contrast(fill, "#4d586a"), contrast(dark_fill, "#b3bdcc")) >= 4.5
    assert len({mark for mark, _ in MARKS.values()}) == len(Standing)


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=14), st.sets(st.integers(0, 7), min_size=1, max_size=3))
def test_every_node_has_one_column_one_after_the_nearest_that_leads_to_it(edges, starts) -> None:
    columns = {node: number for number, column in enumerate(layered(range(8), edges, dict.fromkeys(starts, 0))) for node in column}
    expected, reached = {}, set(starts)
    for distance in range(9):
        expected |= dict.fromkeys(reached - expected.keys(), distance)
        reached = {target for source, target in edges if source in expected}
    assert columns == {node: expected.get(node, 0) for node in range(8)}
