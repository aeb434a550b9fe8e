"""`mlflow-unlearn init`: the pipeline of one model beside whatever the repository has, and the tag key. Never overwrites."""

from __future__ import annotations

import os
import re
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from ..config import git_root, settings
from ..digests import create_tag_key, write_atomically
from ..errors import StoreError

_PRIVATE = "# Private state of mlflow-unlearn: tag key, ledger and record index. Nothing here belongs into git or DVC.\n*\n"


def scaffold(folder: Path, model: str | None = None, data: str | None = None) -> dict[str, Any]:
    """Write what is missing.

    Args:
        folder: where the pipeline goes; nothing is written there when the repository's root already runs our stages.
        model: registered model for params.yaml.
        data: DVC-tracked training data, relative to the current folder.

    Returns:
        `created` and `kept` paths relative to the git root, `key` (created | kept), `next` (what to do).

    Raises:
        StoreError: the repository is not under DVC.
    """
    root = git_root(Path.cwd())
    if not (root / ".dvc").is_dir():
        raise StoreError(f"{root}: DVC is not set up here; run `dvc init` first")
    where = settings(root)
    private = _write_missing(where.state / ".gitignore", _PRIVATE)
    key = create_tag_key(where.tag_key_file)
    _ignore_mlflow(root)
    created = [where.state / ".gitignore"] if private else []
    kept: list[Path] = []
    own = root / "dvc.yaml"
    if not (own.exists() and "mlflow-unlearn stage" in own.read_text()):
        for path, content in _templates(folder.resolve(), model, data).items():
            (created if _write_missing(path, content) else kept).append(path)
    return {
        "created": [path.relative_to(root).as_posix() for path in created],
        "kept": [path.relative_to(root).as_posix() for path in kept],
        "key": "created" if key else "kept",
        "key_file": os.path.relpath(where.tag_key_file, root),
        "next": _next_steps(folder, bool(created and len(created) > 1), model and data),
    }


def _templates(folder: Path, model: str | None, data: str | None) -> dict[Path, str]:
    texts = {}
    with as_file(files("mlflow_unlearn") / "scaffold") as source:
        for path in sorted(source.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                name = path.relative_to(source)
                texts[folder / (".gitignore" if name.name == "gitignore" else name)] = path.read_text()
    params = texts[folder / "params.yaml"]
    if model:
        params = params.replace("MODEL", model)
    if data:
        params = params.replace("DATA_NAME", re.sub(r"\W+", "_", Path(data).stem)).replace("DATA_PATH", os.path.relpath(data, folder))
    texts[folder / "params.yaml"] = params
    return texts


def _ignore_mlflow(root: Path) -> None:
    """Keep MLflow's local store, whose weights remember people, out of `git add -A`: in this clone's own exclude file, not in yours."""
    exclude = root / ".git/info/exclude"
    if not (root / ".git").is_dir():  # a worktree or submodule keeps its git folder elsewhere
        return
    before = exclude.read_text() if exclude.exists() else ""
    missing = [line for line in ("/mlflow.db*", "/mlruns/", "/mlartifacts/") if line not in before.splitlines()]
    if missing:
        write_atomically(exclude, (before.rstrip("\n") + "\n" + "\n".join(missing) + "\n").lstrip("\n").encode())


def _write_missing(path: Path, content: str) -> bool:
    if path.exists():
        return False
    write_atomically(path, content.encode())
    return True


def _next_steps(folder: Path, scaffolded: bool, filled: object) -> list[str]:
    if not scaffolded:
        return ["mlflow-unlearn index", "mlflow-unlearn request add --subjects FILE --basis gdpr_17"]
    edit = f"look through {folder}/params.yaml" if filled else f"fill in {folder}/params.yaml: model, data path and columns"
    return [
        edit,
        "back up the tag key: without it no record can be traced again",
        "log the training data from your training script: mlflow.log_input(mlflow.data.from_dvc(PATH))",
        f"cd {folder} && mlflow-unlearn request add --subjects FILE --basis gdpr_17 && dvc repro",
    ]
