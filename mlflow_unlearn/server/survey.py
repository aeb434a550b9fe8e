"""Which versions nobody may read any more, over the whole registry: what the requests of today reach, and what was decided to be wrong."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from ..adapters.gate_tables import KeptRows, writing
from ..adapters.gate_views import located, signed
from ..adapters.guarded_locations import BLOCK
from ..documents import decode, encode
from ..errors import ConfigError
from ..gate_values import Proof, Reason
from ..lineage import ModelVersion, VersionLineage
from ..policy import GatePolicy
from ..records import Effect, ErasureRequest, Outcome, State
from ..ruling import Standing, Use, blocked_from, by_signatures, rule
from ..stages.grounding import ground
from ..stages.proving import Prover
from ..stages.tracing import decided, evidence_for
from ..trace import reaching, trace
from .blocks import Block, kept_block
from .decisions import KIND, NO_FILES, Decisions, decoded
from .served_bench import by_the_gate
from .unanswered import UNANSWERED, foreseen

_SURVEYED = "survey"
"""What an answer rests on that came of a survey; its evidence are the requests."""
STATEMENT, SIGNED = "statement", "signed"
"""Kept rows: what verified certificates say, and the lineage that verified statements give."""
_logger = logging.getLogger("mlflow_unlearn.gate")
_BY_REQUEST = frozenset({"affected", "due", "overdue"})
_BESIDE = frozenset({"no_alias", "approvals"})
"""What keeps from a yes for an alias and says nothing against the files."""


def survey(decisions: Decisions, rows: KeptRows) -> dict[str, Block]:
    """Every location that is blocked, or will be when a request is due.

    Raises:
        UnlearnError: registry, ledger or index do not answer.
    """
    now = datetime.now(UTC)
    decisions.project.asked()  # where the ledger does not answer nobody has to wait for the bench meanwhile
    with decisions.deciding, by_the_gate():
        affected = _affected(decisions, rows, now)
        refused = {request.request_id for request in decisions.project.bench().ledger.requests() if request.state is State.REFUSED}
    with decisions.engine.connect() as connection:
        noes = {name: body for name, body in rows.all(connection, KIND).items() if body.get("answer") == "no"}
        before = [kept_block(location, body) for location, body in rows.all(connection, BLOCK).items()]
    kept = [_kept_no(decisions, name, body) for name, body in noes.items()]
    unclear = frozenset(_asked_for(name)[0] for name, found in zip(noes, kept, strict=True) if found is None)
    places = replace(Places.of(decisions), hopeless=frozenset(affected), unclear=unclear)
    found = blocks_of(decisions, places, [*affected.values(), *(each for each in kept if each is not None and not _outdated(decisions, each))])
    stay = {block.location: block for block in before if _stays(decisions, places, block, refused)}
    return {**stay, **found, **{each.location: each for each in stay.values() if each.model in unclear}}


def _asked_for(name: str) -> tuple[ModelVersion, str]:
    """The version and the alias under whose name an answer is kept."""
    model, _, alias = name.rpartition("@")
    return ModelVersion(name=model.rpartition("/")[0], version=model.rpartition("/")[2]), alias


def _kept_no(decisions: Decisions, name: str, body: Mapping[str, Any]) -> Standing | None:
    """An answer that was a no; one that another version of this package kept is worked out anew, and None where nobody can."""
    if (standing := decoded(body)) is not None:
        return standing
    try:
        return decisions.decide(*_asked_for(name))
    except UNANSWERED:
        return None


def _stays(decisions: Decisions, places: Places, block: Block, refused: Collection[str]) -> bool:
    """Whether a block stays that does not follow from the registry any more.

    What a client takes away from the registry opens nothing: neither a version that is deleted, for its files are what they were, nor a tag that
    hides what it was made from. A block ends with a yes for the files, with enforcement, or when every request that it follows from was refused.
    """
    by_request = bool(set(block.codes) & _BY_REQUEST)
    if block.model in places.located and not by_request and block.model not in places.unclear:
        return False
    ended = bool(block.requests) and set(block.requests) <= set(refused)
    enforced = decisions.project.terms().enforces(block.name)
    return enforced and not ended and not _cleared(decisions, places, block.location)


def _outdated(decisions: Decisions, kept: Standing) -> bool:
    """Whether a no about something else than a request is one no longer."""
    if set(kept.codes) & _BY_REQUEST:
        return False
    try:
        standing = decisions.standing(kept.model, kept.alias) or decisions.decide(kept.model, kept.alias)
    except UNANSWERED:
        return False
    return by_signatures(standing).answer != "no"


def blocks_of(decisions: Decisions, places: Places, standings: Iterable[Standing]) -> dict[str, Block]:
    """What decisions block, by location; of several the earliest.

    Files are blocked for what is known of the version that was registered of them first, or of one about which something is signed, and not where
    another version of them has a yes: what any client says of a version that it registered of somebody else's files must not stop these.
    """
    gate, found = decisions.project.terms().policy.gate, dict[str, Block]()
    for standing in standings:
        location, since = places.located.get(standing.model), blocked_from(standing, gate)
        if location is None or since is None or standing.model not in (places.first[location], *places.signed[location]):
            continue
        if _cleared(decisions, places, location):
            continue
        known = found.get(location)
        if known is None or (since, standing.rests_on != _SURVEYED) < (known.since, not known.requests):
            found[location] = _block(standing, gate, location, since)
    return found


@dataclass(frozen=True)
class Places:
    """Where the files of every version are, in one spelling."""

    located: Mapping[ModelVersion, str]
    first: Mapping[str, ModelVersion]
    """Location -> the version that was registered of it first."""
    signed: Mapping[str, tuple[ModelVersion, ...]]
    """Location -> versions of it about which something is signed."""
    hopeless: frozenset[ModelVersion] = frozenset()
    """Versions that cannot have a yes, since a request reaches them."""
    unclear: frozenset[ModelVersion] = frozenset()
    """Versions that had a no, and of which nobody can say now what they have."""

    @classmethod
    def of(cls, decisions: Decisions) -> Places:
        """As the registry has them now."""
        with decisions.engine.connect() as connection:
            rows = located(connection)
            named = signed(connection)
        where: dict[ModelVersion, str] = {}
        first: dict[str, ModelVersion] = {}
        about: dict[str, tuple[ModelVersion, ...]] = {}
        for model, raw in rows:
            if (location := _canonical(decisions, raw)) is not None:
                where[model] = location
                first.setdefault(location, model)
                about[location] = (*about.get(location, ()), *({model} & named))
        return cls(where, first, about)


def _cleared(decisions: Decisions, places: Places, location: str) -> bool:
    """Whether a version of these files has a yes."""
    for model in places.signed.get(location, ()):
        if model in places.hopeless:
            continue
        try:
            standing = decisions.standing(model, "") or decisions.decide(model, "")
        except UNANSWERED:
            continue
        standing = by_signatures(standing)
        if standing.answer != "no" and set(standing.codes) <= _BESIDE:
            return True
    return False


def _block(standing: Standing, policy: GatePolicy, location: str, since: datetime) -> Block:
    ruling = rule(standing, Use.READ, policy, max(since, datetime.now(UTC)))
    model = standing.model
    return Block(
        location=location,
        name=model.name,
        version=model.version,
        since=since,
        codes=ruling.codes,
        words="the gate " + ruling.words.partition(": the gate ")[2],
        requests=tuple(standing.evidence) if standing.rests_on == _SURVEYED else (),
    )


def _canonical(decisions: Decisions, location: str) -> str | None:
    try:
        with foreseen(location):
            return decisions.storage.canonical(location) if location not in NO_FILES else None
    except UNANSWERED:
        return location  # in a store that the gate knows nothing of: by its name then


def _affected(decisions: Decisions, rows: KeptRows, now: datetime) -> dict[ModelVersion, Standing]:
    """Versions that a request reaches, by the registry's own lineage; a verdict counts only where its certificate was verified here."""
    bench = decisions.project.bench()
    requests = [request for request in bench.ledger.requests() if request.state is not State.REFUSED]
    if not requests:
        return {}
    rests_on, recorded = ground(bench, bench.folder / "policy.yaml", bench.policy, now), bench.registry.lineages()
    prover = Prover(bench, rests_on, bench.policy, now)
    statements = _statements(decisions, rows, recorded, prover)
    lineages = [_as_verified(lineage, statements) for lineage in recorded]
    evidence = evidence_for(bench, requests, lineages)
    models = [line.model for line in decided(bench, requests, trace(evidence)).affected]
    if signed_for := _as_signed(decisions, rows, [each for each in lineages if each.model in set(models)], prover):
        evidence = replace(evidence, versions=[signed_for.get(each.model, each) for each in lineages])
        models = [line.model for line in decided(bench, requests, trace(evidence)).affected]
    reached = reaching(evidence, models)
    signed = {lineage.model.name for lineage in lineages if lineage.statement or lineage.certificate}
    asked = {request.request_id: request for request in requests}
    return {
        model: _standing(model, [asked[each] for each in reached[model]], rests_on.enforcement(bench.policy, model.name, signed=model.name in signed))
        for model in models
    }


