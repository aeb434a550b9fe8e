"""A trace as a picture: in DOT for Graphviz, or as an SVG that needs nothing else.

Colour never speaks alone: a mark in each box, and the stroke of its frame, say the same.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil

from .layers import layered
from .lineage import Trace
from .picture import Node, Picture, Standing, picture

MARKS: Mapping[Standing, tuple[str, str]] = {
    Standing.REQUEST: ("→", "request"),
    Standing.AFFECTED: ("●", "saw the records"),
    Standing.DOWNSTREAM: ("≈", "everything downstream: may be too much"),
    Standing.UNKNOWN: ("?", "cannot be told"),
    Standing.FORGOT: ("✓", "saw them, then passed as forgotten"),
    Standing.CLEAR: ("○", "clear"),
}
"""Mark and meaning of each standing."""
COLOURS: Mapping[Standing, tuple[str, str, str, str]] = {
    Standing.REQUEST: ("#26324b", "#26324b", "#cfd8ee", "#cfd8ee"),
    Standing.AFFECTED: ("#fdeaea", "#c23030", "#3b1d20", "#f07f7f"),
    Standing.DOWNSTREAM: ("#fff1e4", "#a84b08", "#38240f", "#f0a060"),
    Standing.UNKNOWN: ("#fff8da", "#8f6b00", "#33290a", "#e2c04c"),
    Standing.FORGOT: ("#e5f6ec", "#1f7a45", "#12301f", "#63c78c"),
    Standing.CLEAR: ("#f0f2f5", "#5b6675", "#222831", "#98a3b3"),
}
"""Fill and stroke on a light ground, then on a dark one."""

_WIDTH, _HEIGHT, _GAP, _BETWEEN, _EDGE = 270, 66, 88, 18, 24
_CHIP_HEIGHT, _CHIPS_WIDE, _MOST_CHIPS = 24, 540, 150
_LETTER = 6.6  # mean width of a letter at 11 px, a little generous


@dataclass(frozen=True, kw_only=True)
class _Box:
    node: Node
    chips: tuple[str, ...]
    chip_width: int
    across: int
    width: int
    height: int
    x: float = 0
    y: float = 0


def to_dot(traced: Trace) -> str:
    """The picture for Graphviz, from left to right."""
    drawn = picture(traced)
    names = {node.key: f"n{number}" for number, node in enumerate(drawn.nodes)}
    rows = ["digraph trace {", "  rankdir=LR;", '  node [shape=box, style="filled,rounded", fontname="sans-serif", fontsize=11];']
    for node in drawn.nodes:
        fill, stroke, _, _ = COLOURS[node.standing]
        style = "filled,rounded,dashed" if node.standing in (Standing.DOWNSTREAM, Standing.UNKNOWN) else "filled,rounded"
        ink = ', fontcolor="#ffffff"' if node.standing is Standing.REQUEST else ""
        rows.append(f'  {names[node.key]} [label={_quoted(_label(node))}, style="{style}", fillcolor="{fill}", color="{stroke}"{ink}];')
    rows += [f"  {names[source]} -> {names[target]};" for source, target in drawn.lines]
    return "\n".join([*rows, "}", ""])


def to_svg(traced: Trace) -> str:
    """The picture as one SVG document without any outside resource; it follows the reader's light or dark setting."""
    drawn = picture(traced)
    boxes = _placed(drawn)
    width = max((box.x + box.width for box in boxes.values()), default=0) + _EDGE
    height = max((box.y + box.height for box in boxes.values()), default=0) + _EDGE
    used = [standing for standing in Standing if any(node.standing is standing for node in drawn.nodes) and standing is not Standing.REQUEST]
    rows = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="trace" role="img" aria-labelledby="trace-title trace-what" width="{width:.0f}" '
        f'height="{height + 34:.0f}" viewBox="0 0 {width:.0f} {height + 34:.0f}">',
        f'<title id="trace-title">Trace of {plain(", ".join(traced.requests) or "no request")}</title>',
        f'<desc id="trace-what">{plain(_described(traced))}</desc>',
        f"<style>{_style()}</style>",
        '<rect class="ground" width="100%" height="100%"/>',
    ]
    rows += [_line(boxes[source], boxes[target]) for source, target in drawn.lines]
    rows += [_drawn(box) for box in boxes.values()]
    rows += [_legend(used, height), "</svg>", ""]
    return "\n".join(rows)


