"""Under which policy the server stands, and whether an owner stands for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from .. import trust, verifier
from ..errors import TamperedError
from ..gate_values import Reason
from ..lineage import ModelVersion
from ..policy import Enforcement, Policy, policy_digest
from ..ruling import Standing, stricter
from .served_bench import ServedBench


@dataclass(frozen=True, kw_only=True)
class Terms:
    """Under which policy the server stands now."""

    policy: Policy
    believed: bool
    """Whether an owner stands for it, or nobody ever began a trust file; else every alias is guarded."""

    def protects(self, alias: str) -> bool:
        """Whether an alias is guarded."""
        return not self.believed or self.policy.gate.protects(alias)

    def enforcement(self, model: str) -> Enforcement:
        """What a no does about a registered model."""
        return self.policy.gate.enforced(model) if self.believed else "enforce"

    def enforces(self, model: str) -> bool:
        """Whether a no stops anything of a registered model."""
        return self.enforcement(model) == "enforce"

    def protects_stage(self, stage: str) -> bool:
        """Whether a stage is guarded; `None` and `Archived` are no places to deploy from."""
        return self.policy.gate.protects_stage(stage) or (not self.believed and stage.casefold() not in ("none", "archived"))


def terms_of(bench: ServedBench, ever_trusted: Callable[[], object | None]) -> Terms:
    """The policy, and whether it is the one that an owner signed.

    Args:
        bench: the project.
        ever_trusted: asks the ledger for the last change of the trust file.

    Raises:
        UnlearnError: policy.yaml has a mistake, or nobody can say whether there ever was a trust file.
    """
    policy, file = bench.policy, bench.settings.trust_file
    if not file.exists():
        return Terms(policy=policy, believed=ever_trusted() is None)
    try:
        trusted = verifier.read_trust(file.read_bytes(), datetime.now(UTC))
    except (verifier.RefusedError, verifier.UndecidedError, OSError):
        return Terms(policy=policy, believed=False)
    signed = trust.policy_file(bench.folder / "policy.yaml"), policy_digest(policy)
    return Terms(policy=policy, believed=signed == (trusted.policy_file, trusted.policy))


def in_force(terms: Terms | None, model: str) -> Enforcement:
    """What a no does about a registered model; where nobody knows under which terms, it stops everything."""
    return terms.enforcement(model) if terms is not None else "enforce"


def undecided(kept: Standing | None, model: ModelVersion, alias: str, error: Exception, terms: Terms | None) -> Standing:
    """The answer where none can be worked out: it stops what the last one stopped, and what the terms of now would stop.

    Args:
        kept: the last answer.
        model: the version.
        alias: the alias, or a stage.
        error: why there is none.
        terms: as they were last seen.
    """
    now = in_force(terms, model.name)
    code = "tampered" if isinstance(error, TamperedError) else "unavailable"
    return Standing(
        model=model,
        alias=alias,
        answer="undecided",
        reasons=(Reason(answer="undecided", code=code, text="; ".join(str(error).splitlines())[:400]),),
        enforcement=stricter(kept.enforcement, now) if kept is not None else now,
        rests_on="",
        asked="",
        ancestry="",
        location="",
        bound="",
        at=datetime.now(UTC),
    )
