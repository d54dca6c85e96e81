"""Stage `evaluate`: the ensemble on the part it has never seen, beside floors, with intervals over groups.

In: folds, recordings, signal measurements, frames, the model, its cross-fitted out-of-fold predictions.
Out, in `artifacts/<task>/evaluation/`: `metrics.json` (every number of the report), `summary.json` (the values alone,
for `dvc metrics show`), `predictions.parquet` and `recordings.parquet` (held-out units and their recordings), and
`plots/*.csv` for `dvc plots show`.
"""

from typing import Any

import pandas as pd

from heartml.core import config, paths, tasks
from heartml.core.config import Params
from heartml.core.frame_store import Frames
from heartml.core.schema import TEST
from heartml.core.stage import stage
from heartml.core.system.files import replacing_folder, write_json, write_parquet
from heartml.evaluation import heart_states
from heartml.evaluation.assessment import (
    HELD_OUT,
    OUT_OF_FOLD,
    PARTS,
    AssessmentRules,
    assess,
    describe,
    locations,
    parts_of,
    summary,
)
from heartml.evaluation.inputs import leaks, read_left_out, read_out_of_fold, read_recordings
from heartml.evaluation.plot_tables import write_plots
from heartml.evaluation.prediction_tables import predictions_table, recordings_table
from heartml.metrics.scores import (
    in_words,
)
from heartml.models.fitted_model import Model, Predictions


def run(name: str) -> None:
    """Evaluate one task."""
    with stage("evaluate", task=name) as log:
        params, task = config.load(), tasks.resolve(name).task
        recordings = read_recordings(name, params.validate_)
        held_out = recordings[recordings["part"] == TEST]
        heart = heart_states.write(name, held_out)
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
    rules = AssessmentRules(params.evaluate, params.validate_.min_class_groups, params.seed, predictions.refer_below)
    held_out = recordings[recordings["part"] == TEST]
    tables = {HELD_OUT: predictions_table(predictions, describe(held_out, task)),
              OUT_OF_FOLD: read_out_of_fold(name, recordings)}
    of_recording = recordings_table(predictions, held_out)
    parts = parts_of(tables, recordings, task, params.evaluate.baselines)
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


def predict(name: str, held_out: pd.DataFrame) -> Predictions:
    """What the model says about held-out recordings, in their order."""
    model = Model.load(paths.model(name))
    opened = {encoder: Frames.open(paths.features(name, encoder)) for encoder in model.encoders}
    frames = {encoder: [of[i] for i in held_out["recording_id"]] for encoder, of in opened.items()}
    return model.predict(frames, list(held_out["unit_id"]))


