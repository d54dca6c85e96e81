"""Stage `evaluate`: the ensemble on the part it has never seen, beside floors, with intervals over groups.

In: folds, recordings, signal measurements, frames, the model, its cross-fitted out-of-fold predictions.
Out, in `artifacts/<task>/evaluation/`: `metrics.json` (every number of the report), `summary.json` (the values alone,
for `dvc metrics show`), `predictions.parquet` and `recordings.parquet` (held-out units and their recordings), and
`plots/*.csv` for `dvc plots show`.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd

from heartml import beats, quality
from heartml.assessment import (
    HELD_OUT,
    OUT_OF_FOLD,
    PARTS,
    Rules,
    assess,
    describe,
    left_out,
    locations,
    parts_of,
    summary,
)
from heartml.core import config, folds, paths, schema, tasks
from heartml.core.config import Params, ValidateParams
from heartml.core.files import replacing_folder, write_json, write_parquet
from heartml.core.frames import Frames
from heartml.core.schema import TEST, label_column
from heartml.core.stage import StageError, stage
from heartml.core.tasks import Task
from heartml.metrics.scores import Number, Scored, abstention, calibration, confusion_rows, precision_recall, roc
from heartml.model import Model, Predictions

MEASURED = tuple(field.name for field in fields(quality.Quality))
SESSION = {True: "heard in training", False: "new"}
LEAKS = ("patient_id", "joined_group_id", schema.SESSION)
SIGNAL = {True: "with warnings", False: "no warnings"}
OF_RECORDING = ["recording_id", "source", "location", "age_group", "sex"]


def run(name: str) -> None:
    """Evaluate one task."""
    with stage("evaluate", task=name) as log:
        params, task = config.load(), tasks.resolve(name).task
        recordings = read_recordings(name, params.validate_)
        held_out = recordings[recordings["part"] == TEST]
        heart = beats.write(name, held_out)
        predictions = predict(name, held_out)
        found = write_evaluation(name, predictions, recordings, params)
        for part in PARTS:
            units = found["counts"][part]["units"]
            log.say(f"{units} units {part.replace('_', ' ')}: {task.metric} {in_words(found[part][task.metric])}")
        if heart:
            f1 = ", ".join(f"{state} {heart['network'][f'{state.lower()}_f1']:.3f}" for state in ("S1", "S2"))
            log.say(f"heart states: F1 of onsets {f1}")


def write_evaluation(name: str, predictions: Predictions, recordings: pd.DataFrame, params: Params) -> dict[str, Any]:
    """Judge the held-out `predictions` and the stored out-of-fold ones, write `artifacts/<task>/evaluation`.

    Returns:
        What stands in `metrics.json`.
    """
    task = tasks.resolve(name).task
    rules = Rules(params.evaluate, params.validate_.min_class_groups, params.seed, predictions.refer_below)
    held_out = recordings[recordings["part"] == TEST]
    tables = {HELD_OUT: predictions_table(predictions, describe(held_out, task)),
              OUT_OF_FOLD: read_out_of_fold(name, recordings)}
    of_recording = recordings_table(predictions, held_out)
    parts = parts_of(tables, recordings, task, params.evaluate.floors)
    found = {"assignment": name, **assess(parts, task, rules), "locations": locations(of_recording, task, rules),
             "leaks": leaks(recordings),
             "left_out": read_left_out(name, set(recordings["label"]))}
    with replacing_folder(paths.evaluation(name)) as folder:
        write_json(folder / "metrics.json", found)
        write_json(folder / "summary.json", summary(found))
        write_parquet(folder / "predictions.parquet", tables[HELD_OUT])
        write_parquet(folder / "recordings.parquet", of_recording)
        write_plots(folder / "plots", {part: p.scored for part, p in parts.items()}, task, rules.min_groups)
    return found


def read_recordings(name: str, limits: ValidateParams) -> pd.DataFrame:
    """The task's recordings with folds, description, measurements and `signal`, in the folds' order.

    `signal` says of the whole unit whether a recording of it has quality warnings: do errors gather there?
    `session` says whether a recording of it was made in a session that training has heard; null where none is known.

    Raises:
        FoldsError: a group, a patient or near-identical audio stands in two parts: nothing is scored.
        StageError: a recording of the folds is not in the data set, or was not measured.
    """
    table = folds.load(paths.folds(name))
    whole = pd.read_parquet(paths.RECORDINGS)
    recordings = whole[[*OF_RECORDING, "patient_id"]].assign(**{schema.SESSION: whole.get(schema.SESSION)})
    signal = pd.read_parquet(paths.VALIDATION / "signal.parquet")
    joined = pd.read_parquet(paths.VALIDATION / "groups.parquet", columns=["recording_id", "group_id"])
    for other, what in ((recordings, "in data/recordings.parquet"), (signal, "measured by validate"),
                        (joined, "in a group that validate joined")):
        lost = table[~table["recording_id"].isin(other["recording_id"])]
        if len(lost):
            raise StageError(f"recording {lost['recording_id'].iloc[0][:12]} of the folds is not {what}: "
                             "run `dvc repro`, which brings every stage up to date")
    owners = recordings[["recording_id", "patient_id"]].merge(joined, on="recording_id", validate="1:1")
    owners = owners.rename(columns={"group_id": "joined_group_id"})
    folds.check_folds(table, owners)
    described = table.merge(owners, on="recording_id", validate="1:1").merge(
        recordings[[*OF_RECORDING, schema.SESSION]], on="recording_id", validate="1:1")
    measured = described.merge(signal, on="recording_id", validate="1:1")
    warned = pd.Series([has_warnings(row, limits) for row in measured.to_dict("records")])
    heard = folds.trained_beside(measured, schema.SESSION).groupby(measured["unit_id"]).transform("max")
    return measured.assign(signal=warned.groupby(measured["unit_id"]).transform("any").map(SIGNAL),
                           session=heard.map(SESSION))


def leaks(recordings: pd.DataFrame) -> dict[str, dict[str, int]]:
    """What could be on both sides of a split -> how many of it there are, and how many are.

    Persons and near-identical audio never are (`folds.check_folds`). A session that holds several known persons may
    be: room, sensor and day are the same then, and the subgroups `session` say what that is worth.
    """
    found = {column: folds.crossing(recordings, column) for column in LEAKS}
    return {column: {"there": there, "crossing": crossing} for column, (there, crossing) in found.items()}


def read_left_out(name: str, learnt: Collection[str]) -> dict[str, dict[str, int]]:
    """The task's classes that are too rare to be in the folds, see `assessment.left_out`."""
    assignment = tasks.resolve(name)
    columns = ["recording_id", "dataset", "patient_id", label_column(assignment.task.label)]
    recordings = pd.read_parquet(paths.RECORDINGS, columns=columns)
    groups = pd.read_parquet(paths.VALIDATION / "groups.parquet", columns=["recording_id", "group_id"])
    return left_out(recordings, groups, assignment, learnt)


