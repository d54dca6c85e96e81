"""Expectations checked against tables by Great Expectations; the results as plain values.

In: tables by name, suites by name. Out: one dict for each expectation. Results are in the order of the suites and hold
no times or run ids, so that equal data give equal bytes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import great_expectations as gx
import pandas as pd
from great_expectations.data_context.types.base import (
    DataContextConfig,
    InMemoryStoreBackendDefaults,
    ProgressBarsConfig,
)

from heartml.data.validation import blocked
from heartml.data.validation.expectations import Suites
from heartml.data.validation.tables import NAME_COLUMNS

ROWS_SHOWN = 20
SEVERITIES = {"critical": "error", "warning": "warning", "info": "note"}
CheckResult = dict[str, Any]


def check(tables: Mapping[str, pd.DataFrame], expected: Suites) -> list[CheckResult]:
    """Check every table against the suite of its name.

    Args:
        tables: of `tables.suite_tables`.
        expected: of `expectations.suites`.

    Returns:
        One dict for each expectation, in the order of the suites: suite, expectation, column, title, severity (error,
        warning, note), success, checked (number of rows), unexpected (how many of them fail), observed, rows (the
        first ROWS_SHOWN that fail), way_out; of an error also datasets (see `blocked.datasets_of`).

    Raises:
        RuntimeError: Great Expectations could not evaluate an expectation. That is a fault of this project.
    """
    source = _context().data_sources.add_pandas("heartml")
    owned = blocked.owners(tables["recordings"]) if "recordings" in tables else {}
    return [result for name, suite in expected.items()
            for result in _check_table(source, name, tables[name], suite, owned)]


def _context() -> Any:
    """A context in memory: no folder, no telemetry, no progress bars."""
    config = DataContextConfig(
        analytics_enabled=False,
        progress_bars=ProgressBarsConfig(globally=False),
        store_backend_defaults=InMemoryStoreBackendDefaults(init_temp_docs_sites=False),
    )
    return gx.get_context(mode="ephemeral", project_config=config)


def _check_table(
    source: Any, name: str, table: pd.DataFrame, suite: Sequence[Any], owned: Mapping[str, frozenset[str]]
) -> list[CheckResult]:
    ranked = [e.copy(update={"meta": {**e.meta, "rank": rank}}) for rank, e in enumerate(suite)]
    asset = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
    result = asset.get_batch({"dataframe": table.assign(row=range(len(table)))}).validate(
        gx.ExpectationSuite(name, expectations=ranked),
        result_format={"result_format": "COMPLETE", "unexpected_index_column_names": ["row"]},
    )
    ordered = sorted(result.results, key=lambda r: r.expectation_config.meta["rank"])
    checked = {column for r in ordered if (column := r.expectation_config.kwargs.get("column"))}
    return [_plain(name, table, r, checked, owned) for r in ordered]


def _plain(
    suite: str, table: pd.DataFrame, result: Any, checked: set[str], owned: Mapping[str, frozenset[str]]
) -> CheckResult:
    config, found = result.expectation_config, result.result
    if result.exception_info.get("raised_exception") is not False:
        raise RuntimeError(f"{suite}: {config.type} {config.kwargs} could not be checked: {result.exception_info}")
    column = config.kwargs.get("column")
    rows = sorted(index["row"] for index in found.get("unexpected_index_list") or ())
    if not result.success and "observed_value" in found:
        rows = list(range(len(table)))              # an expectation about the whole table
    shown = table[_shown(table, column, checked)].iloc[rows[:ROWS_SHOWN]]
    is_error = not result.success and SEVERITIES[config.severity.value] == "error"
    return {
        "suite": suite, "expectation": config.type, "column": column, "title": config.description,
        "severity": SEVERITIES[config.severity.value], "success": bool(result.success),
        "checked": int(found.get("element_count", len(table))), "unexpected": len(rows),
        "observed": found.get("observed_value", _range(table, column)),
        "rows": records(shown), "way_out": config.meta["way_out"],
        **({"datasets": blocked.datasets_of(table.iloc[rows], owned)} if is_error else {}),
    }


def _shown(table: pd.DataFrame, column: str | None, checked: set[str]) -> list[str]:
    """The columns to show of a row: its names and the checked one. Tables made for checks are shown whole."""
    of_recording = set(NAME_COLUMNS) <= set(table) and "other_recording_id" not in table
    names = [c for c in map(str, table) if c in NAME_COLUMNS or not (of_recording or c in checked)]
    return [*names, *([column] if column and column not in names else [])]


def _range(table: pd.DataFrame, column: str | None) -> dict[str, float] | None:
    """Smallest and largest value of a column of numbers; None for other columns."""
    if column is None or not pd.api.types.is_numeric_dtype(table[column]) or not table[column].notna().any():
        return None
    return {"min": float(table[column].min()), "max": float(table[column].max())}


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table as plain dicts, null as None."""
    rows = table.astype(object).to_dict("records")
    return [{str(k): None if pd.isna(v) else v for k, v in row.items()} for row in rows]
