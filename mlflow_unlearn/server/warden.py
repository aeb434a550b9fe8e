"""The gate inside MLflow's server: rules on what clients ask for, writes down what it ruled, and looks again when something changed."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from mlflow.entities.model_registry.model_version_stages import ALL_STAGES

from ..adapters.gate_tables import DATABASE_ERRORS, KeptRows, writing
from ..adapters.gate_views import Holding, aliases, staged, staging, version_row
from ..adapters.guarded_locations import BLOCK
from ..documents import moment
from ..errors import TamperedError
from ..gate_values import Reason
from ..lineage import ModelVersion
from ..policy import GatePolicy
from ..ruling import Ruling, Standing, Use, blocked_from, rule, stricter
from .clerk import Clerk
from .custody import Custody
from .decisions import Decisions, NoFilesError, NotRegisteredError
from .survey import survey
from .terms import Terms, in_force, undecided
from .unanswered import UNANSWERED, foreseen

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine

_KNOWN = ("mlflow-artifacts:", "file:", "s3:", "/")
_STAGES = [staging(stage) for stage in ALL_STAGES]
_WANTED_SHARE = 0.5
"""Of a round's time that goes to what is asked for, so that what is deployed has its own."""
NOTHING = Ruling(allowed=True, outcome="granted")
"""On what the gate has nothing to say about."""
_logger = logging.getLogger("mlflow_unlearn.gate")


