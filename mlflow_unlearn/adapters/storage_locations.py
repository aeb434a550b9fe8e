"""Where a model's files lie, in one spelling, however a client named them: by MLflow's proxy, by a path, with links, dots or percent signs in it.

Every spelling is read as MLflow's own repositories read it, since another reading would guard one file and serve another. What MLflow would read in
two ways, depending on who asks, is refused.
"""

from __future__ import annotations

import os
import posixpath
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from ..errors import ConfigError, LineageError, StoreError

GUARDED = "unlearn-"
"""Before the scheme of an artifacts destination whose files the gate guards."""
OWN_SCHEME = f"only this server itself names locations by {GUARDED}, its artifacts destination and what lies below; name another place"
PROXIED = "mlflow-artifacts"
_ROUTE = "/api/2.0/mlflow-artifacts/artifacts/"
_OBJECTS = "s3://"
_DECODINGS = 10
"""As often as MLflow takes the percent signs out of a path before it gives up."""
_HINT = "register the model from where MLflow logged it"


@dataclass(frozen=True)
class Storage:
    """The artifact store of a server, and whatever else its registry points at."""

    tracking_uri: str
    destination: str | None
    """The server's artifacts destination: a path, file:, s3:, or one of these with `unlearn-` before it; None where it serves no files."""

    def canonical(self, uri: str) -> str:
        """The one spelling of a location.

        Returns:
            `mlflow-artifacts:/...` below the destination, else `file:///...` or `s3://bucket/key`.

        Raises:
            LineageError: no such location, or one that can be read in two ways.
        """
        place = self.place(uri)
        below = self.inside(place)
        return f"{PROXIED}:/{below}" if below is not None and _speakable(below) else _uri(place)

    def direct(self, uri: str) -> str:
        """Where the bytes are: `file:///...` or `s3://bucket/key`.

        Raises:
            LineageError: no such location, or one that can be read in two ways.
            StoreError: the location is behind a server, and this process does not know where that keeps its files.
        """
        place = self.place(uri)
        if place.startswith(f"{PROXIED}:"):
            raise StoreError(f"{uri}: lies behind MLflow's server, and no artifacts destination is set here; start it with --artifacts-destination")
        return _uri(place)

    def relative(self, uri: str) -> str | None:
        """The path below the destination; None for what lies elsewhere.

        Raises:
            LineageError: no such location, or one that can be read in two ways.
        """
        return self.inside(self.place(uri))

    def place(self, uri: str) -> str:
        """The location without any quoting, as keys of the guard have it: an absolute path without links, or `s3://bucket/key`.

        Raises:
            LineageError: no such location, or one that can be read in two ways.
        """
        scheme = _scheme(uri)
        if scheme in ("", "file"):
            return _local(uri)
        if scheme == "s3":
            return object_place(uri)
        if scheme in (PROXIED, "http", "https"):
            return self.below(_proxied_path(uri))
        if scheme in ("models", "runs"):
            raise LineageError(f"{uri}: names a model and no place; look up where its files lie first")
        if scheme.startswith(GUARDED):
            raise LineageError(f"{uri}: {OWN_SCHEME}")
        raise LineageError(f"{uri}: the gate reads files on disk (file:), on S3 (s3:) and behind MLflow's server (mlflow-artifacts:); {_HINT}")

    def below(self, path: str) -> str:
        """The place of a path below the destination, which has no percent signs left to take out.

        Raises:
            LineageError: it leads out of the destination, or can be read in two ways.
        """
        if self.root is None:
            return f"{PROXIED}:/{_joined('', path)}"
        return place_below(self.root, path)

    @cached_property
    def root(self) -> str | None:
        """The place of the destination."""
        if self.destination is None:
            return None
        uri = self.destination.removeprefix(GUARDED)
        if _scheme(uri) not in ("", "file", "s3"):
            raise ConfigError(f"artifacts destination {self.destination}: expected a path, unlearn-file:///PATH or unlearn-s3://BUCKET/PREFIX")
        return object_place(uri) if _scheme(uri) == "s3" else _local(uri)

    @contextmanager
    def folder(self, uri: str) -> Iterator[Path]:
        """The files as a folder on this machine: itself, or a copy that is removed afterwards.

        Raises:
            LineageError: no such location, or one that can be read in two ways.
            StoreError: the store does not answer.
        """
        direct = self.direct(uri)
        if not direct.startswith(_OBJECTS):
            yield Path(self.place(uri))
            return
        with tempfile.TemporaryDirectory(prefix="unlearn-model-") as where:
            self._download(direct, where)
            yield Path(where)

    def repository(self, uri: str) -> Any:
        """MLflow's own repository on the files themselves: what the gate reads for itself, it does not stop.

        Raises:
            LineageError: no such location, or one that can be read in two ways.
            StoreError: the location is behind a server, and this process does not know where that keeps its files.
            ConfigError: boto3 is not installed.
        """
        direct = self.direct(uri)
        if direct.startswith(_OBJECTS):
            return object_repository(direct)
        from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

        return LocalArtifactRepository(direct, tracking_uri=self.tracking_uri)

    def _download(self, direct: str, where: str) -> None:
        repository = object_repository(direct)
        from botocore.exceptions import BotoCoreError, ClientError
        from mlflow.exceptions import MlflowException

        try:
            repository.download_artifacts("", where)
        except (MlflowException, BotoCoreError, ClientError) as error:
            raise StoreError(f"{direct}: cannot be downloaded ({type(error).__name__}); look at the server's access to the bucket") from error

    def inside(self, place: str) -> str | None:
        """The path of a place below the destination; None for one elsewhere."""
        if self.root is None:
            return place.removeprefix(f"{PROXIED}:/") if place.startswith(f"{PROXIED}:/") else None
        if place == self.root:
            return ""
        above = self.root.rstrip("/") + "/"
        return place[len(above) :] if place.startswith(above) else None


