import pytest

from mlflow_unlearn.adapters.dvc_remotes import cache_folder, remotes
from mlflow_unlearn.adapters.git_history import GitHistory


def read(repository):
    return remotes(GitHistory(repository.root), repository.root)


def config(repository, name, **options):
    body = "".join(f"    {option} = {value}\n" for option, value in options.items())
    repository.write(".dvc/config", f"[core]\n    remote = {name}\n['remote \"{name}\"']\n{body}")


def test_the_workspace_comes_first_its_default_before_the_others(repository):
    repository.dvc("remote", "add", "-q", "abc", "s3://bucket/x")
    assert [remote.name for remote in read(repository).here] == ["store", "abc"]


def test_the_local_configuration_goes_over_the_shared_one(repository, tmp_path):
    assert [remote.directory for remote in read(repository).here] == [tmp_path / "home/remote"]


def test_a_remote_of_an_old_revision_counts_its_folder_from_dot_dvc(repository):
    config(repository, "old", url="../../moved")
    repository.commit("moved")
    config(repository, "new", url="s3://bucket/x")
    repository.commit("moved again")
    [old] = [remote for remote in read(repository).past if remote.name == "old"]
    assert old.directory.resolve() == (repository.root / "../moved").resolve()


def test_a_reference_to_another_remote_is_followed(repository):
    repository.write(".dvc/config", "['remote \"a\"']\n    url = s3://bucket/x\n['remote \"b\"']\n    url = remote://a/deep\n")
    assert {remote.name: remote.url for remote in read(repository).here}["b"] == "s3://bucket/x/deep"


@pytest.mark.parametrize("option", ["configpath", "credentialpath", "secret_access_key", "password", "keyfile", "custom_auth_header"])
def test_an_old_revision_sets_no_credentials_and_names_no_file_of_them(repository, option):
    config(repository, "old", url="s3://bucket/x", **{option: "evil", "endpointurl": "https://s3.example"})
    repository.commit("old")
    config(repository, "new", url="s3://other/x")
    [old] = [remote for remote in read(repository).past if remote.name == "old"]
    assert old.options == {"url": "s3://bucket/x", "endpointurl": "https://s3.example"}


def test_credentials_of_the_workspace_go_to_their_own_server_and_to_no_other(repository):
    for place in ("https://own.example/old", "https://stranger.example/x"):
        config(repository, "web", url=place)
        repository.commit(place)
    config(repository, "web", url="https://own.example/new")
    repository.write(".dvc/config.local", "['remote \"web\"']\n    password = secret\n")
    assert {remote.url: remote.options.get("password") for remote in read(repository).past if remote.name == "web"} == {
        "https://own.example/old": "secret",
        "https://stranger.example/x": None,
    }


def test_a_configuration_in_conflict_is_named_and_hides_no_other(repository):
    before = read(repository).past
    repository.write(".dvc/config", "<<<<<<< HEAD\n[core]\n=======\n")
    repository.commit("conflict")
    assert (read(repository).unread, read(repository).past) == ((".dvc/config",), before)


def test_the_cache_is_where_the_configuration_puts_it(repository, tmp_path):
    assert cache_folder(repository.root / ".dvc") == repository.root / ".dvc/cache"
    repository.dvc("cache", "dir", "-q", "../shared")
    assert cache_folder(repository.root / ".dvc").resolve() == tmp_path / "home/shared"
    repository.dvc("cache", "dir", "-q", "--local", str(tmp_path / "own"))
    assert cache_folder(repository.root / ".dvc") == tmp_path / "own"
