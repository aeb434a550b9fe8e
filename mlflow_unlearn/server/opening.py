"""The gated store, opened: from a server's settings to a store with its warden, and the rounds that look again when something changed."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from mlflow.exceptions import MlflowException
from mlflow.server.constants import ARTIFACTS_DESTINATION_ENV_VAR, BACKEND_STORE_URI_ENV_VAR
from mlflow.store.db.utils import _verify_schema

from .. import config
from ..adapters.gate_log import GateLog
from ..adapters.gate_reading import place
from ..adapters.gate_tables import KeptEnvelopes, KeptRows, prepare, writing
from ..adapters.gate_views import stamp
from ..adapters.kept_subjects import KeptSubjects
from ..adapters.ledger_witness import Witness
from ..adapters.storage_locations import Storage
from ..digests import read_gate_key
from ..errors import StoreError, UnlearnError
from .artifacts import guard_plain_names
from .clerk import Clerk
from .custody import Custody, install
from .decisions import Decisions
from .project import Project
from .registry_store import GatedStore
from .served_bench import is_by_the_gate, project_folder, read_own_files
from .unanswered import UNANSWERED, foreseen
from .warden import Warden

PREFIX = "unlearn-"
_FIRST_S, _ROUND_S, _SURVEY_S = 1.0, 15.0, 900.0
"""Seconds until the first round, between rounds, and after which everything is looked at again even where nothing seems to have changed."""
_PAUSE_S, _BUDGET_S = 1.0, 5.0
"""Seconds between two rounds at least, whoever wakes it, and in which a round looks at what is deployed; the next one goes on."""
_BUSY_SHARE = 10.0
"""A survey waits this many times as long as the last one worked, so that it takes a tenth of one core at most, and no longer for a busy machine."""
_serving: dict[str, GatedStore] = {}
_one_at_a_time = threading.Lock()
_logger = logging.getLogger("mlflow_unlearn.gate")


def open_store(store_uri: str) -> GatedStore:
    """The store of `unlearn-sqlite:...` or `unlearn-postgresql:...`; inside a server it also makes its rounds and guards the model files.

    Raises:
        MlflowException: the project, its key or the database is not as it should be; the words say what to do.
    """
    plain = store_uri.removeprefix(PREFIX)
    try:
        with _one_at_a_time:
            if plain not in _serving:
                made = GatedStore(plain, lambda store: _warden(store, plain))
                if not made.warden.rounds:
                    return made
                _serving[plain] = made  # MLflow may ask twice at its first two requests, and rounds are made once
            return _serving[plain]
    except UnlearnError as error:
        raise MlflowException(f"mlflow-unlearn: the gate cannot start: {error}") from error


def _warden(store: GatedStore, plain: str) -> Warden:
    _require_schema(store, plain)
    folder, serving = project_folder(), BACKEND_STORE_URI_ENV_VAR in os.environ
    settings = config.settings(folder)
    prepare(store.engine)
    key = read_gate_key(settings.gate_key_file)
    tracking = os.environ.get(BACKEND_STORE_URI_ENV_VAR, plain).removeprefix(PREFIX)
    storage, rows = Storage(tracking_uri=tracking, destination=os.environ.get(ARTIFACTS_DESTINATION_ENV_VAR)), KeptRows(key)
    warden = Warden(
        engine=store.engine,
        rows=rows,
        custody=Custody(rows, store.engine, storage, (settings.state, settings.key_folder, settings.gate_key_file, settings.tag_key_file)),
        rounds=serving,
        clerk=Clerk(engine=store.engine, log=GateLog(key), witness=Witness(path=settings.state / "gate.head", place=place(plain))),
    )
    subjects, envelopes = KeptSubjects(rows, store.engine, storage), KeptEnvelopes(rows, store.engine)
    warden.decisions = Decisions(
        project=Project(folder=folder, registry_uri=plain, storage=storage, envelopes=envelopes, weights=subjects.with_weights),
        storage=storage,
        rows=rows,
        engine=store.engine,
        subjects=subjects,
        alarm=warden.alarm,
        refresh=warden.want,
    )
    with writing(store.engine) as connection:
        warden.clerk.begin(connection)
    if serving:
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # the log is for people
        warden.custody.reload()
        install(warden.custody)
        guard_plain_names(is_by_the_gate)
        read_own_files(storage)
        threading.Thread(target=Rounds(warden).forever, name="mlflow-unlearn-gate", daemon=True).start()
    return warden


def _require_schema(store: GatedStore, plain: str) -> None:
    """MLflow looks at the schema of its tracking database alone.

    Raises:
        StoreError: the database is older or newer than this MLflow; with the command to run, which takes no URI of ours.
    """
    try:
        _verify_schema(store.engine)
    except MlflowException as error:
        words = "older than this MLflow, or newer: back it up and run `mlflow db upgrade URI` with the MLflow that is to serve it"
        raise StoreError(f"the registry's database is {words}; the URI without {PREFIX}: {place(plain)}, with user and password") from error


@dataclass
class Rounds:
    """What is done beside the requests, by one thread."""

    warden: Warden
    seen: tuple[str, ...] = ()
    surveyed_at: float = -_SURVEY_S
    took_s: float = 0.0
    workers: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="mlflow-unlearn-gate"))

    def forever(self) -> None:
        """Go on as long as the process lives, whatever goes wrong in a round."""
        time.sleep(_FIRST_S)
        while True:
            self.workers.submit(self.once).exception()
            time.sleep(_PAUSE_S)
            self.warden.wake.wait(_ROUND_S)
            self.warden.wake.clear()

    def once(self) -> None:
        """One round: what may be read first, then what is deployed; what goes wrong with the one keeps nobody from the other."""
        for part in (self._survey_if_due, partial(self.warden.settle, _BUDGET_S)):
            if (error := _failure(part)) is not None:
                _logger.error("ALARM: the gate could not look again, what was decided before stands meanwhile: %s", error)

    def _survey_if_due(self) -> None:
        began, worked = time.monotonic(), time.thread_time()
        waited = began - self.surveyed_at
        now = self._state()
        if ((now != self.seen or not self.warden.surveyed) and waited >= _BUSY_SHARE * self.took_s) or waited >= _SURVEY_S:
            try:
                self.warden.survey()
                self.seen = now
            finally:  # one that fails may be as much work
                self.surveyed_at, self.took_s = time.monotonic(), time.thread_time() - worked

    def _state(self) -> tuple[str, ...]:
        """What a survey rests on."""
        decisions = self.warden.decisions
        try:
            asked = decisions.project.asked()
        except UNANSWERED:
            asked = ""
        with self.warden.engine.connect() as connection:
            return asked, stamp(connection), repr(decisions.project.last_terms())


def _failure(part: Callable[[], None]) -> Exception | None:
    """What a part of a round fails with."""
    try:
        with foreseen("the registry"):
            part()
    except UNANSWERED as error:
        return error
    return None
