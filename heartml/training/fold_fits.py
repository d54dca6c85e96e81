"""Fits of folds: a spec and a fold in, a file with the predictions for that fold out. The data are opened here, too.

The file is safetensors. It holds `log_p` `[cases, k]` and, where the head has any, `details`. Where a stacker is fitted
to noisy inputs, it holds both once more with noise added (`noisy.<array>`). Of a network it also holds the fitted head
(`head.<array>`), because fitting it again would take long, and its learning curve (`curve.loss`, `curve.rate`, and
`curve.validation`, the log loss of left-out recordings, after the steps `curve.validation_step`).
"""

import functools
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from heartml.core import frame_store, paths
from heartml.core.frame_store import Frames
from heartml.core.system import code_hash, hashing
from heartml.core.system.errors import HeartMLError
from heartml.core.system.files import canonical_json, replacing
from heartml.core.system.locks import exclusive
from heartml.models.ensemble.candidate import CandidateSpec, FeatureSet
from heartml.models.ensemble.stacking import is_stacked
from heartml.models.heads import FittedHead, HeadPrediction, HeadState, Targets, learns_parent
from heartml.models.heads.noise import with_noise
from heartml.models.pooling import Grid
from heartml.training import training_set
from heartml.training.training_set import TrainingSet

NOISY = "noisy."
CURVE = "curve."
_MEASURED = 40       # recordings of the fold that is left out, for a learning curve
_POOLING_CODE = ("models/pooling.py", "models/ensemble/pooled_files.py", "core/frame_store.py")
_NETWORK_CODE = ("models/heads", "models/residual_block.py", "training", "core/frame_store.py", "core/system/lazy.py")
_KEY_DIGITS = 16

Arrays = dict[str, NDArray[np.float32]]


class NoParent(HeartMLError):  # noqa: N818 - names what is the case
    """A head learns the labels of a wider task, and there is none; the message says which head, and the way out."""


@dataclass(frozen=True)
class TrainingData:
    """The training set of one task, with the inputs and annotations of its recordings.

    Attributes:
        encoders: encoder -> stored frames of the task.
        annotations: `schema.ANNOTATIONS`, of all recordings.
        seconds: length of each recording `[r]`.
        parent: the same folds with the labels of the task that this one lies within, and with the recordings that
            only that one has; `None` where it lies within none.
    """

    train_set: TrainingSet
    feature_set: FeatureSet
    encoders: Mapping[str, Frames]
    annotations: pd.DataFrame
    seconds: tuple[float, ...]
    parent: "TrainingData | None" = None

    def states(self, encoder: str) -> list[NDArray[np.int8]] | None:
        """Heart states of every frame of every recording, see `training_set.states`."""
        frames = self.encoders[encoder]
        counts = [frames.spans[recording_id][1] for recording_id in self.train_set.recording_ids]
        return training_set.states(self.train_set.recording_ids, counts, frames.frame_rate_hz, self.seconds,
                                   self.annotations)

    def fit(self, spec: CandidateSpec, units: NDArray[np.bool_], seed: int,
            validation: NDArray[np.bool_] | None = None,
            probabilities: NDArray[np.float64] | None = None) -> FittedHead:
        """Fit a spec to the units where `units` `[u]` holds.

        Args:
            validation: units `[u]` among them that a head may choose by; `None`: it draws its own where it needs some.
            probabilities: of every unit `[u, k]`, in the place of its label; see `Targets`.

        Raises:
            NoParent: the head learns the wider task, and there is none.
        """
        if learns_parent(spec.head_module):
            parent, heard = parent_units(self, units)
            return fit_candidate(spec, parent.train_set, parent.feature_set, heard, seed, parent.states(spec.encoder),
                                 described=len(self.train_set.task.classes))
        states = self.states(spec.encoder) if spec.head_module.TAKES == "frames" else None
        return fit_candidate(spec, self.train_set, self.feature_set, units, seed, states,
                             self.encoders[spec.encoder].encoder, validation, probabilities)

    def predict_proba(self, fitted: FittedHead, spec: CandidateSpec, units: NDArray[np.bool_]) -> HeadPrediction:
        """Predict the recordings of the units where `units` `[u]` holds; at level `unit`, the units themselves."""
        rows = self.train_set.recordings_of(units) if spec.level == "recording" else np.flatnonzero(units)
        return fitted.predict_proba(self.feature_set.inputs(spec, rows))

    def log_loss(self, spec: CandidateSpec, units: NDArray[np.bool_]) -> Callable[[FittedHead], float]:
        """How a head does on recordings of the units `[u]`: fitted head -> log loss in nats, of at most 40 of them.

        A head that learns the wider task is asked about that, on what the folds of these units hold of it.
        """
        if learns_parent(spec.head_module):
            parent, heard = parent_units(self, ~units)
            return parent.log_loss(replace(spec, head="sequence"), ~heard)
        rows = self.train_set.recordings_of(units)
        rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _MEASURED)).astype(int))]
        inputs, labels = self.feature_set.inputs(spec, rows), self.train_set.recording_labels[rows]
        return lambda fitted: -float(fitted.predict_proba(inputs).log_p[np.arange(len(rows)), labels].mean())

    def predict_with_noise(
        self, fitted: FittedHead, spec: CandidateSpec, units: NDArray[np.bool_], stacked: NDArray[np.bool_]
    ) -> tuple[HeadPrediction, HeadPrediction | None]:
        """`predict_proba` of units `[u]`, and `predict_in_noise` of the units `stacked` `[u]`.

        The second is `None` where no stacker is fitted to the predictions.
        """
        prediction = self.predict_proba(fitted, spec, units)
        needs_noise = stacked.any() and is_stacked(spec, self.train_set.task, prediction)
        return prediction, self.predict_in_noise(fitted, spec, stacked) if needs_noise else None

    def predict_in_noise(self, fitted: FittedHead, spec: CandidateSpec,
                         units: NDArray[np.bool_]) -> HeadPrediction | None:
        """As `predict_proba`, with such noise added as the head was trained on; `None` where it was trained on none."""
        from heartml.models.heads.network_training import noise_of

        noise = noise_of(spec.hyperparameters) if spec.head_module.TAKES == "frames" else None
        if noise is None:
            return None
        rows = self.train_set.recordings_of(units)
        names = [self.train_set.recording_ids[row] for row in rows]
        units_of = [self.train_set.unit_ids[unit] for unit in self.train_set.unit[rows]]
        frames = cast(Sequence[NDArray[np.float32]], self.feature_set.inputs(spec, rows))
        return fitted.predict_proba(with_noise(frames, names, units_of, noise, self.feature_set.rates_hz[spec.encoder]))


