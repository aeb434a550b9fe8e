"""What the modules of the command line share: `--json`, errors as one line, ids from a file, answers on stdout."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, NoReturn, ParamSpec

import click

from ..errors import ConfigError, GateError, UnlearnError

P = ParamSpec("P")


def as_json(command: Callable[P, Any]) -> Callable[P, Any]:
    """The option `--json`: machine-readable output."""
    return click.option("--json", "json_output", is_flag=True, help="Machine-readable output.")(command)


def one_line_errors(command: Callable[P, Any]) -> Callable[P, Any]:
    """Known trouble as one clear line a complaint and exit code 2, or 1 where a gate said no; never a stack trace."""

    @wraps(command)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> Any:
        try:
            return command(*args, **kwargs)
        except (UnlearnError, OSError) as error:
            fail(error)

    return guarded


def fail(error: Exception) -> NoReturn:
    """Print each complaint on a line of its own and end with 2, or with 1 where a gate said no."""
    where = f"{error.filename}: " if isinstance(error, OSError) and error.filename else ""
    text = error.strerror or str(error) if isinstance(error, OSError) else str(error)
    for line in text.splitlines() or [type(error).__name__]:
        click.echo(f"error: {where}{line}", err=True)
    sys.exit(1 if isinstance(error, GateError) else 2)


def lines(stream: Any) -> tuple[str, ...]:
    """Ids of a file or stdin, one a line; blank lines are kept so that line numbers stay right."""
    try:
        return tuple(line.strip() for line in stream.read().decode("utf-8-sig").splitlines()) if stream else ()
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"{stream.name} line {line}: not UTF-8; save the list of ids as UTF-8 text") from None


def respond(kind: str, document: dict[str, Any], json_output: bool) -> None:
    """Print a command's document: as JSON, or as commands/console.py shows this kind."""
    if json_output:
        import json

        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        from ..commands.console import show

        show(kind, document)
