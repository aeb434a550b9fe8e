import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_unlearn.adapters.git_history import GitHistory, blob_id
from mlflow_unlearn.errors import StoreError

FAILED, QUEUED = "refs/exps/celery/failed", "refs/exps/celery/stash"


def stash(repository, ref, text):
    """One more entry in a stash of DVC's, as DVC makes it: a merge commit that only the reflog keeps once another follows."""
    repository.write("data/train.dvc", text)
    commit = repository.git("stash", "create").strip()
    repository.git("update-ref", "--create-reflog", "-m", "commit: dvc-exp", ref, commit)
    repository.git("checkout", "-q", "--", ".")
    return commit


def named(repository):
    return set(GitHistory(repository.root).tips().values())


@pytest.mark.parametrize(("ref", "kind"), [(QUEUED, "queued experiment"), (FAILED, "failed experiment"), ("refs/exps/stash", "queued experiment")])
@pytest.mark.parametrize("packed", [False, True])
def test_every_entry_of_a_stash_is_a_tip_and_not_only_the_newest(repository, ref, kind, packed):
    commits = [stash(repository, ref, f"outs: [{{path: train, md5: {number * 32}}}]\n") for number in "123"]
    if packed:
        repository.git("pack-refs", "--all")
        repository.git("gc", "-q")
    assert named(repository) >= {f"{kind} {commit[:7]}" for commit in commits}
    history = GitHistory(repository.root)
    assert set(history.changes(["*.dvc"], history.tips())[0]) >= set(commits)


def test_an_entry_whose_reflog_is_gone_is_still_a_tip(repository):
    commit = stash(repository, QUEUED, "outs: [{path: train, md5: 1}]\n")
    shutil.rmtree(repository.root / ".git/logs/refs/exps")
    assert f"queued experiment {commit[:7]}" in named(repository)


def test_branches_tags_experiments_and_remote_branches_have_their_names(repository):
    repository.git("update-ref", f"refs/exps/ab/{'c' * 38}/brave-cat", "HEAD")
    repository.git("update-ref", "refs/exps/exec/EXEC_HEAD", "HEAD")
    repository.git("update-ref", "refs/remotes/origin/far", "HEAD")
    repository.git("symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/far")
    repository.git("tag", "of-a-file", repository.git("rev-parse", "HEAD:data/train.dvc").strip())
    assert named(repository) == {"brave-cat", "data-v1", "main", "origin/far", "trial"}


def test_a_repository_without_commits_has_no_past(new_repository, tmp_path):
    history = GitHistory(new_repository(tmp_path / "empty").root)
    assert (history.tips(), history.changes(["*.dvc"]), history.commit("HEAD")) == ({}, ((), ()), None)


def test_a_replacement_does_not_stand_for_an_object(repository):
    original = repository.git("rev-parse", "HEAD:data/train.dvc").strip()
    other = repository.git("rev-parse", "data-v1:data/train.dvc").strip()
    repository.git("replace", original, other)
    assert blob_id(GitHistory(repository.root).contents([original])[original]) == original


def test_what_a_renaming_left_behind_is_found(repository):
    repository.git("mv", "data/train.dvc", "data/moved.dvc")
    repository.commit("moved")
    assert set(GitHistory(repository.root).changes(["*.dvc"])[1]) == {"data/train.dvc", "data/moved.dvc", "data/holdout.csv.dvc"}


@pytest.mark.parametrize("setting", ["log.showSignature=true", "log.showRoot=false", "log.diffMerges=first-parent", "diff.renames=copies"])
def test_settings_of_the_user_hide_nothing(repository, setting):
    before = GitHistory(repository.root).changes(["*.dvc"])
    repository.git("config", *setting.split("="))
    assert GitHistory(repository.root).changes(["*.dvc"]) == before


def test_files_with_odd_names_are_read_at_their_revisions(repository):
    odd = ['a"b.dvc', "ä ö.dvc", "new\nline.dvc", "data/train.dvc"]
    for name in odd[:3]:
        repository.write(name, name)
    repository.commit("odd")
    history = GitHistory(repository.root)
    assert set(history.changes(["*.dvc"])[1]) >= set(odd)
    found = history.blobs(["HEAD"], odd)["HEAD"]
    assert history.contents([found["new\nline.dvc"]]) == {found["new\nline.dvc"]: b"new\nline.dvc"}
    assert found.keys() == set(odd)


def test_objects_that_are_not_here_are_left_out(repository):
    held = repository.git("rev-parse", "HEAD:data/train.dvc").strip()
    assert GitHistory(repository.root).contents(["0" * 40, held, "f" * 40]).keys() == {held}


def test_a_partial_clone_is_read_without_asking_the_server(repository, tmp_path):
    repository.git("config", "uploadpack.allowFilter", "true")
    repository.git("clone", "-q", "--filter=blob:none", f"file://{repository.root}", str(tmp_path / "partial"))
    repository.root.rename(tmp_path / "gone")
    history = GitHistory(tmp_path / "partial")
    old, new = history.blobs(["data-v1", "HEAD"], ["data/train.dvc"]).values()
    assert history.is_partial
    assert history.contents([*old.values(), *new.values()]).keys() == set(new.values())


def test_a_shallow_clone_is_told(repository, tmp_path):
    repository.git("clone", "-q", "--depth", "1", f"file://{repository.root}", str(tmp_path / "shallow"))
    assert [GitHistory(root).is_shallow for root in (repository.root, tmp_path / "shallow")] == [False, True]


def test_the_history_of_a_worktree_is_that_of_its_repository(repository, tmp_path):
    repository.git("worktree", "add", "-q", "--detach", str(tmp_path / "tree"), "data-v1")
    tree, main = GitHistory(tmp_path / "tree"), GitHistory(repository.root)
    assert (tree.tips(), tree.changes(["*.dvc"]), tree.is_shallow) == (main.tips(), main.changes(["*.dvc"]), False)


def test_asking_takes_no_lock(repository):
    (repository.root / ".git/index.lock").touch()
    assert not GitHistory(repository.root).is_dirty()


def test_git_says_in_one_line_what_is_wrong(tmp_path):
    with pytest.raises(StoreError, match=r"^git for-each-ref[^\n]*: fatal: not a git repository[^\n]*$"):
        GitHistory(tmp_path).tips()


@settings(max_examples=20, deadline=None)
@given(st.binary(max_size=50))
def test_blob_ids_are_gits(content):
    asked = subprocess.run(["git", "hash-object", "--stdin"], input=content, capture_output=True, check=True)
    assert blob_id(content) == asked.stdout.decode().strip()
