"""Several processes for one stage: it starts copies of itself, which share the model."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..adapters import models
from ..engine.sharding import LAUNCHED_BY, together
from ..engine.worker import Worker
from ..errors import UnlearnError

_PR_SET_PDEATHSIG = 1
"""prctl(2)."""


def launched() -> bool:
    """Whether this process is one of several that were started together."""
    return "RANK" in os.environ


def is_first() -> bool:
    """Whether this process is the one of several that writes and speaks, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def launch(stage: str, processes: int, folder: Path) -> None:
    """Run a stage in several processes of this machine, to its end; only the first one speaks, and all end when one fails.

    Raises:
        UnlearnError: one of them failed; its message stands above.
    """
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-ranks-filter", "0", "--nproc-per-node", str(processes)]
    environment = {name: value for name, value in os.environ.items() if name not in LAUNCHED_BY}
    environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    command = [*launcher, "-m", f"{__package__.split('.')[0]}.cli", "stage", stage]
    done = subprocess.run(command, cwd=folder, env=environment, stdout=sys.stderr, check=False, preexec_fn=end_with_parent)
    if done.returncode:
        raise UnlearnError(f"stage {stage}: one of {processes} processes ended with an error, which stands above; the others were stopped")


def end_with_parent() -> None:
    """Have the system end this process when the one that started it is killed (Linux; elsewhere nothing is done)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@contextmanager
def sharing(device: str) -> Iterator[Callable[[Any], Worker]]:
    """How a model is shared: among the processes that were started together, or not at all; `device` as in params.yaml."""
    if not launched():
        yield Worker
        return
    end_with_parent()  # torchrun's processes outlive a killed torchrun, and would still write the stage's outputs
    with together(models.device(device)) as share:
        yield share
