"""`mlflow-unlearn webhook`: MLflow tells of what happened in its registry, and somebody is told what the gate says of it."""

from __future__ import annotations

import json
from pathlib import Path

import click

from .options import one_line_errors


@click.command()
@click.option(
    "--secret-file",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="Secrets of the webhook in MLflow, one a line, for no one else to read; each of them counts.",
)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Where to listen. MLflow asks for https: put a proxy with a certificate before it."
)
@click.option("--port", type=click.IntRange(0, 65535), default=5099, show_default=True, help="0: any that is free.")
@click.option("--run", "program", metavar="PROGRAM", help="Run this for each notification, with the JSON on its stdin, instead of printing it.")
@one_line_errors
def webhook(secret_file: Path, host: str, port: int, program: str | None) -> None:
    """Receive MLflow's registry webhooks and print, one JSON line each, what the gate says of the version named. It notifies; it stops nothing."""
    from ..commands import webhooks as commands

    tell = commands.program_teller(program) if program else lambda line: click.echo(json.dumps(line))
    where = commands.Listening(secret_file=secret_file, host=host, port=port)
    commands.listen(where, tell, lambda words: click.echo(words, err=True))
