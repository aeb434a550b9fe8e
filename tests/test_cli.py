import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from mlflow_unlearn.cli import main


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments, **options: CliRunner().invoke(main, arguments, **options)


def test_help_imports_nothing_heavy():
    heavy = "'torch', 'mlflow', 'dvc', 'transformers', 'great_expectations', 'duckdb', 'sqlalchemy', 'rich', 'numpy', 'polars', 'ibis'"
    code = f"import sys, mlflow_unlearn.cli; sys.exit(any(m in sys.modules for m in [{heavy}]))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_command_of_the_contract_is_there(run):
    listed = run("--help").output
    assert all(
        name in listed
        for name in ("init", "stage", "index", "request", "trace", "gate", "status", "guard", "tombstone", "commitment", "ledger", "key", "tag-key")
    )


def commands(group=main, path=("mlflow-unlearn",)):
    for name, command in group.commands.items():
        yield from commands(command, (*path, name)) if isinstance(command, click.Group) else [(" ".join((*path, name)), command)]


def test_every_command_and_every_option_has_a_help_text():
    assert [name for name, command in commands() if not command.help] == []
    bare = [f"{name} {each.opts[0]}" for name, command in commands() for each in command.params if isinstance(each, click.Option) and not each.help]
    assert bare == []


def test_every_command_but_those_that_run_on_takes_json():
    without = {name.removeprefix("mlflow-unlearn ") for name, command in commands() if "json_output" not in {each.name for each in command.params}}
    assert without == {"stage", "webhook"}


@pytest.mark.parametrize("command", [["status"], ["gate", "models:/m/1"], ["trace", "er-1"], ["stage", "trace"], ["request", "list"]])
def test_outside_a_repository_every_command_says_one_line_and_ends_with_2(run, command):
    done = run(*command)
    assert done.exit_code == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_misspelt_stage_lists_the_stages(run):
    done = run("stage", "unlern")
    assert done.exit_code == 2
    assert "'unlearn'" in done.stderr


def test_ids_are_never_arguments(run):
    assert run("request", "add", "somebody", "--basis", "ccpa").exit_code == 2


def test_init_without_dvc_says_dvc_init(run, tmp_path):
    (tmp_path / ".git").mkdir()
    done = run("init")
    assert done.exit_code == 2
    assert "run `dvc init` first" in done.stderr


def test_a_list_of_ids_that_is_not_utf_8_names_its_line(run, tmp_path):
    (tmp_path / ".git").mkdir()
    (tmp_path / "ids.txt").write_bytes("one\nM\u00fcller\n".encode("latin-1"))
    done = run("request", "add", "--subjects", "ids.txt", "--basis", "ccpa")
    assert done.exit_code == 2
    assert "ids.txt line 2: not UTF-8" in done.stderr
