"""One page about a request for people: what was asked, found, done and shown, what nobody claims, who signed.

It has no script, and nothing is loaded from anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..drawing import plain
from ..lineage import ModelVersion, Trace, TracedVersion
from ..verifier import Report

LISTED = 20
"""Versions of a trace that are named on the page; trace.html names all."""
SHORT = 28
"""Characters of a cell that is not broken, e.g. `0.512 (0.401 to 0.623)`."""


@dataclass(frozen=True, kw_only=True)
class Version:
    """A version that was made for the request."""

    model: ModelVersion
    home: str
    """Its folder in the zip."""
    aliases: tuple[str, ...]
    parent: ModelVersion | None
    run: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    verdicts: Sequence[Mapping[str, Any]]
    """As certified where there is a certificate that can be read, else as registered."""
    not_claimed: Sequence[str]
    report: Report | None
    """What the verifier answers without the model's files; None where there is no certificate."""
    policy_included: bool
    """Whether the policy.yaml in the zip is the one of the certificate."""

    def commands(self) -> tuple[str, ...]:
        """How to check it where the zip was unpacked."""
        policy = " --policy policy.yaml" if self.policy_included else ""
        command = f"python -m verifier {self.home}/certificate.json --trust trust.json{policy} --model FOLDER_OF_THE_MODEL"
        return (command,) if self.report is not None else ()


@dataclass(frozen=True, kw_only=True)
class Facts:
    """All that the page says."""

    request: Mapping[str, Any]
    traced: Trace
    versions: tuple[Version, ...]
    ledger: tuple[int, str]
    """Number and digest of its last event."""
    absent: tuple[str, ...]


def page(facts: Facts) -> str:
    """The page. Whatever others named is text in it, never markup."""
    name = plain(str(facts.request["request_id"]))
    number, digest = facts.ledger
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">',
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        f"<title>Erasure request {name}</title><style>{_STYLE}</style></head><body>",
        f"<header><p>Evidence of erasure</p><h1>Request {name}</h1><p>{plain(_sentence(facts))}</p></header><main>",
        _section("What was asked", _pairs(_asked(facts.request))),
        _section("Which models saw the records", _traced(facts.traced)),
        *(_made(each) for each in facts.versions),
        _section("Who was told, and what is left", _pairs(_receipts(facts.request))),
        _section("What is not in this bundle", _list(facts.absent)) if facts.absent else "",
        _section("How to check this", _check(facts)),
        f"</main><footer>Ledger as of event {number} ({digest[:16]}). The files beside this page say the same for machines.</footer></body></html>\n",
    ]
    return "\n".join(filter(None, parts))


def _sentence(facts: Facts) -> str:
    """The state of the request in one sentence."""
    asked = str(facts.request["effect"])
    held = [each for each in facts.versions if each.report is not None and each.report.answer == "yes"]
    if held:
        return (
            f"{', '.join(str(each.model) for each in held)} passed for {asked}, and the verifier says yes. The request is {facts.request['state']}."
        )
    if facts.versions:
        return f"No version has passed for {asked} with a certificate of which the verifier says yes. The request is {facts.request['state']}."
    return f"No version was made to forget what it asks. The request is {facts.request['state']}."


def _asked(request: Mapping[str, Any]) -> dict[str, object]:
    told = {
        "basis": request["basis"],
        "effect": request["effect"],
        "received": request["received_at"],
        "due": request["due_at"] or "no statutory deadline",
        "people": f"{request['subjects']}, known here by keyed tags alone",
        "single records": request["records"],
        "state": request["state"],
        "extended": request["extension"],
        "clock stopped since": request["paused_at"],
        "refused on": request["ground"],
        "in force until it is done": ", ".join(request["interim"]),
    }
    return {name: value for name, value in told.items() if value}


