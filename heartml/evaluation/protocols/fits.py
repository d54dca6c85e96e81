"""The fits that one split needs: specs and a split in, files with predictions out. A killed run continues from these.

Parts of a split are numbers: inner folds `0 .. k-1` of the development patients, and `k` for the test part. Each fit
leaves out the test part and, for stacking, one inner fold. It predicts the parts that it left out.
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
from heartml.models.pooling import Grid
from heartml.training import fold_fits, search_space, training_set
from heartml.training.fold_fits import TrainingData
from heartml.training.training_set import TrainingSet

SINGLE, FINETUNE = "single", "finetune"      # systems that are one network with the paper's rule
CHUNK_S = 5.0          # arXiv 2404.17107: logits of 5 s chunks are averaged over a recording
Key = int | str        # number of a trial, or the name of such a system


@dataclass(frozen=True)
class ProtocolFit:
    """One fit: fit `spec` for task `name` without the parts `without`, predict the parts `about`, write to `file`.

    Stackers are fitted to the parts `stacked` of these, so these are predicted with noise added, too. An epoch may be
    chosen by the units `validation`, where there are any.
    """

    cohort: Path
    folds: Path
    name: str
    spec: CandidateSpec
    without: tuple[int, ...]
    about: tuple[int, ...]
    stacked: tuple[int, ...]
    seed: int
    file: Path
    validation: frozenset[str] = frozenset()


def fit_part(wanted: ProtocolFit) -> None:
    """Do one fit, unless its file exists; runs in a worker process."""
    if wanted.file.exists():
        return
    data = training_data(wanted.cohort, wanted.folds, wanted.name)
    chosen_by = np.isin(data.train_set.unit_ids, list(wanted.validation)) if wanted.validation else None
    fitted = data.fit(wanted.spec, ~np.isin(data.train_set.parts, wanted.without), wanted.seed, chosen_by)
    about, stacked = (np.isin(data.train_set.parts, parts) for parts in (wanted.about, wanted.stacked))
    fold_fits.write_result(wanted.file, *data.predict_with_noise(fitted, wanted.spec, about, stacked))


@functools.lru_cache(maxsize=2)
def training_data(cohort: Path, folds: Path, name: str) -> TrainingData:
    """The training data of one task on one split; its parts include the test part."""
    source = open_cohort(cohort)
    found = training_set.build(name, pd.read_parquet(folds), source.recordings)
    row = {recording_id: n for n, recording_id in enumerate(source.recordings["recording_id"])}
    rows = np.array([row[recording_id] for recording_id in found.recording_ids])
    seconds = source.recordings["seconds"].to_numpy()[rows]
    feature_set = _all_recordings(cohort).subset(rows, found.unit)
    return TrainingData(found, feature_set, source.frames, source.annotations, tuple(seconds))


@functools.lru_cache(maxsize=1)
def _all_recordings(cohort: Path) -> FeatureSet:
    """All recordings of a cohort, so that each is pooled once for all splits."""
    source = open_cohort(cohort)
    ids, frames = tuple(source.recordings["recording_id"]), source.frames
    grids = {encoder: Grid.of(stored.encoder) for encoder, stored in frames.items()}
    of_encoder = {encoder: stored.of(ids) for encoder, stored in frames.items()}
    rates_hz = {encoder: stored.frame_rate_hz for encoder, stored in frames.items()}
    return FeatureSet(of_encoder, rates_hz, grids, np.arange(len(ids)))


@dataclass(frozen=True)
class Fits:
    """The fits of one task on one split with one seed.

    Attributes:
        table: file with the folds of the split.
        specs: trial -> spec.
        networks: systems that are one network with the paper's rule -> its spec.
        folds: number of inner folds.
        validation: units that `finetune` may choose an epoch by.
    """

    cohort: Path
    table: Path
    name: str
    specs: Mapping[int, CandidateSpec]
    networks: Mapping[str, CandidateSpec]
    folds: int
    seed: int
    folder: Path
    validation: frozenset[str] = frozenset()

    @property
    def train_set(self) -> TrainingSet:
        """Recordings, units and parts."""
        return training_data(self.cohort, self.table, self.name).train_set

    def planned(self) -> Iterator[ProtocolFit]:
        """All fits. Networks of all inner folds predict the test part; of other heads one more fit does."""
        test = self.folds
        for system, spec in self.networks.items():
            yield self._fit(system, spec, (test,), (test,))
        for trial, spec in self.specs.items():
            bagged = spec.head_module.TAKES == "frames"
            for fold in range(self.folds):
                yield self._fit(trial, spec, (fold, test), (fold, test) if bagged else (fold,), (fold,))
            if not bagged:
                yield self._fit(trial, spec, (test,), (test,))

    def _fit(
        self, key: Key, spec: CandidateSpec, without: tuple[int, ...], about: tuple[int, ...],
        stacked: tuple[int, ...] = (),
    ) -> ProtocolFit:
        number = len(self.specs) if isinstance(key, str) else key
        seed = search_space.derive_seed(self.seed, number, without[0])
        return ProtocolFit(self.cohort, self.table, self.name, spec, without, about, stacked, seed,
                           self._file(key, without), self.validation if key == FINETUNE else frozenset())

    def _file(self, key: Key, without: Sequence[int]) -> Path:
        return self.folder / f"{self.name}-{self.seed}-{key}-{'-'.join(map(str, without))}.safetensors"

    def predictions(self) -> dict[int, HeadPrediction]:
        """Predictions of every trial for all cases, each by heads that were not fitted to the case."""
        return {trial: self._prediction(trial, spec) for trial, spec in self.specs.items()}

    def predictions_in_noise(self) -> dict[int, HeadPrediction]:
        """The same with noise added, of trials with stackers that are fitted to it; NaN for the test part."""
        found = {}
        for trial, spec in self.specs.items():
            stored = {fold: fold_fits.read_noisy_prediction(self._file(trial, (fold, self.folds)))
                      for fold in range(self.folds)}
            noisy = {fold: prediction for fold, prediction in stored.items() if prediction is not None}
            if noisy:
                found[trial] = _placed(noisy, self._parts(spec))
        return found

    def prediction_of(self, system: str) -> HeadPrediction:
        """Prediction of one of `networks` for the recordings of the test part."""
        return fold_fits.read_prediction(self._file(system, (self.folds,)))

    def _parts(self, spec: CandidateSpec) -> NDArray[np.int64]:
        """The part of every case (recording or unit) that a spec predicts."""
        return self.train_set.parts[self.train_set.unit] if spec.level == "recording" else self.train_set.parts

    def _prediction(self, trial: int, spec: CandidateSpec) -> HeadPrediction:
        parts = self._parts(spec)
        test, bagged = self.folds, spec.head_module.TAKES == "frames"
        pieces: dict[int, list[HeadPrediction]] = {part: [] for part in range(test + 1)}
        for fold in range(test):
            prediction = fold_fits.read_prediction(self._file(trial, (fold, test)))
            about = parts[np.isin(parts, (fold, test) if bagged else (fold,))]
            pieces[fold].append(_rows(prediction, about == fold))
            if bagged:
                pieces[test].append(_rows(prediction, about == test))
        if not bagged:
            pieces[test].append(fold_fits.read_prediction(self._file(trial, (test,))))
        return _placed({part: mean_prediction(predictions) for part, predictions in pieces.items()}, parts)


def _rows(prediction: HeadPrediction, which: NDArray[np.bool_]) -> HeadPrediction:
    return HeadPrediction(prediction.log_p[which], None if prediction.details is None else prediction.details[which])


def _placed(pieces: Mapping[int, HeadPrediction], parts: NDArray[np.int64]) -> HeadPrediction:
    """One prediction for all cases from those for single parts; NaN for cases of other parts."""
    first = pieces[0]
    log_p = np.full((len(parts), first.log_p.shape[1]), np.nan)
    details = None if first.details is None else np.full((len(parts), first.details.shape[1]), np.nan)
    for part, prediction in pieces.items():
        log_p[parts == part] = prediction.log_p
        if details is not None and prediction.details is not None:
            details[parts == part] = prediction.details
    return HeadPrediction(log_p, details)


def specs_of(name: str, task_name: str, params: Params, recordings: int, *, networks: bool) -> dict[int, CandidateSpec]:
    """The initial trials of the search in `params.yaml`, trial -> spec; no further hyperparameters are drawn.

    Args:
        recordings: number of those of the development patients; a network is trained on them for `protocol.epochs`.
        networks: whether network heads are included.
    """
    from optuna.trial import FixedTrial

    wanted = {"sequence": params.protocol.networks} if networks else {}
    search = params.search.for_task(name).model_copy(update={"network_trials": wanted})
    task, found = TASKS[task_name], {}
    for planned in (one for one in search_space.plan(search, (ENCODER,))[0] if one.initial is not None):
        trial = FixedTrial(search_space.initial_values(planned, task))
        spec = search_space.suggest(trial, planned, search, task, (ENCODER,))   # type: ignore[arg-type]
        if planned.network:
            steps = -(-params.protocol.epochs * recordings // int(spec.hyperparameters["batch"]))
            spec = CandidateSpec(spec.encoder, spec.head, spec.level, spec.pooling,
                                 {**spec.hyperparameters, "steps": steps})
        found[planned.number] = spec
    return found


def chunked(spec: CandidateSpec) -> CandidateSpec:
    """The same network, with predictions averaged over chunks of 5 s as in the paper's rule."""
    return CandidateSpec(spec.encoder, spec.head, spec.level, spec.pooling,
                         {**spec.hyperparameters, "inference_chunk_s": CHUNK_S})
