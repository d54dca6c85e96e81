"""Recordings as finished models hear them: waveforms in, `Sounds` out. However many models ask, frames are made once.

Models of one data set are mostly made with the same encoders, and then share frames and pooled vectors too.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heartml.models import encoders
from heartml.models.ensemble.candidate import FeatureSet

EncoderSpecs = Mapping[str, Mapping[str, Any]]      # encoder -> what made its frames, as `Model.encoder_specs` has it
RatedWaveform = tuple[NDArray[np.float32], int]     # samples in [-1, 1], sample_rate_hz


class SharedInputs:
    """`r` recordings of `n` units.

    Args:
        waveforms: of the recordings `[r]`.
        unit_of: unit of each recording `[r]`.
    """

    def __init__(self, waveforms: Sequence[RatedWaveform], unit_of: Sequence[str]) -> None:
        self.unit_of = tuple(unit_of)
        self.unit_ids = tuple(dict.fromkeys(unit_of))      # in the order in which they first appear
        row = {unit_id: number for number, unit_id in enumerate(self.unit_ids)}
        self._unit = np.array([row[unit_id] for unit_id in unit_of], np.int64)
        self._waveforms = waveforms
        self._heard: list[tuple[dict[str, Mapping[str, Any]], FeatureSet]] = []

    @classmethod
    def of_frames(cls, frames: Mapping[str, Sequence[NDArray[np.float32]]], encoder_specs: EncoderSpecs,
                  unit_of: Sequence[str]) -> "SharedInputs":
        """Recordings whose frames under these encoders are there already."""
        shared = cls((), unit_of)
        rates_hz = {name: float(made["frame_rate_hz"]) for name, made in encoder_specs.items()}
        shared._heard = [(dict(encoder_specs),
                          FeatureSet({name: frames[name] for name in encoder_specs}, rates_hz, shared._unit))]
        return shared

    def feature_set(self, encoder_specs: EncoderSpecs) -> FeatureSet:
        """What a model hears; what an earlier model with the same encoders heard is not made again."""
        known, feature_set = self._agreeing(encoder_specs)
        for name, made in encoder_specs.items():
            if name not in known:
                known[name] = made
                feature_set.add(name, self._frames(made), float(made["frame_rate_hz"]))
        return feature_set

    def _agreeing(self, encoder_specs: EncoderSpecs) -> tuple[dict[str, Mapping[str, Any]], FeatureSet]:
        """Encoders and feature_set of earlier models with which these encoders do not disagree, or new ones."""
        for known, feature_set in self._heard:
            if all(known.get(name, made) == made for name, made in encoder_specs.items()):
                return known, feature_set
        self._heard.append(({}, FeatureSet({}, {}, self._unit)))
        return self._heard[-1]

    def _frames(self, made: Mapping[str, Any]) -> list[NDArray[np.float32]]:
        spec = encoders.EncoderSpec.from_json(made)
        encoder = encoders.load(spec)
        return [encoders.frames_of(encoder, spec, w, rate).astype(np.float32) for w, rate in self._waveforms]
