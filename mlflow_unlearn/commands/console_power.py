"""The answer of `power` for people: one row a pool size, and in words what it rests on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from .console_tables import table

Row = Mapping[str, Any]
_PASSING: Mapping[str, Callable[[Row], str]] = {
    "canaries": lambda row: str(row["canaries"]),
    "AUC margin": lambda row: _or_dash(row["auc_margin"], "+-{:g}"),
    "gap margin": lambda row: _or_dash(row["gap_margin"], "{:g}"),
    "one AUC": lambda row: _chance(row["auc_once"]),
    "all AUCs": lambda row: _chance(row["auc_all"]),
    "all gaps": lambda row: _chance(row["gap_all"]),
    "passes": lambda row: _chance(row["passes"]),
}
_SHOWING: Mapping[str, Callable[[Row], str]] = {
    "canaries": lambda row: str(row["canaries"]),
    "AUC s.e.": lambda row: f"{row['auc_error']:.3f}",
    "AUC seen": lambda row: f"{row['visible_auc']:.2f}",
    "epsilon": lambda row: f"{row['detectable_epsilon']:.2f}",
    "no leak": lambda row: f"{row['leak_limit']:.1%}",
    "one record": lambda row: f"{row['smallest_p']:.4f}",
    "kept out": lambda row: f"{row['never_trained']}" + _or_dash(row["share_never_trained"], " ({:.1%})", ""),
}
_LEGEND = (
    "passes: at least so many honest retrains meet all limits and raise no alarm; AUC seen: called leakage in 80 of 100 cases; epsilon: the largest "
    "that can be shown; no leak: upper 95 % limit of the share that comes out word for word when none did; one record: the smallest p it can have; "
    "kept out: excluded canaries, which no model learns from"
)


def show_power(out: Console, document: dict[str, Any]) -> None:
    """Tables, the smallest pool, notes."""
    judged, pool = document["judged"], document["pool"]
    if pool:
        out.print(f"audit pool: {pool['included']} included and {pool['excluded']} excluded canaries of {pool['records']} records")
    title = f"Chance that an honest retrain passes: {judged['attacks']} attacks, {judged['states']} states, attempt {judged['attempt']}"
    out.print(_table(title, _PASSING, document["sizes"]))
    out.print(_table("What a pool shows and costs", _SHOWING, document["sizes"]))
    out.print(_LEGEND, soft_wrap=True)
    smallest = f"{document['smallest']} canaries" if document["smallest"] else "no pool of at most 20,000"
    out.print(f"smallest pool that passes {document['wanted']:.0%} of honest retrains: {smallest}")
    for note in document["notes"]:
        out.print(f"note: {note}", soft_wrap=True, markup=False)


def _table(title: str, columns: Mapping[str, Callable[[Row], str]], rows: Sequence[Row]) -> Table:
    return table(title, tuple(columns), [[cell(row) for cell in columns.values()] for row in rows], justify="right")


def _chance(value: float) -> str:
    return f"{value:.1%}" if value else "-"


def _or_dash(value: float | None, shape: str, nothing: str = "-") -> str:
    return nothing if value is None else shape.format(value)
