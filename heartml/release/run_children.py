"""The runs below the run of a version: encoders, trials, and the fits of networks.

In: the outputs of the stages of one task. Out: `ChildRun`s. Scores are those of the units' or recordings' out-of-fold
predictions as the search stored them; nothing is fitted here.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from heartml.core import folds, paths, tasks
from heartml.core.system.files import read_json
from heartml.core.tasks import Task
from heartml.metrics import METRICS
from heartml.registry.child_runs import ChildRun
from heartml.release.run_record import flat

AUC = "macro_auc"
_CHOICES = ("encoder", "pooling", "head", "level")


def of(name: str) -> list[ChildRun]:
    """All runs below the run of this task's version; none where there was no search."""
    table = paths.search(name) / "trials.parquet"
    if not table.exists():
        return []
    found = pd.read_parquet(table)
    model = read_json(paths.model(name) / "model.json")
    return [*_encoders(model, found, tasks.resolve(name).task), *_trials(name, found, model)]


def _encoders(model: Mapping[str, Any], trials: pd.DataFrame, task: Task) -> Iterator[ChildRun]:
    """One run for each encoder of the model: its settings, and how its trials did."""
    for encoder, spec in model.get("encoders", {}).items():
        own = trials.loc[trials["encoder"] == encoder, "value"]
        best = own.max()
        metrics = {"trials": [float(len(own))]}
        if not pd.isna(best):
            metrics[f"best_{task.metric}"] = [_as_metric(float(best), task)]
        yield ChildRun(f"encoder {encoder}", "encoder", dict(flat("", spec)), metrics)


def _trials(name: str, trials: pd.DataFrame, model: Mapping[str, Any]) -> Iterator[ChildRun]:
    """One run for each trial; below a network's, one for each of its fits."""
    task, chosen = tasks.resolve(name).task, {member["trial"] for member in model.get("members", [])}
    by_fold = _auc_by_fold(name, task)
    for row in trials.to_dict("records"):
        number, pruned = int(row["trial"]), row["state"] == "PRUNED"
        params = {key: str(row[key]) for key in _CHOICES if not pd.isna(row[key])}
        params |= dict(flat("", json.loads(row["numbers"])))
        metrics: dict[str, Sequence[float]] = {"folds": [float(row["folds"])]}
        if not pd.isna(row["value"]):
            metrics[task.metric] = [_as_metric(float(row["value"]), task)]
        aucs = by_fold.get(number, {})
        if aucs:
            metrics[f"{AUC}_of_fold"] = list(aucs.values())
        tags = {"heartml.trial": str(number), "heartml.trial_state": "pruned" if pruned else "complete",
                "heartml.member": str(number in chosen).lower()}
        yield ChildRun(f"trial {number}: {row['head']} on {row['encoder']}{' (pruned)' * pruned}", "trial", params,
                       metrics, tags, children=_fits(name, number, params, aucs))


def _fits(name: str, trial: int, params: Mapping[str, str], aucs: Mapping[str, float]) -> list[ChildRun]:
    """One run for each fit of a network trial whose network the search kept, with its learning curve."""
    kept = sorted((paths.search(name) / "heads").glob(f"{trial}-*.safetensors"))
    if not kept:
        return []
    from heartml.training import fold_fits

    files = {path.stem.rpartition("-")[2]: path for path in kept}
    return [ChildRun(f"trial {trial}, without fold {fold}", "network fit", {**params, "left_out_fold": fold},
                     {AUC: [aucs[fold]]} if fold in aucs else {}, {"heartml.trial": str(trial)},
                     _curves(fold_fits.read_curves(path))) for fold, path in files.items()]


def _curves(stored: Mapping[str, Sequence[float]]) -> dict[str, list[tuple[int, float]]]:
    """The points of a network's learning curve, with their steps; `validation_log_loss` is of recordings left out."""
    from heartml.models.heads.network_training import CURVE_STEPS  # torch

    found = {name: list(zip(range(CURVE_STEPS, CURVE_STEPS * len(stored[name]) + 1, CURVE_STEPS), stored[name],
                            strict=True)) for name in ("loss", "rate") if name in stored}
    if "validation" in stored:
        found["validation_log_loss"] = list(zip(map(int, stored["validation_step"]), stored["validation"], strict=True))
    return found


def _as_metric(value: float, task: Task) -> float:
    """A trial's value as its metric; the search negates a metric that is better when it is smaller."""
    return value if METRICS[task.metric].greater_is_better else -value


def _auc_by_fold(name: str, task: Task) -> dict[int, dict[str, float]]:
    """Trial -> fold -> macro AUC of the fold's predictions, .5 where it is not defined.

    A trial that predicts recordings is scored on recordings.
    """
    stored = paths.search(name) / "probabilities.parquet"
    if not stored.exists():
        return {}
    table = folds.load(paths.folds(name))
    columns, classes = [f"p_{label}" for label in task.classes], list(task.classes)
    known = {"recording_id": table.set_index("recording_id"), "unit_id": table.drop_duplicates("unit_id").set_index(
        "unit_id")}
    found: dict[int, dict[str, float]] = {}
    for number, rows in pd.read_parquet(stored).groupby("trial"):
        level = "unit_id" if rows["recording_id"].isna().all() else "recording_id"
        where = known[level].loc[rows[level]]
        labels = np.array([classes.index(label) for label in where["label"]])
        probabilities, parts = rows[columns].to_numpy(np.float64), where["part"].to_numpy()
        found[int(str(number))] = {
            part: _auc(labels[parts == part], probabilities[parts == part], task)
            for part in folds.fold_names(table)}
    return found


def _auc(labels: "np.ndarray[Any, np.dtype[np.int64]]", probabilities: "np.ndarray[Any, np.dtype[np.float64]]",
         task: Task) -> float:
    value = METRICS[AUC].function(labels, probabilities, labels, task.classes)
    return 0.5 if np.isnan(value) else float(value)
