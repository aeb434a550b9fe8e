"""`mlflow-unlearn ledger | tombstone | tag-key ...`: the ledger itself, what must not come back, and the key of its tags."""

from __future__ import annotations

import sys
from typing import Any

import click

from ..reasons import LIFTS
from .options import as_json, lines, one_line_errors, respond


@click.group()
def ledger() -> None:
    """Check the ledger of requests."""


@ledger.command("verify")
@as_json
@one_line_errors
def ledger_verify(json_output: bool) -> None:
    """Read the whole ledger: 0 when everything is as it was written, 1 when not, with all that was found."""
    from ..commands import ledger as commands

    found = commands.verify_ledger()
    respond("ledger", found, json_output)
    sys.exit(1 if found["problems"] else 0)


@click.group()
def tombstone() -> None:
    """What was forgotten and must not come back."""


@tombstone.command("list")
@as_json
@one_line_errors
def tombstone_list(json_output: bool) -> None:
    """How many there are, by key."""
    from ..commands import ledger as commands

    respond("tombstones", commands.list_tombstones(), json_output)


@tombstone.command("lift")
@click.option("--request", "request_id", metavar="ID", help="Everything a closed request erased.")
@click.option("--subjects", type=click.File("rb"), help="File with one subject id a line, or - for stdin.")
@click.option("--basis", type=click.Choice(LIFTS), required=True, help="Why they may be in the data again.")
@as_json
@one_line_errors
def tombstone_lift(request_id: str | None, subjects: Any, basis: str, json_output: bool) -> None:
    """Let people who lawfully return be in the data again."""
    from ..commands import ledger as commands

    respond("tombstones", commands.lift_tombstones(request_id, lines(subjects), basis), json_output)


@click.group("tag-key")
def tag_key() -> None:
    """The key under which ids become tags."""


@tag_key.command("rotate")
@as_json
@one_line_errors
def tag_key_rotate(json_output: bool) -> None:
    """Go on with a new tag key. The old one is kept beside it, since tombstones of erased people can only be recognised with it."""
    from ..commands import ledger as commands

    respond("tag_key", commands.rotate_key(), json_output)
