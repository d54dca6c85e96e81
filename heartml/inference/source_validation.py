"""Validate a model on a new source: labelled recordings of another sensor or clinic in, the evidence out.

The source passes where the model is better than always saying the source's most frequent class, with the whole paired
interval above zero, on enough units of every class, and its confidence is not off by more than the gate allows a first
model. Limits of what is like the source come from a fifth of its units at
a time, by what the others are like. Recordings that the model was
trained or tested on are no evidence and are left out. No weight, rule or calibration of the model is changed.
"""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heartml.core import config
from heartml.core.config import Params
from heartml.core.system import parallel
from heartml.core.system.hashing import sha256, sha256_file, sha256_folder
from heartml.core.system.progress import track
from heartml.core.system.text import printable
from heartml.inference import inputs, model_lookup, predict, training_recordings, validated_sources
from heartml.inference.inputs import InputFile, InputsError
from heartml.inference.predict import ScoredRecording
from heartml.inference.training_recordings import KnownRecordings
from heartml.metrics import METRICS
from heartml.metrics.scores import (
    LabelledPredictions,
    interval_text,
    metric_intervals,
    paired_difference,
    task_metrics,
)
from heartml.models import applicability
from heartml.models.applicability import Applicability, Reference
from heartml.models.applicability.heart_evidence import evidence as heart_evidence
from heartml.models.fitted_model import Model, Predictions
from heartml.models.pooling import rows_of
from heartml.models.shared_inputs import RatedWaveform, SharedInputs
from heartml.registry import tracking

_LEAST_UNITS = 5          # fewer tell nothing of what a source is like
_FOLDS = 5
_SHOWN = 5                # left-out recordings that are named on the terminal
_MOST_UNUSUAL = 0.9       # a source never makes a model accept what is surely no heart


@dataclass(frozen=True)
class Outcome:
    """What a validation found: the evidence as stored, and where it was stored."""

    evidence: dict[str, Any]
    path: Path


def run(name: str, table: Path, wanted: str | None, task: str | None) -> Outcome:
    """Validate a model on the labelled recordings of `table`, and write the evidence.

    Args:
        name: of the source; small letters, digits and hyphens.
        table: a CSV with the columns `path` and `label`, and optionally `patient_id` and `location`.
        wanted, task: see `model_lookup.locate`.

    Raises:
        InputsError: the table cannot be used; the message names the row.
        NoModel: there is no such model.
    """
    if not validated_sources.NAME.fullmatch(name) or name == applicability.TRAINING:
        raise InputsError(f"{name!r}: a source's name has small letters, digits and hyphens, at most 41, and is not "
                          f"`{applicability.TRAINING}`")
    parallel.single_thread()
    params = config.load()
    located = model_lookup.locate(wanted, task, params.tasks)
    model = Model.load(located.folder)
    if model.applicability is None:
        raise InputsError(f"{located.description} does not check its inputs, so it accepts every source: retrain it "
                          "with `applicability` in params.yaml")
    items = inputs.gather([table])
    labels = inputs.read_labels(table, model.task.classes)
    read = [predict.read_recording(item, params, model.task.organ)
            for item in track(items, "validate-source", len(items))]
    used = training_recordings.read(located.folds)
    usable = [(one, waveform) for one, waveform in read if waveform is not None and not used.use_of(one.recording_id)]
    left_out = [_why(one, used) for one, _ in read if one.fault or used.use_of(one.recording_id)]
    if not usable:
        raise InputsError(f"{table}: none of its {len(items)} recordings can be used: {left_out[0]}")
    heard = _hear(model, [one for one, _ in usable], [waveform for _, waveform in usable], labels)
    if len(heard.labels) < _LEAST_UNITS:
        raise InputsError(f"{table}: {len(heard.labels)} usable {model.task.unit}s, at least {_LEAST_UNITS} are needed "
                          "to tell what the source is like, and ten of every class to pass")
    reference, found = _judge(name, model, heard, params)
    content = {
        "source": name, "model": {"name": located.name, "version": located.version,
                                  "sha256": sha256_folder(located.folder), "task": model.assignment_name},
        "table": {"path": str(table), "sha256": sha256_file(table)},
        "recordings": {"in_table": len(items), "usable": len(usable), "left_out": left_out,
                       "sha256": sha256("\n".join(sorted(one.recording_id for one, _ in usable)).encode())},
        "validated_on": datetime.datetime.now(datetime.UTC).date().isoformat(), **found,
    }
    path = validated_sources.write(content, reference)
    if located.name and located.version:
        tag = f"{validated_sources.TAG}{name}"
        tracking.connect().set_model_version_tag(located.name, located.version, tag, sha256_file(path))
    return Outcome(content, path)


