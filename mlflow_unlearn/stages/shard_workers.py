"""Shards know nothing of one another, so that several processes may train or replay them side by side: `exact.processes` of params.yaml.

    python -m mlflow_unlearn.stages.shard_workers train 1,3

is such a process. Each shard is written by one process only, whole or not at all.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..errors import UnlearnError
from .launching import end_with_parent
from .workbench import Workbench

Work = Callable[[Workbench, Sequence[int]], None]


def side_by_side(bench: Workbench, what: str, cost: Mapping[int, int], work: Work) -> None:
    """Do some work on shards, dealt out among processes, of which this is one.

    Args:
        bench: the project.
        what: `train` or `replay`, as the other processes are told.
        cost: shard -> records, so that every process has about as much to do.
        work: the same, for this process.

    Raises:
        UnlearnError: one of the others failed; its words are repeated.
    """
    mine, *others = dealt(cost, bench.params.exact.processes if bench.params.exact else 1)
    with _others(bench.folder, what, others):
        work(bench, mine)


def dealt(cost: Mapping[int, int], processes: int) -> list[list[int]]:
    """Shards in at most so many parts of about equal cost, the dearest dealt first; no part is empty but for want of shards."""
    parts: list[list[int]] = [[] for _ in range(max(1, min(processes, len(cost))))]
    spent = [0] * len(parts)
    for shard in sorted(cost, key=lambda shard: (-cost[shard], shard)):
        least = spent.index(min(spent))
        parts[least].append(shard)
        spent[least] += cost[shard]
    return parts


@contextmanager
def _others(folder: Path, what: str, parts: Sequence[Sequence[int]]) -> Iterator[None]:
    """Processes beside this one: waited for at the end, ended when this one fails."""
    with tempfile.TemporaryFile() as said:
        commands = [[sys.executable, "-m", __name__, what, ",".join(map(str, part))] for part in parts]
        running = [subprocess.Popen(each, cwd=folder, stdout=said, stderr=said, preexec_fn=end_with_parent) for each in commands]
        try:
            yield
            failed = sum(process.wait() != 0 for process in running)
        finally:
            for process in running:
                process.terminate()
                process.wait()
        if failed:
            said.seek(0)
            lines = [line.removeprefix("error: ") for line in said.read().decode(errors="replace").splitlines() if line.startswith("error: ")]
            raise UnlearnError("\n".join([f"{failed} of {len(running) + 1} processes failed to {what} shards", *lines]))


def main(what: str, shards: Sequence[int]) -> None:
    """What a process of its own does.

    Raises:
        UnlearnError: as the work itself.
    """
    from .claiming import replay_here
    from .shard_training import train_here

    {"train": train_here, "replay": replay_here}[what](Workbench(), shards)


if __name__ == "__main__":
    try:
        main(sys.argv[1], [int(shard) for shard in sys.argv[2].split(",")])
    except (UnlearnError, OSError) as trouble:
        sys.stderr.write("".join(f"error: {line}\n" for line in str(trouble).splitlines()))
        sys.exit(2)
