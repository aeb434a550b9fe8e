"""The gate's answers inside the server: made when something changed, kept while nothing did, so that an alias is set and followed in milliseconds.

An answer rests on the trust file, policy.yaml and params.yaml, on the ledger, on what the registry has about the version and its ancestors, and on
its files. Each is looked at every time, by its time stamps, its last event or its digest; the answer itself is worked out anew only when one of them
is another than it was, or after an hour.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlparse

from ..adapters.file_listings import fingerprint
from ..adapters.gate_tables import KeptRows, writing
from ..adapters.gate_views import VersionRow, ancestry, version_row, version_rows
from ..adapters.kept_subjects import KeptSubjects
from ..adapters.storage_locations import Storage
from ..documents import decode, encode
from ..errors import ConfigError, LineageError
from ..lineage import ModelVersion
from ..ruling import Signed, Standing, by_signatures, fresh, under
from ..stages.gating import Question, answer
from ..stages.proving import Subject
from .project import Project
from .resting import Resting, bound
from .served_bench import by_the_gate
from .terms import in_force
from .unanswered import SILENT, UNANSWERED, ChangingError, foreseen

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine


KIND = "decision"
"""Kept rows: the last answers."""
LONGEST = timedelta(hours=1)
"""What nothing points at, such as a key's last day or a new state of the data, is seen after so long at the latest."""
NO_FILES = frozenset({"", "dummy-source", "prompt-template"})
"""Locations of prompts, which MLflow keeps as registered models: there is nothing to load, whatever a tag says."""
_BY_HTTP = ("mlflow-artifacts:", "http:", "https:")
_IN_MEMORY = 10_000
"""Answers that are kept decoded."""
_TRIES = 3


class NotRegisteredError(LineageError):
    """There is no such version."""


class NoFilesError(LineageError):
    """A version has no files, so that nothing can be deployed of it."""


