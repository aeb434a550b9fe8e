"""Answers of `key` for people: signing keys, and the trust file as a table."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from .console_tables import table

_STYLE = {"valid": "green", "not yet valid": "yellow", "expired": "yellow", "revoked": "red"}


def show_key(out: Console, document: dict[str, Any]) -> None:
    """One key that was made, entered, rotated or revoked, or the policy that is trusted now."""
    if "key" in document:
        _one(out, document["key"])
    if "ended" in document:
        ended = document["ended"]
        out.print(f"the old key {ended['key_id'][:16]} ends at {ended['valid_until']}", soft_wrap=True)
    for line in document.get("revoked", ()):
        out.print(f"[red]revoked[/red]: {line['key_id']} of {line['holder']} ({line['revoked_for']})", soft_wrap=True)
    if document["trust_file"]:
        _file(out, document)
    else:
        out.print("[yellow]in no trust file yet: nothing that it signs counts[/yellow]")
    for number, step in enumerate(document["next"], 1):
        out.print(f"next {number}: {step}", soft_wrap=True, markup=False)


def show_keys(out: Console, document: dict[str, Any]) -> None:
    """Who may sign what, until when, and which private keys are here."""
    columns = ("holder", "roles", "key id", "valid until", "state", "private key")
    out.print(table(f"Keys of {document['trust_file']}", columns, [_row(line) for line in document["keys"]], whole=("key id",)))
    if document["hidden"]:
        out.print(f"{document['hidden']} more that have expired or were revoked: --all shows them")
    for each in document["not_in_trust_file"]:
        told = (
            f"{each['file']} of {each['holder']} is in no trust file: mlflow-unlearn key add {each['public']} --holder {each['holder']} --role ROLE"
        )
        out.print(f"[yellow]{told}[/yellow]", soft_wrap=True)
    _file(out, document)
    if document["problem"]:
        out.print(f"[red]nothing is believed now: {document['problem']}[/red]", soft_wrap=True)


def _row(line: dict[str, Any]) -> tuple[str, ...]:
    state = f"[{_STYLE[line['state']]}]{line['state']}[/{_STYLE[line['state']]}]"
    why = f" ({line['revoked_for']})" if line["revoked_for"] else ""
    private = {None: "", True: "retired", False: "here"}[line["retired"]]
    return line["holder"], ", ".join(line["roles"]), line["key_id"][:16], line["valid_until"].partition("T")[0], state + why, private


def _one(out: Console, line: dict[str, Any]) -> None:
    out.print(f"{line['holder']}: {', '.join(line['roles'])}, valid until {line['valid_until']}")
    out.print(f"key id      {line['key_id']}", soft_wrap=True)
    out.print(f"public key  {line['public']}", soft_wrap=True)


def _file(out: Console, document: dict[str, Any]) -> None:
    policy = document["policy"]
    trusted = f"policy.yaml {policy['trusted'][:16]} is trusted" if policy["trusted"] else "no policy.yaml is trusted"
    here = f"another one ({policy['here'][:16]}) lies here: `mlflow-unlearn key trust-policy`" if policy["here"] else "there is none here"
    out.print(f"{document['trust_file']}: change {document['number']}; {trusted}", soft_wrap=True)
    if not policy["same"]:
        out.print(f"[yellow]policy.yaml: {here}[/yellow]", soft_wrap=True)
