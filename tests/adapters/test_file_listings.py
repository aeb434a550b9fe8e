"""A listing tells every change of a file, also one that hides, and reads none."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from object_store import account, bucket, kept  # noqa: F401 - fixtures

from mlflow_unlearn.adapters import file_listings
from mlflow_unlearn.adapters.file_listings import fingerprint, listing
from mlflow_unlearn.errors import StoreError, TamperedError

MODEL = "s3://models/m-1"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "m/sub").mkdir(parents=True)
    (tmp_path / "m/weights").write_bytes(b"1234")
    (tmp_path / "m/sub/é MLmodel").write_bytes(b"x")
    return tmp_path / "m"


def written_in_place(file: Path) -> None:
    stat = file.stat()
    file.write_bytes(b"4321")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def replaced(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(b"4321")
    shutil.copystat(file, other)
    other.replace(file)


def removed(file: Path) -> None:
    file.unlink()


def renamed(file: Path) -> None:
    file.rename(file.with_name("weights2"))


def joined(file: Path) -> None:
    file.with_name("more").touch()


@pytest.mark.parametrize("change", [written_in_place, replaced, removed, renamed, joined], ids=lambda each: each.__name__)
def test_every_change_shows(model: Path, change: Callable[[Path], None]) -> None:
    before = fingerprint(model.as_uri())
    assert fingerprint(model.as_uri()) == before
    change(model / "weights")
    assert fingerprint(model.as_uri()) != before


def test_files_and_bytes_are_counted(model: Path) -> None:
    found = listing(model.as_uri())
    assert (found.files, found.bytes) == (2, 5)


def test_a_change_behind_a_linked_file_shows(model: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"1234")
    (model / "link").symlink_to(tmp_path / "elsewhere")
    before = fingerprint(model.as_uri())
    written_in_place(tmp_path / "elsewhere")
    assert fingerprint(model.as_uri()) != before


def linked_folder(at: Path) -> None:
    at.symlink_to(at.parent.parent)


def broken_link(at: Path) -> None:
    at.symlink_to("nowhere")


def pipe(at: Path) -> None:
    os.mkfifo(at)


@pytest.mark.parametrize("make", [linked_folder, broken_link, pipe], ids=lambda each: each.__name__)
def test_what_is_no_file_of_a_model_is_refused(model: Path, make: Callable[[Path], None]) -> None:
    make(model / "sub/odd")
    with pytest.raises(TamperedError, match="odd: neither a file nor a folder"):
        listing(model.as_uri())


def too_deep(at: Path) -> None:
    with contextlib.chdir(at.parent):
        for name in ("odd", *["d" * 250] * 18):
            os.mkdir(name)  # noqa: PTH102 - a path as long as that can only be made step by step
            os.chdir(name)


def loop(at: Path) -> None:
    at.symlink_to("odd")


def through_a_file(at: Path) -> None:
    at.symlink_to("../weights/more")


def through_a_long_name(at: Path) -> None:
    at.symlink_to("d" * 300)


@pytest.mark.parametrize("make", [too_deep, loop, through_a_file, through_a_long_name], ids=lambda each: each.__name__)
def test_what_cannot_be_looked_at_below_a_model_was_put_there_and_is_no_silence(model: Path, make: Callable[[Path], None]) -> None:
    make(model / "sub/odd")
    with pytest.raises(TamperedError, match=r"odd.*: cannot be looked at \(E[A-Z]+\), expected the files of a model"):
        listing(model.as_uri())


def test_a_file_where_a_model_should_be_is_no_silence(model: Path) -> None:
    with pytest.raises(TamperedError, match=r"weights: cannot be looked at \(ENOTDIR\)"):
        listing((model / "weights").as_uri())


def test_folders_are_listed_however_many_lie_in_one_another_and_however_few_may_be_open(model: Path) -> None:
    (model / Path(*["d"] * 40)).mkdir(parents=True)
    (model / Path(*["d"] * 40) / "deep").touch()
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = {int(each.name) for each in Path("/proc/self/fd").iterdir()}
    ten_more = [number for number in range(1000) if number not in used][10]
    resource.setrlimit(resource.RLIMIT_NOFILE, (ten_more, before[1]))
    try:
        assert listing(model.as_uri()).files == 3
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize(
    ("number", "where", "raised"),
    [
        (errno.EIO, "", StoreError),
        (errno.ESTALE, "sub", StoreError),
        (errno.ENOTCONN, "sub", StoreError),
        (errno.EACCES, "", TamperedError),
        (errno.EACCES, "sub", TamperedError),
        (errno.ENOENT, "sub", TamperedError),
    ],
)
def test_a_disk_that_fails_is_silent_and_one_that_refuses_is_not(model: Path, monkeypatch, number: int, where: str, raised: type[Exception]) -> None:
    failing, scandir = str(model / where).rstrip("/"), os.scandir

    def failed(path: str) -> Any:
        if path == failing:
            raise OSError(number, os.strerror(number), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", failed)
    with pytest.raises(raised, match=errno.errorcode[number]):
        listing(model.as_uri())


def test_a_link_to_where_a_disk_fails_was_put_there(model: Path, monkeypatch) -> None:
    (model / "sub/odd").symlink_to(model / "weights")
    rows = file_listings._row

    def failed(path: str, entry: Any) -> Any:
        if entry.name == "odd":
            raise OSError(errno.EIO, "failed", entry.path)
        return rows(path, entry)

    monkeypatch.setattr(file_listings, "_row", failed)
    with pytest.raises(TamperedError, match="EIO"):
        listing(model.as_uri())


def test_a_folder_that_is_gone_does_not_answer(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be listed"):
        listing((tmp_path / "gone").as_uri())


def test_a_listing_with_a_fresh_file_is_racy_and_later_is_not(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert listing(model.as_uri()).racy
    monkeypatch.setattr(file_listings, "RACY_S", 0)
    assert not listing(model.as_uri()).racy


def test_a_listing_on_s3_tells_a_new_object_and_a_changed_one(bucket: Any) -> None:  # noqa: F811
    seen = []
    for key, body in (("m-1/a", b"1"), ("m-1/a", b"2"), ("m-1/sub/b", b"1"), ("m-10/c", b"1")):
        bucket.put_object(Bucket="models", Key=key, Body=body)
        seen.append(fingerprint(MODEL))
    assert len(set(seen)) == 3
    assert seen[2] == seen[3]


def test_a_bucket_that_keeps_versions_tells_the_same_bytes_written_again(bucket: Any) -> None:  # noqa: F811
    bucket.put_bucket_versioning(Bucket="models", VersioningConfiguration={"Status": "Enabled"})
    bucket.put_object(Bucket="models", Key="m-1/a", Body=b"1")
    before = listing(MODEL)
    bucket.put_object(Bucket="models", Key="m-1/a", Body=b"1")
    after = listing(MODEL)
    assert (before.files, after.files) == (1, 1)
    assert before.fingerprint != after.fingerprint


def test_a_listing_on_s3_goes_on_after_a_page(bucket: Any) -> None:  # noqa: F811
    for number in range(1001):
        kept().put_object("models", f"m-1/{number}", b"")
    assert listing(MODEL).files == 1001


def test_a_bucket_that_is_not_there_cannot_be_listed(bucket: Any) -> None:  # noqa: F811
    with pytest.raises(StoreError, match=r"s3://other/x: cannot be listed"):
        listing("s3://other/x")