@dataclass(kw_only=True)
class Decisions:
    """Answers about the versions of one server. Its questions raise nothing but UNANSWERED, whatever is recorded about a version."""

    project: Project
    storage: Storage
    rows: KeptRows
    engine: Engine
    subjects: KeptSubjects
    alarm: Callable[[ModelVersion, str, str, str], None]
    """Told where an old answer stands in, or the signed one: version, alias, code, why."""
    refresh: Callable[[ModelVersion, str], None]
    """Told what is worth deciding anew, soon."""
    _decoded: dict[str, tuple[dict[str, Any], Standing]] = field(default_factory=dict)
    _deciding: threading.RLock = field(default_factory=threading.RLock)

    @property
    def deciding(self) -> threading.RLock:
        """Held by whoever works with the bench: Git, DVC and the index are used by one at a time."""
        return self._deciding

    def kept(self, connection: Connection, model: ModelVersion, alias: str) -> Standing | None:
        """The last answer, whether it stands or not."""
        name = self.name(model, alias)
        body = self.rows.get(connection, KIND, name)
        if body is None:
            return None
        known = self._decoded.get(name)
        if known is None or known[0] != body:
            if (found := decoded(body)) is None:
                return None
            known = (body, found)
            self._decoded = {**(self._decoded if len(self._decoded) < _IN_MEMORY else {}), name: known}
        return replace(known[1], alias=alias)

    def standing(self, model: ModelVersion, alias: str) -> Standing | None:
        """The last answer if it stands.

        Raises:
            UnlearnError: nobody can say.
        """
        kept = self._unchanged(model, alias)
        return kept if kept is not None and kept.asked == self.project.asked() else None

    def for_pointing(self, model: ModelVersion, alias: str) -> Standing:
        """An answer to let an alias point at a version: a yes of which nothing has changed that it rests on, but for the ledger, which the caller
        looks at last. What was no yes is worked out anew, since an approval or a signature may have come.

        Raises:
            UnlearnError: nothing could be decided.
        """
        kept = self._unchanged(model, alias)
        return kept if kept is not None and kept.answer == "yes" else self.decide(model, alias)

    def for_following(self, model: ModelVersion, alias: str, kept: Standing | None, row: VersionRow | None) -> Standing:
        """An answer to follow an alias: the last one, if nothing changed but the ledger and a later request would not stop it yet.

        Where something does not answer, the last one stands in for a while, if settings and version are those it was given about.

        Args:
            model: the version.
            alias: the alias.
            kept: the last answer.
            row: the version as it stands in the table.

        Raises:
            UnlearnError: nothing could be decided, and no answer is young enough to stand in.
        """
        try:
            return self._to_follow(model, alias, kept, row)
        except SILENT as error:
            if kept is None or row is None or not self._stands_in(kept, row):
                raise
            self.alarm(model, alias, "unavailable", str(error))
        return under(kept, in_force(self.project.last_terms(), model.name))

    def _to_follow(self, model: ModelVersion, alias: str, kept: Standing | None, row: VersionRow | None) -> Standing:
        now = self._resting(model, row)
        if kept is None or not self._holds(kept, now):
            return self._told(self.decide(model, alias, to_follow=True), alias)
        if kept.asked == self.project.asked():
            return self._told(kept, alias)
        if self.project.last_policy().gate.on_request != "due":
            return self._told(self.decide(model, alias, to_follow=True), alias)
        self.refresh(model, alias)
        return kept

    def _stands_in(self, kept: Standing, row: VersionRow) -> bool:
        """Whether settings, version and files are those of an answer; files that nobody can look at now may be."""
        if kept.bound != bound(self.project.stamp(), row) or not fresh(kept, self.project.last_policy().gate, datetime.now(UTC)):
            return False
        try:
            return self._resting(kept.model, row).digest == kept.rests_on
        except SILENT:
            return True

    def _told(self, standing: Standing, alias: str) -> Standing:
        """With an alarm where what was signed gives a yes, and what the registry has otherwise since does not."""
        if standing.answer != "yes" and by_signatures(standing).answer == "yes":
            self.alarm(standing.model, alias, "registry_differs", "; ".join(reason.text for reason in standing.reasons if reason.answer != "note"))
        return standing

    def decide(self, model: ModelVersion, alias: str, *, to_follow: bool = False) -> Standing:
        """Work the answer out and keep it.

        Args:
            model: the version.
            alias: the alias.
            to_follow: whether an answer of a moment ago is enough: then tags and requests that came meanwhile are left to the next one, or whoever
                may write them could keep what is deployed from being followed.

        Raises:
            UnlearnError: nothing could be decided.
        """
        with foreseen(model), by_the_gate():
            for _ in range(_TRIES):
                before, asked = self._looked_up(model)
                subject = self._hashed(before.location)  # beside all others: it may take minutes
                with self._deciding:
                    standing = self._decided(before, asked, alias, subject)
                after, since = self._looked_up(model)
                if (after.digest, since) == (before.digest, asked):
                    return self._keep(standing, alias)
                if to_follow and after.lasting == before.lasting:
                    return standing
        raise ChangingError(f"{model}: what the gate goes by changed {_TRIES} times while it was looked at; try again")

    def _hashed(self, location: str) -> Subject:
        """What the files are now, or the reason why nobody can say, for whoever asks."""
        try:
            found = self.subjects.subject(location)
        except UNANSWERED as error:
            return partial(_raise, error)
        return lambda: found

    def _keep(self, standing: Standing, alias: str) -> Standing:
        name = self.name(standing.model, alias)
        with writing(self.engine) as connection:
            self.rows.put(connection, KIND, name, encode(standing))
        return standing

    def _decided(self, resting: Resting, asked: str, alias: str, subject: Subject) -> Standing:
        model, now = resting.row.model, datetime.now(UTC)
        found = answer(self.project.bench(), Question(model=model, alias=alias or None, subject=subject), now)
        closure, decision = tuple(each.model for each in found.evidence.closure), found.decision
        signed = Signed(answer=found.signed.answer, reasons=found.signed.reasons, due=found.signed.due)
        with self.engine.connect() as connection:
            made_from = ancestry(connection, version_rows(connection, closure))
        return Standing(
            model=model,
            alias=alias,
            answer=decision.answer,
            reasons=decision.reasons,
            enforcement=found.enforcement,
            evidence=decision.evidence,
            closure=closure,
            rests_on=resting.digest,
            asked=asked,
            ancestry=made_from,
            location=resting.location,
            bound=resting.bound,
            at=now.replace(microsecond=0),
            until=decision.until,
            due=decision.due,
            signed=signed if found.signed is not decision else None,
        )

    def _holds(self, kept: Standing, now: Resting) -> bool:
        """Whether nothing changed, except perhaps among its ancestors, or what was asked to be forgotten."""
        moment = datetime.now(UTC)
        young = kept.at <= moment < kept.at + LONGEST and (kept.until is None or moment <= kept.until)
        return young and kept.rests_on == now.digest

    def _unchanged(self, model: ModelVersion, alias: str) -> Standing | None:
        """The last answer, if nothing changed but perhaps what was asked to be forgotten."""
        with foreseen(model):
            with self.engine.connect() as connection:
                kept = self.kept(connection, model, alias)
                rows = version_rows(connection, kept.closure if kept is not None else (model,))
                made_from = ancestry(connection, rows) if kept is not None else ""
            now = self._resting(model, rows.get(model))
        return kept if kept is not None and kept.ancestry == made_from and self._holds(kept, now) else None

    def _resting(self, model: ModelVersion, row: VersionRow | None) -> Resting:
        if row is None:
            raise NotRegisteredError(f"{model}: no such version in the registry")
        if row.location in NO_FILES:
            raise NoFilesError(f"{model}: a prompt, or another version without files: there is nothing to guard")
        if row.location.startswith(_BY_HTTP) and urlparse(row.location).netloc:
            raise LineageError(f"{model}: its files are named by a server's address; a client would fetch them there, and the gate looks here")
        location = self.storage.canonical(row.location)
        files, stamp = fingerprint(self.storage.direct(location)), self.project.stamp()
        return Resting(row=row, location=location, files=files, stamp=stamp)

    def _looked_up(self, model: ModelVersion) -> tuple[Resting, str]:
        with self.engine.connect() as connection:
            row = version_row(connection, model)
        return self._resting(model, row), self.project.asked()

    def name(self, model: ModelVersion, alias: str) -> str:
        """Under which name an answer is kept: what nobody has to approve or may override is the same for every alias."""
        gate = self.project.last_policy().gate
        return f"{model}@{alias if gate.approvals or gate.override else ''}"


def decoded(body: Mapping[str, Any]) -> Standing | None:
    """An answer as it is kept; None for one of another version of this package."""
    try:
        return decode(Standing, body, "decision")
    except ConfigError:
        return None


def _raise(error: Exception) -> NoReturn:
    raise error
