"""What encoders are trained on: recordings, simulated ones and general sound, as frames, classes of frames, labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from heartml.core import schema
from heartml.core.system.progress import track
from heartml.data.simulation import children, visits
from heartml.data.simulation.physiology import SAMPLE_RATE_HZ
from heartml.models import encoders
from heartml.models.encoders import EncoderSpec
from heartml.models.heads import Targets
from heartml.training import training_set
from heartml.training.pretraining import targets

SEED_APART = 10**9           # added to the seed of simulated children, so that no demo corpus is heard
_SECONDS = 10.0

Frames = NDArray[np.floating[Any]]


class Picture(Protocol):
    """Makes the frames of a waveform."""

    frame_rate_hz: float

    def __call__(self, waveform: NDArray[np.float32], sample_rate_hz: int) -> Frames:
        """Raw waveform `[time] -> [frames, bands]`."""
        ...


class EncoderPicture:
    """The frames of an encoder, as the stage `features` makes them."""

    def __init__(self, spec: EncoderSpec) -> None:
        self._spec, self._encoder = spec, encoders.load(spec)
        self.frame_rate_hz = self._encoder.frame_rate_hz

    def __call__(self, waveform: NDArray[np.float32], sample_rate_hz: int) -> Frames:
        return encoders.frames_of(self._encoder, self._spec, waveform, sample_rate_hz).astype(np.float32)


@dataclass(frozen=True)
class Corpus:
    """`r` recordings.

    Attributes:
        frames: log-spectrograms, `r` arrays `[frames, bands]`.
        classes: of every frame, int8 `[frames]` each, see `targets.frame_classes`.
        labels: target -> class of each recording `[r]`, `targets.UNKNOWN` where it has none.
        frame_rate_hz: of the frames.
        simulated: which recordings are simulated `[r]`.
        general: which are general sound `[r]`, of which nothing is known.
    """

    frames: Sequence[Frames]
    classes: Sequence[NDArray[np.int8]]
    labels: Mapping[str, NDArray[np.int64]]
    frame_rate_hz: float
    simulated: NDArray[np.bool_]
    general: NDArray[np.bool_]

    @property
    def targets(self) -> Targets:
        """Classes of frames for crops; the class of a recording is not among them."""
        count = len(self.frames)
        return Targets(np.zeros(count, np.int64), 1, np.arange(count), self.classes, self.frame_rate_hz)


def build(
    recordings: pd.DataFrame, frames: Sequence[Frames], annotations: pd.DataFrame, picture: Picture, *,
    simulated_children: int, seed: int, general: Sequence[Frames] = (),
) -> Corpus:
    """The corpus of real recordings, of simulated children who are recorded at each location, and of general sound.

    Args:
        recordings: `r` rows with `recording_id`, `seconds` and label columns.
        frames: of these recordings, `r` arrays `[frames, bands]`.
        annotations: schema.ANNOTATIONS.
        picture: made the frames, and makes those of simulated recordings.
        general: `g` arrays `[frames, bands]`.
    """
    made = [one for number in track(range(simulated_children), "pretrain: simulate", simulated_children)
            for one in _simulated(seed, number)]
    table = _labels(recordings, [labels for _, _, labels in made])
    states = training_set.states(list(recordings["recording_id"]), [len(one) for one in frames], picture.frame_rate_hz,
                                 list(recordings["seconds"]), annotations)
    if states is None:
        states = [np.full(len(one), training_set.UNKNOWN, np.int8) for one in frames]
    heard = list(frames)
    for waveform, marks, _ in made:
        one = picture(waveform, SAMPLE_RATE_HZ)
        heard.append(one)
        states += training_set.states(["made"], [len(one)], picture.frame_rate_hz, [len(waveform) / SAMPLE_RATE_HZ],
                                      marks) or []
    heard += general
    states += [np.full(len(one), training_set.UNKNOWN, np.int8) for one in general]
    table = table.reindex(range(len(heard)))
    own = [{str(name).removeprefix(schema.LABEL_PREFIX): value for name, value in row.items()}
           for row in table.to_dict("records")]
    classes = [targets.frame_classes(of_frames, labels) for of_frames, labels in zip(states, own, strict=True)]
    place, hearts = np.arange(len(heard)), len(heard) - len(general)
    return Corpus(heard, classes, targets.label_numbers(table), picture.frame_rate_hz,
                  (place >= len(frames)) & (place < hearts), place >= hearts)


def _labels(recordings: pd.DataFrame, made: Sequence[Mapping[str, str]]) -> pd.DataFrame:
    """Label columns of the recordings, then of those that were made, one row each."""
    own = recordings[[column for column in map(str, recordings) if column.startswith(schema.LABEL_PREFIX)]]
    return pd.concat([own, pd.DataFrame(list(made)).add_prefix(schema.LABEL_PREFIX)], ignore_index=True).astype(object)


def _simulated(seed: int, number: int) -> list[tuple[Frames, pd.DataFrame, dict[str, str]]]:
    """The recordings of one simulated child's first visit: waveform `[time]`, heart states, labels by name."""
    visit = visits.draw_visits(SEED_APART + seed, children.draw_child(SEED_APART + seed, number))[0]
    heard = visits.heard_at(visit)
    found = []
    for recording in visits.record(visit, _SECONDS):
        here = "Unknown" if visit.label == "Unknown" else "Present" if recording.location in heard else "Absent"
        labels = {"murmur": here, "murmur_here": here, "outcome": "Abnormal" if visit.child.abnormal else "Normal"}
        if here == "Present" and visit.child.murmur:
            murmur = visit.child.murmur
            labels |= {"systolic_murmur_timing": murmur.timing, "systolic_murmur_shape": murmur.shape,
                       "systolic_murmur_grading": murmur.grade, "systolic_murmur_pitch": murmur.pitch,
                       "systolic_murmur_quality": murmur.quality}
        names = ("unannotated", *schema.STATES)
        marks = pd.DataFrame([("made", start, end, names[code]) for start, end, code in recording.states],
                             columns=list(schema.ANNOTATIONS))
        found.append((np.asarray(recording.pcm / 32768, np.float32), marks, labels))
    return found
