"""`mlflow-unlearn request ...`: the ledger of erasure requests on the command line."""

from __future__ import annotations

import sys
from typing import Any

import click

from .cli_options import as_json, lines, one_line_errors, respond

BASES = ("gdpr_17", "ccpa", "copyright", "safety", "contract", "poisoning")
REFUSALS = ("gdpr_17_3", "cannot_identify", "duplicate", "withdrawn", "other")


@click.group()
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
    from . import request_commands

    ids = request_commands.RequestedIds(subjects=lines(subjects), records=lines(records))
    respond("request", request_commands.add_request(ids, basis, effect, received), json_output)


@request.command("list")
@click.option("--state", type=click.Choice(["open", "closed", "refused"]))
@as_json
@one_line_errors
def request_list(state: str | None, json_output: bool) -> None:
    """All requests with their deadlines."""
    from . import request_commands

    respond("requests", request_commands.list_requests(state), json_output)


@request.command("show")
@click.argument("request_id")
@as_json
@one_line_errors
def requestrespond(request_id: str, json_output: bool) -> None:
    """One request."""
    from . import request_commands

    respond("request", request_commands.show_request(request_id), json_output)


@request.command("extend")
@click.argument("request_id")
@click.option("--until", required=True, help="New due moment, e.g. 2027-02-24T18:00:00Z.")
@as_json
@one_line_errors
def request_extend(request_id: str, until: str, json_output: bool) -> None:
    """Move a deadline (GDPR art. 12(3): two further months, told to the person within the first)."""
    from . import request_commands

    respond("request", request_commands.extend_request(request_id, until), json_output)


@request.command("refuse")
@click.argument("request_id")
@click.option("--reason", type=click.Choice(REFUSALS), required=True)
@as_json
@one_line_errors
def request_refuse(request_id: str, reason: str, json_output: bool) -> None:
    """Refuse a request for a coded reason."""
    from . import request_commands

    respond("request", request_commands.refuse_request(request_id, reason), json_output)


@request.command("close")
@click.argument("request_id")
@as_json
@one_line_errors
def request_close(request_id: str, json_output: bool) -> None:
    """Close a request whose effect passed: retain becomes the dataset's new revision and the canary pool is spent."""
    from .closing import close_request

    answer = close_request(request_id)
    respond("close", answer, json_output)
    sys.exit(0 if answer["closed"] else 1)
