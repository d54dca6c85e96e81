"""Scoring many recordings for a schedule: a folder or a table in, one Parquet table of probabilities out.

Each unit is scored once for each model. Its prediction is cached under the content of its recordings
(heartml/inference/prediction_cache.py), whatever the files are called and wherever they are. A unit is predicted alone,
so its prediction does not depend on other units, not even in the last digit. A run that was killed and run again
therefore writes the bytes of an undisturbed one.

The work is done block by block. The predictions of a block are cached together, and its rows are written to the table
at once, so that only one block is in memory.
"""

import datetime
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from heartml.core import config, paths
from heartml.core.config import Params
from heartml.core.system import code_hash, files, hashing, locks, parallel, processes
from heartml.core.system.progress import track
from heartml.inference import (
    inputs,
    model_lookup,
    model_set,
    murmur_words,
    predict,
    prediction_cache,
    score_table,
    training_recordings,
)
from heartml.inference.inputs import InputFile
from heartml.inference.model_lookup import LocatedModel
from heartml.inference.model_set import ModelSet
from heartml.inference.murmur_words import MurmurFeature
from heartml.inference.predict import AT_ONCE, ScoredRecording, UnitPrediction
from heartml.inference.prediction_cache import NewPredictions, PredictionCache, StoredPrediction
from heartml.inference.score_table import Row
from heartml.models import encoders, pooling
from heartml.models.fitted_model import REFER
from heartml.models.shared_inputs import RatedWaveform, SharedInputs

ReadRecording = tuple[ScoredRecording, RatedWaveform | None]     # the waveform is `None` where the file has a fault


class ScoringPlan:
    """The model, the files and the blocks of one run.

    A plain class, because Prefect would look for futures in every item of a data class.

    Attributes:
        items: the files `[n]`, in the order of the table.
        unit_of: the unit of each file `[n]`.
        blocks: positions of the files of each block; the files of one unit are always in one block.
        cautions: see `model_set.cautions`.
        used: recordings that the model was trained or tested on.
        key: SHA-256 over everything that a prediction depends on, except the recordings.
    """

    def __init__(self, located: LocatedModel, models: ModelSet, items: Sequence[InputFile], params: Params) -> None:
        self.located, self.models, self.items, self.params = located, models, items, params
        self.unit_of = inputs.units(items, models.model.task.unit)
        self.blocks = inputs.blocks(self.unit_of, AT_ONCE)
        self.cautions = model_set.cautions(located, models, params.predict)
        self.used = training_recordings.read(located.folds)
        self.key = _key(located, models)

    @property
    def cache_file(self) -> Path:
        """The prediction cache of this model."""
        return paths.STATE / "scores" / f"{self.key[:16]}.sqlite"

    @property
    def facts(self) -> score_table.ModelFacts:
        """The columns of the table that describe the model."""
        model = self.models.model
        return score_table.ModelFacts(
            model.assignment_name, model.task.unit, model.task.classes,
            self.located.name or str(self.located.folder), self.located.version, self.key, self.cautions)


@dataclass(frozen=True)
class ScoredBlock:
    """The result of one block.

    Attributes:
        rows: its rows of the table.
        scored: number of units that were scored now.
        known: number of units whose prediction was in the cache.
    """

    rows: tuple[Row, ...]
    scored: int
    known: int


