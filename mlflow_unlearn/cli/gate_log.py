"""`mlflow-unlearn gate-log`: what the gate inside MLflow's server decided, for whom and why."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from .options import as_json, one_line_errors


@click.command("gate-log")
@click.option("--database", metavar="URI", help="MLflow's database, where the server keeps it. Default: the project's own, if it is a database.")
@click.option("--after", type=click.IntRange(0), default=0, help="Only entries after this number.")
@click.option("--model", metavar="NAME", help="Only entries about this registered model.")
@click.option(
    "--verify", is_flag=True, help="Hold every entry against the gate's key and the last one that was seen: 1 when one is not what was written."
)
@as_json
@one_line_errors
def gate_log(json_output: bool, **given: Any) -> None:
    """Every decision of the gate inside MLflow's server: who asked for what, what it replaced, the answer and the reasons."""
    from ..commands import gate_log as commands

    asked = commands.Asked(**given)
    document = commands.gate_log(asked)
    if json_output:
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        from ..commands.console_gate_log import show_gate_log

        show_gate_log(document, asked.verify)
    sys.exit(1 if document["problems"] else 0)
