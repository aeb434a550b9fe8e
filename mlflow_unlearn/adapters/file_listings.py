"""What a model's files look like from outside: a digest of their listing that changes whenever one of them does, and costs no reading.

On disk that is path, size, mtime, ctime and inode: size and mtime alone can be put back after a change, ctime and inode cannot. On S3 it is key,
size, ETag, time, and the version where the bucket keeps them.
"""

from __future__ import annotations

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
        TamperedError: something lies there that is no file of a model.
    """
    if direct_uri.startswith("s3:"):
        return _listed(list(_objects(direct_uri)))
    try:
        return _listed(list(_files(unquote(urlparse(direct_uri).path))))
    except OSError as error:
        raise StoreError(f"{direct_uri}: cannot be listed ({type(error).__name__}); look whether the model's files are still there") from error


_Row = tuple[str, int, float, tuple[Any, ...]]
"""Path, bytes, time of the last change, and whatever else changes with the contents."""


def _listed(rows: list[_Row]) -> Listing:
    rows.sort()
    digest = hashlib.sha256(json.dumps(rows, ensure_ascii=True, separators=(",", ":")).encode())
    newest = max((row[2] for row in rows), default=0.0)
    return Listing(fingerprint=digest.hexdigest(), files=len(rows), bytes=sum(row[1] for row in rows), newest=newest)


def _files(folder: str, prefix: str = "") -> Iterator[_Row]:
    """Links to files are followed, as they are when a model is hashed; linked folders and special files are refused, as they are then."""
    with os.scandir(folder) as entries:
        for entry in entries:
            path = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                yield from _files(entry.path, path + "/")
            elif entry.is_file():
                stat = entry.stat()
                newest = max(stat.st_mtime_ns, stat.st_ctime_ns)
                yield path, stat.st_size, newest / 1e9, (stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
            else:
                raise TamperedError(f"{entry.path}: neither a file nor a folder of the model, expected nothing else there; log the model again")


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
