"""DVC's md5 of a file or directory as it lies here, without DVC: the bytes decide, not what was recorded or cached about them.

DVC itself is imported only where a `.dvcignore` has patterns, and for data that DVC 2 added, whose text files were hashed with unified line ends.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..errors import LineageError

IGNORE_FILE = ".dvcignore"
_IGNORED = frozenset({".git", ".hg", ".dvc"})
"""What DVC leaves out by itself."""
_THREADS = 8
"""Hashing leaves the interpreter to others, so that a large dataset does not make training wait for one core."""


def digest_of(path: Path, project: Path, *, unified_ends: bool = False) -> str | None:
    """DVC's md5 of what lies at a path, with `.dir` for a directory; None when nothing does.

    Args:
        path: the output in the workspace.
        project: the folder that holds `.dvc`; `.dvcignore` files from there on count.
        unified_ends: as DVC 2 did, which took CRLF for LF in text files.

    Raises:
        LineageError: a file cannot be read, or the directory holds a `.dvcignore`, with which DVC tracks none.
    """
    try:
        if path.is_file():
            return md5_of(path, unified_ends=unified_ends)
        return _listing_digest(_hashed(path, _files(path, project), unified_ends)) if path.is_dir() else None
    except OSError as error:
        raise LineageError(f"{path.name}: a file in it cannot be read ({error.strerror}); restore it with `dvc checkout`") from None


def md5_of(path: Path, *, unified_ends: bool = False) -> str:
    """md5 of one file."""
    if unified_ends:
        from dvc_data.hashfile.hash import file_md5

        return str(file_md5(str(path), name="md5-dos2unix"))
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _listing_digest(files: Iterable[tuple[str, str]]) -> str:
    """DVC's digest of a directory, of (path relative to it, md5) of each file."""
    listing = json.dumps([{"md5": md5, "relpath": relpath} for relpath, md5 in sorted(files)])
    return hashlib.md5(listing.encode(), usedforsecurity=False).hexdigest() + ".dir"


def _hashed(folder: Path, files: Iterator[Path], unified_ends: bool) -> list[tuple[str, str]]:
    listed = list(files)
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as threads:
        digests = threads.map(lambda file: md5_of(file, unified_ends=unified_ends), listed)
        return [(file.relative_to(folder).as_posix(), md5) for file, md5 in zip(listed, digests, strict=True)]


def _files(folder: Path, project: Path) -> Iterator[Path]:
    """What DVC would track of a folder. It follows links to files and not to folders."""
    for base, folders, names in _walk(folder, project):
        if IGNORE_FILE in names:
            raise LineageError(f"{folder.name}: holds a {IGNORE_FILE}, and DVC tracks no such folder; move it above")
        folders.sort()
        yield from (Path(base, name) for name in names)


def _walk(folder: Path, project: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    above = [each for each in (folder, *folder.parents) if each == project or project in each.parents]
    if any(_has_patterns(each / IGNORE_FILE) for each in above if each != folder):
        from dvc.fs import localfs
        from dvc.ignore import DvcIgnoreFilter

        yield from DvcIgnoreFilter(localfs, str(project)).walk(localfs, str(folder))
        return
    for base, folders, names in os.walk(folder, onerror=_unreadable):
        folders[:] = [name for name in folders if name not in _IGNORED and not Path(base, name, ".dvc").exists()]
        yield base, folders, [name for name in names if name != ".git"]


def _has_patterns(file: Path) -> bool:
    """Whether it says anything; `dvc init` writes one of comments alone."""
    try:
        lines = file.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return False
    return any(line.strip() and not line.startswith("#") for line in lines)


def _unreadable(error: OSError) -> None:
    raise error
