"""Answers of `benchmark` for people: the models side by side, every figure with its interval, and what is absent with its reason."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

_FORGET = {
    "probability": "probability (low)",
    "rouge_l_recall": "ROUGE-L recall (low)",
    "truth_ratio": "truth ratio, min(R, 1/R) (high)",
    "exact_memorization": "exact memorization (low)",
    "extraction_strength": "extraction strength (low)",
}
_MUSE = {
    "verbatim/verbatim_memorization": "verbatim memorization, forget (low)",
    "forget_questions/knowledge_memorization": "knowledge memorization, forget (low)",
    "retain_questions/knowledge_memorization": "knowledge memorization, retain (high)",
}
Cell = Callable[[Mapping[str, Any]], str]


def show_tofu(out: Console, document: dict[str, Any]) -> None:
    """Forget table, utility table and drops."""
    states, asked = document["states"], document["settings"]
    forget: dict[str, Cell] = {words: _in("forget", name) for name, words in _FORGET.items()}
    forget["distance to retrained (KS)"] = lambda state: _score((state["quality"] or {}).get("statistic"))
    forget["forget quality (p of KS)"] = lambda state: f"{state['quality']['p']:.3g}" if state["quality"] else "-"
    out.print(_side_by_side(f"TOFU {asked['forget']}: what is left of the forget set", states, forget))
    names = dict.fromkeys(name for state in states.values() for name in (*state["utility"]["parts"], *state["utility"]["missing"]))
    parts: dict[str, Cell] = {name: lambda state, name=name: _score(state["utility"]["parts"].get(name)) for name in names}  # type: ignore[misc]
    parts["model utility (harmonic mean)"] = lambda state: _score(state["utility"]["score"])
    out.print(_side_by_side("Model utility (high)", states, parts))
    dropped = {name: state for name, state in states.items() if state["utility"]["drops"]}
    if dropped:
        changes: dict[str, Cell] = {name: lambda state, name=name: _score(state["utility"]["drops"].get(name), "+.3f") for name in names}  # type: ignore[misc]
        out.print(_side_by_side(f"Change against the {document['compared_with']} model", dropped, changes))
    out.print("p of KS depends on the number of records; compare distances, not p, between forget sets", soft_wrap=True)
    _footer(out, document)


def show_muse(out: Console, document: dict[str, Any]) -> None:
    """One table."""
    rows: dict[str, Cell] = {words: _in("scores", name) for name, words in _MUSE.items()}
    rows["privacy leak, % (near 0)"] = lambda state: _leak(state["leak"])
    out.print(_side_by_side("MUSE", document["states"], rows))
    _footer(out, document)


def show_tasks(out: Console, document: dict[str, Any]) -> None:
    """One table."""
    names = sorted({name for state in document["states"].values() for name in state["scores"]})
    rows: dict[str, Cell] = {f"{name} ({_better(document, name)})": _in("scores", name) for name in names}
    out.print(_side_by_side("Tasks of lm-eval", document["states"], rows))
    _footer(out, document)


def _side_by_side(title: str, states: Mapping[str, Any], rows: Mapping[str, Cell]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("", overflow="fold")
    for state in states:
        table.add_column(state, no_wrap=True)
    for words, cell in rows.items():
        table.add_row(words, *(cell(state) for state in states.values()))
    return table


def _in(part: str, name: str) -> Cell:
    return lambda state: _score(state[part].get(name))


def _score(score: Mapping[str, Any] | None, form: str = ".3f") -> str:
    if score is None:
        return "-"
    return f"{score['value']:{form}} \\[{score['low']:{form}}, {score['high']:{form}}]"


def _leak(leak: Mapping[str, Any] | None) -> str:
    return "-" if leak is None else f"{_score(leak['leak'], '+.1f')} {leak['reading']}"


def _better(document: Mapping[str, Any], name: str) -> str:
    found = next(state["scores"][name]["direction"] for state in document["states"].values() if name in state["scores"])
    return {"higher": "high", "lower": "low"}[found]


def _footer(out: Console, document: Mapping[str, Any]) -> None:
    for line in _absences(document["states"]):
        out.print(f"[yellow]not measured: {line}[/yellow]", soft_wrap=True)
    limit, unchecked = document["settings"]["limit"], document.get("data", {}).get("unchecked", ())
    if limit is not None:
        out.print(f"[yellow]only the first {limit} records of each set: not comparable with published figures[/yellow]", soft_wrap=True)
    if unchecked:
        out.print(f"no digest to compare with: {', '.join(unchecked)}", soft_wrap=True)
    if "written" in document:
        out.print(f"written: {document['written']}", soft_wrap=True)


def _absences(states: Mapping[str, Any]) -> Iterable[str]:
    """Each reason once, with the states that it holds for."""
    found: dict[tuple[str, str], list[str]] = {}
    for state, report in states.items():
        for what, why in report["absent"].items():
            found.setdefault((what, why), []).append(state)
    return [f"{what} ({_list(own)}): {why}" for (what, why), own in found.items()]


def _list(names: Sequence[str]) -> str:
    return ", ".join(names)
