"""The outputs of the search, written and read in one place.

- `trials.parquet`: trial, state, value, folds, encoder, level, pooling, head, `numbers` (hyperparameters as JSON).
- `probabilities.parquet`: trial, recording_id or unit_id, p_<class>; one row for each recording, or for each unit where
  the trial has level `unit`.
- `details/<trial>.npy`: features for stackers, float32 `[recordings, n]` in the order of the training set.
- `noisy/<trial>.safetensors`: predictions for the same recordings with noise added, where stackers are fitted to them.
- `heads/<trial>-<fold>.safetensors`: fitted networks, which would take long to fit again.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from heartml.core.stage import StageError
from heartml.core.system import files
from heartml.models.ensemble.candidate import CandidateSpec
from heartml.models.ensemble.stacking import StackingFeatures, StackingView, features_of_views, stacking_views
from heartml.models.heads import HeadPrediction, HeadState
from heartml.training import fold_fits
from heartml.training.study import TrialOutcome
from heartml.training.training_set import TrainingSet

FinishedTrials = Sequence[tuple[int, CandidateSpec, TrialOutcome]]


def write(
    folder: Path, train_set: TrainingSet, finished: FinishedTrials,
    predictions: Callable[[int, CandidateSpec], tuple[HeadPrediction, HeadPrediction | None]],
    result_of: Callable[[int, int], Path],
) -> None:
    """Write into the empty `folder`; the same trials give the same bytes.

    Args:
        predictions: trial and spec -> out-of-fold predictions of a complete trial, as recorded and with noise added.
        result_of: trial and fold -> result file of one fit.
    """
    ordered = sorted(finished, key=lambda one: one[0])
    complete = {trial: (spec, *predictions(trial, spec))
                for trial, spec, outcome in ordered if outcome.value is not None}
    files.write_parquet(folder / "trials.parquet", trials_table(ordered))
    as_recorded = {trial: (spec, prediction) for trial, (spec, prediction, _) in complete.items()}
    files.write_parquet(folder / "probabilities.parquet", probabilities_table(as_recorded, train_set))
    for kind in ("details", "noisy", "heads"):
        (folder / kind).mkdir()
    for trial, (spec, prediction, noisy) in complete.items():
        if prediction.details is not None:
            files.write_array(folder / "details" / f"{trial}.npy", prediction.details.astype(np.float32))
        if noisy is not None:
            fold_fits.write_result(folder / "noisy" / f"{trial}.safetensors", noisy)
        if spec.head_module.TAKES == "frames":
            for fold in range(train_set.folds):
                shutil.copyfile(result_of(trial, fold), folder / "heads" / f"{trial}-{fold}.safetensors")


def trials_table(ordered: FinishedTrials) -> pd.DataFrame:
    """One row for each trial."""
    rows = [
        {"trial": trial, "state": "PRUNED" if outcome.value is None else "COMPLETE", "value": outcome.value,
         "folds": len(outcome.steps), "encoder": spec.encoder, "level": spec.level, "pooling": spec.pooling,
         "head": spec.head, "numbers": json.dumps(dict(spec.hyperparameters), sort_keys=True)}
        for trial, spec, outcome in ordered
    ]
    text = dict.fromkeys(("state", "encoder", "level", "pooling", "head", "numbers"), "string")
    return pd.DataFrame(rows).astype({"trial": "int64", "value": "float64", "folds": "int64", **text})


def probabilities_table(complete: Mapping[int, tuple[CandidateSpec, HeadPrediction]],
                        train_set: TrainingSet) -> pd.DataFrame:
    """Out-of-fold probabilities of complete trials: one row for each recording or, at level `unit`, for each unit."""
    tables = []
    for trial, (spec, prediction) in complete.items():
        of_recordings = spec.level == "recording"
        units = [train_set.unit_ids[u] for u in train_set.unit] if of_recordings else list(train_set.unit_ids)
        recordings = list(train_set.recording_ids) if of_recordings else None
        table = pd.DataFrame({"trial": trial, "recording_id": recordings, "unit_id": units})
        table[[f"p_{label}" for label in train_set.task.classes]] = np.exp(prediction.log_p)
        tables.append(table.astype({"recording_id": "string", "unit_id": "string"}))
    return pd.concat(tables, ignore_index=True)


def read_specs(folder: Path) -> dict[int, CandidateSpec]:
    """The specs of all complete trials, by trial.

    Raises:
        StageError: no trial is complete.
    """
    table = pd.read_parquet(folder / "trials.parquet")
    complete = table[table["state"] == "COMPLETE"]
    if not len(complete):
        raise StageError(f"{folder}: no trial of the search is complete. Raise `search.trials` and run `dvc repro`.")
    return {int(row["trial"]): spec_of(row) for row in complete.to_dict("records")}


def spec_of(row: Mapping[Any, Any]) -> CandidateSpec:
    """The spec in a row of `trials.parquet`."""
    pooling = None if pd.isna(row["pooling"]) else str(row["pooling"])
    return CandidateSpec(row["encoder"], row["head"], row["level"], pooling, json.loads(row["numbers"]))


def read_stacking_features(folder: Path, specs: Mapping[int, CandidateSpec],
                           train_set: TrainingSet) -> dict[StackingView, StackingFeatures]:
    """Out-of-fold stacking features of every view of every complete trial.

    Raises:
        StageError: see `check_order`.
    """
    table = pd.read_parquet(folder / "probabilities.parquet")
    columns = [f"p_{label}" for label in train_set.task.classes]
    predictions = {}
    for trial, rows in table.groupby("trial"):
        check_order(rows, specs[int(str(trial))], train_set)
        details = folder / "details" / f"{trial}.npy"
        predictions[int(str(trial))] = HeadPrediction(
            np.log(rows[columns].to_numpy(np.float64)),
            np.load(details, allow_pickle=False).astype(np.float64) if details.exists() else None)
    found = sorted((folder / "noisy").glob("*.safetensors"))
    noisy = {int(path.stem): fold_fits.read_prediction(path) for path in found}
    return features_of_views(stacking_views(predictions, specs, train_set.task), predictions, noisy, train_set.unit)


def check_order(rows: pd.DataFrame, spec: CandidateSpec, train_set: TrainingSet) -> None:
    """Check that the rows of a trial are in the order of the training set.

    Raises:
        StageError: they are not; the search was made on other folds.
    """
    key, expected = ("recording_id", train_set.recording_ids) if spec.level == "recording" else (
        "unit_id", train_set.unit_ids)
    if tuple(rows[key]) != expected:
        raise StageError(f"{train_set.name}: the search was made on other folds. Run `dvc repro`.")


def stored_heads(folder: Path, trial: int, folds: int) -> tuple[HeadState, ...]:
    """The fitted heads of a network trial, one for each fold."""
    return tuple(fold_fits.read_state(folder / "heads" / f"{trial}-{fold}.safetensors") for fold in range(folds))
