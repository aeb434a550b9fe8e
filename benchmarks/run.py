"""`make bench`: the promised figures, one row each: what | target | measured | ok. Ends 1 when one is short.

CPU seconds of child processes, so that a busy machine does not decide. Works on the demo (build/demo) and makes it first when it is not there; the
figures of scale come from the other modules of this folder, each in a process of its own with one thread.
"""

from __future__ import annotations

import json
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
    code = f"import sys; from mlflow_unlearn.commands.tracing import trace_request; trace_request('{request_id()}'); sys.exit('torch' in sys.modules)"
    return float(subprocess.run([sys.executable, "-c", code], cwd=DEMO, env=environment(), stdout=subprocess.DEVNULL, check=False).returncode)


def request_id() -> str:
    """The demo's request."""
    listed = subprocess.run([BIN / "mlflow-unlearn", "request", "list", "--json"], cwd=DEMO, env=environment(), capture_output=True, check=True)
    return str(json.loads(listed.stdout)["requests"][0]["request_id"])


FIGURES = (
    Figure(what="mlflow-unlearn --help", target=0.7, unit="CPU s", measure=lambda: child_cpu(["mlflow-unlearn", "--help"])),
    Figure(what="mlflow-unlearn trace", target=3.0, unit="CPU s", measure=lambda: child_cpu(["mlflow-unlearn", "trace", request_id()])),
    Figure(what="torch imported by trace", target=0.0, unit="times", measure=torch_in_trace),
    Figure(what="mlflow-unlearn index with nothing new", target=1.0, unit="CPU s", measure=lambda: child_cpu(["mlflow-unlearn", "index"])),
    Figure(what="dvc repro with nothing to do", target=8.0, unit="s", measure=lambda: wall(["dvc", "repro", "-q"])),
)


MODULES = ("record_index", "registry_scale", "commitments", "guard", "run_context")


def rows_of(module: str) -> list[tuple[str, float, str, float]]:
    """(what, target, unit, measured) of one module; `at least` at the end of a unit makes a lower limit; 0 there, or infinity, is no promise."""
    code = f"import json, sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import {module}; print(json.dumps({module}.measure()))"
    env = environment() | {"POLARS_MAX_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True, check=True)
    return [(what, target, unit, measured) for what, target, unit, measured in json.loads(done.stdout.splitlines()[-1])]


def shown(row: tuple[str, float, str, float]) -> bool:
    """Print a row; whether it holds."""
    what, target, unit, measured = row
    least = unit.endswith(", at least")
    held = measured >= target if least else measured <= target
    unit = unit.removesuffix(", at least")
    promised = 0 < target < float("inf") or (not least and target == 0)
    bound = f"{'>=' if least else '<='} {target:g} {unit}" if promised else "none"
    print(f"{what} | {bound} | {measured:.3g} {unit} | {('ok' if held else 'short') if promised else 'told'}", flush=True)
    return held


def main() -> None:
    """Measure and print."""
    if not (DEMO / "build/registered.json").exists():
        subprocess.run([sys.executable, PROJECT / "pipelines/demo.py"], env=environment(), check=True)
    print("what | target | measured | ok")
    held = [shown((figure.what, figure.target, figure.unit, figure.measure())) for figure in FIGURES]
    held += [shown(row) for module in MODULES for row in rows_of(module)]
    sys.exit(0 if all(held) else 1)


if __name__ == "__main__":
    main()
