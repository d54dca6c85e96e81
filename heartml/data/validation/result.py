"""What `validation.json` holds: success, counts, errors and warnings in words, every check."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from heartml.core import schema
from heartml.data.validation import run_suites

Result = dict[str, Any]


def summarise(tables: Mapping[str, pd.DataFrame], groups: pd.DataFrame, found: Sequence[run_suites.Check]) -> Result:
    """What `validation.json` holds: success, counts, errors and warnings in words, every check, classes, quarantine."""
    recordings, quarantine = tables["recordings"], tables["quarantine"]
    in_words = {severity: [in_a_line(c) for c in found if not c["success"] and c["severity"] == severity]
                for severity in ("error", "warning")}
    return {
        "success": not in_words["error"],
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
    }


def in_a_line(check: run_suites.Check) -> str:
    """`No source file stands in two rows: not so for 2 of 400 (12_AV.wav, 13_AV.wav). Run ...`"""
    named = ", ".join(map(name_row, check["rows"][:3]))
    more = ", ..." if check["unexpected"] > 3 else ""
    which = f" ({named}{more})" if named else ""
    return f"{check['title']}: not so for {check['unexpected']} of {check['checked']}{which}. {check['way_out']}"


def name_row(row: Mapping[str, Any]) -> str:
    """The name under which a person finds a row of any of the tables."""
    if "other_source_file" in row:
        return f"{row['source_file']} and {row['other_source_file']} at {abs(row['correlation']):.3f}"
    if "value" in row:
        return f"{row['dataset']} {row['label']} {row['value']} with {row['groups']}"
    if "recording_id" in row:
        patient = f", {row['patient_id']}" if row["patient_id"] else ""
        return f"{row['source_file']} [{row['recording_id'][:8]}{patient}]"
    return str(row.get("patient_id") or row.get(schema.SESSION) or row.get("source_file"))
