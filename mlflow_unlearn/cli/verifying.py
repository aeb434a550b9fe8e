"""`mlflow-unlearn verify`: what an auditor runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from .options import as_json, one_line_errors

_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("certificate", type=_FILE)
@click.option("--model", type=click.Path(path_type=Path, file_okay=False), help="Folder of the model, as MLflow downloads it.")
@click.option("--trust", type=_FILE, help="Who is believed. Default: MLFLOW_UNLEARN_TRUST, else trust.json at the git root.")
@click.option("--owner", metavar="KEYID", help="Who must have signed the trust file: at least 16 characters of a key id that you know another way.")
@click.option("--policy", type=_FILE, help="policy.yaml that was in force.")
@click.option("--proofs", type=_FILE, help="Proofs of absence, as `commitment prove --retain` writes them.")
@as_json
@one_line_errors
def verify(json_output: bool, **given: Any) -> None:
    """Does CERTIFICATE hold? 0 yes, 1 no, 2 could not decide. Offline; every figure is counted again.

    The same as `python -m verifier` of the folder that `mlflow-unlearn report` packs, which needs nothing of this package.
    """
    import json
    from dataclasses import asdict

    from ..commands import verifying as commands
    from ..verifier.__main__ import EXIT, lines

    report = commands.verify_files(commands.Given(**given))
    click.echo(json.dumps(asdict(report), indent=2, ensure_ascii=False) if json_output else "\n".join(lines(report)))
    sys.exit(EXIT.get(report.answer, 2))
