"""What follows from the gate's answer when somebody wants to point an alias at a version, follow an alias, or read a version's files."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Literal, get_args

from .gate_values import Answer, Reason
from .lineage import ModelVersion
from .policy import Enforcement, GatePolicy

_TOLD = 5
_REQUESTED = frozenset({"affected", "due"})
"""Codes of a no that rests on nothing but a request that came in later and is not due yet."""
_GROUND = frozenset({"trust_refused", "older_trust", "policy_changed", "data_changed", "other_ledger"})
"""Codes of a no about what all answers rest on: they keep aliases from every version, and say nothing against the files of one."""
_NEXT = {
    "affected": "make it forget (`dvc repro`), and promote the version that comes of it",
    "overdue": "make it forget (`dvc repro`), and promote the version that comes of it",
    "unsigned": "have its training sign the lineage (`mlflow-unlearn attest`, or `adopt` for one trained before)",
    "no_certificate": "have it evaluated and certified (`dvc repro`)",
    "failed": "choose another method or train again; a FAIL is never overridden",
    "inconclusive": "evaluate with more canaries, or have a reviewer look (`mlflow-unlearn override`)",
    "approvals": "have another person approve it (`mlflow-unlearn approve`)",
    "statement_refused": "restore the files that were signed, or have what lies there signed again",
    "registry_differs": "restore what was signed, or have it signed again",
    "no_trust": "let an owner begin the trust file (`mlflow-unlearn key new HOLDER --role owner`)",
    "unknown": "have all that it was made from recorded and signed (`mlflow-unlearn trace` says what is missing)",
    "not_traced": "have it traced (`mlflow-unlearn trace`)",
    "not_registered": "register it again",
    "no_request": "have it certified for the requests it was made to forget (`dvc repro`)",
    "other_requests": "use the ledger in which its requests are, or certify it anew",
    "request_differs": "use the ledger in which its requests are, or certify it anew",
    "returned": "take the erased records out of the data again, and train anew",
    "interim": "wait for the exact version (`dvc repro`)",
    "tampered": "restore what was signed, or have it signed again",
    "statement_unreadable": "restore what was signed, or have it signed again",
    "unreadable": "see to the artifact store, then try again",
    "not_compared": "restore the retired tag keys",
    "moved": "set the alias again, through the server",
    "unavailable": "see to the ledger, the project and the artifact store of the server, then try again",
}


class Use(Enum):
    """What is asked for."""

    POINT = "set alias"
    FOLLOW = "resolve alias"
    READ = "read"


@dataclass(frozen=True, kw_only=True)
class Signed:
    """An answer by what was signed alone."""

    answer: Answer
    reasons: tuple[Reason, ...]
    due: datetime | None = None
    """As `Standing.due`."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """The gate's answer about one version for one alias, as it is kept: it stands while nothing of what it rests on changes."""

    model: ModelVersion
    alias: str
    """Empty: for no alias."""
    answer: Answer
    reasons: tuple[Reason, ...]
    enforcement: Enforcement
    evidence: tuple[str, ...] = ()
    closure: tuple[ModelVersion, ...] = ()
    """The version and its registered ancestors."""
    rests_on: str
    """Digest of what can change: trust file, policy, settings, the registry's rows of it, its files."""
    asked: str
    """The ledger's last event that matters, as number:digest."""
    ancestry: str
    """The same of what the registry has about its ancestors."""
    location: str
    """Of its files."""
    bound: str
    """Digest of the settings and of the registry's row of it alone: what is looked at though ledger and files do not answer."""
    at: datetime
    until: datetime | None = None
    """When the first signature or review it rests on runs out."""
    due: datetime | None = None
    """When the first request that reaches it is due, if all of them are open."""
    signed: Signed | None = None
    """The answer to whoever follows or reads, where the registry has data or ancestors otherwise than was signed; None: the same."""

    @property
    def codes(self) -> tuple[str, ...]:
        """Codes of what keeps it from yes; each once."""
        return tuple(dict.fromkeys(reason.code for reason in self.reasons if reason.answer != "note"))

    @property
    def only_requested(self) -> bool:
        """Whether nothing speaks against it but a request that came in since, and is not due yet as far as was known then."""
        return self.answer == "no" and set(self.codes) <= _REQUESTED and self.due is not None

    @property
    def wrong_by_request(self) -> bool:
        """Whether that is all that was shown to be wrong, whatever else could not be decided."""
        return bool(self.wrong) and self.wrong <= _REQUESTED and self.due is not None

    @property
    def wrong(self) -> frozenset[str]:
        """Codes of what was shown to be wrong with this very version."""
        return frozenset(reason.code for reason in self.reasons if reason.answer == "no") - _GROUND


@dataclass(frozen=True, kw_only=True)
class Ruling:
    """What the server does."""

    allowed: bool
    outcome: Literal["granted", "observed", "warned", "rollback", "refused"]
    codes: tuple[str, ...] = ()
    reasons: tuple[str, ...] = field(default=())
    """Why, a line each."""
    words: str = ""
    """For whoever asked: what is refused or warned of, why, and what to do."""


