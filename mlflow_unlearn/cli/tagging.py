"""`mlflow-unlearn tag`: people as a served ensemble may be told of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from .options import as_json, lines, one_line_errors


@click.command()
@click.option("--subjects", type=click.File("rb"), required=True, help="File with one subject id a line, or - for stdin.")
@as_json
@one_line_errors
def tag(subjects: Any, json_output: bool) -> None:
    """Keyed tags for the column `subject_tag` of a served ensemble, one a line. A tag says which shard would hold a person, not whether it does."""
    from ..commands.tagging import tag_subjects

    found = tag_subjects(Path(), lines(subjects))
    click.echo(json.dumps({"tags": found}, indent=2) if json_output else "\n".join(each or "" for each in found))
