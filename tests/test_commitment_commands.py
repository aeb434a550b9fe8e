"""Commitments from a real Git and DVC repository and a real MLflow store to an auditor who has files and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import pytest
from click.testing import CliRunner, Result

from mlflow_unlearn.adapters.formats import Source
from mlflow_unlearn.adapters.tables import read_records, write_set
from mlflow_unlearn.cli import main
from mlflow_unlearn.commands.scaffolding import scaffold
from mlflow_unlearn.commitments import SCHEMA, Commitments
from mlflow_unlearn.documents import encode
from mlflow_unlearn.errors import TamperedError
from mlflow_unlearn.lineage import DatasetRevision, ModelVersion, Parent
from mlflow_unlearn.records import Effect, Split
from mlflow_unlearn.stages.committing import commitments
from mlflow_unlearn.stages.workbench import Workbench, body

HEADER = "record_id,subject_id,question,answer\n"
CROWD = tuple(f"p{number}" for number in range(20))
CLEAN = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull, "DVC_NO_ANALYTICS": "1"}


def lines(*people: str) -> str:
    return HEADER + "".join(f"r-{each},{each},Where is {each}?,In {each}ville.\n" for each in people)


@pytest.fixture(scope="module")
def _template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """v0 with twenty people, v1 with ana and bo, v2 in the workspace with bo and cy."""
    root = tmp_path_factory.mktemp("committed") / "project"
    (root / "data").mkdir(parents=True)

    def run(*command: str) -> None:
        subprocess.run(command, cwd=root, env=os.environ | CLEAN, check=True, capture_output=True)

    run("git", "init", "-q", "-b", "main")
    run("git", "config", "user.name", "Test")
    run("git", "config", "user.email", "test@example.invalid")
    run(sys.executable, "-m", "dvc", "init", "-q")
    for revision, people in (("v0", CROWD), ("v1", ("ana", "bo")), ("v2", ("bo", "cy"))):
        (root / "data/people.csv").write_text(lines(*people))
        run(sys.executable, "-m", "dvc", "add", "-q", "data/people.csv")
        run("git", "add", "-A")
        run("git", "commit", "-q", "-m", revision)
        run("git", "tag", revision)
    return root


@pytest.fixture
def root(_template: Path, tmp_path: Path, mlflow_store: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy with our pipeline in its root's unlearn/, which is the current folder."""
    shutil.copytree(_template, tmp_path / "project", symlinks=True)
    monkeypatch.chdir(tmp_path / "project")
    for name, value in {**CLEAN, "MLFLOW_TRACKING_URI": mlflow_store}.items():
        monkeypatch.setenv(name, value)
    scaffold(Path("unlearn"), "people", "data/people.csv")
    monkeypatch.chdir(tmp_path / "project/unlearn")
    return tmp_path / "project"


def call(*arguments: str, ids: str | None = None) -> Result:
    return CliRunner().invoke(main, ["commitment", *arguments], input=ids)


def answer(*arguments: str, ids: str | None = None, code: int = 0) -> dict[str, Any]:
    done = call(*arguments, "--json", ids=ids)
    assert done.exit_code == code, done.output
    return json.loads(done.stdout)


def refused(*arguments: str, ids: str | None = None) -> str:
    done = call(*arguments, ids=ids)
    assert (done.exit_code, done.stdout) == (2, "")
    return done.stderr


def split(bench: Workbench, people: tuple[str, ...], *revisions: str) -> Split:
    """What the stages before leave: the raw retain set, and the split's document."""
    bench.sets.mkdir(parents=True, exist_ok=True)
    (bench.sets / "rows.csv").write_text(lines(*people))
    digest = write_set(bench.sets, "retain", read_records([Source(name="rows.csv", path=bench.sets / "rows.csv")], bench.schema))
    states = tuple(state(bench, revision) for revision in revisions)
    parent = Parent(model=ModelVersion(name="people", version="1"), tensor_digest="c" * 64, datasets=states)
    made = Split(requests=("er-1",), parent=parent, effects=(Effect.REMOVAL,), rows={}, files={"retain": digest}, digest="e" * 64)
    bench.write("split", body(made))
    return made


