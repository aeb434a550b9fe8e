"""Answers of the command line for people: tables on stdout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from .attesting import show_attested, show_countersigned
from .console_benchmark import show_muse, show_tasks, show_tofu
from .console_exact import show_forecast, show_replay, show_switched_off
from .console_gate import show_gate, show_history, show_promotion, show_review
from .console_keys import show_key, show_keys
from .console_power import show_power
from .console_report import show_report
from .console_tables import console, table

SHOWN_OUTPUTS = 12
"""Derived outputs that a trace shows to people."""
_REQUEST = ("request", "state", "basis", "effect", "received", "due", "people", "records")


def show(kind: str, document: dict[str, Any]) -> None:
    """Print one command's document."""
    out = console()
    {
        "init": _init,
        "index": _index,
        "request": _request,
        "requests": _requests,
        "ledger": _ledger,
        "tombstones": _tombstones,
        "tag_key": _tag_key,
        "key": show_key,
        "keys": show_keys,
        "attested": show_attested,
        "countersigned": show_countersigned,
        "commitment": _commitment,
        "close": _close,
        "trace": _trace,
        "plan": _plan,
        "forecast": show_forecast,
        "replay": show_replay,
        "switched_off": show_switched_off,
        "gate": show_gate,
        "promotion": show_promotion,
        "review": show_review,
        "history": show_history,
        "guard": _guard,
        "guard_hook": _guard_hook,
        "status": _status,
        "tofu": show_tofu,
        "muse": show_muse,
        "tasks": show_tasks,
        "power": show_power,
        "report": show_report,
    }[kind](out, document)


def _init(out: Console, document: dict[str, Any]) -> None:
    out.print(f"tag key {document['key']}: {document['key_file']}")
    for verb in ("created", "kept"):
        for path in document[verb]:
            out.print(f"{verb} {path}")
    for number, step in enumerate(document["next"], 1):
        out.print(f"next {number}: {step}")


def _index(out: Console, document: dict[str, Any]) -> None:
    rows = [(s["name"], s["md5"], ", ".join(s["revisions"]), s["records"], s["subjects"]) for s in document["states"]]
    out.print(table("Dataset revisions", ("dataset", "DVC md5", "git revisions", "records", "people"), rows))
    out.print(f"{document['files_newly_indexed']} files newly indexed")
    for md5, reason in document["unreadable"].items():
        out.print(f"[yellow]dataset state {md5[:8]} is unreadable, and what was trained on it unknown: {reason}[/yellow]", soft_wrap=True)
    _warnings(out, document)


def _request(out: Console, document: dict[str, Any]) -> None:
    due = document["due_at"] or "no statutory deadline"
    out.print(f"{document['request_id']}: {document['state']}, {document['basis']}, {document['effect']}, due {due}")
    out.print(f"{document['subjects']} people and {document['records']} single records, kept as keyed tags")
    for note in _notes(document):
        out.print(note)


def _notes(request: dict[str, Any]) -> list[str]:
    """What a request is about beside its first line."""
    told = [name for name in request["unacknowledged"] if name not in request["untold"]]
    notes = {
        "extended": request["extension"],
        "clock stopped since": request["paused_at"],
        "refused on": request["ground"],
        "in force": ", ".join(request["interim"]),
        "not yet told": ", ".join(request["untold"]),
        "told, not acknowledged": ", ".join(told),
        "tags lifted": request["lifted"],
    }
    return [f"{words}: {value}" for words, value in notes.items() if value]


def _ledger(out: Console, document: dict[str, Any]) -> None:
    for problem in document["problems"]:
        out.print(f"[red]{problem}[/red]")
    if not document["problems"]:
        out.print(f"{document['events']} events, each as it was written; head {document['head']}")


