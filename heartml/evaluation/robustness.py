"""The held-out part scored again on degraded recordings: noise, worse sensors. Does the score hold outside of a clinic?

In: the model, the held-out recordings, a list of conditions. Out: values for `robustness.json`: for each condition the
scores, and their paired difference to the scores on the recordings as they are.
"""

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from heartml.audio import sound_files
from heartml.core import paths
from heartml.core.config import EvaluateParams
from heartml.core.system import parallel
from heartml.core.system.hashing import sha256
from heartml.core.system.progress import track
from heartml.core.tasks import Task
from heartml.evaluation import perturbations
from heartml.metrics.scores import LabelledPredictions, json_number, metric_intervals, paired_difference, task_metrics
from heartml.models.fitted_model import REFER, Model, Predictions

Json = dict[str, Any]

IN_PROCESS_UP_TO = 200     # so many predictions are made before other processes would have started


@dataclass(frozen=True)
class Condition:
    """A kind of `perturbations.PERTURBATIONS` at one level, in its unit."""

    kind: str
    level: float


@dataclass(frozen=True)
class RobustnessSet:
    """What is evaluated: the model of `task` in the project `root`, on recordings [r]; `unit_of`: the unit of each [r].

    `seed` is that of the noise; `band_hz` is where its ratio to the signal is measured.
    """

    root: Path
    task: str
    recording_ids: tuple[str, ...]
    unit_of: tuple[str, ...]
    seed: int
    band_hz: tuple[float, float]


@dataclass(frozen=True)
class RobustnessRules:
    """The settings of the scores: task, parameters of the evaluation, seed of the resamples."""

    task: Task
    params: EvaluateParams
    seed: int


def sample(held_out: pd.DataFrame, most: int, seed: int) -> pd.DataFrame:
    """Draw whole units with at most `most` recordings in all, classes in proportion; at least one unit.

    Args:
        held_out: schema.FOLDS, one row a recording.
        most: number of recordings.
        seed: of the draw.

    Returns:
        The rows of the drawn units, in their old order.
    """
    units = held_out.groupby("unit_id").agg(label=("label", "first"), recordings=("label", "size")).reset_index()
    units = units.assign(lot=[sha256(f"{seed} {unit}".encode()) for unit in units["unit_id"]]).sort_values("lot")
    by_label = units.groupby("label")["lot"]
    units = units.assign(place=(by_label.cumcount() + 0.5) / by_label.transform("size")).sort_values(["place", "lot"])
    fits = units["recordings"].cumsum() <= max(most, units["recordings"].iloc[0])
    return held_out[held_out["unit_id"].isin(units.loc[fits, "unit_id"])].reset_index(drop=True)


def predict_all(subset: RobustnessSet, conditions: Sequence[Condition]) -> list[Predictions]:
    """Predictions for the recordings as they are, then for each condition; several processes where it pays."""
    every = [None, *conditions]
    predictions = len(subset.recording_ids) * len(every)
    count = 1 if predictions <= IN_PROCESS_UP_TO else min(parallel.available_workers(0), len(every))
    with parallel.pool(count) as pool:
        found: Iterable[Predictions] = pool.map(functools.partial(predict_under, subset), every)
        return list(track(found, f"robustness {subset.task}", len(every)))


def predict_under(subset: RobustnessSet, condition: Condition | None) -> Predictions:
    """Predictions for the recordings [r] under one condition; `None`: as they are."""
    model, recordings = _load(subset)
    if condition is None:
        return model.predict_audio(recordings, subset.unit_of)
    degraded = [(degrade(waveform, rate, condition, recording_id, subset), rate)
                for (waveform, rate), recording_id in zip(recordings, subset.recording_ids, strict=True)]
    return model.predict_audio(degraded, subset.unit_of)


def degrade(
    waveform: sound_files.Waveform, rate_hz: int, condition: Condition, recording_id: str, subset: RobustnessSet
) -> sound_files.Waveform:
    """Apply a condition: waveform [time] -> [time']. Its noise depends on seed, recording and kind alone."""
    rng = np.random.default_rng(int(sha256(f"{subset.seed} {recording_id} {condition.kind}".encode())[:32], 16))
    return perturbations.PERTURBATIONS[condition.kind].apply(waveform, rate_hz, condition.level, rng, subset.band_hz)


