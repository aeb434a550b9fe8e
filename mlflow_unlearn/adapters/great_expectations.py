"""A real Great Expectations checkpoint over boolean columns, with Data Docs.

Great Expectations stores what it is shown: it gets flags and counts only, and `BOOLEAN_ONLY` results, the one format that repeats no value.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Column:
    """One rule as Great Expectations sees it."""

    name: str
    obeyed: NDArray[np.bool_]
    warn_only: bool


@dataclass(frozen=True, kw_only=True)
class ColumnResult:
    """Whether a rule held."""

    name: str
    success: bool
    rows: int
    violations: int
    warn_only: bool


def run_checkpoint(columns: Sequence[Column], folder: Path) -> tuple[ColumnResult, ...]:
    """Validate every column in one checkpoint and build Data Docs in `folder` (open index.html).

    Rules look at different numbers of rows: shorter columns end in nulls, which column expectations pass over.
    """
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # third-party deprecations that its users cannot act on
        import great_expectations as gx

        logging.getLogger("great_expectations").setLevel(logging.ERROR)
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = {"globally": False}
        context.add_data_docs_site(site_name="split", site_config=_site(folder))
        batch = context.data_sources.add_pandas("split").add_dataframe_asset("rules").add_batch_definition_whole_dataframe("all rows")
        suite = context.suites.add(gx.ExpectationSuite(name="split", expectations=[_expectation(gx, column) for column in columns]))
        definition = context.validation_definitions.add(gx.ValidationDefinition(name="split", data=batch, suite=suite))
        docs = gx.checkpoint.UpdateDataDocsAction(name="docs", site_names=["split"])
        checkpoint = gx.Checkpoint(name="split", validation_definitions=[definition], result_format="BOOLEAN_ONLY", actions=[docs])
        outcome = context.checkpoints.add(checkpoint).run(batch_parameters={"dataframe": _frame(columns)})
    (validation,) = outcome.run_results.values()
    held = {result.expectation_config.kwargs["column"]: bool(result.success) for result in validation.results}
    return tuple(_result(column, held[column.name]) for column in columns)


def _site(folder: Path) -> dict[str, Any]:
    return {
        "class_name": "SiteBuilder",
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder.resolve())},
    }


def _expectation(gx: Any, column: Column) -> Any:
    severity = "warning" if column.warn_only else "critical"
    return gx.expectations.ExpectColumnValuesToBeInSet(column=column.name, value_set=[True], severity=severity)


def _frame(columns: Sequence[Column]) -> Any:
    import pandas

    longest = max(len(column.obeyed) for column in columns)
    return pandas.DataFrame(
        {column.name: pandas.array([*map(bool, column.obeyed), *[None] * (longest - len(column.obeyed))], "boolean") for column in columns}
    )


def _result(column: Column, success: bool) -> ColumnResult:
    violations = int((~column.obeyed).sum())
    return ColumnResult(name=column.name, success=success, rows=len(column.obeyed), violations=violations, warn_only=column.warn_only)
