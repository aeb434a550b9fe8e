"""A way through the graph of a trace in words: the steps of a path, and the sentence that says them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from .closure import Reach
from .lineage import Descent, Hop, ModelVersion, Relation, Step
from .provenance import Provenance

GAP = "each made from the one before"
"""What a step says that stands for the middle of a long path."""

_ORIGIN = {
    Relation.UNLEARNED: "unlearned from",
    Relation.FINE_TUNED: "fine-tuned from",
    Relation.ADAPTER: "made as an adapter of",
    Relation.MERGED: "merged from",
    Relation.QUANTISED: "quantised from",
    Relation.COPIED: "copied from",
}


@dataclass(frozen=True, kw_only=True)
class Story:
    """Names of the nodes: md5s of datasets and outputs, whole numbers of versions, and `!MD5` for a state that no graph knows."""

    data: Provenance
    models: Sequence[ModelVersion]
    holes: Mapping[Hashable, str]
    """Node -> why nobody can say what it holds or saw."""
    matches: Mapping[str, int]
    told: dict[tuple[Hashable, str], tuple[Step, str]] = field(default_factory=dict)
    """Steps said before, with their words, shared by every path that takes them."""

    def tell(self, reach: Reach) -> tuple[tuple[Step, ...], str]:
        """The path from its start to the node, and what follows the start in words: `; m/1 trained on it; m/2 fine-tuned from m/1 (equal weights)`.

        Of a long path the middle is a count.
        """
        first, between, last = reach.way()
        told = [self._told(each) for each in first]
        if between:
            told.append((Step(kind=Hop.VERSION, name=f"{between} more", how=GAP), f"; {between} more steps"))
        told += [self._told(each) for each in last]
        return tuple([step for step, _ in told]), "".join([words for _, words in told])

    def hole(self, reach: Reach) -> str:
        """Why the node at the end is unknown."""
        start = reach.start
        if isinstance(start, int):
            return self.holes[start] if reach.length == 1 else f"its ancestor {self.models[start]}: {self.holes[start]}"
        return f"{self.name(start)} {self.holes[start]}" + ("" if reach.length <= 2 else self.tell(reach)[1])

    def name(self, node: Hashable) -> str:
        """A node for people."""
        return str(self.models[node]) if isinstance(node, int) else self.data.name(str(node).removeprefix("!"))

    def _told(self, reach: Reach) -> tuple[Step, str]:
        key = (reach.node, reach.how)
        if key not in self.told:
            name = self.name(reach.node)
            step = Step(kind=self._kind(reach), name=name, how=reach.how or self._beginning(reach.node))
            self.told[key] = step, f"; {name} {reach.how}" if reach.how else ""
        return self.told[key]

    def _kind(self, reach: Reach) -> Hop:
        if isinstance(reach.node, int):
            return Hop.VERSION
        return Hop.OUTPUT if reach.before else Hop.DATASET

    def _beginning(self, node: Hashable) -> str:
        return self.holes.get(node) or f"holds {counted(self.matches.get(str(node), 0))}"


def counted(records: int) -> str:
    """How many of the requested records, in words."""
    return f"{records} of the requested records"


def descent(parent: ModelVersion, edge: Descent) -> str:
    """How a version came from its parent, e.g. `fine-tuned from m/1 (equal weights)`."""
    return f"{_ORIGIN[edge.relation]} {parent} ({edge.evidence})"
