"""Inputs that several fitted models share: waveforms `[time]` of recordings in, a `FeatureSet` for each model out.

Models of one data set are mostly made with the same encoders. They then share frames and pooled vectors, and each is
computed once.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heartml.audio import quality
from heartml.audio.quality import Quality
from heartml.models import encoders
from heartml.models.ensemble.candidate import FeatureSet
from heartml.models.pooling import Grid

EncoderSpecs = Mapping[str, Mapping[str, Any]]      # encoder -> its spec and frame rate, see `Model.encoder_specs`
RatedWaveform = tuple[NDArray[np.float32], int]     # samples in [-1, 1], sample_rate_hz


class SharedInputs:
    """`r` recordings of `n` units.

    Args:
        waveforms: of the recordings `[r]`.
        unit_of: id of each recording's unit `[r]`.
        qualities: of the recordings' signals `[r]`, where they are known already.
    """

    def __init__(
        self, waveforms: Sequence[RatedWaveform], unit_of: Sequence[str], qualities: Sequence[Quality] | None = None
    ) -> None:
        self.unit_of = tuple(unit_of)
        self.unit_ids = tuple(dict.fromkeys(unit_of))      # in the order in which they first appear
        row = {unit_id: number for number, unit_id in enumerate(self.unit_ids)}
        self._unit = np.array([row[unit_id] for unit_id in unit_of], np.int64)
        self._waveforms = waveforms
        self._qualities = qualities
        self._made: list[tuple[dict[str, Mapping[str, Any]], FeatureSet]] = []

    @classmethod
    def from_frames(cls, frames: Mapping[str, Sequence[NDArray[np.float32]]], encoder_specs: EncoderSpecs,
                    unit_of: Sequence[str], qualities: Sequence[Quality] | None = None) -> "SharedInputs":
        """Recordings whose frames under these encoders exist already: encoder -> `r` arrays `[frames, dim]`."""
        shared = cls((), unit_of, qualities)
        rates_hz = {name: float(spec["frame_rate_hz"]) for name, spec in encoder_specs.items()}
        grids = {name: Grid.of(spec) for name, spec in encoder_specs.items()}
        feature_set = FeatureSet({name: frames[name] for name in encoder_specs}, rates_hz, grids, shared._unit)
        shared._made = [(dict(encoder_specs), feature_set)]
        return shared

    @property
    def qualities(self) -> Sequence[Quality] | None:
        """Of the recordings' signals `[r]`; `None` where only frames are known."""
        if self._qualities is None and self._waveforms:
            self._qualities = [quality.measure(waveform, rate) for waveform, rate in self._waveforms]
        return self._qualities

    def feature_set(self, encoder_specs: EncoderSpecs) -> FeatureSet:
        """The inputs of a model with these encoders; frames that an earlier model needed are not made again."""
        known, feature_set = self._matching(encoder_specs)
        for name, encoder_spec in encoder_specs.items():
            if name not in known:
                known[name] = encoder_spec
                rate_hz = float(encoder_spec["frame_rate_hz"])
                feature_set.add(name, self._frames(encoder_spec), rate_hz, Grid.of(encoder_spec))
        return feature_set

    def _matching(self, encoder_specs: EncoderSpecs) -> tuple[dict[str, Mapping[str, Any]], FeatureSet]:
        """An earlier feature set without a different encoder of the same name, or a new and empty one."""
        for known, feature_set in self._made:
            if all(known.get(name, spec) == spec for name, spec in encoder_specs.items()):
                return known, feature_set
        self._made.append(({}, FeatureSet({}, {}, {}, self._unit)))
        return self._made[-1]

    def _frames(self, encoder_spec: Mapping[str, Any]) -> list[NDArray[np.float32]]:
        spec = encoders.EncoderSpec.from_json(encoder_spec)
        encoder = encoders.load_once(spec)
        return [encoders.frames_of(encoder, spec, w, rate).astype(np.float32) for w, rate in self._waveforms]