@functools.lru_cache(maxsize=1)
def training_data(name: str, encoders: tuple[str, ...], root: Path, *, shared: bool = False) -> TrainingData:
    """The training data of a task; opened once in each process.

    Args:
        root: the working folder. It is an argument so that the cache distinguishes two repositories.
        shared: keep pooled vectors in files that all processes of a stage map (`pooled_folder`), not in memory.
    """
    found = training_set.load(name)
    frames = {encoder: Frames.open(root / paths.features(name, encoder)) for encoder in encoders}
    of_encoder = {encoder: stored.of(found.recording_ids) for encoder, stored in frames.items()}
    rates_hz = {encoder: stored.frame_rate_hz for encoder, stored in frames.items()}
    grids = {encoder: Grid.of(stored.encoder) for encoder, stored in frames.items()}
    folder = pooled_folder(name, found, frames) if shared else None
    feature_set = FeatureSet(of_encoder, rates_hz, grids, found.unit, folder)
    recordings = pd.read_parquet(paths.RECORDINGS, columns=["recording_id", "seconds"]).set_index("recording_id")
    seconds = tuple(recordings.loc[list(found.recording_ids), "seconds"])
    annotations = pd.read_parquet(paths.ANNOTATIONS)
    wider = training_set.load_parent(name)
    return TrainingData(found, feature_set, frames, annotations, seconds,
                        None if wider is None else _frames_alone(wider, frames, annotations, recordings["seconds"]))


def _frames_alone(train_set: TrainingSet, frames: Mapping[str, Frames], annotations: pd.DataFrame,
                  seconds: "pd.Series[float]") -> TrainingData:
    """Training data for networks; nothing is pooled."""
    ids = train_set.recording_ids
    feature_set = FeatureSet({encoder: stored.of(ids) for encoder, stored in frames.items()},
                             {encoder: stored.frame_rate_hz for encoder, stored in frames.items()},
                             {encoder: Grid.of(stored.encoder) for encoder, stored in frames.items()}, train_set.unit)
    return TrainingData(train_set, feature_set, frames, annotations, tuple(seconds.loc[list(ids)]))


