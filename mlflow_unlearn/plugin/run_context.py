"""MLflow run-context provider: git commit, clean or dirty, repository, DVC stage and the configured dataset's md5, as tags on every run.

It never raises, waits half a second for git at most and never slows `import mlflow`: what cannot be read becomes a tag that says so. MLflow puts the
tags on logged models too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow.tracking.context.abstract_context import RunContextProvider

if TYPE_CHECKING:
    from ..adapters.git_state import Git, Place

PROBLEM = "unlearn.lineage.problem"
_LENGTH = 250  # characters of a problem that are kept; MLflow allows more, and nobody reads them
_CONFIGURED = ("data", "unlearn")
"""Keys that make a params.yaml one of this project; `data` alone is everybody's word."""
_NO_GIT = "git: no repository around this DVC project, so the commit is not known; train in a clone, or copy .git into the image"
_SHAPE = "params.yaml or a file of DVC does not have the shape that is expected; run `dvc status`"


class DvcRunContext(RunContextProvider):  # type: ignore[misc]  # MLflow has no types
    """Tags runs that MLflow's fluent API starts; the DVC stages assert their lineage themselves and do not rely on it."""

    def in_context(self) -> bool:
        """Whether the current folder lies in a DVC project."""
        return _place() is not None

    def tags(self) -> dict[str, str]:
        """The tags that can be read, and what went wrong with the others."""
        place = _place()
        if place is None:
            return {}
        from ..adapters.git_state import Git

        git = Git.within(place.git) if place.git else None
        found: dict[str, str] = {}
        problems = [_NO_GIT] if git is None else []
        for read in (_commit, _repository, _stage, _datasets):
            problem = _problem(place, lambda read=read: found.update(read(place, git)))  # type: ignore[misc]
            problems += [problem] if problem and problem not in problems else []
        return found | ({PROBLEM: "; ".join(problems)[:_LENGTH]} if problems else {})


def _place() -> Place | None:
    try:
        from ..adapters.git_state import place_of

        return place_of(Path.cwd())
    except (OSError, ValueError, ImportError, RuntimeError):
        return None


def _problem(place: Place, read: Callable[[], None]) -> str | None:
    """What keeps one kind of tags from being read, in one line without folders of this machine."""
    from subprocess import SubprocessError

    from ..errors import UnlearnError

    try:
        read()
    except UnlearnError as error:
        return (str(error).replace(f"{place.top}{os.sep}", "").splitlines() or [type(error).__name__])[0]
    except OSError as error:
        return f"a file cannot be read ({error.strerror or type(error).__name__}); check its permissions"
    except (SubprocessError, ImportError, MemoryError) as error:
        return f"lineage cannot be read ({type(error).__name__}); run `mlflow-unlearn status` here to see why"
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError, RuntimeError):  # YAML that nobody foresaw
        return _SHAPE
    return None


def _commit(place: Place, git: Git | None) -> dict[str, str]:
    if git is None:
        return {}
    state = git.state()
    return {"unlearn.git.commit": state.commit or "none", "unlearn.git.dirty": str(state.dirty).lower()}


def _repository(place: Place, git: Git | None) -> dict[str, str]:
    identity = git.identity() if git else None
    return {"unlearn.git.repository": identity} if identity else {}


def _stage(place: Place, git: Git | None) -> dict[str, str]:
    """The DVC stage that runs this, with digests of its dvc.yaml and of the params.yaml beside it.

    Not of dvc.lock, where DVC writes this stage's entry only when it has ended.
    """
    stage = os.environ.get("DVC_STAGE")
    if not stage:
        return {}
    from ..digests import sha256_file

    tags = {"unlearn.stage": stage}
    definition = next((file for file in _definitions(place, stage) if file.is_file()), None)
    if definition is not None:
        files = {"definition": definition, "params": definition.with_name("params.yaml")}
        tags |= {f"unlearn.stage.{what}": sha256_file(file) for what, file in files.items() if file.is_file()}
    return tags


def _definitions(place: Place, stage: str) -> Iterator[Path]:
    """Where the stage may be defined: DVC names the file relative to the folder it was started in, which a stage cannot know."""
    file = stage.rpartition(":")[0] or "dvc.yaml"
    yield from (folder / file for folder in (Path.cwd(), place.dvc, place.top))


def _datasets(place: Place, git: Git | None) -> dict[str, str]:
    params = next((folder / "params.yaml" for folder in _folders(place) if _is_ours(folder / "params.yaml")), None)
    if params is None:
        return {}
    from ..adapters.dvc_templates import read_values
    from ..adapters.workspace_outputs import owned
    from ..errors import ConfigError

    data = read_values(params.name, params.read_bytes()).get("data")  # not `config`: to define all its dataclasses takes longer than all of this
    name, path = (data.get("name"), data.get("path")) if isinstance(data, dict) else (None, None)
    if not isinstance(name, str) or not isinstance(path, str):
        raise ConfigError("params.yaml: data: expected a mapping with name and path; run `mlflow-unlearn index` to see every complaint")
    inside = Path(os.path.relpath(params.parent / path, place.top)).as_posix()
    return {f"unlearn.dvc.{name}": owned(place, inside, git).output.md5}


def _folders(place: Place) -> Iterator[Path]:
    """Where params.yaml may be: here, at the top, or where `mlflow-unlearn init` puts it."""
    yield from dict.fromkeys((Path.cwd(), place.dvc, place.top, place.dvc / "unlearn", place.top / "unlearn"))


def _is_ours(file: Path) -> bool:
    try:
        lines = file.read_bytes().splitlines()
    except OSError:
        return False
    return all(any(line.startswith(f"{key}:".encode()) for line in lines) for key in _CONFIGURED)
