"""Digests are kept as long as the files look the same: hashed once, never while a transaction is open, and never believed without the gate's MAC."""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sql
from mlflow.store.db.base_sql_model import Base
from mlflow.store.model_registry.dbmodels.models import SqlModelVersion, SqlRegisteredModel
from object_store import account, bucket  # noqa: F401 - fixtures
from safetensors.numpy import save_file

from mlflow_unlearn.adapters import file_listings, kept_subjects
from mlflow_unlearn.adapters.gate_tables import ROWS, KeptRows, prepare
from mlflow_unlearn.adapters.kept_subjects import KeptSubjects
from mlflow_unlearn.adapters.storage_locations import Storage
from mlflow_unlearn.errors import StoreError, TamperedError
from mlflow_unlearn.verifier import subject_of

ONE, TWO = "mlflow-artifacts:/0/models/m-1/artifacts", "mlflow-artifacts:/0/models/m-2/artifacts"
KEY = b"k" * 32


class Watched(Storage):
    """Counts how often a folder is read, and lets a test look in meanwhile."""

    def __init__(self, destination: str) -> None:
        super().__init__("", destination)
        self.__dict__.update(read=Counter(), meanwhile=lambda _uri: None)

    @contextmanager
    def folder(self, uri: str) -> Iterator[Path]:
        self.__dict__["read"][uri] += 1
        with super().folder(uri) as path:
            self.__dict__["meanwhile"](uri)
            yield path


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    monkeypatch.setattr(file_listings, "RACY_S", 0)
    for model in ("m-1", "m-2"):
        (folder := tmp_path / "artifacts/0/models" / model / "artifacts").mkdir(parents=True)
        (folder / "weights").write_bytes(model.encode())
    return Watched(str(tmp_path / "artifacts"))


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sql.Engine]:
    made = sql.create_engine(f"sqlite:///{tmp_path}/mlflow.db")
    prepare(made)
    yield made
    made.dispose()


@pytest.fixture
def kept(storage: Watched, engine: sql.Engine) -> KeptSubjects:
    return KeptSubjects(KeptRows(KEY), engine, storage)


def files(storage: Storage, location: str) -> Path:
    return Path(storage.place(location))


def read(storage: Watched) -> Counter[str]:
    return storage.__dict__["read"]  # type: ignore[no-any-return]


def rows(engine: sql.Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(sql.select(sql.func.count()).select_from(ROWS)).scalar_one())


def test_the_digests_are_those_of_the_verifier(kept: KeptSubjects, storage: Watched) -> None:
    assert kept.subject(ONE) == subject_of(files(storage, ONE))


def test_files_that_look_the_same_are_read_once_by_whatever_name_also_after_a_restart(
    kept: KeptSubjects, storage: Watched, engine: sql.Engine
) -> None:
    again = KeptSubjects(KeptRows(KEY), engine, storage)
    assert kept.subject(ONE) == kept.subject(ONE.replace("/models", "//models/")) == again.subject(files(storage, ONE).as_uri())
    assert read(storage) == {ONE: 1}


def test_a_change_is_hashed_again(kept: KeptSubjects, storage: Watched) -> None:
    before = kept.subject(ONE)
    (files(storage, ONE) / "weights").write_bytes(b"xyz")
    assert kept.subject(ONE) != before
    assert read(storage)[ONE] == 2


def test_a_forgotten_location_is_hashed_again(kept: KeptSubjects, storage: Watched, engine: sql.Engine) -> None:
    kept.subject(ONE)
    kept.forget(ONE + "/")
    assert rows(engine) == 0
    kept.subject(ONE)
    assert read(storage)[ONE] == 2


def test_a_row_that_somebody_else_wrote_does_not_count(kept: KeptSubjects, storage: Watched, engine: sql.Engine) -> None:
    found = kept.subject(ONE)
    with engine.begin() as connection:
        body = KeptRows(KEY).get(connection, "subject", ONE)
        KeptRows(b"x" * 32).put(connection, "subject", ONE, body | {"subject": [{"name": "."}]} if body else {})
    assert KeptSubjects(KeptRows(KEY), engine, storage).subject(ONE) == found
    assert read(storage)[ONE] == 2