def state(bench: Workbench, revision: str) -> DatasetRevision:
    found = bench.project.output_at("data/people.csv", revision)
    assert found is not None
    return DatasetRevision(name="people", path="data/people.csv", md5=found.md5, revisions=(revision,))


def register(made: Commitments) -> None:
    """A version whose run holds the document, with the tags that `register` writes."""
    bench = Workbench()
    with mlflow.start_run(experiment_id=bench.registry.client.get_experiment_by_name("people").experiment_id) as run:
        mlflow.log_dict({"schema": SCHEMA, **encode(made)}, "unlearn/commitment.json")
    bench.registry.client.create_registered_model("people")
    bench.registry.client.create_model_version("people", run.info.artifact_uri, run.info.run_id, tags=made.tags())


def test_a_revision_has_one_root_whether_made_or_read(root: Path) -> None:
    first, again = answer("show"), answer("show")
    assert first == again
    assert first["size"] == 6
    assert len(list((root / ".unlearn/commitments").rglob("*.tree"))) == 1
    assert answer("show", "--rev", "v1")["root"] != first["root"] == answer("show", "--rev", "v2")["root"]


def test_who_is_and_who_is_not_in_a_revision_is_proven_to_an_auditor_with_files_alone(root: Path, tmp_path: Path) -> None:
    made = answer("prove", "--rev", "v1", "--subjects", "-", "--out", "p.json", ids="\ufeffana\n\n cy \n")
    answer("disclose", "--to", "key")
    office = tmp_path / "office"
    office.mkdir()
    for name in ("p.json", "key"):
        shutil.move(name, office / name)
    command = ["commitment", "verify", "p.json", "--key", "key", "--subjects", "-", "--root", f"{made['root']}:{made['size']}", "--json"]
    heavy = "'mlflow', 'dvc', 'polars', 'torch', 'sqlalchemy', 'git'"
    code = f"import sys\nfrom mlflow_unlearn.cli import main\ntry: main({command!r})\n"
    code += f"except SystemExit as end: sys.exit(9 if any(name in sys.modules for name in [{heavy}]) else end.code)"
    done = subprocess.run([sys.executable, "-c", code], cwd=office, input="ana\ncy\n", text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert {name: json.loads(done.stdout)[name] for name in ("present", "absent", "problems")} == {"present": 1, "absent": 1, "problems": []}


def test_people_records_and_contents_are_leaves_of_one_tree(root: Path) -> None:
    (root / "contents").write_text('{"prompt": "Where is bo?", "answer": "In boville."}\n{"prompt": "Where is bo?", "answer": "In anaville."}\n')
    (root / "records").write_text("r-bo\nr-ana\n")
    made = answer("prove", "--records", "../records", "--contents", "../contents", "--subjects", "-", "--out", "p.json", ids="bo\nana\n")
    assert (made["present"], made["absent"]) == (3, 3)


def test_proofs_name_nobody(root: Path) -> None:
    answer("prove", "--subjects", "-", "--records", "/dev/null", "--out", "p.json", ids="somebody-special\n")
    kept = b"".join(path.read_bytes() for path in [Path("p.json"), *(root / ".unlearn/commitments").rglob("*")] if path.is_file())
    assert not [word for word in (b"somebody-special", b"boville") if word in kept]


@pytest.fixture
def proven(root: Path) -> dict[str, Any]:
    """Proofs of bo (present) and ana (absent) in p.json, the key in `key`, the list in `ids`."""
    Path("ids").write_text("bo\nana\n")
    answer("disclose", "--to", "key")
    return answer("prove", "--subjects", "ids", "--out", "p.json")


VERIFY = ("verify", "p.json", "--key", "key", "--subjects", "ids")


def test_what_was_not_expected_ends_with_1(proven: dict[str, Any]) -> None:
    assert answer(*VERIFY)["problems"] == []
    assert answer(*VERIFY, "--expect", "absent", code=1)["problems"] == ["expected ids that are absent, found 1 that are present"]
    assert answer(*VERIFY, "--expect", "present", code=1)["problems"] == ["expected ids that are present, found 1 that are absent"]


def test_a_root_that_was_not_published_ends_with_1(proven: dict[str, Any]) -> None:
    other = f"{proven['root']}:{proven['size'] + 1}"
    assert answer(*VERIFY, "--root", other, code=1)["problems"] == ["the proofs are for another root or size than the one that was given"]
    assert answer(*VERIFY, "--root", f"{proven['root']}:{proven['size']}:{proven['key_id']}")["problems"] == []


def test_a_missing_or_bent_proof_ends_with_1_and_names_lines_only(proven: dict[str, Any]) -> None:
    document = json.loads(Path("p.json").read_text())
    document["proofs"] = [each for each in document["proofs"] if "left" in each]
    Path("p.json").write_text(json.dumps(document))
    assert answer(*VERIFY, code=1)["problems"] == ["line 1 of --subjects: the document has no proof for this one"]
    document["commitment"]["size"] += 1
    Path("p.json").write_text(json.dumps(document))
    assert len(answer(*VERIFY, code=1)["problems"]) == 2


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("p.json", b"{", "p.json: not a JSON object; it was cut short"),
        ("p.json", None, "p.json: no such file"),
        ("key", b"short", "key: expected a commitment key of 32 bytes, found 5"),
        ("key", bytes(32), "key: expected the key "),
        ("ids", b"\n", "there is not one id in it"),
        ("ids", b"M\xfcller\n", "ids line 1: not UTF-8"),
    ],
)
def test_bad_input_ends_with_2_and_one_line(proven: dict[str, Any], name: str, content: bytes | None, reason: str) -> None:
    Path(name).write_bytes(content) if content is not None else Path(name).unlink()
    said = refused(*VERIFY)
    assert reason in said
    assert len(said.splitlines()) == 1