@dataclass(kw_only=True)
class Warden:
    """One for a server process."""

    engine: Engine
    rows: KeptRows
    clerk: Clerk
    custody: Custody
    decisions: Decisions = field(init=False)
    rounds: bool = False
    """Whether somebody makes rounds, so that what takes long can be done beside the requests."""
    surveyed: bool = False
    """Whether everything that was decided so far went into the last survey."""
    wanted: OrderedDict[tuple[ModelVersion, str], None] = field(default_factory=OrderedDict)
    """What is to be decided anew, soon; each once, however often it is asked for."""
    _waiting: list[tuple[ModelVersion, str]] = field(default_factory=list)
    wake: threading.Event = field(default_factory=threading.Event)

    def terms(self) -> Terms | None:
        """Under which policy the server stands; None where nobody can say, so that everything is guarded."""
        try:
            with foreseen("the gate's settings"):
                return self.decisions.project.terms()
        except UNANSWERED as error:
            _logger.warning("the gate cannot read its settings, so that every alias is guarded: %s", error)
            return self.decisions.project.last_terms()

    def protects(self, alias: str) -> bool:
        """Whether an alias is guarded."""
        terms = self.terms()
        return terms is None or terms.protects(alias)

    def protects_stage(self, stage: str) -> bool:
        """Whether a stage is guarded."""
        terms = self.terms()
        return stage.casefold() not in ("none", "archived") if terms is None else terms.protects_stage(stage)

    def pointing(self, model: ModelVersion, alias: str, *, afresh: bool = False) -> tuple[Standing | None, Ruling]:
        """The ruling on an alias that is to point at a version, and the answer it follows from; None for what has no files, or is not there.

        Args:
            model: the version.
            alias: the alias, or a stage.
            afresh: whether the answer is to be worked out whatever is kept.
        """
        ask = self.decisions.decide if afresh else self.decisions.for_pointing
        try:
            if self.clerk.trouble:
                raise TamperedError(self.clerk.trouble)
            standing = ask(model, alias)
        except (NoFilesError, NotRegisteredError):
            return None, NOTHING
        except UNANSWERED as error:
            standing = self._undecided(model, alias, error)
        lately = standing.only_requested and self._held_lately(standing)
        return standing, self._ruled(standing, Use.POINT, held_lately=lately)

    def still_asked(self, standing: Standing | None) -> bool:
        """Whether no request came in since an answer; where nobody can say, nobody could."""
        try:
            return standing is None or not standing.asked or self.decisions.project.asked() == standing.asked
        except UNANSWERED:
            return False

    def following(self, holding: Holding) -> tuple[Standing | None, Ruling]:
        """The same for an alias or stage that is followed: it also has to point where the gate let it point."""
        model, alias, why = holding.model, holding.alias, None
        try:
            with foreseen(model):
                with self.engine.connect() as connection:
                    kept, row = self.decisions.kept(connection, model, alias), version_row(connection, model)
                    why = self._moved_behind(connection, holding)
                standing = self.decisions.for_following(model, alias, kept, row)
        except NoFilesError:
            return None, NOTHING
        except UNANSWERED as error:
            standing = self._undecided(model, alias, error)
        if why is not None:
            standing = replace(standing, answer="no", reasons=(Reason(answer="no", code="moved", text=why), *standing.reasons), due=None, signed=None)
        return standing, self._ruled(standing, Use.FOLLOW)

    def alarm(self, model: ModelVersion, alias: str, code: str, why: str) -> None:
        """An alias is followed by an old answer, since something does not answer, or by what was signed, since the registry has it otherwise."""
        by = "an old decision" if code == "unavailable" else "what was signed"
        _logger.error("ALARM: %s@%s is followed by %s: %s", model, alias, by, " ".join(why.split())[:300])
        ruling = Ruling(allowed=True, outcome="observed", codes=(code,), reasons=(" ".join(why.split())[:400],))
        found = self.clerk.entry(Use.FOLLOW.value, model, alias, ruling=ruling)
        self.clerk.write_once(replace(found, outcome="alarm"))

    def want_all(self, model: ModelVersion) -> None:
        """Have a version decided for every alias it may soon be asked for."""
        terms = self.decisions.project.last_terms()
        named = terms.policy.gate.protected_aliases if terms is not None else ()
        for alias in ("", *named):
            self.want(model, "" if alias == "*" else alias)

    def want(self, model: ModelVersion, alias: str) -> None:
        """Have something decided anew, soon."""
        self.wanted[model, alias] = None
        self.wake.set()

    def holds(self, connection: Connection, name: str, version: str | None = None) -> list[tuple[ModelVersion, str]]:
        """Guarded aliases and stages that a model's versions hold, or that rest on this version as an ancestor."""
        every = [*aliases(connection), *staged(connection)]
        guarded = [each for each in every if self._guards(each)]
        found = [(each.model, each.alias) for each in guarded if each.model.name == name and version in (None, each.model.version)]
        for each in guarded:
            kept = self.decisions.kept(connection, each.model, each.alias)
            if kept is not None and any(one.name == name and version in (None, one.version) for one in kept.closure):
                found.append((each.model, each.alias))
        return sorted(set(found))

    def enforced(self, connection: Connection, model: ModelVersion, alias: str) -> bool:
        """Whether a no is enforced for a version, by the terms of now or by those of its last answer."""
        kept, now = self.decisions.kept(connection, model, alias), in_force(self.decisions.project.last_terms(), model.name)
        return stricter(kept.enforcement if kept is not None else now, now) == "enforce"

    def settle(self, budget_s: float = math.inf) -> None:
        """Decide anew what is asked for and what does not stand any more; let the witness see the end of the log.

        Args:
            budget_s: after so many seconds the rest is left to the next time.

        Raises:
            UnlearnError: the witness cannot be read or written.
        """
        began = time.monotonic()
        try:
            self.clerk.remember()
        finally:
            self._settle(lambda share: time.monotonic() - began < share * budget_s)

    def _settle(self, within: Callable[[float], bool]) -> None:
        if self.clerk.trouble:
            _logger.error("ALARM: no guarded alias is moved until this is mended: %s", self.clerk.trouble)
        while self.wanted and within(_WANTED_SHARE):
            self._look_again(*self.wanted.popitem(last=False)[0])
        if self.wanted:
            self.wake.set()
        self._waiting = self._waiting or self._deployed()
        while self._waiting and within(1):
            self._look_again(*self._waiting.pop())

    def survey(self) -> None:
        """Find everything that is blocked, over the whole registry.

        Raises:
            UnlearnError: something does not answer.
        """
        self.surveyed, done = True, False
        try:
            self._survey()
            done = True
        finally:
            self.surveyed = self.surveyed and done

    def _survey(self) -> None:
        found = {name: block.body for name, block in survey(self.decisions, self.rows).items()}
        with writing(self.engine) as connection:
            before = self.rows.all(connection, BLOCK)
            for name in before.keys() - found.keys():
                self.rows.remove(connection, BLOCK, name)
            for name in (each for each, body in found.items() if before.get(each) != body):
                self.rows.put(connection, BLOCK, name, found[name])
        self.custody.reload(all=True)

    def refusal_at(self, location: str) -> str | None:
        """Why the files at a location cannot be read; also where they lie in a store of which the gate knows nothing but the name."""
        if (words := self.custody.refusal_at(location)) is not None or location.startswith(_KNOWN):
            return words
        with self.engine.connect() as connection:
            body = self.rows.get(connection, BLOCK, location)
        return str(body["words"]) if body is not None and body["since"] <= moment(datetime.now(UTC)) else None

    def heed(self, standing: Standing) -> None:
        """Have blocked what was just decided to be wrong: by the next round, or here where nobody makes rounds."""
        if blocked_from(standing, self._gate) is not None:
            self.surveyed = False
            self.wake.set()
            if not self.rounds:
                self.survey()

    def _guards(self, holding: Holding) -> bool:
        return self.protects_stage(holding.alias) if holding.stage else self.protects(holding.alias)

    def _deployed(self) -> list[tuple[ModelVersion, str]]:
        """Holders of guarded aliases and stages, each once for every answer that is kept of it."""
        with self.engine.connect() as connection:
            held = [each for each in (*aliases(connection), *staged(connection)) if self._guards(each)]
        return sorted({self.decisions.name(each.model, each.alias): (each.model, each.alias) for each in held}.values())

    def _look_again(self, model: ModelVersion, alias: str) -> None:
        if not self._stands(model, alias):
            self._try(partial(self.decisions.decide, model, alias), f"{model}@{alias}")

    def _stands(self, model: ModelVersion, alias: str) -> bool:
        try:
            return self.decisions.standing(model, alias) is not None
        except NoFilesError:
            return True  # there is nothing to decide
        except UNANSWERED:
            return False

    def _try(self, decide: Callable[[], Standing], what: str) -> None:
        try:
            with foreseen(what):
                self.heed(decide())
        except UNANSWERED as error:
            _logger.warning("%s could not be decided: %s", what, error)

    def _kept(self, model: ModelVersion, alias: str) -> Standing | None:
        try:
            with self.engine.connect() as connection:
                return self.decisions.kept(connection, model, alias)
        except DATABASE_ERRORS:
            return None

    @property
    def _gate(self) -> GatePolicy:
        terms = self.decisions.project.last_terms()
        return terms.policy.gate if terms is not None else GatePolicy()

    def _ruled(self, standing: Standing, use: Use, *, held_lately: bool = False) -> Ruling:
        ruling = rule(standing, use, self._gate, datetime.now(UTC), held_lately=held_lately)
        if ruling.outcome == "warned":
            self.clerk.warn(ruling)
        return ruling

    def _held_lately(self, standing: Standing) -> bool:
        since = datetime.now(UTC) - timedelta(days=self._gate.rollback_days)
        try:
            with foreseen(standing.model), self.engine.connect() as connection:
                names = (standing.alias, staging(standing.alias))
                return any(self.clerk.log.pointed(connection, standing.model, name, since) for name in names)
        except UNANSWERED as error:
            _logger.warning("%s", error)
            return False

    def _undecided(self, model: ModelVersion, alias: str, error: Exception) -> Standing:
        return undecided(self._kept(model, alias), model, alias, error, self.decisions.project.last_terms())

    def _moved_behind(self, connection: Connection, holding: Holding) -> str | None:
        """How an alias came to point where the gate did not let it point; None where it did."""
        model, label = holding.model, holding.label
        try:
            log = self.clerk.log
            last = log.let(connection, model.name, _STAGES, model.version) if holding.stage else log.last_move(connection, model.name, label)
        except TamperedError as error:
            return str(error)
        if last is not None and (last.version, last.alias) == (model.version, label):
            return None
        was = f"version {last.version or 'none'}" if last is not None else "nothing"
        return f"the gate let {model.name}@{label} point at {was}; it was moved past the gate, by whoever can write in MLflow's database"
