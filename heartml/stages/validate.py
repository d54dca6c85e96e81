"""Stage `validate`: are the data fit for training? Errors stop the tasks of their data set; the report shows warnings.

In: the data set in `data/`. Out, under `artifacts/validation/`: `validation.json` (every check with the rows that fail
it), `index.html` (the same as a page), `signal.parquet` (recording_id and `Quality`), `groups.parquet` (recording_id,
group_id after near-duplicates are joined). Where no data set is fit, all of these go to `FAILED` instead. Where some
are, the stage succeeds, and `split` stops the tasks of the others.
"""

import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd

from heartml.core import config, paths, schema
from heartml.core.config import Params
from heartml.core.stage import StageError, stage
from heartml.core.system import files
from heartml.core.system.parallel import available_workers
from heartml.core.system.progress import track
from heartml.core.tasks import declared_by
from heartml.data import cache
from heartml.data.validation import expectations, run_suites
from heartml.data.validation import page as validation_page
from heartml.data.validation import tables as validation_tables
from heartml.data.validation.result import Result, summarise

FAILED = paths.STATE / "validation-failed"


def run() -> None:
    """Validate the data set and write the results.

    Raises:
        StageError: every data set has an error; the message names the first rows and the page with all of them.
    """
    params = config.load()
    with stage("validate") as log:
        recordings, annotations, quarantine = read()
        signal = measure(recordings)
        pairs = near_duplicates(signal, params)
        groups = validation_tables.joined_groups(recordings.drop_duplicates("recording_id"), pairs)
        own = declared_by(recordings["dataset"])
        tables = validation_tables.suite_tables(recordings, annotations, quarantine, signal, pairs, groups, params,
                                                own)
        expected = expectations.suites(params.ingest, params.validate_, validation_tables.label_columns(recordings),
                                       [task for tasks in own.values() for task in tasks],
                                       numbered="numbered" in tables, breaths="breaths" in tables,
                                       lungs=params.for_organ("lung").validate_ if "lung_signals" in tables else None)
        result = summarise(tables, groups, run_suites.check(tables, expected))
        folder = paths.VALIDATION if result["success"] else FAILED
        write(folder, result, tables, groups, params)
        log.add(f"{len(recordings)} recordings in {groups['group_id'].nunique()} groups")
        log.add(f"{len(quarantine)} files in quarantine")
        log.add(f"{len(result['errors'])} errors, {len(result['warnings'])} warnings: {folder / 'index.html'}")
        if "blocked" in result:
            log.add(f"not fit for training, so their tasks stop: {', '.join(result['blocked'])}")
        if not result["success"]:
            errors = "\n  ".join(result["errors"])
            raise StageError(f"the data is not fit for training:\n  {errors}\nAll of it: {folder / 'index.html'}")
        shutil.rmtree(FAILED, ignore_errors=True)


def read() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """The tables recordings, annotations and quarantine, with the types of `schema`; recordings in a fixed order.

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
    """`tables.signal_table` of every recording, in threads on all cores: the heavy work releases Python's lock."""
    ids = list(dict.fromkeys(recordings["recording_id"]))
    with ThreadPoolExecutor(available_workers(0)) as executor:
        measured = executor.map(validation_tables.measure, ids)
        return validation_tables.signal_table(track(measured, "measuring signals", len(ids)))


def near_duplicates(signal: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Pairs of near-duplicate audio among the recordings that can be read; results of earlier runs are reused."""
    readable = signal.loc[signal["fault"].isna(), "recording_id"]
    sources = {recording_id: paths.audio(recording_id) for recording_id in readable}
    searched = cache.thresholds(params.ingest, params.validate_)
    return cache.near_duplicates(
        sources, params.validate_.near_duplicate_correlation, searched, available_workers(0)
    )


def write(
    folder: Path, result: Result, tables: Mapping[str, pd.DataFrame], groups: pd.DataFrame, params: Params
) -> None:
    """Write all outputs into `folder`, or none."""
    signals = pd.concat([tables["signals"], tables["lung_signals"]]) if "lung_signals" in tables else tables["signals"]
    signal = signals.drop(columns=["fault", "source", "patient_id", "source_file"])
    with files.replacing_folder(folder) as temporary:
        files.write_json(temporary / "validation.json", result)
        files.write_parquet(temporary / "signal.parquet", signal.sort_values("recording_id", ignore_index=True))
        files.write_parquet(temporary / "groups.parquet", groups)
        page = validation_page.render(result, signals, params.validate_)
        (temporary / "index.html").write_text(page, encoding="utf-8")
