"""Tables for people: what has to be copied is never broken, and a pipe has no width."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from mlflow_unlearn.commands.console_tables import console, table

REQUEST = "er-20261127-f58d0b79"
ROWS = [(REQUEST, "because it has seen " + "much of " * 40, None)]


def shown(width: int, *, whole: tuple[str, ...]) -> str:
    out = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    out.print(table("Requests", ("request", "why", "alias"), ROWS, whole=whole))
    return out.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [50, 80])
def test_on_a_narrow_terminal_what_is_whole_is_not_folded_and_nothing_is_cut_off(width: int) -> None:
    lines = shown(width, whole=("request",)).splitlines()
    assert REQUEST in "".join(lines)
    assert max(map(len, lines)) <= width
    assert all(line.endswith(("┓", "┃", "┩", "│", "┘")) for line in lines[1:])


def test_where_no_terminal_shows_it_every_row_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    console().print(table("Requests", ("request", "why", "alias"), ROWS))
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if REQUEST in line and ("much of " * 40).strip() in line] == lines[4:5]


def test_square_brackets_are_markup_only_where_the_caller_wrote_them() -> None:
    out = Console(file=io.StringIO(), width=200)
    out.print(table("T", ("a",), [("[red]no[/red]",)]))
    assert "[red]" not in out.file.getvalue()  # type: ignore[attr-defined]
