"""Reasons as codes: the ledger takes no free text, which could name a person.

They name provisions so that a reader can look them up; whether a provision applies is for the controller to decide.
"""

from __future__ import annotations

from collections.abc import Mapping

from .errors import LedgerError
from .records import Basis

ANY_BASIS = ("cannot_identify", "duplicate", "withdrawn")
"""The person cannot be identified (GDPR art. 11(2), 12(2); 11 CCR 7060), it was asked before, or the person took it back."""
GROUNDS: Mapping[Basis, tuple[str, ...]] = {
    Basis.GDPR_17: (*(f"gdpr_17_3_{letter}" for letter in "abcde"), "gdpr_12_5_unfounded", "gdpr_12_5_excessive", *ANY_BASIS),
    Basis.CCPA: (*(f"ccpa_105_d_{number}" for number in range(1, 9)), "ccpa_145_h_3_unfounded", "ccpa_145_h_3_excessive", *ANY_BASIS),
    **dict.fromkeys((Basis.COPYRIGHT, Basis.SAFETY, Basis.CONTRACT, Basis.POISONING), ("unfounded", *ANY_BASIS)),
}
"""Grounds of a refusal. GDPR art. 17(3): (a) expression and information, (b) legal obligation or public task, (c) public health, (d) archives,
research and statistics, (e) legal claims; art. 12(5). CCPA, Cal. Civ. Code 1798.105(d)(1)-(8) and 1798.145(h)(3)."""
EXTENSIONS = ("complexity", "number_of_requests")
"""Why a deadline may be extended (GDPR art. 12(3))."""
PAUSES = ("identity_check",)
"""Why the clock may stand still (GDPR art. 12(6))."""
MEASURES = ("block_version", "restrict_processing", "suppress_outputs")
"""What is done until the request is decided; a restriction of processing is GDPR art. 18."""
APPROVALS = ("reviewed",)
"""A reviewer has read the statement and lets the version be deployed."""
OVERRIDES = ("legal_obligation", "safety", "service_continuity", "evidence_elsewhere", "false_alarm")
"""Why a version is deployed although its verdict could not be decided: the law asks for it, people would be harmed without it, the service would
stop, it was shown by other means, or what kept it from PASS is known to be no leak."""
REVOCATIONS = ("compromised", "lost", "superseded", "left")
"""Why a key no longer counts: somebody else may have it, nobody has it any more, another one took its place, or its holder is gone."""
LIFTS = ("consent", "contract", "legal_obligation", "mistake", "returned_lawfully")
"""Why somebody whose data were erased may be in the data again."""


def every_ground() -> tuple[str, ...]:
    """The grounds of all bases, each once."""
    return tuple(dict.fromkeys(code for codes in GROUNDS.values() for code in codes))


def refuse_other(code: str, known: tuple[str, ...], where: str) -> None:
    """Accept only a known code.

    Raises:
        LedgerError: another word.
    """
    if code not in known:
        raise LedgerError(f"{where}: expected one of {', '.join(known)}; the ledger takes no free text")
