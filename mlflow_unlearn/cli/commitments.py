"""`mlflow-unlearn commitment ...`: what was committed to, proofs of who is and who is not in it, and the key that proofs need."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from .options import P, as_json, lines, one_line_errors, respond

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.group()
def commitment() -> None:
    """Commitments to dataset revisions, and proofs of inclusion and absence."""


def _place(command: Callable[P, Any]) -> Callable[P, Any]:
    for option in (
        click.option("--rev", help="Git revision of the dataset. Default: the workspace."),
        click.option("--version", metavar="models:/NAME/VERSION", help="The data of a registered version instead."),
        click.option("--retain", is_flag=True, help="What that version retained of them."),
    ):
        command = option(command)
    return command


def _ids(command: Callable[P, Any]) -> Callable[P, Any]:
    for option in (
        click.option("--subjects", type=click.File("rb"), help="File with one subject id a line, or - for stdin."),
        click.option("--records", type=click.File("rb"), help="File with one record id a line, or - for stdin."),
        click.option("--contents", type=click.File("rb"), help='File with one {"prompt": ..., "answer": ...} a line, or - for stdin.'),
    ):
        command = option(command)
    return command


def _given(arguments: dict[str, Any]) -> dict[Any, tuple[str, ...]]:
    return {domain: lines(arguments.pop(f"{domain}s")) for domain in ("subject", "record", "content")}


@commitment.command("show")
@_place
@click.option("--leaves", type=_FILE, help="Write all leaves to this file, for `commitment audit`.")
@as_json
@one_line_errors
def commitment_show(json_output: bool, leaves: Path | None, **place: Any) -> None:
    """Root, size and key id of a dataset revision, or of what a version was made from."""
    from ..commands import commitments as commands

    respond("commitment", commands.show(commands.Place(**place), leaves), json_output)


@commitment.command("prove")
@_place
@_ids
@click.option("--out", type=_FILE, required=True, help="The document of proofs. It holds leaves, no ids.")
@as_json
@one_line_errors
def commitment_prove(json_output: bool, out: Path, **given: Any) -> None:
    """Write proofs that ids are in a set or are not. Ids come from a file or stdin only."""
    from ..commands import commitments as commands

    ids = _given(given)
    respond("commitment", commands.prove(commands.Place(**given), ids, out), json_output)


@commitment.command("verify")
@click.argument("file", type=_FILE)
@click.option("--key", "key_file", type=_FILE, required=True, help="The commitment key, as `commitment disclose` wrote it.")
@_ids
@click.option("--root", metavar="HEX:SIZE", help="What was published, e.g. the version's tag. Without it the file's own root is taken.")
@click.option("--expect", type=click.Choice(["present", "absent"]), help="Also fail when an id is shown to be the other.")
@as_json
@one_line_errors
def commitment_verify(json_output: bool, **given: Any) -> None:
    """Check proofs offline: 0 all ids are shown, 1 one is not, 2 bad input. An absence holds if the leaves were sorted: see `commitment audit`."""
    from ..commands import commitments as commands

    _answer(commands.verify(ids=_given(given), **given), json_output)


@commitment.command("audit")
@click.argument("file", type=_FILE)
@click.option("--root", metavar="HEX:SIZE", required=True, help="What was published.")
@as_json
@one_line_errors
def commitment_audit(file: Path, root: str, json_output: bool) -> None:
    """Check all leaves of a set (from `commitment show --leaves`) against its root: sorted, distinct, complete."""
    from ..commands import commitments as commands

    _answer(commands.audit(file, root), json_output)


@commitment.command("rotate")
@click.option("--yes", "confirmed", is_flag=True, help="Needed: nothing made under the old key can be proven afterwards.")
@as_json
@one_line_errors
def commitment_rotate(confirmed: bool, json_output: bool) -> None:
    """Destroy the commitment key and its leaves and go on with a new key."""
    from ..commands import commitments as commands

    respond("commitment", commands.rotate(confirmed), json_output)


@commitment.command("disclose")
@click.option("--to", "target", type=_FILE, required=True, help="A new file, mode 0600.")
@as_json
@one_line_errors
def commitment_disclose(target: Path, json_output: bool) -> None:
    """Write the commitment key for an auditor, who can then test any id against proofs."""
    from ..commands import commitments as commands

    respond("commitment", commands.disclose(target), json_output)


def _answer(found: dict[str, Any], json_output: bool) -> None:
    respond("commitment", found, json_output)
    sys.exit(1 if found["problems"] else 0)