def _tombstones(out: Console, document: dict[str, Any]) -> None:
    if "lifted" in document:
        out.print(f"{document['lifted']} people and single records lifted: {document['basis']}")
    kinds = ("subjects", "records", "contents", "sketches")
    rows = [(key, *(counts[kind] for kind in kinds)) for key, counts in document["tombstones"].items()]
    out.print(table("Tombstones", ("key", "people", *kinds[1:]), rows))


def _tag_key(out: Console, document: dict[str, Any]) -> None:
    out.print(f"key {document['key_id']} in use, {document['retired']} retired to {document['retired_file']}")
    out.print(f"{document['requests']} requests translated, {document['unreadable_revisions']} dataset revisions could not be read")
    for number, step in enumerate(document["next"], 1):
        out.print(f"next {number}: {step}")


def _commitment(out: Console, document: dict[str, Any]) -> None:
    """Whatever a command about commitments answers, a line a fact."""
    words = {name: value for name, value in document.items() if name not in ("about", "problems", "root_given")}
    for name, value in {**document.get("about", {}), **words}.items():
        out.print(f"{name.replace('_', ' ')}: {value}", soft_wrap=True, markup=False)
    for problem in document.get("problems", ()):
        out.print(f"[red]{problem}[/red]", soft_wrap=True)
    if document.get("root_given") is False:
        out.print("[yellow]the root is the file's own word; compare it with what was published, or give --root[/yellow]", soft_wrap=True)


def _requests(out: Console, document: dict[str, Any]) -> None:
    out.print(table("Erasure requests", _REQUEST, _request_rows(document["requests"]), whole=("request",)))


def _request_rows(requests: Sequence[dict[str, Any]]) -> list[tuple[object, ...]]:
    return [(r["request_id"], r["state"], r["basis"], r["effect"], r["received_at"], r["due_at"], r["subjects"], r["records"]) for r in requests]


def _close(out: Console, document: dict[str, Any]) -> None:
    for line in document["reasons"]:
        out.print(line)
    for line in document.get("warnings", ()):
        out.print(f"[yellow]{line}[/yellow]")


def _trace(out: Console, document: dict[str, Any]) -> None:
    for state, style in (("affected", "red"), ("unknown", "yellow"), ("clear", "green")):
        lines = document[state]
        rows = [(_version(each), ", ".join(each["aliases"]), each["records"], "yes" if each["signed"] else "", each["why"]) for each in lines]
        if rows:
            out.print(table(f"[{style}]{state}[/{style}]", ("version", "alias", "records", "signed", "why"), rows))
    _elsewhere(out, document)
    _warnings(out, document)
    if any(not line["signed"] for line in document["clear"]):
        out.print("Where lineage is not signed, `clear` is what the records say, not what a signature proves; sign it with `mlflow-unlearn attest`.")
    if "graph" in document:
        out.print(f"graph: {document['graph']}")


def _elsewhere(out: Console, document: dict[str, Any]) -> None:
    """Where the records lie besides the versions."""
    held = [
        (f"{each['state']['name']} {each['state']['md5'][:8]}", ", ".join(each["state"]["revisions"]), each["records"]) for each in document["held"]
    ]
    if held:
        out.print(table("Dataset revisions that hold the records", ("dataset", "git revisions", "records"), held))
    found = [(each["path"], each["md5"][:8], "its own rows" if each["exact"] else "all downstream") for each in document["outputs"]]
    if found:
        out.print(table("DVC outputs derived from them", ("output", "md5", "known by"), found[:SHOWN_OUTPUTS]))
    if len(found) > SHOWN_OUTPUTS:
        out.print(f"and {len(found) - SHOWN_OUTPUTS} more derived outputs: --json names them all")
    runs = [(each["run_id"], each["experiment"], ", ".join(each["logged_models"])) for each in document["runs"]]
    if runs:
        out.print(table("Runs that read them and are no registered version", ("run", "experiment", "logged models"), runs, whole=("run",)))


