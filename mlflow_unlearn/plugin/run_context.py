"""MLflow run-context provider: git commit, clean or dirty, and the configured dataset's DVC md5, as tags on every run inside a DVC repository.

It never raises and never slows `import mlflow`: what cannot be read becomes a tag that says so.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow.tracking.context.abstract_context import RunContextProvider

if TYPE_CHECKING:
    from ..adapters.dvc_project import DvcProject

PROBLEM = "unlearn.lineage.problem"


class DvcRunContext(RunContextProvider):  # type: ignore[misc]  # MLflow has no types
    """Tags runs that MLflow's fluent API starts; the DVC stages assert their lineage themselves and do not rely on it."""

    def in_context(self) -> bool:
        """Whether the current folder lies in a repository with DVC."""
        return _repository() is not None

    def tags(self) -> dict[str, str]:
        """The tags that can be read, and what went wrong with the others."""
        root = _repository()
        if root is None:
            return {}
        from ..adapters.dvc_project import DvcProject

        return _readable(lambda: _commit(DvcProject(root))) | _readable(lambda: _datasets(DvcProject(root), root))


def _repository() -> Path | None:
    try:
        here = Path.cwd()
    except OSError:
        return None
    return next((folder for folder in (here, *here.parents) if (folder / ".git").exists() and (folder / ".dvc").is_dir()), None)


def _readable(tags: Callable[[], dict[str, str]]) -> dict[str, str]:
    from subprocess import SubprocessError

    from ..errors import UnlearnError

    try:
        return tags()
    except (UnlearnError, OSError, ValueError, SubprocessError) as error:
        return {PROBLEM: (str(error).splitlines() or [type(error).__name__])[0][:250]}
    except (TypeError, AttributeError, KeyError):  # YAML of a shape that nobody foresaw
        return {PROBLEM: "params.yaml or a file of DVC does not have the shape that is expected; run `dvc status`"}


def _commit(project: DvcProject) -> dict[str, str]:
    return {"unlearn.git.commit": project.head() or "none", "unlearn.git.dirty": str(project.is_dirty()).lower()}


def _datasets(project: DvcProject, root: Path) -> dict[str, str]:
    import os

    from ..config import DataParams, read_yaml
    from ..documents import decode

    params = next((folder / "params.yaml" for folder in (Path.cwd(), root) if (folder / "params.yaml").is_file()), None)
    section = read_yaml(params).get("data") if params else None
    if params is None or section is None:
        return {}
    data = decode(DataParams, section, f"{params.name}: data")
    state = project.current_state(data.name, Path(os.path.relpath(params.parent / data.path, root)).as_posix())
    return {f"unlearn.dvc.{data.name}": state.md5}
