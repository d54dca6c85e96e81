"""The held-out part under noise and through worse sensors: what is a score worth outside of the clinic?"""

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
from heartml.core.stage import StageError
from heartml.core.system import parallel
from heartml.core.system.hashing import sha256
from heartml.core.system.progress import track
from heartml.core.tasks import Task
from heartml.evaluation import perturbations
from heartml.metrics.scores import Scored, intervals, number, task_metrics, versus
from heartml.models.fitted_model import REFER, Model, Predictions

Judged = dict[str, Any]

ALONE = 200                # answers up to here are given before other processes would have started


@dataclass(frozen=True)
class Condition:
    """A kind of `perturb.KINDS` at one level."""

    kind: str
    level: float


@dataclass(frozen=True)
class RobustnessSet:
    """What is listened to: the model of `task` in the project `root`, recordings [r] and the unit of each [r]."""

    root: Path
    task: str
    recording_ids: tuple[str, ...]
    unit_of: tuple[str, ...]
    seed: int


@dataclass(frozen=True)
class RobustnessRules:
    """With which numbers to judge."""

    task: Task
    params: EvaluateParams
    seed: int


def sample(held_out: pd.DataFrame, most: int, seed: int) -> pd.DataFrame:
    """At most `most` recordings (of one unit at least): whole units, classes in proportion, drawn by lot.

    Args:
        held_out: schema.FOLDS; its order is kept.
    """
    units = held_out.groupby("unit_id").agg(label=("label", "first"), recordings=("label", "size")).reset_index()
    units = units.assign(lot=[sha256(f"{seed} {unit}".encode()) for unit in units["unit_id"]]).sort_values("lot")
    by_label = units.groupby("label")["lot"]
    units = units.assign(place=(by_label.cumcount() + 0.5) / by_label.transform("size")).sort_values(["place", "lot"])
    fits = units["recordings"].cumsum() <= max(most, units["recordings"].iloc[0])
    return held_out[held_out["unit_id"].isin(units.loc[fits, "unit_id"])].reset_index(drop=True)


def predict_all(listening: RobustnessSet, conditions: Sequence[Condition]) -> list[Predictions]:
    """What the model says of the recordings as they are, and under each condition."""
    every = [None, *conditions]
    asked = len(listening.recording_ids) * len(every)
    count = 1 if asked <= ALONE else min(parallel.available_workers(0), len(every))
    with parallel.pool(count) as pool:
        said: Iterable[Predictions] = pool.map(functools.partial(predict_under, listening), every)
        return list(track(said, f"robustness {listening.task}", len(every)))


def predict_under(listening: RobustnessSet, condition: Condition | None) -> Predictions:
    """What the model says of the recordings [r] under one condition; `None`: as they are."""
    model, heard = _opened(listening)
    if condition is None:
        return model.predict_audio(heard, listening.unit_of)
    worse = [(degraded(waveform, rate, condition, recording_id, listening.seed), rate)
             for (waveform, rate), recording_id in zip(heard, listening.recording_ids, strict=True)]
    return model.predict_audio(worse, listening.unit_of)


def degraded(
    waveform: sound_files.Waveform, rate_hz: int, condition: Condition, recording_id: str, seed: int
) -> sound_files.Waveform:
    """One recording [time] under a condition; its noise depends on nothing but seed, recording and kind."""
    entropy = int(sha256(f"{seed} {recording_id} {condition.kind}".encode())[:32], 16)
    return perturbations.KINDS[condition.kind].apply(waveform, rate_hz, condition.level, np.random.default_rng(entropy))


@functools.lru_cache(maxsize=1)
def _opened(listening: RobustnessSet) -> tuple[Model, list[tuple[sound_files.Waveform, int]]]:
    """The model and the recordings, once a worker.

    Raises:
        StageError: the samples of a recording are not those it is named after.
    """
    heard = []
    for recording_id in listening.recording_ids:
        samples = sound_files.read(listening.root / paths.audio(recording_id))
        if samples.recording_id != recording_id:
            raise StageError(f"recording {recording_id[:12]}: its samples are not those it is named after. "
                             "Run `dvc checkout data.dvc`, or `heartml ingest` again.")
        heard.append((samples.floats, samples.sample_rate_hz))
    return Model.load(listening.root / paths.model(listening.task)), heard


def compare(
    said: Sequence[Predictions], conditions: Sequence[Condition], chosen: pd.DataFrame, rules: RobustnessRules
) -> Judged:
    """What stands in `robustness.json`; the first of `said` is about the recordings as they are."""
    clean, *others = [scored(one, chosen) for one in said]
    as_recorded, *spoken = [_self_doubt(one) for one in said]
    return {
        "metric": rules.task.metric, "official": [metric.name for metric in task_metrics(rules.task)],
        "confidence": rules.params.confidence, "unit": rules.task.unit,
        "units": len(clean.labels), "groups": len(np.unique(clean.groups)), "recordings": len(chosen),
        "clean": {**_scores(clean, rules), **as_recorded},
        "conditions": [
            {"kind": c.kind, "title": perturbations.KINDS[c.kind].title, "level": c.level,
             "words": perturbations.KINDS[c.kind].level(c.level), **_scores(one, rules), **doubt,
             "change": versus(one, clean, rules.task, rules.params, rules.seed)}
            for c, one, doubt in zip(conditions, others, spoken, strict=True)
        ],
    }


def scored(said: Predictions, chosen: pd.DataFrame) -> Scored:
    """Predictions beside what the folds know of their units."""
    units = chosen.drop_duplicates("unit_id").set_index("unit_id").loc[list(said.unit_ids)]
    index = {name: row for row, name in enumerate(said.classes)}
    labels = np.array([index[label] for label in units["label"]], np.int64)
    return Scored(np.array(said.unit_ids), units["group_id"].to_numpy(str), units["part"].to_numpy(str), labels,
                  said.decisions, said.probabilities, said.calibrated, said.classes)


def _scores(one: Scored, rules: RobustnessRules) -> Judged:
    """The task's metrics with their intervals, over all units: also over those that the model would refer."""
    return {"scores": intervals(task_metrics(rules.task), one, one.probabilities, rules.params, rules.seed)}


def _self_doubt(said: Predictions) -> Judged:
    """How sure the model is on average, and the share of units that it leaves to a human."""
    return {"sureness": number(float(said.confidence.mean())),
            "referred": number(float(np.mean([verdict == REFER for verdict in said.verdicts])))}


def plot(found: Mapping[str, Any]) -> pd.DataFrame:
    """condition, value, low, high of the task's metric; one row a condition, the recordings as they are first."""
    rows = [("As recorded", found["clean"])]
    rows += [(f"{c['title']}, {c['words']}", c) for c in found["conditions"]]
    return pd.DataFrame([{"condition": words, **entry["scores"][found["metric"]]} for words, entry in rows])


def in_words(found: Mapping[str, Any]) -> str:
    """The score as it is and the largest loss: `uar 0.76; Speech, 0 dB SNR -0.21`."""
    values = [c["change"]["value"] for c in found["conditions"] if c["change"]["value"] is not None]
    words = f"{found['metric']} {found['clean']['scores'][found['metric']]['value']:.3f} as recorded"
    if not values:
        return words
    largest = max(found["conditions"], key=lambda c: abs(c["change"]["value"] or 0.0))
    return f"{words}, {largest['change']['value']:+.3f} at most ({largest['title']}, {largest['words']})"