def test_who_asks_at_the_same_time_waits_and_does_not_hash(kept: KeptSubjects, storage: Watched) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(kept.subject, [ONE] * 8))
    assert all(each == found[0] for each in found)
    assert read(storage) == {ONE: 1}


def test_hashing_one_location_holds_up_no_other(kept: KeptSubjects, storage: Watched) -> None:
    begun, go_on = threading.Event(), threading.Event()
    storage.__dict__["meanwhile"] = lambda uri: (begun.set(), go_on.wait(10)) if uri == ONE else None
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(kept.subject, ONE)
        assert begun.wait(10)
        assert kept.subject(TWO) == subject_of(files(storage, TWO))
        go_on.set()
        assert slow.result() == subject_of(files(storage, ONE))


def test_the_database_can_be_written_while_files_are_hashed(kept: KeptSubjects, storage: Watched, tmp_path: Path) -> None:
    def write(_uri: str) -> None:
        with sqlite3.connect(tmp_path / "mlflow.db", timeout=0) as connection:
            connection.execute("UPDATE unlearn_gate SET turn = turn + 1")
        connection.close()

    storage.__dict__["meanwhile"] = write
    assert kept.subject(ONE)


def test_files_that_change_once_while_they_are_read_are_read_again(kept: KeptSubjects, storage: Watched) -> None:
    storage.__dict__["meanwhile"] = lambda _uri: (files(storage, ONE) / "more").write_bytes(b"") if read(storage)[ONE] == 1 else None
    assert kept.subject(ONE) == subject_of(files(storage, ONE))
    assert read(storage)[ONE] == 2


def test_files_that_never_rest_are_refused(kept: KeptSubjects, storage: Watched, engine: sql.Engine) -> None:
    storage.__dict__["meanwhile"] = lambda _uri: (files(storage, ONE) / f"{read(storage)[ONE]}").write_bytes(b"")
    with pytest.raises(TamperedError, match="is being written to"):
        kept.subject(ONE)
    assert (read(storage)[ONE], rows(engine)) == (3, 0)


def test_files_that_were_written_a_moment_ago_are_hashed_and_not_kept(
    kept: KeptSubjects, storage: Watched, engine: sql.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_listings, "RACY_S", 60)
    assert kept.subject(ONE) == kept.subject(ONE)
    assert (read(storage)[ONE], rows(engine)) == (2, 0)


def empty(folder: Path) -> None:
    (folder / "weights").unlink()


def gone(folder: Path) -> None:
    empty(folder)
    folder.rmdir()


@pytest.mark.parametrize(("make", "words"), [(empty, "no model's files are there"), (gone, "cannot be listed")])
def test_where_no_model_is_there_is_no_subject(kept: KeptSubjects, storage: Watched, make: Any, words: str) -> None:
    make(files(storage, ONE))
    with pytest.raises(StoreError, match=words):
        kept.subject(ONE)


def test_weights_that_were_cut_short_are_refused(kept: KeptSubjects, storage: Watched) -> None:
    (files(storage, ONE) / "model.safetensors").write_bytes(b"short")
    with pytest.raises(TamperedError, match="not a safetensors file"):
        kept.subject(ONE)


def test_a_database_without_our_tables_is_said_to_be_silent(storage: Watched, tmp_path: Path) -> None:
    engine = sql.create_engine(f"sqlite:///{tmp_path}/other.db")
    with pytest.raises(StoreError, match="MLflow's database does not answer"):
        KeptSubjects(KeptRows(KEY), engine, storage).subject(ONE)
    engine.dispose()