@functools.lru_cache(maxsize=1)
def _load(subset: RobustnessSet) -> tuple[Model, list[tuple[sound_files.Waveform, int]]]:
    """The model and the recordings (waveform, rate in Hz); a worker loads them once.

    Raises:
        AudioError: a file gives no samples.
        OtherSamplesError: the samples of a recording are not those that it is named after.
    """
    recordings = []
    for recording_id in subset.recording_ids:
        samples = sound_files.read_recording(subset.root / paths.audio(recording_id), recording_id)
        recordings.append((samples.floats, samples.sample_rate_hz))
    return Model.load(subset.root / paths.model(subset.task)), recordings


def compare_conditions(
    predictions: Sequence[Predictions], conditions: Sequence[Condition], chosen: pd.DataFrame, rules: RobustnessRules
) -> Json:
    """The content of `robustness.json`.

    Args:
        predictions: for the recordings as they are, then one for each condition, as `predict_all` returns them.
        chosen: schema.FOLDS of these recordings.
    """
    clean, *others = [scored(one, chosen) for one in predictions]
    as_recorded, *shares = [_confidence_and_referred(own, one)
                            for own, one in zip(predictions, (clean, *others), strict=True)]
    return {
        "metric": rules.task.metric, "official": [metric.name for metric in task_metrics(rules.task)],
        "confidence": rules.params.confidence, "unit": rules.task.unit,
        "units": len(clean.labels), "groups": len(np.unique(clean.groups)), "recordings": len(chosen),
        "clean": {**_scores(clean, rules), **as_recorded},
        "conditions": [
            {"kind": c.kind, "title": perturbations.PERTURBATIONS[c.kind].title, "level": c.level,
             "words": perturbations.PERTURBATIONS[c.kind].level_in_words(c.level), **_scores(one, rules), **share,
             "change": paired_difference(one, clean, rules.task, rules.params, rules.seed)}
            for c, one, share in zip(conditions, others, shares, strict=True)
        ],
    }


def scored(predictions: Predictions, chosen: pd.DataFrame) -> LabelledPredictions:
    """Predictions [n units] with the group, part and label that the folds have for each unit."""
    units = chosen.drop_duplicates("unit_id").set_index("unit_id").loc[list(predictions.unit_ids)]
    index = {name: row for row, name in enumerate(predictions.classes)}
    labels = np.array([index[label] for label in units["label"]], np.int64)
    groups, parts = (units[column].to_numpy(str) for column in ("group_id", "part"))
    return LabelledPredictions(np.array(predictions.unit_ids), groups, parts, labels, predictions.decisions,
                               predictions.probabilities, predictions.calibrated, predictions.classes)


def _scores(one: LabelledPredictions, rules: RobustnessRules) -> Json:
    """The task's metrics with their intervals over all units, also over those that the model would refer."""
    return {"scores": metric_intervals(task_metrics(rules.task), one, one.probabilities, rules.params, rules.seed)}


def _confidence_and_referred(predictions: Predictions, one: LabelledPredictions) -> Json:
    """The mean confidence of the decisions (stored as `sureness`), and shares of the units.

    referred: left to a human. outside: because the recording cannot be judged. referred_or_right: not wrong and shown.
    """
    return {"sureness": json_number(float(predictions.confidence.mean())),
            "referred": json_number(float(np.mean([verdict == REFER for verdict in predictions.verdicts]))),
            "outside": json_number(float(np.mean([bool(reasons) for reasons in predictions.reasons]))),
            "referred_or_right": json_number(float(np.mean(
                np.array([verdict == REFER for verdict in predictions.verdicts]) | (one.decisions == one.labels))))}


def plot_table(found: Mapping[str, Any]) -> pd.DataFrame:
    """Columns condition, value, low, high of the task's metric; the first row is the recordings as they are."""
    rows = [("As recorded", found["clean"])]
    rows += [(f"{c['title']}, {c['words']}", c) for c in found["conditions"]]
    return pd.DataFrame([{"condition": words, **entry["scores"][found["metric"]]} for words, entry in rows])


def in_words(found: Mapping[str, Any]) -> str:
    """The score as recorded and its largest change: `uar 0.762 as recorded, -0.210 at most (Speech, 0 dB SNR)`."""
    values = [c["change"]["value"] for c in found["conditions"] if c["change"]["value"] is not None]
    words = f"{found['metric']} {found['clean']['scores'][found['metric']]['value']:.3f} as recorded"
    if not values:
        return words
    largest = max(found["conditions"], key=lambda c: abs(c["change"]["value"] or 0.0))
    return f"{words}, {largest['change']['value']:+.3f} at most ({largest['title']}, {largest['words']})"
