"""The content of `validation.json`: success, counts, errors and warnings in words, every check.

In: the tables that were checked, and the checks of `run_suites`. Out: a dict of plain values.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from heartml.core import schema
from heartml.data.validation import blocked, run_suites

Result = dict[str, Any]


def summarise(
    tables: Mapping[str, pd.DataFrame], groups: pd.DataFrame, found: Sequence[run_suites.CheckResult]
) -> Result:
    """The validation result as a dict, as `validation.json` holds it.

    Args:
        tables: of `tables.suite_tables`.
        groups: recording_id, group_id after joining.
        found: the checks of `run_suites.check`.

    Returns:
        `success` (at least one data set has no error), `errors` and `warnings` (a line each), `counts`, `checks`,
        `classes` (rows of `tables.class_table`), `quarantined_by_reason`. `blocked` (data set -> its errors) is there
        only where some data sets have errors and others have none.
    """
    recordings, quarantine = tables["recordings"], tables["quarantine"]
    in_words = {severity: [check_line(c) for c in found if not c["success"] and c["severity"] == severity]
                for severity in ("error", "warning")}
    present = set(recordings["dataset"].dropna())
    stopped = blocked.errors_by_dataset(
        [(check_line(c), c["datasets"]) for c in found if not c["success"] and c["severity"] == "error"], present)
    success = not in_words["error"] or not present <= set(stopped)
    return {
        "success": success,
        "errors": in_words["error"],
        "warnings": in_words["warning"],
        "counts": {
            "recordings": len(recordings),
            "patients": int(recordings["patient_id"].nunique()),
            "groups": int(groups["group_id"].nunique()),
            "groups_before_joining": int(recordings["group_id"].nunique()),
            "hours": round(float(recordings["seconds"].sum()) / 3600, 3),
            "near_duplicate_pairs": len(tables["pairs"]),
            "quarantined": len(quarantine),
        },
        "checks": list(found),
        "classes": run_suites.records(tables["labels"]),
        "quarantined_by_reason": {str(k): int(v) for k, v in quarantine["reason"].value_counts().sort_index().items()},
        **({"blocked": stopped} if success and stopped else {}),
    }


def check_line(check: run_suites.CheckResult) -> str:
    """A failed check in one line.

    For instance `No source file stands in two rows: not so for 2 of 400 (12_AV.wav, 13_AV.wav). Run ...`.
    """
    named = ", ".join(map(row_name, check["rows"][:3]))
    more = ", ..." if check["unexpected"] > 3 else ""
    which = f" ({named}{more})" if named else ""
    return f"{check['title']}: not so for {check['unexpected']} of {check['checked']}{which}. {check['way_out']}"


def row_name(row: Mapping[str, Any]) -> str:
    """The name by which a person finds a row of any of the tables.

    >>> row_name({"recording_id": "3f2a99e01b", "patient_id": "circor-9979", "source_file": "9979_AV.wav"})
    '9979_AV.wav [3f2a99e0, circor-9979]'
    """
    if "other_source_file" in row:
        return f"{row['source_file']} and {row['other_source_file']} at {abs(row['correlation']):.3f}"
    if "last_source_file" in row:
        return f"{row['source_file']} to {row['last_source_file']}"
    if "value" in row:
        return f"{row['dataset']} {row['label']} {row['value']} with {row['groups']}"
    if "recording_id" in row:
        patient = f", {row['patient_id']}" if row["patient_id"] else ""
        return f"{row['source_file']} [{row['recording_id'][:8]}{patient}]"
    return str(row.get("patient_id") or row.get(schema.SESSION) or row.get("source_file"))
