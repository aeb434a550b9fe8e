"""Git and DVC around one repository: every state a dataset ever had, and its bytes, without checking anything out.

Listing states reads tracking files with git's plumbing alone; DVC itself is imported only to fetch bytes that its cache lacks and to commit.
"""

from __future__ import annotations

import configparser
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ..digests import write_atomically
from ..errors import LineageError, StoreError
from ..lineage import DatasetRevision
from .dvc_locks import Parsed, TrackedOutput, is_tracking_file, outputs, parse
from .git_history import GitHistory, blob_id, run

if TYPE_CHECKING:
    from dvc.repo import Repo

WORKSPACE = "workspace"
_PATTERNS = ("*.dvc", "dvc.lock", "dvc.yaml")
_EMPTY: Parsed = {}


@dataclass(frozen=True)
class DvcProject:
    """A Git repository with DVC set up at its root."""

    root: Path

    def __post_init__(self) -> None:
        if not (self.root / ".dvc").is_dir():
            raise StoreError(f"{self.root}: DVC is not set up here; run `dvc init`")

    def dataset_states(self, name: str, path: str) -> tuple[DatasetRevision, ...]:
        """Every state of the DVC output at `path` (relative to the git root) over all commits of all refs, and the workspace.

        A committed tracking file that cannot be parsed hides its states, which leaves what was trained on them unknown, never clear.

        Returns:
            One entry an md5, sorted; `revisions` are branches, tags and experiments that hold it, or short commits where none does, and `workspace`.

        Raises:
            StoreError: a tracking file of the workspace is not YAML.
        """
        tips = self.git.tips()
        commits: dict[str, set[str]] = {}
        names: dict[str, set[str]] = {}
        for revision, found in self._history(path).items():
            (names if revision in tips else commits).setdefault(found.md5, set()).add(tips.get(revision, revision[:8]))
        current = self._in_workspace(path)
        here = {current.md5} if current else set()
        self._keep_parses()
        return tuple(
            DatasetRevision(name=name, path=path, md5=md5, revisions=_labels(names.get(md5) or commits.get(md5, set()), md5 in here))
            for md5 in sorted({*names, *commits, *here})
        )

    def current_state(self, name: str, path: str) -> DatasetRevision:
        """The state that the workspace's tracking files record.

        Raises:
            LineageError: DVC does not track `path`.
            StoreError: a tracking file is not YAML.
        """
        return DatasetRevision(name=name, path=path, md5=self._owned(path).md5, revisions=(WORKSPACE,))

    def output_at(self, path: str, revision: str) -> TrackedOutput | None:
        """The output at `path` in a git revision or in the `workspace`; None when DVC does not track it there.

        Raises:
            LineageError: there is no such revision.
        """
        if revision == WORKSPACE:
            return self._in_workspace(path)
        commit = self._commit(revision)
        listed = self.git.run("ls-tree", "-r", "-z", "--name-only", commit).decode(errors="surrogateescape").split("\0")
        return self._outputs_at([commit], [file for file in listed if is_tracking_file(file)], path).get(commit)

    def beside(self, path: str, state: DatasetRevision) -> str | None:
        """md5 of another output (hold-out, canaries, ...) beside a dataset state: in the oldest commit that holds both, else in the workspace.

        Names in `state.revisions` are not trusted: a branch moves on, a pinned state does not.
        """
        siblings = self._history(path)
        for revision, found in self._history(state.path).items():
            if found.md5 == state.md5 and revision in siblings:
                return siblings[revision].md5
        current, sibling = self._in_workspace(state.path), self._in_workspace(path)
        return sibling.md5 if sibling and current and current.md5 == state.md5 else None

    def git_show(self, revision: str, path: str) -> bytes | None:
        """A git-tracked file at a revision; None when it is not in it."""
        blob = self.git.blobs([revision], [path])[revision].get(path)
        return self.git.contents([blob])[blob] if blob else None

    def files(self, md5: str) -> tuple[tuple[str, str], ...]:
        """(relative path, file md5) of every file in an output; a single file has the empty path.

        Raises:
            StoreError: neither the cache nor the remote holds the list.
        """
        if not md5.endswith(".dir"):
            return (("", md5),)
        return tuple((entry["relpath"], entry["md5"]) for entry in json.loads(self.local_path(md5).read_bytes()))

    def local_path(self, md5: str) -> Path:
        """Where DVC's cache holds an object, fetched from the default remote when it is missing. The file is the cache's own: read only.

        Raises:
            StoreError: neither the cache nor the remote holds it.
        """
        self.prefetch([md5])
        path = next((p for p in self._places(md5) if p.exists()), None)
        if path is None:
            raise StoreError(f"object {md5[:8]}: neither DVC's cache nor its remote holds it; run `dvc push` where the data still are")
        return path

    def prefetch(self, md5s: Iterable[str]) -> None:
        """Bring objects that the cache lacks from the default remote, all at once; what the remote lacks too stays missing.

        Raises:
            StoreError: the remote is not configured or does not answer.
        """
        missing = [md5 for md5 in md5s if not any(path.exists() for path in self._places(md5))]
        if missing:
            self._pull([md5 for md5 in missing if not Path(self._repo.cache.local.oid_to_path(md5)).exists()])

    def commit_output(self, path: str, message: str | None = None) -> None:
        """Record the workspace bytes of an output as its new state, in DVC and in a git commit of its tracking file alone.

        Raises:
            LineageError: DVC does not track `path`.
            StoreError: dvc or git refuses.
        """
        owner = self._owned(path)
        target = f"{owner.owner.removesuffix('dvc.lock')}dvc.yaml:{owner.stage}" if owner.stage else owner.owner
        run(self.root, sys.executable, "-m", "dvc", "commit", "-q", "-f", target)
        if self.git.run("status", "--porcelain", "--", owner.owner):
            self.git.run("add", "--", owner.owner)
            self.git.run("commit", "-q", "-m", message or f"New revision of {path}", "--", owner.owner)

    def head(self) -> str | None:
        """The current commit; None before the first."""
        answer = self.git.run("cat-file", "--batch-check=%(objectname)", stdin=b"HEAD^{commit}\n").decode().split()
        return answer[0] if len(answer) == 1 else None

    def is_dirty(self) -> bool:
        """Whether tracked files differ from the current commit."""
        return bool(self.git.run("status", "--porcelain", "--untracked-files=no"))

    @cached_property
    def git(self) -> GitHistory:
        """The repository's history."""
        return GitHistory(self.root)

    def _commit(self, revision: str) -> str:
        answer = self.git.run("cat-file", "--batch-check=%(objectname)", stdin=f"{revision}^{{commit}}\n".encode()).decode().split()
        if len(answer) != 1:
            raise LineageError(f"revision '{revision}': not in this repository; run `git fetch --tags` or name a branch, tag or commit")
        return answer[0]

    def _owned(self, path: str) -> TrackedOutput:
        found = self._in_workspace(path)
        if found is not None:
            return found
        around = next((o.path for o in outputs(self._workspace()) if path.startswith(f"{o.path}/")), None)
        hint = f"it lies inside the output {around}, name that" if around else f"run `dvc add {path}` or name the output of a stage"
        raise LineageError(f"{path}: not a DVC output here; {hint} (data.path in params.yaml)")

    def _history(self, path: str) -> dict[str, TrackedOutput]:
        """Commit or full ref name -> the output there: commits oldest first, then the tips."""
        commits, files = self.git.changes(_PATTERNS)
        return self._outputs_at([*commits, *self.git.tips()], [file for file in files if is_tracking_file(file)], path)

    def _outputs_at(self, revisions: list[str], files: list[str], path: str) -> dict[str, TrackedOutput]:
        found = self.git.blobs(revisions, files)
        self._parse_blobs({blob: file for blobs in found.values() for file, blob in blobs.items()})
        placed: dict[str, TrackedOutput] = {}
        for revision, blobs in found.items():
            parsed = {file: self._parses[_kind(file) + blob] for file, blob in blobs.items()}
            output = next((each for each in outputs(parsed) if each.path == path), None)
            if output is not None:
                placed[revision] = output
        return placed

    def _parse_blobs(self, blobs: Mapping[str, str]) -> None:
        new = {blob: file for blob, file in blobs.items() if _kind(file) + blob not in self._parses}
        contents = self.git.contents(new) if new else {}
        for blob, file in new.items():
            try:
                self._parses[_kind(file) + blob] = parse(file, contents[blob], file)
            except StoreError:
                self._parses[_kind(file) + blob] = _EMPTY

    def _in_workspace(self, path: str) -> TrackedOutput | None:
        return next((output for output in outputs(self._workspace()) if output.path == path), None)

    def _workspace(self) -> dict[str, Parsed]:
        parsed = {}
        for file, content in self._workspace_files():
            key = _kind(file) + blob_id(content)
            kept = self._parses.get(key)
            parsed[file] = self._parses[key] = kept or parse(file, content, file)
        return parsed

    def _workspace_files(self) -> Iterator[tuple[str, bytes]]:
        globs = [f":(glob)**/{pattern}" for pattern in _PATTERNS]
        listed = self.git.run("ls-files", "-z", "-co", "--exclude-standard", "--", *globs).decode(errors="surrogateescape").split("\0")
        for file in dict.fromkeys(listed):
            if file and is_tracking_file(file) and (self.root / file).is_file():
                yield file, (self.root / file).read_bytes()

    @cached_property
    def _parses(self) -> dict[str, Parsed]:
        """Kind and git object id -> what the file says; the id names the bytes, so nothing here can go stale."""
        try:
            return dict(json.loads(self._parses_file.read_bytes()))
        except (OSError, ValueError):
            return {}

    @property
    def _parses_file(self) -> Path:
        return self.root / ".unlearn/index/locks.json"

    def _keep_parses(self) -> None:
        content = json.dumps(self._parses).encode()
        if (self.root / ".unlearn").is_dir() and not (self._parses_file.exists() and self._parses_file.read_bytes() == content):
            write_atomically(self._parses_file, content)

    def _places(self, md5: str) -> tuple[Path, ...]:
        """Where the cache may hold an object: DVC 3's layout, DVC 2's, and where DVC itself says, once it is loaded (a user-wide cache.dir)."""
        named = (Path(self._repo.cache.local.oid_to_path(md5)),) if "_repo" in self.__dict__ else ()
        return self._cache / "files/md5" / md5[:2] / md5[2:], self._cache / md5[:2] / md5[2:], *named

    @cached_property
    def _cache(self) -> Path:
        found = self.root / ".dvc/cache"
        for file in (self.root / ".dvc/config", self.root / ".dvc/config.local"):
            config = configparser.ConfigParser(strict=False, interpolation=None)
            config.read(file)
            found = (file.parent / config["cache"]["dir"]) if config.has_option("cache", "dir") else found
        return found

    @cached_property
    def _repo(self) -> Repo:
        from dvc.repo import Repo

        return Repo(str(self.root))

    def _pull(self, md5s: Iterable[str]) -> None:
        from dvc.exceptions import DvcException
        from dvc_data.hashfile.hash_info import HashInfo

        wanted = [HashInfo("md5", md5) for md5 in md5s]
        if not wanted:
            return
        try:
            self._repo.cloud.pull(wanted)
        except (DvcException, OSError) as error:
            said = (str(error).splitlines() or [type(error).__name__])[0]
            raise StoreError(f"object {wanted[0].value[:8]}: not in DVC's cache, and its remote does not answer ({said})") from error


def _labels(names: set[str], here: bool) -> tuple[str, ...]:
    return tuple(sorted(names | ({WORKSPACE} if here else set())))


def _kind(file: str) -> str:
    """`dvc.yaml:` or the like: equal bytes in files of different kinds say different things."""
    name = file.rsplit("/", 1)[-1]
    return f"{name if name in ('dvc.lock', 'dvc.yaml') else '.dvc'}:"
