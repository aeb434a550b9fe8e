import functools
import hashlib
import json
import shutil
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mlflow_unlearn.adapters.dvc_history import TrackingHistory
from mlflow_unlearn.adapters.dvc_objects import DvcObjects, is_sound
from mlflow_unlearn.adapters.git_history import GitHistory
from mlflow_unlearn.errors import StoreError

NOBODY = r"neither DVC's cache nor a remote of any revision gave it"


def objects(repository):
    return DvcObjects(repository.root, TrackingHistory(GitHistory(repository.root)))


def md5_of(repository, path="data/holdout.csv"):
    return hashlib.md5((repository.root / path).read_bytes()).hexdigest()


def without_remotes(repository):
    """A repository of one commit whose configuration never named a remote."""
    for file in ("config", "config.local"):
        (repository.root / ".dvc" / file).write_text("")
    repository.git("checkout", "-q", "--orphan", "alone")
    repository.commit("alone")
    for ref in repository.git("for-each-ref", "--format=%(refname)").split():
        if ref != "refs/heads/alone":
            repository.git("update-ref", "-d", ref)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def served(repository, tmp_path):
    """The remote over HTTP: nothing of it can be read as a directory."""
    shutil.move(tmp_path / "home/remote", tmp_path / "served")
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path / "served")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    without_remotes(repository)
    repository.dvc("remote", "add", "-q", "-d", "web", f"http://127.0.0.1:{server.server_port}")
    repository.empty_cache()
    yield tmp_path / "served"
    server.shutdown()
    server.server_close()


def test_the_cache_of_dvc_2_is_looked_in(repository):
    md5 = md5_of(repository)
    new = repository.root / f".dvc/cache/files/md5/{md5[:2]}/{md5[2:]}"
    old = repository.root / f".dvc/cache/{md5[:2]}/{md5[2:]}"
    old.parent.mkdir()
    new.rename(old)
    assert objects(repository).find(md5) == old


def test_a_directory_that_is_a_remote_is_read_where_it_is_and_dvc_is_not_loaded(repository, tmp_path):
    repository.empty_cache()
    found = objects(repository)
    assert found.find(md5_of(repository)).is_relative_to(tmp_path / "home/remote")
    assert "_downloads" not in vars(found)
    assert not (repository.root / ".dvc/cache").exists()


def test_data_that_only_the_remote_of_an_old_revision_holds_are_found(repository, tmp_path):
    without_remotes(repository)
    repository.write(".dvc/config", "[core]\n    remote = r\n['remote \"r\"']\n    url = ../../remote\n")
    repository.commit("relative")
    repository.write(".dvc/config", "[core]\n    remote = r\n['remote \"r\"']\n    url = ../../elsewhere\n")
    repository.commit("moved")
    repository.empty_cache()
    assert objects(repository).find(md5_of(repository)).resolve().is_relative_to(tmp_path / "home/remote")


def test_a_wrong_object_in_a_remote_is_named_and_never_used(repository, tmp_path):
    md5 = md5_of(repository)
    (tmp_path / f"home/remote/files/md5/{md5[:2]}/{md5[2:]}").chmod(0o644)
    (tmp_path / f"home/remote/files/md5/{md5[:2]}/{md5[2:]}").write_text("others")
    shutil.rmtree(repository.root / ".git/refs/tags")
    repository.empty_cache()
    without_remotes(repository)
    repository.write(".dvc/config", f"['remote \"r\"']\n    url = {tmp_path}/home/remote\n")
    with pytest.raises(StoreError, match=rf"^object {md5[:8]}: what is kept under this name has other bytes"):
        objects(repository).find(md5)


def test_a_good_copy_elsewhere_wins_over_a_wrong_one(repository, tmp_path):
    md5 = md5_of(repository)
    shutil.copytree(tmp_path / "home/remote", tmp_path / "second")
    bad = tmp_path / f"home/remote/files/md5/{md5[:2]}/{md5[2:]}"
    bad.chmod(0o644)
    bad.write_text("others")
    repository.dvc("remote", "add", "-q", "second", str(tmp_path / "second"))
    repository.empty_cache()
    assert objects(repository).find(md5).is_relative_to(tmp_path / "second")


def test_what_dvc_2_hashed_with_unix_line_ends_is_sound(tmp_path):
    (tmp_path / "f").write_bytes(b"a\r\nb\r\n")
    unified, plain = (hashlib.md5(content).hexdigest() for content in (b"a\nb\n", b"a\r\nb\r\n"))
    assert is_sound(tmp_path / "f", unified)
    assert is_sound(tmp_path / "f", plain)
    assert not is_sound(tmp_path / "f", "0" * 32)


def test_a_server_is_asked_through_dvc_for_files_and_lists(repository, served):
    found = objects(repository)
    md5 = next(line.split()[-1] for line in (repository.root / "data/train.dvc").read_text().splitlines() if ".dir" in line)
    found.fetch(each for _, each in found.files(md5))
    assert {name: md5_of(repository, f"data/train/{name}") for name in ("shard-0.csv", "shard-1.csv")} == dict(found.files(md5))
    assert all(found.path(each) for _, each in found.files(md5))


def test_a_wrong_object_of_a_server_does_not_reach_the_cache(repository, served):
    md5 = md5_of(repository)
    bad = served / f"files/md5/{md5[:2]}/{md5[2:]}"
    bad.chmod(0o644)
    bad.write_text("others")
    with pytest.raises(StoreError, match=f"^object {md5[:8]}: "):
        objects(repository).find(md5)
    assert not (repository.root / f".dvc/cache/files/md5/{md5[:2]}/{md5[2:]}").exists()


