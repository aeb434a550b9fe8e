"""The command line. Results go to stdout, everything else to stderr; 0 is yes or done, 1 is no, 2 is could-not-decide or bad input.

Nothing heavy is imported before a command needs it: `--help` costs click alone.
"""

from __future__ import annotations

import gc
from pathlib import Path

import click

from .attesting import adopt, attest, countersign
from .benchmark import benchmark
from .commitments import commitment
from .exact import plan, replay, switch_off
from .gate_log import gate_log
from .gating import approve, gate, history, override, promote
from .guard import guard
from .ledger import ledger, tag_key, tombstone
from .options import as_json, one_line_errors, respond
from .power import power
from .reporting import report
from .requests import request
from .serving import ui
from .signing_keys import key
from .tagging import tag
from .verifying import verify
from .webhooks import webhook

STAGES = ("index", "trace", "split", "validate", "unlearn", "shards", "train_shard", "ensemble", "replay", "evaluate", "judge", "register")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="mlflow-unlearn")
def main() -> None:
    """Trace erased records to registered models, make the models forget, and say honestly how well."""
    # Importing MLflow makes a million objects that stay; looking through them again and again is up to a sixth of `trace`.
    gc.set_threshold(200_000, 20, 20)


@main.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=Path("unlearn"))
@click.option("--model", help="Registered model to write into params.yaml.")
@click.option("--data", help="DVC-tracked training data to write into params.yaml, relative to the current folder.")
@as_json
@one_line_errors
def init(folder: Path, model: str | None, data: str | None, json_output: bool) -> None:
    """Scaffold FOLDER (default: unlearn/) into this Git and DVC repository, beside its own pipeline. Never overwrites."""
    from ..commands.scaffolding import scaffold

    respond("init", scaffold(folder, model, data), json_output)


@main.command()
@click.argument("name", type=click.Choice(STAGES))
@click.argument("shard", type=click.IntRange(min=0), required=False)
@one_line_errors
def stage(name: str, shard: int | None) -> None:
    """Run one DVC stage in the current folder (`dvc repro` calls this); `train_shard` takes the number of its SHARD."""
    from importlib import import_module

    from ..stages.workbench import Workbench

    if (name == "train_shard") != (shard is not None):
        raise click.UsageError("`train_shard` takes a shard, and no other stage does")
    click.echo(f"{name}: {import_module(f'..stages.{name}', __package__).run(Workbench(), *([] if shard is None else [shard]))}")


@main.command()
@click.option("--all-revisions", is_flag=True, hidden=True, help="Changes nothing: every git revision is always indexed.")
@as_json
@one_line_errors
def index(all_revisions: bool, json_output: bool) -> None:
    """Build the record index of every dataset revision, incrementally."""
    from ..commands import overview as commands

    respond("index", commands.build_index(), json_output)


main.add_command(request)
main.add_command(guard)
main.add_command(gate)
main.add_command(promote)
main.add_command(approve)
main.add_command(override)
main.add_command(history)
main.add_command(gate_log)
main.add_command(webhook)
main.add_command(ledger)
main.add_command(tombstone)
main.add_command(tag_key)
main.add_command(key)
main.add_command(attest)
main.add_command(countersign)
main.add_command(adopt)
main.add_command(commitment)
main.add_command(plan)
main.add_command(replay)
main.add_command(switch_off)
main.add_command(tag)
main.add_command(benchmark)
main.add_command(power)
main.add_command(verify)
main.add_command(report)
main.add_command(ui)


@main.command()
@click.argument("request_id")
@click.option("--plan", "show_plan", is_flag=True, help="One job for each affected model, over all projects that share the ledger.")
@click.option("--graph", type=click.Path(path_type=Path, dir_okay=False), help="Also draw the paths: FILE.dot, FILE.svg or FILE.html.")
@as_json
@one_line_errors
def trace(request_id: str, show_plan: bool, graph: Path | None, json_output: bool) -> None:
    """Affected, clear and unknown model versions of a request, over all git revisions, and why."""
    from ..commands import tracing as commands

    if show_plan:
        respond("plan", commands.plan_request(request_id), json_output)
    else:
        respond("trace", commands.trace_request(request_id, graph), json_output)


@main.command()
@as_json
@one_line_errors
def status(json_output: bool) -> None:
    """Open requests, days left, versions blocked."""
    from ..commands import overview as commands

    respond("status", commands.status(), json_output)
