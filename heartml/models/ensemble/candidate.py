"""One member of an ensemble: its spec, the inputs of its head, and the fitted heads.

Frames of each encoder `[frames, dim]` come in, log-probabilities of each case `[cases, k]` come out. A member of level
`recording` predicts one recording at a time. A member of level `unit` takes mean, maximum and minimum of the pooled
vectors over all recordings of a patient at once.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from heartml.core.system import lazy
from heartml.models import pooling
from heartml.models.ensemble import pooled_files
from heartml.models.heads import HEADS, FittedHead, Head, HeadPrediction, Hyperparameters, Inputs
from heartml.models.heads.log_probabilities import normalise
from heartml.models.pooling import Grid

Floats = NDArray[np.float64]
Level = Literal["recording", "unit"]


@dataclass(frozen=True)
class CandidateSpec:
    """Encoder, head, level, pooling and hyperparameters of one trial; `pooling` is `None` for heads of frames."""

    encoder: str
    head: str
    level: Level
    pooling: str | None
    hyperparameters: Hyperparameters

    def to_json(self) -> dict[str, Any]:
        """The spec as plain JSON values."""
        return {"encoder": self.encoder, "head": self.head, "level": self.level, "pooling": self.pooling,
                "numbers": dict(self.hyperparameters)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "CandidateSpec":
        """The spec behind `to_json`; other keys are ignored."""
        return cls(values["encoder"], values["head"], values["level"], values["pooling"], dict(values["numbers"]))

    @property
    def head_module(self) -> Head:
        """The module of `heartml.models.heads` that fits and loads this head."""
        return HEADS[self.head]()


class FeatureSet:
    """Frames of `r` recordings under each encoder. They are pooled when they are first needed, and only once.

    Args:
        frames: encoder -> `r` arrays float32 `[frames, dim]`; a lazy sequence is read when it is needed.
        rates_hz: encoder -> frame rate in Hz.
        grids: encoder -> its bands and channels.
        unit: index of each recording's unit `[r]`.
        folder: where pooled vectors are kept in files that processes share; `None`: in memory. It belongs to these
            frames and units alone.
    """

    def __init__(
        self, frames: Mapping[str, Sequence[NDArray[np.float32]]], rates_hz: Mapping[str, float],
        grids: Mapping[str, Grid], unit: NDArray[np.int64], folder: Path | None = None,
    ) -> None:
        self._folder = folder
        self.frames, self.rates_hz, self.grids, self.unit = dict(frames), dict(rates_hz), dict(grids), unit
        self._whole: tuple[FeatureSet, NDArray[np.int64]] | None = None
        self._of_recordings: dict[tuple[str, str], Floats] = {}
        self._of_units: dict[tuple[str, str], Floats] = {}

    def add(self, encoder: str, frames: Sequence[NDArray[np.float32]], rate_hz: float, grid: Grid) -> None:
        """Add the frames of one more encoder."""
        self.frames[encoder], self.rates_hz[encoder], self.grids[encoder] = frames, rate_hz, grid

    def one_unit_each(self) -> "FeatureSet":
        """The same recordings, each as a unit of its own. Pooled vectors of recordings are shared with this one."""
        other = FeatureSet(self.frames, self.rates_hz, self.grids, np.arange(len(self.unit)))
        other._of_recordings = self._of_recordings
        return other

    def subset(self, rows: NDArray[np.int64], unit: NDArray[np.int64]) -> "FeatureSet":
        """The recordings `rows` `[n]` with the units `unit` `[n]`. A recording is pooled once for all subsets."""
        frames = {name: lazy.select_rows(of, rows) for name, of in self.frames.items()}
        other = FeatureSet(frames, self.rates_hz, self.grids, unit)
        other._whole = self, rows
        return other

    def inputs(self, spec: CandidateSpec, rows: NDArray[np.int64]) -> Inputs:
        """The inputs of the spec's head for the recordings (or, at level `unit`, the units) `rows`."""
        if spec.pooling is None:
            return lazy.select_rows(self.frames[spec.encoder], rows)
        return self._pooled(spec.encoder, spec.pooling, spec.level)[rows]

    def _pooled(self, encoder: str, name: str, level: Level) -> Floats:
        key = (encoder, name)
        if key not in self._of_recordings and self._whole:
            whole, rows = self._whole
            self._of_recordings[key] = whole._pooled(encoder, name, "recording")[rows]
        elif key not in self._of_recordings:
            vectors = pooling.each(name, self.frames[encoder], self.rates_hz[encoder], self.grids[encoder])
            self._of_recordings[key] = self._kept(f"{encoder}-{name}", vectors, len(self.unit))
        if level == "recording":
            return self._of_recordings[key]
        if key not in self._of_units:
            vectors = pooling.each_unit(self._of_recordings[key], self.unit)
            self._of_units[key] = self._kept(f"{encoder}-{name}-unit", vectors, int(self.unit.max()) + 1)
        return self._of_units[key]

    def _kept(self, name: str, vectors: Iterable[Floats], count: int) -> Floats:
        if self._folder is None:
            return np.stack(list(vectors))
        return pooled_files.mapped(self._folder / f"{name}.npy", vectors, count)


@dataclass(frozen=True)
class Member:
    """A spec and its fitted heads: one, or those of several folds, whose predictions are averaged."""

    spec: CandidateSpec
    heads: tuple[FittedHead, ...]

    def predict_proba(self, feature_set: FeatureSet) -> HeadPrediction:
        """Predict every recording (or, at level `unit`, every unit) of `feature_set`."""
        cases = len(feature_set.unit) if self.spec.level == "recording" else int(feature_set.unit.max()) + 1
        inputs = feature_set.inputs(self.spec, np.arange(cases))
        return mean_prediction([head.predict_proba(inputs) for head in self.heads])


def mean_prediction(predictions: Sequence[HeadPrediction]) -> HeadPrediction:
    """The mean of several heads' predictions of the same cases: of log-probabilities, normalised, and of details."""
    details = [one.details for one in predictions if one.details is not None]
    log_p = normalise(np.mean([one.log_p for one in predictions], axis=0))
    return HeadPrediction(log_p, np.mean(details, axis=0) if details else None)
