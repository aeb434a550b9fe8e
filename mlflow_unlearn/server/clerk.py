"""Writes down what the gate in the server rules, and for whom."""

from __future__ import annotations

import logging
import time
from collections import deque
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ..adapters.gate_log import Entry, GateLog
from ..adapters.gate_tables import writing
from ..adapters.gate_views import aliases, staged
from ..adapters.ledger_witness import Head, Witness
from ..errors import StoreError, TamperedError
from ..lineage import ModelVersion
from ..ruling import Ruling, Standing, Use
from .callers import caller, warn_caller

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine

_LONGEST, _LONGEST_REASON = 256, 1000
_A_MINUTE = 120
"""Refusals of one user that are written down in a minute, so that nobody fills the disk with them."""
_logger = logging.getLogger("mlflow_unlearn.gate")
_SAID_AGAIN_S = 60.0
"""What is refused or noted again and again is written down once in so many seconds for each caller."""


@dataclass(kw_only=True)
class Clerk:
    """Keeps the log of one server."""

    engine: Engine
    log: GateLog
    witness: Witness
    trouble: str = ""
    """What is wrong with the log; while something is, no guarded alias is moved."""
    _said: dict[tuple[str, ...], float] = field(default_factory=dict)
    _counts: dict[str, tuple[float, int]] = field(default_factory=dict)

    def entry(self, action: str, model: ModelVersion, alias: str = "", *, standing: Standing | None = None, ruling: Ruling | None = None) -> Entry:
        """What is written down of a request."""
        asked = caller()
        return Entry(
            at=datetime.now(UTC),
            actor=asked.user,
            method=asked.method,
            path=asked.path,
            action=action,
            model=model.name[:_LONGEST],
            version=model.version,
            alias=alias[:_LONGEST],
            replaced="",
            answer=standing.answer if standing else "none",
            outcome=ruling.outcome if ruling else "granted",
            codes=ruling.codes if ruling else (),
            reasons=tuple(reason[:_LONGEST_REASON] for reason in ruling.reasons[:20]) if ruling else (),
            evidence=standing.evidence[:20] if standing else (),
        )

    def write(self, entry: Entry) -> None:
        """Write an entry in a transaction of its own."""
        with writing(self.engine) as connection:
            self.log.append(connection, entry)

    def write_once(self, entry: Entry) -> None:
        """The same for what comes again and again, such as an alias that is followed: once a minute for each caller and reason."""
        entry = replace(entry, reasons=tuple(reason[:_LONGEST_REASON] for reason in entry.reasons))
        if self._said_lately(entry.actor, entry.action, entry.model, entry.version, entry.alias, entry.outcome, *entry.codes):
            return
        (self.write_refused if entry.outcome == "refused" else self.write)(entry)

    def write_refused(self, entry: Entry) -> None:
        """Write down a refusal in a transaction of its own, unless its user was refused too often in this minute."""
        now = time.monotonic()
        minute, count = self._counts.get(entry.actor, (now, 0))
        minute, count = (minute, count + 1) if now - minute < _SAID_AGAIN_S else (now, 1)
        self._counts = {**(self._counts if len(self._counts) < 1000 else {}), entry.actor: (minute, count)}
        if count > _A_MINUTE:
            _logger.warning("%s is refused more than %s times a minute; what comes above that is not written down", entry.actor, _A_MINUTE)
            return
        self.write(entry)

    def warn(self, ruling: Ruling) -> None:
        """Say what is let through under `warn`: to whoever asked, and in the server's log once a minute."""
        warn_caller(ruling.words)
        if not self._said_lately("warned", ruling.words):
            _logger.warning("%s", ruling.words)

    def _said_lately(self, *what: str) -> bool:
        """Whether something was said within the last minute; now it is."""
        now = time.monotonic()
        if now - self._said.get(what, -_SAID_AGAIN_S) < _SAID_AGAIN_S:
            return True
        if len(self._said) > 10_000:
            self._said.clear()
        self._said[what] = now
        return False

    def remember(self) -> None:
        """Let the witness see the end of the log, and look whether what it saw is still there.

        Raises:
            LedgerError: the witness cannot be read or written.
        """
        seen = self.witness.head()
        with self.engine.connect() as connection:
            if seen is not None and not self.log.holds(connection, seen):
                self.trouble = f"gate log: entry {seen.number}, which this server has seen, is gone or another one; restore MLflow's database"
                return
            try:
                new = deque(self.log.entries(connection, seen.number if seen is not None else 0), maxlen=1)
            except TamperedError as error:  # it is not remembered, so that it can be mended
                self.trouble = str(error)
                return
        self.trouble = ""
        if new:
            self.witness.advance(Head(number=new[0].number, digest=new[0].mac))

    def begin(self, connection: Connection) -> None:
        """Write down where aliases pointed before the gate came, and stages; what is moved later without the gate is told from it.

        Raises:
            StoreError: the log was written under another key.
        """
        if self.log.head(connection).number:
            self._require_own_key(connection)
            return
        self.found(connection)

    def found(self, connection: Connection, name: str | None = None) -> None:
        """Write down where aliases point, and who is in which stage, of one registered model or of all."""
        for each in (*aliases(connection, name), *staged(connection, name)):
            entry = self.entry(Use.POINT.value, each.model, each.label)
            self.log.append(connection, replace(entry, outcome="found", moves=True))

    def _require_own_key(self, connection: Connection) -> None:
        try:
            self.log.last(connection)
        except TamperedError as error:
            words = "the last entry was changed, or written under another key than this server's: MLFLOW_UNLEARN_GATE_KEY_FILE"
            raise StoreError(f"gate log: {words}; `mlflow-unlearn gate-log --verify` tells which") from error
