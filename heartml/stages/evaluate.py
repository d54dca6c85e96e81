"""Stage `evaluate`: the ensemble on the held-out part, beside baselines, with intervals over groups.

In: folds, recordings, annotations, signal measurements, frames, the model, its out-of-fold predictions.
Out, in `artifacts/<task>/heart_states/`: see `heartml.evaluation.heart_states`.
Out, in `artifacts/<task>/evaluation/`: `metrics.json` (every number of the report), `summary.json` (the values alone,
for `dvc metrics show`), `predictions.parquet` and `recordings.parquet` (held-out units and their recordings), and
`plots/*.csv` for `dvc plots show`.
"""

from typing import Any

import pandas as pd

from heartml.audio.quality import Quality
from heartml.core import config, paths, tasks
from heartml.core.config import Params
from heartml.core.schema import TEST
from heartml.core.stage import stage
from heartml.core.system.files import replacing_folder, write_json, write_parquet
from heartml.data.persons import count_unknown
from heartml.evaluation import heart_states
from heartml.evaluation.assessment import (
    HELD_OUT,
    OUT_OF_FOLD,
    PARTS,
    assess,
    assessed_parts,
    describe_units,
    score_locations,
    summary,
)
from heartml.evaluation.inputs import read_left_out_classes, read_out_of_fold, read_recordings, split_leaks
from heartml.evaluation.parts import AssessmentRules
from heartml.evaluation.plot_tables import write_plots
from heartml.evaluation.prediction_tables import predictions_table, recordings_table
from heartml.metrics.scores import interval_text
from heartml.models import heard
from heartml.models.encoders import EncoderSpec
from heartml.models.fitted_model import Model, Predictions
from heartml.models.frame_cache import open_frames


def run(name: str) -> None:
    """Evaluate one task.

    Raises:
        FoldsError: a group, a patient or near-duplicate audio is in two parts.
        StageError: folds, recordings, measurements and out-of-fold predictions do not fit each other.
        HeardError: an encoder of the model was trained on a group of the task.
    """
    with stage("evaluate", task=name) as log:
        task = tasks.resolve(name).task
        params = config.load().for_organ(task.organ)
        recordings = read_recordings(name, params.validate_)
        held_out = recordings[recordings["part"] == TEST]
        heart = heart_states.segment_held_out(name, held_out)
        predictions = predict(name, held_out, recordings)
        found = write_evaluation(name, predictions, recordings, params)
        for part in PARTS:
            units = found["counts"][part]["units"]
            log.add(f"{units} units {part.replace('_', ' ')}: {task.metric} {interval_text(found[part][task.metric])}")
        if heart:
            f1 = ", ".join(f"{state} {heart['network'][f'{state.lower()}_f1']:.3f}" for state in ("S1", "S2"))
            log.add(f"heart states: F1 of onsets {f1}")


def write_evaluation(name: str, predictions: Predictions, recordings: pd.DataFrame, params: Params) -> dict[str, Any]:
    """Score the held-out `predictions` and the stored out-of-fold ones, and write `artifacts/<task>/evaluation/`.

    Args:
        recordings: see `inputs.read_recordings`.

    Returns:
        The content of `metrics.json`.

    Raises:
        StageError: the out-of-fold predictions do not fit the folds.
    """
    task = tasks.resolve(name).task
    rules = AssessmentRules(params.evaluate, params.validate_.min_class_groups, params.seed, predictions.refer_below)
    held_out = recordings[recordings["part"] == TEST]
    tables = {HELD_OUT: predictions_table(predictions, describe_units(held_out, task)),
              OUT_OF_FOLD: read_out_of_fold(name, recordings)}
    of_recording = recordings_table(predictions, held_out)
    parts = assessed_parts(tables, recordings, task, params.evaluate.baselines)
    found = {"assignment": name, **assess(parts, task, rules), "locations": score_locations(of_recording, task, rules),
             "leaks": split_leaks(recordings), "persons": count_unknown(recordings),
             "left_out": read_left_out_classes(name, set(recordings["label"]))}
    with replacing_folder(paths.evaluation(name)) as folder:
        write_json(folder / "metrics.json", found)
        write_json(folder / "summary.json", summary(found))
        write_parquet(folder / "predictions.parquet", tables[HELD_OUT])
        write_parquet(folder / "recordings.parquet", of_recording)
        write_plots(folder / "plots", {part: p.scored for part, p in parts.items()}, task, rules.min_groups)
    return found


def predict(name: str, held_out: pd.DataFrame, recordings: pd.DataFrame) -> Predictions:
    """The model's predictions for the units of the held-out recordings.

    Args:
        recordings: all of the task; out-of-fold predictions of them are scored as well.
    """
    model, recording_ids = Model.load(paths.model(name)), list(held_out["recording_id"])
    heard.refuse(name, model.encoder_specs, recordings, paths.model(name))
    frames = {encoder: open_frames(name, EncoderSpec.from_json(spec), recording_ids)
              for encoder, spec in model.encoder_specs.items()}
    return model.predict(frames, list(held_out["unit_id"]), Quality.from_table(held_out))
