"""Score recordings with a finished model: files in, one answer a unit (recording or patient) out.

What cannot be scored says why and does not keep the others from being scored. The entry checks are those of ingest,
the warnings those of validation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from heartml.audio import entry_checks, quality, sound_files
from heartml.audio.entry_checks import Fault
from heartml.audio.quality import Quality
from heartml.core import config
from heartml.core.config import Params
from heartml.core.system import parallel
from heartml.core.system.progress import track
from heartml.inference import inputs, model_lookup, murmur_words
from heartml.inference import model_set as panel
from heartml.inference.inputs import Item
from heartml.inference.model_lookup import Located, NoModel
from heartml.inference.model_set import ModelSet
from heartml.inference.murmur_words import MurmurDescription
from heartml.models.fitted_model import Predictions
from heartml.models.segmentation import Segmentation
from heartml.models.shared_inputs import SharedInputs

AT_ONCE = 64      # recordings in memory together
NOTICE = "Not a medical device: for research, not for diagnosis."


@dataclass(frozen=True)
class ScoredRecording:
    """One recording: what it is, how good it is, and what it alone says.

    Attributes:
        fault: why it could not be scored, or `None`.
        warnings: about its quality, in words.
        recording_id: SHA-256 of its samples, as ingest names it; empty where they cannot be read.
        quality: what the warnings are about; `None` where there is a fault.
        probabilities: class -> what the model makes of this recording alone; empty where there is a fault.
        heart: its heart states, where a network of the model learnt to tell them.
    """

    item: Item
    seconds: float
    fault: Fault | None
    warnings: tuple[str, ...]
    probabilities: Mapping[str, float]
    heart: Segmentation | None = None
    recording_id: str = ""
    sample_rate_hz: int | None = None
    quality: Quality | None = None


@dataclass(frozen=True)
class UnitPrediction:
    """What the model says of one unit.

    Attributes:
        decision: a class, or `heartml.models.fitted_model.REFER` where the model is not sure enough.
        leaning: the class that it would have decided for.
        confidence: calibrated probability of that class.
        calibrated: class -> calibrated probability.
        probabilities: class -> what the decision rule looked at.
        recordings: those that were scored, and those with a fault.
        description: of the murmur, where there is one; `None` where there is none or the task is another.
    """

    unit_id: str
    decision: str
    leaning: str
    confidence: float
    calibrated: Mapping[str, float]
    probabilities: Mapping[str, float]
    recordings: tuple[ScoredRecording, ...]
    description: MurmurDescription | None

    @property
    def warnings(self) -> tuple[str, ...]:
        """Of all its recordings, each with the recording's name where there are several; and what is missing."""
        several = len(self.recordings) > 1
        words = [f"{h.item.path.name}: {w}" if several else w for h in self.recordings for w in h.warnings]
        missing = sum(h.fault is not None for h in self.recordings)
        return (*((f"{missing} of {len(self.recordings)} recordings not usable",) if missing else ()), *words)


@dataclass(frozen=True)
class Result:
    """Answers for all units with at least one usable recording, and the recordings that had a fault."""

    model: Located
    task: str
    unit: str
    classes: tuple[str, ...]
    answers: tuple[UnitPrediction, ...]
    faults: tuple[ScoredRecording, ...]


def run(named: Sequence[Path], wanted: str | None, task: str | None) -> Result:
    """Score everything behind `named` with the model that `wanted` and `task` mean (see `locate.locate`)."""
    parallel.single_thread()
    params = config.load()
    items = inputs.gather(named)
    located = model_lookup.locate(wanted, task, params.tasks)
    models = panel.load(located)
    answers = models.model.assignment_name
    if task not in (None, answers):
        raise NoModel(f"--task {task}: {located.words} answers {answers}")
    return score(items, models, located, params)


def score(items: Sequence[Item], models: ModelSet, located: Located, params: Params) -> Result:
    """Answers of the models, block by block, so that a large folder does not have to fit into memory."""
    model = models.model
    unit_of = inputs.units(items, model.task.unit)
    blocks = inputs.blocks(unit_of, AT_ONCE)
    answers: list[UnitPrediction] = []
    faults: list[ScoredRecording] = []
    for block in track(blocks, "predict", len(blocks)):
        found, refused = score_block([items[i] for i in block], [unit_of[i] for i in block], models, params)
        answers += found
        faults += refused
    return Result(located, model.assignment_name, model.task.unit, model.task.classes, tuple(answers), tuple(faults))


def score_block(
    items: Sequence[Item], unit_of: Sequence[str], models: ModelSet, params: Params
) -> tuple[list[UnitPrediction], list[ScoredRecording]]:
    """Answers to the units `unit_of` [n] of a block of items [n], and its recordings that cannot be scored."""
    heard, waveforms = zip(*(score_recording(item, params) for item in items), strict=True)
    usable = [i for i, waveform in enumerate(waveforms) if waveform is not None]
    refused = [h for h in heard if h.fault]
    if not usable:
        return [], refused
    shared = SharedInputs([waveform for waveform in waveforms if waveform is not None], [unit_of[i] for i in usable])
    return predict_unit(heard, shared, unit_of, models, params), refused


def predict_unit(
    heard: Sequence[ScoredRecording], shared: SharedInputs, unit_of: Sequence[str], models: ModelSet, params: Params
) -> list[UnitPrediction]:
    """Answers to the units `unit_of` [n] of recordings [n]; `shared` has those without a fault, one at least."""
    usable = [i for i, one in enumerate(heard) if one.fault is None]
    said = models.model.predict_shared(shared)
    complete = list(heard)
    hearts = models.model.heart_states_of(shared, [heard[i].seconds for i in usable])
    for row, heart, i in zip(said.recording_probabilities, hearts, usable, strict=True):
        complete[i] = replace(heard[i], probabilities=_by_class(said.classes, row), heart=heart)
    members: dict[str, list[ScoredRecording]] = {}
    for unit, recording in zip(unit_of, complete, strict=True):
        members.setdefault(unit, []).append(recording)
    features = models.features(shared, said)
    described = {
        row: murmur_words.describe(of_unit, _murmur_at(members[said.unit_ids[row]], models), params.predict)
        for row, of_unit in features.items()
    }
    return [_answer(said, n, tuple(members[unit]), described.get(n)) for n, unit in enumerate(said.unit_ids)]


def _murmur_at(recordings: Sequence[ScoredRecording], models: ModelSet) -> list[tuple[str | None, float]]:
    """Location and probability of a murmur of each usable recording."""
    present = str(models.model.task.positive)
    return [(heard.item.location, heard.probabilities[present]) for heard in recordings if heard.fault is None]


def score_recording(item: Item, params: Params) -> tuple[ScoredRecording, tuple[sound_files.Waveform, int] | None]:
    """Read one file; its waveform and rate, or `None` where it has a fault."""
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
    warnings = tuple(quality.warnings(measured, params.validate_))
    rate_hz = samples.sample_rate_hz
    heard = ScoredRecording(item, samples.seconds, None, warnings, {}, None, samples.recording_id, rate_hz, measured)
    return heard, (waveform, rate_hz)


def _answer(said: Predictions, n: int, recordings: tuple[ScoredRecording, ...],
            description: MurmurDescription | None) -> UnitPrediction:
    return UnitPrediction(
        said.unit_ids[n], said.verdicts[n], said.top_classes[n], float(said.confidence[n]),
        _by_class(said.classes, said.calibrated[n]), _by_class(said.classes, said.probabilities[n]), recordings,
        description,
    )


def _by_class(classes: Sequence[str], row: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]") -> dict[str, float]:
    return dict(zip(classes, map(float, row), strict=True))
