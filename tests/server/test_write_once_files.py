"""MLflow's repository on disk with the custody before it: blocked models are not read, models are written once, runs behave as ever."""

from __future__ import annotations

import asyncio
import io
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from guarded_store import BLOCKED, FREE, REGISTERED, RUN, GuardedStore, guarded_store
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import _artifact_repository_registry, get_artifact_repository
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from mlflow_unlearn.server.artifacts import WriteOnceFiles, guard_plain_names
from mlflow_unlearn.server.custody import install
from mlflow_unlearn.server.entry_points import artifact_files

Repository = LocalArtifactRepository


@pytest.fixture
def store(tmp_path: Path) -> Iterator[GuardedStore]:
    made = guarded_store(tmp_path, f"unlearn-file://{tmp_path}/artifacts")
    plain = LocalArtifactRepository(f"file://{tmp_path}/artifacts")
    for folder in (BLOCKED, REGISTERED, FREE, RUN):
        plain.log_artifact_from_stream(io.BytesIO(b"first"), "weights", folder)
    made.register(BLOCKED, REGISTERED)
    made.block(BLOCKED)
    install(made.custody)
    yield made
    install(None)
    made.engine.dispose()


@pytest.fixture
def repository(store: GuardedStore, tmp_path: Path) -> WriteOnceFiles:
    return artifact_files(f"unlearn-file://{tmp_path}/artifacts")


def held(repository: Repository, path: str) -> str:
    return Path(repository.artifact_dir, path).read_text()


def names(repository: Repository, path: str) -> list[str]:
    return sorted(each.name for each in Path(repository.artifact_dir, path).iterdir())


def refused(words: str) -> pytest.RaisesExc[MlflowException]:
    return pytest.raises(MlflowException, match=words, check=lambda error: error.get_http_status_code() == 403)


def stream(repository: Repository, path: str, text: bytes) -> None:
    repository.log_artifact_from_stream(io.BytesIO(text), Path(path).name, str(Path(path).parent))


def upload(repository: Repository, path: str, text: bytes) -> None:
    (Path(repository.artifact_dir).parent / Path(path).name).write_bytes(text)
    repository.log_artifact(str(Path(repository.artifact_dir).parent / Path(path).name), str(Path(path).parent))


def folder(repository: Repository, path: str, text: bytes) -> None:
    (local := Path(repository.artifact_dir).parent / "local").mkdir(exist_ok=True)
    (local / Path(path).name).write_bytes(text)
    repository.log_artifacts(str(local), str(Path(path).parent))


def asynchronous(repository: Repository, path: str, text: bytes) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield text

    asyncio.run(repository.log_artifact_from_async_stream(chunks(), Path(path).name, str(Path(path).parent)))


Write = Callable[[Repository, str, bytes], None]
every_way = pytest.mark.parametrize("write", [stream, upload, folder, asynchronous], ids=lambda each: each.__name__)


@every_way
def test_a_file_of_a_model_is_not_replaced(repository: WriteOnceFiles, write: Write) -> None:
    with refused("is there already, and files of a model are written once"):
        write(repository, f"{FREE}/weights", b"other")
    assert held(repository, f"{FREE}/weights") == "first"
    assert names(repository, FREE) == ["weights"]


@every_way
def test_a_file_is_not_added_to_a_registered_version(repository: WriteOnceFiles, write: Write) -> None:
    with refused("belongs to a registered model version"):
        write(repository, f"{REGISTERED}/new/more", b"x")
    assert names(repository, REGISTERED) == ["weights"]


@every_way
def test_a_model_that_is_not_registered_gets_files_and_the_same_bytes_twice(repository: WriteOnceFiles, write: Write) -> None:
    for _ in range(2):
        write(repository, f"{FREE}/sub/more", b"x")
    assert held(repository, f"{FREE}/sub/more") == "x"
    assert names(repository, f"{FREE}/sub") == ["more"]


@every_way
def test_a_file_of_a_run_is_replaced_as_ever(repository: WriteOnceFiles, write: Write) -> None:
    write(repository, f"{RUN}/weights", b"other")
    assert held(repository, f"{RUN}/weights") == "other"


@every_way
def test_a_file_has_the_rights_that_mlflow_gives_it(repository: WriteOnceFiles, write: Write) -> None:
    write(repository, f"{FREE}/more", b"x")
    write(repository, f"{RUN}/more", b"x")
    modes = {Path(repository.artifact_dir, place, "more").stat().st_mode for place in (FREE, RUN)}
    assert len(modes) == 1


def test_of_two_that_write_one_file_at_once_one_wins_and_the_other_is_told(repository: WriteOnceFiles) -> None:
    ready = threading.Barrier(8)

    def write(number: int) -> str:
        ready.wait(10)
        try:
            stream(repository, f"{FREE}/raced", b"%d" % number)
        except MlflowException as error:
            return str(error.error_code)
        return str(number)

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(write, range(8)))
    assert outcomes.count("PERMISSION_DENIED") == 7
    assert held(repository, f"{FREE}/raced") in outcomes


