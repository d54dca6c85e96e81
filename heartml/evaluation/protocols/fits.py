"""Everything that one split needs fitted, as jobs whose results are kept as files: a killed run goes on from there.

Parts of a split are numbers: inner folds `0 .. k-1` of the development patients, and `k` for the test part. A fit
leaves out the test part and, to be stacked, one inner fold; it predictions for what it left out.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from heartml.core.config import Params
from heartml.core.tasks import TASKS
from heartml.evaluation.protocols.cohort import ENCODER, open_cohort
from heartml.models.ensemble.candidate import CandidateSpec, FeatureSet, mean_prediction
from heartml.models.heads import HeadPrediction
from heartml.training import fold_fits, search_space, training_set
from heartml.training.fold_fits import TrainingData
from heartml.training.training_set import TrainingSet

SINGLE = "single"
CHUNK_S = 5.0          # arXiv 2404.17107: logits of 5 s chunks are averaged over a recording
Key = int | str        # number of a trial, or `SINGLE`


@dataclass(frozen=True)
class ProtocolFit:
    """Fit `spec` for task `name` to all parts but `without`, prediction for the parts `about`, into `file`.

    Readers learn from the parts `taught` of these: they are heard through noise as well.
    """

    cohort: Path
    folds: Path
    name: str
    spec: CandidateSpec
    without: tuple[int, ...]
    about: tuple[int, ...]
    taught: tuple[int, ...]
    seed: int
    file: Path


def fit_part(job: ProtocolFit) -> None:
    """Do one job unless its file is there; runs in a worker process."""
    if job.file.exists():
        return
    data = training_data(job.cohort, job.folds, job.name)
    fitted = data.fit(job.spec, ~np.isin(data.train_set.parts, job.without), job.seed)
    about, taught = (np.isin(data.train_set.parts, parts) for parts in (job.about, job.taught))
    fold_fits.write_result(job.file, *data.predict_with_noise(fitted, job.spec, about, taught))


@functools.lru_cache(maxsize=2)
def training_data(cohort: Path, folds: Path, name: str) -> TrainingData:
    """The workbench of one task on one split."""
    source = open_cohort(cohort)
    found = training_set.build(name, pd.read_parquet(folds), source.recordings)
    row = {recording_id: n for n, recording_id in enumerate(source.recordings["recording_id"])}
    rows = np.array([row[recording_id] for recording_id in found.recording_ids])
    seconds = source.recordings["seconds"].to_numpy()[rows]
    return TrainingData(found, _everything(cohort).subset(rows, found.unit), {ENCODER: source.frames},
                        source.annotations,
                 tuple(seconds))


@functools.lru_cache(maxsize=1)
def _everything(cohort: Path) -> FeatureSet:
    """All recordings of a cohort, so that what is pooled of one serves every split."""
    source = open_cohort(cohort)
    ids, frames = tuple(source.recordings["recording_id"]), source.frames
    return FeatureSet({ENCODER: frames.of(ids)}, {ENCODER: frames.frame_rate_hz}, np.arange(len(ids)))


@dataclass(frozen=True)
class Fits:
    """The fits of one task on one split with one seed; `specs` by trial, `folds` the number of inner folds."""

    cohort: Path
    table: Path
    name: str
    specs: Mapping[int, CandidateSpec]
    single: CandidateSpec | None
    folds: int
    seed: int
    folder: Path

    @property
    def train_set(self) -> TrainingSet:
        """Recordings, units and parts."""
        return training_data(self.cohort, self.table, self.name).train_set

    def jobs(self) -> Iterator[ProtocolFit]:
        """What is to be done; networks are bagged over the inner folds, other heads fitted once more for the test."""
        test = self.folds
        if self.single:
            yield self._job(SINGLE, self.single, (test,), (test,))
        for trial, spec in self.specs.items():
            bagged = spec.family.TAKES == "frames"
            for fold in range(self.folds):
                yield self._job(trial, spec, (fold, test), (fold, test) if bagged else (fold,), (fold,))
            if not bagged:
                yield self._job(trial, spec, (test,), (test,))

    def _job(
        self, key: Key, spec: CandidateSpec, without: tuple[int, ...], about: tuple[int, ...],
             taught: tuple[int, ...] = ()
    ) -> ProtocolFit:
        number = len(self.specs) if key == SINGLE else int(key)
        seed = search_space.derive_seed(self.seed, number, without[0])
        return ProtocolFit(self.cohort, self.table, self.name, spec, without, about, taught, seed,
                   self._file(key, without))

    def _file(self, key: Key, without: Sequence[int]) -> Path:
        return self.folder / f"{self.name}-{self.seed}-{key}-{'-'.join(map(str, without))}.safetensors"

    def predictions(self) -> dict[int, HeadPrediction]:
        """What every trial says about all cases, none of which it was fitted to."""
        return {trial: self._prediction(trial, spec) for trial, spec in self.specs.items()}

    def predictions_in_noise(self) -> dict[int, HeadPrediction]:
        """The same through noise, of trials whose predictions are read; not a number about the test part."""
        found = {}
        for trial, spec in self.specs.items():
            read = {fold: fold_fits.read_noisy_prediction(self._file(trial,
                                                                     (fold, self.folds))) for fold in range(self.folds)}
            noisy = {fold: prediction for fold, prediction in read.items() if prediction is not None}
            if noisy:
                found[trial] = _placed(noisy, self._parts(spec))
        return found

    def single_prediction(self) -> HeadPrediction:
        """What the single network says about the recordings of the test part."""
        return fold_fits.read_prediction(self._file(SINGLE, (self.folds,)))

    def _parts(self, spec: CandidateSpec) -> NDArray[np.int64]:
        """The part of every case that a spec predictions about."""
        return self.train_set.parts[self.train_set.unit] if spec.level == "recording" else self.train_set.parts

    def _prediction(self, trial: int, spec: CandidateSpec) -> HeadPrediction:
        parts = self._parts(spec)
        test, bagged = self.folds, spec.family.TAKES == "frames"
        pieces: dict[int, list[HeadPrediction]] = {part: [] for part in range(test + 1)}
        for fold in range(test):
            said = fold_fits.read_prediction(self._file(trial, (fold, test)))
            about = parts[np.isin(parts, (fold, test) if bagged else (fold,))]
            pieces[fold].append(_rows(said, about == fold))
            if bagged:
                pieces[test].append(_rows(said, about == test))
        if not bagged:
            pieces[test].append(fold_fits.read_prediction(self._file(trial, (test,))))
        return _placed({part: mean_prediction(predictions) for part, predictions in pieces.items()}, parts)


def _rows(prediction: HeadPrediction, which: NDArray[np.bool_]) -> HeadPrediction:
    return HeadPrediction(prediction.log_p[which], None if prediction.details is None else prediction.details[which])


def _placed(pieces: Mapping[int, HeadPrediction], parts: NDArray[np.int64]) -> HeadPrediction:
    """Answers of parts, put where their cases stand; not a number for those of other parts."""
    first = pieces[0]
    log_p = np.full((len(parts), first.log_p.shape[1]), np.nan)
    details = None if first.details is None else np.full((len(parts), first.details.shape[1]), np.nan)
    for part, prediction in pieces.items():
        log_p[parts == part] = prediction.log_p
        if details is not None and prediction.details is not None:
            details[parts == part] = prediction.details
    return HeadPrediction(log_p, details)


def specs_of(name: str, task_name: str, params: Params, recordings: int, *, networks: bool) -> dict[int, CandidateSpec]:
    """The starts of the search as they stand in `params.yaml`, nothing drawn: slot -> spec.

    Args:
        recordings: of the development patients; a network passes over them `protocol.epochs` times.
        networks: whether network heads are among them.
    """
    from optuna.trial import FixedTrial

    wanted = {"sequence": params.protocol.networks} if networks else {}
    search = params.search.of(name).model_copy(update={"network_trials": wanted})
    task, found = TASKS[task_name], {}
    for slot in (slot for slot in search_space.plan(search, (ENCODER,))[0] if slot.start is not None):
        spec = search_space.suggest(FixedTrial(search_space.fixed(slot, task)), slot, search, task, (ENCODER,))   # type: ignore[arg-type]
        if slot.network:
            steps = -(-params.protocol.epochs * recordings // int(spec.hyperparameters["batch"]))
            spec = CandidateSpec(spec.encoder, spec.head, spec.level, spec.pooling,
                                 {**spec.hyperparameters, "steps": steps})
        found[slot.number] = spec
    return found


def chunked(spec: CandidateSpec) -> CandidateSpec:
    """The same network, heard in chunks as the paper's rule has it."""
    return CandidateSpec(spec.encoder, spec.head, spec.level, spec.pooling,
                         {**spec.hyperparameters, "inference_chunk_s": CHUNK_S})
