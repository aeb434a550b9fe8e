"""Data that a training script reads: which DVC output at which commit of which repository, and its bytes again wherever somebody asks."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from ..errors import ConfigError, LineageError, StoreError, TamperedError
from .dvc_history import TrackingHistory
from .dvc_locks import TrackedOutput
from .dvc_project import DvcProject
from .git_history import GitHistory
from .git_state import ROOT_COMMIT, Git, Place, place_of, public_url
from .workspace_digest import digest_of, md5_of
from .workspace_outputs import Owned, output_in, owned


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """One state of an output under DVC, or a part of it."""

    path: str
    """Of the output, relative to the git root; without git to the folder that holds `.dvc`."""
    md5: str
    """DVC's digest of the whole output, which is what DVC's history knows."""
    rev: str | None = None
    """Full id of the commit; None where there is none."""
    repo: str | None = None
    """Where to fetch it from when it is not of the current repository: a URL without credentials, or a folder of this machine."""
    repository: str | None = None
    """What the repository is called wherever it is cloned (`Git.identity`)."""
    dirty: bool = False
    """Whether `rev` does not hold these bytes at `path`: they were changed, or not committed yet."""
    part: str | None = None
    """What was read of the output, relative to it; None for all of it."""


def training_data(path: str, rev: str | None = None, repo: str | None = None) -> TrainingData:
    """What lies at a path now, or what DVC recorded for it at a revision.

    Args:
        path: relative to the current folder, or to the root of `repo`.
        rev: revision to look at; default: the workspace, or the newest commit of a `repo` that is not on this machine.
        repo: another repository: a folder of this machine or a URL that git can clone.

    Raises:
        ConfigError: the path lies in no repository with DVC.
        LineageError: DVC does not track it there, or there is no such revision; the data are not here and nothing was recorded.
        StoreError: git or a tracking file cannot be read.
    """
    if repo is not None and not Path(repo).is_dir():
        with _clone(repo) as root:
            return _recorded(Git(root), path, rev or "HEAD", repo)
    full = Path(os.path.abspath(Path(repo or "", path)))  # noqa: PTH100 - links stay: DVC may link an output into its cache
    place = place_of(full.parent)
    if place is None:
        raise ConfigError(f"{path}: not inside a git repository with DVC; run `git init` and `dvc init` there first")
    inside = full.relative_to(place.top).as_posix()
    if rev is None:
        return _in_workspace(place, inside, repo)
    if place.git is None:
        raise LineageError(f"{path}: no git repository here, so there is no revision to read; leave out rev, or clone the repository with git")
    return _recorded(Git(place.git), inside, rev, repo)


def load(data: TrainingData, folder: Path) -> None:
    """Write the files of this very state into an empty folder: from the current repository, else from the one it came from.

    A single file goes by its own name, those of a directory by their paths in it.

    Raises:
        StoreError: nobody has the bytes; says where they were sought.
        TamperedError: the bytes that were found are others than the digest names, or the description leads out of the data.
    """
    if data.part is not None and (PurePosixPath(data.part).is_absolute() or ".." in PurePosixPath(data.part).parts):
        raise TamperedError(f"{data.path}: its part leads out of it; do not use this description")
    sought = []
    for name, way in _ways(data):
        try:
            way(data, folder)
        except (ConfigError, LineageError, StoreError) as error:
            sought.append(f"{name}: {error}")
        else:
            return
    raise StoreError(f"{data.path}: these bytes ({data.md5[:8]}) are not at hand; sought in {'; '.join(sought) or 'no repository at all'}")


def _in_workspace(place: Place, inside: str, repo: str | None) -> TrainingData:
    git = Git(place.git) if place.git else None
    found = owned(place, inside, git)
    commit = git.state().commit if git else None
    md5 = _md5_now(place, found)
    return TrainingData(
        path=found.output.path,
        md5=md5,
        rev=commit,
        repo=_location(repo),
        repository=git.identity() if git else None,
        dirty=git is None or commit is None or md5 != _committed(place.top, git, commit, found),
        part=found.part,
    )


def _md5_now(place: Place, found: Owned) -> str:
    """Digest of the output as it lies here; the recorded one where nothing of it does, or where the part that was read is as recorded."""
    whole, recorded = place.top / found.output.path, found.output.md5
    if found.part is not None and _part_is_as_recorded(place, found):
        return recorded
    md5 = digest_of(whole, place.dvc)
    if md5 not in (None, recorded) and found.unified_ends and digest_of(whole, place.dvc, unified_ends=True) == recorded:
        return recorded
    return md5 or recorded


def _part_is_as_recorded(place: Place, found: Owned) -> bool:
    """So that one file of a dataset of which nothing else was pulled still leads to the dataset."""
    base, part = place.top / found.output.path, str(found.part)
    try:
        listed = DvcProject(place.top, place.dvc).files(found.output.md5)
    except StoreError:
        listed = ()
    files = {base / relpath: md5 for relpath, md5 in listed if relpath == part or relpath.startswith(f"{part}/")}
    here = {each for each in (base / part, *(base / part).rglob("*")) if each.is_file()}
    if not files and not here:
        raise LineageError(f"{found.output.path}: neither here nor as recorded does it hold {part}; check the path, or run `dvc pull`")
    return not here or (files.keys() == here and all(md5_of(file, unified_ends=found.unified_ends) == md5 for file, md5 in files.items()))


def _committed(top: Path, git: Git, commit: str, found: Owned) -> str | None:
    """md5 that the commit records for the output."""
    owner, path = found.output.owner, found.output.path
    content = git.ask("cat-file", "blob", f"{commit}:{owner}", accept=(0, 128))
    if content == found.content:
        return found.output.md5
    try:
        there = output_in(top, owner, content, path) if content else None
    except StoreError:
        return None
    return there.output.md5 if there and there.part is None else None


def _recorded(git: Git, path: str, rev: str, repo: str | None) -> TrainingData:
    history = GitHistory(git.root)
    commit = history.commit(rev)
    if commit is None:
        raise LineageError(f"revision '{rev}': not in this repository; run `git fetch --tags` or name a branch, tag or commit")
    output, part = _tracked(TrackingHistory(history), path, commit, rev)
    repository = (public_url(repo) if repo and not Path(repo).is_dir() else None) or git.identity()
    return TrainingData(path=output.path, md5=output.md5, rev=commit, repo=_location(repo), repository=repository, part=part)


def _tracked(history: TrackingHistory, path: str, commit: str, rev: str) -> tuple[TrackedOutput, str | None]:
    snapshot = history.at(commit)
    path = PurePosixPath(path).as_posix()
    for candidate in (path, *map(str, PurePosixPath(path).parents)):
        found = snapshot.output(candidate)
        if found is not None:
            return found, PurePosixPath(path).relative_to(candidate).as_posix() if candidate != path else None
    unread = "".join(f"; {file} cannot be read there: {problem}" for file, problem in snapshot.unread.items())
    raise LineageError(f"{path}: not a DVC output at {rev}; check path and revision{unread}")


def _location(repo: str | None) -> str | None:
    """`repo` as it may be written down."""
    if repo is None:
        return None
    return str(Path(repo).absolute()) if Path(repo).is_dir() else public_url(repo) or repo


@contextmanager
def _clone(url: str) -> Iterator[Path]:
    """The whole history of a repository, without its files, as long as it is needed."""
    with tempfile.TemporaryDirectory(prefix="mlflow-unlearn-") as folder:
        environment = os.environ | {"GIT_TERMINAL_PROMPT": "0"}
        command = ["git", "clone", "--quiet", "--bare", "--", url, folder]
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if done.returncode != 0:
            raise StoreError(
                f"{public_url(url) or 'repo'}: git cannot clone it; check the address and that git may read it without a password prompt"
            )
        yield Path(folder)


def _ways(data: TrainingData) -> Iterator[tuple[str, Callable[[TrainingData, Path], None]]]:
    """Where the bytes may be, the nearest first."""
    folders = {"the current repository": Path.cwd(), **({data.repo: Path(data.repo)} if data.repo and Path(data.repo).is_dir() else {})}
    for name, start in folders.items():
        if (place := place_of(start)) is not None:
            yield name, partial(_from_project, place)
    for url in dict.fromkeys(filter(None, (data.repo, data.repository))):
        if data.rev and url not in folders and _is_address(url):
            yield url, partial(_from_url, url)


def _is_address(url: str) -> bool:
    """Whether git may be sent there: MLflow's record of a source is anybody's word."""
    return not url.startswith(("-", ROOT_COMMIT)) and (url.startswith("file://") or public_url(url) is not None)


def _from_project(place: Place, data: TrainingData, folder: Path) -> None:
    """By digest, whatever the revision: from the cache, else through DVC from a remote."""
    project = DvcProject(place.top, place.dvc)
    files = [(_target(data, relpath), md5) for relpath, md5 in project.files(data.md5) if _is_wanted(data, relpath)]
    if data.part and not files:
        raise LineageError(f"{data.part}: not in this state of {data.path}; check the part")
    project.prefetch([md5 for _, md5 in files])
    for target, md5, cached in [(target, md5, project.local_path(md5)) for target, md5 in files]:
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(cached, folder / target)
        if md5 not in (md5_of(folder / target), md5_of(folder / target, unified_ends=True)):
            raise TamperedError(f"{data.path}: object {md5[:8]} in DVC's cache is not what its name says; remove it there, then `dvc fetch`")


def _is_wanted(data: TrainingData, relpath: str) -> bool:
    return data.part is None or relpath == data.part or relpath.startswith(f"{data.part}/")


def _target(data: TrainingData, relpath: str) -> str:
    if data.part is None:
        return relpath or PurePosixPath(data.path).name
    return PurePosixPath(data.part).name if relpath == data.part else relpath.removeprefix(f"{data.part}/")


def _from_url(url: str, data: TrainingData, folder: Path) -> None:
    """Through DVC, at the commit."""
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException
    from scmrepo.exceptions import SCMError

    with tempfile.TemporaryDirectory(prefix="mlflow-unlearn-", dir=folder) as aside:
        whole = Path(aside, PurePosixPath(data.path).name)
        try:
            DVCFileSystem(url, rev=data.rev).get(data.path, str(whole), recursive=data.md5.endswith(".dir"))
        except (DvcException, SCMError, OSError) as error:
            raise StoreError(f"DVC cannot read it there ({type(error).__name__}); check the address, and `dvc push` where the data are") from None
        if data.md5 not in (digest_of(whole, whole), digest_of(whole, whole, unified_ends=True)):
            raise TamperedError(f"{data.path}: the bytes from {url} are not those of {data.md5[:8]}; ask its owner what became of them")
        _move(whole / data.part if data.part else whole, folder)


def _move(found: Path, folder: Path) -> None:
    for each in [found] if found.is_file() else list(found.iterdir()):
        shutil.move(each, folder / each.name)
