"""Where the bytes of an object are: DVC's cache, a directory that is or was a remote, else brought in through DVC.

What a plain directory hands out is checked against its name before anyone reads it: nobody else vouches for a remote of an old revision.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from ..errors import StoreError
from .dvc_history import TrackingHistory
from .dvc_locks import MD5, Import
from .dvc_remotes import Remotes, cache_folder, remotes

if TYPE_CHECKING:
    from .dvc_downloads import Downloads

_CHUNK = 2**20  # bytes; DVC 2 unified line ends chunk by chunk of this size


class DvcObjects:
    """The objects of one DVC project, by md5."""

    def __init__(self, project: Path, history: TrackingHistory) -> None:
        self.project = project
        self.history = history
        self._sound: set[Path] = set()
        self._wrong: set[Path] = set()
        self._asked: set[str] = set()
        self._complaints: dict[str, None] = {}

    def path(self, md5: str) -> Path | None:
        """Where an object lies on this machine; None when it does not. Not to be written to.

        A list of files, and anything in a remote directory, counts only if its bytes are what its name says.

        Raises:
            StoreError: `md5` is no md5.
        """
        if not MD5.fullmatch(md5):
            raise StoreError(f"object {md5[:8]}: not an md5 as DVC writes it (32 hexadecimal digits, and .dir for a directory)")
        cached = (path for path in self._cached(md5) if path.is_file() and (not md5.endswith(".dir") or self._is_sound(path, md5)))
        return next(cached, None) or next((path for path in self._in_directories(md5) if path.is_file() and self._is_sound(path, md5)), None)

    def find(self, md5: str) -> Path:
        """Where an object lies, brought to this machine if need be.

        Raises:
            StoreError: nobody holds it, or it is not what its name says; the message says what could not be asked.
        """
        self.fetch([md5])
        path = self.path(md5)
        if path is None:
            raise StoreError(f"object {md5[:8]}: {self._why_gone(md5)}")
        return path

    def files(self, md5: str) -> tuple[tuple[str, str], ...]:
        """(relative path, md5) of every file in an output; a single file has the empty path.

        Raises:
            StoreError: the list is nowhere, or is not one.
        """
        return _listed(md5, self.find(md5)) if md5.endswith(".dir") else (("", md5),)

    def listing(self, md5: str) -> tuple[tuple[str, str], ...]:
        """The files of a directory if its list is on this machine; nothing where it is not, or is no such list."""
        path = self.path(md5)
        try:
            return _listed(md5, path) if path else ()
        except StoreError:
            return ()

    def fetch(self, md5s: Iterable[str]) -> None:
        """Bring objects that are not on this machine, all at once: from remotes, then from the repositories they were imported from.

        What nobody has stays missing, and is not asked for twice.
        """
        missing = self._missing(set(md5s) - self._asked)
        if not missing:
            return
        self._asked |= missing
        for remote in (*self.remotes.here, *self.remotes.past):
            if remote.directory is None and missing:
                self._heard(self._downloads.pull(remote, missing))
                missing = self._missing(missing)
            elif remote.directory is not None and not remote.directory.is_dir():
                self._heard(f"{remote.name}: its folder is not there")
        if missing:
            self._heard(*self._downloads.pull_user_wide({remote.name for remote in self.remotes.here}, missing))
        for each in self._imports_of(self._missing(missing)):
            self._heard(self._downloads.take(each, self._near(each)))

    @cached_property
    def remotes(self) -> Remotes:
        """Every remote that any revision names."""
        return remotes(self.history.git, self.project)

    @cached_property
    def _downloads(self) -> Downloads:
        from .dvc_downloads import Downloads  # local: loads DVC

        return Downloads(self.project)

    @cached_property
    def _cache(self) -> Path:
        return cache_folder(self.project / ".dvc")

    def _cached(self, md5: str) -> Iterator[Path]:
        """Where caches may hold it: DVC 3's layout, DVC 2's, where DVC itself says (a user-wide cache.dir), and other projects of this repository."""
        yield from _layouts(self._cache, md5)
        if "_downloads" in self.__dict__:
            yield from self._downloads.cached(md5)
        for folder in self.remotes.folders[1:]:
            yield from _layouts(cache_folder(folder), md5)

    def _in_directories(self, md5: str) -> Iterator[Path]:
        for remote in (*self.remotes.here, *self.remotes.past):
            if remote.directory is not None:
                yield from _layouts(remote.directory, md5)

    def _missing(self, md5s: Iterable[str]) -> set[str]:
        return {md5 for md5 in md5s if self.path(md5) is None}

    def _is_sound(self, path: Path, md5: str) -> bool:
        if path not in self._sound:
            (self._sound if is_sound(path, md5) else self._wrong).add(path)
        return path in self._sound

    def _imports_of(self, missing: set[str]) -> list[Import]:
        imports = self.history.imports() if missing else ()
        return [each for each in imports if each.md5 in missing or (each.md5.endswith(".dir") and self._lists(each.md5, missing))]

    def _lists(self, md5: str, wanted: set[str]) -> bool:
        return any(each in wanted for _, each in self.listing(md5))

    def _near(self, each: Import) -> list[Path]:
        """Folders that a relative URL may count from."""
        return [self.project, (self.history.git.root / each.owner).parent, self.history.git.root]

    def _heard(self, *complaints: str | None) -> None:
        self._complaints |= dict.fromkeys(filter(None, complaints))

    def _why_gone(self, md5: str) -> str:
        if any(path in self._wrong for path in (*self._cached(md5), *self._in_directories(md5))):
            return "what is kept under this name has other bytes, and nobody holds the right ones; restore it, then run `dvc push`"
        if md5 in self.history.cloud():
            return "it lies in a cloud-versioned remote, which is not supported yet; pull it with DVC and `dvc push` it to a plain remote"
        unasked = "; ".join([*self._complaints, *(f"{file}: not readable at some revision" for file in self.remotes.unread)])
        hint = "run `dvc push` where the data still are" + (f" (could not be asked: {unasked})" if unasked else "")
        return f"neither DVC's cache nor a remote of any revision gave it; {hint}"


def is_sound(path: Path, md5: str) -> bool:
    """Whether a file's bytes have this md5, as DVC 3 counts it or as DVC 2 did (text with Windows line ends as if it had Unix ones)."""
    plain, unified = hashlib.md5(usedforsecurity=False), hashlib.md5(usedforsecurity=False)
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            plain.update(chunk)
            unified.update(chunk.replace(b"\r\n", b"\n"))
    return md5.removesuffix(".dir") in (plain.hexdigest(), unified.hexdigest())


def _layouts(folder: Path, md5: str) -> tuple[Path, Path]:
    return folder / "files/md5" / md5[:2] / md5[2:], folder / md5[:2] / md5[2:]


def _listed(md5: str, path: Path) -> tuple[tuple[str, str], ...]:
    try:
        found = tuple((str(entry["relpath"]), str(entry["md5"])) for entry in json.loads(path.read_bytes()))
    except (ValueError, KeyError, TypeError):
        raise StoreError(f"object {md5[:8]}: not a list of files as DVC writes it; run `dvc fetch` for it again") from None
    for relpath, _ in found:
        if PurePosixPath(relpath).is_absolute() or ".." in PurePosixPath(relpath).parts:
            raise StoreError(f"object {md5[:8]}: lists a file outside its own directory; do not use this dataset")
    return found