@dataclass(frozen=True)
class ScoringSummary:
    """What one run has done.

    Attributes:
        table: path of the table.
        model: the model, in words.
        files, faults: number of files, and of those that could not be scored.
        units, scored, known: number of units, of those scored now, and of those whose prediction was in the cache.
        referred: number of units that are left to a human.
        cautions: what to know about the models before the predictions are trusted.
        accepted_sources: see `ModelSet.accepted_sources`.
    """

    table: str
    model: str
    files: int
    faults: int
    units: int
    scored: int
    known: int
    referred: int = 0
    cautions: tuple[str, ...] = ()
    accepted_sources: tuple[str, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """The numbers by their name."""
        return {name: value for name, value in asdict(self).items() if isinstance(value, int)}


def plan(source: Path, model: str | None, task: str | None) -> ScoringPlan:
    """Find the recordings behind `source` and the model, and divide the recordings into blocks.

    Args:
        source: a folder, a sound file, or a CSV; see `heartml.inference.inputs`.
        model, task: see `heartml.inference.model_lookup.locate`.

    Raises:
        InputsError: `source` does not exist, or there is nothing to score in it.
        NoModel: there is no such model, or it predicts another task.
        CautionedModel: see `model_set.cautions`.
    """
    parallel.single_thread()
    params = config.load()
    if not source.exists():
        raise inputs.InputsError(f"{source}: no such file or folder. Name a folder of recordings, or a CSV of them")
    items = inputs.gather([source])
    located = model_lookup.locate(model, task, params.tasks)
    models = model_set.load(located, params.predict.accepted_sources)
    if task not in (None, models.model.assignment_name):
        raise model_lookup.NoModel(f"--task {task}: {located.description} predicts {models.model.assignment_name}")
    return ScoringPlan(located, models, items, params)


def _key(located: LocatedModel, models: ModelSet) -> str:
    folders = [located.folder, *(descriptor.located.folder for descriptor in models.descriptors)]
    specs = [spec for folder in folders for spec in files.read_json(folder / "model.json")["encoders"].values()]
    frames = {encoders.fingerprint(encoders.EncoderSpec.from_json(spec)) for spec in specs}
    return hashing.sha256(files.canonical_json({
        "models": list(map(hashing.sha256_folder, folders)), "encoders": sorted(frames), "sources": _sources(models),
        "code": code_hash.fingerprint("models/heads", "models/ensemble", "models/pooling.py",
                                      "models/residual_block.py", "models/fitted_model.py", "models/shared_inputs.py",
                                      "models/segmentation.py", "models/applicability"),
    }).encode())


def _sources(models: ModelSet) -> list[str]:
    """What is accepted, as hashes: the training recordings, and the sources that were validated since."""
    checks = models.model.applicability
    return [] if checks is None else [hashing.sha256(one.centre.tobytes() + one.precision.tobytes() + repr(
        (one.name, one.farthest, one.most_unusual)).encode()) for one in checks.references]


@contextmanager
def locked(plan: ScoringPlan) -> Iterator[None]:
    """Make a second run with the same model wait until the block has ended."""
    lock = paths.LOCKS / f"score-{plan.key[:16]}.lock"
    with locks.exclusive(lock, on_wait="heartml score: waiting for another run with the same model"):
        yield


def score_block(plan: ScoringPlan, number: int) -> ScoredBlock:
    """Score the units of one block that are not in the cache; the cache holds them all when this returns.

    Raises:
        PredictionCacheError: the cache cannot be read or written.
    """
    units: dict[str, list[int]] = {}
    for position in plan.blocks[number]:
        units.setdefault(plan.unit_of[position], []).append(position)
    rows: dict[int, Row] = {}
    new, organ = NewPredictions(), plan.models.model.task.organ
    known = 0
    with PredictionCache.open(plan.cache_file) as cache:
        for unit_id, positions in units.items():
            read = [predict.read_recording(plan.items[i], plan.params, organ) for i in positions]
            usable = _distinct(read)
            key = prediction_cache.unit_key([recording.recording_id for recording, _ in usable])
            found = new.units[key][0] if key in new.units else cache.prediction(key) if usable else None
            known += found is not None
            if usable and found is None:
                found = _predict(unit_id, usable, plan, new)
                new.units[key] = (found, _now())
            murmur = _murmur_words(found, [recording for recording, _ in usable], plan) if found else ""
            of_unit = [recording for recording, _ in read]
            of_files = score_table.rows(unit_id, of_unit, key, found, murmur, plan.facts, plan.used)
            rows |= zip(positions, of_files, strict=True)
        cache.add(new)
    return ScoredBlock(tuple(rows[position] for position in sorted(rows)), len(new.units), known)


def _distinct(read: Sequence[ReadRecording]) -> list[ReadRecording]:
    """The usable recordings of a unit, each content once, in an order that does not depend on their names."""
    usable = {recording.recording_id: (recording, waveform)
              for recording, waveform in reversed(read) if recording.fault is None}
    return [usable[recording_id] for recording_id in sorted(usable)]


def _predict(unit_id: str, usable: Sequence[ReadRecording], plan: ScoringPlan, new: NewPredictions) -> StoredPrediction:
    """The prediction for a unit with these recordings; measurements and embeddings of them are added to `new`."""
    recordings = [recording for recording, _ in usable]
    waveforms = [waveform for _, waveform in usable if waveform is not None]
    shared = SharedInputs(waveforms, [unit_id] * len(waveforms), [one.quality for one in recordings if one.quality])
    [prediction] = predict.predict_units(recordings, shared, [unit_id] * len(waveforms), plan.models, plan.params)
    frames = shared.feature_set(plan.models.model.encoder_specs).frames
    for n, recording in enumerate(recordings):
        vector = embedding([frames[name][n] for name in plan.models.model.encoders])
        new.recordings[recording.recording_id] = (_measurements(recording), vector.tobytes())
    return _stored(prediction)


def embedding(frames: Sequence["np.ndarray[Any, np.dtype[np.float32]]"]) -> "np.ndarray[Any, np.dtype[np.float32]]":
    """The embedding of one recording, for monitoring: mean and deviation of every band.

    Args:
        frames: its frames `[frames, dim]` under each encoder.

    Returns:
        One vector `[2 * sum of dim]`.
    """
    halves = [pooling.moments(one, 1.0)[: 2 * one.shape[1]] for one in frames]
    return np.concatenate(halves).astype(np.float32)


def _measurements(recording: ScoredRecording) -> dict[str, Any]:
    assert recording.quality
    return {**asdict(recording.quality), "sample_rate_hz": recording.sample_rate_hz}


def _stored(prediction: UnitPrediction) -> StoredPrediction:
    description = prediction.description
    return {
        "decision": prediction.decision, "leaning": prediction.top_class, "confidence": prediction.confidence,
        "calibrated": dict(prediction.calibrated), "probabilities": dict(prediction.probabilities),
        "reasons": list(prediction.reasons),
        "features": [asdict(feature) for feature in description.features] if description else None,
        "recordings": {recording.recording_id: {
            "probabilities": dict(recording.probabilities),
            "heart_rate_per_min": recording.heart.heart_rate_per_min if recording.heart else None,
        } for recording in prediction.recordings},
    }


def _murmur_words(found: StoredPrediction, recordings: Sequence[ScoredRecording], plan: ScoringPlan) -> str:
    """The murmur in words, or nothing. Not cached, because where it is loudest depends on the files' locations."""
    if found["features"] is None:
        return ""
    present = str(plan.models.model.task.positive)
    at = [(one.item.location, found["recordings"][one.recording_id]["probabilities"][present]) for one in recordings]
    features = [MurmurFeature(**feature) for feature in found["features"]]
    return murmur_words.describe(features, at, plan.params.predict).phrase_with_confidence


def write(plan: ScoringPlan, to: Path, blocks: Iterable[ScoredBlock], source: Path) -> ScoringSummary:
    """Write the rows of the blocks into the table `to`, and a record of the run into `NAME.run.json` beside it.

    The table appears when it is complete, or not at all.
    """
    started, counts = _now(), [0, 0, 0, 0]
    with score_table.writing(to, plan.facts) as add:
        for block in blocks:
            add(block.rows)
            faults = sum("fault" in row for row in block.rows)
            referred = len({row["unit_id"] for row in block.rows if row.get("decision") == REFER})
            of_block = (faults, block.scored, block.known, referred)
            counts = [total + more for total, more in zip(counts, of_block, strict=True)]
    faults, scored, known, referred = counts
    summary = ScoringSummary(str(to), plan.located.description, len(plan.items), faults, scored + known, scored, known,
                             referred, plan.cautions, plan.models.accepted_sources)
    files.write_json(to.with_suffix(".run.json"), {
        **asdict(summary), "source": str(source), "model_sha256": plan.key, "started": started, "ended": _now(),
        "process": processes.own_name(), "table_sha256": hashing.sha256_file(to)})
    return summary


def run(source: Path, to: Path, model: str | None, task: str | None) -> ScoringSummary:
    """Score everything behind `source` in this process, with a progress bar, and write the table `to`.

    See `plan` for `source`, `model`, `task` and the errors.
    """
    planned = plan(source, model, task)
    with locked(planned):
        return write(planned, to, score_blocks(planned), source)


def score_blocks(plan: ScoringPlan) -> Iterator[ScoredBlock]:
    """Score every block in this process, with a progress bar."""
    for number in track(range(len(plan.blocks)), "score", len(plan.blocks)):
        yield score_block(plan, number)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
