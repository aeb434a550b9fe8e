"""`mlflow-unlearn ui`: MLflow in the browser, with the gate on."""

from __future__ import annotations

import json
from typing import Any

import click

from .options import as_json, one_line_errors


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen: on this machine alone, since there are no users.")
@click.option("--port", type=click.IntRange(1, 65535), help="Default: the first free one from 5000.")
@as_json
@one_line_errors
def ui(host: str, port: int | None, json_output: bool) -> None:
    """Serve MLflow on this project's database with the gate on; says the address as soon as it answers, and Ctrl-C ends it."""
    from ..commands import serving as commands

    def ready(site: dict[str, Any]) -> None:
        click.echo(json.dumps(site) if json_output else f"{site['address']} (Ctrl-C ends it)")

    commands.serve(host, port, ready)
