"""A trace as the nodes and lines of a picture: everything on a path from the request to what saw its records, alike things folded into one."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise

from .lineage import Hop, Step, Trace
from .story import GAP

FOLD = 4
"""So many alike, with the same neighbours, are drawn as one."""
MOST = 120
"""More nodes than this, and everything alike is drawn as one whatever its neighbours are."""

_PLURAL = {"dataset": "revisions", "output": "outputs", "run": "runs", "version": "versions"}


class Standing(StrEnum):
    """What a node is to the requested records."""

    REQUEST = "request"
    AFFECTED = "affected"
    DOWNSTREAM = "downstream"
    """Affected as everything downstream is: no record tags decide."""
    UNKNOWN = "unknown"
    FORGOT = "forgot"
    """Clear, since it passed or everything on the way did."""
    CLEAR = "clear"


@dataclass(frozen=True, kw_only=True)
class Node:
    """One box."""

    key: str
    kind: str
    """`request`, or a hop: dataset, output, run, version."""
    standing: Standing
    title: str
    how: str
    """The line below the title: what leads here, or what it holds."""
    aliases: tuple[str, ...] = ()
    group: str = ""
    """What it may be folded with: the name of its model, or its kind."""
    members: tuple[str, ...] = ()
    """Titles of the nodes that this one stands for; empty for a node that stands for itself."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """Nodes in their order, and lines between their keys."""

    nodes: tuple[Node, ...]
    lines: tuple[tuple[str, str], ...]


def picture(traced: Trace) -> Picture:
    """The picture of a trace. Versions that the records never reached are one node without a line."""
    paths = [line.path for line in (*traced.affected, *traced.unknown, *traced.clear)]
    paths += [output.why for output in traced.outputs] + [run.path for run in traced.runs]
    known = _known(traced)
    nodes: dict[str, Node] = {"request": _request(traced)}
    lines: dict[tuple[str, str], None] = {}
    for held in traced.held:
        name = f"{held.state.name} {held.state.md5[:8]} ({', '.join(held.state.revisions) or 'no revision'})"
        how = f"holds {held.records} of the records; {', '.join(held.state.revisions) or 'in no revision'}"
        title = f"{held.state.name} {held.state.md5[:8]}"
        nodes[f"data:{name}"] = Node(key=f"data:{name}", kind="dataset", standing=Standing.AFFECTED, title=title, how=how, group=held.state.name)
        lines["request", f"data:{name}"] = None
    for path in filter(None, paths):
        keys = [_key(step, path[place + 1 : place + 2]) for place, step in enumerate(path)]
        rest = known.get(keys[-1], (Standing.UNKNOWN, ()))[0]
        for key, step in zip(keys, path, strict=True):
            gap = step.how == GAP
            node = _node(key, step, *known.get(key, (rest if gap else Standing.UNKNOWN, ())))
            nodes.setdefault(key, replace(node, group=_model(path[-1].name)) if gap else node)
        lines.update(dict.fromkeys(pairwise(keys)))
    never = [str(line.model) for line in traced.clear if not line.path]
    if never:
        nodes["never"] = _folded_node([_never(name) for name in never])
    return _folded(Picture(nodes=tuple(nodes.values()), lines=tuple(lines)))


def _request(traced: Trace) -> Node:
    title = traced.requests[0] if len(traced.requests) == 1 else f"{len(traced.requests)} requests"
    return Node(key="request", kind="request", standing=Standing.REQUEST, title=title, how="asked to be forgotten", members=traced.requests)


def _never(name: str) -> Node:
    return Node(key="never", kind="version", standing=Standing.CLEAR, title=name, how="the records never reached them")


def _known(traced: Trace) -> dict[str, tuple[Standing, tuple[str, ...]]]:
    """Key of a node -> where it stands, and its aliases."""
    known: dict[str, tuple[Standing, tuple[str, ...]]] = {}
    for lines, standing in ((traced.clear, Standing.FORGOT), (traced.unknown, Standing.UNKNOWN), (traced.affected, Standing.AFFECTED)):
        for line in lines:
            known[f"version:{line.model}"] = (standing if line.exact else Standing.DOWNSTREAM), line.aliases
    for output in traced.outputs:
        known[_key(output.why[-1])] = (Standing.AFFECTED if output.exact else Standing.DOWNSTREAM), ()
    for run in traced.runs:
        known[_key(run.path[-1])] = (Standing.AFFECTED if run.exact else Standing.DOWNSTREAM), ()
    return known


def _key(step: Step, following: Sequence[Step] = ()) -> str:
    if step.how == GAP:
        return f"gap:{step.name}:{following[0].name}"
    return f"data:{step.name}" if step.kind in (Hop.DATASET, Hop.OUTPUT) else f"{step.kind.value}:{step.name}"


def _node(key: str, step: Step, standing: Standing, aliases: tuple[str, ...]) -> Node:
    group = _model(step.name) if step.kind is Hop.VERSION else ""
    return Node(key=key, kind=step.kind.value, standing=standing, title=step.name, how=step.how, aliases=aliases, group=group)


def _model(version: str) -> str:
    return version.rpartition("/")[0]


def _folded(whole: Picture) -> Picture:
    """Alike nodes as one: with the same neighbours first, and whatever their neighbours are where that is not enough."""
    before: dict[str, set[str]] = {}
    after: dict[str, set[str]] = {}
    for source, target in whole.lines:
        after.setdefault(source, set()).add(target)
        before.setdefault(target, set()).add(source)
    neighbours = {node.key: (frozenset(before.get(node.key, ())), frozenset(after.get(node.key, ()))) for node in whole.nodes}
    folded = _fold(whole, {n.key: (n.key if n.aliases else "", n.kind, n.standing, n.group, neighbours[n.key]) for n in whole.nodes}, FOLD)
    if len(folded.nodes) > MOST:
        folded = _fold(whole, {n.key: (n.kind, n.standing, n.group) for n in whole.nodes}, 2)
    if len(folded.nodes) > MOST:
        folded = _fold(whole, {n.key: (n.kind, n.standing) for n in whole.nodes}, 2)
    return folded


def _fold(whole: Picture, alike: Mapping[str, Hashable], fewest: int) -> Picture:
    groups: dict[Hashable, list[Node]] = {}
    for node in whole.nodes:
        groups.setdefault(alike[node.key], []).append(node)
    nodes: list[Node] = []
    keys: dict[str, str] = {}
    for members in groups.values():
        made = [_folded_node(members)] if len(members) >= fewest else members
        nodes += made
        keys |= {member.key: made[0].key if len(made) == 1 else member.key for member in members}
    lines = dict.fromkeys((keys[source], keys[target]) for source, target in whole.lines if keys[source] != keys[target])
    return Picture(nodes=tuple(nodes), lines=tuple(lines))


def _folded_node(members: Sequence[Node]) -> Node:
    """One node for several; it keeps the first one's key and names them all."""
    first = members[0]
    if len(members) == 1:
        return first
    groups = sorted({member.group for member in members})
    hows = sorted({member.how for member in members})
    titles = tuple(_with_aliases(member) for member in members if not member.key.startswith("gap:"))
    what = _PLURAL.get(first.kind, first.kind)
    title = f"{len(titles)} {what}" + (f" of {groups[0]}" if len(groups) == 1 and groups[0] else "")
    return replace(first, title=title, how=hows[0] if len(hows) == 1 else "by several ways", aliases=(), members=titles)


def _with_aliases(node: Node) -> str:
    return " ".join([node.title, *(f"@{alias}" for alias in node.aliases)])
