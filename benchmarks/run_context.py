"""What the plugin costs those who only train: ms of CPU of a run's start, git's included, and of the import of mlflow.

Modules are compiled beforehand, as they are in any installed package.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "mlflow_unlearn"
LOOKS = 20
STAGES = 1_000
IDENTITY = ("-c", "user.name=Bench", "-c", "user.email=bench@example.org")
TIMED = """
import resource
import mlflow
from mlflow_unlearn.plugin.run_context import DvcRunContext
def cpu():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)
def look():
    return provider.tags() if provider.in_context() else {{}}
provider, started = DvcRunContext(), cpu()
tags = look()
first, started = cpu() - started, cpu()
for _ in range({looks}):
    look()
assert 'unlearn.dvc.customers' in tags and 'unlearn.lineage.problem' not in tags, tags
print(first, (cpu() - started) / {looks})
"""
IMPORTED = """
import sys, time
import mlflow
started = time.process_time()
for name in [name for name in sys.modules if name.startswith('mlflow_unlearn')]:
    del sys.modules[name]
import mlflow_unlearn.plugin.run_context, mlflow_unlearn.plugin.dataset_source, mlflow_unlearn.plugin.dataset_constructor
print(time.process_time() - started)
"""


def repository(root: Path, stages: int) -> None:
    """A project of ours whose data are the output of the last of so many stages."""
    (root / ".dvc").mkdir(parents=True)
    (root / ".dvc/config").write_text("")
    (root / "params.yaml").write_text("unlearn: {}\ndata: {name: customers, path: data/train}\n")
    last = f"  clean:\n    cmd: make\n    outs:\n    - path: data/train\n      hash: md5\n      md5: {'a' * 32}.dir\n      size: 1\n"
    others = "".join(
        f"  stage-{n}:\n    cmd: make\n    deps:\n    - path: in/{n}\n      hash: md5\n      md5: {n:032x}\n    outs:\n    - path: out/{n}\n"
        f"      hash: md5\n      md5: {n:032x}\n"
        for n in range(stages - 1)
    )
    (root / "dvc.yaml").write_text("stages: {clean: {cmd: make, outs: [data/train]}}\n")
    (root / "dvc.lock").write_text(f"schema: '2.0'\nstages:\n{others}{last}")
    for line in (("init", "-q"), ("add", "-A"), ("commit", "-qm", "bench"), ("remote", "add", "origin", "https://example.org/team/data.git")):
        subprocess.run(["git", *IDENTITY, *line], cwd=root, check=True, capture_output=True)


def look(folder: Path, stages: int) -> tuple[float, float]:
    """CPU seconds of the first look of a process, which imports what it needs, and of a later one (mean)."""
    repository(folder / f"{stages}-stages", stages)
    firsts, laters = zip(*(_printed(TIMED.format(looks=LOOKS), folder / f"{stages}-stages") for _ in range(3)), strict=True)
    return min(firsts), min(laters)


def _compiled(folder: Path) -> None:
    """The package beside the repositories, whose runs find it there first."""
    shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(folder / PACKAGE.name)], check=True)


def _printed(code: str, folder: Path) -> tuple[float, ...]:
    environment = os.environ | {"PYTHONPATH": str(folder.parent)}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, text=True, capture_output=True, check=True)
    return tuple(float(word) for word in done.stdout.split())


def measure() -> list[tuple[str, float, str, float]]:
    """(what, target, unit, measured): measured has to stay at or below the target."""
    with tempfile.TemporaryDirectory() as folder:
        _compiled(Path(folder))
        first, later = look(Path(folder), 10)
        first_large, later_large = look(Path(folder), STAGES)
        imported = min(_printed(IMPORTED, Path(folder, f"{STAGES}-stages"))[0] for _ in range(3))
    return [
        ("lineage tags of a run, first of a process", 50, "CPU ms", first * 1000),
        ("lineage tags of a run, later ones (mean)", 50, "CPU ms", later * 1000),
        (f"the same, dvc.lock of {STAGES:,} stages, first", 50, "CPU ms", first_large * 1000),
        (f"the same, dvc.lock of {STAGES:,} stages, later (mean)", 50, "CPU ms", later_large * 1000),
        ("our modules that `import mlflow` loads", 20, "CPU ms", imported * 1000),
    ]


if __name__ == "__main__":
    for what, target, unit, measured in measure():
        print(f"{what} | <= {target:g} {unit} | {measured:.1f} {unit} | {'ok' if measured <= target else 'short'}")