def test_a_model_on_s3_is_downloaded_once(bucket: Any, engine: sql.Engine, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr(file_listings, "RACY_S", 0)
    bucket.put_object(Bucket="models", Key="p/0/models/m-1/artifacts/weights", Body=b"w")
    storage = Watched("unlearn-s3://models/p")
    kept = KeptSubjects(KeptRows(KEY), engine, storage)
    first = kept.subject(ONE)
    assert kept.subject("s3://models/p/0/models/m-1/artifacts/") == first
    assert ([each["name"] for each in first], read(storage)) == ([".", "weights"], {ONE: 1})


@pytest.fixture
def registered(engine: sql.Engine) -> Callable[..., None]:
    """Registers versions of `m`, in this order, with the places of their files."""
    Base.metadata.create_all(engine, tables=[SqlRegisteredModel.__table__, SqlModelVersion.__table__])

    def register(*places: tuple[str, str]) -> None:
        common = {"workspace": "default", "name": "m", "current_stage": "None"}
        rows = [{"version": n, "creation_time": n, "source": one, "storage_location": other} for n, (one, other) in enumerate(places, 1)]
        with engine.begin() as connection:
            connection.execute(SqlModelVersion.__table__.insert(), [common | row for row in rows])

    return register


def weighed(folder: Path, value: float) -> str:
    save_file({"w": np.full(4, value, np.float32)}, folder / "model.safetensors")
    return str(subject_of(folder)[0]["digest"]["tensors"])


def test_versions_are_found_by_weights_that_were_hashed_before_and_nothing_is_hashed_for_it(
    kept: KeptSubjects, storage: Watched, registered: Callable[..., None]
) -> None:
    one, two = weighed(files(storage, ONE), 1), weighed(files(storage, TWO), 2)
    spelled = ONE.replace("/models", "//models/")
    registered(("models:/m-1", spelled), (TWO, ""), ("models:/m/1", spelled))
    assert kept.with_weights(one) == kept.with_weights("0" * 64) == ()
    kept.subject(spelled)
    kept.subject(TWO)
    before = read(storage).copy()
    assert [[each.version for each in kept.with_weights(digest)] for digest in (one, two)] == [["1", "3"], ["2"]]
    assert read(storage) == before


def test_weights_that_were_exchanged_or_forgotten_or_written_by_others_are_found_no_more(
    kept: KeptSubjects, storage: Watched, registered: Callable[..., None], engine: sql.Engine
) -> None:
    registered((ONE, ONE), (TWO, TWO))
    first, second = weighed(files(storage, ONE), 1), weighed(files(storage, TWO), 2)
    kept.subject(ONE)
    kept.subject(TWO)
    third = weighed(files(storage, ONE), 3)
    kept.subject(ONE)
    assert (kept.with_weights(first), [each.version for each in kept.with_weights(third)]) == ((), ["1"])
    kept.forget(TWO)
    assert kept.with_weights(second) == ()
    with engine.begin() as connection:
        KeptRows(b"x" * 32).put(connection, "weights", third, {ONE: [TWO]})
    assert kept.with_weights(third) == ()


def test_whoever_registers_copies_and_deletes_them_leaves_room_for_the_base(
    kept: KeptSubjects, storage: Watched, registered: Callable[..., None], engine: sql.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_subjects, "_PLACES", 1)
    registered((ONE, ONE), (TWO, TWO))
    digest = weighed(files(storage, ONE), 1)
    weighed(files(storage, TWO), 1)
    (files(storage, TWO) / "weights").write_bytes(b"m-1")
    kept.subject(ONE)
    kept.subject(TWO)
    assert [each.version for each in kept.with_weights(digest)] == ["1"]
    with engine.begin() as connection:
        connection.execute(SqlModelVersion.__table__.update().where(SqlModelVersion.version == 1).values(current_stage="Deleted_Internal"))
    before = read(storage).copy()
    for server in (kept, KeptSubjects(KeptRows(KEY), engine, storage)):
        server.subject(TWO)
        assert [each.version for each in server.with_weights(digest)] == ["2"]
    assert read(storage) == before
    with engine.begin() as connection:
        connection.execute(SqlModelVersion.__table__.update().values(current_stage="None"))
        connection.execute(SqlModelVersion.__table__.delete().where(SqlModelVersion.version == 2))
    kept.subject(ONE)
    assert [each.version for each in kept.with_weights(digest)] == ["1"]
