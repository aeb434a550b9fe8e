"""A real MLflow server with the gate: 16 clients that race to promote, and how long it takes to start beside one without.

The start is `mlflow server`, from the command to the first answer of /health, and to the first answer about a registered model, which is when a
worker opens its store. The servers are started in turn, with the gate and without.
"""

from __future__ import annotations

import json
import math
import os
import re
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from gate_server_world import Stand, small
from gated_server import Server
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mlflow_unlearn.commands.gate_log import Asked, gate_log
from mlflow_unlearn.lineage import ModelVersion

CLIENTS, ROUNDS, STARTS = 16, 10, 5
ALIAS = "production"
Figure = tuple[str, float, str, float]
_LATE = re.compile(r"refused by mlflow-unlearn: .*Next: ", re.DOTALL)
_REGISTRY = "/api/2.0/mlflow/registered-models/search?max_results=1"


def race(stand: Stand) -> list[Figure]:
    """All at once, again and again: each client promotes a version of its own choice."""
    versions = [*stand.few, *stand.many]
    with Server(root=stand.root) as server:
        clients = [MlflowClient(server.uri) for _ in range(CLIENTS)]
        clients[0].set_registered_model_alias("m", ALIAS, versions[0].version)  # the worker opens its store
        together = threading.Barrier(CLIENTS)
        answers: list[tuple[str, float]] = []
        for number in range(ROUNDS):
            chosen = [versions[(number + each) % len(versions)] for each in range(CLIENTS)]
            with ThreadPoolExecutor(CLIENTS) as pool:
                answers += pool.map(lambda client, model: _promoted(client, model, together), clients, chosen)
        held = str(clients[0].get_model_version_by_alias("m", ALIAS).version)
    return _told(stand, answers, held)


def _promoted(client: MlflowClient, model: ModelVersion, together: threading.Barrier) -> tuple[str, float]:
    """How it ended, and after how many milliseconds."""
    together.wait()
    began = time.perf_counter()
    try:
        client.set_registered_model_alias(model.name, ALIAS, model.version)
        ended = "granted"
    except MlflowException as error:
        ended = "refused" if error.error_code == "RESOURCE_CONFLICT" and _LATE.search(str(error)) else f"error: {error}"
    return ended, (time.perf_counter() - began) * 1e3


def _told(stand: Stand, answers: list[tuple[str, float]], held: str) -> list[Figure]:
    ends = Counter(end for end, _ in answers)
    errors = sum(count for end, count in ends.items() if end.startswith("error"))
    for end in sorted(each for each in ends if each.startswith("error")):
        print(end, file=sys.stderr)
    named = f"{CLIENTS} clients race to promote, {ROUNDS} times"
    return [
        (f"{named}: answers that are neither yes nor a worded refusal", 0.0, "of 160", errors),
        (f"{named}: moves in the log that do not follow from the one before, or from an answer", 0.0, "moves", _out_of_order(stand, ends, held)),
        (f"{named}: granted", math.inf, "of 160", ends["granted"]),
        (f"{named}: refused, since somebody else was faster", math.inf, "of 160", ends["refused"]),
        (f"{named}: an answer, median", math.inf, "ms", statistics.median(taken for _, taken in answers)),
        (f"{named}: the slowest answer", math.inf, "ms", max(taken for _, taken in answers)),
    ]


def _out_of_order(stand: Stand, ends: Counter[str], held: str) -> int:
    """Of the log's moves of the alias; the log itself is verified first."""
    database = f"sqlite:///{stand.root}/mlflow.db"
    if problems := gate_log(Asked(database=database, verify=True))["problems"]:
        raise SystemExit(f"gate log: {problems}")
    moves = [each for each in stand.gated.entries() if each.alias == ALIAS and each.moves]
    wrong = sum(later.replaced != earlier.version for earlier, later in pairwise(moves))
    return wrong + abs(len(moves) - 1 - ends["granted"]) + (moves[-1].version != held)


def starts(root: Path) -> list[Figure]:
    """Medians of a few starts, in turn."""
    taken: dict[str, list[tuple[float, float]]] = {"": [], "unlearn-": []}
    for _ in range(STARTS):
        for gate, found in taken.items():
            found.append(_started(root, gate))
    (health, first), (gated_health, gated_first) = ([statistics.median(each) for each in zip(*found, strict=True)] for found in taken.values())
    return [
        ("`mlflow server` answers /health, later than without the gate", 1.0, "s", gated_health - health),
        ("the same without the gate", math.inf, "s", health),
        ("and the registry's first answer, later than without", math.inf, "s", gated_first - first),
    ]


def _started(root: Path, gate: str) -> tuple[float, float]:
    began = time.perf_counter()
    with Server(root=root, gate=gate, whole=True) as server:
        health = time.perf_counter() - began
        with urllib.request.urlopen(server.uri + _REGISTRY, timeout=60) as answer:
            json.load(answer)
        return health, time.perf_counter() - began


def measure(acts: tuple[str, ...] = ("race", "start")) -> list[Figure]:
    """(what, target, unit, measured) of each figure."""
    os.environ.update(MLFLOW_HTTP_REQUEST_MAX_RETRIES="0", MLFLOW_HTTP_POOL_MAXSIZE=str(CLIENTS))
    with tempfile.TemporaryDirectory() as home:
        stand = small(Path(home))
        every: dict[str, Callable[[], list[Figure]]] = {"race": lambda: race(stand), "start": lambda: starts(stand.root)}
        rows = [row for act in acts for row in every[act]()]
        os.chdir("/")
    return rows


if __name__ == "__main__":
    from run import shown

    for row in measure(tuple(sys.argv[1:]) or ("race", "start")):
        shown(row)
