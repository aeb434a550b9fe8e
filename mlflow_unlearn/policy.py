"""What has to be shown before a version may be called forgotten, as policy.yaml says it."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import rfc8785

from .documents import encode
from .errors import ConfigError

Enforcement = Literal["observe", "warn", "enforce"]
"""What `promote`, `load_model` and MLflow's server do with a no: go on and say so, go on with a warning, or refuse."""
DEFAULT = "default"
MOST_DAYS = 36_500
"""A hundred years: what is signed may not hold longer, nor may a key."""


@dataclass(frozen=True, kw_only=True)
class GatePolicy:
    """`gate` in policy.yaml: what deploying asks beyond the verdict. The gate always answers; enforcement decides what follows from the answer."""

    enforcement: Mapping[str, Enforcement] = field(default_factory=lambda: {DEFAULT: "observe"})
    """Name of a registered model, or `default` for every other one -> observe, warn or enforce."""
    approvals: int = 0
    """How many people with a reviewer's key must have approved a version for an alias. Nobody counts twice, nor for what he or she signed."""
    override: bool = False
    """Whether a reviewer's signed override lets an INCONCLUSIVE verdict be deployed; never a FAIL, never affected or unknown data."""
    certificate_days: int = 365
    """How long a certificate holds."""
    protected_aliases: tuple[str, ...] = ("champion", "production", "prod")
    """Aliases that MLflow's server lets point at a version only on evidence, whatever their case; `*` protects every alias."""
    protected_stages: tuple[str, ...] = ("Production",)
    """MLflow's stages that are guarded likewise."""
    on_request: Literal["due", "at_once"] = "due"
    """When a request that comes in later stops a version that is deployed already: on its due date, or at once. New aliases are refused at once."""
    rollback_days: int = 30
    """A version that held an alias within so many days may hold it again until the request that affects it is due; the log says so."""
    max_stale_hours: float = 24.0
    """For so long the server resolves aliases by its last decision when ledger or artifact store do not answer."""

    def __post_init__(self) -> None:
        near = [name for name in self.enforcement if name != DEFAULT and difflib.get_close_matches(name, [DEFAULT], cutoff=0.8)]
        wrong = [f"approvals: expected 0 or more, found {self.approvals}"] if self.approvals < 0 else []
        wrong += [f"{name}: expected 0 or more, found {value}" for name, value in self._spans if not 0 <= value < float("inf")]
        if not 1 <= self.certificate_days <= MOST_DAYS:
            wrong += [f"certificate_days: expected 1 to {MOST_DAYS}, found {self.certificate_days}"]
        wrong += [f"enforcement: '{name}' is nearly '{DEFAULT}'; did you mean that?" for name in near]
        if wrong:
            raise ConfigError("; ".join(wrong))

    @property
    def _spans(self) -> tuple[tuple[str, float], ...]:
        return ("rollback_days", self.rollback_days), ("max_stale_hours", self.max_stale_hours)

    def protects(self, alias: str) -> bool:
        """Whether an alias may point only at what has the evidence; one with other than printable ASCII always: it may look like another."""
        return (
            not (alias.isascii() and alias.isprintable())
            or "*" in self.protected_aliases
            or alias.casefold() in {each.casefold() for each in self.protected_aliases}
        )

    def protects_stage(self, stage: str) -> bool:
        """The same of a stage."""
        return stage.casefold() in {each.casefold() for each in self.protected_stages}

    def enforced(self, model: str) -> Enforcement:
        """What holds for a registered model."""
        return self.enforcement.get(model, self.enforcement.get(DEFAULT, "observe"))