def _statements(decisions: Decisions, rows: KeptRows, lineages: Iterable[VersionLineage], prover: Prover) -> dict[str, dict[str, Any]]:
    """What verified certificates say, those included that were issued before the gate came or past it."""
    with decisions.engine.connect() as connection:
        known = rows.all(connection, STATEMENT)
    for lineage in lineages:
        name = str(lineage.model)
        if lineage.requests and lineage.certificate and known.get(name, {}).get("digest") != lineage.certificate:
            proof = _proof(prover, lineage)
            if proof is not None and proof.holds and proof.kind == "certificate":
                known[name] = {"digest": lineage.certificate, "outcomes": dict(proof.outcomes)}
                with writing(decisions.engine) as connection:
                    rows.put(connection, STATEMENT, name, known[name])
    return known


def _as_signed(decisions: Decisions, rows: KeptRows, affected: Iterable[VersionLineage], prover: Prover) -> dict[ModelVersion, VersionLineage]:
    """Affected versions with the data and ancestors that were signed: whoever may write to a run adds to those that the registry has."""
    with decisions.engine.connect() as connection:
        known = rows.all(connection, SIGNED)
    found = {}
    for lineage in affected:
        name, digest = str(lineage.model), lineage.certificate or lineage.statement
        if digest is None:
            continue
        if known.get(name, {}).get("digest") != digest:
            proof = _proof(prover, lineage)
            if proof is None or proof.signed is None or proof.problems:
                continue
            known[name] = {"digest": digest, "lineage": encode(proof.signed)}
            with writing(decisions.engine) as connection:
                rows.put(connection, SIGNED, name, known[name])
        try:
            signed = decode(VersionLineage, known[name]["lineage"], "lineage")
        except (ConfigError, KeyError):
            continue  # kept by another version of this package
        found[lineage.model] = replace(lineage, datasets=signed.datasets, ancestors=signed.ancestors, problem=None)
    return found