def _why(recording: ScoredRecording, used: KnownRecordings) -> str:
    """Why a recording is no evidence, in one line."""
    name = printable(recording.item.path)
    if recording.fault:
        return f"{name}: {printable(recording.fault.detail)} [{recording.fault.reason}]"
    return f"{name}: the model was trained or tested on it"


@dataclass(frozen=True)
class Heard:
    """The usable recordings `[r]` of `u` units, as the model hears them, with the truth.

    Attributes:
        predictions: of the model, whatever its checks say.
        unit: number of each recording's unit `[r]`.
        labels: class of each unit `[u]`.
        evidences, descriptions: what the checks hear `[r, f]`, `[r, v]`.
        recordings: with their signals' quality `[r]`.
    """

    predictions: Predictions
    unit: NDArray[np.int64]
    labels: NDArray[np.int64]
    evidences: NDArray[np.float64]
    descriptions: NDArray[np.float64]
    recordings: Sequence[ScoredRecording]


def _hear(
    model: Model, recordings: Sequence[ScoredRecording], waveforms: Sequence[RatedWaveform], labels: dict[Path, int]
) -> Heard:
    unit_of = inputs.units([one.item for one in recordings], model.task.unit)
    shared = SharedInputs(waveforms, unit_of, [one.quality for one in recordings if one.quality])
    predictions = model.predict_shared(shared)
    row = {unit: number for number, unit in enumerate(predictions.unit_ids)}
    truth = _unit_labels([one.item for one in recordings], unit_of, labels, model.task.classes)
    features = shared.feature_set(model.encoder_specs)
    frames, rate_hz = features.frames[applicability.ENCODER], features.rates_hz[applicability.ENCODER]
    return Heard(
        predictions, np.array([row[unit] for unit in unit_of]), np.array([truth[u] for u in predictions.unit_ids]),
        np.stack([heart_evidence(one, rate_hz) for one in frames]),
        np.stack([applicability.description(one) for one in frames]), recordings)


def _unit_labels(
    items: Sequence[InputFile], unit_of: Sequence[str], labels: dict[Path, int], classes: tuple[str, ...]
) -> dict[str, int]:
    found: dict[str, int] = {}
    for item, unit in zip(items, unit_of, strict=True):
        own = labels[item.path]
        if found.setdefault(unit, own) != own:
            raise InputsError(f"{unit} has two labels, {classes[found[unit]]} and {classes[own]}: correct the table")
    return found


def _judge(name: str, model: Model, heard: Heard, params: Params) -> tuple[Reference, dict[str, Any]]:
    """What the source's recordings are like, and the evidence."""
    checks = model.applicability
    assert checks is not None
    share = params.applicability.referred_share if params.applicability else 0.015
    units = len(heard.labels)
    part = (np.random.default_rng(params.seed).permutation(units) % _FOLDS)[heard.unit]
    distances = np.full(len(part), np.inf)
    for fold in range(_FOLDS):
        here = part == fold
        if here.any() and (~here).sum() > 1:
            distances[here] = Reference.fit(name, heard.descriptions[~here]).distances(heard.descriptions[here])
    probabilities = checks.probabilities(heard.evidences)
    most_unusual = min(float(np.quantile(1 - probabilities[:, 0], 1 - share)), _MOST_UNUSUAL)
    reference = Reference.fit(name, heard.descriptions).within(float(np.quantile(distances, 1 - share)), most_unusual)
    alone = Applicability(checks.conditions, (reference,), checks.signal)
    qualities = [one.quality for one in heard.recordings if one.quality]
    findings = alone.findings(probabilities, distances[:, None], qualities)
    inside = np.array([not applicability.reasons([findings[row] for row in rows]) for rows in rows_of(heard.unit)])
    scored = _scored(heard.predictions, heard.labels)
    return reference, {
        "units": units, "classes": {c: int((heard.labels == k).sum()) for k, c in enumerate(scored.classes)},
        "outside_before": float(np.mean([bool(reasons) for reasons in heard.predictions.reasons])),
        "outside_after": float(np.mean(~inside)), **_scores(scored.take(inside), model, params),
    }


