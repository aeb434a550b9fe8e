"""One spelling of a location: whatever a client writes, it is the file that MLflow would read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from mlflow.store.artifact.s3_artifact_repo import S3ArtifactRepository
from object_store import account, bucket  # noqa: F401 - fixtures

from mlflow_unlearn.adapters.storage_locations import Storage
from mlflow_unlearn.errors import ConfigError, LineageError, StoreError

MODEL = "0/models/m-1/artifacts"
ROUTE = "http://host:5000/api/2.0/mlflow-artifacts/artifacts"
NAMES = st.lists(st.text("ab1 é.-_+&=~;", min_size=1, max_size=5).filter(lambda name: name not in (".", "..")), min_size=1, max_size=4)
ON_S3 = Storage("", "unlearn-s3://models/prefix")


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage("sqlite:///x", f"unlearn-file://{tmp_path}/artifacts")


def everything_encoded(path: str) -> str:
    return "".join(each if each == "/" else "".join(f"%{byte:02x}" for byte in each.encode()) for each in path)


@st.composite
def spellings(draw: st.DrawFn) -> tuple[str, str]:
    """A path below the destination `/srv/a b`, and another way to write it."""
    names = draw(NAMES)
    path = "/".join(names)
    untidy = draw(st.sampled_from(["/".join(names), "//".join(names), "./" + path, path + "/", "x/../" + path, "/./".join(names)]))
    ways = [f"/srv/a%20b/{quote(untidy)}", f"file:///srv/a%20b/{quote(untidy)}", f"file:/srv//a%20b/{quote(untidy)}"]
    ways += [f"{start}/{quote(untidy)}" for start in ("mlflow-artifacts:", "mlflow-artifacts://host:5000", "mlflow-artifacts://", ROUTE)]
    ways += [f"mlflow-artifacts:/{everything_encoded(untidy)}", f"file://localhost/srv/a b/{everything_encoded(untidy)}"]
    return path, draw(st.sampled_from(ways)).replace(";", "%3B")


@given(spellings())
def test_every_spelling_of_a_file_is_one_location_and_says_so_again(spelling: tuple[str, str]) -> None:
    storage, (path, written) = Storage("", "file:///srv/a b"), spelling
    assert storage.canonical(written) == f"mlflow-artifacts:/{path}"
    assert storage.canonical(storage.canonical(written)) == storage.canonical(written)
    assert storage.canonical(storage.direct(written)) == storage.canonical(written)
    assert storage.relative(written) == path


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=12))
def test_a_location_is_refused_or_read_as_mlflow_reads_it_and_says_so_again(name: str) -> None:
    storage, written = Storage("", "/srv/artifacts"), f"file:///srv/artifacts/{quote(name)}"
    try:
        place = storage.place(written)
    except LineageError:
        return
    assert place == os.path.realpath(LocalArtifactRepository(written).artifact_dir)
    assert storage.canonical(storage.canonical(written)) == storage.canonical(written)


@pytest.mark.parametrize("name", ["50%25", "a#b", "a?b", "%2541"])
def test_what_mlflow_cannot_reach_through_its_server_keeps_the_path_on_disk(storage: Storage, tmp_path: Path, name: str) -> None:
    assert storage.canonical(f"{tmp_path}/artifacts/{quote(name)}") == (tmp_path / "artifacts" / name).as_uri()
    assert storage.relative(f"{tmp_path}/artifacts/{quote(name)}") == name


def test_links_are_followed(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "artifacts" / MODEL).mkdir(parents=True)
    (tmp_path / "artifacts/1").symlink_to("0")
    (tmp_path / "way").symlink_to("artifacts")
    assert storage.canonical("mlflow-artifacts:/1/models/m-1/artifacts") == f"mlflow-artifacts:/{MODEL}"
    assert storage.canonical(f"{tmp_path}/way/{MODEL}") == f"mlflow-artifacts:/{MODEL}"


def test_what_lies_elsewhere_keeps_its_path(storage: Storage, tmp_path: Path) -> None:
    assert storage.canonical(f"{tmp_path}/a b/../c d/") == f"file://{tmp_path}/c%20d"
    assert storage.relative(f"{tmp_path}/artifacts-2/x") is None
    assert storage.canonical("s3://models/x/") == "s3://models/x"


@pytest.mark.parametrize("path", ["../x", "0/../../x", "%2e%2e/x", "%252e%252e/x", "0/%2e%2e/%2e%2e/x", "0/1/../../../x"])
def test_what_leads_out_of_the_destination_is_refused(storage: Storage, path: str) -> None:
    with pytest.raises(LineageError, match="leads out of"):
        storage.canonical(f"mlflow-artifacts:/{path}")


def test_a_link_that_leads_out_of_the_destination_is_refused(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts/out").symlink_to("..")
    with pytest.raises(LineageError, match="leads out of the folder"):
        storage.canonical("mlflow-artifacts:/out/secret")


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("models:/m-1", "names a model and no place"),
        ("runs:/1/model", "names a model and no place"),
        ("gs://bucket/x", "the gate reads files on disk"),
        ("FILE:///x", "scheme in small letters"),
        (" file:///x", "does not begin with a space"),
        ("file:///x\n", "no control characters"),
        ("file:///x%00", "without control characters"),
        ("file://host/x", "without a host"),
        ("file:///x?y", "a query"),
        ("mlflow-artifacts:/x#y", "without a query or a fragment"),
        ("http://host/x", "expected .*/mlflow-artifacts/artifacts/PATH"),
        ("mlflow-artifacts://[x/y", "no location that can be read"),
        ("mlflow-artifacts:/" + "%25" * 3 + "25" * 12 + "41", "percent signs within percent signs"),
        ("s3://models/a//b", "empty or dotted part"),
        ("s3://models/a/../b", "empty or dotted part"),
        ("s3:///a", "expected s3://BUCKET/KEY"),
        ("s3://models/a?b", "without a query"),
    ],
)
def test_what_can_be_read_in_two_ways_or_is_no_place_is_refused_with_words(storage: Storage, uri: str, words: str) -> None:
    with pytest.raises(LineageError, match=words):
        storage.canonical(uri)


def test_a_destination_on_s3_is_one_too() -> None:
    assert ON_S3.canonical(f"s3://models/prefix/{MODEL}/") == ON_S3.canonical(f"mlflow-artifacts:/{MODEL}") == f"mlflow-artifacts:/{MODEL}"
    assert ON_S3.direct(f"mlflow-artifacts://host/{MODEL}") == f"s3://models/prefix/{MODEL}"
    assert (ON_S3.relative(f"s3://models/prefix/{MODEL}"), ON_S3.relative("s3://models/prefix-2/x")) == (MODEL, None)


@pytest.mark.parametrize("path", ["0//x", "0/./x", "0/../x", "%2e%2e/x"])
def test_dots_in_a_key_are_refused_since_s3_takes_them_for_letters(path: str) -> None:
    with pytest.raises(LineageError, match="empty or dotted part"):
        ON_S3.canonical(f"mlflow-artifacts:/{path}")


def test_without_a_destination_a_proxied_location_has_a_name_and_no_bytes() -> None:
    storage = Storage("http://host", None)
    assert storage.canonical(f"mlflow-artifacts://host//{MODEL}/") == f"mlflow-artifacts:/{MODEL}"
    with pytest.raises(StoreError, match="start it with --artifacts-destination"):
        storage.direct(f"mlflow-artifacts:/{MODEL}")


def test_a_destination_that_the_gate_cannot_read_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected a path, unlearn-file"):
        Storage("", "gs://bucket").canonical("mlflow-artifacts:/x")


def test_a_local_folder_is_itself_and_its_repository_is_mlflows_own(storage: Storage, tmp_path: Path) -> None:
    with storage.folder(f"mlflow-artifacts:/{MODEL}") as folder:
        assert folder == tmp_path / "artifacts" / MODEL
    assert type(storage.repository(f"mlflow-artifacts:/{MODEL}")) is LocalArtifactRepository
    assert type(ON_S3.repository("mlflow-artifacts:/x")) is S3ArtifactRepository


def test_a_folder_on_s3_is_a_copy_that_goes_away(bucket: Any) -> None:  # noqa: F811
    bucket.put_object(Bucket="models", Key=f"prefix/{MODEL}/sub/weights", Body=b"w")
    with ON_S3.folder(f"mlflow-artifacts:/{MODEL}") as folder:
        assert (folder / "sub/weights").read_bytes() == b"w"
    assert not folder.exists()


def test_a_bucket_that_is_not_there_does_not_answer(bucket: Any) -> None:  # noqa: F811
    with pytest.raises(StoreError, match="cannot be downloaded"), ON_S3.folder("s3://other/x"):
        pass