def has_warnings(measured: Mapping[Any, Any], limits: ValidateParams) -> bool:
    """Whether a recording with the columns of `Quality` has quality warnings."""
    return bool(quality.warnings(quality.Quality(**{name: measured[name] for name in MEASURED}), limits))


def predict(name: str, held_out: pd.DataFrame) -> Predictions:
    """What the model says about held-out recordings, in their order."""
    model = Model.load(paths.model(name))
    opened = {encoder: Frames.open(paths.features(name, encoder)) for encoder in model.encoders}
    frames = {encoder: [of[i] for i in held_out["recording_id"]] for encoder, of in opened.items()}
    return model.predict(frames, list(held_out["unit_id"]))


def predictions_table(predictions: Predictions, units: pd.DataFrame) -> pd.DataFrame:
    """One row a unit: unit_id, group_id, label, part, decision, p_<class>, c_<class>."""
    known = units.loc[list(predictions.unit_ids), ["group_id", "label", "part"]].reset_index()
    known["decision"] = pd.array([predictions.classes[d] for d in predictions.decisions], dtype="string")
    for kind, values in (("p", predictions.probabilities), ("c", predictions.calibrated)):
        known[[f"{kind}_{name}" for name in predictions.classes]] = values
    return known


def recordings_table(predictions: Predictions, held_out: pd.DataFrame) -> pd.DataFrame:
    """One row a held-out recording: recording_id, unit_id, group_id, label (the unit's), part, location, p_<class>."""
    known = held_out[["recording_id", "unit_id", "group_id", "label", "part", "location"]].reset_index(drop=True)
    known[[f"p_{name}" for name in predictions.classes]] = predictions.recording_probabilities
    return known


def read_out_of_fold(name: str, recordings: pd.DataFrame) -> pd.DataFrame:
    """The cross-fitted predictions, held against the folds.

    Raises:
        StageError: a unit is missing, is not one of the folds', or has another label, group or part there.
    """
    table = pd.read_parquet(paths.out_of_fold(name))
    rest = recordings[recordings["part"] != TEST]
    expected = rest.groupby("unit_id", sort=False)[["group_id", "label", "part"]].first()
    lost = sorted(set(expected.index) ^ set(table["unit_id"]))
    if lost or table["unit_id"].duplicated().any():
        which = lost[0] if lost else table.loc[table["unit_id"].duplicated(), "unit_id"].iloc[0]
        raise StageError(f"unit {which}: not once in folds and once in out_of_fold.parquet. Run `dvc repro`.")
    columns = ["group_id", "label", "part"]
    differs = (table.set_index("unit_id").loc[expected.index, columns].astype(str) != expected.astype(str)).any(axis=1)
    if differs.any():
        raise StageError(f"unit {expected.index[differs][0]}: label, group or fold differs between folds and "
                         "out_of_fold.parquet. Run `dvc repro`.")
    return table


def write_plots(folder: Path, scored: Mapping[str, Scored], task: Task, min_groups: int) -> None:
    """One CSV a plot, both parts one above the other with the column `part`."""
    folder.mkdir()
    plots: dict[str, Callable[[Scored], pd.DataFrame]] = {
        "confusion": confusion_rows, "roc": roc, "precision_recall": precision_recall, "calibration": calibration,
        "abstention": lambda part: abstention(part, task, min_groups),
    }
    for plot, of_part in plots.items():
        tables = [of_part(part).assign(part=name) for name, part in scored.items()]
        pd.concat(tables).to_csv(folder / f"{plot}.csv", index=False, float_format="%.6g", lineterminator="\n")


def in_words(number: Number) -> str:
    """`0.812 [0.733, 0.884]`."""
    if number["value"] is None or number["low"] is None:
        return "not defined"
    return f"{number['value']:.3f} [{number['low']:.3f}, {number['high']:.3f}]"
