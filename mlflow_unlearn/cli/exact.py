"""`mlflow-unlearn plan | replay | switch-off`: the exact route on the command line."""

from __future__ import annotations

import sys

import click

from .options import as_json, one_line_errors, respond


@click.command()
@click.argument("request_id")
@as_json
@one_line_errors
def plan(request_id: str, json_output: bool) -> None:
    """What forgetting a request exactly will cost: shards, tokens, time, share of a full training; and how many shards would suit."""
    from ..commands import forecasting as commands

    respond("forecast", commands.plan_deletion(request_id), json_output)


@click.command()
@click.argument("version_uri", metavar="models:/NAME/VERSION|models:/NAME@ALIAS")
@click.option("--shard", "shards", type=click.IntRange(min=0), multiple=True, help="Only this one; may be given several times.")
@as_json
@one_line_errors
def replay(version_uri: str, shards: tuple[int, ...], json_output: bool) -> None:
    """Train a version's shards once more from their logs and compare tensor digests: 0 all equal, 1 not all, 2 could not be repeated."""
    from ..commands import exact as commands

    answer = commands.replay(version_uri, shards)
    respond("replay", answer, json_output)
    sys.exit(0 if answer["equal"] else 1)


@click.command("switch-off")
@click.argument("request_id")
@click.option("--version", "version_uri", metavar="models:/NAME/VERSION|models:/NAME@ALIAS", help="Default: the version that is to be unlearned.")
@as_json
@one_line_errors
def switch_off(request_id: str, version_uri: str | None, json_output: bool) -> None:
    """Register, within seconds, a version whose shards that saw the request's records no longer answer, until they are trained again."""
    from ..commands import exact as commands

    respond("switched_off", commands.switch_off(request_id, version_uri), json_output)
