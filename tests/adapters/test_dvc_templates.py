import json
import posixpath
from types import SimpleNamespace

import pytest
from dvc.exceptions import DvcException
from dvc.fs import LocalFileSystem
from dvc.parsing import DataResolver
from dvc.parsing.interpolate import to_str
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_unlearn.adapters.dvc_templates import folder_of, read_values, stage_folders, value_files, values
from mlflow_unlearn.errors import StoreError

FILES = {
    "params.yaml": b"top: p\nnested: {deep: [x, {y: z}]}\nshared: {a: 1}\nlist: [u, v]\ndict: {k: {w: q}, l: {w: r}}\nyes: true\n",
    "more.json": b'{"shared": {"b": 2}, "more": "m"}',
    "other.toml": b'other = "o"\nunused = 1\n[section]\nin = "s"\n',
}


def ours(document, stage):
    pipeline = json.loads(json.dumps(stage_folders(document)))  # as a kept parse comes back
    given = values(pipeline, "", lambda path: read_values(path, FILES[path]) if path in FILES else None)
    folder = folder_of(stage, pipeline, given)
    return None if folder is None else posixpath.normpath(folder)


def resolver(document, folder):
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    return DataResolver(SimpleNamespace(fs=LocalFileSystem(), config={}), str(folder), json.loads(json.dumps(document)))


words = st.sampled_from(["a", "top", "1", "${top}", "${ more }", "${nested.deep[1].y}", "${other}", "${yes}", "${absent}", "\\${top}"])
items = st.sampled_from(["a", 1, True, "${top}", {"w": "x"}, {"w": "${more}"}])
foreach = st.one_of(
    st.lists(items, min_size=1, max_size=3),
    st.sampled_from(["${list}", "${dict}", "${top}"]),
    st.dictionaries(st.sampled_from("kl"), items, min_size=1),
)
axes = st.one_of(st.lists(items, min_size=1, max_size=2), st.just("${list}"))
folders = st.lists(st.one_of(words, st.sampled_from(["${item}", "${item.w}", "${key}", "${item.x}", ".."])), min_size=1, max_size=3).map("/".join)
stage = st.one_of(
    folders.map(lambda wdir: {"cmd": "c", "wdir": wdir}),
    st.tuples(foreach, folders).map(lambda pair: {"foreach": pair[0], "do": {"cmd": "c", "wdir": pair[1]}}),
    st.tuples(st.dictionaries(st.sampled_from("xy"), axes, min_size=1), folders).map(lambda p: {"matrix": p[0], "cmd": "c", "wdir": p[1]}),
)
sources = st.sampled_from([[], ["more.json"], ["more.json", "other.toml"], ["other.toml:other", {"more": "inline", "shared": {"c": 3}}]])


@settings(max_examples=300)
@given(stage, sources)
def test_every_folder_is_the_one_dvc_resolves_or_is_not_told(tmp_path_factory, stage, sources):
    folder, document = tmp_path_factory.getbasetemp() / "templates", {"vars": sources, "stages": {"s": stage}}
    folder.mkdir(exist_ok=True)
    theirs = resolver(document, folder)
    for name in _names(theirs):
        try:
            expected = posixpath.normpath(to_str(theirs.resolve_one(name)[name]["wdir"]))
        except DvcException:
            wdir = stage.get("do", stage)["wdir"].replace("\\${", "\0")  # where it is constant, no item is needed to tell it
            expected = None if "${" in wdir else posixpath.normpath(wdir.replace("\0", "${"))
        assert ours(document, name) == expected


def _names(resolver):
    try:
        return list(resolver.get_keys())
    except (DvcException, AttributeError):
        return ["s@a"]


def test_a_stage_that_dvc_yaml_does_not_name_has_no_folder():
    document = {"stages": {"s": {"cmd": "c"}, "each": {"foreach": ["a"], "do": {"wdir": "${item}"}}}}
    assert [ours(document, name) for name in ("s", "t", "each@a", "each@b")] == [".", None, "a", None]


def test_values_are_read_only_where_a_template_needs_them():
    assert value_files(stage_folders({"vars": ["v.yaml"], "stages": {"s": {"foreach": ["a"], "do": {"wdir": "${item}"}}}}), "p") == []
    needed = stage_folders({"vars": ["../v.yaml:a,b", {"x": 1}], "stages": {"s": {"wdir": "${x}"}}})
    assert value_files(needed, "p") == ["p/params.yaml", "v.yaml"]


def test_dates_and_numbers_as_keys_survive_being_kept():
    document = {"stages": {"s": {"foreach": {1: {"w": 2}}, "do": {"wdir": "${key}-${item.w}"}}}}
    assert ours(document, "s@1") == "1-2"
    assert read_values("params.yaml", b"day: 2024-02-29\n") == {"day": "2024-02-29"}


@pytest.mark.parametrize(("name", "content"), [("a.json", b"{"), ("a.toml", b"="), ("a.yaml", b"a: ["), ("a.yaml", b"\xff\xfe\x00")])
def test_a_file_of_values_that_is_broken_is_named(name, content):
    with pytest.raises(StoreError, match=rf"^{name}: not a file of values"):
        read_values(name, content)
    with pytest.raises(StoreError, match=r"^l\.yaml: expected a mapping"):
        read_values("l.yaml", b"- 1\n")
