"""MLflow run-context provider: git commit, clean or dirty, and the configured dataset's DVC md5, as tags on every run inside a DVC repository.

It never raises and never slows `import mlflow`: what cannot be read becomes a tag that says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mlflow.tracking.context.abstract_context import RunContextProvider

if TYPE_CHECKING:
    from ..adapters.dvc_project import DvcProject

PROBLEM = "unlearn.lineage.problem"


class DvcRunContext(RunContextProvider):
    """Tags runs that MLflow's fluent API starts; the DVC stages assert their lineage themselves and do not rely on it."""

    def in_context(self) -> bool:
        """Whether the current folder lies in a repository with DVC."""
        return _repository() is not None

    def tags(self) -> dict[str, str]:
        """The tags; at worst the problem."""
        root = _repository()
        if root is None:
            return {}
        from ..errors import UnlearnError

        try:
            return _lineage(root)
        except (UnlearnError, OSError, ValueError) as error:
            return {PROBLEM: (str(error).splitlines() or [type(error).__name__])[0][:250]}


def _repository() -> Path | None:
    try:
        here = Path.cwd()
    except OSError:
        return None
    return next((folder for folder in (here, *here.parents) if (folder / ".git").exists() and (folder / ".dvc").is_dir()), None)


def _lineage(root: Path) -> dict[str, str]:
    from ..adapters.dvc_project import DvcProject

    project = DvcProject(root)
    tags = {"unlearn.git.commit": project.head() or "none", "unlearn.git.dirty": str(project.is_dirty()).lower()}
    params = next((folder / "params.yaml" for folder in (Path.cwd(), root) if (folder / "params.yaml").is_file()), None)
    return tags | (_dataset(project, root, params) if params else {})


def _dataset(project: DvcProject, root: Path, params: Path) -> dict[str, str]:
    import os

    from ..config import DataParams, read_yaml
    from ..documents import decode

    section = read_yaml(params).get("data")
    if section is None:
        return {}
    data = decode(DataParams, section, f"{params.name}: data")
    state = project.current_state(data.name, Path(os.path.relpath(params.parent / data.path, root)).as_posix())
    return {f"unlearn.dvc.{data.name}": state.md5}
