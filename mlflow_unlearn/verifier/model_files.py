"""The model as the subject of a statement: every file by its digest, and its tensors."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .documents import RefusedError, UndecidedError, read_json, whole
from .envelopes import Statement

WRITTEN_BY_MLFLOW = "registered_model_meta"
"""A file that MLflow adds at the root of what it downloads; it is not a part of the model."""

Tell = Callable[[int, int], None]
"""Called with the bytes hashed so far, and all that are to be hashed."""


def subject_of(folder: Path, tell: Tell = lambda _done, _all: None) -> list[dict[str, Any]]:
    """A model as a subject: every file by its sha256, and first the whole: the digests one after the other, and its tensors.

    Files are hashed side by side, the tensors beside them; every byte of weights is read twice.
    """
    names = _files(folder)
    weights = [names[name] for name in sorted(names) if name.endswith(".safetensors")]
    count = _Count(tell=tell, total=sum(path.stat().st_size for path in (*names.values(), *weights)))
    largest_first = sorted(names, key=lambda name: -names[name].stat().st_size)
    with ThreadPoolExecutor(max_workers=max(2, min(8, os.cpu_count() or 2))) as pool:
        tensors = pool.submit(tensor_digest, weights, count) if weights else None
        hashed = dict(zip(largest_first, pool.map(lambda name: _sha256(_pieces(names[name], count)), largest_first), strict=True))
        whole = {"sha256": _sha256(bytes.fromhex(hashed[name]) for name in sorted(hashed))}
        whole |= {} if tensors is None else {"tensors": tensors.result()}
    return [{"name": ".", "digest": whole}, *({"name": name, "digest": {"sha256": hashed[name]}} for name in sorted(hashed))]


def _files(folder: Path) -> dict[str, Path]:
    """Every file by its path below the folder. Nothing may lie there that is read and not hashed: what a linked folder holds would be."""
    names = {}
    for path in folder.rglob("*"):
        if path.is_file():
            names[path.relative_to(folder).as_posix()] = path
        elif path.is_symlink() or not path.is_dir():
            raise RefusedError(f"{path}: neither a file nor a folder of the model")
    names.pop(WRITTEN_BY_MLFLOW, None)
    if not names:
        raise UndecidedError(f"{folder}: no model there")
    return names


@dataclass
class _Count:
    tell: Tell
    total: int
    done: int = 0

    def add(self, size: int) -> None:
        self.done += size
        self.tell(self.done, self.total)


def _sha256(pieces: Iterable[bytes | memoryview]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def _pieces(path: Path, count: _Count, start: int = 0, size: int | None = None) -> Iterator[memoryview]:
    """A file, or so many bytes of it, in pieces that are overwritten by the next."""
    left = path.stat().st_size - start if size is None else size
    buffer = memoryview(bytearray(min(max(left, 1), 1 << 20)))
    with path.open("rb", buffering=0) as stream:
        stream.seek(start)
        while left:
            if not (got := stream.readinto(buffer[: min(left, len(buffer))])):
                raise RefusedError(f"{path}: ends before its last tensor; the model was cut short")
            left -= got
            count.add(got)
            yield buffer[:got]


def tensor_digest(paths: Iterable[Path], count: _Count | None = None) -> str:
    """sha256 over (name, dtype, shape, bytes) of every tensor in safetensors files, by name: equal weights, equal digests, however they are filed."""
    count, digest = count or _Count(tell=lambda _done, _all: None, total=0), hashlib.sha256()
    for name, dtype, shape, file, start, held in sorted((each for path in paths for each in _tensors(path)), key=lambda each: each[0]):
        digest.update(json.dumps([name, dtype, shape, held], separators=(",", ":"), ensure_ascii=False).encode() + b"\n")
        for piece in _pieces(file, count, start, held):
            digest.update(piece)
    return digest.hexdigest()


def _tensors(path: Path) -> Iterator[tuple[str, str, list[int], Path, int, int]]:
    with path.open("rb") as stream:
        prefix = stream.read(8)
        size = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        raw = stream.read(size) if 0 < size < 100 << 20 else b""
    try:
        room = path.stat().st_size - 8 - size
        for name, entry in read_json(raw, str(path)).items():
            if name != "__metadata__":
                start, held = _extent(entry["data_offsets"], room)
                yield name, entry["dtype"], entry["shape"], path, 8 + size + start, held
    except (ValueError, KeyError, TypeError, AttributeError):
        raise RefusedError(f"{path}: not a safetensors file; the model was cut short or replaced") from None


def _extent(offsets: list[int], room: int) -> tuple[int, int]:
    """Where a tensor begins and how many bytes it has, if these are whole numbers, in order and inside the file."""
    start, stop = map(whole, offsets)
    if not start <= stop <= room:
        raise ValueError("offsets outside the file")
    return start, stop - start


def check_model(statement: Statement, folder: Path, tell: Tell = lambda _done, _all: None) -> None:
    """That a folder is the subject of a statement, file by file: nothing changed, nothing missing, nothing beside it."""
    check_subject(statement, subject_of(folder, tell), str(folder))


def check_subject(statement: Statement, subject: list[dict[str, Any]], where: str) -> None:
    """The same of files that were hashed already."""
    stated, found = ({each.get("name"): each.get("digest") for each in digests} for digests in (statement.subject, subject))
    if stated == found and len(stated) == len(statement.subject):
        return
    differing = sorted(str(name) for name in stated.keys() | found.keys() if name != "." and stated.get(name) != found.get(name))
    told = ", ".join(differing[:6]) + (f" and {len(differing) - 6} more" if len(differing) > 6 else "") or "the digest of the whole"
    raise RefusedError(f"{where}: not the model of the {statement.kind.split('/')[-2]}: {told} changed, missing or added")
