"""Answers of `gate`, `promote`, `approve`, `override` and `history` for people."""

from __future__ import annotations

from typing import Any

from rich.console import Console

_STYLE = {"yes": "green", "no": "red", "undecided": "yellow"}


def show_gate(out: Console, document: dict[str, Any]) -> None:
    """The answer in a sentence, then a line for every reason."""
    style = _STYLE[document["answer"]]
    out.print(f"[{style}]{document['answer']}[/{style}]: {document['sentence']}", soft_wrap=True)
    for line in (*document["reasons"], *document["notes"]):
        out.print(f"- {line}", soft_wrap=True, markup=False)


def show_promotion(out: Console, document: dict[str, Any]) -> None:
    """What became of the alias, then the gate's answer."""
    name = f"{document['version'].rpartition('/')[0]}@{document['alias']}"
    replaced = f", which was {document['replaced']}" if document["replaced"] else ", which was new"
    if document["already"]:
        out.print(f"{name} points at {document['version']} already", soft_wrap=True)
    elif document["promoted"]:
        out.print(f"{name} now points at {document['version']}{replaced}", soft_wrap=True)
    else:
        out.print(f"[red]refused[/red]: {name} was not moved to {document['version']}", soft_wrap=True)
    if document["answer"] != "yes" and document["promoted"]:
        out.print(f"the gate's answer is {document['answer']}, and the policy only says {document['enforcement']} for this model", soft_wrap=True)
    show_gate(out, document)


def show_review(out: Console, document: dict[str, Any]) -> None:
    """What was signed."""
    words = f"{document['kind']} of {document['version']} for {document['alias']} signed by {document['by']}"
    out.print(f"{words} ({document['reason']}): statement {document['of'][:16]}", soft_wrap=True)


def show_history(out: Console, document: dict[str, Any]) -> None:
    """A line for every promotion and refusal."""
    for each in document["promotions"]:
        name, done = f"{each['model']['name']}@{each['alias']}", "" if each["granted"] else " refused"
        was = f"was {each['replaced']}" if each["replaced"] else "was new"
        gate = f"gate {each['answer']} ({', '.join(each['codes'])}), {each['enforcement']}"
        out.print(f"{each['at']} {each['by']}: {name} -> {each['version']}{done}, {was}; {gate}", soft_wrap=True, markup=False)
    if not document["promotions"]:
        out.print("nothing was promoted or refused yet")
    out.print(f"ledger head {document['head']}; --json names the evidence of each", soft_wrap=True)
