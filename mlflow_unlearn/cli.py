"""The command line. Results go to stdout, everything else to stderr; 0 is yes or done, 1 is no, 2 is could-not-decide or bad input.

Nothing heavy is imported before a command needs it: `--help` costs click alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn, ParamSpec

import click

from .errors import ConfigError, UnlearnError

P = ParamSpec("P")
STAGES = ("index", "trace", "split", "validate", "unlearn", "evaluate", "judge", "register")
BASES = ("gdpr_17", "ccpa", "copyright", "safety", "contract", "poisoning")
REFUSALS = ("gdpr_17_3", "cannot_identify", "duplicate", "withdrawn", "other")


def as_json(command: Callable[P, Any]) -> Callable[P, Any]:
    """The option `--json`: machine-readable output."""
    return click.option("--json", "json_output", is_flag=True, help="Machine-readable output.")(command)


def one_line_errors(command: Callable[P, Any]) -> Callable[P, Any]:
    """Known trouble as one clear line a complaint and exit code 2, never a stack trace."""

    @wraps(command)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> Any:
        try:
            return command(*args, **kwargs)
        except (UnlearnError, OSError) as error:
            fail(error)

    return guarded


def fail(error: Exception) -> NoReturn:
    """Print each complaint on a line of its own and end with 2."""
    where = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
    text = error.strerror or str(error) if isinstance(error, OSError) else str(error)
    for line in text.splitlines() or [type(error).__name__]:
        click.echo(f"error: {where}{line}", err=True)
    sys.exit(2)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="mlflow-unlearn")
def main() -> None:
    """Trace erased records to registered models, make the models forget, and say honestly how well."""


@main.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=Path("unlearn"))
@click.option("--model", help="Registered model to write into params.yaml.")
@click.option("--data", help="DVC-tracked training data to write into params.yaml, relative to the current folder.")
@as_json
@one_line_errors
def init(folder: Path, model: str | None, data: str | None, json_output: bool) -> None:
    """Scaffold FOLDER (default: unlearn/) into this Git and DVC repository, beside its own pipeline. Never overwrites."""
    from .scaffolding import scaffold

    _show("init", scaffold(folder, model, data), json_output)


@main.command()
@click.argument("name", type=click.Choice(STAGES))
@one_line_errors
def stage(name: str) -> None:
    """Run one DVC stage in the current folder (`dvc repro` calls this)."""
    from importlib import import_module

    from .stages.workbench import Workbench

    click.echo(f"{name}: {import_module(f'{__package__}.stages.{name}').run(Workbench())}")


@main.command()
@click.option("--all-revisions", is_flag=True, help="Accepted for clarity: every git revision is always indexed.")
@as_json
@one_line_errors
def index(all_revisions: bool, json_output: bool) -> None:
    """Build the record index of every dataset revision, incrementally."""
    from . import commands

    _show("index", commands.build_index(), json_output)


@main.group()
def request() -> None:
    """The ledger of erasure requests."""


@request.command("add")
@click.option("--subjects", type=click.File("rb"), help="File with one subject id a line, or - for stdin.")
@click.option("--records", type=click.File("rb"), help="File with one record id a line, or - for stdin.")
@click.option("--basis", type=click.Choice(BASES), required=True)
@click.option("--effect", type=click.Choice(["removal", "suppression"]), help="Default: removal; suppression for copyright and safety.")
@click.option("--received", help="When the request arrived, e.g. 2026-11-24T18:00:00Z. Default: now.")
@as_json
@one_line_errors
def request_add(subjects: Any, records: Any, basis: str, effect: str | None, received: str | None, json_output: bool) -> None:
    """Enter a request. Ids come from a file or stdin, never from the command line, and are stored as keyed tags only."""
    from . import commands

    ids = commands.RequestedIds(subjects=_lines(subjects), records=_lines(records))
    _show("request", commands.add_request(ids, basis, effect, received), json_output)


@request.command("list")
@click.option("--state", type=click.Choice(["open", "closed", "refused"]))
@as_json
@one_line_errors
def request_list(state: str | None, json_output: bool) -> None:
    """All requests with their deadlines."""
    from . import commands

    _show("requests", commands.list_requests(state), json_output)


@request.command("show")
@click.argument("request_id")
@as_json
@one_line_errors
def request_show(request_id: str, json_output: bool) -> None:
    """One request."""
    from . import commands

    _show("request", commands.show_request(request_id), json_output)


@request.command("extend")
@click.argument("request_id")
@click.option("--until", required=True, help="New due moment, e.g. 2027-02-24T18:00:00Z.")
@as_json
@one_line_errors
def request_extend(request_id: str, until: str, json_output: bool) -> None:
    """Move a deadline (GDPR art. 12(3): two further months, told to the person within the first)."""
    from . import commands

    _show("request", commands.extend_request(request_id, until), json_output)


@request.command("refuse")
@click.argument("request_id")
@click.option("--reason", type=click.Choice(REFUSALS), required=True)
@as_json
@one_line_errors
def request_refuse(request_id: str, reason: str, json_output: bool) -> None:
    """Refuse a request for a coded reason."""
    from . import commands

    _show("request", commands.refuse_request(request_id, reason), json_output)


@request.command("close")
@click.argument("request_id")
@as_json
@one_line_errors
def request_close(request_id: str, json_output: bool) -> None:
    """Close a request whose effect passed: retain becomes the dataset's new revision and the canary pool is spent."""
    from .closing import close_request

    answer = close_request(request_id)
    _show("close", answer, json_output)
    sys.exit(0 if answer["closed"] else 1)


@main.command()
@click.argument("request_id")
@as_json
@one_line_errors
def trace(request_id: str, json_output: bool) -> None:
    """Affected, clear and unknown model versions of a request, over all git revisions, and why."""
    from . import commands

    _show("trace", commands.trace_request(request_id), json_output)


@main.command()
@click.argument("version_uri", metavar="models:/NAME/VERSION|models:/NAME@ALIAS")
@click.option("--policy", type=click.Path(path_type=Path, dir_okay=False), help="Default: policy.yaml.")
@as_json
@one_line_errors
def gate(version_uri: str, policy: Path | None, json_output: bool) -> None:
    """May this version be deployed? 0 yes, 1 no, 2 could not decide, with all reasons."""
    from . import commands

    answer = commands.gate_version(version_uri, policy)
    _show("gate", answer, json_output)
    sys.exit({"yes": 0, "no": 1}.get(answer["answer"], 2))


@main.command()
@as_json
@one_line_errors
def status(json_output: bool) -> None:
    """Open requests, days left, versions blocked."""
    from . import commands

    _show("status", commands.status(), json_output)


def _lines(stream: Any) -> tuple[str, ...]:
    try:
        return tuple(line.strip() for line in stream.read().decode("utf-8-sig").splitlines()) if stream else ()
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"{stream.name} line {line}: not UTF-8; save the list of ids as UTF-8 text") from None


def _show(kind: str, document: dict[str, Any], json_output: bool) -> None:
    if json_output:
        import json

        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        from .console import show

        show(kind, document)


if __name__ == "__main__":
    main()
