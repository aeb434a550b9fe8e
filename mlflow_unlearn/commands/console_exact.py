"""Answers of the exact route's commands for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from .console_tables import table

_LIST = 40
"""Touched shards that are shown one by one."""


def show_forecast(out: Console, document: dict[str, Any]) -> None:
    """What a deletion will cost, and how many shards would suit."""
    found, shape, data = document["forecast"], document["shape"], document["data"]
    out.print(f"{document['request']} on {data['version'] or 'the dataset here'}: {found['people']} people, {found['requested']} records", end="")
    out.print(f" and {found['canaries']} canaries of {data['records']}")
    if found["touched"]:
        _touched(out, found["touched"], shape["slices"])
    _cost(out, found, shape, "" if document["tokens_counted"] else "about ")
    if document["batch"]:
        both = document["batch"]["forecast"]
        out.print(f"with the other open requests in one run: {_again(both, shape)}")
    _recommendation(out, document["recommendation"], shape["shards"])
    for note in document["notes"]:
        out.print(f"[yellow]{note}[/yellow]", soft_wrap=True)
    if document["settings"]:
        out.print("to be written into params.yaml, base and optimiser to your taste:")
        out.print(f"exact: {json.dumps(document['settings']['exact'])}", soft_wrap=True, markup=False)


def show_replay(out: Console, document: dict[str, Any]) -> None:
    """Each shard's digests, then and now."""
    rows = [
        (each["shard"], each["logged"][:16], each["found"][:16], _equal(each["equal"]), "; ".join(each["differences"]), f"{each['seconds']:.1f} s")
        for each in document["shards"]
    ]
    columns = ("shard", "logged", "repeated", "equal", "not as it was then", "took")
    out.print(table(f"{document['version']}, family {document['family'][:8]}", columns, rows))


def show_switched_off(out: Console, document: dict[str, Any]) -> None:
    """Which version answers without which shards."""
    off, names = ", ".join(map(str, document["off"])), ", ".join(document["requests"])
    out.print(f"{document['version']}: {document['parent']} without shard {off} of {document['shards']}, for {names}; not evaluated, no verdict")
    out.print(document["signed"], soft_wrap=True, markup=False)
    out.print(f"next 1: serve it: the alias in MLflow is yours to move; the shards are still in {document['parent']}")
    out.print(f"next 2: mlflow-unlearn request interim {document['request']} --measure suppress_outputs")
    out.print("next 3: dvc repro")


def _touched(out: Console, touched: Sequence[Mapping[str, Any]], slices: int) -> None:
    rows = [(each["shard"], each["requested"], each["canaries"], _from(each, slices), each["records"], f"{each['tokens']:,}") for each in touched]
    columns = ("shard", "records leave", "canaries leave", "trained again from", "records left", "tokens")
    out.print(table("Touched shards", columns, rows[:_LIST]))
    if len(rows) > _LIST:
        out.print(f"and {len(rows) - _LIST} more; --json has all")


def _from(shard: Mapping[str, Any], slices: int) -> str:
    number = shard["resumes_before"]
    if not shard["records"]:
        return "empty: never answers"
    return "done already" if number == slices else f"slice {number} of {slices}" if number else "the base"


def _again(found: Mapping[str, Any], shape: Mapping[str, Any]) -> str:
    return f"{found['again']['shards']} of {shape['shards']} shards, {found['fraction']:.1%} of a full training"


def _cost(out: Console, found: Mapping[str, Any], shape: Mapping[str, Any], about: str) -> None:
    out.print(f"{_again(found, shape)}; {found['formula']:.1%} is expected of so many people anywhere (formula)")
    rows = [
        (name, work["shards"], work["records"], f"{about}{work['tokens']:,}", _seconds(work["seconds"]), _price(work["cost"]))
        for name, work in (("this deletion", found["again"]), ("its replay, beside", found["replay"]), ("everything anew", found["full"]))
    ]
    out.print(table("Work", ("what", "shards", "records", "tokens", "time", "cost"), rows))


def _recommendation(out: Console, advice: Mapping[str, Any], now: int) -> None:
    batches = advice["batches"]
    history = f"no request so far: {', '.join(map(str, batches))} people stand in" if advice["assumed"] else f"{len(batches)} so far"
    rows = [
        (
            f"{each['shards']}{' (recommended)' if each['shards'] == advice['shards'] else ''}",
            f"{each['records']:.0f}",
            f"{each['touched']:.1f}",
            f"{each['fraction']:.1%}",
            f"{each['cost']:.1%}" if advice["stage_share"] else "not known",
        )
        for each in advice["choices"]
    ]
    columns = ("shards", "records in each", "touched", "of a full training", "with the start of stages")
    out.print(table(f"How many shards? Means of a batch; {history}", columns, rows))
    if advice["shards"] != now:
        out.print(f"{now} shards now; another number is another family: every shard is trained once more")


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return "not known before the first training"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _price(cost: float | None) -> str:
    return "" if cost is None else f"{cost:.2f}"


def _equal(equal: bool) -> str:
    return "[green]yes[/green]" if equal else "[red]no[/red]"
