"""`make bench-gate`: what the gate inside MLflow's server adds, beside plain MLflow in the same run.

In this process: `set` and `resolve` are methods of MLflow's client on a store of sqlite, with the gate and without, call by call in turn, so that
whatever else the machine does hits both. A figure is the difference of the medians, by the clock or in CPU time of this process, whichever is
smaller: a busy machine stretches the clock. Both stand in the row.
"""

from __future__ import annotations

import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

from gate_server_world import FEW, MANY, Stand, large, small
from mlflow import MlflowClient

from mlflow_unlearn.lineage import ModelVersion

GUARDED, FREE = "champion", "plainly"
"""An alias that the gate guards, and one for MLflow alone: what is moved without the gate would not be followed any more."""
TIMES, PASSES = 60, 3
Figure = tuple[str, float, str, float]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Medians in milliseconds of the same call with the gate and without."""

    gated: float
    plain: float
    gated_cpu: float
    plain_cpu: float

    @property
    def added(self) -> float:
        """By the clock."""
        return self.gated - self.plain

    @property
    def added_cpu(self) -> float:
        """In CPU time."""
        return self.gated_cpu - self.plain_cpu

    def figure(self, what: str, target: float) -> Figure:
        """The promise, by the smaller of both."""
        told = f"added by the clock {self.added:.1f}, in CPU time {self.added_cpu:.1f}; plain {self.plain:.1f}, {self.plain_cpu:.1f}"
        return f"{what} ({told})", target, "ms added, by the smaller", min(self.added, self.added_cpu)


def in_turn(acts: Sequence[Callable[[], object]], times: int = TIMES) -> list[tuple[float, float]]:
    """Medians of the clock and of CPU time of each call, in milliseconds; the calls take turns."""
    taken: list[list[tuple[float, float]]] = [[] for _ in acts]
    for number in range(times + 3):
        for act, found in zip(acts, taken, strict=True):
            wall, cpu = time.perf_counter(), time.process_time()
            act()
            if number >= 3:
                found.append(((time.perf_counter() - wall) * 1e3, (time.process_time() - cpu) * 1e3))
    return [(statistics.median(wall for wall, _ in each), statistics.median(cpu for _, cpu in each)) for each in taken]


def pairs(acts: Sequence[tuple[Callable[[], object], Callable[[], object]]], times: int = TIMES) -> list[Pair]:
    """Each call with the gate and without, of several passes the one in which the machine was the least disturbed, as plain MLflow tells."""
    passes = [_pairs(acts, times) for _ in range(PASSES)]
    return [min(each, key=lambda pair: pair.plain_cpu) for each in zip(*passes, strict=True)]


def _pairs(acts: Sequence[tuple[Callable[[], object], Callable[[], object]]], times: int) -> list[Pair]:
    found = iter(in_turn([act for pair in acts for act in pair], times))
    both = [(next(found), next(found)) for _ in acts]
    return [Pair(gated=gated[0], plain=plain[0], gated_cpu=gated[1], plain_cpu=plain[1]) for gated, plain in both]


def setting(client: MlflowClient, alias: str, versions: Sequence[ModelVersion]) -> Callable[[], None]:
    """Lets an alias point at one version after the other."""
    turns = cycle(versions)

    def act() -> None:
        model = next(turns)
        client.set_registered_model_alias(model.name, alias, model.version)

    return act


def resolving(client: MlflowClient, alias: str) -> Callable[[], object]:
    """Follows an alias."""
    return lambda: client.get_model_version_by_alias("m", alias)


def set_and_resolve(
    stand: Stand, versions: Sequence[ModelVersion], guarded: str = GUARDED
) -> list[tuple[Callable[[], object], Callable[[], object]]]:
    """Both calls with the gate and without, on aliases that are set first."""
    if not stand.gated.warden.protects(guarded):
        raise SystemExit(f"{guarded}: no guarded alias")
    clients = ((stand.gated.client, guarded), (stand.plain, f"{FREE}-{guarded}"))
    sets = [setting(client, alias, versions) for client, alias in clients]
    for act in sets:
        act()
    time.sleep(3)  # what was written within two seconds may change under the same time stamp, and is looked at anew each time
    return [(sets[0], sets[1]), (resolving(*clients[0]), resolving(*clients[1]))]


def on_sqlite(stand: Stand) -> list[Figure]:
    """Of 12 and of 500 files."""
    rows = []
    for versions, files, resolve_ms in ((stand.few, FEW, 2.0), (stand.many, MANY, 5.0)):
        point, follow = pairs(set_and_resolve(stand, versions))
        rows.append(point.figure(f"set an alias, {files} files, digests cached", 8.0 if files == FEW else math.inf))
        rows.append(follow.figure(f"resolve an alias, {files} files", resolve_ms))
    return rows


def scale(one: Stand, other: Stand) -> list[Figure]:
    """What 20,000 versions and 1,000 requests change, the two stores call by call in turn."""
    point, follow, point_many, follow_many = pairs([*set_and_resolve(one, one.few), *set_and_resolve(other, other.few)])
    rows: list[Figure] = []
    for what, few, many in (("set", point, point_many), ("resolve", follow, follow_many)):
        clock, cpu = many.added / few.added, many.added_cpu / few.added_cpu
        told = f"by the clock {clock:.2f}, in CPU time {cpu:.2f}"
        rows.append((f"{what}: what is added beside 20,000 versions and 1,000 requests over a small store ({told})", 2.0, "times", min(clock, cpu)))
        rows.append(many.figure(f"{what} an alias there", math.inf))
    return rows


def measure() -> list[Figure]:
    """(what, target, unit, measured) of each figure in this process."""
    with tempfile.TemporaryDirectory() as few, tempfile.TemporaryDirectory() as many:
        one = small(Path(few))
        rows = on_sqlite(one)
        rows += scale(one, large(Path(many)))
        os.chdir("/")
    return rows


def main() -> None:
    """Measure and print, what is measured elsewhere too."""
    from run import rows_of, shown

    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    print("what | target | measured | ok")
    held = [shown(row) for name in ("gate_server", "gate_server_clients", "gate_server_elsewhere") for row in rows_of(name)]
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    sys.exit(0 if all(held) else 1)


if __name__ == "__main__":
    main()
