"""Stage `validate`: is the data fit for training? Errors stop the pipeline, warnings are carried into the report.

In: the data set of `data/`. Out, under `artifacts/validation/`: `validation.json` (every check with the rows that fail
it), `index.html` (the same for a person), `signal.parquet` (recording_id and `Quality`), `groups.parquet`
(recording_id, group_id after joining nearly the same audio). Where the data is not fit, they go to `FAILED` instead.
"""

import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd

from heartml import recall
from heartml.core import config, files, paths, schema
from heartml.core.config import Params
from heartml.core.parallel import available_workers
from heartml.core.progress import track
from heartml.core.stage import StageError, stage
from heartml.validate import checks, expectations, fitness
from heartml.validate import page as validation_page
from heartml.validate.fitness import IN_WORDS

FAILED = paths.STATE / "validation-failed"
ROUNDING_S = 0.1        # publishers round the times of heart states
Result = dict[str, Any]


def run() -> None:
    """Validate the data set and write what was found.

    Raises:
        StageError: an error was found; the message names the first rows and where the page lies.
    """
    params = config.load()
    with stage("validate") as log:
        recordings, annotations, quarantine = read()
        signal = measure(recordings)
        pairs = near_duplicates(signal, params)
        groups = fitness.joined_groups(recordings.drop_duplicates("recording_id"), pairs)
        tables = tables_of(recordings, annotations, quarantine, signal, pairs, groups, params)
        expected = expectations.suites(params.ingest, params.validate_, fitness.label_columns(recordings))
        result = summarise(tables, groups, checks.check(tables, expected))
        folder = paths.VALIDATION if result["success"] else FAILED
        write(folder, result, tables, groups, params)
        log.say(f"{len(recordings)} recordings in {groups['group_id'].nunique()} groups")
        log.say(f"{len(quarantine)} files in quarantine")
        log.say(f"{len(result['errors'])} errors, {len(result['warnings'])} warnings: {folder / 'index.html'}")
        if not result["success"]:
            errors = "\n  ".join(result["errors"])
            raise StageError(f"the data is not fit for training:\n  {errors}\nAll of it: {folder / 'index.html'}")
        shutil.rmtree(FAILED, ignore_errors=True)


def read() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """recordings, annotations, quarantine: typed, in a fixed order.

    Raises:
        StageError: there is no data set.
    """
    if not paths.RECORDINGS.exists():
        raise StageError(f"no {paths.RECORDINGS}: run `heartml ingest`, or `dvc pull data.dvc`")
    recordings = schema.conform(pd.read_parquet(paths.RECORDINGS), schema.RECORDINGS, "recordings")
    annotations = schema.conform(pd.read_parquet(paths.ANNOTATIONS), schema.ANNOTATIONS, "annotations")
    quarantine = pd.read_parquet(paths.QUARANTINE)[list(schema.QUARANTINE)]
    return recordings.sort_values(["dataset", "source_file"], ignore_index=True), annotations, quarantine


def measure(recordings: pd.DataFrame) -> pd.DataFrame:
    """`fitness.signal_table` of every recording, on all cores (decoding and transforms free the interpreter's lock)."""
    ids = list(dict.fromkeys(recordings["recording_id"]))
    with ThreadPoolExecutor(available_workers(0)) as executor:
        return fitness.signal_table(track(executor.map(fitness.measure, ids), "measuring signals", len(ids)))


def near_duplicates(signal: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Pairs of nearly the same audio among the recordings that can be read; each pair is compared once in its life."""
    readable = signal.loc[signal["fault"].isna(), "recording_id"]
    sources = {recording_id: paths.audio(recording_id) for recording_id in readable}
    return recall.near_duplicates(
        "validation", sources, params.validate_.near_duplicate_correlation, available_workers(0)
    )


def tables_of(
    recordings: pd.DataFrame, annotations: pd.DataFrame, quarantine: pd.DataFrame, signal: pd.DataFrame,
    pairs: pd.DataFrame, groups: pd.DataFrame, params: Params,
) -> dict[str, pd.DataFrame]:
    """Suite -> the table that it is about; and `labels`: every class of every label."""
    named = recordings.drop_duplicates("recording_id")
    labels = fitness.class_table(named, groups)
    ends = annotations.merge(named[[*IN_WORDS, "seconds"]], on="recording_id", how="left")
    return {
        "recordings": recordings,
        "annotations": ends.assign(recording_end_s=ends["seconds"] + ROUNDING_S).drop(columns="seconds"),
        "signals": named[[*IN_WORDS, "source"]].merge(signal, on="recording_id"),
        "pairs": fitness.pair_table(named, pairs, params.ingest.duplicate_correlation),
        "patients": fitness.patient_table(recordings),
        "sessions": fitness.session_table(named, groups),
        "labels": labels,
        "classes": fitness.learnt_when_rare(labels),
        "quarantine": quarantine,
    }


def summarise(tables: Mapping[str, pd.DataFrame], groups: pd.DataFrame, found: Sequence[checks.Check]) -> Result:
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
        "classes": checks.records(tables["labels"]),
        "quarantined_by_reason": {str(k): int(v) for k, v in quarantine["reason"].value_counts().sort_index().items()},
    }


def in_a_line(check: checks.Check) -> str:
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


def write(
    folder: Path, result: Result, tables: Mapping[str, pd.DataFrame], groups: pd.DataFrame, params: Params
) -> None:
    """All outputs, or none."""
    signals = tables["signals"]
    signal = signals.drop(columns=["fault", "source", "patient_id", "source_file"])
    with files.replacing_folder(folder) as temporary:
        files.write_json(temporary / "validation.json", result)
        files.write_parquet(temporary / "signal.parquet", signal.sort_values("recording_id", ignore_index=True))
        files.write_parquet(temporary / "groups.parquet", groups)
        page = validation_page.render(result, signals, params.validate_)
        (temporary / "index.html").write_text(page, encoding="utf-8")
