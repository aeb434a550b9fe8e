import dataclasses
import json
import shutil
import subprocess
import sys

import pytest

from mlflow_unlearn.adapters.dvc_project import DvcProject
from mlflow_unlearn.errors import LineageError, StoreError

TRAIN = "data/train"


def by_name(project):
    return {name: state for state in project.dataset_states("d", TRAIN) for name in state.revisions}


def test_every_state_of_every_ref_is_found_also_one_that_a_merge_threw_away(repository):
    states = DvcProject(repository.root).dataset_states("d", TRAIN)
    side = repository.git("rev-list", "--grep=^v2$", "--all").strip()[:8]
    assert len({state.md5 for state in states}) == 4
    assert sorted(state.revisions for state in states) == sorted([("data-v1",), (side,), ("main", "workspace"), ("trial",)])
    assert all(state.md5.endswith(".dir") and state.path == TRAIN for state in states)


def test_a_detached_head_is_searched_too(repository):
    repository.git("checkout", "-q", "--detach")
    repository.people("data/train/shard-1.csv", "solo")
    repository.add(TRAIN)
    commit = repository.commit("v5")
    assert commit[:8] in by_name(DvcProject(repository.root))


def test_an_uncommitted_state_is_called_workspace_alone(repository):
    repository.people("data/train/shard-1.csv", "solo")
    repository.add(TRAIN)
    project = DvcProject(repository.root)
    assert by_name(project)["workspace"].revisions == ("workspace",)
    assert project.current_state("d", TRAIN) == by_name(project)["workspace"]


def test_parses_kept_from_an_earlier_run_change_nothing(repository):
    (repository.root / ".unlearn").mkdir()
    first = DvcProject(repository.root).dataset_states("d", TRAIN)
    assert json.loads((repository.root / ".unlearn/index/tracking.json").read_bytes())
    assert DvcProject(repository.root).dataset_states("d", TRAIN) == first