def _proof(prover: Prover, lineage: VersionLineage) -> Proof | None:
    """What is signed about a version; None where that cannot be found out, which is trouble of this one alone."""
    try:
        with foreseen(lineage.model):
            return prover.proof(lineage)
    except UNANSWERED as error:
        _logger.warning("%s: what is signed about it counts for nothing now: %s", lineage.model, error)
        return None


def _as_verified(lineage: VersionLineage, statements: Mapping[str, Mapping[str, Any]]) -> VersionLineage:
    """A lineage whose verdict is that of its verified certificate, and none where there is no such."""
    if not lineage.requests:
        return lineage
    known = statements.get(str(lineage.model), {})
    outcomes = known.get("outcomes", {}) if known.get("digest") == lineage.certificate else {}
    return replace(lineage, verdict={effect.value: str(outcomes.get(effect.value, Outcome.INCONCLUSIVE.value)) for effect in Effect})


def _standing(model: ModelVersion, requests: Iterable[ErasureRequest], enforcement: Any) -> Standing:
    asked = sorted(requests, key=lambda each: each.request_id)
    due = [request.due_at for request in asked if request.due_at is not None and request.state is State.OPEN]
    named = ", ".join(request.request_id for request in asked[:6]) + (f" and {len(asked) - 6} more" if len(asked) > 6 else "")
    late = len(due) < len(asked)  # a closed request is due no more: it was said to be done
    return Standing(
        model=model,
        alias="",
        answer="no",
        reasons=(Reason(answer="no", code="overdue" if late else "affected", text=f"affected by {named}"),),
        enforcement=enforcement,
        rests_on=_SURVEYED,
        evidence=tuple(request.request_id for request in asked),
        asked="",
        ancestry="",
        bound="",
        location="",
        at=datetime.now(UTC).replace(microsecond=0),
        due=None if late else min(due, default=None),
    )