@dataclass(frozen=True, kw_only=True)
class Policy:
    """policy.yaml: what has to be shown before a version may be called forgotten. Defaults are measured on a small model."""

    control_epsilon: float = 2.0
    """The attack must have found at least this epsilon in the parent, else it could not have seen anything."""
    utility_margin: float = 0.02
    """The lower 95 % limit of each utility difference must stay above minus this."""
    auc_margin: Mapping[str, float] = field(default_factory=lambda: {"400": 0.10, "800": 0.07})
    """Number of canaries (included plus excluded) -> how far the upper limit of |AUC - 0.5| may reach."""
    calibrated_gap: Mapping[str, float] = field(default_factory=lambda: {"400": 0.15, "800": 0.10})
    """Number of canaries -> largest share of the parent's memorised signal that may remain."""
    paraphrase_margin: float = 0.05
    """How far the forgotten people's paraphrased questions may stay above those of never-seen people (upper 95 % limit)."""
    attacks: tuple[str, ...] = ("loss", "min_k")
    """Attacks that must have been run, whatever else params.yaml names: one that sees nothing may not stand alone."""
    finetune_epochs: int = 3
    """Fewer epochs of the benign fine-tune than this count as not measured,"""
    finetune_learning_rate: float = 1e-3
    """and so does a lower peak learning rate. Large models need a lower one: measure what brings a known memory back."""
    n_min: int = 400
    """Below this many canaries nothing passes; below it the request's own records can only cause FAIL."""
    alpha: float = 0.05
    """Family-wise error of FAIL, shared out by Holm; it never shrinks."""
    deployed_precisions: tuple[str, ...] = ("fp32",)
    max_serial_unlearnings: int = 5
    near_duplicate_jaccard: float = 0.7
    """Records that resemble what was forgotten this much are warned about: Jaccard similarity of character 5-shingles of question + answer,"""
    near_duplicate_refuse: float = 0.9
    """and from here on they are refused. Different people of the two examples reach 0.83 (8,000 records of customers, whose questions come from
    templates) and 0.56 (TOFU's 4,000), so that nobody is refused for resembling somebody else."""

    replay: Literal["equal", "attempted"] = "equal"
    """What an exact claim needs: each replay with equal tensors; or, on an accelerator whose kernels do not repeat bit for bit, a replay in an equal
    environment whatever it gave. An attempt shows that the log is enough to train, not that these weights came of it. On a CPU it never suffices."""
    replayed_shards: Literal["all", "retrained"] = "all"
    """Which shards must have been replayed: every one that has records, or those alone whose weights are not the parent's."""
    trusted_bases: tuple[str, ...] = ()
    """Bases of which somebody vouches that they saw nobody of the data: hub ids as `exact.base` has them (`name/id@revision`), tensor digests, or
    digests of a tokenizer's files, which a tensor digest does not vouch for. What is found in a base outweighs this."""
    gate: GatePolicy = field(default_factory=GatePolicy)
    """What deploying asks; it is no part of the policy's digest, since no verdict follows from it."""

    def __post_init__(self) -> None:
        tables = {"auc_margin": self.auc_margin, "calibrated_gap": self.calibrated_gap}
        wrong = [name for name, table in tables.items() if any(not size.isdecimal() or size != str(int(size)) for size in table)]
        wrong += [name for name, table in tables.items() if any(not 0 < margin <= 1 for margin in table.values())]
        wrong += [name for name in ("utility_margin", "paraphrase_margin") if getattr(self, name) < 0]
        wrong += [name for name in ("alpha",) if not 0 < self.alpha < 1]
        wrong += [name for name in ("n_min", "finetune_epochs") if getattr(self, name) < 1]
        wrong += [name for name in ("control_epsilon", "finetune_learning_rate") if getattr(self, name) < 0]
        if wrong:
            raise ConfigError(f"policy.yaml: {', '.join(dict.fromkeys(wrong))}: out of range; tables map a whole number of canaries to a share")

    def margin(self, table: Mapping[str, float], canaries: int) -> float | None:
        """The margin for the largest tabulated size not above `canaries`; None when there are too few."""
        sizes = sorted((int(size) for size in table if int(size) <= canaries), reverse=True)
        return table[str(sizes[0])] if sizes and canaries >= self.n_min else None


def policy_digest(policy: Policy) -> str:
    """Hex SHA-256 of the RFC 8785 bytes of every value that a verdict follows from, defaults included; comments and order do not matter.

    How the gate enforces a verdict (`gate`) may change without touching one.
    """
    return hashlib.sha256(rfc8785.dumps({name: value for name, value in encode(policy).items() if name != "gate"})).hexdigest()
