"""`mlflow-unlearn verify`: the verifier's own words and exit codes, wherever one stands, without what the rest of the package needs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from certified import OWNER, Certified, certified
from click.testing import CliRunner, Result

from mlflow_unlearn.cli import main
from mlflow_unlearn.verifier.__main__ import main as alone


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Certified:
    return certified(tmp_path_factory.mktemp("verify"))


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside any repository, without a trust file of one's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_UNLEARN_TRUST", raising=False)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["verify", *map(str, arguments)])


def test_it_says_what_the_verifier_alone_says(case: Certified, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(case.folder / "certificate.json"), "--trust", str(case.folder / "trust.json"), "--model", str(case.folder / "model")]
    found = run(*arguments)
    assert (found.exit_code, found.output) == (alone(arguments), capsys.readouterr().out)
    assert found.output.startswith("YES")


@pytest.mark.parametrize("where", ["option", "variable", "git root", "nowhere"])
def test_whom_to_believe_is_taken_from_the_nearest_place(case: Certified, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trust, options = case.folder / "trust.json", []
    if where == "option":
        options = ["--trust", trust]
    elif where == "variable":
        monkeypatch.setenv("MLFLOW_UNLEARN_TRUST", str(trust))
    elif where == "git root":
        (tmp_path / ".git").mkdir()
        (tmp_path / "trust.json").write_bytes(trust.read_bytes())
        (tmp_path / "below").mkdir()
        monkeypatch.chdir(tmp_path / "below")
    found = run(case.folder / "certificate.json", *options, "--json")
    assert (found.exit_code, json.loads(found.output)["answer"]) == ((2, "undecided") if where == "nowhere" else (0, "yes"))


def test_no_and_undecided_end_with_1_and_2_and_say_why(case: Certified) -> None:
    given = (case.folder / "certificate.json", "--trust", case.folder / "trust.json")
    for options, code, words in (
        (("--owner", "0" * 64), 1, "NO.\n  because trust file: signed by"),
        (("--owner", OWNER.key_id), 0, "YES: it holds, and the verdict is PASS."),
        (("--policy", case.folder / "proofs.json"), 1, "policy.yaml: not the file that was in force"),
        (("--proofs", case.folder / "policy.yaml"), 2, "COULD NOT DECIDE: this is not a yes."),
        (("--model", case.folder / "gone"), 2, "no model there"),
    ):
        found = run(*given, *options)
        assert (found.exit_code, words in found.output) == (code, True), found.output


def test_a_certificate_that_is_not_there_is_said_to_be_in_the_report() -> None:
    done = run("nope.json")
    assert (done.exit_code, done.stderr) == (2, "error: nope.json: no such file; it is in the zip of `mlflow-unlearn report REQUEST`\n")


def test_neither_mlflow_nor_anything_heavy_is_imported(case: Certified) -> None:
    code = "import atexit, sys; atexit.register(lambda: print(*(name for name in sys.modules if '.' not in name)))\n"
    code += "from mlflow_unlearn.cli import main; main(sys.argv[1:], standalone_mode=False)"
    arguments = ["verify", str(case.folder / "certificate.json"), "--trust", str(case.folder / "trust.json"), "--model", str(case.folder / "model")]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert not set(done.stdout.splitlines()[-1].split()) & {"mlflow", "torch", "numpy", "scipy", "polars", "sqlalchemy", "rich", "git", "dvc"}
