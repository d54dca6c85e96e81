"""Predict for recordings with a finished model: files in, one prediction for each unit (recording or patient) out.

A file that cannot be scored gets a reason, and the others are scored all the same. The entry checks are those of
ingest, the warnings those of validation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from heartml.audio import entry_checks, quality, sound_files
from heartml.audio.entry_checks import Fault
from heartml.audio.quality import Quality
from heartml.core import config
from heartml.core.config import Params
from heartml.core.system import parallel
from heartml.core.system.progress import track
from heartml.core.task_definition import HEART, Organ
from heartml.inference import (
    data_recordings,
    exported,
    inputs,
    model_lookup,
    model_set,
    murmur_words,
    training_recordings,
)
from heartml.inference.data_recordings import DataRecording
from heartml.inference.inputs import InputFile
from heartml.inference.model_lookup import LocatedModel, NoModel
from heartml.inference.model_set import ModelSet
from heartml.inference.murmur_words import MurmurDescription
from heartml.inference.training_recordings import NOTHING_KNOWN, KnownRecordings
from heartml.models.applicability import Finding
from heartml.models.fitted_model import Predictions
from heartml.models.segmentation import Segmentation
from heartml.models.shared_inputs import SharedInputs

AT_ONCE = 64      # recordings in memory together
NOTICE = "Not a medical device: for research, not for diagnosis."


@dataclass(frozen=True)
class ScoredRecording:
    """One recording: its file, the quality of its signal, and the probabilities from it alone.

    Attributes:
        item: the file.
        seconds: its length; 0 where the samples cannot be read.
        fault: why it could not be scored, or `None`.
        warnings: about the quality of its signal, in words.
        probabilities: class -> probability from this recording alone; empty where there is a fault.
        heart: its heart states, where a network of the model predicts them.
        recording_id: SHA-256 of its samples, as in ingest; empty where they cannot be read.
        sample_rate_hz: of the file; `None` where it cannot be read.
        quality: the measures behind the warnings; `None` where there is a fault.
        findings: why the model cannot judge it; empty where it can.
        short_warnings: each of `warnings` in a word or two, for a table.
    """

    item: InputFile
    seconds: float
    fault: Fault | None
    warnings: tuple[str, ...]
    probabilities: Mapping[str, float]
    heart: Segmentation | None = None
    recording_id: str = ""
    sample_rate_hz: int | None = None
    quality: Quality | None = None
    findings: tuple[Finding, ...] = ()
    short_warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class UnitPrediction:
    """The model's prediction for one unit.

    Attributes:
        unit_id: the patient, or the recording.
        decision: a class, or `heartml.models.fitted_model.REFER` where there is any of `reasons`.
        top_class: the class that the decision rule chose, also where the decision is `REFER`.
        confidence: calibrated probability of the top class.
        calibrated: class -> calibrated probability.
        probabilities: class -> probability as the decision rule used it.
        recordings: all recordings of the unit, with and without a fault.
        description: of the murmur; `None` where there is none, or the task is another one.
        reasons: why the decision is left to a human, in words.
        outside: whether the model cannot judge these recordings. Its probabilities then mean nothing.
    """

    unit_id: str
    decision: str
    top_class: str
    confidence: float
    calibrated: Mapping[str, float]
    probabilities: Mapping[str, float]
    recordings: tuple[ScoredRecording, ...]
    description: MurmurDescription | None
    reasons: tuple[str, ...] = ()
    outside: bool = False

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about all its recordings, and how many are not usable.

        Where there are several recordings, each warning starts with the name of the file.
        """
        several = len(self.recordings) > 1
        warnings = [f"{one.item.path.name}: {warning}" if several else warning
                    for one in self.recordings
                    for warning in (*(found.words for found in one.findings if not self.outside), *one.warnings)]
        faults = sum(one.fault is not None for one in self.recordings)
        return (*((f"{faults} of {len(self.recordings)} recordings not usable",) if faults else ()), *warnings)


