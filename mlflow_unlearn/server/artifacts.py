"""The server's artifact repositories with a custody before them: MLflow's own for disk and S3, in which models are written once and can be blocked.

A path is taken as MLflow's handlers take it, every percent sign decoded, before anybody judges it: what is judged is what is touched.
Listing stays open: names and sizes.
"""

from __future__ import annotations

import filecmp
import os
import posixpath
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.store.artifact.artifact_repository_registry import _artifact_repository_registry
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from mlflow.store.artifact.s3_artifact_repo import S3ArtifactRepository
from mlflow.tracing.otel.otel_archival import TRACE_ARCHIVAL_FILENAME
from mlflow.tracing.utils.artifact_utils import TRACE_DATA_FILE_NAME

from ..adapters.storage_locations import GUARDED, object_place
from ..errors import LineageError
from .custody import installed
from .path_guard import Guard, named, refuse, there

_EXCLUSIVE = {"IfNoneMatch": "*"}
_TAKEN = ("PreconditionFailed", "ConditionalRequestConflict")
"""What S3 says of a key that is there, or is being written by somebody else."""


class WriteOnceFiles(LocalArtifactRepository):  # type: ignore[misc]  # MLflow has no types
    """Files on disk.

    Args:
        artifact_uri: `file:`, a path, or `unlearn-file:///PATH`.
        tracking_uri: MLflow's.
        registry_uri: MLflow's.
        own: whether it is named by `unlearn-`, and so has to be the server's artifacts destination or lie below it.
    """

    def __init__(self, artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None, *, own: bool = False) -> None:
        super().__init__(artifact_uri.removeprefix(GUARDED) if own else artifact_uri, tracking_uri, registry_uri)
        self._guard = Guard(os.path.realpath(self.artifact_dir), own)

    def get_local_path(self, artifact_path: str) -> str:
        """Where the server finds the file that it streams."""
        return str(super().get_local_path(self._guard.reading(artifact_path)))

    def download_artifacts(self, artifact_path: str, dst_path: str | None = None) -> str:
        """A file or a folder, copied where a folder for it is named."""
        return str(super().download_artifacts(self._guard.reading(artifact_path), dst_path))

    def download_trace_data(self) -> dict[str, Any]:
        """The spans of a trace."""
        self._guard.reading(TRACE_DATA_FILE_NAME)
        return dict(super().download_trace_data())

    def list_artifacts(self, path: str | None = None) -> list[Any]:
        """Names and sizes."""
        return list(super().list_artifacts(self._guard.listing(path)))

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        """A file or a folder, for good."""
        super().delete_artifacts(self._guard.deleting(artifact_path))

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        """Every file of a folder, one by one."""
        for path in sorted(Path(local_dir).rglob("*")):
            if path.is_file():
                below = posixpath.join(artifact_path or "", path.parent.relative_to(local_dir).as_posix())
                self.log_artifact(str(path), posixpath.normpath(below) if below not in ("", ".") else None)

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        super()._download_file(self._guard.reading(remote_file_path), local_path)

    def _get_destination_artifact_path(self, artifact_file_name: str, artifact_path: str | None = None) -> tuple[str, str]:
        """Every way to write asks here where to, before it makes a folder."""
        folder, name = posixpath.split(self._guard.writing(named(artifact_path, artifact_file_name)))
        found: tuple[str, str] = super()._get_destination_artifact_path(name, folder or None)
        return found

    def _publish_staged_artifact(
        self, temp_file_path: str, destination_file_path: str, finalize_temp_path: Callable[[str], None] | None = None
    ) -> None:
        """Every way to write ends here; a version may have been registered since it began."""
        path = self._guard.publishing(os.path.relpath(destination_file_path, self.artifact_dir))
        if not self._guard.write_once(path):
            super()._publish_staged_artifact(temp_file_path, destination_file_path, finalize_temp_path)
            return
        if finalize_temp_path is not None:
            finalize_temp_path(temp_file_path)
        _publish_once(temp_file_path, destination_file_path, path)


