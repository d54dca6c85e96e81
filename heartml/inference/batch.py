"""Scoring many recordings for a schedule: a folder or a table in, one Parquet table of probabilities out.

Exactly once for each recording and model: what the model says of a unit is kept by the content of the unit's recordings
(heartml/inference/prediction_cache.py), whatever they are called and wherever they lie. A unit is heard alone, so that
no neighbour
shows in the last digit of its answer: a run that was killed and run again gives the bytes of an undisturbed one.

Work goes block by block; a block's answers are kept together, and its rows go straight into the table.
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
from heartml.inference import inputs, model_lookup, murmur_words, predict, prediction_cache, score_table
from heartml.inference import model_set as panel
from heartml.inference.inputs import Item
from heartml.inference.model_lookup import Located
from heartml.inference.model_set import ModelSet
from heartml.inference.murmur_words import MurmurFeature
from heartml.inference.predict import AT_ONCE, ScoredRecording, UnitPrediction
from heartml.inference.prediction_cache import NewPredictions, PredictionCache, Said
from heartml.inference.score_table import Row
from heartml.models import encoders, pooling
from heartml.models.shared_inputs import RatedWaveform, SharedInputs

Listened = tuple[ScoredRecording, RatedWaveform | None]


class Work:
    """All there is to do with one model. A plain class: Prefect would walk through every item of a data class.

    Attributes:
        items, unit_of: files `[n]` in the order of the table, and their units.
        blocks: positions of the files of each block; a unit's files are never divided.
        key: SHA-256 over everything that an answer depends on, but for the recordings.
    """

    def __init__(self, located: Located, models: ModelSet, items: Sequence[Item], params: Params) -> None:
        self.located, self.models, self.items, self.params = located, models, items, params
        self.unit_of = inputs.units(items, models.model.task.unit)
        self.blocks = inputs.blocks(self.unit_of, AT_ONCE)
        self.key = _key(located, models)

    @property
    def ledger(self) -> Path:
        """Where this model's answers are kept."""
        return paths.STATE / "scores" / f"{self.key[:16]}.sqlite"

    @property
    def facts(self) -> score_table.ModelFacts:
        """What the table says of the model."""
        model = self.models.model
        return score_table.ModelFacts(model.assignment_name, model.task.unit, model.task.classes,
                            self.located.name or str(self.located.folder), self.located.version, self.key)


@dataclass(frozen=True)
class Block:
    """What came of one block: its rows of the table, units that were scored now, and those that were known."""

    rows: tuple[Row, ...]
    scored: int
    known: int


@dataclass(frozen=True)
class Summary:
    """What a run came to; `units` are `scored` now or `known` from before, `files` may also have `faults`."""

    table: str
    model: str
    files: int
    faults: int
    units: int
    scored: int
    known: int

    @property
    def counts(self) -> dict[str, int]:
        """The numbers, for a table."""
        return {name: value for name, value in asdict(self).items() if isinstance(value, int)}


def plan(source: Path, model: str | None, task: str | None) -> Work:
    """The recordings behind `source` and the model that `model` and `task` mean, divided into blocks."""
    parallel.single_thread()
    params = config.load()
    items = inputs.gather([source])
    located = model_lookup.locate(model, task, params.tasks)
    models = panel.load(located)
    if task not in (None, models.model.assignment_name):
        raise model_lookup.NoModel(f"--task {task}: {located.words} answers {models.model.assignment_name}")
    return Work(located, models, items, params)


def _key(located: Located, models: ModelSet) -> str:
    folders = [located.folder, *(descriptor.located.folder for descriptor in models.descriptors)]
    encoder_specs = [made for folder in folders for made in files.read_json(folder / "model.json")["encoders"].values()]
    frames = {encoders.fingerprint(encoders.EncoderSpec.from_json(made)) for made in encoder_specs}
    return hashing.sha256(files.canonical_json({
        "models": list(map(hashing.sha256_folder, folders)), "encoders": sorted(frames),
        "code": code_hash.fingerprint("models/heads", "models/ensemble", "models/pooling.py",
                                      "models/fitted_model.py", "models/shared_inputs.py", "models/segmentation.py"),
    }).encode())


@contextmanager
def alone(work: Work) -> Iterator[None]:
    """Keep a second run with the same model waiting."""
    lock = paths.LOCKS / f"score-{work.key[:16]}.lock"
    with locks.exclusive(lock, on_wait="heartml score: waiting for another run with the same model"):
        yield