def test_without_hard_links_a_file_is_still_written_once(repository: WriteOnceFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_links(*_: str) -> None:
        raise PermissionError(1, "no links here")

    monkeypatch.setattr(os, "link", without_links)
    stream(repository, f"{FREE}/more", b"x")
    with refused("is there already"):
        stream(repository, f"{FREE}/more", b"y")
    assert (held(repository, f"{FREE}/more"), names(repository, FREE)) == ("x", ["more", "weights"])


def test_a_version_that_is_registered_during_an_upload_does_not_get_the_file(repository: WriteOnceFiles, store: GuardedStore) -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            store.register(FREE, at=2)
            return super().read(size)

    with refused("belongs to a registered model version"):
        repository.log_artifact_from_stream(Slow(b""), "late", FREE)
    assert names(repository, FREE) == ["weights"]


def test_files_of_a_run_are_neither_replaced_nor_deleted_from_the_moment_they_are_registered(repository: WriteOnceFiles, store: GuardedStore) -> None:
    stream(repository, f"{RUN}/weights", b"second")
    store.register(RUN, at=2)
    with refused("belongs to a registered model version"):
        stream(repository, f"{RUN}/weights", b"third")
    with refused("holds files of a registered model version"):
        repository.delete_artifacts(f"{RUN}/weights")
    assert held(repository, f"{RUN}/weights") == "second"


READS: dict[str, Callable[[Repository, str, str], object]] = {
    "local path": lambda repository, path, _to: repository.get_local_path(path),
    "download": lambda repository, path, _to: repository.download_artifacts(path),
    "copy": lambda repository, path, to: repository.download_artifacts(path, to),
    "file": lambda repository, path, to: repository._download_file(path, f"{to}/copy"),
}
every_read = pytest.mark.parametrize("read", READS.values(), ids=READS)


@every_read
def test_a_blocked_model_is_not_read(repository: WriteOnceFiles, read: Callable[..., object], tmp_path: Path) -> None:
    with refused("models:/customers/3 is blocked, nobody reads its files through this server: Ask for version 4"):
        read(repository, f"{BLOCKED}/weights", str(tmp_path))


@every_read
def test_every_other_file_is_read(repository: WriteOnceFiles, read: Callable[..., object], tmp_path: Path) -> None:
    for folder in (REGISTERED, FREE, RUN):
        read(repository, f"{folder}/weights", str(tmp_path))


@pytest.mark.parametrize("path", [BLOCKED, "0/models", "0", "", None])
def test_a_blocked_model_is_not_read_with_a_folder_around_it(repository: WriteOnceFiles, tmp_path: Path, path: str) -> None:
    with refused("is blocked"):
        repository.download_artifacts(path, str(tmp_path))


def test_a_trace_in_a_blocked_location_is_not_read(repository: WriteOnceFiles) -> None:
    with refused("is blocked"):
        artifact_files(f"unlearn-file://{repository.artifact_dir}/{BLOCKED}").download_trace_data()


@pytest.mark.parametrize(
    "uri",
    [
        "unlearn-file:///etc",
        "unlearn-file:ROOT",
        "unlearn-file://localhostROOT",
        "unlearn-file://ROOT/artifacts/../k",
        "unlearn-file://ROOT/artifacts/%2e%2e",
        "unlearn-file://ROOT/artifacts2",
        "unlearn-file:artifacts",
        "unlearn-file://ROOT\n",
        "unlearn-file://ROOT/out",
        "Unlearn-File://ROOT",
        " unlearn-file://ROOT",
        "unlearn-file:",
    ],
)
def test_what_clients_name_by_the_scheme_of_the_gate_is_not_touched_outside_the_destination(store: GuardedStore, tmp_path: Path, uri: str) -> None:
    (tmp_path / "out").symlink_to(tmp_path)
    (tmp_path / "artifacts2").mkdir()
    named = get_artifact_repository(uri.replace("ROOT", str(tmp_path)))
    for ask in (named.list_artifacts, named.get_local_path, named.download_artifacts, named.delete_artifacts):
        with refused("only this server itself names locations by unlearn-"):
            ask("mlflow.db")
    with refused("only this server itself names locations by unlearn-"):
        stream(named, "x", b"x")


def test_below_the_destination_the_scheme_of_the_gate_names_what_is_guarded_like_all_else(repository: WriteOnceFiles) -> None:
    assert artifact_files(f"unlearn-file://{repository.artifact_dir}/{RUN}").download_artifacts("weights")
    with refused("is blocked"):
        artifact_files(f"unlearn-file://{repository.artifact_dir}/{BLOCKED}").download_artifacts("weights")


def test_a_blocked_model_is_listed(repository: WriteOnceFiles) -> None:
    assert [(each.path, each.file_size) for each in repository.list_artifacts(BLOCKED)] == [(f"{BLOCKED}/weights", 5)]


SPELLINGS = {
    "encoded": BLOCKED.replace("/", "%2F"),
    "encoded twice": BLOCKED.replace("b", "%2562"),
    "doubled": BLOCKED.replace("/", "//"),
    "with dots": "./0/./models/m-blocked/./artifacts",
    "with a trailing slash": f"{BLOCKED}/",
}


@pytest.mark.parametrize("path", SPELLINGS.values(), ids=SPELLINGS)
def test_no_other_spelling_reads_writes_or_deletes_a_guarded_file(repository: WriteOnceFiles, path: str) -> None:
    with refused("is blocked"):
        repository.get_local_path(f"{path}/weights")
    with refused("belongs to a registered"):
        repository.log_artifact_from_stream(io.BytesIO(b"x"), "weights", path)
    with refused("holds files of a registered"):
        repository.delete_artifacts(path)
    assert held(repository, f"{BLOCKED}/weights") == "first"


ESCAPES = [
    "../mlflow.db",
    "%2e%2e/mlflow.db",
    "0/%252e%252e/../../mlflow.db",
    "/etc/passwd",
    "file:///etc/passwd",
    f"file:{BLOCKED}",
    "x%00y",
    "0\0",
    "x\n",
    "%25252525252525252525252525252525252541",
]


@pytest.mark.parametrize("path", ESCAPES)
def test_what_leads_out_or_is_no_name_touches_nothing(repository: WriteOnceFiles, path: str) -> None:
    for ask in (repository.get_local_path, repository.download_artifacts, repository.delete_artifacts, repository.list_artifacts):
        with pytest.raises(MlflowException, match=r"Invalid path|expected a path"):
            ask(path)
    with pytest.raises(MlflowException, match=r"Invalid path|expected a path"):
        repository.log_artifact_from_stream(io.BytesIO(b"x"), "name", path)
    assert Path(repository.artifact_dir).parent.joinpath("mlflow.db").exists()


@pytest.mark.parametrize("name", ["..", ".", "", "a%2F..%2F..%2Fx", "%2e%2e"])
def test_a_name_that_no_file_has_is_refused(repository: WriteOnceFiles, name: str) -> None:
    with pytest.raises(MlflowException, match=r"Invalid path|expected the name of a file|belongs to a registered|leads out"):
        repository.log_artifact_from_stream(io.BytesIO(b"x"), name, REGISTERED)


def test_a_link_inside_the_destination_opens_no_guarded_file(repository: WriteOnceFiles) -> None:
    Path(repository.artifact_dir, "way").symlink_to(f"0/{BLOCKED.split('/', 1)[1]}")
    Path(repository.artifact_dir, "file").symlink_to(f"{BLOCKED}/weights")
    for path in ("way/weights", "file"):
        with refused("is blocked"):
            repository.get_local_path(path)
    with refused("holds files"):
        repository.delete_artifacts("way/weights")
    with refused("belongs to"):
        stream(repository, "way/new", b"x")


def test_a_link_out_of_the_destination_is_not_followed(repository: WriteOnceFiles, tmp_path: Path) -> None:
    Path(repository.artifact_dir, "out").symlink_to(tmp_path)
    for ask in (repository.get_local_path, repository.delete_artifacts):
        with refused("leads out of the folder"):
            ask("out/mlflow.db")


@pytest.mark.parametrize("path", [f"{REGISTERED}/weights", REGISTERED, "0/models", "0", None])
def test_a_registered_version_is_not_deleted_nor_what_is_around_it(repository: WriteOnceFiles, path: str | None) -> None:
    with refused("holds files of a registered model version"):
        repository.delete_artifacts(path)
    assert held(repository, f"{REGISTERED}/weights") == "first"


@pytest.mark.parametrize("path", [f"{RUN}/weights", RUN, FREE])
def test_everything_else_is_deleted_as_ever(repository: WriteOnceFiles, path: str) -> None:
    repository.delete_artifacts(path)
    assert not Path(repository.artifact_dir, path).exists()


def test_without_a_gate_in_the_server_nothing_is_served(repository: WriteOnceFiles) -> None:
    install(None)
    for ask in (repository.get_local_path, repository.list_artifacts, repository.delete_artifacts, repository.download_artifacts):
        with refused("start it with --registry-store-uri unlearn-"):
            ask(f"{RUN}/weights")
    with refused("--registry-store-uri"):
        stream(repository, f"{RUN}/x", b"x")


def test_what_names_the_disk_itself_is_guarded_in_a_server_that_says_so_and_open_to_the_gate(
    store: GuardedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_artifact_repository_registry, "_registry", dict(_artifact_repository_registry._registry))
    gate: list[bool] = []
    guard_plain_names(lambda: bool(gate))
    store.block(f"file://{tmp_path}/elsewhere")
    for uri in (f"file://{tmp_path}/artifacts/0/models", f"{tmp_path}/artifacts/{BLOCKED}", f"file://{tmp_path}/elsewhere"):
        with refused("is blocked"):
            get_artifact_repository(uri).download_artifacts("")
    gate.append(True)
    assert get_artifact_repository(f"file://{tmp_path}/artifacts/{BLOCKED}").download_artifacts("weights")
