import pytest
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.meta import Meta
from dvc_data.hashfile.tree import Tree

from mlflow_unlearn.adapters.dvc_locks import parse, read
from mlflow_unlearn.errors import StoreError
from mlflow_unlearn.lineage import Derivation

A, B, C, D = (letter * 32 for letter in "abcd")
YAML = b"stages: {s: {cmd: c, wdir: w}}"


def reading(path, content, yaml=YAML):
    return read(path, parse(path, content), parse("dvc.yaml", yaml), {})


def edges(found):
    return {(each.source, each.source_path, each.target, each.target_path) for each in found.derivations}


def test_every_dependency_is_a_source_of_every_output_of_its_stage():
    lock = (
        f"stages: {{s: {{deps: [{{path: ../in, md5: {A}.dir}}, {{path: t.py, md5: {B}}}], outs: [{{path: o, md5: {C}}}, {{path: /abs, md5: {D}}}]}}}}"
    )
    found = reading("p/dvc.lock", lock.encode())
    sources, targets = [(f"{A}.dir", "p/in"), (B, "p/w/t.py")], [(C, "p/w/o"), (D, "/abs")]
    assert edges(found) == {(*source, *target) for source in sources for target in targets}
    assert {each.stage for each in found.derivations} == {"p/dvc.yaml:s"}
    assert {(each.path, each.md5, each.owner, each.stage) for each in found.outputs.values()} == {(p, m, "p/dvc.lock", "s") for m, p in targets}


def test_a_lock_of_dvc_1_without_a_schema_is_read():
    assert list(reading("dvc.lock", f"s: {{outs: [{{path: o, md5: {A}}}]}}".encode()).outputs) == ["w/o"]


def test_a_dependency_without_an_md5_is_a_source_that_is_not_known():
    lock = f"stages: {{s: {{deps: [{{path: 's3://b/k', etag: x}}, {{path: 'ds://d'}}], outs: [{{path: o, md5: {A}}}]}}}}"
    assert edges(reading("dvc.lock", lock.encode())) == {("", "s3://b/k", A, "w/o"), ("", "ds://d", A, "w/o")}


def test_an_import_names_its_repository_and_revision():
    dvc = f"frozen: true\ndeps: [{{path: data/x, repo: {{url: 'https://h/r', rev: v1, rev_lock: abc}}}}]\nouts: [{{path: x, md5: {A}}}]"
    found = reading("d/x.dvc", dvc.encode())
    assert found.derivations == (Derivation(source="", source_path="https://h/r:data/x@abc", target=A, target_path="d/x", stage="d/x.dvc"),)
    assert [(each.md5, each.url, each.path, each.revision, each.owner) for each in found.imports] == [(A, "https://h/r", "data/x", "abc", "d/x.dvc")]


def test_an_import_from_a_url_or_a_database_shows_no_query():
    url = f"deps: [{{path: 'https://h/x', etag: e, md5: {B}}}]\nouts: [{{path: x, md5: {A}}}]"
    query = f"deps: [{{db: {{query: 'select ana', connection: c}}}}]\nouts: [{{path: x, md5: {A}}}]"
    assert edges(reading("x.dvc", url.encode())) == {(B, "https://h/x", A, "x")}
    assert edges(reading("x.dvc", query.encode())) == {("", "a database", A, "x")}


def test_a_dvc_file_brings_its_own_folder():
    found = reading("a/d.dvc", f"wdir: ../b\nouts: [{{path: o, md5: {A}}}, {{path: later}}]".encode())
    assert ([(out.path, out.md5, out.stage) for out in found.outputs.values()], found.undigested) == ([("b/o", A, None)], ("b/later",))


def test_a_stage_without_a_known_folder_is_unplaced_rather_than_guessed():
    lock = f"stages: {{s: {{deps: [{{path: i, md5: {B}}}], outs: [{{path: o, md5: {A}}}]}}}}".encode()
    found = reading("dvc.lock", lock, b"stages: {s: {wdir: '${where}', cmd: c}}")
    assert (found.outputs, found.derivations, [(each.stage, each.path, each.md5) for each in found.unplaced]) == ({}, (), [("s", "o", A)])


def test_files_listed_one_by_one_have_the_digest_dvc_gives_the_directory():
    tree = Tree()
    for name, md5 in (("z/b.csv", A), ("a.csv", B)):
        tree.add(tuple(name.split("/")), Meta(), HashInfo("md5", md5))
    tree.digest()
    listed = f"outs: [{{path: d, files: [{{relpath: z/b.csv, md5: {A}, cloud: {{r: {{version_id: v}}}}}}, {{relpath: a.csv, md5: {B}}}]}}]"
    found = reading("d.dvc", listed.encode())
    assert (found.outputs["d"].md5, found.cloud) == (tree.hash_info.value, (tree.hash_info.value,))
    assert reading("d.dvc", b"outs: [{path: d, files: [{relpath: a, etag: e, version_id: v}]}]").undigested == ("d",)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"<<<<<<< HEAD\nouts:\n=======\n", "conflict markers"),
        (b"outs: [", "not YAML; restore"),
        (b"\xff\xfe", "not YAML"),
        (b"", "empty"),
        (b"just text", "not of the shape"),
        (b"outs: 5", "not of the shape"),
        (b"outs: [x]", "not of the shape"),
        (b"outs: [{md5: x}]", "no path"),
        (b"deps: {a: b}\nouts: [{path: o, md5: ../../../etc/passwd}]", "32 hexadecimal digits"),
        (b"outs: [{path: o, md5: a}, {path: o, md5: b}]\nouts: []", "not YAML"),
    ],
)
def test_what_is_no_file_of_dvcs_is_refused_and_not_read_as_empty(content, complaint):
    with pytest.raises(StoreError, match=complaint):
        parse("x.dvc", content)


@pytest.mark.parametrize("content", [b"stages: [a]", b"- a", b"stages: {s: text}", b"stages: {s: {outs: [5]}}", b"schema: '2.0'\nstages: 3"])
def test_a_lock_of_another_shape_is_refused(content):
    with pytest.raises(StoreError, match="not of the shape of DVC's files"):
        parse("dvc.lock", content)


@pytest.mark.parametrize("content", [b"", b"schema: '2.0'\n", b"schema: '2.0'\nstages: {}\n"])
def test_a_lock_before_the_first_run_is_empty(content):
    assert parse("dvc.lock", content) == {"stages": {}}


def test_a_cut_lock_is_refused_or_says_less_and_nothing_else():
    whole = f"schema: '2.0'\nstages:\n  s:\n    cmd: c\n    outs:\n    - path: o\n      hash: md5\n      md5: {A}\n".encode()
    truth = reading("dvc.lock", whole).outputs["w/o"]
    for length in range(len(whole)):
        try:
            found = reading("dvc.lock", whole[:length])
        except StoreError:
            continue
        assert found.outputs in ({}, {"w/o": truth})