def _scored(found: Predictions, labels: NDArray[np.int64]) -> LabelledPredictions:
    names = np.array(found.unit_ids)
    return LabelledPredictions(names, names, np.full(len(names), "source"), labels, found.decisions,
                               found.probabilities, found.calibrated, found.classes)


def _scores(scored: LabelledPredictions, model: Model, params: Params) -> dict[str, Any]:
    """Scores of the accepted units, beside always saying their most frequent class, and whether the source passes."""
    task, least = model.task, params.validate_.min_class_groups
    counts = np.bincount(scored.labels, minlength=len(task.classes))
    rare = [name for name, count in zip(task.classes, counts, strict=True) if 0 < count < least]
    problems = [f"{name} has fewer than {least} accepted units" for name in rare]
    if (counts >= least).sum() < 2:
        problems.append(f"fewer than two classes have {least} accepted units")
    found: dict[str, Any] = {"accepted_units": len(scored.labels), "scores": {}, "against_majority": None}
    if len(np.unique(scored.labels)) > 1:
        shares = np.tile(counts / counts.sum(), (len(scored.labels), 1))
        majority = replace(scored, decisions=np.full(len(scored.labels), int(counts.argmax())), probabilities=shares,
                           calibrated=shares)
        lead = paired_difference(scored, majority, task, params.evaluate, params.seed)
        sign = 1 if METRICS[task.metric].greater_is_better else -1
        ends = [sign * end for end in (lead["low"], lead["high"]) if end is not None]
        if not ends or min(ends) <= 0:
            problems.append(f"no better than always saying {task.classes[int(counts.argmax())]}, as far as these units "
                            "can tell")
        of_decisions = metric_intervals(task_metrics(task), scored, scored.probabilities, params.evaluate, params.seed)
        calibration = [METRICS["ece"], METRICS["brier"]]
        of_confidence = metric_intervals(calibration, scored, scored.calibrated, params.evaluate, params.seed)
        error, limit = of_confidence["ece"], params.gate.calibration_limit
        if error["low"] is None or error["low"] > limit:
            problems.append(f"its confidence cannot be trusted there: the calibration error is {interval_text(error)}, "
                            f"all of it above {limit:g}")
        found |= {"scores": of_decisions | of_confidence, "against_majority": lead}
    return {**found, "metric": task.metric, "validated": not problems, "problems": problems}


def in_words(outcome: Outcome) -> str:
    """The outcome for people, in a few lines."""
    found = outcome.evidence
    scores = [f"  {name}: {interval_text(of)}" for name, of in found["scores"].items()]
    source, recordings = found["source"], found["recordings"]
    passed = (f"{source}: passed. To accept its recordings, add {source} to `predict.accepted_sources` in params.yaml, "
              f"and commit it with {validated_sources.FOLDER}/")
    verdict = passed if found["validated"] else f"{source}: not validated: {'; '.join(found['problems'])}"
    left_out = recordings["left_out"]
    more = [f"  and {len(left_out) - _SHOWN} more, all in {outcome.path}"] if len(left_out) > _SHOWN else []
    return "\n".join([
        *(["Left out:", *(f"  {line}" for line in left_out[:_SHOWN]), *more] if left_out else []),
        f"{recordings['usable']} of {recordings['in_table']} recordings usable, {found['units']} units "
        f"({', '.join(f'{count} {name}' for name, count in found['classes'].items())})",
        f"outside of what the model can judge: {found['outside_before']:.0%} of the units before, "
        f"{found['outside_after']:.0%} after the source is accepted",
        *(["Scores of the accepted units", *scores] if scores else []), f"Evidence: {outcome.path}", verdict])
