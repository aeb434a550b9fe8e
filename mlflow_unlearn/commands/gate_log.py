"""What `gate-log` reads: the log of the gate inside MLflow's server, and whether it is what was written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..config import Settings, settings
from ..digests import read_gate_key
from ..documents import encode
from ..errors import ConfigError, TamperedError

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from ..adapters.gate_log import GateLog, Logged
    from ..adapters.ledger_witness import Head


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is to be read."""

    database: str | None = None
    """URI of MLflow's database; None: the project's, where it is one."""
    after: int = 0
    """Number of the last entry that is known already."""
    model: str | None = None
    verify: bool = False
    """Whether all entries are held against key and witness."""


def gate_log(asked: Asked) -> dict[str, Any]:
    """The log, in order.

    Returns:
        `database`, `entries`, `head` (number and MAC of the last one), `verified` (how many entries were held against key and witness; null where
        nobody asked, or one was broken), `problems`, and `notes`.

    Raises:
        ConfigError: no database, or no key to verify with.
        StoreError: it cannot be read.
        LedgerError: the witness cannot be read.
    """
    from ..adapters.gate_log import GateLog
    from ..adapters.gate_reading import place, reading, written

    uri = asked.database or _own_database(settings())
    if not asked.verify:
        with reading(uri) as connection:
            head, entries = GateLog(b"").head(connection), [document(each) for each in written(connection, asked.after, asked.model)]
        return {"database": place(uri), "entries": entries, "head": _head(head), "verified": None, "problems": [], "notes": []}
    here = settings()
    log, seen = GateLog(_key(here)), _witnessed(here, uri)
    with reading(uri) as connection:
        head, found = log.head(connection), _Checked(log, connection, here)
        problems = found.problems(seen)
    entries = [document(each) for each in found.entries if each.number > asked.after and asked.model in (None, each.entry.model)]
    verified = {"verified": None if problems else len(found.entries), "problems": problems, "notes": _notes(here, seen)}
    return {"database": place(uri), "entries": entries, "head": _head(head), **verified}


def document(logged: Logged) -> dict[str, Any]:
    """An entry in its place, for scripts."""
    return {"number": logged.number, **encode(logged.entry), "previous": logged.previous, "mac": logged.mac}


class _Checked:
    """Entries up to the first that is not what was written."""

    def __init__(self, log: GateLog, connection: Connection, here: Settings) -> None:
        self.entries: list[Logged] = []
        self._log, self._connection, self._here = log, connection, here

    def problems(self, seen: Head | None) -> list[str]:
        """What is wrong; empty when all is well."""
        try:
            self.entries.extend(self._log.entries(self._connection))
        except TamperedError as error:
            return [f"{error}{self._other_key}; nothing after it was looked at"]
        if seen is None or self._log.holds(self._connection, seen):
            return []
        return [f"gate log: entry {seen.number} was seen by this machine and is gone or another one now: the log was cut or exchanged"]

    @property
    def _other_key(self) -> str:
        return "" if self.entries else f", or {self._here.gate_key_file} is not the key of that server"


def _own_database(here: Settings) -> str:
    uri = here.tracking_uri
    if not uri.removeprefix("unlearn-").startswith(("sqlite", "postgresql")):
        where = "run this on the server's machine, with --database and the URI that the server was started with"
        raise ConfigError(f"MLFLOW_TRACKING_URI is no database: the gate's log lies in the database of its server; {where}")
    return uri


def _key(here: Settings) -> bytes:
    if not here.gate_key_file.exists():
        where = "run this where the server runs, or set MLFLOW_UNLEARN_GATE_KEY_FILE to its key"
        raise ConfigError(f"{here.gate_key_file}: no gate key here, and only who holds it can verify the log; {where}")
    return read_gate_key(here.gate_key_file)


def _witnessed(here: Settings, uri: str) -> Head | None:
    """The last entry that the server on this machine remembers; it is read before the log, which may grow meanwhile."""
    from ..adapters.gate_reading import place
    from ..adapters.ledger_witness import Witness

    return Witness(path=here.state / "gate.head", place=place(uri)).head()


def _notes(here: Settings, seen: Head | None) -> list[str]:
    if seen is not None:
        return []
    return [f"{here.state / 'gate.head'} remembers nothing of this database: whether the end of the log was cut off was not checked"]


def _head(head: Head) -> dict[str, Any]:
    return {"number": head.number, "mac": head.digest}