class WriteOnceObjects(S3ArtifactRepository):  # type: ignore[misc]  # MLflow has no types
    """Objects on S3, or what speaks its language and knows conditional writes.

    Args:
        artifact_uri: `s3://BUCKET/PREFIX`, or the same with `unlearn-` before it.
        tracking_uri: MLflow's.
        registry_uri: MLflow's.
        own: whether it is named by `unlearn-`, and so has to be the server's artifacts destination or lie below it.
    """

    def __init__(self, artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None, *, own: bool = False) -> None:
        super().__init__(artifact_uri.removeprefix(GUARDED) if own else artifact_uri, tracking_uri=tracking_uri, registry_uri=registry_uri)
        self._guard = Guard(_bucket(self.artifact_uri), own)

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        """One file."""
        super().log_artifact(local_file, posixpath.dirname(self._guard.writing(named(artifact_path, local_file))))

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        """Every file of a folder; each is judged by its own key."""
        super().log_artifacts(local_dir, self._guard.listing(artifact_path))

    def upload_archived_trace_data_bytes(self, data: bytes) -> None:
        """The spans of a trace."""
        self._guard.writing(TRACE_ARCHIVAL_FILENAME)
        super().upload_archived_trace_data_bytes(data)

    def list_artifacts(self, path: str | None = None) -> list[Any]:
        """Names and sizes."""
        return list(super().list_artifacts(self._guard.listing(path)))

    def download_artifacts(self, artifact_path: str, dst_path: str | None = None) -> str:
        """A file or a folder."""
        return str(super().download_artifacts(self._guard.reading(artifact_path), dst_path))

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        """A file or a folder."""
        super().delete_artifacts(self._guard.deleting(artifact_path))

    def create_multipart_upload(self, local_file: str, num_parts: int = 1, artifact_path: str | None = None) -> Any:
        """Begin to upload a file in parts; nothing is there before the upload is completed."""
        path = self._writing_new(named(artifact_path, local_file))
        return super().create_multipart_upload(posixpath.basename(path), num_parts, posixpath.dirname(path))

    def complete_multipart_upload(self, local_file: str, upload_id: str, parts: Any = None, artifact_path: str | None = None) -> None:
        """Put the parts together, unless somebody else was faster or the version has been registered since."""
        path = self._guard.publishing(named(artifact_path, local_file))
        with _exclusively(path):
            super().complete_multipart_upload(posixpath.basename(path), upload_id, parts, posixpath.dirname(path))

    def abort_multipart_upload(self, local_file: str, upload_id: str, artifact_path: str | None = None) -> None:
        """Throw the parts away."""
        path = self._guard.listing(named(artifact_path, local_file))
        super().abort_multipart_upload(posixpath.basename(path), upload_id, posixpath.dirname(path))

    def create_presigned_upload_url(self, artifact_path: str, expiration: int = 900) -> Any:
        """Refuses: a URL to upload to without the server outlives every check, and what it writes to may be registered meanwhile."""
        path = self._guard.writing(artifact_path)
        refuse(f"{path}: files are uploaded through the server, which gives no URL for writing them to the bucket directly.")

    def get_download_presigned_url(self, artifact_path: str, expiration: int = 300) -> Any:
        """A URL to download from without the server."""
        return super().get_download_presigned_url(self._guard.reading(artifact_path), expiration)

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        super()._download_file(self._guard.reading(remote_file_path), local_path)

    def _upload_file(self, s3_client: Any, local_file: str, bucket: str, key: str) -> None:
        """Every way to upload a file ends here."""
        path = key.removeprefix(self._guard.root.removeprefix(f"s3://{bucket}").lstrip("/")).lstrip("/")
        if self._guard.writing(path) != path:
            refuse(f"{path}: a name that its address on the server would not find again; rename the file", INVALID_PARAMETER_VALUE)
        with _exclusively(path):
            super()._upload_file(s3_client, local_file, bucket, key)

    def _writing_new(self, path: str) -> str:
        """For a large file: better a no before it is uploaded than after."""
        from botocore.exceptions import ClientError

        path = self._guard.writing(path)
        if self._guard.write_once(path):
            bucket, key = self.parse_s3_compliant_uri(f"{self.artifact_uri.rstrip('/')}/{path}")
            with suppress(ClientError):
                self._get_s3_client().head_object(Bucket=bucket, Key=key, **self._bucket_owner_params)
                refuse(there(path))
        return path

    def _get_s3_client(self) -> Any:
        """MLflow's, which from now on looks once more before it writes, and asks S3 to write files of models only where there are none."""
        client = super()._get_s3_client()
        for operation in ("PutObject", "CompleteMultipartUpload"):
            client.meta.events.register(f"provide-client-params.s3.{operation}", _once, unique_id=f"unlearn-once-{operation}")
        return client


def guard_plain_names(by_the_gate: Callable[[], bool] = lambda: False) -> None:
    """Guard in this process, a server's, also what a client names by a path, `file:` or `s3:` itself: models and runs whose experiment lies there.

    Args:
        by_the_gate: whether the gate itself is reading at this moment; it is not stopped.
    """
    choices = {"": (LocalArtifactRepository, WriteOnceFiles), "s3": (S3ArtifactRepository, WriteOnceObjects)}
    for scheme, (plain, guarded) in (choices | {"file": choices[""]}).items():

        def choose(artifact_uri: str, plain: Any = plain, guarded: Any = guarded, **settings: Any) -> Any:
            return (plain if by_the_gate() else guarded)(artifact_uri, **settings)

        _artifact_repository_registry.register(scheme, choose)


def _once(params: dict[str, Any], **_: Any) -> dict[str, Any] | None:
    """What is sent when a file is written, after however many parts of it; a version may have been registered since it began."""
    custody, place = installed(), f"s3://{params['Bucket']}/{params['Key']}"
    if custody is None:
        return None
    if (words := custody.refusal_to_write("", place, now=True)) is not None:
        refuse(words)
    return params | _EXCLUSIVE if custody.write_once("", place) else None


@contextmanager
def _exclusively(path: str) -> Iterator[None]:
    from boto3.exceptions import S3UploadFailedError
    from botocore.exceptions import ClientError

    try:
        yield
    except (ClientError, S3UploadFailedError) as error:
        if any(code in str(error) for code in _TAKEN):
            refuse(there(path))
        raise


def _publish_once(staged: str, destination: str, path: str) -> None:
    """Give the file its name unless it is taken; the same bytes again are a client that asks twice."""
    try:
        _claim(staged, destination)
    except FileExistsError:
        if not filecmp.cmp(staged, destination, shallow=False):
            refuse(there(path))
    Path(staged).unlink(missing_ok=True)


def _claim(staged: str, destination: str) -> None:
    try:
        os.link(staged, destination)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: the name is taken first
        os.close(os.open(destination, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        os.replace(staged, destination)  # noqa: PTH105


def _bucket(uri: str) -> str:
    try:
        return object_place(uri)
    except LineageError as error:
        refuse(str(error), INVALID_PARAMETER_VALUE)