def elsewhere(uri: str) -> bool:
    """Whether a location is in a store of which the gate knows nothing but the name, or names a model; not where it cannot be read."""
    try:
        scheme = _scheme(uri)
    except LineageError:
        return False
    if scheme in ("http", "https"):
        return _ROUTE not in uri
    return scheme not in ("", "file", "s3", PROXIED) and not scheme.startswith(GUARDED)


def place_below(root: str, path: str) -> str:
    """The place of a path below another place.

    Raises:
        LineageError: it leads out of there, or can be read in two ways.
    """
    if root.startswith(_OBJECTS):
        return f"{root}/{_segments(path)}" if path.strip("/") else root
    place = os.path.realpath(f"{root}/{_joined(root, path)}")
    if place != root and not place.startswith(root.rstrip("/") + "/"):
        raise LineageError(f"{path}: leads out of the folder that the server keeps its files in; name a path below it")
    return place


def object_place(uri: str) -> str:
    """`s3://bucket/key`, spelled as the store knows it: keys have no dots, no links and nothing to decode.

    Raises:
        LineageError: the key can be read in two ways.
    """
    bucket, _, key = uri.removeprefix(_OBJECTS).partition("/")
    if not uri.startswith(_OBJECTS) or not bucket or "?" in uri or "#" in uri:
        raise LineageError(f"{uri}: expected s3://BUCKET/KEY without a query or a fragment; {_HINT}")
    return f"{_OBJECTS}{bucket}/{_segments(key)}" if key.strip("/") else f"{_OBJECTS}{bucket}"


def object_repository(uri: str) -> Any:
    """MLflow's own repository on S3.

    Raises:
        ConfigError: boto3 is not installed.
    """
    try:
        import boto3  # noqa: F401 - MLflow imports it when it is too late for words
    except ImportError:
        raise ConfigError(f'{uri}: reading S3 needs boto3; run `pip install "mlflow-unlearn[s3]"`') from None
    from mlflow.store.artifact.s3_artifact_repo import S3ArtifactRepository

    return S3ArtifactRepository(uri)


def unquoted(path: str) -> str:
    """A path without percent signs that still mean something, as MLflow's server takes them out: again and again.

    Raises:
        LineageError: they do not end.
    """
    for _ in range(_DECODINGS):
        if (decoded := unquote(path)) == path:
            return path
        path = decoded
    raise LineageError("a path with percent signs within percent signs; write it plainly")


def _uri(place: str) -> str:
    return Path(place).as_uri() if place.startswith("/") else place


def _scheme(uri: str) -> str:
    """As MLflow chooses the repository; a scheme that its repositories would understand differently is refused."""
    if _controls(uri) or uri[:1].isspace():
        raise LineageError(f"{uri!r}: a location has no control characters and does not begin with a space; {_HINT}")
    try:
        scheme = urlparse(uri).scheme
    except ValueError:
        raise LineageError(f"{uri}: no location that can be read; {_HINT}") from None
    if not uri.startswith(scheme):
        raise LineageError(f"{uri}: expected the scheme in small letters; {_HINT}")
    return "" if len(scheme) == 1 else scheme


def _local(uri: str) -> str:
    if uri.startswith("file:"):
        parsed = urlparse(uri)
        if parsed.query or parsed.fragment or parsed.netloc not in ("", "localhost"):
            raise LineageError(f"{uri}: expected file:///PATH without a host, a query or a fragment; {_HINT}")
        uri = parsed.path
    path = unquote(uri)
    if not path or _controls(path):
        raise LineageError(f"{path!r}: expected a path without control characters; {_HINT}")
    real = os.path.realpath(path)
    try:
        real.encode()
    except UnicodeEncodeError:
        raise LineageError(f"{real!r}: the name is not UTF-8, MLflow cannot reach it; rename it") from None
    return real


def _proxied_path(uri: str) -> str:
    """As MLflow's server finds the path below its destination."""
    parsed = urlparse(uri)
    if parsed.query or parsed.fragment or parsed.params:
        raise LineageError(f"{uri}: expected a location without a query or a fragment; {_HINT}")
    path = parsed.path
    if parsed.scheme != PROXIED:
        _, route, path = path.partition(_ROUTE)
        if not route or _ROUTE in path:
            raise LineageError(f"{uri}: expected .../api/2.0/mlflow-artifacts/artifacts/PATH; {_HINT}")
    return unquoted(path)


def _joined(root: str, path: str) -> str:
    """A path below a folder without dots, as MLflow takes them out: by their letters, before links are followed."""
    normal = posixpath.normpath(path.lstrip("/") or ".")
    if normal == ".." or normal.startswith("../") or _controls(normal):
        raise LineageError(f"{path!r}: leads out of {root or 'the artifacts of the server'}; name a path below it")
    return "" if normal == "." else normal


def _segments(key: str) -> str:
    segments = key.strip("/").split("/")
    if {"", ".", ".."} & set(segments) or _controls(key) or "?" in key or "#" in key:
        raise LineageError(f"{key!r}: a key on S3 with an empty or dotted part, a query or a fragment can be read in two ways; {_HINT}")
    return "/".join(segments)


def _speakable(path: str) -> bool:
    """Whether MLflow's server finds the path again by its name."""
    return not _controls(path) and "?" not in path and "#" not in path and unquote(path) == path


def _controls(text: str) -> bool:
    return any(ord(each) < 32 or ord(each) == 127 for each in text)
