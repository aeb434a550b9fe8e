"""`mlflow-unlearn attest` and `adopt`: who stands for what a version was trained on."""

from __future__ import annotations

from typing import Any

import click

from .options import as_json, one_line_errors, respond
from .signing_keys import passphrase


@click.command()
@click.argument("version_uri", metavar="models:/NAME/VERSION|models:/NAME@ALIAS")
@as_json
@one_line_errors
def attest(version_uri: str, json_output: bool) -> None:
    """Sign, as a trainer, the lineage that was recorded when a version was trained. Repeating it changes nothing."""
    from ..commands import attesting as commands

    respond("attested", commands.attest_version(version_uri, passphrase), json_output)


@click.command()
@click.argument("version_uri", metavar="models:/NAME/VERSION|models:/NAME@ALIAS")
@as_json
@one_line_errors
def countersign(version_uri: str, json_output: bool) -> None:
    """Add the signature of a key here to a version's certificate, or else its lineage, before the key that signed it ends."""
    from ..commands import attesting as commands

    respond("countersigned", commands.countersign(version_uri, passphrase), json_output)


@click.command()
@click.argument("version_uri", metavar="models:/NAME/VERSION")
@click.option("--data", metavar="PATH[@REV]", multiple=True, help="A dataset under DVC that it learned from, at a git revision; repeatable.")
@click.option("--made-from", metavar="models:/NAME/VERSION", multiple=True, help="A registered version that it was made from; repeatable.")
@click.option("--relation", type=click.Choice(("fine-tuned", "adapter", "merged", "quantised")), help="How. Default: fine-tuned; of several, merged.")
@click.option("--nothing-else", is_flag=True, help="It was made from no other version and no local model; a public one may be.")
@click.option("--replace", is_flag=True, help="Take the place of an earlier statement that said something else; that one is kept.")
@as_json
@one_line_errors
def adopt(version_uri: str, replace: bool, json_output: bool, **origin: Any) -> None:
    """State and sign the lineage of a version that was trained before this tool came. It stays marked as stated by a person, for ever."""
    from ..commands import attesting as commands

    respond("attested", commands.adopt(version_uri, commands.Origin(**origin), replace=replace, passphrase=passphrase), json_output)
