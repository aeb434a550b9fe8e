"""What signed statements say about the making of versions, read back and held against what the registry says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ..errors import LineageError
from ..lineage import Descent, ModelVersion, Relation, VersionLineage
from ..statements import ADOPTED, CERTIFICATE, LINEAGE, TRAINED, Registration

if TYPE_CHECKING:
    from ..verifier import Statement


@dataclass(frozen=True, kw_only=True)
class StatedAncestor:
    """A version that another one was made from, as it was when that was signed."""

    relation: Relation
    registered: Registration
    tensors: str
    """Digest of its weights."""


@dataclass(frozen=True, kw_only=True)
class StatedLineage:
    """What a signed statement says about the making of a version, to be held against what the registry says."""

    datasets: Mapping[str, str]
    """Name -> DVC md5, `.dir` included."""
    ancestors: Mapping[ModelVersion, StatedAncestor]
    adopted: bool = False
    """Stated by a person afterwards."""
    whole: bool = True
    """False for a certificate, which names the parent and its data: all that the version can have seen, but not what its base is."""

    def contradictions(self, lineage: VersionLineage) -> tuple[str, ...]:
        """Where the registry says otherwise than what was signed, a line each."""
        signed, said = set(self.datasets.values()), set(lineage.datasets.values())
        parents = {each.parent: each.relation for each in lineage.ancestors}
        found = [f"dataset state {md5[:8]} is in the registry and not in what was signed" for md5 in sorted(said - signed)]
        found += [f"dataset state {md5[:8]} was signed and is not in the registry" for md5 in sorted(signed - said) if self.whole]
        more = sorted(parents.keys() - self.ancestors.keys()) if self.whole else []
        found += [f"{each} is an ancestor in the registry and not in what was signed" for each in more]
        found += [f"{each} was signed as an ancestor and is none in the registry" for each in sorted(self.ancestors.keys() - parents.keys())]
        found += ["it was stated by a person, and the registry no longer says so"] if self.adopted and not lineage.adopted else []
        signed_as = {each: self.ancestors[each].relation for each in sorted(parents.keys() & self.ancestors.keys())}
        return (
            *found,
            *(f"{each}: {parents[each]} in the registry, {relation} signed" for each, relation in signed_as.items() if parents[each] != relation),
        )

    def in_place_of(self, lineage: VersionLineage) -> VersionLineage:
        """What the registry says of a version, with the data and ancestors that were signed in place of those it has now."""
        data = self.datasets if self.whole else {name: md5 for name, md5 in lineage.datasets.items() if md5 in self.datasets.values()}
        made_from = [Descent(parent=model, relation=each.relation, evidence="signed") for model, each in self.ancestors.items()]
        return replace(lineage, datasets=data, ancestors=tuple(made_from), adopted=self.adopted, problem=None)

    def exchanged(
        self, registered: Callable[[ModelVersion], Registration], weights: Mapping[ModelVersion, str] = MappingProxyType({})
    ) -> tuple[str, ...]:
        """Where an ancestor is not the one that was signed, a line each: a name and a number can be given again, to something else.

        Args:
            registered: what the registry says of a version today.
            weights: version -> digest of its weights, as its own statement has it; others are not compared.
        """
        found = []
        for model, signed in sorted(self.ancestors.items()):
            try:
                again = registered(model) != signed.registered
            except LineageError:
                found.append(f"{model} was signed as an ancestor and is registered no longer")
                continue
            if again:
                found.append(f"{model} was registered again since it was signed as an ancestor: it is another version under the same name and number")
            elif (own := weights.get(model, signed.tensors)) != signed.tensors:
                found.append(f"{model}: its own statement is about the weights {own[:16]}, signed as an ancestor are {signed.tensors[:16]}")
        return tuple(found)


def lineage_of(statement: Statement) -> StatedLineage:
    """What a verified statement of lineage, or a certificate, says.

    Raises:
        LineageError: it is neither, or not in their shape.
    """
    try:
        if statement.kind == CERTIFICATE:
            return _of_certificate(statement.predicate)
        if statement.kind == LINEAGE:
            return stated(statement.predicate["buildDefinition"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LineageError(f"statement {statement.digest[:16]}: not in the shape of {statement.kind} ({str(error)[:80]})") from None
    raise LineageError(f"statement {statement.digest[:16]}: expected {CERTIFICATE} or {LINEAGE}, found {statement.kind[:80]}")


def registration_of(statement: Statement) -> Mapping[str, Any]:
    """Of which version a statement of ours says something, as `documents.encode` gives a Registration; empty where it does not say."""
    found: Any = statement.predicate
    for key in ("buildDefinition", "externalParameters", "registered") if statement.kind == LINEAGE else ("registered",):
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def weights_of(statement: Statement) -> str:
    """Digest of the tensors that a verified statement is about; `none` where its model has no safetensors."""
    digests = [each.get("digest") for each in statement.subject if each.get("name") == "."]
    return str(digests[0].get("tensors", "none")) if len(digests) == 1 and isinstance(digests[0], dict) else "none"


def _of_certificate(predicate: Mapping[str, Any]) -> StatedLineage:
    parent = predicate["unlearned"]["parent"]
    registered = Registration(**predicate["parent"])
    if parent["model"] != {"name": registered.name, "version": registered.version}:
        raise ValueError("two parents")
    made_from = StatedAncestor(relation=Relation.UNLEARNED, registered=registered, tensors=str(parent["tensor_digest"]))
    datasets = {f"{each['name']}/{each['md5'][:8]}": str(each["md5"]) for each in parent["datasets"]}
    return StatedLineage(datasets=datasets, ancestors={_version(**parent["model"]): made_from}, whole=False)


def stated(definition: Mapping[str, Any]) -> StatedLineage:
    """What the `buildDefinition` of a statement of lineage says.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: it is none.
    """
    kinds: dict[str, list[Mapping[str, Any]]] = {"dataset": [], "model": [], "base": [], "code": []}
    for each in definition["resolvedDependencies"]:
        kinds[each["annotations"]["kind"]].append(each)
    if definition["buildType"] not in (TRAINED, ADOPTED):
        raise ValueError("another buildType")
    return StatedLineage(
        datasets={str(each["name"]): str(each["annotations"]["md5"]) for each in kinds["dataset"]},
        ancestors={_version(*each["name"].rsplit("/", 1)): _ancestor_of(each) for each in kinds["model"]},
        adopted=definition["buildType"] == ADOPTED,
    )


def _ancestor_of(entry: Mapping[str, Any]) -> StatedAncestor:
    notes, model = entry["annotations"], _version(*entry["name"].rsplit("/", 1))
    registered = Registration(name=model.name, version=model.version, run_id=str(notes["run_id"]), created_at=int(notes["created_at"]))
    return StatedAncestor(relation=Relation(notes["relation"]), registered=registered, tensors=str(entry["digest"]["tensors"]))


def _version(name: str, version: str) -> ModelVersion:
    return ModelVersion(name=name, version=version)
