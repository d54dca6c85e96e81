"""The workbench of search and ensemble: a task's data, opened once a process, and fits that are kept as files.

A fold's result is one safetensors file: `log_p` `[cases, k]`, `details` where the head has any, both once more through
noise (`noisy.<array>`) where stackers are fitted to them, and the fitted head itself (`head.<array>`) where it is too
dear to be fitted again.
"""

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from heartml.core import paths
from heartml.core.frame_store import Frames
from heartml.core.system.files import replacing
from heartml.models.ensemble.candidate import CandidateSpec, FeatureSet
from heartml.models.ensemble.stacking import is_stacked
from heartml.models.heads import FittedHead, HeadPrediction, HeadState, Targets
from heartml.models.heads.noise import in_noise
from heartml.training import training_set
from heartml.training.training_set import TrainingSet

NOISY = "noisy."


@dataclass(frozen=True)
class TrainingData:
    """One task's train_set with its feature_set and annotations."""

    train_set: TrainingSet
    feature_set: FeatureSet
    encoders: Mapping[str, Frames]
    annotations: pd.DataFrame
    seconds: tuple[float, ...]

    def states(self, encoder: str) -> list[NDArray[np.int8]] | None:
        """Heart states of every frame, see `train_set.states`."""
        frames = self.encoders[encoder]
        counts = [frames.spans[recording_id][1] for recording_id in self.train_set.recording_ids]
        return training_set.states(self.train_set.recording_ids, counts, frames.frame_rate_hz, self.seconds,
                                     self.annotations)

    def fit(self, spec: CandidateSpec, units: NDArray[np.bool_], seed: int) -> FittedHead:
        """Fit a spec to units `[u]`."""
        states = self.states(spec.encoder) if spec.family.TAKES == "frames" else None
        return fit_candidate(spec, self.train_set, self.feature_set, units, seed, states)

    def predict_proba(self, fitted: FittedHead, spec: CandidateSpec, units: NDArray[np.bool_]) -> HeadPrediction:
        """What a fitted head says about the recordings (or the units themselves) of units `[u]`."""
        rows = self.train_set.recordings_of(units) if spec.level == "recording" else np.flatnonzero(units)
        return fitted.predict_proba(self.feature_set.inputs(spec, rows))

    def predict_with_noise(
        self, fitted: FittedHead, spec: CandidateSpec, units: NDArray[np.bool_], taught: NDArray[np.bool_]
    ) -> tuple[HeadPrediction, HeadPrediction | None]:
        """`predict_proba` of units `[u]`, and `predict_in_noise` of those `[u]` that a stacker is fitted to, if any."""
        prediction = self.predict_proba(fitted, spec, units)
        read = taught.any() and is_stacked(spec, self.train_set.task, prediction)
        return prediction, self.predict_in_noise(fitted, spec, taught) if read else None

    def predict_in_noise(self, fitted: FittedHead, spec: CandidateSpec,
                         units: NDArray[np.bool_]) -> HeadPrediction | None:
        """The same through such noise as the head was trained with; `None` where it was trained with none."""
        from heartml.models.heads.network_training import Recipe

        noise = Recipe.of(spec.hyperparameters).noise() if spec.family.TAKES == "frames" else None
        if noise is None:
            return None
        rows = self.train_set.recordings_of(units)
        names = [self.train_set.recording_ids[row] for row in rows]
        whose = [self.train_set.unit_ids[unit] for unit in self.train_set.unit[rows]]
        frames = cast(Sequence[NDArray[np.float32]], self.feature_set.inputs(spec, rows))
        return fitted.predict_proba(in_noise(frames, names, whose, noise, self.feature_set.rates_hz[spec.encoder]))


@functools.lru_cache(maxsize=1)
def training_data(name: str, encoders: tuple[str, ...], root: Path) -> TrainingData:
    """The bench of a task in the repository `root` (the working folder; it keeps two repositories apart)."""
    found = training_set.load(name)
    frames = {encoder: Frames.open(root / paths.features(name, encoder)) for encoder in encoders}
    of_encoder = {encoder: f.of(found.recording_ids) for encoder, f in frames.items()}
    feature_set = FeatureSet(of_encoder, {encoder: f.frame_rate_hz for encoder, f in frames.items()}, found.unit)
    recordings = pd.read_parquet(paths.RECORDINGS, columns=["recording_id", "seconds"]).set_index("recording_id")
    seconds = tuple(recordings.loc[list(found.recording_ids), "seconds"])
    return TrainingData(found, feature_set, frames, pd.read_parquet(paths.ANNOTATIONS), seconds)


