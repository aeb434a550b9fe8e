"""The verifier as an auditor has it: its folder and `cryptography`, no network, nothing else of this project and its libraries."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest
from certified import OWNER, Certified, certified

import mlflow_unlearn.verifier

ALLOWED = ("cryptography", "cffi", "_cffi_backend")
WATCHED = """
import runpy, sys
folder, *sys.argv = sys.argv[1:]
sys.path.insert(0, folder)

def refuse(event, arguments):
    if event.startswith("socket.") or event == "import" and arguments[0].split(".")[0] in {"mlflow_unlearn", "mlflow", "torch", "numpy", "scipy"}:
        raise SystemExit(f"the verifier reached for {event} {arguments}")

sys.addaudithook(refuse)
sys.argv.insert(0, "verifier")
runpy.run_module("verifier", run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Certified:
    return certified(tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the folder, with links to `cryptography` beside it."""
    folder = tmp_path_factory.mktemp("auditor")
    shutil.copytree(Path(mlflow_unlearn.verifier.__file__).parent, folder / "verifier", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ALLOWED:
        if (spec := find_spec(name)) and spec.origin:
            origin = Path(spec.origin).parent if spec.submodule_search_locations else Path(spec.origin)
            (folder / origin.name).symlink_to(origin)
    return folder


def run(alone: Path, arguments: Sequence[str], before: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Isolated: no site-packages, no variables, not the current folder; the audit hook refuses sockets and our libraries."""
    command = [*before, sys.executable, "-I", "-S", "-c", WATCHED, str(alone), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=alone)


def whole(case: Certified) -> list[str]:
    files = {"--trust": "trust.json", "--model": "model", "--policy": "policy.yaml", "--proofs": "proofs.json"}
    given = [part for option, name in files.items() for part in (option, str(case.folder / name))]
    return [str(case.folder / "certificate.json"), *given, "--owner", OWNER.key_id]


def test_a_valid_case_is_a_yes_with_nothing_but_cryptography(alone: Path, case: Certified) -> None:
    done = run(alone, whole(case))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("YES: it holds, and the verdict is PASS.\nstatement: ")
    assert "signed by: ci (" in done.stdout


def test_every_answer_has_its_exit_code_and_json(alone: Path, case: Certified, tmp_path: Path) -> None:
    (tmp_path / "certificate.json").write_bytes(case.case.certificate[:-1])
    for arguments, code, answer in (
        (whole(case), 0, "yes"),
        ([*whole(case), "--owner", "0" * 64], 1, "no"),
        ([str(tmp_path / "certificate.json")], 2, "undecided"),
    ):
        done = run(alone, [*arguments, "--json"])
        assert (done.returncode, json.loads(done.stdout)["answer"]) == (code, answer)


def test_a_file_that_is_not_there_is_no_yes_and_no_traceback(alone: Path, case: Certified) -> None:
    done = run(alone, [str(alone / "nowhere.json")])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"{alone / 'nowhere.json'}: No such file or directory\n"


def test_it_works_in_a_network_namespace_without_interfaces(alone: Path, case: Certified) -> None:
    bare = ("unshare", "--user", "--map-root-user", "--net")
    if shutil.which("unshare") is None or subprocess.run([*bare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let us make a network namespace")
    assert run(alone, whole(case), bare).returncode == 0


def test_it_imports_cryptography_and_the_standard_library_alone() -> None:
    folder = Path(mlflow_unlearn.verifier.__file__).parent
    nodes = [node for path in folder.glob("*.py") for node in ast.walk(ast.parse(path.read_text()))]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    assert {name.split(".")[0] for name in names} - sys.stdlib_module_names == {"cryptography"}