def test_what_could_not_be_asked_is_said(repository, tmp_path):
    without_remotes(repository)
    repository.write(".dvc/config", "['remote \"web\"']\n    url = s3://bucket/x\n['remote \"gone\"']\n    url = ../../no-such\n")
    with pytest.raises(StoreError, match=rf"^object 00000000: {NOBODY}; [^\n]*\(could not be asked: gone: its folder is not there; web: [^\n]*\)$"):
        objects(repository).find("0" * 32)


def test_without_any_remote_the_line_is_short(repository):
    without_remotes(repository)
    with pytest.raises(StoreError, match=rf"^object 00000000: {NOBODY}; run `dvc push` where the data still are$"):
        objects(repository).find("0" * 32)


@pytest.mark.parametrize("md5", ["", "abc", "../../../../etc/passwd", "a" * 32 + "/x", "A" * 32, "a" * 32 + ".dir.dir"])
def test_what_is_no_md5_is_no_path(repository, md5):
    with pytest.raises(StoreError, match="not an md5 as DVC writes it"):
        objects(repository).find(md5)


def put(repository, content):
    md5 = hashlib.md5(content).hexdigest()
    repository.write(f".dvc/cache/files/md5/{md5[:2]}/{md5[2:]}.dir", content.decode())
    return f"{md5}.dir"


@pytest.mark.parametrize("content", [b"[", b"{}x", b"[1]", b"[{}]", b"5", b"\x00"])
def test_a_list_of_files_that_is_none_is_refused(repository, content):
    with pytest.raises(StoreError, match="not a list of files as DVC writes it"):
        objects(repository).files(put(repository, content))


@pytest.mark.parametrize("relpath", ["../x", "/etc/x", "a/../../x"])
def test_a_list_that_leads_outside_its_directory_is_refused(repository, relpath):
    listed = json.dumps([{"relpath": relpath, "md5": "0" * 32}]).encode()
    with pytest.raises(StoreError, match="outside its own directory"):
        objects(repository).files(put(repository, listed))


def test_a_list_cut_short_in_the_cache_is_not_read(repository):
    without_remotes(repository)
    md5 = put(repository, json.dumps([{"relpath": "a", "md5": "0" * 32}]).encode())
    file = repository.root / f".dvc/cache/files/md5/{md5[:2]}/{md5[2:]}"
    file.write_text("[]")
    with pytest.raises(StoreError, match="has other bytes"):
        objects(repository).files(md5)


def test_bytes_in_a_cloud_versioned_remote_are_said_to_be_there(repository):
    repository.write("cloudy.csv.dvc", f"outs: [{{path: cloudy.csv, md5: {'e' * 32}, cloud: {{r: {{etag: x, version_id: y}}}}}}]")
    with pytest.raises(StoreError, match="cloud-versioned remote, which is not supported yet"):
        objects(repository).find("e" * 32)


def imported(repository, new_repository, tmp_path, *, path="data"):
    """`data` comes from another repository, whose own cache is all that holds it; it has moved on since."""
    source = new_repository(tmp_path / "source")
    source.people("data/a.csv", "ana")
    source.people("data/deep/b.csv", "bo")
    source.add("data")
    source.commit("v1")
    repository.dvc("import", "-q", str(source.root), path, "-o", "taken")
    repository.commit("imported")
    source.people("data/a.csv", "cy")
    source.add("data")
    source.commit("v2")
    return source


def test_an_imported_directory_is_read_from_its_own_repository_at_its_revision(repository, new_repository, tmp_path):
    imported(repository, new_repository, tmp_path)
    without_remotes(repository)
    repository.empty_cache()
    found = objects(repository)
    [each] = found.history.imports()
    listed = dict(found.files(each.md5))
    assert sorted(listed) == ["a.csv", "deep/b.csv"]
    assert "ana" in found.find(listed["a.csv"]).read_text()


def test_an_imported_file_is_read_even_if_its_list_alone_is_in_the_cache(repository, new_repository, tmp_path):
    imported(repository, new_repository, tmp_path)
    without_remotes(repository)
    [each] = objects(repository).history.imports()
    listed = dict(objects(repository).files(each.md5))
    kept = objects(repository).find(each.md5).read_bytes()
    repository.empty_cache()
    assert put(repository, kept) == each.md5
    assert "bo" in objects(repository).find(listed["deep/b.csv"]).read_text()


def test_an_import_whose_repository_is_gone_is_named(repository, new_repository, tmp_path):
    source = imported(repository, new_repository, tmp_path)
    without_remotes(repository)
    repository.empty_cache()
    source.root.rename(tmp_path / "moved")
    found = objects(repository)
    [each] = found.history.imports()
    with pytest.raises(StoreError, match=rf"{NOBODY}.*\(could not be asked: taken\.dvc: its repository does not answer"):
        found.find(each.md5)


def test_the_cache_of_another_project_in_this_repository_is_looked_in(repository):
    repository.write("sub/.dvc/config", "")
    repository.commit("a second project")
    content = b"of the other"
    md5 = hashlib.md5(content).hexdigest()
    repository.write(f"sub/.dvc/cache/files/md5/{md5[:2]}/{md5[2:]}", content.decode())
    assert objects(repository).find(md5).read_bytes() == content
