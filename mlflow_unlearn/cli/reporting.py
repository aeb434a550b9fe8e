"""`mlflow-unlearn report`: the evidence of one request."""

from __future__ import annotations

from pathlib import Path

import click

from .options import as_json, one_line_errors, respond


@click.command()
@click.argument("request_id")
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), default=Path("build/reports"), show_default=True, help="Where both files are written."
)
@as_json
@one_line_errors
def report(request_id: str, out: Path, json_output: bool) -> None:
    """Pack the evidence bundle of a request, REQUEST.zip, and its page for people, REQUEST.html. No id or text of a person is in them."""
    from ..commands import reporting as commands

    respond("report", commands.report(request_id, out), json_output)