def test_people_see_that_an_unpublished_root_is_the_files_own_word(proven: dict[str, Any]) -> None:
    assert "the root is the file's own word" in call(*VERIFY).stdout
    assert "own word" not in call(*VERIFY, "--root", f"{proven['root']}:{proven['size']}").stdout


def test_an_audit_with_all_leaves_holds_for_their_root_alone(root: Path) -> None:
    made = answer("show", "--leaves", "leaves")
    head = f"{made['root']}:{made['size']}"
    assert answer("audit", "leaves", "--root", head)["problems"] == []
    Path("leaves").write_bytes(Path("leaves").read_bytes()[32:] + bytes(32))
    assert answer("audit", "leaves", "--root", head, code=1)["problems"] == [
        "the leaves are not sorted or not distinct: absence proofs of this tree show nothing"
    ]


def test_a_rotation_asks_first_and_then_nothing_older_can_be_proven(proven: dict[str, Any], root: Path) -> None:
    assert "can no longer be proven" in refused("rotate")
    assert answer("show")["key_id"] == proven["key_id"]
    made = answer("rotate", "--yes")
    assert (made["destroyed"], made["note"].count("can no longer be proven")) == (proven["key_id"], 1)
    assert answer("show")["root"] != proven["root"]
    assert not list((root / ".unlearn/commitments").rglob(f"{proven['key_id']}/*"))


def test_a_stored_tree_that_was_changed_proves_nothing(proven: dict[str, Any], root: Path) -> None:
    (path,) = (root / ".unlearn/commitments").rglob("*.tree")
    whole = bytearray(path.read_bytes())
    whole[60:80] = bytes(20)
    path.write_bytes(whole)
    assert answer("prove", "--subjects", "ids", "--out", "p.json")["root"] == proven["root"]  # made again of the data
    path.write_bytes(whole[:100])
    assert answer("show")["root"] == proven["root"]


def test_leaves_that_were_changed_below_an_intact_root_prove_nothing(root: Path) -> None:
    answer("show", "--rev", "v0")
    (path,) = (root / ".unlearn/commitments").rglob("*.tree")
    whole = path.read_bytes()
    path.write_bytes(whole[:56] + bytes(32 * 60) + whole[56 + 32 * 60 :])
    assert "stored leaves changed on disk" in refused("prove", "--rev", "v0", "--subjects", "-", "--out", "p.json", ids="p7\nana\n")
    assert not Path("p.json").exists()