@dataclass(frozen=True)
class PredictResult:
    """Predictions for all units with at least one usable recording, and the recordings with a fault.

    Attributes:
        model: which model it was.
        task, unit, classes: of the model.
        predictions: one for each unit, in the order in which the units first appear.
        faults: the recordings that could not be scored.
        cautions: what to know about the models before the predictions are trusted; see `model_set.cautions`.
        known: recordings that the model was trained or tested on.
        accepted_sources: sources that were validated since the training, whose recordings are accepted.
        of_data: recording id -> what `data/` of this project knows of it.
    """

    model: LocatedModel
    task: str
    unit: str
    classes: tuple[str, ...]
    predictions: tuple[UnitPrediction, ...]
    faults: tuple[ScoredRecording, ...]
    cautions: tuple[str, ...] = ()
    known: KnownRecordings = NOTHING_KNOWN
    accepted_sources: tuple[str, ...] = ()
    of_data: Mapping[str, DataRecording] = field(default_factory=dict)

    def with_data(self) -> "PredictResult":
        """The same, with what `data/` of this project knows of the recordings."""
        scored = (recording for one in self.predictions for recording in one.recordings)
        ids = {recording.recording_id for recording in (*scored, *self.faults)}
        return replace(self, of_data=data_recordings.read(ids, self.task))


def run(named: Sequence[Path], wanted: str | None, task: str | None) -> PredictResult:
    """Score the files, folders and tables `named` with one model.

    See `model_lookup.locate` for `wanted` and `task`.

    Raises:
        InputsError: there is nothing to score.
        NoModel: there is no such model, or it predicts another task.
        CautionedModel: see `model_set.cautions`.
    """
    parallel.single_thread()
    params = config.load()
    if wanted and exported.is_export(Path(wanted)):
        return _from_export(named, Path(wanted), task, params)
    items = inputs.gather(named)
    located = model_lookup.locate(wanted, task, params.tasks, verified=False)
    if (folder := _usable_export(located, params)) is not None:
        return _from_export(named, folder, task, params, located)      # its own signature is verified there
    located = model_lookup.locate(wanted, task, params.tasks)
    models = model_set.load(located, params.predict.accepted_sources)
    predicted = models.model.assignment_name
    if task not in (None, predicted):
        raise NoModel(f"--task {task}: {located.description} predicts {predicted}")
    return predict_files(items, models, located, params).with_data()


def _usable_export(located: LocatedModel, params: Params) -> Path | None:
    """Where this model was exported to, if the export answers all that the model does; else `None`."""
    from heartml.inference import predict_exported

    folder = predict_exported.of_model(located)
    if folder is None or params.predict.accepted_sources or not exported.library_here():
        return None
    try:
        exported.read_statement(folder)
    except exported.ExportError:
        return None      # the model itself is here
    described = model_set.descriptors(located, str(exported.read_statement(folder)["name"]))
    return None if described else folder


def _from_export(named: Sequence[Path], folder: Path, task: str | None, params: Params,
                 located: LocatedModel | None = None) -> PredictResult:
    from heartml.inference import predict_exported

    result = predict_exported.run(named, folder, params, located or predict_exported.registered(folder, params))
    if task not in (None, result.task):
        raise NoModel(f"--task {task}: {result.model.description} predicts {result.task}")
    return result.with_data()


def predict_files(items: Sequence[InputFile], models: ModelSet, located: LocatedModel, params: Params) -> PredictResult:
    """Predict for files `[n]`, block by block, so that a large folder does not have to fit into memory."""
    model = models.model
    cautions = model_set.cautions(located, models, params.predict)
    unit_of = inputs.units(items, model.task.unit)
    blocks = inputs.blocks(unit_of, AT_ONCE)
    predictions: list[UnitPrediction] = []
    faults: list[ScoredRecording] = []
    for block in track(blocks, "predict", len(blocks)):
        found, refused = predict_block([items[i] for i in block], [unit_of[i] for i in block], models, params)
        predictions += found
        faults += refused
    return PredictResult(
        located, model.assignment_name, model.task.unit, model.task.classes, tuple(predictions), tuple(faults),
        cautions, training_recordings.read(located.folds), models.accepted_sources)


