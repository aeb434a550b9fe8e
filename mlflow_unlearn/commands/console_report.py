"""The answer of `report` for people."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape

_WORDS = {
    "yes": "the verifier says yes",
    "no": "the verifier says no",
    "undecided": "the verifier could not decide",
    None: "it has no certificate",
}


def show_report(out: Console, document: dict[str, Any]) -> None:
    """Where both files are, what the verifier says, and what is missing."""
    out.print(f"{document['bundle']}: {document['files']} files, sha256 {document['sha256']}", soft_wrap=True, markup=False)
    out.print(f"{document['page']}: the same for people", soft_wrap=True, markup=False)
    for each in document["versions"]:
        out.print(f"{each['version']}: {_WORDS[each['answer']]}", soft_wrap=True, markup=False)
    if not document["versions"]:
        out.print("no version was made for this request")
    for line in document["absent"]:
        out.print(f"[yellow]absent[/yellow] {escape(line)}", soft_wrap=True)
