"""What a model's files look like from outside: a digest of their listing that changes whenever one of them does, and costs no reading.

On disk that is path, size, mtime, ctime and inode: size and mtime alone can be put back after a change, ctime and inode cannot. On S3 it is key,
size, ETag, time, and the version where the bucket keeps them.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlparse

from ..errors import StoreError, TamperedError
from .storage_locations import object_repository

RACY_S = 2.0
"""A file that changed so recently may change again within the same tick of the clock that stamps files (FAT: 2 s), and look the same."""
_SILENT = frozenset(
    getattr(errno, name)
    for name in (
        *("EIO", "ESTALE", "ETIMEDOUT", "EREMOTEIO", "EBUSY", "EINTR", "EAGAIN", "ENODEV", "ENXIO", "ENOLCK", "EKEYEXPIRED"),
        *("ENOTCONN", "ECONNREFUSED", "ECONNRESET", "ECONNABORTED", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH"),
        *("ENOMEM", "EMFILE", "ENFILE"),
    )
    if hasattr(errno, name)
)
"""What a failing disk says, on this machine or behind a network, and a process without room. Nobody who may only write files brings that about."""


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The files of a location."""

    fingerprint: str
    """Hex SHA-256 of the sorted listing."""
    files: int
    bytes: int
    newest: float
    """When the last change was stamped, seconds of Unix time."""

    @property
    def racy(self) -> bool:
        """Whether a change right now might leave the fingerprint as it is; so does a clock that is ahead of ours."""
        return self.newest > time.time() - RACY_S


def fingerprint(direct_uri: str) -> str:
    """The fingerprint of a listing; see `listing`."""
    return listing(direct_uri).fingerprint


def listing(direct_uri: str) -> Listing:
    """List all files of a location.

    Args:
        direct_uri: `file:///...` or `s3://bucket/key`, as `Storage.direct` gives it.

    Raises:
        StoreError: the location is not there or does not answer.
        ConfigError: boto3 is not installed.
        TamperedError: something lies there that is no file of a model, or that a disk which is well cannot look at: somebody put it there.
    """
    if direct_uri.startswith("s3:"):
        return _listed(list(_objects(direct_uri)))
    root = unquote(urlparse(direct_uri).path)
    try:
        return _listed(list(_files(root)))
    except OSError as error:
        what, where = errno.errorcode.get(error.errno or 0, type(error).__name__), str(error.filename or root)
        if (error.errno == errno.ENOENT and where == root) or (error.errno in _SILENT and not os.path.islink(where)):  # noqa: PTH114 - raises nothing
            raise StoreError(f"{direct_uri}: cannot be listed ({what}); look whether the model's files are still there") from error
        words = "expected the files of a model that the server may read, and nothing else; log the model again"
        raise TamperedError(f"{direct_uri}{where.removeprefix(root)[:200]}: cannot be looked at ({what}), {words}") from error


_Row = tuple[str, int, float, tuple[Any, ...]]
"""Path, bytes, time of the last change, and whatever else changes with the contents."""


def _listed(rows: list[_Row]) -> Listing:
    rows.sort()
    digest = hashlib.sha256(json.dumps(rows, ensure_ascii=True, separators=(",", ":")).encode())
    newest = max((row[2] for row in rows), default=0.0)
    return Listing(fingerprint=digest.hexdigest(), files=len(rows), bytes=sum(row[1] for row in rows), newest=newest)


def _files(root: str) -> Iterator[_Row]:
    """Folder by folder, without one of them open while another is read, so that no number of folders in one another is too many."""
    folders = [(root, "")]
    while folders:
        folder, prefix = folders.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append((entry.path, f"{prefix}{entry.name}/"))
                else:
                    yield _row(prefix + entry.name, entry)


def _row(path: str, entry: os.DirEntry[str]) -> _Row:
    """Links to files are followed, as they are when a model is hashed; linked folders and special files are refused, as they are then."""
    if not entry.is_file():
        raise TamperedError(f"{entry.path}: neither a file nor a folder of the model, expected nothing else there; log the model again")
    stat = entry.stat()
    newest = max(stat.st_mtime_ns, stat.st_ctime_ns)
    return path, stat.st_size, newest / 1e9, (stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)


def _objects(uri: str) -> Iterator[_Row]:
    repository = object_repository(uri)
    bucket, key = repository.parse_s3_compliant_uri(uri)
    prefix = key.rstrip("/") + "/" if key else ""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        for entry in _entries(repository, bucket, prefix):
            stamp = entry["LastModified"].timestamp()
            yield entry["Key"][len(prefix) :], entry["Size"], stamp, (entry["ETag"], entry.get("VersionId", ""))
    except (BotoCoreError, ClientError) as error:
        raise StoreError(f"{uri}: cannot be listed ({type(error).__name__}); look at the server's access to the bucket") from error


def _entries(repository: Any, bucket: str, prefix: str) -> Iterator[dict[str, Any]]:
    """Pages of 1,000, the most that S3 gives."""
    client, owner = repository._get_s3_client(), repository._bucket_owner_params
    versioned = _keeps_versions(client, bucket, owner)
    question = "list_object_versions" if versioned else "list_objects_v2"
    for page in client.get_paginator(question).paginate(Bucket=bucket, Prefix=prefix, **owner):
        yield from (each for each in page.get("Versions", []) if each["IsLatest"]) if versioned else page.get("Contents", [])


def _keeps_versions(client: Any, bucket: str, owner: dict[str, str]) -> bool:
    """A server that may not ask goes without: ETag, size and time tell as well."""
    from botocore.exceptions import ClientError

    try:
        return client.get_bucket_versioning(Bucket=bucket, **owner).get("Status") == "Enabled"  # type: ignore[no-any-return]
    except ClientError as error:
        if error.response["Error"]["Code"] in ("AccessDenied", "MethodNotAllowed", "NotImplemented"):
            return False
        raise
