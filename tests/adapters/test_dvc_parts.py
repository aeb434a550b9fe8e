import hashlib

from mlflow_unlearn.adapters.dvc_project import DvcProject


def pipeline(repository):
    """A stage that reads a file and a folder inside an output of DVC's, as DVC itself records it."""
    repository.people("big/a.csv", "ana")
    repository.people("big/deep/er/b.csv", "bo")
    repository.people("big/deep/c.csv", "cy")
    repository.add("big")
    repository.write("dvc.yaml", "stages: {s: {cmd: cat big/a.csv big/deep/c.csv > out, deps: [big/a.csv, big/deep], outs: [out]}}")
    repository.dvc("repro", "-q")
    repository.commit("ran")


def edges(repository):
    found = DvcProject(repository.root).derivations()
    return {(each.source_path, each.target_path, each.stage) for each in found}, {each.target_path: each for each in found}


def test_a_file_and_a_folder_inside_an_output_are_made_from_it(repository):
    pipeline(repository)
    found, by_target = edges(repository)
    assert found >= {
        ("big", "big/a.csv", "big.dvc"),
        ("big", "big/deep", "big.dvc"),
        ("big/a.csv", "out", "dvc.yaml:s"),
        ("big/deep", "out", "dvc.yaml:s"),
    }
    assert by_target["big/a.csv"].source == DvcProject(repository.root).current_state("d", "big").md5
    assert by_target["big/a.csv"].target == hashlib.md5((repository.root / "big/a.csv").read_bytes()).hexdigest()


def test_a_dependency_that_the_list_does_not_hold_is_not_claimed(repository):
    pipeline(repository)
    repository.git("rm", "-q", "--cached", "big.dvc", "dvc.lock")
    repository.git("commit", "-q", "--amend", "-m", "never kept")
    repository.people("big/a.csv", "dee")
    repository.add("big")
    assert ("big", "big/a.csv", "big.dvc") not in edges(repository)[0]


def test_a_list_that_is_not_here_proves_nothing_and_is_not_fetched(repository):
    pipeline(repository)
    repository.empty_cache()
    assert {source for source, _, _ in edges(repository)[0]} == {"big/a.csv", "big/deep"}
