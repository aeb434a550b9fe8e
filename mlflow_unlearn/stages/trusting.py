"""A change of the trust file: signed, written and entered in the ledger, so that an older one put back is noticed; and what an owner stands for here.

The file is written while the ledger waits to enter it. A kill in between leaves a signed file that the ledger does not know yet, which is not older
than what it knows; the next command that reads the file to change it enters it first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .. import trust, verifier
from ..digests import write_atomically
from ..dsse import Signer
from ..errors import ConfigError, LedgerError, TamperedError
from ..policy import policy_digest
from ..statements import LedgerHead, Trust
from ..trust import Pins
from .workbench import Workbench

if TYPE_CHECKING:
    from ..adapters.ledger import Ledger


def pins(bench: Workbench) -> Pins:
    """What an owner would stand for in this folder: policy.yaml and `data` of params.yaml, as far as they are there and have no mistake.

    Raises:
        ConfigError: one of them has a mistake.
    """
    policy = trust.policy_file(bench.folder / "policy.yaml")
    data = trust.data_digest(bench.params.data) if (bench.folder / "params.yaml").exists() else ""
    return Pins(policy_file=policy, policy=policy and policy_digest(bench.policy), data=data)


def held(bench: Workbench, *, though_expired: bool = False, another_ledger: bool = False) -> Trust:
    """The trust file as a value that can be changed, entered in the ledger if a change of it was cut short.

    Args:
        bench: the project.
        though_expired: see `trust.held`.
        another_ledger: whether the owner goes on with another ledger than the one that the file names.

    Raises:
        LedgerError: the file is older than the ledger knows, or names an event that this ledger does not hold.
    """
    path = bench.settings.trust_file
    before = trust.held(path, though_expired=though_expired)
    ledger = ledger_of(bench)
    if ledger is None or not _believed(path):
        return before
    if before.ledger is not None and not another_ledger and not ledger.holds(before.ledger.number, before.ledger.digest):
        raise LedgerError(
            f"trust file: names event {before.ledger.number}, which ledger {ledger.place} does not hold: set MLFLOW_UNLEARN_LEDGER_URI to the ledger "
            "of this project or restore it, or let an owner go on with this one: `mlflow-unlearn key trust-policy --another-ledger`"
        )
    ledger.enter_trust(before.number, verifier.open_envelope(path.read_bytes(), "trust file").digest, before.issued_at)
    return before


def change(bench: Workbench, after: Trust, signers: Sequence[Signer]) -> Trust:
    """Sign a change, write it and enter it; only within `trust.turn`.

    Returns:
        The change, which names the ledger's last event, where a ledger is here.

    Raises:
        ConfigError: nobody who signs would be an owner.
        LedgerError: somebody else changed the file meanwhile; nothing is written then.
    """
    ledger = ledger_of(bench)
    if ledger is None:
        write_atomically(bench.settings.trust_file, trust.sealed(after, signers))
        return after
    last = ledger.anchor()
    named = replace(after, ledger=LedgerHead(number=last.number, digest=last.digest))
    raw = trust.sealed(named, signers)
    write = partial(write_atomically, bench.settings.trust_file, raw)
    ledger.enter_trust(named.number, verifier.open_envelope(raw, "trust file").digest, named.issued_at, write)
    return named


def ledger_of(bench: Workbench) -> Ledger | None:
    """The ledger; None where there is no tag key yet, and so no request."""
    return bench.ledger if bench.settings.tag_key_file.exists() else None


def _believed(path: Path) -> bool:
    try:
        trust.read_trust(path)
    except (ConfigError, TamperedError):
        return False
    return True