def _traced(traced: Trace) -> str:
    groups: tuple[tuple[str, str, tuple[TracedVersion, ...]], ...] = (
        ("affected", "saw the records and have not passed as forgotten", traced.affected),
        ("unknown", "what they learned from cannot be read, so they are not clear", traced.unknown),
        ("clear", "did not see them, or passed as forgotten", traced.clear),
    )
    rows = [
        (plain(str(line.model)), state, "signed" if line.signed else "not signed", plain(line.why))
        for state, _, lines in groups
        for line in lines[:LISTED]
    ]
    counts = "; ".join(f"{len(lines)} {state} ({words})" for state, words, lines in groups)
    return f"<p>{counts}. trace.html shows every way.</p>" + (_table(("version", "state", "lineage", "why"), rows) if rows else "")


def _made(version: Version) -> str:
    """What was done, found and signed about one version."""
    run, name = version.run, plain(str(version.model))
    method = run.get("method")
    done = {
        "made from": version.parent,
        "claim": run.get("claim"),
        "method": method.get("name") if isinstance(method, Mapping) else None,
        "optimiser steps": run.get("steps"),
        "shards": _shards(run.get("exactness")),
        "points at it now": ", ".join(version.aliases),
        "attempt": version.evaluation.get("attempt"),
    }
    parts = [
        _pairs({name: value for name, value in done.items() if value not in (None, "")}),
        f"<h3>Verdict</h3>{_verdicts(version)}",
        f"<h3>Figures</h3>{_figures(version.evaluation)}" if version.evaluation else "",
        f"<h3>Not claimed</h3>{_list(version.not_claimed)}" if version.not_claimed else "",
        f"<h3>Signatures</h3>{_signatures(version.report)}",
    ]
    return _section(f"What was done: {name}", "".join(parts), markup=True)


def _shards(exactness: Mapping[str, Any] | None) -> str | None:
    """What an exact claim rests on."""
    if not exactness:
        return None
    equal = sum(each["logged"] == each["found"] for each in exactness["replays"])
    return f"{len(exactness['touched'])} of {exactness['shards']} trained again; {equal} of {len(exactness['replays'])} replays gave equal tensors"


def _verdicts(version: Version) -> str:
    counted = version.report.outcomes if version.report else {}
    rows = [
        (
            plain(str(each["effect"])),
            f'<b class="{plain(str(each["outcome"]).lower())}">{plain(str(counted.get(each["effect"], each["outcome"])))}</b>',
            "<br>".join(plain(str(reason)) for reason in each["reasons"]),
        )
        for each in version.verdicts
    ]
    unsigned = "as registered; nobody signed it, so nobody stands for it"
    how = "counted again from the evidence in the certificate" if counted else "as the certificate states them" if version.report else unsigned
    return _table(("effect", "outcome", "why"), rows) + f"<p>Outcomes are {how}.</p>" if rows else "<p>None is registered.</p>"


def _figures(evaluation: Mapping[str, Any]) -> str:
    """What the attacks found in the parent, the model, and the model after a benign fine-tune."""
    states = (("before", "parent: the positive control"), ("after", "this version"), ("after_finetune", "after a benign fine-tune"))
    rows = [
        (
            title,
            plain(test["attack"]),
            _interval(test["auc"]),
            f"{test['epsilon']:.2f}",
            _p(test["p_member"]),
            str(test["auc"]["n"]),
            _interval(report["gap"]["share"]) if report.get("gap") else "",
        )
        for key, title in states
        for report in [evaluation.get(key) or {}]
        for test in report.get("canaries", ())
    ]
    columns = ("state", "attack", "AUC (95 %)", "epsilon at least", "p", "canaries", "share of memory left (95 %)")
    return _table(columns, rows) if rows else "<p>No canary was measured.</p>"


def _p(value: float) -> str:
    return "&lt; 0.0001" if value < 0.0001 else f"{value:.4f}"


def _interval(score: Mapping[str, Any]) -> str:
    return f"{score['value']:.3f} ({score['low']:.3f} to {score['high']:.3f})"


def _signatures(report: Report | None) -> str:
    if report is None:
        return "<p>Nothing is signed.</p>"
    answer = {
        "yes": "The verifier says yes: it is signed, and its evidence gives PASS for what was asked.",
        "no": "The verifier says no, since",
        "undecided": "The verifier could not decide, since",
    }
    parts = [f"<p><b>{answer[report.answer]}</b></p>", _list(report.reasons), _pairs(report.about)]
    parts += ["<p>Checked here:</p>", _list(report.checked), "<p>Not checked here:</p>", _list(report.not_checked)]
    return "".join(parts)


