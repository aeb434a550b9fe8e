"""Tags of many ids at once, and the translation of tags from one key to another by reading the data they were made of."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import polars as pl

from ..digests import Domain
from .formats import Source
from .keyed import keyed_tags
from .schemas import Schema
from .tables import keyed_digests, read_columns


def id_tags(key: bytes, domain: Domain, ids: Sequence[str], *before: str) -> list[str]:
    """Keyed tag of each id, with the same parts `before` every one: `digests.keyed_tag(key, domain, *before, id)`."""
    column = pl.Series(ids, dtype=pl.String)
    return keyed_tags(key, domain, *(pl.Series([part], dtype=pl.String).new_from_index(0, len(ids)) for part in before), column).to_list()


def translation(source: Source, schema: Schema, new_key: bytes, wanted: Collection[str]) -> dict[str, str]:
    """Tag under the schema's key -> tag under `new_key`, of those subjects and records of one file whose tags are `wanted`.

    Raises:
        DataError: the file cannot be read as the index reads it.
    """
    rows = read_columns(source, schema.columns, schema.earlier)
    old, new = (keyed_digests(rows, each) for each in (schema, replace(schema, key=new_key)))
    asked = pl.Series(sorted(wanted), dtype=pl.String)
    found: dict[str, str] = {}
    for kind in ("subject", "record"):
        pairs = pl.DataFrame({"old": old[kind].str.slice(0, 32), "new": new[kind].str.slice(0, 32)}).unique()
        found.update(pairs.filter(pl.col("old").is_in(asked.implode())).rows())
    return found
