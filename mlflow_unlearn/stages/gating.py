"""From a version to the gate's answer: what the commands `gate` and `promote` and `load_model` share. Reads its closure, not the whole registry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import config, verifier
from ..errors import ConfigError
from ..gate import Decision, Evidence, Reason, attested, gate
from ..lineage import ModelVersion, VersionLineage
from ..policy import Enforcement, Policy
from ..records import State
from ..trace import Evidence as Traceable
from ..trace import reaching, trace
from .grounding import ground
from .proving import Prover, Subject, as_signed
from .returning import returned
from .tracing import decided, evidence_for
from .workbench import Workbench

if TYPE_CHECKING:
    from ..adapters.ledger_witness import Head
    from ..adapters.statements import Statements

INTERIM_TAG = "unlearn.interim"


@dataclass(frozen=True, kw_only=True)
class Question:
    """May this version be deployed?"""

    model: ModelVersion
    alias: str | None = None
    """For which alias."""
    policy: Path | None = None
    """Another policy file than policy.yaml."""
    subject: Subject | None = None
    """Gives the digests of its files; else they are fetched and hashed."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The decision, with what it was about."""

    decision: Decision
    signed: Decision
    """The same by what was signed alone, whatever the registry has otherwise since: what is deployed goes by it."""
    policy: Policy
    evidence: Evidence
    enforcement: Enforcement
    """What a no does."""
    head: Head
    """The ledger's last event before anything else was looked at."""


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

    head = bench.ledger.head()  # first: a request that comes in meanwhile leaves it behind
    now, model = now or datetime.now(UTC), question.model
    policy_file = question.policy or bench.folder / "policy.yaml"
    policy = config.load_policy(policy_file)
    rests_on = ground(bench, policy_file, policy, now)
    prover, statements = Prover(bench, rests_on, policy, now), Statements(bench.registry)
    closure = bench.registry.closure(model)
    subject = question.subject or partial(_hashed, statements, model)
    proofs = {each.model: prover.proof(each, subject if each.model == model else None) for each in closure}
    requests = [request for request in bench.ledger.requests() if request.state is not State.REFUSED]
    reviews, notes = prover.reviews(closure[0])
    given = Evidence(
        model=model,
        closure=closure,
        proofs=proofs,
        traced=None,
        requests=requests,
        ground=rests_on.reasons,
        others=(*_interim(model, statements.tags(model)), *notes),
        alias=question.alias,
        reviews=reviews,
        policy=policy.gate,
        now=now,
        files=(*rests_on.files, head.digest),
    )
    traceable = evidence_for(bench, requests, ())
    evidence = _traced(bench, given, traceable)
    decision = gate(evidence)
    signed = any(each.certificate or each.statement for each in closure)
    return Answer(
        decision=decision,
        signed=gate(_traced(bench, as_signed(given, prover), traceable)) if _recorded_since(given) else decision,
        policy=policy,
        evidence=evidence,
        enforcement=rests_on.enforcement(policy, model.name, signed=signed),
        head=head,
    )


def _recorded_since(given: Evidence) -> bool:
    """Whether the registry has anything of a version or its ancestors otherwise than was signed."""

    def made_of(lineage: VersionLineage) -> object:
        return set(lineage.datasets.values()), {(each.parent, each.relation) for each in lineage.ancestors}, lineage.problem

    signed = {each.model: given.proofs[each.model].signed for each in given.closure}
    return any((own := signed[each.model]) is not None and made_of(own) != made_of(each) for each in given.closure)


def _traced(bench: Workbench, given: Evidence, traceable: Traceable) -> Evidence:
    """Evidence, with which requests reach the version."""
    traceable = replace(traceable, versions=attested(given.closure, given.proofs, given.model))
    traced = decided(bench, given.requests, trace(traceable))
    affected = any(line.model == given.model for line in traced.affected)
    return replace(
        given,
        traced=traced,
        reaching=reaching(traceable, [given.model])[given.model] if affected else (),
        others=(*given.others, *returned(bench, given.closure, given.proofs, traceable.states)),
    )


def _hashed(statements: Statements, model: ModelVersion) -> list[dict[str, Any]]:
    with statements.files(model) as folder:
        return verifier.subject_of(folder)


def _interim(model: ModelVersion, tags: Mapping[str, str]) -> list[Reason]:
    if INTERIM_TAG not in tags:
        return []
    text = f"{model}: an interim measure ({tags[INTERIM_TAG]}): nothing was evaluated, so there is no verdict; the exact version is to replace it"
    return [Reason(answer="undecided", code="interim", text=text)]
