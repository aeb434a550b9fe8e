"""The gate's log for people: a table, or whether it is whole."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from .console_tables import console, table

_STYLE = {"granted": "green", "refused": "red", "alarm": "red", "observed": "yellow", "rollback": "yellow"}
_COLUMNS = ("no.", "time", "who", "what", "version", "alias", "replaced", "answer", "outcome", "why")


def show_gate_log(document: dict[str, Any], verify: bool) -> None:
    """Print a line an entry; with `verify` only whether all of them are what was written."""
    out = console()
    if verify:
        _verified(out, document)
    else:
        rows = [_row(line) for line in document["entries"]]
        out.print(table(f"The gate's log in {_shown(document['database'])}", _COLUMNS, rows, whole=("no.",)))
        out.print(f"head {document['head']['number']} {document['head']['mac']}; not checked, --verify does that", soft_wrap=True, markup=False)


def _verified(out: Console, document: dict[str, Any]) -> None:
    for problem in document["problems"]:
        out.print(problem, style="red", soft_wrap=True, markup=False)
    if not document["problems"]:
        out.print(f"{document['verified']} entries, each as it was written; head {document['head']['mac']}", soft_wrap=True)
    for note in document["notes"]:
        out.print(note, style="yellow", soft_wrap=True, markup=False)


def _row(line: dict[str, Any]) -> tuple[Text, ...]:
    version = f"{line['model']}/{line['version']}" if line["version"] else line["model"]
    cells = (line["number"], line["at"], line["actor"], line["action"], version, line["alias"], line["replaced"], line["answer"])
    outcome = Text(line["outcome"], style=_STYLE.get(line["outcome"], ""))
    return (*(Text(_shown(cell)) for cell in cells), outcome, Text(_why(line)))


def _why(line: dict[str, Any]) -> str:
    said = [each for reason in line["reasons"] for each in reason.splitlines()]
    return "\n".join(map(_shown, said or line["codes"]))


def _shown(value: object) -> str:
    """Names come from whoever may ask; none of them steers a terminal."""
    return "".join(each if each.isprintable() else f"\\x{ord(each):02x}" for each in str(value))
