import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as some

from mlflow_unlearn.commitments import committed, leaf
from mlflow_unlearn.digests import write_document
from mlflow_unlearn.documents import encode
from mlflow_unlearn.errors import ConfigError
from mlflow_unlearn.proofs import SCHEMA, Absent, Present, Proofs, asked, check, read_proofs, written
from mlflow_unlearn.verifier.merkle import Tree

KEY = bytes(range(32))
IDS = ("ana", "bo", "cy", "dee", "eve")
names = some.sets(some.text(some.characters(codec="utf-8"), min_size=1).map(str.strip).filter(bool), max_size=20)


def proofs(members, about) -> Proofs:
    tree = Tree.build(b"".join(sorted(leaf(KEY, "subject", each) for each in members)))
    found = tuple(written(tree.prove(leaf(KEY, "subject", each))) for each in about)
    return Proofs(dataset="d", about={"md5": "m"}, commitment=committed(tree.head, KEY), proofs=found)


@pytest.fixture
def made() -> Proofs:
    return proofs(IDS[:4], IDS)


def wanted(*ids):
    return asked(KEY, {"subject": ids})


@given(names.filter(bool), names)
def test_members_are_shown_present_and_everybody_else_absent(everybody, members):
    document = proofs(members, everybody)
    found = check(document, wanted(*everybody), document.commitment.head)
    assert (found.present, found.absent, found.problems) == (len(everybody & members), len(everybody - members), ())


def test_a_document_reads_back_as_it_was_written(made, tmp_path):
    write_document(tmp_path / "p.json", SCHEMA, encode(made))
    assert read_proofs(tmp_path / "p.json") == made


def test_an_id_without_its_proof_is_named_by_its_line_only(made):
    assert check(made, wanted("ana", "", "zed")).problems == ("line 3 of --subjects: the document has no proof for this one",)


def test_an_id_that_is_asked_about_in_another_domain_is_another_one(made):
    assert check(made, asked(KEY, {"record": ["ana"]})).problems == ("line 1 of --records: the document has no proof for this one",)


def test_a_document_about_another_root_is_refused(made):
    other = proofs(IDS[:3], IDS).commitment.head
    assert check(made, wanted("ana"), other).problems == ("the proofs are for another root or size than the one that was given",)


def test_one_bent_proof_fails_and_the_others_hold(made):
    bent = replace(made, proofs=tuple(replace(each, index=each.index ^ 1) if isinstance(each, Present) else each for each in made.proofs))
    found = check(bent, wanted(*IDS))
    assert (found.present, found.absent, len(found.problems)) == (0, 1, 4)
    assert all("does not lead to the root" in problem for problem in found.problems)


def test_an_absence_of_another_leaf_is_no_proof_for_this_one(made):
    stolen = replace(made, proofs=(replace(made.proofs[4], leaf=leaf(KEY, "subject", "ana").hex()),))
    assert check(stolen, wanted("ana")).problems[0].startswith("line 1 of --subjects: ")


@pytest.mark.parametrize("part", ["dataset", "commitment", "proofs"])
def test_a_missing_key_is_named(made, tmp_path, part):
    write_document(tmp_path / "p.json", SCHEMA, {key: value for key, value in encode(made).items() if key != part})
    with pytest.raises(ConfigError, match=f"missing key '{part}'"):
        read_proofs(tmp_path / "p.json")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"leaf": "zz"}, "expected leaf and path as 64 hex characters"),
        ({"path": ["ab cd"]}, "expected leaf and path as 64 hex characters"),
        ({"index": 1.5}, "expected a whole number"),
        ({"index": True}, "expected a whole number"),
        ({"extra": 1}, "unknown key 'extra'"),
    ],
)
def test_a_proof_of_another_shape_is_bad_input(made, tmp_path, change, reason):
    body = encode(made)
    body["proofs"][0] |= change
    write_document(tmp_path / "p.json", SCHEMA, body)
    with pytest.raises(ConfigError, match=reason):
        read_proofs(tmp_path / "p.json")


@pytest.mark.parametrize("content", ["", "[]", "{", '{"schema": "x"}', "[" * 100_000, '"\\ud800"'])
def test_another_file_is_bad_input(tmp_path, content):
    (tmp_path / "p.json").write_text(content)
    with pytest.raises(ConfigError, match=r"p.json: (not a JSON object|expected schema)"):
        read_proofs(tmp_path / "p.json")


@pytest.mark.parametrize("name", ["\x1b[31mred", "\ud800"])
def test_a_name_that_would_steer_the_terminal_is_bad_input(made, tmp_path, name):
    (tmp_path / "p.json").write_text(json.dumps({"schema": SCHEMA, **encode(made), "dataset": name}))
    with pytest.raises(ConfigError, match="without control characters"):
        read_proofs(tmp_path / "p.json")


def test_a_file_cut_anywhere_is_refused(made, tmp_path):
    write_document(tmp_path / "p.json", SCHEMA, encode(made))
    whole = (tmp_path / "p.json").read_bytes().rstrip()
    for length in range(0, len(whole), 97):
        (tmp_path / "p.json").write_bytes(whole[:length])
        with pytest.raises(ConfigError, match="not a JSON object; it was cut short"):
            read_proofs(tmp_path / "p.json")


@pytest.mark.parametrize("lists", [{}, {"subject": []}, {"subject": ["", " "]}])
def test_nobody_asked_about_is_nothing_proven(lists):
    with pytest.raises(ConfigError, match="there is not one id in it"):
        asked(KEY, lists)


@pytest.mark.parametrize("line", ["ana", "[]", '{"prompt": "p"}', '{"prompt": 1, "answer": "a"}', '{"prompt": "\\ud800", "answer": "a"}'])
def test_a_content_that_is_none_is_named_by_its_line(line):
    with pytest.raises(ConfigError, match="line 2 of --contents: expected one JSON object"):
        asked(KEY, {"content": ['{"prompt": "p", "answer": "a"}', line]})


def test_a_content_is_asked_about_by_its_two_texts():
    assert asked(KEY, {"content": ['{"answer": "a", "prompt": "p"}']}) == [("line 1 of --contents", leaf(KEY, "content", "p", "a"))]


def test_a_document_holds_no_id(made):
    assert isinstance(made.proofs[4], Absent)
    assert not [each for each in IDS if f'"{each}"' in json.dumps(encode(made))]