def parent_units(data: TrainingData, units: NDArray[np.bool_]) -> tuple[TrainingData, NDArray[np.bool_]]:
    """What a network of the wider task may hear when `units` `[u]` of this one are trained on, and nobody else is.

    Returns:
        The data of the wider task, and its units: those of every fold of which all units of this task are in `units`.

    Raises:
        NoParent: the task lies within none, or its folds are not that one's.
    """
    if data.parent is None:
        raise NoParent(f"{data.train_set.name}: the head `related` needs a task that this one lies within, with a "
                       "label for every patient (for a descriptor: the murmur). Take it out of `search.heads`")
    closed = np.unique(data.train_set.parts[~units])
    return data.parent, ~np.isin(data.parent.train_set.parts, closed)


def pooled_folder(name: str, train_set: TrainingSet, frames: Mapping[str, Frames]) -> Path:
    """Where the pooled vectors of these frames are kept while they are needed, the same for all processes.

    The frames count as the files that they are (inode, size and time), because reading all of them would take long.
    """
    of_encoder = {encoder: (dict(stored.encoder), _identity(stored)) for encoder, stored in sorted(frames.items())}
    parts = [train_set.recording_ids, train_set.unit, of_encoder, code_hash.fingerprint(*_POOLING_CODE), np.__version__]
    return paths.STATE / "pooled" / f"{name}-{hashing.sha256(canonical_json(parts).encode())[:_KEY_DIGITS]}"


def _identity(frames: Frames) -> tuple[str, int, int, int]:
    file = (frames.folder / frame_store.FRAMES).stat()
    return hashing.sha256_file(frames.folder / frame_store.INDEX), file.st_ino, file.st_size, file.st_mtime_ns


def remove_pooled(name: str) -> None:
    """Remove the pooled vectors of a task, also those of frames that it had earlier."""
    for folder in (paths.STATE / "pooled").glob(f"{name}-{'?' * _KEY_DIGITS}"):
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class FoldFit:
    """One fit: fit `spec` without one fold, predict that fold, write the result to `file`."""

    name: str
    encoders: tuple[str, ...]
    root: Path
    spec: CandidateSpec
    fold: int
    seed: int
    file: Path


def fit_fold(wanted: FoldFit) -> None:
    """Do one fit, unless its file exists; runs in a worker process."""
    if wanted.file.exists():
        return
    data = training_data(wanted.name, wanted.encoders, wanted.root, shared=True)
    here = data.train_set.parts == wanted.fold
    if learns_parent(wanted.spec.head_module):
        fitted, state, curves = _shared_network(data, wanted, here)
    elif wanted.spec.head_module.TAKES == "frames":
        fitted, state, curves = _network(data, wanted, here)
    else:
        fitted, state, curves = data.fit(wanted.spec, ~here, wanted.seed), None, {}
    write_result(wanted.file, *data.predict_with_noise(fitted, wanted.spec, here, here), state, curves)


def _network(data: TrainingData, wanted: FoldFit, here: NDArray[np.bool_]) -> tuple[FittedHead, HeadState, Arrays]:
    """A fitted network without the units `here` `[u]`, its state and its learning curve."""
    from heartml.models.heads.network_training import learning_curve

    with learning_curve(data.log_loss(wanted.spec, here)) as curve:
        fitted = data.fit(wanted.spec, ~here, wanted.seed)
    curves: Arrays = {f"{CURVE}{name}": np.array(values, np.float32) for name, values in curve.points().items()}
    return fitted, fitted.state(), curves


def _shared_network(data: TrainingData, wanted: FoldFit, here: NDArray[np.bool_]
                    ) -> tuple[FittedHead, HeadState, Arrays]:
    """As `_network`, for a network of the wider task; several tasks that need the same one fit it once."""
    from heartml.models.heads import related

    parent, heard = parent_units(data, ~here)
    place = paths.cache() / "related" / f"{_network_key(parent, wanted, heard)}.safetensors"
    with exclusive(place.with_suffix(".lock")):
        if not place.exists():
            _, state, curves = _network(data, wanted, here)
            write_result(place, None, None, state, curves)
    stored = related.described_as(read_state(place), len(data.train_set.task.classes))
    curves = {f"{CURVE}{name}": np.array(values, np.float32) for name, values in read_curves(place).items()}
    return wanted.spec.head_module.load(stored), stored, curves


