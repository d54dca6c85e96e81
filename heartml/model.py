"""The fitted ensemble: from frames, or straight from audio, to probabilities, a decision and a calibrated confidence.

One folder, no pickle: `model.json` (task, parameters of audio and encoders, members, stacker, decision rule,
calibration), `model.safetensors` (arrays), `*.lightgbm.txt` (trees).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from heartml.tasks import Task


@dataclass(frozen=True)
class Predictions:
    """What the ensemble says about `n` units made of `r` recordings, `k` classes.

    Attributes:
        unit_ids: `[n]`, in the order in which the units first appear.
        classes: names of the `k` classes, the task's order.
        probabilities: `[n, k]`, uncalibrated; what the decision rule looks at.
        calibrated: `[n, k]`, what to show as confidence; never what decides.
        decisions: `[n]` integers, index into `classes`.
        recording_probabilities: `[r, k]`, what each recording alone says, in the order given.
    """

    unit_ids: tuple[str, ...]
    classes: tuple[str, ...]
    probabilities: NDArray[np.float64]
    calibrated: NDArray[np.float64]
    decisions: NDArray[np.int64]
    recording_probabilities: NDArray[np.float64]


class Model:
    """A fitted ensemble of one task.

    Attributes:
        task: what is predicted.
        assignment_name: `circor-murmur`; the registered model's name.
        encoders: names of the encoders whose frames `predict` needs.
    """

    task: Task
    assignment_name: str
    encoders: tuple[str, ...]

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a model that `save` wrote."""
        ...

    def save(self, folder: Path) -> None:
        """Write into the existing, empty `folder`; the same model gives the same bytes."""
        ...

    def predict(
        self, frames: Mapping[str, Sequence[NDArray[np.float32]]], unit_of: Sequence[str]
    ) -> Predictions:
        """Frames of every recording under each of `encoders`, and the unit that each recording belongs to."""
        ...

    def predict_audio(
        self, waveforms: Sequence[tuple[NDArray[np.float32], int]], unit_of: Sequence[str]
    ) -> Predictions:
        """`(samples in [-1, 1], sample_rate_hz)` of every recording, and its unit; everything else is in the model."""
        ...
