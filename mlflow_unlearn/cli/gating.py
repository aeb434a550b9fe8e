"""`mlflow-unlearn gate | promote | approve | override | history`: may it be deployed, who let it, and on which evidence."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import Any

import click

from ..reasons import APPROVALS, OVERRIDES
from .options import as_json, one_line_errors, respond
from .signing_keys import passphrase

CODES = {"yes": 0, "no": 1}
"""Exit code of each answer; anything else is 2."""
_VERSION = "models:/NAME/VERSION"


@click.command()
@click.argument("version_uri", metavar="models:/NAME/VERSION|models:/NAME@ALIAS")
@click.option("--alias", help="Alias it is to be deployed under; approvals count for one alias.")
@click.option("--policy", type=click.Path(path_type=Path, dir_okay=False), help="Default: policy.yaml.")
@as_json
@one_line_errors
def gate(version_uri: str, alias: str | None, policy: Path | None, json_output: bool) -> None:
    """May this version be deployed? 0 yes, 1 no, 2 could not decide, with all reasons."""
    from ..commands import gating as commands

    # What MLflow's import made stays: to look through it once more when Python ends is a quarter of the whole command.
    answer = commands.gate_version(version_uri, policy, alias, opened=gc.freeze)
    respond("gate", answer, json_output)
    sys.exit(CODES.get(answer["answer"], 2))


@click.command()
@click.argument("version_uri", metavar=_VERSION)
@click.option("--alias", required=True, help="The alias to let point at it.")
@as_json
@one_line_errors
def promote(version_uri: str, alias: str, json_output: bool) -> None:
    """Ask the gate, then set the alias; policy.yaml (gate.enforcement) says what a no does. Either is entered in the ledger."""
    from ..commands import promoting as commands

    done = commands.promote(version_uri, alias)
    respond("promotion", done, json_output)
    if done["promoted"] and done["answer"] != "yes" and done["enforcement"] == "warn":
        click.echo(f"warning: {done['sentence']}, and was promoted all the same: gate.enforcement is warn", err=True)
    sys.exit(0 if done["promoted"] else CODES.get(done["answer"], 2))


@click.command()
@click.argument("version_uri", metavar=_VERSION)
@click.option("--alias", required=True, help="The alias it is approved for.")
@as_json
@one_line_errors
def approve(version_uri: str, alias: str, json_output: bool) -> None:
    """Sign, with a reviewer's key, that this version may be deployed under an alias."""
    _review(version_uri, alias, "approval", APPROVALS[0], json_output)


@click.command()
@click.argument("version_uri", metavar=_VERSION)
@click.option("--alias", required=True, help="The alias it is overridden for.")
@click.option("--reason", type=click.Choice(OVERRIDES), required=True, help="Why.")
@as_json
@one_line_errors
def override(version_uri: str, alias: str, reason: str, json_output: bool) -> None:
    """Sign, with a reviewer's key, that this version may be deployed although its verdict is INCONCLUSIVE."""
    _review(version_uri, alias, "override", reason, json_output)


@click.command()
@click.argument("model_uri", metavar="[models:/NAME]", required=False)
@as_json
@one_line_errors
def history(model_uri: str | None, json_output: bool) -> None:
    """Who promoted what, when and on which evidence, and what was refused."""
    from ..commands import promoting as commands

    respond("history", commands.history(model_uri), json_output)


def _review(version_uri: str, alias: str, kind: str, reason: str, json_output: bool) -> None:
    from ..commands import promoting as commands
    from ..statements import ReviewKind

    done: dict[str, Any] = commands.review(version_uri, alias, ReviewKind(kind), reason, passphrase)
    respond("review", done, json_output)
