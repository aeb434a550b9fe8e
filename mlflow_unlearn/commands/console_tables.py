"""How answers for people are laid out: where no terminal shows them nothing is folded, so that a script finds a row on a line."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Sequence
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

_NO_LIMIT = 100_000
"""Characters in a line where no terminal ends it."""


def console() -> Console:
    """Stdout: as wide as the terminal, and without end in a pipe or a file."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else _NO_LIMIT)


def table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    whole: Collection[str] = (),
    justify: Literal["left", "right"] = "left",
) -> Table:
    """A table that folds what is too long for the terminal.

    Args:
        title: above it.
        columns: their names.
        rows: a cell a column; None is empty, a text is markup, and `Text` is shown as it is.
        whole: columns that are never folded, since their cells are copied: ids.
        justify: of every column.
    """
    cells = [["" if cell is None else cell if isinstance(cell, Text) else str(cell) for cell in row] for row in rows]
    made = Table(title=title, title_justify="left")
    for column in columns:
        made.add_column(column, overflow="fold", no_wrap=column in whole, justify=justify)
    for row in cells:
        made.add_row(*row)
    return made
