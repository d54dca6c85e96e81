"""What the heart encoder is trained on: real and simulated recordings as frames, classes of frames, labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from heartml.core import schema
from heartml.core.system.progress import track
from heartml.data.simulation import children, visits
from heartml.data.simulation.physiology import SAMPLE_RATE_HZ
from heartml.models import encoders
from heartml.models.encoders import EncoderSpec
from heartml.training import training_set
from heartml.training.pretraining import targets

SEED_APART = 10**9           # added to the seed of simulated children, so that no demo corpus is heard
_SECONDS = 10.0

Frames = NDArray[np.float32]


@dataclass(frozen=True)
class Corpus:
    """`r` recordings.

    Attributes:
        frames: log-spectrograms, `r` arrays `[frames, bands]`.
        classes: of every frame, int8 `[frames]` each, see `targets.frame_classes`.
        labels: target -> class of each recording `[r]`, `targets.UNKNOWN` where it has none.
        frame_rate_hz: of the frames.
        simulated: which recordings are simulated `[r]`.
    """

    frames: Sequence[Frames]
    classes: Sequence[NDArray[np.int8]]
    labels: Mapping[str, NDArray[np.int64]]
    frame_rate_hz: float
    simulated: NDArray[np.bool_]


def build(
    recordings: pd.DataFrame, frames: Sequence[Frames], annotations: pd.DataFrame, spec: EncoderSpec, *,
    simulated_children: int, seed: int,
) -> Corpus:
    """The corpus of real recordings, and of simulated children who are recorded at each location.

    Args:
        recordings: `r` rows with `recording_id`, `seconds` and label columns.
        frames: of these recordings, `r` arrays `[frames, bands]`.
        annotations: schema.ANNOTATIONS.
        spec: of the spectrogram.
    """
    encoder = encoders.load(spec)
    made = [one for number in track(range(simulated_children), "pretrain: simulate", simulated_children)
            for one in _simulated(seed, number)]
    table = _labels(recordings, [labels for _, _, labels in made])
    states = training_set.states(list(recordings["recording_id"]), [len(one) for one in frames], encoder.frame_rate_hz,
                                 list(recordings["seconds"]), annotations)
    if states is None:
        states = [np.full(len(one), training_set.UNKNOWN, np.int8) for one in frames]
    heard = list(frames)
    for waveform, marks, _ in made:
        one = encoders.frames_of(encoder, spec, waveform, SAMPLE_RATE_HZ).astype(np.float32)
        heard.append(one)
        states += training_set.states(["made"], [len(one)], encoder.frame_rate_hz, [len(waveform) / SAMPLE_RATE_HZ],
                                      marks) or []
    own = [{str(name).removeprefix(schema.LABEL_PREFIX): value for name, value in row.items()}
           for row in table.to_dict("records")]
    classes = [targets.frame_classes(of_frames, labels) for of_frames, labels in zip(states, own, strict=True)]
    simulated = np.arange(len(heard)) >= len(frames)
    return Corpus(heard, classes, targets.label_numbers(table), encoder.frame_rate_hz, simulated)


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
