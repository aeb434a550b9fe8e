"""`make bench`: the promised figures, one row each: what | target | measured | ok. Ends 1 when one is short.

CPU seconds of child processes, so that a busy machine does not decide. Works on the demo (build/demo) and makes it first when it is not there.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
DEMO = PROJECT / "build/demo"
BIN = Path(sys.executable).parent


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One promise."""

    what: str
    target: float
    unit: str
    measure: Callable[[], float]


def child_cpu(command: Sequence[str], times: int = 3) -> float:
    """CPU seconds of the best of a few runs: the first one compiles and fills caches."""
    return min(_cpu_once(command) for _ in range(times))


def _cpu_once(command: Sequence[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=DEMO, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def environment() -> dict[str, str]:
    """Our commands first on PATH, one thread."""
    return os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1", "DVC_NO_ANALYTICS": "1"}


def wall(command: Sequence[str]) -> float:
    """Wall seconds of the second run; the first one settles what changed."""
    for _ in range(2):
        started = time.monotonic()
        subprocess.run(command, cwd=DEMO, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return time.monotonic() - started


def torch_in_trace() -> float:
    """1 when tracing imports torch, else 0."""
    code = f"import sys; from mlflow_unlearn.commands import trace_request; trace_request('{request_id()}'); sys.exit('torch' in sys.modules)"
    return float(subprocess.run([sys.executable, "-c", code], cwd=DEMO, env=environment(), stdout=subprocess.DEVNULL, check=False).returncode)


def request_id() -> str:
    """The demo's request."""
    import json

    listed = subprocess.run([BIN / "mlflow-unlearn", "request", "list", "--json"], cwd=DEMO, env=environment(), capture_output=True, check=True)
    return str(json.loads(listed.stdout)["requests"][0]["request_id"])


FIGURES = (
    Figure(what="mlflow-unlearn --help", target=0.7, unit="CPU s", measure=lambda: child_cpu(["mlflow-unlearn", "--help"])),
    Figure(what="mlflow-unlearn trace", target=3.0, unit="CPU s", measure=lambda: child_cpu(["mlflow-unlearn", "trace", request_id()])),
    Figure(what="torch imported by trace", target=0.0, unit="times", measure=torch_in_trace),
    Figure(what="dvc repro with nothing to do", target=8.0, unit="s", measure=lambda: wall(["dvc", "repro", "-q"])),
)


def main() -> None:
    """Measure and print."""
    if not (DEMO / "build/registered.json").exists():
        subprocess.run([sys.executable, PROJECT / "pipelines/demo.py"], env=environment(), check=True)
    print("what | target | measured | ok")
    short = False
    for figure in FIGURES:
        measured = figure.measure()
        held = measured <= figure.target
        short |= not held
        print(f"{figure.what} | <= {figure.target:g} {figure.unit} | {measured:.2f} {figure.unit} | {'ok' if held else 'short'}", flush=True)
    sys.exit(1 if short else 0)


if __name__ == "__main__":
    main()
