"""What `promote`, `approve`, `override` and `history` do, as functions from arguments to JSON-ready documents."""

from __future__ import annotations

import getpass
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from ..documents import encode
from ..dsse import seal, statement
from ..errors import ConfigError, LedgerError, LineageError
from ..lineage import ModelVersion
from ..reasons import APPROVALS, OVERRIDES, refuse_other
from ..records import Outcome, Promotion
from ..signing_keys import Passphrase, from_environment
from ..stages.gating import Answer, Question, answer, asked
from ..stages.signing import signer_for
from ..stages.workbench import Workbench
from ..statements import REVIEW, Review, ReviewKind, Role
from ..trust import read_trust
from ..verifier.envelopes import IN_TOTO
from .gating import document

_TRIES = 5
"""How often the gate is asked while others write in the ledger; a look takes seconds, and requests come in by the hour."""


def promote(uri: str, alias: str) -> dict[str, Any]:
    """Ask the gate, then let an alias point at a version, as the policy's enforcement has it; either is entered in the ledger.

    Returns:
        The gate's document with `alias`, `replaced`, `enforcement`, `promoted` and `already` (the alias pointed at it before; nothing is entered).

    Raises:
        ConfigError: the URI names no version by its number, or the alias was moved by somebody else meanwhile.
        LedgerError: others wrote in the ledger again and again while the gate looked.
    """
    from ..adapters import registry_aliases as aliases

    bench = Workbench()
    if "@" in uri:
        raise ConfigError(f"{uri}: what an alias points at may change while one looks; name the version, models:/NAME/VERSION")
    question = asked(bench, uri, alias)
    before = aliases.holder(bench.registry, question.model.name, alias)
    found = _entered(bench, question, before)
    return document(found.decision) | {
        "alias": alias,
        "replaced": before.version if before else None,
        "enforcement": found.enforcement,
        "promoted": _granted(found),
        "already": before == question.model,
    }


def review(uri: str, alias: str, kind: ReviewKind, reason: str, passphrase: Passphrase = from_environment) -> dict[str, Any]:
    """Sign that a version may be deployed under an alias, or that it may be although its verdict is INCONCLUSIVE.

    Args:
        uri: the version.
        alias: for which alias.
        kind: an approval or an override.
        reason: a code of reasons.APPROVALS or reasons.OVERRIDES.
        passphrase: of the reviewer's key.

    Raises:
        ConfigError: no reviewer's key here, or the policy knows no override.
        LineageError: nothing that holds is signed about the version, its verdict is not INCONCLUSIVE, or the reviewer signed it too.
    """
    from ..adapters.statements import Statements

    refuse_other(reason, OVERRIDES if kind is ReviewKind.OVERRIDE else APPROVALS, kind.value)
    bench = Workbench()
    found = answer(bench, asked(bench, uri, alias))
    model, proof = found.evidence.model, found.evidence.proofs[found.evidence.model]
    trust = read_trust(bench.settings.trust_file)
    signer = signer_for(Role.REVIEWER, trust, bench.settings, passphrase)
    holder = trust.keys[signer.key_id].holder
    if not proof.holds:
        raise LineageError("\n".join([f"{model}: nothing is signed that could be reviewed", *(doubt.text for doubt in proof.doubts)]))
    if holder in proof.signers | proof.holders:
        raise LineageError(f"{model}: {holder} signed its {proof.kind}, and nobody reviews what he or she signed; another person has to")
    if kind is ReviewKind.OVERRIDE:
        _refuse_override(found)
    statements, now = Statements(bench.registry), datetime.now(UTC).replace(microsecond=0)
    signed = Review(
        kind=kind,
        registered=statements.registration(model),
        alias=alias,
        reason=reason,
        issued_at=now,
        expires_at=now + timedelta(days=found.policy.gate.certificate_days),
    )
    payload = statement(REVIEW, [{"name": proof.kind, "digest": {"sha256": proof.statement}}], signed)
    statements.keep_review(model, seal(payload, IN_TOTO, [signer]))
    return {"version": str(model), "kind": kind.value, "alias": alias, "by": holder, "reason": reason, "of": proof.statement}


