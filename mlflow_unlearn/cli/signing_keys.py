"""`mlflow-unlearn key ...`: keys that sign, and the trust file that says whose may sign what."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import click

from ..reasons import REVOCATIONS
from .options import P, as_json, one_line_errors, respond

ROLES = ("owner", "trainer", "evaluator", "reviewer")
DAYS = 730
MOST_DAYS = 3650


def passphrase(holder: str) -> bytes:
    """The passphrase of a holder's key: MLFLOW_UNLEARN_PASSPHRASE, or asked for on a terminal, twice where the key is still to be made."""
    from ..signing_keys import PASSPHRASE, from_environment

    return from_environment(holder) if os.environ.get(PASSPHRASE) or not sys.stdin.isatty() else _asked(holder)


@cache
def _asked(holder: str) -> bytes:
    from ..config import settings
    from ..signing_keys import key_file

    new = not key_file(settings().key_folder, holder).exists()
    given: str = click.prompt(f"Passphrase of {holder}'s key", hide_input=True, confirmation_prompt=new, err=True)
    return given.encode()


@click.group()
def key() -> None:
    """Keys that sign certificates, lineage and reviews, and who is trusted with what."""


def _by_owner(command: Callable[P, Any]) -> Callable[P, Any]:
    return click.option("--owner", default="", help="Who signs this change: a holder, or scheme:reference of a KMS. Default: the one owner here.")(
        command
    )


def _role(command: Callable[P, Any]) -> Callable[P, Any]:
    return click.option("--role", "roles", type=click.Choice(ROLES), multiple=True, required=True, help="May be given several times.")(command)


def _days(command: Callable[P, Any]) -> Callable[P, Any]:
    return click.option("--days", type=click.IntRange(1, MOST_DAYS), default=DAYS, show_default=True, help="How long it is valid.")(command)


def _owner(reference: str) -> Any:
    from ..commands.signing_keys import Owner

    return Owner(reference=reference, passphrase=passphrase)


def _wanted(holder: str, roles: tuple[str, ...], days: int) -> Any:
    from ..commands.signing_keys import Wanted
    from ..statements import Role

    return Wanted(holder=holder, roles=tuple(map(Role, roles)), days=days)


@key.command("new")
@click.argument("holder")
@_role
@_days
@_by_owner
@as_json
@one_line_errors
def key_new(holder: str, roles: tuple[str, ...], days: int, owner: str, json_output: bool) -> None:
    """Make a key for HOLDER, a name in lower case that may be public. The first one is an owner's and begins the trust file."""
    from ..commands import signing_keys as commands

    respond("key", commands.new_key(_wanted(holder, roles, days), _owner(owner)), json_output)


@key.command("add")
@click.argument("public_key")
@click.option("--holder", required=True, help="Whose it is: a name that may be public.")
@_role
@_days
@_by_owner
@as_json
@one_line_errors
def key_add(public_key: str, holder: str, roles: tuple[str, ...], days: int, owner: str, json_output: bool) -> None:
    """Trust somebody's PUBLIC_KEY (64 hex characters), which was made on another machine."""
    from ..commands import signing_keys as commands

    respond("key", commands.add_key(public_key, _wanted(holder, roles, days), _owner(owner)), json_output)


@key.command("show")
@click.option("--all", "everything", is_flag=True, help="Keys that have expired or were revoked too.")
@as_json
@one_line_errors
def key_show(everything: bool, json_output: bool) -> None:
    """Who may sign what, and which private keys are here; ends with 1 where nothing of it is believed now."""
    from ..commands import signing_keys as commands

    found = commands.show_keys(everything)
    respond("keys", found, json_output)
    sys.exit(1 if found["problem"] else 0)


@key.command("rotate")
@click.argument("holder")
@click.option("--now", "at_once", is_flag=True, help="The old key ends at once instead of in 30 days.")
@_days
@_by_owner
@as_json
@one_line_errors
def key_rotate(holder: str, at_once: bool, days: int, owner: str, json_output: bool) -> None:
    """Go on with a new key of HOLDER with the same roles. What the old one signed counts until its end."""
    from datetime import timedelta

    from ..commands import signing_keys as commands
    from ..trust import OVERLAP

    respond("key", commands.rotate_key(holder, days, timedelta(0) if at_once else OVERLAP, _owner(owner)), json_output)


@key.command("revoke")
@click.argument("reference", metavar="KEYID|HOLDER")
@click.option("--reason", type=click.Choice(REVOCATIONS), required=True, help="Why it no longer counts.")
@_by_owner
@as_json
@one_line_errors
def key_revoke(reference: str, reason: str, owner: str, json_output: bool) -> None:
    """Let a key, or every key of HOLDER, no longer count, nor anything that it ever signed."""
    from ..commands import signing_keys as commands

    respond("key", commands.revoke_key(reference, reason, _owner(owner)), json_output)


@key.command("trust-policy")
@click.option("--another-ledger", is_flag=True, help="Go on with this ledger, although the trust file names another one.")
@_by_owner
@as_json
@one_line_errors
def key_trust_policy(another_ledger: bool, owner: str, json_output: bool) -> None:
    """Stand for policy.yaml, the data section of params.yaml and the ledger as they are here: the gate refuses others."""
    from ..commands import signing_keys as commands

    respond("key", commands.trust_policy(_owner(owner), another_ledger), json_output)
