"""From a version to the gate's answer: what the commands `gate` and `promote` and `load_model` share. Reads its closure, not the whole registry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from .. import config
from ..digests import key_id
from ..errors import ConfigError
from ..gate import Decision, Evidence, Proof, Reason, attested, gate
from ..lineage import ModelVersion, VersionLineage
from ..policy import Policy
from ..records import State
from ..trace import Evidence as Traceable
from ..trace import reaching, trace
from .proving import Prover, ground
from .tracing import decided, evidence_for
from .workbench import Workbench

INTERIM_TAG = "unlearn.interim"


@dataclass(frozen=True, kw_only=True)
class Question:
    """May this version be deployed?"""

    model: ModelVersion
    alias: str | None = None
    """For which alias."""
    policy: Path | None = None
    """Another policy file than policy.yaml."""
    folder: Path | None = None
    """Its files, if they are on this machine already; else they are fetched."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The decision, with what it was about."""

    decision: Decision
    policy: Policy
    evidence: Evidence


def asked(bench: Workbench, uri: str, alias: str | None = None, policy: Path | None = None) -> Question:
    """The version that a URI names now, and the alias that it is asked for.

    Raises:
        ConfigError: no such policy file.
        LineageError: no such version or alias.
    """
    if policy is not None and not policy.exists():
        raise ConfigError(f"{policy}: no such policy file")
    named = uri.rpartition("@")[2] if "@" in uri else None
    return Question(model=bench.registry.resolve(uri), alias=alias or named, policy=policy)


def answer(bench: Workbench, question: Question, now: datetime | None = None) -> Answer:
    """Decide, from everything that is signed, registered, indexed and asked.

    Raises:
        UnlearnError: registry, ledger or index do not answer, or settings are wrong, so that nothing could be decided.
    """
    from ..adapters.statements import Statements

    now, model = now or datetime.now(UTC), question.model
    policy_file = question.policy or bench.folder / "policy.yaml"
    policy = config.load_policy(policy_file)
    rests_on = ground(bench, policy_file, now)
    prover, statements = Prover(bench, rests_on, policy, now), Statements(bench.registry)
    closure = bench.registry.closure(model)
    own_files = question.folder or statements.folder(model)
    proofs = {each.model: prover.proof(each, own_files if each.model == model else None) for each in closure}
    requests = [request for request in bench.ledger.requests() if request.state is not State.REFUSED]
    traceable = evidence_for(bench, requests, attested(closure, proofs, model))
    traced = decided(bench, requests, trace(traceable))
    reviews, notes = prover.reviews(closure[0])
    interim = _interim(model, statements.tags(model))
    evidence = Evidence(
        model=model,
        closure=closure,
        proofs=proofs,
        traced=traced,
        requests=requests,
        reaching=reaching(traceable, model) if any(line.model == model for line in traced.affected) else (),
        ground=rests_on.reasons,
        others=(*interim, *_returned(bench, closure, proofs, traceable), *notes),
        alias=question.alias,
        reviews=reviews,
        policy=policy.gate,
        now=now,
        files=(*rests_on.files, bench.ledger.head().digest),
    )
    return Answer(decision=gate(evidence), policy=policy, evidence=evidence)


def _interim(model: ModelVersion, tags: Mapping[str, str]) -> list[Reason]:
    if INTERIM_TAG not in tags:
        return []
    text = f"{model}: an interim measure ({tags[INTERIM_TAG]}): nothing was evaluated, so there is no verdict; the exact version is to replace it"
    return [Reason(answer="undecided", code="interim", text=text)]


def _returned(bench: Workbench, closure: Sequence[VersionLineage], proofs: Mapping[ModelVersion, Proof], traceable: Traceable) -> list[Reason]:
    """Whether data that were added after something was forgotten bring it back, as far as the index can tell."""
    since = _since(closure, proofs)
    states = [traceable.states[md5] for md5 in sorted(since) if md5 in traceable.states]
    if not states:
        return []
    tombstones = bench.ledger.tombstones()
    buried = tombstones.get(key_id(bench.key))
    found: Mapping[str, frozenset[str]] = {}
    if buried is not None:
        kinds = {"subjects": buried.subjects, "records": buried.records, "contents": buried.contents}
        found = bench.index.held(states, **{kind: sorted(tags) for kind, tags in kinds.items()})
    names = {state.md5: state.name for state in states}
    back = [f"{len(tags)} erased people, records or texts are back in {names[md5]} {md5[:8]}" for md5, tags in sorted(found.items())]
    earlier = len(tombstones.keys() - {key_id(bench.key)})
    text = f"{len(states)} dataset states were added since: erased people, records and texts were looked for, near duplicates were not"
    text += f", nor what was erased under {earlier} earlier tag keys" if earlier else ""
    return [*(Reason(answer="no", code="returned", text=each) for each in back), Reason(answer="note", code="not_compared", text=text)]


def _since(closure: Sequence[VersionLineage], proofs: Mapping[ModelVersion, Proof]) -> set[str]:
    """md5s of what descendants of a certified version were trained on, and neither that version nor its ancestors."""
    lineages = {lineage.model: lineage for lineage in closure}

    def seen(model: ModelVersion) -> set[ModelVersion]:
        found, waiting = set(), [model]
        while waiting:
            if (each := waiting.pop()) not in found:
                found.add(each)
                waiting += [edge.parent for edge in lineages[each].ancestors if edge.parent in lineages] if each in lineages else []
        return found

    def data(models: set[ModelVersion]) -> set[str]:
        return {md5 for model in models if model in lineages for md5 in lineages[model].datasets.values()}

    certified = [model for model in lineages if proofs[model].kind == "certificate" and proofs[model].holds]
    ancestors = {model: seen(model) for model in lineages} if certified else {}
    return {
        md5
        for old in certified
        for model in lineages
        if model != old and old in ancestors[model]
        for md5 in set(lineages[model].datasets.values()) - data(ancestors[old])
    }
