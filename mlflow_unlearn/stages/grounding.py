"""What all else rests on: whom to trust, which policy holds, in which columns people are looked for, and which ledger has the requests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from .. import trust as trust_file
from .. import verifier
from ..gate import Reason
from ..policy import Enforcement, Policy, policy_digest
from ..verifier import RefusedError, Trust, UndecidedError
from ..verifier.envelopes import SKEW
from .workbench import Workbench

_SIGN = "run `mlflow-unlearn key trust-policy`, by an owner"


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What was found of it, and what is wrong."""

    trust: Trust | None
    reasons: tuple[Reason, ...]
    files: tuple[str, ...]
    """sha256 of the trust file and of policy.yaml."""
    entered: bool
    """Whether anybody ever began a trust file: the ledger knows one, or one is here that holds."""

    def enforcement(self, policy: Policy, model: str, *, signed: bool) -> Enforcement:
        """What a no does: as the policy says that an owner stands for; where anything here is wrong, only as it says if nobody ever signed anything.

        Args:
            policy: policy.yaml as it lies there.
            model: name of a registered model.
            signed: whether anything is signed about it.
        """
        return "enforce" if self.reasons and (self.entered or signed) else policy.gate.enforced(model)


def ground(bench: Workbench, policy_file: Path, policy: Policy, now: datetime) -> Ground:
    """The trust file, and whether its owner stands for this policy.yaml with these values, for `data` of params.yaml and for this ledger.

    Raises:
        UnlearnError: the ledger does not answer, or params.yaml has a mistake.
    """
    known, clock = bench.ledger.trusted(), tuple(_of_clock(bench, now))
    try:
        raw = bench.settings.trust_file.read_bytes()
        trust = verifier.read_trust(raw, now)
        digest = verifier.open_envelope(raw, "trust file").digest
    except FileNotFoundError:
        words = "no trust file, so nobody's signature counts: `mlflow-unlearn key new HOLDER --role owner`, or set MLFLOW_UNLEARN_TRUST"
        wrong = undecided("no_trust", f"{bench.settings.trust_file}: {words}")
    except (RefusedError, UndecidedError) as error:
        wrong = problem("trust", error)
    except OSError as error:
        wrong = undecided("no_trust", f"trust file: {error.strerror}")
    else:
        found = trust_file.policy_file(policy_file)
        reasons = (*_of_age(trust, digest, known), *_of_policy(found, policy, trust, policy_file.name), *_of_data(bench, trust))
        files = (hashlib.sha256(raw).hexdigest(), found, trust.data)
        return Ground(trust=trust, reasons=(*reasons, *_of_ledger(bench, trust), *clock), files=files, entered=True)
    return Ground(trust=None, reasons=(wrong, *clock), files=(), entered=known is not None)


def _of_age(trust: Trust, digest: str, known: tuple[int, str] | None) -> Iterator[Reason]:
    """Whether it is the file that the ledger knows; a later one was changed by an owner elsewhere."""
    if known is not None and (trust.number < known[0] or (trust.number == known[0] and digest != known[1])):
        which = "an older trust file was put back" if trust.number < known[0] else "not the trust file that the ledger knows"
        text = f"trust file: change {trust.number}, and the ledger knows change {known[0]}: {which}; fetch the latest one"
        yield Reason(answer="no", code="older_trust", text=text)


def _of_policy(found: str, policy: Policy, trust: Trust, name: str) -> Iterator[Reason]:
    if not trust.policy_file:
        yield undecided("policy_unsigned", f"{name}: no owner stands for it; {_SIGN}")
    elif found != trust.policy_file:
        yield Reason(answer="no", code="policy_changed", text=f"{name}: not the file that the owner signed; restore it, or have the owner sign it")
    elif policy_digest(policy) != trust.policy:
        text = f"{name}: the same file, and other values than the owner signed, since a default is another in this version; {_SIGN}"
        yield Reason(answer="no", code="policy_changed", text=text)


def _of_data(bench: Workbench, trust: Trust) -> Iterator[Reason]:
    if not trust.data:
        yield undecided("data_unsigned", f"params.yaml: no owner stands for `data`, which says where people are looked for; {_SIGN}")
    elif trust_file.data_digest(bench.params.data) != trust.data:
        text = f"params.yaml: `data`, which says where people are looked for, is not what the owner signed; restore it, or {_SIGN}"
        yield Reason(answer="no", code="data_changed", text=text)


def _of_ledger(bench: Workbench, trust: Trust) -> Iterator[Reason]:
    if trust.ledger is None:
        yield undecided("ledger_unsigned", f"trust file: no owner says which ledger holds the requests; {_SIGN}")
    elif not bench.ledger.holds(*trust.ledger):
        text = f"ledger {bench.ledger.place}: does not hold event {trust.ledger[0]} that the trust file names: it is another one, or was rolled back"
        yield Reason(answer="no", code="other_ledger", text=text)


def _of_clock(bench: Workbench, now: datetime) -> Iterator[Reason]:
    """With a clock that was set back, what has run out would hold again."""
    written = bench.ledger.written_at()
    if written is not None and now + SKEW < written:
        yield undecided("clock", f"the clock says {now:%Y-%m-%dT%H:%MZ}, and the ledger was written at {written:%Y-%m-%dT%H:%MZ}; set it right")


def problem(code: str, error: ValueError, where: str = "") -> Reason:
    """What the verifier said, as a reason of the gate."""
    if isinstance(error, RefusedError):
        return Reason(answer="no", code=f"{code}_refused", text=f"{where}{error}")
    return undecided(f"{code}_unreadable", f"{where}{error}")


def undecided(code: str, text: str) -> Reason:
    """Something is missing or cannot be read."""
    return Reason(answer="undecided", code=code, text="; ".join(text.splitlines()))
