"""`mlflow-unlearn power`: what a canary pool can show, before it is drawn."""

from __future__ import annotations

from pathlib import Path

import click

from .options import as_json, one_line_errors, respond


@click.command()
@click.option(
    "--canaries",
    type=click.IntRange(min=2),
    multiple=True,
    help="Audit canaries, included plus excluded; may be given several times. Default: the pool here.",
)
@click.option("--attempt", type=click.IntRange(min=1), default=1, show_default=True, help="Later attempts have closer limits.")
@click.option("--records", type=click.IntRange(min=2), help="Records of the dataset, to say what share a pool keeps from training.")
@as_json
@one_line_errors
def power(canaries: tuple[int, ...], attempt: int, records: int | None, json_output: bool) -> None:
    """How often a model that honestly forgot would pass with a canary pool, what leaks it could see, and what it costs."""
    from ..commands.powering import show_power

    respond("power", show_power(Path(), canaries, attempt, records), json_output)
