"""`mlflow-unlearn request ...`: the ledger of erasure requests on the command line."""

from __future__ import annotations

import sys
from typing import Any

import click

from ..reasons import EXTENSIONS, MEASURES, PAUSES, every_ground
from .options import as_json, lines, one_line_errors, respond

BASES = ("gdpr_17", "ccpa", "copyright", "safety", "contract", "poisoning")


@click.group()
def request() -> None:
    """The ledger of erasure requests."""


@request.command("add")
@click.option("--subjects", type=click.File("rb"), help="File with one subject id a line, or - for stdin.")
@click.option("--records", type=click.File("rb"), help="File with one record id a line, or - for stdin.")
@click.option("--files", type=click.File("rb"), help="File with the path of one dataset file a line, relative to the dataset, or - for stdin.")
@click.option("--removed-between", nargs=2, metavar="REV REV", help="Every record of the first git revision that the second lacks.")
@click.option("--basis", type=click.Choice(BASES), required=True, help="What the request rests on: a law, a contract, or a defect of the data.")
@click.option(
    "--effect",
    type=click.Choice(["removal", "suppression"]),
    help="removal: gone from the weights; suppression: only no longer said. Default: removal; suppression for copyright and safety.",
)
@click.option("--received", help="When the request arrived, e.g. 2026-11-24T18:00:00Z. Default: now.")
@click.option("--due", help="Agreed deadline, where the law sets none.")
@as_json
@one_line_errors
def request_add(json_output: bool, **given: Any) -> None:
    """Enter a request. Ids come from a file or stdin, never from the command line, and are stored as keyed tags only."""
    from ..commands import requests as commands

    named = {name: lines(given.pop(name)) for name in ("subjects", "records", "files")}
    requested = commands.Requested(**named, removed_between=given.pop("removed_between"))
    respond("request", commands.add_request(requested, commands.Terms(**given)), json_output)


@request.command("list")
@click.option("--state", type=click.Choice(["open", "closed", "refused"]), help="Only those. Default: all.")
@as_json
@one_line_errors
def request_list(state: str | None, json_output: bool) -> None:
    """All requests with their deadlines."""
    from ..commands import requests as commands

    respond("requests", commands.list_requests(state), json_output)


@request.command("show")
@click.argument("request_id")
@as_json
@one_line_errors
def request_show(request_id: str, json_output: bool) -> None:
    """One request."""
    from ..commands import requests as commands

    respond("request", commands.show_request(request_id), json_output)


@request.command("extend")
@click.argument("request_id")
@click.option("--reason", type=click.Choice(EXTENSIONS), required=True, help="Why more time is needed.")
@click.option("--until", help="New due moment, e.g. 2027-01-24T18:00:00Z. Default: all that the law allows.")
@as_json
@one_line_errors
def request_extend(request_id: str, reason: str, until: str | None, json_output: bool) -> None:
    """Extend a deadline, once and before it passes (GDPR art. 12(3): to three months from receipt; CCPA: to 90 days). Tell the person why."""
    from ..commands import requests as commands

    respond("request", commands.extend_request(request_id, reason, until), json_output)


@request.command("pause")
@click.argument("request_id")
@click.option("--reason", type=click.Choice(PAUSES), required=True, help="What is waited for.")
@as_json
@one_line_errors
def request_pause(request_id: str, reason: str, json_output: bool) -> None:
    """Stop the clock while the person proves who they are (GDPR art. 12(6)); not under CCPA."""
    from ..commands import requests as commands

    respond("request", commands.pause_request(request_id, reason), json_output)


@request.command("resume")
@click.argument("request_id")
@as_json
@one_line_errors
def request_resume(request_id: str, json_output: bool) -> None:
    """Let the clock run again; the deadline moves by the pause."""
    from ..commands import requests as commands

    respond("request", commands.resume_request(request_id), json_output)


@request.command("refuse")
@click.argument("request_id")
@click.option("--ground", "--reason", "ground", type=click.Choice(every_ground()), required=True, help="Which fit depends on the basis.")
@as_json
@one_line_errors
def request_refuse(request_id: str, ground: str, json_output: bool) -> None:
    """Refuse a request on a coded ground."""
    from ..commands import requests as commands

    respond("request", commands.refuse_request(request_id, ground), json_output)


@request.command("interim")
@click.argument("request_id")
@click.option("--measure", type=click.Choice(MEASURES), required=True, help="What is done meanwhile.")
@click.option("--end", "ended", is_flag=True, help="The measure ends now.")
@as_json
@one_line_errors
def request_interim(request_id: str, measure: str, ended: bool, json_output: bool) -> None:
    """Note a measure that protects the person until the request is decided (GDPR art. 18). It is noted, not enforced, here."""
    from ..commands import requests as commands

    respond("request", commands.interim_measure(request_id, measure, ended=ended), json_output)


@request.command("recipient")
@click.argument("request_id")
@click.option("--name", required=True, help="A code of at most 40 characters a-z, 0-9, _ . -; never a person's name.")
@click.option("--told", help="When the recipient was told, e.g. 2026-11-24T18:00:00Z.")
@click.option("--acknowledged", help="When the recipient acknowledged.")
@as_json
@one_line_errors
def request_recipient(request_id: str, name: str, told: str | None, acknowledged: str | None, json_output: bool) -> None:
    """Note somebody to whom the data were disclosed and who has to be told of the erasure (GDPR art. 19)."""
    from ..commands import requests as commands

    respond("request", commands.note_recipient(request_id, name, told, acknowledged), json_output)


@request.command("close")
@click.argument("request_id")
@as_json
@one_line_errors
def request_close(request_id: str, json_output: bool) -> None:
    """Close a request whose effect passed: retain becomes the dataset's new revision, and the canaries it used are spent."""
    from ..commands.closing import close_request
    from ..commands.requests import open_ends

    answer = close_request(request_id)
    answer["warnings"] = open_ends(request_id) if answer["closed"] else []
    respond("close", answer, json_output)
    sys.exit(0 if answer["closed"] else 1)
