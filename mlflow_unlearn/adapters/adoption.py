"""What a person states about a version that was trained before anybody recorded it: held against what was recorded, and written as its tags.

Nothing recorded is taken back: a statement may name more than the registry does, never less. Which tags were stated stands in one of their own, and
the statement stays among the artifacts: once adopted, always adopted, whatever becomes of the tags.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..ancestry import trouble
from ..documents import encode
from ..errors import LineageError
from ..lineage import ModelVersion, Relation, VersionLineage
from ..statements import ADOPTED
from ..verifier import UndecidedError, open_envelope, read_json
from .registry_descent import DATASET_TAG, by_name
from .registry_rows import ADOPTED_TAG, BASE_MODEL_TAG, RELATION_TAG
from .statements import Statements
from .training_data import TrainingData

ADOPTED_NOTE = "its lineage was stated by a person and not recorded by its training"
_NAMED = 4
_OURS = "unlearn."


@dataclass(frozen=True, kw_only=True)
class Stated:
    """What a person says that a version was made from."""

    datasets: Sequence[tuple[str, TrainingData]] = ()
    """(name of the dataset, its state)."""
    made_from: Sequence[ModelVersion] = ()
    relation: Relation = Relation.FINE_TUNED
    nothing_else: bool = False
    """No version of the registry and no local model; a hub's model may be."""

    @property
    def tags(self) -> dict[str, str]:
        """The tags from which a trace reads it."""
        data = by_name((name, state.md5) for name, state in self.datasets)
        found = {f"{DATASET_TAG}{name}": md5 for name, md5 in data.items()}
        if self.made_from:
            found |= {BASE_MODEL_TAG: ",".join(f"models:/{each}" for each in self.made_from), RELATION_TAG: self.relation.value}
        elif self.nothing_else:
            found[BASE_MODEL_TAG] = "none"
        return found


@dataclass(frozen=True, kw_only=True)
class Adoption:
    """A statement that contradicts nothing."""

    lineage: VersionLineage
    """As the registry will have it."""
    tags: Mapping[str, str | None] = field(default_factory=dict)
    """What to set, and with None what an earlier statement had and this one has not."""
    changes: bool = True
    """Whether the registry says something else today."""
    before: bool = False
    """Whether a person stated something else before."""


def adoption(statements: Statements, model: ModelVersion, stated: Stated) -> Adoption:
    """Hold a statement against what was recorded.

    Raises:
        LineageError: it contradicts what was recorded, leaves something unknown, or repeats what is recorded anyway.
    """
    registry, tags = statements.registry, statements.tags(model)
    earlier = [name for name in tags.get(ADOPTED_TAG, "").split(",") if name]
    recorded = registry.closure(model, {name: value for name, value in tags.items() if name not in (*earlier, ADOPTED_TAG)})[0]
    new = {name: value for name, value in stated.tags.items() if name in earlier or name not in tags}
    mark = {ADOPTED_TAG: ",".join(sorted(new)) or "nothing"}
    lineage = registry.closure(model, {**{name: value for name, value in tags.items() if name not in earlier}, **new, **mark})[0]
    _require_no_contradiction(recorded, stated, tags, earlier)
    if problem := trouble(lineage):
        raise LineageError(f"{model}: still unknown: {problem}; name all its data, and what it was made from: --made-from VERSION or --nothing-else")
    if ADOPTED_TAG not in tags and not _says_more(lineage, recorded) and unrecorded(statements, recorded) is None:
        raise LineageError(f"{model}: all of this is recorded by its training; sign that with `mlflow-unlearn attest models:/{model}`")
    gone: dict[str, str | None] = {name: None for name in earlier if name not in new}
    changes = any(tags.get(name) != value for name, value in {**new, **mark, **gone}.items())
    return Adoption(lineage=lineage, tags={**gone, **new, **mark}, changes=changes, before=changes and ADOPTED_TAG in tags)


def unrecorded(statements: Statements, lineage: VersionLineage) -> str | None:
    """Why a lineage is not what a run recorded, so that only a person can stand for it; None where it is.

    Any client may set tags of a version: they may add to what its run says, and never stand in for it.
    """
    model = lineage.model
    if lineage.adopted:
        return ADOPTED_NOTE
    if (before := _stated_before(statements, model)) is not None:
        return before
    others = {name: value for name, value in statements.tags(model).items() if not name.startswith(_OURS)}
    alone = statements.registry.closure(model, others)[0]
    if problem := trouble(alone):
        return f"its run did not record it: without tags of the version, which any client can set, {problem}"
    if left_out := {each.parent for each in alone.ancestors} - {each.parent for each in lineage.ancestors}:
        return f"tags of the version hide that its run started from {_some(sorted(map(str, left_out)))}"
    return None


def _stated_before(statements: Statements, model: ModelVersion) -> str | None:
    """What a person once stated stays stated by a person, also when tags are gone; one that cannot be read may be such a statement."""
    registered = encode(statements.registration(model))
    for raw in statements.lineages(model):
        try:
            definition = read_json(open_envelope(raw, "lineage").payload, "lineage")["predicate"]["buildDefinition"]
            if definition["buildType"] == ADOPTED and definition["externalParameters"]["registered"] == registered:
                return ADOPTED_NOTE
        except (UndecidedError, KeyError, TypeError):
            return "what is kept as an earlier statement of it cannot be read, and may be a person's"
    return None


def _require_no_contradiction(recorded: VersionLineage, stated: Stated, tags: Mapping[str, str], earlier: Sequence[str]) -> None:
    model, named = recorded.model, {state.md5 for _, state in stated.datasets}
    left_out = [f"{name} {md5[:8]}" for name, md5 in sorted(recorded.datasets.items()) if md5 not in named]
    if left_out:
        raise LineageError(f"{model}: its training recorded {_some(left_out)}, which the statement leaves out; name that too with --data")
    own = {each.parent for each in recorded.ancestors}
    origin = tags.get(BASE_MODEL_TAG) if BASE_MODEL_TAG not in earlier else None
    if own and stated.nothing_else:
        raise LineageError(f"{model}: --nothing-else, but it was made from {_some(sorted(map(str, own)))} ({recorded.ancestors[0].evidence})")
    if missing := sorted(str(each) for each in own - set(stated.made_from) if stated.made_from):
        raise LineageError(f"{model}: it was recorded as made from {_some(missing)}, which --made-from leaves out; name that too")
    if origin is not None and stated.tags.get(BASE_MODEL_TAG) not in (None, origin):
        raise LineageError(f"{model}: its tag {BASE_MODEL_TAG} says {origin[:80]}, the statement something else; correct the one that is wrong")


def _says_more(lineage: VersionLineage, recorded: VersionLineage) -> bool:
    return (lineage.datasets, lineage.ancestors) != (recorded.datasets, recorded.ancestors)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