def _warnings(out: Console, document: dict[str, Any]) -> None:
    for line in document["warnings"]:
        out.print(f"[yellow]{line}[/yellow]", soft_wrap=True)


def _plan(out: Console, document: dict[str, Any]) -> None:
    rows = [
        (
            project["project"],
            job["model"],
            _version(job | {"model": job["version"]}) if job["version"] else "",
            job["because"],
            ", ".join(f"{each['name']}/{each['version']}" for each in job["others"]),
            len(job["undecided"]),
            job["command"],
        )
        for project in document["projects"]
        for job in project["jobs"]
    ]
    out.print(table(f"Plan for {document['request']}", ("project", "model", "unlearn", "why this one", "also affected", "undecided", "run"), rows))
    for name in document["not_traced"]:
        out.print(f"[yellow]{name}: shares this ledger and has not planned the request; run `mlflow-unlearn trace --plan` there[/yellow]")


def _version(line: dict[str, Any]) -> str:
    return f"{line['model']['name']}/{line['model']['version']}"


def _guard(out: Console, document: dict[str, Any]) -> None:
    style = {"clean": "green", "refused": "red"}.get(document["answer"], "yellow")
    out.print(f"[{style}]{document['answer']}[/{style}]: {document['records']} records, {document['tombstones']} tombstones")
    rows = [(file["file"], kind, len(found), _first(found)) for file in document["files"] for kind, found in file["refused"].items() if found]
    rows += [(file["file"], "similar (warning)", len(file["warned"]), _first(file["warned"])) for file in document["files"] if file["warned"]]
    if rows:
        out.print(table("What resembles something erased", ("file", "what came back", "rows", "row numbers"), rows))
    if document["borderline"]:
        out.print(f"{document['borderline']} near duplicates lie so close to the threshold that the estimate could have fallen on its other side")
    for line in document["problems"]:
        out.print(f"[yellow]not decided: {line}[/yellow]", soft_wrap=True)


def _first(rows: Sequence[int]) -> str:
    return ", ".join(map(str, rows[:10])) + (", ..." if len(rows) > 10 else "")


def _guard_hook(out: Console, document: dict[str, Any]) -> None:
    out.print(f"the guard runs before each commit of a DVC tracking file: {document['hook']}", soft_wrap=True)
    out.print(f"it asks the ledger {document['ledger']} ({document['tombstones']} tombstones)", soft_wrap=True)


def _status(out: Console, document: dict[str, Any]) -> None:
    if document["open"]:
        _open_requests(out, document)
    else:
        out.print("No open request.")
    for request, who in document["recipients"].items():
        out.print(f"{request}: not told: {', '.join(who['untold']) or 'none'}; no acknowledgement: {', '.join(who['unacknowledged']) or 'none'}")
    for request, measures in document["interim"].items():
        out.print(f"{request}: interim measures: {', '.join(measures)}")
    for request, projects in document["not_traced"].items():
        out.print(f"[yellow]{request}: not planned by {', '.join(projects)}[/yellow]")
    buried = sum(counts["records"] for counts in document["tombstones"].values())
    out.print(f"{buried} records under tombstones; ledger of {document['ledger']['events']} events")
    for problem in document["ledger"]["problems"]:
        out.print(f"[red]{problem}[/red]", soft_wrap=True)
    _warnings(out, document)


def _open_requests(out: Console, document: dict[str, Any]) -> None:
    days = [f"{request['days_left']} (clock stopped)" if request["paused_at"] else request["days_left"] for request in document["open"]]
    rows = [(*row, left) for row, left in zip(_request_rows(document["open"]), days, strict=True)]
    out.print(table("Open requests", (*_REQUEST, "days left"), rows, whole=("request",)))
    blocked = [(_version(line), ", ".join(line["aliases"]), line["why"]) for line in document["blocked"]]
    if blocked:
        out.print(table("Versions that must not be deployed", ("version", "alias", "why"), blocked))
    else:
        out.print("No version is blocked.")