def score(work: Work, number: int) -> Block:
    """Score one block, as far as that is not done; its answers are kept before this returns.

    Raises:
        LedgerError: they cannot be kept.
    """
    units: dict[str, list[int]] = {}
    for position in work.blocks[number]:
        units.setdefault(work.unit_of[position], []).append(position)
    rows: dict[int, Row] = {}
    news = NewPredictions()
    known = 0
    with PredictionCache.open(work.ledger) as kept:
        for unit_id, positions in units.items():
            listened = [predict.score_recording(work.items[i], work.params) for i in positions]
            usable = _distinct(listened)
            key = prediction_cache.key_of([heard.recording_id for heard, _ in usable])
            said = news.units[key][0] if key in news.units else kept.said(key) if usable else None
            known += said is not None
            if usable and said is None:
                said = _hear(unit_id, usable, work, news)
                news.units[key] = (said, _now())
            words = _murmur(said, [heard for heard, _ in usable], work) if said else ""
            of_unit = [heard for heard, _ in listened]
            rows |= zip(positions, score_table.rows(unit_id, of_unit, key, said, words, work.facts), strict=True)
        kept.add(news)
    return Block(tuple(rows[position] for position in sorted(rows)), len(news.units), known)


def _distinct(listened: Sequence[Listened]) -> list[Listened]:
    """The usable recordings of a unit, each content once, in an order that no name decides."""
    usable = {heard.recording_id: (heard, sound) for heard, sound in reversed(listened) if heard.fault is None}
    return [usable[recording_id] for recording_id in sorted(usable)]


def _hear(unit_id: str, usable: Sequence[Listened], work: Work, news: NewPredictions) -> Said:
    """What the model says of a unit with these recordings; what is measured of them goes into `news`."""
    heard = [one for one, _ in usable]
    sounds = [sound for _, sound in usable if sound is not None]
    shared = SharedInputs(sounds, [unit_id] * len(sounds))
    [answer] = predict.predict_unit(heard, shared, [unit_id] * len(sounds), work.models, work.params)
    frames = shared.feature_set(work.models.model.encoder_specs).frames
    for n, one in enumerate(heard):
        of = embedding([frames[name][n] for name in work.models.model.encoders])
        news.recordings[one.recording_id] = (_measured(one), of.tobytes())
    return _said(answer)


def embedding(frames: Sequence["np.ndarray[Any, np.dtype[np.float32]]"]) -> "np.ndarray[Any, np.dtype[np.float32]]":
    """One recording's frames [frames, dim] under each encoder -> mean and deviation of every band, one vector."""
    halves = [pooling.moments(one, 1.0)[: 2 * one.shape[1]] for one in frames]
    return np.concatenate(halves).astype(np.float32)


def _measured(heard: ScoredRecording) -> dict[str, Any]:
    assert heard.quality
    return {**asdict(heard.quality), "sample_rate_hz": heard.sample_rate_hz}


def _said(answer: UnitPrediction) -> Said:
    return {
        "decision": answer.decision, "leaning": answer.leaning, "confidence": answer.confidence,
        "calibrated": dict(answer.calibrated), "probabilities": dict(answer.probabilities),
        "features": [asdict(feature) for feature in answer.description.features] if answer.description else None,
        "recordings": {heard.recording_id: {
            "probabilities": dict(heard.probabilities),
            "heart_rate_per_min": heard.heart.heart_rate_per_min if heard.heart else None,
        } for heard in answer.recordings},
    }


def _murmur(said: Said, heard: Sequence[ScoredRecording], work: Work) -> str:
    """The murmur that was found, in words; where it is loudest is said of the files' locations, not their content."""
    if said["features"] is None:
        return ""
    present = str(work.models.model.task.positive)
    at = [(one.item.location, said["recordings"][one.recording_id]["probabilities"][present]) for one in heard]
    features = [MurmurFeature(**feature) for feature in said["features"]]
    return murmur_words.describe(features, at, work.params.predict).phrase_with_confidence


def write(work: Work, to: Path, done: Iterable[Block], source: Path) -> Summary:
    """Put the blocks' rows into the table `to` as they come, whole or not at all, and what the run was beside it."""
    started, counts = _now(), [0, 0, 0]
    with score_table.writing(to, work.facts) as add:
        for block in done:
            add(block.rows)
            faults = sum("fault" in row for row in block.rows)
            counts = [total + more for total, more in zip(counts, (faults, block.scored, block.known), strict=True)]
    faults, scored, known = counts
    summary = Summary(str(to), work.located.words, len(work.items), faults, scored + known, scored, known)
    files.write_json(to.with_suffix(".run.json"), {
        **asdict(summary), "source": str(source), "model_sha256": work.key, "started": started, "ended": _now(),
        "process": processes.me(), "table_sha256": hashing.sha256_file(to)})
    return summary


def run(source: Path, to: Path, model: str | None, task: str | None) -> Summary:
    """Score everything behind `source` in this process, with a bar; see `plan` for `model` and `task`."""
    work = plan(source, model, task)
    with alone(work):
        return write(work, to, here(work), source)


def here(work: Work) -> Iterator[Block]:
    """Every block, scored in this process, with a bar."""
    for number in track(range(len(work.blocks)), "score", len(work.blocks)):
        yield score(work, number)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
