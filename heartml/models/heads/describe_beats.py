"""The cleanest beats of a recording: frames `[frames, dim]` in, the part of them with whole heart cycles out.

The frames are log-mel bands of a feature extractor. The head `sequence` learns heart states from their lowest third,
up to 1 kHz of 8 kHz, at about 50 Hz. Its posteriors become a path through the heart's cycle
(`heartml.models.segmentation`). Of all stretches of so many whole cycles the one is taken in which the path is surest.
Without annotated states the path is that of the baseline `by_loudness`, and the stretch nearest the middle is taken.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from heartml.models.heads import HeadState, Hyperparameters, Targets, sequence
from heartml.models.heads.segment_features import DIASTOLE, FIRST_SYSTOLE, S1, S2
from heartml.models.heads.sequence import FittedSequence
from heartml.models.segmentation import Segmentation, by_loudness, decode

Frames = NDArray[np.float32]
Floats = NDArray[np.float64]
_RATE_HZ = 50.0
_CYCLE_S = (60 / 220, 60 / 40)       # of a heart: children at their fastest, adults at rest
_FIXED = {"dropout": 0.2, "frame_weight": 1.0, "strength": 0.0, "accumulation": 1}


@dataclass(frozen=True)
class Beats:
    """How beats are chosen.

    Attributes:
        segmenter: tells heart states; `None` where none were annotated.
        rate_hz: of the frames.
        cycles: how many are wanted.
        longest: frames that are heard at most.
    """

    segmenter: FittedSequence | None
    rate_hz: float
    cycles: int
    longest: int

    def of(self, frames: Frames) -> Frames:
        """The cleanest beats of one recording: a part of `[frames, dim]`."""
        start, end = self.place(frames)
        return frames[start:end]

    def place(self, frames: Frames) -> tuple[int, int]:
        """First frame of the cleanest beats, and the one after the last."""
        coarse = _coarse(frames, self.rate_hz)
        rate_hz = self.rate_hz / _step(self.rate_hz)
        posteriors = None if self.segmenter is None else self.segmenter.frame_posteriors(coarse)
        if posteriors is None:
            found, sure = by_loudness(coarse, rate_hz, 0.5 / rate_hz), np.zeros(len(coarse))
        else:
            rate_hz /= 2
            found, sure = decode(posteriors, rate_hz, 0.25 / rate_hz), np.zeros(len(posteriors))
            times = 0.25 / rate_hz + np.arange(len(posteriors)) / rate_hz
            sure = certainty(posteriors, found.at(times))
        start_s, end_s = surest(found, sure, rate_hz, self.cycles, len(frames) / self.rate_hz,
                                self.longest / self.rate_hz)
        start = min(round(start_s * self.rate_hz), len(frames) - 1)
        return start, min(len(frames), max(start + 1, round(end_s * self.rate_hz)), start + self.longest)

    def state(self) -> HeadState:
        """The segmenter, to be stored; empty without one."""
        return HeadState() if self.segmenter is None else self.segmenter.state()


def certainty(posteriors: NDArray[np.floating], states: NDArray[np.int64]) -> Floats:
    """Logarithm of the probability of each frame's state: posteriors `[t, 4 + classes]`, states `[t] -> [t]`."""
    p = np.asarray(posteriors, np.float64)
    four = np.stack([p[:, S1], p[:, FIRST_SYSTOLE:].sum(1), p[:, S2], p[:, DIASTOLE]], axis=1) + 1e-4
    four /= four.sum(1, keepdims=True)
    known = states < four.shape[1]
    return np.where(known, np.log(four[np.arange(len(four)), np.where(known, states, 0)]), np.log(1e-4))


def surest(found: Segmentation, sure: Floats, rate_hz: float, cycles: int, seconds: float, longest_s: float
           ) -> tuple[float, float]:
    """Begin and end in s of the surest stretch of whole cycles, from one first heart sound to another.

    With fewer whole cycles than `cycles` in a row it has as many as there are. Of equals the one nearest the middle of
    the recording is taken. Without a whole cycle it is the middle of the recording.

    Args:
        sure: how sure the path is `[t]`, larger is surer.
        rate_hz: of `sure`.
        seconds: length of the recording.
        longest_s: of a stretch.
    """
    onsets = found.onsets_s("S1")
    whole = [bool(_CYCLE_S[0] <= length <= _CYCLE_S[1]) for length in np.diff(onsets)]
    for count in range(min(cycles, len(whole)), 0, -1):
        stretches = [(float(onsets[n]), float(onsets[n + count])) for n in range(len(whole) - count + 1)
                     if all(whole[n : n + count]) and onsets[n + count] - onsets[n] <= longest_s]
        if stretches:
            return max(stretches, key=lambda one: (_mean(sure, one, rate_hz), -abs(sum(one) - seconds), -one[0]))
    length = min(seconds, longest_s)
    return (seconds - length) / 2, (seconds + length) / 2


def _mean(sure: Floats, stretch: tuple[float, float], rate_hz: float) -> float:
    start, end = (round(at * rate_hz) for at in stretch)
    return round(float(sure[start : max(end, start + 1)].mean()), 6) if start < len(sure) else -np.inf


def _step(rate_hz: float) -> int:
    return max(1, round(rate_hz / _RATE_HZ))


def _coarse(frames: Frames, rate_hz: float) -> Frames:
    """What the segmenter takes: `[frames, dim]` -> the mean of every few frames, of the lowest third of the bands."""
    step, low = _step(rate_hz), max(1, frames.shape[1] // 3)
    filled = np.pad(frames[:, :low], ((0, -len(frames) % step), (0, 0)), mode="edge")
    return np.asarray(filled.reshape(-1, step, low).mean(1), np.float32)


def fit(frames: list[Frames], targets: Targets, hyperparameters: Hyperparameters, longest: int, seed: int) -> Beats:
    """Train the segmenter on recordings `[frames, dim]`, where their heart states are known."""
    rate_hz, cycles = targets.frame_rate_hz, int(hyperparameters["cycles"])
    if targets.states is None:
        return Beats(None, rate_hz, cycles, longest)
    step = _step(rate_hz)
    own = replace(targets, frame_rate_hz=rate_hz / step, states=[np.asarray(one[::step]) for one in targets.states])
    told = {name: hyperparameters[f"segmenter_{name}"] for name in ("steps", "batch", "rate", "channels")}
    numbers = {**hyperparameters, **_FIXED, **told}
    fitted = sequence.fit([_coarse(one, rate_hz) for one in frames], own, numbers, seed)
    assert isinstance(fitted, FittedSequence)
    return Beats(fitted, rate_hz, cycles, longest)


def load(state: HeadState, rate_hz: float, cycles: int, longest: int) -> Beats:
    """What `Beats.state` was called on."""
    if not state.arrays:
        return Beats(None, rate_hz, cycles, longest)
    fitted = sequence.load(state)
    assert isinstance(fitted, FittedSequence)
    return Beats(fitted, rate_hz, cycles, longest)