def _network_key(parent: TrainingData, wanted: FoldFit, heard: NDArray[np.bool_]) -> str:
    """SHA-256 over everything that a network of the wider task depends on, however its frames came here."""
    own, spec = parent.train_set, wanted.spec
    states = parent.states(spec.encoder)
    arrays = [own.unit, own.recording_labels, own.labels, own.groups, own.parts, heard, *(states or [])]
    content = [own.recording_ids, spec.to_json(), dict(parent.encoders[spec.encoder].encoder), wanted.seed,
               code_hash.fingerprint(*_NETWORK_CODE), metadata.version("torch"), np.__version__,
               [hashing.sha256(np.ascontiguousarray(one).tobytes()) for one in arrays]]
    return hashing.sha256(canonical_json(content).encode())


def write_result(
    file: Path, prediction: HeadPrediction | None, noisy: HeadPrediction | None = None, state: HeadState | None = None,
    curves: Mapping[str, NDArray[np.float32]] = MappingProxyType({}),
) -> None:
    """Write predictions and, if given, the head that made them; the file is complete or not there at all."""
    from safetensors.numpy import save

    arrays: dict[str, NDArray[np.generic]] = {**prediction_arrays(prediction), **prediction_arrays(noisy, NOISY),
                                              **curves}
    metadata = {}
    if state is not None:
        arrays |= {f"head.{key}": value for key, value in state.arrays.items()}
        metadata = {"numbers": json.dumps(dict(state.scalars), sort_keys=True)}
    with replacing(file) as temporary:
        temporary.write_bytes(save({key: np.ascontiguousarray(value) for key, value in arrays.items()}, metadata))


def prediction_arrays(prediction: HeadPrediction | None, prefix: str = "") -> dict[str, NDArray[np.generic]]:
    """The arrays of a prediction as they are stored, by name; none of `None`."""
    if prediction is None:
        return {}
    details = {} if prediction.details is None else {f"{prefix}details": prediction.details.astype(np.float32)}
    return {f"{prefix}log_p": prediction.log_p, **details}


def read_prediction(file: Path) -> HeadPrediction:
    """The prediction in a result file."""
    return _prediction(dict(_arrays(file)), "")


def read_noisy_prediction(file: Path) -> HeadPrediction | None:
    """The prediction with noise added in a result file; `None` where there is none."""
    arrays = dict(_arrays(file))
    return _prediction(arrays, NOISY) if f"{NOISY}log_p" in arrays else None


def _prediction(arrays: Mapping[str, NDArray[np.float64]], prefix: str) -> HeadPrediction:
    details = arrays.get(f"{prefix}details")
    return HeadPrediction(arrays[f"{prefix}log_p"], None if details is None else details.astype(np.float64))


def read_curves(file: Path) -> dict[str, list[float]]:
    """The learning curve in a result file, see `network_training.LearningCurve`; empty where there is none."""
    return {key.removeprefix(CURVE): array.tolist() for key, array in _arrays(file) if key.startswith(CURVE)}


def read_state(file: Path) -> HeadState:
    """The fitted head in a result file."""
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
    states: Sequence[NDArray[np.int8]] | None = None, encoder: Mapping[str, object] | None = None,
    validation: NDArray[np.bool_] | None = None, probabilities: NDArray[np.float64] | None = None,
    described: int | None = None,
) -> FittedHead:
    """Fit a spec's head to the units where `units` `[u]` holds.

    Args:
        states: heart states of every recording, see `training_set.states`.
        encoder, validation, probabilities, described: see `heartml.models.heads.Targets`; validation and probabilities
            of units `[u]`.
    """
    of_recordings = spec.level == "recording"
    rows = train_set.recordings_of(units) if of_recordings else np.flatnonzero(units)
    unit = (train_set.unit if of_recordings else np.arange(len(train_set.unit_ids)))[rows]
    targets = Targets(
        labels=(train_set.recording_labels if of_recordings else train_set.labels)[rows],
        classes=len(train_set.task.classes),
        groups=(train_set.groups[train_set.unit] if of_recordings else train_set.groups)[rows],
        states=None if states is None or spec.pooling is not None else [states[row] for row in rows],
        frame_rate_hz=feature_set.rates_hz[spec.encoder],
        encoder=encoder,
        validation=None if validation is None else validation[unit],
        task=train_set.task,
        probabilities=None if probabilities is None else probabilities[unit],
        described=described,
    )
    return spec.head_module.fit(feature_set.inputs(spec, rows), targets, spec.hyperparameters, seed)
