"""`mlflow-unlearn guard`: keeps what was erased from coming back, on the command line and before each commit."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from .options import as_json, one_line_errors, respond


@click.command()
@click.argument("paths", nargs=-1, metavar="[PATH...]", type=click.Path(path_type=Path, exists=True))
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False, exists=True), default=Path(), help="Where params.yaml lies.")
@click.option("--install", is_flag=True, help="Add the guard to this clone's pre-commit hook, beside what is there.")
@as_json
@one_line_errors
def guard(paths: tuple[Path, ...], folder: Path, install: bool, json_output: bool) -> None:
    """Are the data free of what was erased? 0 yes, 1 no (refused), 2 could not decide.

    PATH: files or folders; default: the configured dataset and the files beside it, in the workspace.
    """
    from ..commands import guard as commands

    if install:
        respond("guard_hook", commands.install_hook(folder), json_output)
        return
    answer = commands.guard_files(folder, paths)
    respond("guard", answer, json_output)
    sys.exit({"clean": 0, "refused": 1}.get(answer["answer"], 2))
