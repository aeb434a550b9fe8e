"""What `guard` does, as functions from arguments to JSON-ready documents, and the git hook that runs it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..digests import write_atomically
from ..documents import encode
from ..errors import ConfigError, DataError
from ..guard import GuardedFile, guard, summed
from ..stages.guarding import Watch, data_files, data_paths, guarded, watch
from ..stages.workbench import Workbench

if TYPE_CHECKING:
    from ..adapters.schemas import Schema

BEGIN, END = "# >>> mlflow-unlearn guard", "# <<< mlflow-unlearn guard"
HOOK = """{begin} {folder} (runs when a DVC tracking file is staged)
git diff --cached --quiet --diff-filter=ACMRT -- ':(top,glob)**/dvc.lock' ':(top,glob)**/*.dvc' || mlflow-unlearn guard --folder {folder} || exit 1
{end}
"""
_SHELLS = frozenset(("sh", "bash", "dash", "ash", "ksh", "zsh"))


def guard_files(folder: Path, paths: Sequence[Path] = ()) -> dict[str, Any]:
    """Check files, or the configured dataset and the files beside it, against everything erased.

    Args:
        folder: where params.yaml lies.
        paths: files or folders of any dataset; rows are read with the columns of the dataset they lie in, else of the main one.

    Raises:
        ConfigError: no params.yaml, no tag key, or no ledger.
        LedgerError: the ledger does not answer.
    """
    bench = Workbench(folder)
    _refuse_without_ledger(bench)
    watched = watch(bench)
    problems = list(watched.problems)
    asked = [(path, _schema_of(bench, path)) for path in paths] or data_paths(bench)
    files = guard(_read(bench, watched, asked, problems), watched.graves, watched.thresholds) if watched.tombstones else ()
    report = summed(files, watched.tombstones.values(), problems)
    return {"answer": report.answer, "complete": report.complete, **encode(report)}


def install_hook(folder: Path) -> dict[str, Any]:
    """Add the guard to the pre-commit hook of this clone, before what is there; repeating it changes nothing.

    Raises:
        ConfigError: the hook there is a link or no shell script, so that only its owner can add the guard.
    """
    bench = Workbench(folder)
    root = bench.settings.root
    path = _hook(root)
    before = path.read_bytes().decode(errors="surrogateescape") if path.exists() else "#!/bin/sh\n"
    if path.is_symlink() or not _is_shell(before):
        raise ConfigError(f"{path}: not a plain shell script; add `mlflow-unlearn guard --folder {folder}` to it, or use .pre-commit-hooks.yaml")
    place = shlex.quote(bench.folder.resolve().relative_to(root.resolve()).as_posix())
    first, _, rest = _without_own(before, place).partition("\n")
    after = f"{first}\n{HOOK.format(begin=BEGIN, end=END, folder=place)}{rest}"
    if not path.exists() or after != before:
        write_atomically(path, after.encode(errors="surrogateescape"))
    path.chmod(0o755)
    return {"hook": str(path), "ledger": bench.ledger.place, "tombstones": _count(bench)}


def _count(bench: Workbench) -> int:
    return summed((), bench.ledger.tombstones().values(), ()).tombstones


def _hook(root: Path) -> Path:
    from ..adapters.git_history import GitHistory

    return root / GitHistory(root).run("rev-parse", "--git-path", "hooks/pre-commit").decode().strip()  # worktrees and core.hooksPath included


def _without_own(text: str, place: str) -> str:
    """The hook without the lines of this folder; another project of the repository keeps its own."""
    return re.sub(rf"^{re.escape(f'{BEGIN} {place} ')}.*?^{re.escape(END)}\n", "", text, flags=re.MULTILINE | re.DOTALL)


def _is_shell(text: str) -> bool:
    first = text.partition("\n")[0]
    return first.startswith("#!") and not _SHELLS.isdisjoint(re.split(r"[/\s]+", first))


def _refuse_without_ledger(bench: Workbench) -> None:
    """An empty ledger made on the spot would call everything clean."""
    scheme, _, path = bench.settings.ledger_uri.partition(":///")
    if scheme.startswith("sqlite") and path and not Path(path).exists():
        raise ConfigError(
            f"{path}: no ledger here, so that nobody can say what was erased; set MLFLOW_UNLEARN_LEDGER_URI to the ledger of this project, "
            "or run `mlflow-unlearn status` if nothing was ever asked"
        )


def _schema_of(bench: Workbench, path: Path) -> Schema:
    inside = [schema for place, schema in data_paths(bench) if path.resolve().is_relative_to(place.resolve())]
    return inside[0] if inside else bench.schema


def _read(bench: Workbench, watched: Watch, asked: Sequence[tuple[Path, Schema]], problems: list[str]) -> Iterator[GuardedFile]:
    """Each file; what cannot be read is a problem and not a reason to stop."""
    for path, schema in asked:
        files = [file for file in data_files(path) if file.suffix != ".dvc" and file.name not in ("dvc.yaml", "dvc.lock")]
        if not files:
            problems.append(f"{_name(bench, path)}: no data file there; run `dvc checkout`, or correct params.yaml")
        for file in files:
            try:
                yield guarded(watched, _name(bench, file), file, schema)
            except (DataError, OSError) as error:
                problems.append(
                    str(error) if isinstance(error, DataError) else f"{_name(bench, file)}: {error.strerror}; restore it with `dvc checkout`"
                )


def _name(bench: Workbench, path: Path) -> str:
    """Relative to the repository where it lies inside."""
    root, place = bench.settings.root.resolve(), path.absolute()
    inside = place.parent.resolve() / place.name  # links of DVC's cache keep their name
    return inside.relative_to(root).as_posix() if inside.is_relative_to(root) else path.as_posix()