def _described(traced: Trace) -> str:
    counts = f"{len(traced.affected)} affected, {len(traced.unknown)} unknown and {len(traced.clear)} clear versions"
    return f"{counts}; {len(traced.held)} dataset revisions hold requested records. Lines lead from the request to what its records reached."


def _label(node: Node) -> str:
    listed = ", ".join(node.members[:8]) + (f" and {len(node.members) - 8} more" if len(node.members) > 8 else "")
    return "\n".join(filter(None, [f"{MARKS[node.standing][0]} {_titled(node)}", listed, node.how]))


def _titled(node: Node) -> str:
    return " ".join([node.title, *(f"@{alias}" for alias in node.aliases)])


def _quoted(text: str) -> str:
    """A quoted string of the DOT language; its escapes are the backslash's and the quote's own."""
    return '"' + _clean(text, keep="\n").replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _clean(text: str, keep: str = "") -> str:
    """Without characters that XML 1.0 forbids and that no name needs: controls, lone surrogates, non-characters."""
    return "".join(letter if (letter.isprintable() or letter in keep) and letter not in "\ufffe\uffff" else "\ufffd" for letter in text)


def plain(text: str) -> str:
    """The text as the content of an element or attribute of HTML or XML."""
    return html.escape(_clean(text))


def _short(text: str, width: float, letter: float = _LETTER, *, end: bool = False) -> str:
    """The text, its middle or its end left out where it is wider than `width` pixels."""
    most = max(3, int(width / letter))
    if len(text) <= most:
        return plain(text)
    tail = 0 if end else (most - 1) // 3
    return plain(f"{text[: most - 1 - tail]}…{text[len(text) - tail :]}")


def _placed(drawn: Picture) -> dict[str, _Box]:
    """Every node with its place: columns side by side, each centred from top to bottom."""
    targets = {target for _, target in drawn.lines}
    first = {node.key: 0 if node.key == "request" else 1 for node in drawn.nodes if node.key not in targets}
    nodes = {node.key: node for node in drawn.nodes}
    columns = [_as_wide([_sized(nodes[key]) for key in column]) for column in layered([*nodes], drawn.lines, first)]
    heights = [sum(box.height + _BETWEEN for box in column) - _BETWEEN for column in columns]
    x, boxes = float(_EDGE), {}
    for column, height in zip(columns, heights, strict=True):
        y = _EDGE + (max(heights) - height) / 2
        for box in column:
            boxes[box.node.key] = replace(box, x=x, y=y)
            y += box.height + _BETWEEN
        x += max((box.width for box in column), default=-_GAP) + _GAP
    return boxes


def _as_wide(column: Sequence[_Box]) -> list[_Box]:
    """All boxes as wide as the widest, so that no line has to cross one."""
    width = max((box.width for box in column), default=0)
    return [replace(box, width=width) for box in column]