def history(uri: str | None = None) -> dict[str, Any]:
    """Who promoted what, when and on which evidence, and what was refused: of one registered model (`models:/NAME` or its name) or of all.

    Raises:
        LineageError: neither the ledger nor the registry knows a model of this name.
        StoreError: the ledger does not, and MLflow does not answer.
    """
    bench = Workbench()
    name = re.split("[/@]", uri.removeprefix("models:/"), maxsplit=1)[0] if uri else None
    found = bench.ledger.promotions(name)
    if name is not None and not found and not bench.registry.lineages(name):
        known = sorted({each.model.name for each in bench.registry.lineages()})
        raise LineageError(f"{uri}: no registered model called {name}; there are: {', '.join(known) or 'none'}")
    return {"promotions": [_line(each) for each in found], "head": bench.ledger.head().digest}


def who() -> str:
    """Whoever asks, as they call themselves: MLFLOW_TRACKING_USERNAME, else the user of this machine. Nobody verifies it."""
    if name := os.environ.get("MLFLOW_TRACKING_USERNAME"):
        return name
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container whose user has no name
        return f"uid-{os.getuid()}"


def _entered(bench: Workbench, question: Question, before: ModelVersion | None) -> Answer:
    """The gate's answer, and what follows from it: done and entered while nobody else writes, and only if nobody wrote since it was asked."""
    from ..adapters.ledger_promotions import WentOnError

    alias = question.alias or ""
    for _ in range(_TRIES):
        found = answer(bench, question)
        granted = _granted(found)
        if before == question.model and granted:
            return found
        try:
            bench.ledger.promote(_promotion(found, alias, before), _pointing(bench, question.model, alias, before) if granted else None, found.head)
        except WentOnError:
            continue
        return found
    raise LedgerError(f"promote: others wrote in the ledger each of {_TRIES} times while the gate looked; nothing was changed, try again")


def _granted(found: Answer) -> bool:
    return found.decision.answer == "yes" or found.enforcement != "enforce"


def _promotion(found: Answer, alias: str, before: ModelVersion | None) -> Promotion:
    decision = found.decision
    return Promotion(
        model=decision.model,
        alias=alias,
        replaced=before.version if before else None,
        granted=_granted(found),
        answer=decision.answer,
        enforcement=found.enforcement,
        codes=decision.codes,
        evidence=decision.evidence,
        by=who(),
        at=datetime.now(UTC),
    )


def _pointing(bench: Workbench, model: ModelVersion, alias: str, before: ModelVersion | None) -> Callable[[], None]:
    """Points the alias, unless somebody else moved it since it was looked at."""
    from ..adapters import registry_aliases as aliases

    def act() -> None:
        current = aliases.holder(bench.registry, model.name, alias)
        if current not in (before, model):
            was = before.version if before else "nothing"
            raise ConfigError(
                f"promote: {model.name}@{alias} was moved from {was} to {current.version if current else 'nothing'} meanwhile; look, and ask again"
            )
        aliases.point(bench.registry, model, alias, current)

    return act


def _refuse_override(found: Answer) -> None:
    model, proof = found.evidence.model, found.evidence.proofs[found.evidence.model]
    if not found.policy.gate.override:
        raise ConfigError("override: policy.yaml allows none (gate.override)")
    if Outcome.INCONCLUSIVE.value not in proof.outcomes.values():
        verdict = ", ".join(f"{effect} {outcome}" for effect, outcome in sorted(proof.outcomes.items())) or "no certificate"
        raise LineageError(f"{model}: only an INCONCLUSIVE verdict can be overridden ({verdict})")


def _line(promotion: Promotion) -> dict[str, Any]:
    found: dict[str, Any] = encode(promotion)
    return found | {"version": str(promotion.model)}