def predict_block(
    items: Sequence[InputFile], unit_of: Sequence[str], models: ModelSet, params: Params
) -> tuple[list[UnitPrediction], list[ScoredRecording]]:
    """Predict for one block of files `[n]`, which belong to the units `unit_of` `[n]`.

    Returns:
        One prediction for each unit with a usable recording, and the recordings that cannot be scored.
    """
    recordings, waveforms = zip(*(read_recording(item, params, models.model.task.organ) for item in items), strict=True)
    usable = [i for i, waveform in enumerate(waveforms) if waveform is not None]
    refused = [recording for recording in recordings if recording.fault]
    if not usable:
        return [], refused
    shared = SharedInputs([waveform for waveform in waveforms if waveform is not None], [unit_of[i] for i in usable],
                          [quality for i in usable if (quality := recordings[i].quality)])
    return predict_units(recordings, shared, unit_of, models, params), refused


def predict_units(
    recordings: Sequence[ScoredRecording], shared: SharedInputs, unit_of: Sequence[str], models: ModelSet,
    params: Params,
) -> list[UnitPrediction]:
    """Predict for recordings `[n]`, which belong to the units `unit_of` `[n]`.

    Args:
        shared: the waveforms of the recordings without a fault; there must be at least one.
    """
    usable = [i for i, one in enumerate(recordings) if one.fault is None]
    found = models.model.predict_shared(shared)
    complete = list(recordings)
    hearts = models.model.heart_states_of(shared, [recordings[i].seconds for i in usable])
    findings = found.findings or [()] * len(usable)
    for row, heart, own, i in zip(found.recording_probabilities, hearts, findings, usable, strict=True):
        complete[i] = replace(recordings[i], probabilities=_by_class(found.classes, row), heart=heart, findings=own)
    members: dict[str, list[ScoredRecording]] = {}
    for unit, recording in zip(unit_of, complete, strict=True):
        members.setdefault(unit, []).append(recording)
    features = models.murmur_features(shared, found)
    described = {
        row: murmur_words.describe(of_unit, _murmur_at(members[found.unit_ids[row]], models), params.predict)
        for row, of_unit in features.items()
    }
    told = {row: words for row, words in described.items() if not found.reasons[row]}     # of noise there is no murmur
    return [_prediction(found, n, tuple(members[unit]), told.get(n)) for n, unit in enumerate(found.unit_ids)]


def _murmur_at(recordings: Sequence[ScoredRecording], models: ModelSet) -> list[tuple[str | None, float]]:
    """Location and probability of a murmur of each usable recording."""
    present = str(models.model.task.positive)
    return [(one.item.location, one.probabilities[present]) for one in recordings if one.fault is None]


def read_recording(
    item: InputFile, params: Params, organ: Organ = HEART
) -> tuple[ScoredRecording, tuple[sound_files.Waveform, int] | None]:
    """Read and check one file; returns it with its waveform and rate in Hz, or with `None` where it has a fault.

    Args:
        organ: what the model is about; warnings of the signal have its limits and words.
    """
    try:
        samples = sound_files.read(item.path)
    except sound_files.AudioError as error:
        return ScoredRecording(item, 0.0, Fault(error.reason, error.detail), (), {}), None
    waveform = samples.floats
    fault = entry_checks.waveform_fault(waveform, samples.sample_rate_hz, params.ingest)
    if fault:
        return ScoredRecording(item, samples.seconds, fault, (), {}, None, samples.recording_id,
                               samples.sample_rate_hz), None
    measured = quality.measure(waveform, samples.sample_rate_hz)
    warnings = quality.warnings(measured, params.for_organ(organ).validate_, organ)
    rate_hz = samples.sample_rate_hz
    usable = ScoredRecording(item, samples.seconds, None, tuple(warnings.values()), {}, None, samples.recording_id,
                             rate_hz, measured, short_warnings=tuple(warnings))
    return usable, (waveform, rate_hz)


def _prediction(found: Predictions, n: int, recordings: tuple[ScoredRecording, ...],
            description: MurmurDescription | None) -> UnitPrediction:
    return UnitPrediction(
        found.unit_ids[n], found.verdicts[n], found.top_classes[n], float(found.confidence[n]),
        _by_class(found.classes, found.calibrated[n]), _by_class(found.classes, found.probabilities[n]), recordings,
        description, found.refer_reasons[n], bool(found.reasons[n]),
    )


def _by_class(classes: Sequence[str], row: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]") -> dict[str, float]:
    return dict(zip(classes, map(float, row), strict=True))
