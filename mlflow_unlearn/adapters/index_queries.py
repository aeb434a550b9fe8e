"""The questions that the record index answers, as Ibis expressions: DuckDB runs them here, another engine can where the data outgrow a machine.

A row of the index is an interval: from the `first` to the `last` dataset state, one shard holds a record in one wording (sorted by record), or a
person's record (sorted by subject). An interval that reaches the newest state is open. A later part closes it by a row of the same key and `first`
with an earlier `last`, so that parts are only ever added and the truth is the smallest `last`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import ibis

from .tag_words import RECORD

if TYPE_CHECKING:
    from ibis.expr.types import Table


def merged(intervals: Table) -> Table:
    """Intervals of one key that touch, as one."""
    key = [name for name in intervals.columns if name not in ("first", "last")]
    in_order = ibis.window(group_by=key, order_by="first")
    lagged = intervals.distinct().mutate(before=ibis._.last.lag().over(in_order))
    marked = lagged.mutate(starts=(ibis._.before.isnull() | (ibis._.first - 1 > ibis._.before)).cast("int32"))
    numbered = marked.mutate(island=ibis._.starts.sum().over(ibis.window(group_by=key, order_by="first", following=0)))
    grouped = numbered.group_by([*key, "island"]).aggregate(first=ibis._.first.min(), last=ibis._.last.max())
    return grouped.select(*intervals.columns)


def settled(rows: Table) -> Table:
    """Rows of several parts as they stand now: of one key and `first`, the smallest `last`."""
    key = [name for name in rows.columns if name != "last"]
    return rows.group_by(key).aggregate(last=rows["last"].min()).select(*rows.columns)


def holding(rows: Table, wanted: Table, column: tuple[str, str]) -> Table:
    """The settled rows whose `column` is one of the `wanted` (high, low) tags."""
    return settled(rows.semi_join(wanted, [(column[0], "high"), (column[1], "low")]))


def records_by_state(rows: Table, states: Table) -> Table:
    """(ordinal, records): how many distinct records of `rows` each of the `states` (ordinal) holds."""
    present = rows.join(states, [rows["first"] <= states["ordinal"], states["ordinal"] <= rows["last"]])
    distinct = present.select("ordinal", *RECORD).distinct()
    return distinct.group_by("ordinal").aggregate(records=distinct.count())


def present_in(rows: Table, ordinals: Sequence[int]) -> Table:
    """Settled rows that lie in one of the states."""
    settled_rows = settled(rows)
    inside = [(settled_rows["first"] <= ordinal) & (settled_rows["last"] >= ordinal) for ordinal in ordinals]
    return settled_rows.filter(ibis.or_(*inside)) if inside else settled_rows.limit(0)


def counts(rows: Table, ordinal: int, column: tuple[str, str]) -> Table:
    """(n) how many distinct tags of `column` lie in one state."""
    distinct = present_in(rows, [ordinal]).select(*column).distinct()
    return distinct.aggregate(n=distinct.count())