@dataclass(frozen=True)
class FoldFit:
    """Fit a spec without one fold and prediction for that fold, into `file`."""

    name: str
    encoders: tuple[str, ...]
    root: Path
    spec: CandidateSpec
    fold: int
    seed: int
    file: Path


def fit_fold(job: FoldFit) -> None:
    """Do one job unless its file is there; runs in a worker process."""
    if job.file.exists():
        return
    data = training_data(job.name, job.encoders, job.root)
    here = data.train_set.parts == job.fold
    fitted = data.fit(job.spec, ~here, job.seed)
    write_result(job.file, *data.predict_with_noise(fitted, job.spec, here, here),
                 fitted.state() if job.spec.family.TAKES == "frames" else None)


def write_result(file: Path, prediction: HeadPrediction, noisy: HeadPrediction | None = None,
                 state: HeadState | None = None) -> None:
    """Write predictions, and what is kept of the head that gave them, whole or not at all."""
    from safetensors.numpy import save

    arrays: dict[str, NDArray[np.generic]] = {**prediction_arrays(prediction), **prediction_arrays(noisy, NOISY)}
    numbers = {}
    if state is not None:
        arrays |= {f"head.{key}": value for key, value in state.arrays.items()}
        numbers = {"numbers": json.dumps(dict(state.scalars), sort_keys=True)}
    with replacing(file) as temporary:
        temporary.write_bytes(save({key: np.ascontiguousarray(value) for key, value in arrays.items()}, numbers))


def prediction_arrays(prediction: HeadPrediction | None, prefix: str = "") -> dict[str, NDArray[np.generic]]:
    """What a file holds of an prediction."""
    if prediction is None:
        return {}
    details = {} if prediction.details is None else {f"{prefix}details": prediction.details.astype(np.float32)}
    return {f"{prefix}log_p": prediction.log_p, **details}


def read_prediction(file: Path) -> HeadPrediction:
    """The prediction in a fold's result."""
    return _prediction(dict(_arrays(file)), "")


def read_noisy_prediction(file: Path) -> HeadPrediction | None:
    """The prediction through noise in a fold's result, where there is one."""
    arrays = dict(_arrays(file))
    return _prediction(arrays, NOISY) if f"{NOISY}log_p" in arrays else None


def _prediction(arrays: Mapping[str, NDArray[np.float64]], prefix: str) -> HeadPrediction:
    details = arrays.get(f"{prefix}details")
    return HeadPrediction(arrays[f"{prefix}log_p"], None if details is None else details.astype(np.float64))


def read_state(file: Path) -> HeadState:
    """The fitted head in a fold's result."""
    from safetensors import safe_open

    with safe_open(file, "np") as opened_file:
        metadata = opened_file.metadata()
    arrays = {key.removeprefix("head."): array for key, array in _arrays(file) if key.startswith("head.")}
    return HeadState(arrays, json.loads(metadata["numbers"]))


def _arrays(file: Path) -> Iterator[tuple[str, NDArray[np.float64]]]:
    from safetensors.numpy import load_file

    yield from load_file(file).items()


def fit_candidate(
    spec: CandidateSpec, train_set: TrainingSet, feature_set: FeatureSet, units: NDArray[np.bool_], seed: int,
    states: Sequence[NDArray[np.int8]] | None = None,
) -> FittedHead:
    """Fit a spec's head to the units where `units` `[u]` holds; `states` of every recording, see `train_set.states`."""
    rows = train_set.recordings_of(units) if spec.level == "recording" else np.flatnonzero(units)
    heard = spec.level == "recording"
    targets = Targets(
        labels=(train_set.recording_labels if heard else train_set.labels)[rows],
        classes=len(train_set.task.classes),
        groups=(train_set.groups[train_set.unit] if heard else train_set.groups)[rows],
        states=None if states is None or spec.pooling is not None else [states[row] for row in rows],
        frame_rate_hz=feature_set.rates_hz[spec.encoder],
    )
    return spec.family.fit(feature_set.inputs(spec, rows), targets, spec.hyperparameters, seed)
