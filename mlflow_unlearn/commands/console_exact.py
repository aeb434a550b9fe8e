"""Answers of the exact route's commands for people."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table


def show_forecast(out: Console, document: dict[str, Any]) -> None:
    """What a deletion will cost, and how many shards would suit."""
    if not document["held"]:
        out.print(f"{document['parent']} was trained on none of the records: nothing to train")
    table = _table(f"{document['request']} on {document['parent']}", ("shard", "trained again from slice", "records", "tokens"))
    for each in document["touched"]:
        table.add_row(str(each["shard"]), f"{each['resumes_before']} of {document['slices']}", str(each["records"]), f"{each['tokens']:,}")
    out.print(table)
    share = f"{document['fraction']:.1%} of a full training ({document['tokens']:,} of {document['full_tokens']:,} tokens)"
    out.print(
        f"{len(document['touched'])} of {document['shards']} shards, {share}; by the formula {document['formula']:.1%} for so many people anywhere"
    )
    out.print(_time(document))
    if not document["trained"]:
        out.print("[yellow]not trained yet: tokens are guessed at four characters each, and the first training trains every shard[/yellow]")
    if not document["configured"]:
        out.print("[yellow]params.yaml has no section `exact`; these are its defaults with 8 shards[/yellow]")
    _advice(out, document["advice"], document["shards"])


def show_replay(out: Console, document: dict[str, Any]) -> None:
    """Each shard's digests, then and now."""
    table = _table(f"{document['version']}, family {document['family'][:8]}", ("shard", "logged", "repeated", "equal", "not as then", "s"))
    for each in document["shards"]:
        equal = "[green]yes[/green]" if each["equal"] else "[red]no[/red]"
        table.add_row(
            str(each["shard"]), each["logged"][:16], each["found"][:16], equal, "; ".join(each["differences"]) or "nothing", f"{each['seconds']:.1f}"
        )
    out.print(table)


def show_switched_off(out: Console, document: dict[str, Any]) -> None:
    """Which version answers without which shards."""
    off = ", ".join(map(str, document["off"]))
    out.print(f"{document['version']}: {document['parent']} without shard {off} of {document['shards']}; an interim measure, not evaluated")
    out.print(f"point the alias at it, note it with `mlflow-unlearn request interim {document['request']} suppress_outputs`, then run `dvc repro`")


def _time(document: dict[str, Any]) -> str:
    if document["seconds"] is None:
        return "time: not known before the first training"
    said = f"about {_seconds(document['seconds'])} of training against {_seconds(document['full_seconds'])}"
    said += f"; repeating the touched shards for the claim takes {_seconds(document['replay_seconds'])} more"
    return said if document["cost"] is None else f"{said}; cost {document['cost']:.2f} against {document['full_cost']:.2f}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _advice(out: Console, advice: dict[str, Any], now: int) -> None:
    batches = advice["batches"]
    days = "day" if len(batches) == 1 else "days"
    where = (
        f"requests of {len(batches)} {days} so far"
        if advice["from_history"]
        else f"no request so far, {', '.join(map(str, batches))} people stand in"
    )
    table = _table(f"How many shards? ({where})", ("shards", "records each", "mean share of a full training", "mean time a batch"))
    for option in advice["options"]:
        mark = " (recommended)" if option["shards"] == advice["recommended"] else ""
        seconds = "" if option["seconds"] is None else _seconds(option["seconds"])
        table.add_row(f"{option['shards']}{mark}", str(option["records_a_shard"]), f"{option['fraction']:.1%}", seconds)
    out.print(table)
    if advice["recommended"] != now:
        out.print(f"another number than {now} is another family: every shard is trained once more")


def _table(title: str, columns: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