def test_listing_states_imports_no_dvc(repository):
    code = "import sys; from pathlib import Path; from mlflow_unlearn.adapters.dvc_project import DvcProject; "
    code += "DvcProject(Path()).dataset_states('d', 'data/train'); print([m for m in sys.modules if m in ('dvc', 'dvc_data', 'torch')])"
    done = subprocess.run([sys.executable, "-c", code], cwd=repository.root, text=True, capture_output=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_sibling_is_the_one_committed_with_the_data(repository):
    project = DvcProject(repository.root)
    states = by_name(project)
    old, new = project.beside("data/holdout.csv", states["main"]), project.beside("data/holdout.csv", states["trial"])
    assert project.local_path(old).read_text() != project.local_path(new).read_text()
    assert project.beside("data/absent.csv", states["main"]) is None


def test_a_sibling_of_a_pinned_state_survives_the_branch_moving_on(repository):
    project = DvcProject(repository.root)
    pinned = by_name(project)["main"]
    before = project.beside("data/holdout.csv", pinned)
    repository.git("merge", "-q", "trial")
    assert project.beside("data/holdout.csv", pinned) == before


def test_files_in_git_are_read_at_a_revision(repository):
    project = DvcProject(repository.root)
    assert project.git_show("trial", "data/commitment.json") == b"{}"
    assert project.git_show("trial", "no/such") is None


def test_files_of_an_output_come_with_their_names(repository):
    project = DvcProject(repository.root)
    listed = dict(project.files(by_name(project)["data-v1"].md5))
    assert sorted(listed) == ["shard-0.csv", "shard-1.csv"]
    assert "ana" in project.local_path(listed["shard-0.csv"]).read_text()
    assert project.files("0" * 32) == (("", "0" * 32),)


def test_what_the_cache_lacks_comes_from_the_remote(repository):
    project = DvcProject(repository.root)
    state = by_name(project)["trial"]
    repository.empty_cache()
    files = project.files(state.md5)
    project.prefetch(md5 for _, md5 in files)
    assert all(project.local_path(md5).is_file() for _, md5 in files)


def test_what_nobody_holds_is_one_clear_line(repository):
    with pytest.raises(StoreError, match=r"^object 00000000: neither DVC's cache nor a remote of any revision gave it; run `dvc push`[^\n]*$"):
        DvcProject(repository.root).local_path("0" * 32)


def test_a_cache_in_another_place_is_found(repository, tmp_path):
    md5 = by_name(DvcProject(repository.root))["main"].md5
    (repository.root / ".dvc/cache").rename(tmp_path / "elsewhere")
    repository.dvc("cache", "dir", "-q", "--local", str(tmp_path / "elsewhere"))
    assert DvcProject(repository.root).local_path(md5).is_relative_to(tmp_path / "elsewhere")


def test_commit_output_commits_the_tracking_file_alone(repository):
    project = DvcProject(repository.root)
    before = project.current_state("d", TRAIN)
    repository.write("unrelated.txt", "left alone")
    repository.git("add", "unrelated.txt")
    (repository.root / "data/train/shard-0.csv").unlink()
    repository.people("data/train/shard-0.csv", "bo")
    project.commit_output(TRAIN, "Erase er-1")
    assert project.current_state("d", TRAIN).md5 != before.md5
    assert repository.git("show", "--format=%s", "--name-only", "HEAD").split("\n\n") == ["Erase er-1", "data/train.dvc\n"]
    head = project.head()
    project.commit_output(TRAIN)
    assert project.head() == head


def test_stage_folders_and_foreach_names_are_resolved(tmp_path, new_repository):
    made = new_repository(tmp_path / "p")
    made.write("pipelines/x/dvc.yaml", STAGES)
    for folder in ("a", "b", "far"):
        (made.root / "data" / folder).mkdir(parents=True)
    made.dvc("repro", "-q", "pipelines/x/dvc.yaml")
    made.commit("made")
    project = DvcProject(made.root)
    for path, stage in (("data/a/out.txt", "each@a"), ("data/b/out.txt", "each@b"), ("data/far/out.txt", "dicts@one"), ("data/m-1-2", "grid@1-2")):
        found = project.output_at(path, "main")
        assert (found.stage, found.owner, project.output_at(path, "workspace")) == (stage, "pipelines/x/dvc.lock", found)
    assert project.output_at("pipelines/x/out.txt", "main") is None


STAGES = """
stages:
  each:
    foreach: [a, b]
    do: {wdir: "../../data/${item}", cmd: "echo ${item} > out.txt", outs: [out.txt]}
  dicts:
    foreach: {one: {where: far}}
    do: {wdir: "../../data/${item.where}", cmd: "echo ${key} > out.txt", outs: [out.txt]}
  grid:
    matrix: {x: [1], y: [2]}
    wdir: ../../data
    cmd: echo 1 > m-${item.x}-${item.y}
    outs: ["m-${item.x}-${item.y}"]
"""


CONFLICT = "<<<<<<< HEAD\nouts:\n=======\n>>>>>>> x\n"
MENDING = r"not YAML; it has conflict markers: run `git checkout --ours` on it, then `dvc repro`$"


@pytest.mark.parametrize("file", ["data/train.dvc", "dvc.lock"])
def test_a_conflict_in_the_workspace_that_may_hide_the_dataset_is_one_clear_line(repository, file):
    (repository.root / "data/train.dvc").unlink()
    repository.write(file, CONFLICT)
    for ask in (DvcProject.dataset_states, DvcProject.current_state):
        with pytest.raises(StoreError, match=rf"^{file}: {MENDING}"):
            ask(DvcProject(repository.root), "d", TRAIN)


def test_a_conflict_in_the_workspace_that_hides_another_dataset_is_a_problem_only(repository):
    repository.write("dvc.lock", CONFLICT)
    project = DvcProject(repository.root)
    assert len(project.dataset_states("d", TRAIN)) == 4
    assert [line.split(":")[0] for line in project.problems()] == ["dvc.lock at workspace"]


def test_conflict_markers_once_committed_hide_only_their_own_commit(repository):
    good = (repository.root / "data/train.dvc").read_text()
    repository.write("data/train.dvc", CONFLICT)
    commit = repository.commit("broken")
    repository.write("data/train.dvc", good)
    repository.commit("mended")
    assert len(DvcProject(repository.root).dataset_states("d", TRAIN)) == 4
    assert [line.split(":")[0] for line in DvcProject(repository.root).problems()] == [f"data/train.dvc at {commit[:8]}"]
    with pytest.raises(StoreError, match=rf"^data/train\.dvc at {commit}: not YAML"):
        DvcProject(repository.root).output_at(TRAIN, commit)


def test_what_dvc_itself_ran_or_queued_is_found_with_its_names(tmp_path, new_repository):
    made = new_repository(tmp_path / "p")
    made.write("params.yaml", "n: 1\n")
    made.write("dvc.yaml", "stages: {make: {cmd: 'cp params.yaml out.txt', params: [n], outs: [out.txt]}}")
    made.dvc("repro", "-q")
    made.commit("one")
    made.dvc("exp", "run", "-q", "-n", "brave-cat", "-S", "n=2")
    made.git("checkout", "-q", "--", ".")
    for number in (3, 4):
        made.dvc("exp", "run", "-q", "--queue", "-S", f"n={number}")
    names = sorted(name for state in DvcProject(made.root).dataset_states("d", "out.txt") for name in state.revisions)
    queued = sorted(f"queued experiment {line[:7]}" for line in made.git("reflog", "--format=%H", "refs/exps/celery/stash").splitlines())
    assert names == sorted(["brave-cat", "main", *queued, "workspace"])


def test_a_state_that_only_a_stash_holds_is_found(repository):
    for names in (["solo"], ["duo"]):
        repository.people("data/train/shard-1.csv", *names)
        repository.add(TRAIN)
        repository.git("stash", "-q")
    entries = repository.git("stash", "list", "--format=%H").split()
    found = by_name(DvcProject(repository.root))
    assert len({found[f"stash {entry[:7]}"].md5 for entry in entries}) == 2


def test_an_import_is_a_derivation_and_its_bytes_come_from_its_repository(repository, new_repository, tmp_path):
    source = new_repository(tmp_path / "source")
    source.people("people.csv", "ana")
    source.add("people.csv")
    commit = source.commit("v1")
    repository.dvc("import", "-q", str(source.root), "people.csv", "-o", "taken.csv")
    repository.empty_cache()
    project = DvcProject(repository.root)
    [edge] = [each for each in project.derivations() if each.target_path == "taken.csv"]
    assert (edge.source, edge.source_path, edge.stage) == ("", f"{source.root}:people.csv@{commit}", "taken.csv.dvc")
    assert "ana" in project.local_path(edge.target).read_text()


@pytest.fixture
def nested(tmp_path, new_repository):
    """DVC in a folder of the git repository, its data committed."""
    outer = new_repository(tmp_path / "outer")
    outer.git("rm", "-qrf", ".")
    shutil.rmtree(outer.root / ".dvc", ignore_errors=True)
    inner = dataclasses.replace(outer, root=outer.root / "ml/deep")
    inner.root.mkdir(parents=True)
    inner.dvc("init", "-q", "--subdir")
    inner.people("people.csv", "ana")
    inner.add("people.csv")
    inner.commit("v1")
    return inner


def test_a_project_in_a_folder_of_the_repository_is_found_from_below(nested):
    root = nested.root.parent.parent
    (nested.root / "below").mkdir()
    project = DvcProject(root, nested.root / "below")
    [state] = project.dataset_states("d", "ml/deep/people.csv")
    assert (state.revisions, project.folder) == (("main", "workspace"), nested.root)
    nested.people("people.csv", "bo")
    project.commit_output("ml/deep/people.csv")
    assert "ana" in project.local_path(state.md5).read_text()
    assert len(project.dataset_states("d", "ml/deep/people.csv")) == 2


def test_a_project_that_lies_deeper_says_to_go_there(nested):
    with pytest.raises(StoreError, match="DVC is not set up here; run `dvc init`, or work from the folder where it is"):
        DvcProject(nested.root.parent.parent)


def test_what_dvc_does_not_track_is_named_with_a_way_out(repository):
    project = DvcProject(repository.root)
    with pytest.raises(LineageError, match="run `dvc add data/none`"):
        project.current_state("d", "data/none")
    with pytest.raises(LineageError, match="inside the output data/train, name that"):
        project.current_state("d", "data/train/shard-0.csv")
    with pytest.raises(LineageError, match="revision 'nowhere'"):
        project.output_at(TRAIN, "nowhere")


def test_without_dvc_the_way_out_is_named(tmp_path):
    with pytest.raises(StoreError, match="run `dvc init`"):
        DvcProject(tmp_path)


def test_head_and_dirt_are_told(repository, new_repository, tmp_path):
    project = DvcProject(repository.root)
    assert project.head() == repository.git("rev-parse", "HEAD").strip()
    assert not project.is_dirty()
    repository.write("data/commitment.json", "changed")
    assert project.is_dirty()
    assert DvcProject(new_repository(tmp_path / "empty").root).head() is None
