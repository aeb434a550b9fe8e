"""Under which policy the server stands, and whether an owner stands for it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from .. import trust, verifier
from ..gate_values import Reason
from ..lineage import ModelVersion
from ..policy import Policy, policy_digest
from ..ruling import Standing
from .served_bench import ServedBench

if TYPE_CHECKING:
    from ..adapters.ledger import Ledger


@dataclass(frozen=True, kw_only=True)
class Terms:
    """Under which policy the server stands now."""

    policy: Policy
    believed: bool
    """Whether an owner stands for it, or nobody ever began a trust file; else every alias is guarded."""

    def protects(self, alias: str) -> bool:
        """Whether an alias is guarded."""
        return not self.believed or self.policy.gate.protects(alias)

    def enforces(self, model: str) -> bool:
        """Whether a no stops anything of a registered model."""
        return not self.believed or self.policy.gate.enforced(model) == "enforce"

    def protects_stage(self, stage: str) -> bool:
        """Whether a stage is guarded; `None` and `Archived` are no places to deploy from."""
        return self.policy.gate.protects_stage(stage) or (not self.believed and stage.casefold() not in ("none", "archived"))


def terms_of(bench: ServedBench, ledger: Ledger) -> Terms:
    """The policy, and whether it is the one that an owner signed.

    Raises:
        UnlearnError: policy.yaml has a mistake, or nobody can say whether there ever was a trust file.
    """
    policy, file = bench.policy, bench.settings.trust_file
    if not file.exists():
        return Terms(policy=policy, believed=ledger.trusted() is None)
    try:
        trusted = verifier.read_trust(file.read_bytes(), datetime.now(UTC))
    except (verifier.RefusedError, verifier.UndecidedError, OSError):
        return Terms(policy=policy, believed=False)
    signed = trust.policy_file(bench.folder / "policy.yaml"), policy_digest(policy)
    return Terms(policy=policy, believed=signed == (trusted.policy_file, trusted.policy))


def undecided(kept: Standing | None, model: ModelVersion, alias: str, error: Exception, terms: Terms | None) -> Standing:
    """The answer where none can be worked out: what was enforced before still is, and where nobody knows what is, all is."""
    known = terms.policy.gate.enforced(model.name) if terms is not None and terms.believed else "enforce"
    return Standing(
        model=model,
        alias=alias,
        answer="undecided",
        reasons=(Reason(answer="undecided", code="unavailable", text="; ".join(str(error).splitlines())[:400]),),
        enforcement=kept.enforcement if kept is not None else known,
        rests_on="",
        asked="",
        ancestry="",
        location="",
        at=datetime.now(UTC),
    )