def _sized(node: Node) -> _Box:
    members = () if node.standing in (Standing.CLEAR, Standing.REQUEST) else node.members
    chips = tuple(member.removeprefix(f"{node.group}/") for member in members[:_MOST_CHIPS])
    chips += (f"+{len(members) - _MOST_CHIPS}",) if len(members) > _MOST_CHIPS else ()
    chip = min(210, 16 + int(_LETTER * max(map(len, chips), default=0)))
    across = max(1, min(_CHIPS_WIDE // (chip + 6), ceil(len(chips) / 2)))
    width = max(_WIDTH, across * (chip + 6) + 20)
    return _Box(node=node, chips=chips, chip_width=chip, across=across, width=width, height=_HEIGHT + ceil(len(chips) / across) * _CHIP_HEIGHT)


def _drawn(box: _Box) -> str:
    node, x, y = box.node, box.x, box.y
    alias = (
        f'<text class="alias" x="{x + box.width - 12:.0f}" y="{y + 19:.0f}">{_short("@" + " @".join(node.aliases), 150)}</text>'
        if node.aliases
        else ""
    )
    rows = [
        f'<g class="box {node.standing.value}"><title>{plain(f"{_titled(node)}: {node.how}; {MARKS[node.standing][1]}")}</title>',
        f'<rect class="frame" x="{x:.0f}" y="{y:.0f}" width="{box.width}" height="{box.height}" rx="9"/>',
        f'<text class="mark" x="{x + 16:.0f}" y="{y + 39:.0f}">{MARKS[node.standing][0]}</text>',
        f'<text class="kind" x="{x + 30:.0f}" y="{y + 19:.0f}">{node.kind.upper()}</text>{alias}',
        f'<text class="name" x="{x + 30:.0f}" y="{y + 37:.0f}">{_short(node.title, box.width - 42, 8.2)}</text>',
        f'<text class="how" x="{x + 30:.0f}" y="{y + 54:.0f}">{_short(node.how, box.width - 42, 6.2, end=True)}</text>',
    ]
    for place, chip in enumerate(box.chips):
        left, top = x + 12 + place % box.across * (box.chip_width + 6), y + _HEIGHT - 4 + place // box.across * _CHIP_HEIGHT
        rows.append(f'<rect class="chip" x="{left:.0f}" y="{top:.0f}" width="{box.chip_width}" height="19" rx="5"/>')
        rows.append(f'<text class="chip-name" x="{left + 8:.0f}" y="{top + 13.5:.0f}">{_short(chip, box.chip_width - 10)}</text>')
    return "\n".join([*rows, "</g>"])


def _line(source: _Box, target: _Box) -> str:
    """A curve from the right side of one box to the left side of the other."""
    x, y = source.x + source.width, source.y + min(source.height, _HEIGHT) / 2
    to_x, to_y = target.x - 7, target.y + min(target.height, _HEIGHT) / 2
    bend = max(36.0, (to_x - x) / 2)
    curve = f"M{x:.0f} {y:.0f}C{x + bend:.0f} {y:.0f} {to_x - bend:.0f} {to_y:.0f} {to_x:.0f} {to_y:.0f}"
    head = f"M{to_x + 6:.0f} {to_y:.0f}l-8 -4.5v9z"
    return f'<path class="line {target.node.standing.value}" d="{curve}"/><path class="head {target.node.standing.value}" d="{head}"/>'


def _legend(used: Sequence[Standing], y: float) -> str:
    x, rows = float(_EDGE), []
    for standing in used:
        mark, meaning = MARKS[standing]
        rows.append(f'<g class="box {standing.value}"><text class="mark" x="{x + 6:.0f}" y="{y + 16:.0f}">{mark}</text>')
        rows.append(f'<text class="how" x="{x + 18:.0f}" y="{y + 15:.0f}">{meaning}</text></g>')
        x += 40 + _LETTER * len(meaning)
    return "\n".join(rows)


def _style() -> str:
    light = "".join(f".trace .{name.value}{{--fill:{fill};--stroke:{stroke}}}" for name, (fill, stroke, _, _) in COLOURS.items())
    dark = "".join(f".trace .{name.value}{{--fill:{fill};--stroke:{stroke}}}" for name, (_, _, fill, stroke) in COLOURS.items())
    return (
        ".trace{--ground:#fff;--ink:#1b2230;--soft:#4d586a;--request:#fff;font-family:system-ui,'Segoe UI',Roboto,'DejaVu Sans',sans-serif}"
        f"{light}.trace .ground{{fill:var(--ground)}}.trace .frame{{fill:var(--fill);stroke:var(--stroke);stroke-width:1.4}}"
        ".trace .downstream .frame,.trace .unknown .frame,.trace .line.downstream,.trace .line.unknown{stroke-dasharray:5 4}"
        ".trace .line{fill:none;stroke:var(--stroke);stroke-width:1.6;opacity:.75}.trace .head{fill:var(--stroke)}"
        ".trace text{fill:var(--ink);font-size:11px}.trace .mark{fill:var(--stroke);font-size:15px;font-weight:700;text-anchor:middle}"
        ".trace .kind{fill:var(--soft);font-size:9px;letter-spacing:.09em}.trace .name{font-size:13px;font-weight:600}.trace .how{fill:var(--soft)}"
        ".trace .alias{fill:var(--stroke);font-weight:600;text-anchor:end}.trace .chip{fill:var(--ground);stroke:var(--stroke);stroke-width:.7}"
        ".trace .request text{fill:var(--request)}"
        f"@media (prefers-color-scheme:dark){{.trace{{--ground:#12161d;--ink:#e9edf4;--soft:#b3bdcc;--request:#12161d}}{dark}}}"
    )
