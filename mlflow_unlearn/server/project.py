"""The project that a server's gate goes by: settings, ledger and policy, opened again whenever one of their files is another."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from .. import config
from ..adapters.registry_weights import Known
from ..adapters.storage_locations import Storage
from ..digests import key_id, read_tag_key, sha256_json
from ..errors import ConfigError
from ..policy import Policy
from .patience import Patience
from .served_bench import Envelopes, ServedBench
from .terms import Terms, terms_of

if TYPE_CHECKING:
    from ..adapters.ledger import Ledger


_SETTLED_NS = 2_000_000_000
"""A file that was written so lately may be written again under the same time stamp."""
_Stamp = tuple[tuple[int, ...], ...]


@dataclass
class _Opened:
    """The project as its files were at one moment."""

    stamp: str
    bench: ServedBench
    ledger: Ledger
    terms: Terms
    asked: tuple[_Stamp, str] | None = None
    """The ledger's file when it was last read, and what was found."""


@dataclass(kw_only=True)
class Project:
    """One folder with params.yaml and policy.yaml, and what it names."""

    folder: Path
    registry_uri: str
    """Of the registry's database, without the gate's prefix."""
    storage: Storage
    envelopes: Envelopes
    weights: Known
    """As `ServedBench.weights`."""
    _opened: _Opened | None = None
    _opening: threading.RLock = field(default_factory=threading.RLock)
    _patience: Patience = field(default_factory=Patience)
    _ledger: Ledger | None = None
    """What was read of a ledger is not read again because another file changed, or because nobody waited for it."""

    def terms(self) -> Terms:
        """The policy that holds now.

        Raises:
            UnlearnError: settings are missing or have a mistake, or the ledger does not answer.
        """
        return self._open().terms

    def last_terms(self) -> Terms | None:
        """The policy as it was last seen; None before it was ever read."""
        return self._opened.terms if self._opened is not None else None

    def last_policy(self) -> Policy:
        """The same with every value; the defaults before it was ever read."""
        return self._opened.terms.policy if self._opened is not None else Policy()

    def bench(self) -> ServedBench:
        """The workbench; one works with it at a time."""
        return self._open().bench

    def stamp(self) -> str:
        """Changes when trust file, policy, settings or tag key do."""
        return self._open().stamp

    def asked(self) -> str:
        """The ledger's last event from which an answer may follow, as `Standing.asked`.

        Raises:
            UnlearnError: as `terms`.
        """
        opened = self._open()
        now = _file_stamp(opened.ledger.uri)
        if now is not None and opened.asked is not None and opened.asked[0] == now:
            return opened.asked[1]
        head = self._patience.ask(opened.ledger.decisive, opened.ledger.place)
        settled = now is not None and time.time_ns() - _last_written(now) > _SETTLED_NS
        opened.asked = (now, f"{head.number}:{head.digest}") if now is not None and settled else None
        return f"{head.number}:{head.digest}"

    def _open(self) -> _Opened:
        with self._opening:
            settings = self._settings
            files = (settings.trust_file, self.folder / "policy.yaml", self.folder / "params.yaml", settings.tag_key_file)
            stamp = sha256_json([_stamp(path) for path in files])
            if self._opened is None or self._opened.stamp != stamp:
                self._opened = self._read(stamp)
            return self._opened

    @cached_property
    def _settings(self) -> config.Settings:
        return config.settings(self.folder)

    def _read(self, stamp: str) -> _Opened:
        bench = ServedBench(folder=self.folder, registry_uri=self.registry_uri, envelopes=self.envelopes, storage=self.storage, weights=self.weights)
        ledger = self._ledger_of(bench.settings)
        terms = terms_of(bench, lambda: self._patience.ask(ledger.trusted, ledger.place))
        return _Opened(stamp=stamp, bench=bench, ledger=ledger, terms=terms)

    def _ledger_of(self, settings: config.Settings) -> Ledger:
        from ..adapters.ledger import Ledger

        uri, key, known = settings.ledger_uri, key_id(read_tag_key(settings.tag_key_file)), self._ledger
        if known is None or (known.uri, known.key_id) != (uri, key):
            self._ledger = known = Ledger(uri, key, settings.state / "ledger.head", kept=True)
        return known


def _stamp(path: Path) -> list[int]:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    return [stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino]


def _file_stamp(uri: str) -> _Stamp | None:
    """A sqlite ledger's file and what sqlite keeps beside it; None for a ledger on a server, or one that is not there."""
    path = Path(uri.partition(":///")[2])
    if not uri.startswith("sqlite") or not path.is_file():
        return None
    return tuple(tuple(_stamp(path.with_name(path.name + beside))) for beside in ("", "-wal", "-journal"))


def _last_written(stamp: _Stamp) -> int:
    return max(moment for file in stamp for moment in file[:2])
