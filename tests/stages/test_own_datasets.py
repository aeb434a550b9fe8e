"""What the shards of a version are cut from: its own data, not what its base learned from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from mlflow_unlearn.lineage import DatasetRevision, Descent, ModelVersion, Parent, Relation, VersionLineage
from mlflow_unlearn.stages.tracing import own_datasets
from mlflow_unlearn.stages.workbench import Workbench

STATES = {md5: DatasetRevision(name=md5, path=md5, md5=md5) for md5 in ("people", "web")}
BASE, FIRST, SECOND = (ModelVersion(name=name, version=version) for name, version in (("base", "1"), ("m", "1"), ("m", "2")))


@dataclass
class Lineages:
    """A registry with a base, a version trained on it, and one unlearned from that."""

    def lineages(self) -> tuple[VersionLineage, ...]:
        trained = Descent(parent=BASE, relation=Relation.ADAPTER, evidence="tag")
        unlearned = Descent(parent=FIRST, relation=Relation.UNLEARNED, evidence="tag")
        return (
            VersionLineage(model=BASE, datasets={"web": "web"}),
            VersionLineage(model=FIRST, datasets={"people": "people"}, ancestors=(trained,)),
            VersionLineage(model=SECOND, ancestors=(unlearned, trained), requests=("er-1",)),
        )


@dataclass
class Bench:
    registry: Lineages


def own(model: ModelVersion) -> tuple[DatasetRevision, ...]:
    parent = Parent(model=model, tensor_digest="d", datasets=tuple(STATES.values()))
    return own_datasets(cast(Workbench, cast(Any, Bench(Lineages()))), parent)


def test_a_version_was_trained_on_its_own_data_and_not_on_its_base_s() -> None:
    assert own(FIRST) == (STATES["people"],)


def test_an_unlearned_version_goes_by_what_it_was_unlearned_from() -> None:
    assert own(SECOND) == (STATES["people"],)