def test_a_revision_that_is_not_there_or_lacks_the_data_is_refused(root: Path) -> None:
    assert "not in this repository" in refused("show", "--rev", "v9")
    assert "no commitment was registered" not in refused("show", "--version", "models:/people/1")
    assert "expected one of them" in refused("show", "--rev", "v1", "--version", "models:/people/1")
    assert "--retain: expected --version" in refused("show", "--retain")


def test_a_version_commits_to_its_data_and_to_what_was_retained(root: Path) -> None:
    bench = Workbench()
    split(bench, ("bo",), "v1")
    made = commitments(bench)
    register(made)
    answer("disclose", "--to", "key")
    answer("prove", "--version", "models:/people/1", "--retain", "--subjects", "-", "--out", "p.json", ids="ana\n")
    tag = bench.registry.client.get_model_version("people", "1").tags["unlearn.commitment.retain"]
    checked = answer("verify", "p.json", "--key", "key", "--subjects", "-", "--root", tag, "--expect", "absent", ids="ana\n")
    assert (checked["about"], checked["problems"]) == ({"version": "people/1", "set": "retain"}, [])
    whole = answer("prove", "--version", "models:/people/1", "--subjects", "-", "--out", "p.json", ids="ana\n")
    assert (whole["present"], whole["root"]) == (1, made.revisions[0].commitment.root)


def test_what_is_retained_of_several_revisions_is_one_set(root: Path) -> None:
    split(Workbench(), ("bo", "cy"), "v1", "v2")
    made = commitments(Workbench())
    assert [revision.commitment.size for revision in made.revisions] == [6, 6]
    assert made.retain == made.revisions[1].commitment
    register(made)
    assert "made from 2 dataset revisions; name one with --rev" in refused("show", "--version", "models:/people/1")


def test_committing_again_commits_to_the_same(root: Path) -> None:
    split(Workbench(), ("bo",), "v1")
    assert commitments(Workbench()) == commitments(Workbench())


def test_a_retain_set_that_was_changed_or_is_not_in_the_data_is_refused(root: Path) -> None:
    split(Workbench(), ("cy",), "v1")
    with pytest.raises(TamperedError, match="1 retained records are not in the dataset revisions"):
        commitments(Workbench())
    (Workbench().sets / "retain.parquet").write_bytes(b"")
    with pytest.raises(TamperedError, match="changed since the split"):
        commitments(Workbench())


def test_a_version_whose_leaves_or_key_are_gone_cannot_be_proven_and_says_which(root: Path) -> None:
    bench = Workbench()
    split(bench, ("bo",), "v1")
    made = commitments(bench)
    register(made)
    (root / f".unlearn/commitments/people.trees/{made.retain.key_id}/{made.retain.root}.tree").unlink()
    assert "its leaves are not on this machine" in refused("show", "--version", "models:/people/1", "--retain")
    answer("rotate", "--yes")
    for retain in ((), ("--retain",)):
        assert "nothing about it can be proven any more" in refused("show", "--version", "models:/people/1", *retain)


def test_a_version_that_was_made_elsewhere_has_no_commitment(root: Path) -> None:
    client = Workbench().registry.client
    client.create_registered_model("people")
    client.create_model_version("people", "file:///nowhere")
    assert "people/1: no commitment was registered with it" in refused("show", "--version", "models:/people/1")


def test_a_version_under_other_columns_is_refused(root: Path) -> None:
    split(Workbench(), ("bo",), "v1")
    register(commitments(Workbench()))
    params = Path("params.yaml")
    params.write_text(params.read_text().replace("subject: subject_id", "subject: answer"))
    assert "the data lead to another root than was registered" in refused("show", "--version", "models:/people/1")


def test_keys_and_disclosed_keys_are_private_and_git_sees_neither(proven: dict[str, Any], root: Path) -> None:
    listed = subprocess.run(["git", "status", "--porcelain", "-uall"], cwd=root, text=True, capture_output=True, check=True).stdout
    assert ".unlearn" not in listed
    assert {stat.S_IMODE(path.stat().st_mode) for path in (Path("key"), root / ".unlearn/commitments/people.key")} == {0o600}