def _receipts(request: Mapping[str, Any]) -> dict[str, object]:
    told = {
        each["name"]: f"told {each['told_at'] or 'not yet'}, acknowledged {each['acknowledged_at'] or 'not yet'}" for each in request["recipients"]
    }
    promoted = [
        f"{each['at']}: {each['model']['name']}/{each['model']['version']} as {each['alias']} "
        f"{'granted' if each['granted'] else 'refused'}, the gate said {each['answer']} ({each['enforcement']})"
        for each in request["promotions"]
    ]
    left = {"still to do": "; ".join(request["left_to_do"])} if request["left_to_do"] else {}
    return {**told, **({"promotions": "; ".join(promoted)} if promoted else {}), "bytes": request["purge"], **left}


def _check(facts: Facts) -> str:
    commands = [command for each in facts.versions for command in each.commands()]
    shown = f"<pre>{plain(chr(10).join(commands))}</pre>" if commands else "<p>There is no certificate to verify.</p>"
    return f"<p>Unpack the zip and, with Python 3.11 and <code>cryptography</code> alone, type in its folder:</p>{shown}"


def _section(title: str, body: str, *, markup: bool = False) -> str:
    return f"<section><h2>{title if markup else plain(title)}</h2>{body}</section>"


def _pairs(pairs: Mapping[str, object]) -> str:
    return "<dl>" + "".join(f"<dt>{plain(name)}</dt><dd>{plain(str(value))}</dd>" for name, value in pairs.items()) + "</dl>"


def _list(lines: Iterable[str]) -> str:
    items = "".join(f"<li>{plain(str(line))}</li>" for line in lines)
    return f"<ul>{items}</ul>" if items else ""


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells are markup already."""
    head = "".join(f'<th scope="col">{plain(column)}</th>' for column in columns)
    body = "".join(f'<tr><th scope="row">{row[0]}</th>{"".join(map(_cell, row[1:]))}</tr>' for row in rows)
    return f'<div class="rows"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(markup: str) -> str:
    """Figures and single words are not broken over lines."""
    return f'<td class="short">{markup}</td>' if len(markup) <= SHORT else f"<td>{markup}</td>"


_STYLE = """
:root{--ground:#fff;--card:#f6f7f9;--ink:#1b2230;--soft:#4d586a;--rule:#d9dee6;--pass:#1f7a45;--fail:#c23030;--open:#8f6b00}
*{box-sizing:border-box}body{margin:0;background:var(--ground);color:var(--ink);font:15px/1.5 system-ui,'Segoe UI',Roboto,'DejaVu Sans',sans-serif}
header,main,footer{max-width:960px;margin:0 auto;padding:0 28px}header{padding-top:28px}header>p:first-child,footer{color:var(--soft)}
h1{font-size:26px;line-height:1.25;margin:2px 0 8px}h2{font-size:18px;margin:28px 0 8px;border-bottom:1px solid var(--rule)}
h3{font-size:15px;margin:16px 0 4px}dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 16px;margin:8px 0}dt{color:var(--soft)}
dd{margin:0;overflow-wrap:anywhere}.rows{overflow:auto}table{border-collapse:collapse;width:100%;font-size:14px}
td,th{padding:5px 10px;text-align:left;vertical-align:top;border-top:1px solid var(--rule);overflow-wrap:break-word}
thead th{color:var(--soft);border-top:0;white-space:nowrap}tbody th{font-weight:600;min-width:9em}
.short{white-space:nowrap}
.pass{color:var(--pass)}.fail{color:var(--fail)}.inconclusive{color:var(--open)}
pre{background:var(--card);padding:10px;overflow:auto;white-space:pre-wrap;overflow-wrap:anywhere}footer{padding:16px 28px 28px;font-size:13px}
@media print{body{font-size:11px}header,main,footer{max-width:none;padding:0}section{break-inside:avoid-page}.rows{overflow:visible}}
"""
