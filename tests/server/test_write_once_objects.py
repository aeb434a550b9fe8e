"""MLflow's repository on S3 with the custody before it; the bucket itself says which of two writers was first."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from guarded_store import BLOCKED, FREE, REGISTERED, RUN, GuardedStore, guarded_store
from mlflow.exceptions import MlflowException
from mlflow.store.artifact import s3_artifact_repo
from mlflow.store.artifact.s3_artifact_repo import S3ArtifactRepository
from object_store import account, bucket  # noqa: F401 - fixtures

from mlflow_unlearn.server.artifacts import WriteOnceObjects
from mlflow_unlearn.server.custody import install
from mlflow_unlearn.server.entry_points import artifact_objects

PART = 5 << 20
"""Bytes: the smallest part of a multipart upload."""


@pytest.fixture
def store(bucket: Any, tmp_path: Path) -> Iterator[GuardedStore]:  # noqa: F811
    made = guarded_store(tmp_path, "unlearn-s3://models/p")
    for folder in (BLOCKED, REGISTERED, FREE, RUN):
        bucket.put_object(Bucket="models", Key=f"p/{folder}/weights", Body=b"first")
    made.register(BLOCKED, REGISTERED)
    made.block(BLOCKED)
    install(made.custody)
    yield made
    install(None)
    made.engine.dispose()


@pytest.fixture
def repository(store: GuardedStore) -> WriteOnceObjects:
    return artifact_objects("unlearn-s3://models/p/")


def held(client: Any, path: str) -> bytes:
    return client.get_object(Bucket="models", Key=f"p/{path}")["Body"].read()  # type: ignore[no-any-return]


def refused(words: str) -> pytest.RaisesExc[MlflowException]:
    return pytest.raises(MlflowException, match=words, check=lambda error: error.get_http_status_code() == 403)


def upload(repository: WriteOnceObjects, path: str, local: Path, text: bytes = b"other") -> None:
    (local / Path(path).name).write_bytes(text)
    repository.log_artifact(str(local / Path(path).name), str(Path(path).parent))


def folder(repository: WriteOnceObjects, path: str, local: Path, text: bytes = b"other") -> None:
    (local / "f").mkdir(exist_ok=True)
    (local / "f" / Path(path).name).write_bytes(text)
    repository.log_artifacts(str(local / "f"), str(Path(path).parent))


def large(repository: WriteOnceObjects, path: str, local: Path, text: bytes = b"other") -> None:
    upload(repository, path, local, text.ljust(2 * PART - 1))


def in_parts(repository: WriteOnceObjects, path: str, _local: Path, text: bytes = b"other") -> None:
    """As a client does: the parts go to the bucket, past the server."""
    name, at = Path(path).name, str(Path(path).parent)
    upload_id = S3ArtifactRepository(repository.artifact_uri).create_multipart_upload(name, 1, at).upload_id
    client = s3_artifact_repo._get_s3_client()
    part = client.upload_part(Bucket="models", Key=f"p/{path}", PartNumber=1, UploadId=upload_id, Body=text)
    repository.complete_multipart_upload(name, upload_id, [SimpleNamespace(part_number=1, etag=part["ETag"])], at)


Write = Callable[..., None]
every_way = pytest.mark.parametrize("write", [upload, folder, large, in_parts], ids=lambda each: each.__name__)


@every_way
def test_an_object_of_a_model_is_not_replaced(repository: WriteOnceObjects, bucket: Any, write: Write, tmp_path: Path) -> None:  # noqa: F811
    with refused("is there already, and files of a model are written once"):
        write(repository, f"{FREE}/weights", tmp_path)
    assert held(bucket, f"{FREE}/weights") == b"first"


@every_way
def test_an_object_is_not_added_to_a_registered_version(repository: WriteOnceObjects, bucket: Any, write: Write, tmp_path: Path) -> None:  # noqa: F811
    with refused("belongs to a registered model version"):
        write(repository, f"{REGISTERED}/more", tmp_path)
    assert bucket.list_objects_v2(Bucket="models", Prefix=f"p/{REGISTERED}/")["KeyCount"] == 1


@every_way
def test_a_model_that_is_not_registered_gets_objects_and_a_run_new_ones(
    repository: WriteOnceObjects,
    bucket: Any,  # noqa: F811
    write: Write,
    tmp_path: Path,
) -> None:
    write(repository, f"{FREE}/more", tmp_path)
    write(repository, f"{RUN}/weights", tmp_path)
    assert held(bucket, f"{FREE}/more").strip() == held(bucket, f"{RUN}/weights").strip() == b"other"


def test_of_two_that_write_one_object_at_once_one_wins_and_the_other_is_told(
    repository: WriteOnceObjects,
    bucket: Any,  # noqa: F811
    tmp_path: Path,
) -> None:
    ready = threading.Barrier(4)

    def write(number: int) -> str:
        (local := tmp_path / str(number)).mkdir()
        ready.wait(10)
        try:
            upload(repository, f"{FREE}/raced", local, b"%d" % number)
        except MlflowException as error:
            return str(error.error_code)
        return str(number)

    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(write, range(4)))
    assert outcomes.count("PERMISSION_DENIED") == 3
    assert held(bucket, f"{FREE}/raced").decode() in outcomes


def test_the_condition_is_sent_with_what_belongs_to_a_model_and_with_nothing_else(repository: WriteOnceObjects, tmp_path: Path) -> None:
    sent = []
    client = s3_artifact_repo._get_s3_client()
    client.meta.events.register("before-send.s3.PutObject", lambda request, **_: sent.append(request.headers.get("If-None-Match")))
    upload(repository, f"{FREE}/more", tmp_path)
    upload(repository, f"{RUN}/more", tmp_path)
    assert [each and bytes(each) for each in sent] == [b"*", None]


READS: dict[str, Callable[[WriteOnceObjects, str, str], object]] = {
    "download": lambda repository, path, to: repository.download_artifacts(path, to),
    "file": lambda repository, path, to: repository._download_file(path, f"{to}/copy"),
    "url": lambda repository, path, _to: repository.get_download_presigned_url(path),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_a_blocked_model_is_not_read_and_the_others_are(repository: WriteOnceObjects, read: Callable[..., object], tmp_path: Path) -> None:
    for path in (BLOCKED, BLOCKED.replace("b", "%62")):
        with refused("models:/customers/3 is blocked"):
            read(repository, f"{path}/weights", str(tmp_path))
    for path in (REGISTERED, FREE, RUN):
        read(repository, f"{path}/weights", str(tmp_path))


@pytest.mark.parametrize("path", ["0", "", "0/models/m-blocked/"])
def test_a_blocked_model_is_not_read_with_a_folder_around_it(repository: WriteOnceObjects, tmp_path: Path, path: str) -> None:
    with refused("is blocked"):
        repository.download_artifacts(path, str(tmp_path))


def test_a_blocked_model_is_listed(repository: WriteOnceObjects) -> None:
    assert [(each.path, each.file_size) for each in repository.list_artifacts(BLOCKED)] == [(f"{BLOCKED}/weights", 5)]


@pytest.mark.parametrize("path", [f"{REGISTERED}/weights", REGISTERED, "0", ""])
def test_a_registered_version_is_not_deleted_and_the_rest_is(repository: WriteOnceObjects, bucket: Any, path: str) -> None:  # noqa: F811
    with refused("holds files of a registered model version"):
        repository.delete_artifacts(path)
    repository.delete_artifacts(RUN)
    assert held(bucket, f"{REGISTERED}/weights") == b"first"
    assert bucket.list_objects_v2(Bucket="models", Prefix=f"p/{RUN}/")["KeyCount"] == 0


def test_a_large_file_is_refused_before_it_is_uploaded(repository: WriteOnceObjects) -> None:
    with refused("is there already"):
        repository.create_multipart_upload("weights", 2, FREE)
    with refused("belongs to a registered"):
        repository.create_multipart_upload("more", 2, REGISTERED)
    begun = repository.create_multipart_upload("more", 2, FREE)
    assert len(begun.credentials) == 2
    repository.abort_multipart_upload("more", begun.upload_id, FREE)


def test_a_version_that_is_registered_during_an_upload_does_not_get_the_file(repository: WriteOnceObjects, store: GuardedStore) -> None:
    begun = repository.create_multipart_upload("more", 1, FREE)
    store.register(FREE, at=2)
    with refused("belongs to a registered"):
        repository.complete_multipart_upload("more", begun.upload_id, [], FREE)


def test_a_version_that_is_registered_while_a_file_of_its_run_is_sent_does_not_get_the_file(
    repository: WriteOnceObjects,
    store: GuardedStore,
    bucket: Any,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun = S3ArtifactRepository._upload_file

    def registered_meanwhile(*asked: Any) -> None:
        store.register(RUN, at=2)
        begun(*asked)

    monkeypatch.setattr(S3ArtifactRepository, "_upload_file", registered_meanwhile)
    for write in (upload, large):
        with refused("belongs to a registered"):
            write(repository, f"{RUN}/weights", tmp_path)
    assert held(bucket, f"{RUN}/weights") == b"first"


def test_there_is_no_url_to_write_with_since_what_it_writes_to_may_be_registered_meanwhile(repository: WriteOnceObjects) -> None:
    for path, words in ((f"{FREE}/more", "uploaded through the server"), (f"{REGISTERED}/more", "belongs to a registered")):
        with refused(words):
            repository.create_presigned_upload_url(path)
    with refused("uploaded through the server"):
        repository.create_presigned_upload_url(f"{RUN}/model/weights")


@pytest.mark.parametrize("path", ["../x", "0/%2e%2e/x", "/x", "0//models/x", "0/./x", "x\0"])
def test_what_leads_out_or_can_be_read_in_two_ways_touches_nothing(repository: WriteOnceObjects, tmp_path: Path, path: str) -> None:
    with pytest.raises(MlflowException, match=r"Invalid path|expected a path|can be read in two ways"):
        repository.download_artifacts(path, str(tmp_path))
    with pytest.raises(MlflowException, match=r"Invalid path|expected a path|can be read in two ways"):
        repository.log_artifact(str(tmp_path / "mlflow.db"), path)
    with pytest.raises(MlflowException, match=r"Invalid path|expected a path|can be read in two ways"):
        repository.delete_artifacts(path)


def test_a_name_with_a_percent_sign_that_means_something_is_refused(repository: WriteOnceObjects, tmp_path: Path) -> None:
    with pytest.raises(MlflowException, match="rename the file"):
        upload(repository, f"{FREE}/a%41", tmp_path)


def test_trace_data_are_written_where_no_version_is_registered(repository: WriteOnceObjects) -> None:
    artifact_objects(f"unlearn-s3://models/p/{RUN}").upload_archived_trace_data_bytes(b"x")
    with refused("belongs to a registered"):
        artifact_objects(f"unlearn-s3://models/p/{REGISTERED}").upload_archived_trace_data_bytes(b"x")
    assert [each.path for each in repository.list_artifacts(RUN)] == [f"{RUN}/traces.pb", f"{RUN}/weights"]


@pytest.mark.parametrize("uri", ["unlearn-s3://other", "unlearn-s3://models", "unlearn-s3://models/p2", "unlearn-s3://other/models/p"])
def test_what_clients_name_by_the_scheme_of_the_gate_is_not_touched_outside_the_destination(store: GuardedStore, tmp_path: Path, uri: str) -> None:
    named = artifact_objects(uri)
    for ask in (
        named.list_artifacts,
        lambda: named.download_artifacts("weights", str(tmp_path)),
        lambda: upload(named, "x/weights", tmp_path),
        lambda: named.delete_artifacts("x"),
        lambda: named.get_download_presigned_url("weights"),
    ):
        with refused("only this server itself names locations by unlearn-"):
            ask()


@pytest.mark.parametrize("uri", ["Unlearn-S3://models/p", "unlearn-s3:models/p", "unlearn-s3://models/p/../q", "unlearn-s3://models/p?x"])
def test_a_bucket_that_is_spelled_otherwise_is_none(store: GuardedStore, uri: str) -> None:
    with pytest.raises(MlflowException, match=r"expected s3://|Not an S3 URI|can be read in two ways"):
        artifact_objects(uri).list_artifacts()


def test_without_a_gate_in_the_server_nothing_is_served(repository: WriteOnceObjects, tmp_path: Path) -> None:
    install(None)
    for ask in (
        lambda: repository.download_artifacts(RUN, str(tmp_path)),
        lambda: upload(repository, f"{RUN}/x", tmp_path),
        repository.list_artifacts,
    ):
        with refused("start it with --registry-store-uri unlearn-"):
            ask()


def test_a_bucket_that_can_be_read_in_two_ways_is_refused() -> None:
    with pytest.raises(MlflowException, match="empty or dotted part"):
        artifact_objects("unlearn-s3://models/a//b")
