import json

import pytest

from mlflow_unlearn.adapters.dvc_history import TrackingHistory
from mlflow_unlearn.adapters.git_history import GitHistory
from mlflow_unlearn.lineage import Derivation

A, B, C = (letter * 32 for letter in "abc")
BROKEN = "<<<<<<< HEAD\nouts:\n=======\n>>>>>>> x\n"


def history(repository):
    return TrackingHistory(GitHistory(repository.root))


def lock(out, md5, source=B):
    return f"schema: '2.0'\nstages:\n  s:\n    cmd: c\n    deps: [{{path: in, md5: {source}}}]\n    outs: [{{path: {out}, md5: {md5}}}]\n"


def edges(repository):
    return {(each.source, each.source_path, each.target, each.target_path) for each in history(repository).derivations()}


def test_the_graph_is_that_of_all_revisions_and_the_workspace(repository):
    repository.write("dvc.yaml", "stages: {s: {cmd: c, deps: [in], outs: [o]}}")
    for md5 in (A, B):
        repository.write("dvc.lock", lock("o", md5))
        repository.commit("ran")
    repository.write("dvc.lock", lock("o", C, source=A))
    assert history(repository).derivations() == {
        Derivation(source=source, source_path="in", target=target, target_path="o", stage="dvc.yaml:s") for source, target in ((A, C), (B, A), (B, B))
    }


def test_templates_are_filled_from_the_values_of_the_same_revision(repository):
    repository.write("p/dvc.yaml", "vars: [../v.json]\nstages: {s: {cmd: c, wdir: '${top}/${in.deep}', deps: [in], outs: [o]}}")
    repository.write("p/dvc.lock", lock("o", A))
    for top in ("x", "y"):
        repository.write("p/params.yaml", f"top: {top}")
        repository.write("v.json", json.dumps({"in": {"deep": top.upper()}}))
        repository.commit(top)
        repository.git("branch", f"of-{top}")
    assert edges(repository) == {(B, "p/x/X/in", A, "p/x/X/o"), (B, "p/y/Y/in", A, "p/y/Y/o")}
    assert history(repository).problems() == ()


def test_a_template_that_nothing_fills_is_a_problem_and_not_a_guess(repository):
    repository.write("p/dvc.yaml", "stages: {s: {cmd: c, wdir: '${top}', deps: [in], outs: [o]}}")
    repository.write("p/dvc.lock", lock("o", A))
    commit = repository.commit("no params")
    [line] = history(repository).problems()
    assert sorted(line.split(": its folder (wdir) cannot be told")[0].removeprefix("p/dvc.lock: s at ").split(", ")) == sorted(
        [commit[:8], "main", "workspace"]
    )
    assert edges(repository) == set()


def test_a_stage_that_another_revision_places_is_no_problem(repository):
    repository.write("dvc.yaml", "stages: {s: {cmd: c, deps: [in], outs: [o]}}")
    repository.write("dvc.lock", lock("o", A))
    repository.commit("ran")
    repository.write("dvc.yaml", "stages: {}")
    repository.commit("stage removed, its lock forgotten")
    assert (history(repository).problems(), edges(repository)) == ((), {(B, "in", A, "o")})


def test_a_conflict_names_every_revision_that_holds_it_and_hides_no_other(repository):
    good = (repository.root / "data/train.dvc").read_text()
    repository.write("data/train.dvc", BROKEN)
    commit = repository.commit("broken")
    repository.git("tag", "oops")
    repository.write("data/train.dvc", good)
    repository.commit("mended")
    [line] = history(repository).problems()
    assert line.startswith(f"data/train.dvc at {commit[:8]}, oops: not YAML; it has conflict markers")
    assert len(edges(repository)) == 0


def test_a_long_list_of_revisions_is_cut_short(repository):
    repository.write("data/train.dvc", BROKEN)
    repository.commit("broken")
    for number in range(6):
        repository.write(f"other-{number}.dvc", f"outs: [{{path: o, md5: {A}}}]")
        repository.commit("more")
    [line] = history(repository).problems()
    assert " and 5 more: not YAML" in line


def test_files_of_values_that_are_broken_are_named_where_they_are_needed(repository):
    repository.write("params.yaml", "top: [")
    repository.write("unneeded/params.yaml", "top: [")
    repository.write("dvc.yaml", "stages: {s: {cmd: c, wdir: '${top}'}}")
    lines = history(repository).problems()
    assert [line.split(":")[0] for line in lines] == ["params.yaml at workspace"]


def test_an_output_without_an_md5_is_a_problem(repository):
    repository.write("later.dvc", "deps: [{path: 's3://b/k'}]\nouts: [{path: later}]")
    assert [line.split(":")[0] for line in history(repository).problems()] == ["later at workspace"]


def test_a_shallow_and_a_partial_clone_say_what_to_do(repository, new_repository, tmp_path):
    repository.git("config", "uploadpack.allowFilter", "true")
    for name, option in (("shallow", "--depth=1"), ("partial", "--filter=blob:none")):
        repository.git("clone", "-q", option, f"file://{repository.root}", str(tmp_path / name))
    shallow, partial = (TrackingHistory(GitHistory(tmp_path / name)).problems() for name in ("shallow", "partial"))
    assert [line for line in shallow if "git fetch --unshallow" in line] == list(shallow)
    assert {line.split(" at ")[0] for line in partial} == {"data/train.dvc", "data/holdout.csv.dvc"}
    assert all("not in this clone; run `git fetch --refetch --no-filter`" in line for line in partial)


def test_what_a_clone_is_told_to_do_helps(repository, tmp_path):
    repository.git("config", "uploadpack.allowFilter", "true")
    for name, option, remedy in (("s", "--depth=1", ["--unshallow"]), ("p", "--filter=blob:none", ["--refetch", "--no-filter"])):
        repository.git("clone", "-q", "--no-single-branch", option, f"file://{repository.root}", str(tmp_path / name))
        repository.git("-C", str(tmp_path / name), "fetch", "-q", *remedy)
        assert TrackingHistory(GitHistory(tmp_path / name)).problems() == ()


@pytest.mark.parametrize("kept", ["", "{", "[]", '{"schema": "mlflow-unlearn.tracking/0", "parses": {}}', '{"schema": "mlflow-unlearn.tracking/1"}'])
def test_a_kept_parse_that_is_broken_or_old_is_made_anew(repository, kept):
    (repository.root / ".unlearn/index").mkdir(parents=True)
    expected = history(repository).past()
    (repository.root / ".unlearn/index/tracking.json").write_text(kept)
    assert history(repository).past() == expected
    assert json.loads((repository.root / ".unlearn/index/tracking.json").read_bytes())["parses"]


def test_a_ref_that_moves_is_seen_by_a_history_that_is_open(repository):
    tracking = history(repository)
    before = tracking.past()
    assert tracking.past() is before
    repository.git("branch", "-q", "later", "data-v1")
    assert set(tracking.past().names.values()) - set(before.names.values()) == {"later"}