def rule(standing: Standing, use: Use, policy: GatePolicy, now: datetime, *, held_lately: bool = False) -> Ruling:
    """Decide what a server does with a request.

    Pointing an alias and following it need a yes. Reading needs only that nothing was shown to be wrong: what nobody has evaluated yet has to be read
    by those who evaluate it. A request that came in later stops what is deployed when it is due, or at once, as the policy says.

    Args:
        standing: the gate's answer.
        use: what is asked for.
        policy: the gate's.
        now: the moment.
        held_lately: whether the alias pointed at this version within `policy.rollback_days`.
    """
    standing = standing if use is Use.POINT else by_signatures(standing)
    because = _because(standing, policy, now)
    reasons = tuple(reason.text for reason in because)
    codes = tuple(dict.fromkeys(reason.code for reason in because))
    requested = standing.wrong_by_request if use is Use.READ else standing.only_requested
    waits = requested and policy.on_request == "due" and standing.due is not None and now < standing.due
    if standing.answer == "yes" or (use is Use.READ and not standing.wrong):
        return Ruling(allowed=True, outcome="granted", codes=codes, reasons=reasons)
    if standing.enforcement == "observe":
        return Ruling(allowed=True, outcome="observed", codes=codes, reasons=reasons)
    if standing.enforcement == "warn":
        return Ruling(allowed=True, outcome="warned", codes=codes, reasons=reasons, words=_words(standing, use, codes, reasons, "warning of"))
    if waits and use is not Use.POINT:
        return Ruling(allowed=True, outcome="observed", codes=codes, reasons=reasons)
    if waits and held_lately:
        return Ruling(allowed=True, outcome="rollback", codes=codes, reasons=reasons)
    return Ruling(allowed=False, outcome="refused", codes=codes, reasons=reasons, words=_words(standing, use, codes, reasons, "refused by"))


def blocked_from(standing: Standing, policy: GatePolicy) -> datetime | None:
    """The moment from which nobody may read a version's files; None where none is foreseen."""
    standing = by_signatures(standing)
    if standing.enforcement != "enforce" or not standing.wrong:
        return None
    return standing.due if standing.wrong_by_request and policy.on_request == "due" else standing.at


def by_signatures(standing: Standing) -> Standing:
    """The answer to whoever follows or reads: by what was signed, or anybody who may write to a run could stop what is deployed."""
    signed = standing.signed
    return standing if signed is None else replace(standing, answer=signed.answer, reasons=signed.reasons, due=signed.due, signed=None)


def stricter(one: Enforcement, other: Enforcement) -> Enforcement:
    """Whichever lets less through."""
    return max(one, other, key=get_args(Enforcement).index)


def under(kept: Standing, terms: Enforcement) -> Standing:
    """A kept answer under the terms of now: a no stops what it stopped when it was given, and what it would stop now.

    Args:
        kept: the answer.
        terms: what a no does by the policy of now.
    """
    return replace(kept, enforcement=stricter(kept.enforcement, terms))


def fresh(standing: Standing, policy: GatePolicy, now: datetime) -> bool:
    """Whether a decision may stand in for one that cannot be made now, because something does not answer."""
    return standing.at <= now <= standing.at + timedelta(hours=policy.max_stale_hours) and (standing.until is None or now <= standing.until)


def _because(standing: Standing, policy: GatePolicy, now: datetime) -> tuple[Reason, ...]:
    """What speaks against it, and what time added to that."""
    found = tuple(reason for reason in standing.reasons if reason.answer != "note")
    if standing.wrong_by_request and standing.due is not None and now >= standing.due:
        late = Reason(answer="no", code="overdue", text=f"the first request that reaches it was due at {standing.due:%Y-%m-%d}")
        return (*(reason for reason in found if reason.code != "due"), late)
    return found


def _words(standing: Standing, use: Use, codes: tuple[str, ...], reasons: tuple[str, ...], what: str) -> str:
    doing = {
        Use.POINT: f"{standing.model} for '{standing.alias}'",
        Use.FOLLOW: f"'{standing.alias}' of {standing.model.name}, which is version {standing.model.version}",
        Use.READ: f"reading {standing.model}",
    }[use]
    lines = [f"{what} mlflow-unlearn: {doing}: the gate {'says no' if standing.answer == 'no' else 'could not decide'}."]
    lines += [f"{reason.rstrip('.')}." for reason in reasons[:_TOLD]]
    lines += [f"There are {len(reasons) - _TOLD} more reasons."] if len(reasons) > _TOLD else []
    advice = list(dict.fromkeys(_NEXT[code] for code in codes if code in _NEXT))
    lines += [f"Next: {'; '.join(advice)}."] if advice else []
    return "\n".join([*lines, f"All reasons: `mlflow-unlearn gate models:/{standing.model}`."])
