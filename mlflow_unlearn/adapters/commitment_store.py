"""Commitment keys, and trees of leaves, on disk: what an absence proof needs long after the data are gone. Private to the machine, never in git.

A key lives until `rotate` destroys it. What was committed to under it stays committed to but can no longer be proven, because nobody can compute the
leaf of an id any more; that is how pseudonymous leaves end. Overwriting a file in place does not reach copies that a file system, a disk or
a backup keeps by itself.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path
from urllib.parse import quote

from ..commitments import KEY_BYTES, Commitment, key_id, read_key
from ..errors import ConfigError, StoreError
from ..verifier.merkle import LOWEST, WIDTH, Buffer, Tree, widths

_MAGIC = b"unlearn-merkle/1"
_HEADER = len(_MAGIC) + 8 + WIDTH


@dataclass(frozen=True, kw_only=True)
class CommitmentStore:
    """The key of one dataset and the trees made with it."""

    folder: Path
    dataset: str

    @property
    def key_file(self) -> Path:
        """Where the key is, mode 0600."""
        return self.folder / f"{quote(self.dataset, safe='')}.key"

    def key(self) -> bytes:
        """The key, made on first use; of two who make it at once both get the same."""
        self._destroy_retired()
        if not self.key_file.exists():
            with _private_file(self.key_file, [os.urandom(KEY_BYTES)]) as aside, suppress(FileExistsError):  # another was quicker
                os.link(aside, self.key_file)  # unlike a file that is being filled, never seen half written
        key = read_key(self.key_file)
        if self.key_file.stat().st_mode & 0o077:
            raise ConfigError(f"{self.key_file}: others may read the commitment key; run `chmod 600 {self.key_file}`")
        return key

    def rotate(self) -> tuple[str, str]:
        """Destroy the key with every tree made with it and make a new one; ids of the old key and of the new one.

        A kill in between leaves the old key on its way out, and the next use finishes it.
        """
        old = key_id(self.key())
        self.key_file.replace(self._retired)
        self._destroy_retired()
        return old, key_id(self.key())

    def disclose(self, target: Path) -> str:
        """Write the key for an auditor, mode 0600; its id.

        Raises:
            ConfigError: something is there already.
        """
        key = self.key()
        try:
            handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise ConfigError(f"{target}: there is a file already; name another one") from None
        with os.fdopen(handle, "wb") as stream:
            stream.write(key)
        return key_id(key)

    def keep(self, name: str | None, leaves: Buffer, key: bytes) -> Tree:
        """Build the tree of sorted, distinct leaves made with this key, and store it under a name, or under its root.

        Raises:
            StoreError: the key was rotated meanwhile.
        """
        tree = Tree.build(leaves)
        path = self._path(name or tree.head.root.hex(), key)
        header = _MAGIC + tree.size.to_bytes(8) + tree.head.root
        with _private_file(path, [header, leaves, *tree.levels]) as aside:
            aside.replace(path)
        if self.key() != key:
            path.unlink(missing_ok=True)
            raise StoreError(f"{self.key_file}: rotated while leaves were made with the old key; run again")
        return tree

    def find(self, name: str, key: bytes) -> Tree | None:
        """A stored tree, read from disk where a proof needs it; None when it is not there or was cut short or changed."""
        try:
            with self._path(name, key).open("rb") as stream:
                kept = memoryview(mmap(stream.fileno(), 0, access=ACCESS_READ))
        except (FileNotFoundError, ValueError):  # an empty file cannot be mapped
            return None
        size = int.from_bytes(kept[len(_MAGIC) : len(_MAGIC) + 8])
        counts = [size, *widths(size)[LOWEST:]]
        if bytes(kept[: len(_MAGIC)]) != _MAGIC or len(kept) != _HEADER + WIDTH * sum(counts):
            return None
        leaves, *levels = _cut(kept[_HEADER:], counts)
        tree = Tree(leaves, levels)
        return tree if tree.head.root == kept[_HEADER - WIDTH : _HEADER] else None

    def _path(self, name: str, key: bytes) -> Path:
        return self._trees / key_id(key) / f"{quote(name, safe='')}.tree"

    @property
    def _trees(self) -> Path:
        return self.folder / f"{quote(self.dataset, safe='')}.trees"

    @property
    def _retired(self) -> Path:
        return self.key_file.with_suffix(".destroyed")

    def _destroy_retired(self) -> None:
        """Trees first: while the retired key is readable, it is known which have to go. Two may be at it."""
        with suppress(FileNotFoundError):
            trees = self._trees / key_id(self._retired.read_bytes())
            if trees.exists():
                shutil.rmtree(trees)
            with self._retired.open("r+b") as stream:
                stream.write(bytes(KEY_BYTES))
                stream.flush()
                os.fsync(stream.fileno())
            self._retired.unlink()


def lost(about: str, commitment: Commitment, key: bytes) -> StoreError:
    """Why a commitment cannot be proven here."""
    if commitment.key_id != key_id(key):
        return StoreError(
            f"{about}: committed to under key {commitment.key_id}, the key here is {key_id(key)}; "
            "prove it where it was registered, unless a rotation destroyed that key: then nothing about it can be proven any more"
        )
    return StoreError(f"{about}: its leaves are not on this machine; restore .unlearn/commitments from where it was registered")


@contextmanager
def _private_file(target: Path, pieces: Iterable[Buffer]) -> Iterator[Path]:
    """A whole file, mode 0600, beside its target; gone afterwards unless it was moved there."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            for piece in pieces:
                stream.write(piece)
            stream.flush()
            os.fsync(stream.fileno())
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _cut(kept: memoryview, counts: list[int]) -> Iterator[memoryview]:
    start = 0
    for count in counts:
        yield kept[start : start + WIDTH * count]
        start += WIDTH * count
