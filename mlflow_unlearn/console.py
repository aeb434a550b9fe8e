"""Answers of the command line for people: tables on stdout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

_STYLE = {"yes": "green", "no": "red", "undecided": "yellow"}


def show(kind: str, document: dict[str, Any]) -> None:
    """Print one command's document."""
    out = Console(highlight=False)
    {
        "init": _init,
        "index": _index,
        "request": _request,
        "requests": _requests,
        "close": _close,
        "trace": _trace,
        "gate": _gate,
        "status": _status,
    }[kind](out, document)


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    return table


def _init(out: Console, document: dict[str, Any]) -> None:
    out.print(f"tag key {document['key']}: {document['key_file']}")
    for verb in ("created", "kept"):
        for path in document[verb]:
            out.print(f"{verb} {path}")
    for number, step in enumerate(document["next"], 1):
        out.print(f"next {number}: {step}")


def _index(out: Console, document: dict[str, Any]) -> None:
    rows = [(s["name"], s["md5"], ", ".join(s["revisions"]), s["records"], s["subjects"]) for s in document["states"]]
    out.print(_table("Dataset revisions", ("dataset", "DVC md5", "git revisions", "records", "people"), rows))
    out.print(f"{document['files_newly_indexed']} files newly indexed")


def _request(out: Console, document: dict[str, Any]) -> None:
    due = document["due_at"] or "no statutory deadline"
    out.print(f"{document['request_id']}: {document['state']}, {document['basis']}, {document['effect']}, due {due}")
    out.print(f"{document['subjects']} people and {document['records']} single records, kept as keyed tags")


def _requests(out: Console, document: dict[str, Any]) -> None:
    out.print(
        _table(
            "Erasure requests", ("request", "state", "basis", "effect", "received", "due", "people", "records"), _request_rows(document["requests"])
        )
    )


def _request_rows(requests: Sequence[dict[str, Any]]) -> list[tuple[object, ...]]:
    return [(r["request_id"], r["state"], r["basis"], r["effect"], r["received_at"], r["due_at"], r["subjects"], r["records"]) for r in requests]


def _close(out: Console, document: dict[str, Any]) -> None:
    for line in document["reasons"]:
        out.print(line)


def _trace(out: Console, document: dict[str, Any]) -> None:
    for state, style in (("affected", "red"), ("unknown", "yellow"), ("clear", "green")):
        rows = [(_version(line), ", ".join(line["aliases"]), line["records"], line["why"]) for line in document[state]]
        if rows:
            out.print(_table(f"[{style}]{state}[/{style}]", ("version", "alias", "records", "why"), rows))
    out.print("Lineage is not signed yet: `clear` is what the records say, not what a signature proves.")


def _version(line: dict[str, Any]) -> str:
    return f"{line['model']['name']}/{line['model']['version']}"


def _gate(out: Console, document: dict[str, Any]) -> None:
    answer = document["answer"]
    out.print(f"[{_STYLE[answer]}]{answer}[/{_STYLE[answer]}]: {document['version']}")
    for reason in document["reasons"]:
        out.print(f"- {reason}")


def _status(out: Console, document: dict[str, Any]) -> None:
    if not document["open"]:
        out.print("No open request.")
        return
    rows = [(*row, request["days_left"]) for row, request in zip(_request_rows(document["open"]), document["open"], strict=True)]
    out.print(_table("Open requests", ("request", "state", "basis", "effect", "received", "due", "people", "records", "days left"), rows))
    blocked = [(_version(line), ", ".join(line["aliases"]), line["why"]) for line in document["blocked"]]
    out.print(_table("Versions that must not be deployed", ("version", "alias", "why"), blocked))
