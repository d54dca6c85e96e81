"""Heart states over time (S1, systole, S2, diastole): posteriors of frames `[t, 4 + classes]` in, `Segmentation` out.

The posteriors become one path through the heart's cycle: Viterbi over a hidden Markov model whose states follow each
other as in Schmidt et al., Segmentation of heart sound recordings by a duration-dependent hidden Markov model, 2010.
The path has no state for stretches that a publisher left without annotation, since the heart beats there as well.
`by_loudness` is the baseline. It takes the peaks of the low bands for heart sounds, and the shorter interval between
them for systole. `measure` compares either with a publisher's annotation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heartml.core.schema import STATES
from heartml.models.heads.segment_features import DIASTOLE, FIRST_SYSTOLE, S1, S2

Floats = NDArray[np.float64]
UNKNOWN = len(STATES)                   # no state is known
TOLERANCE_S = 0.06                      # of an onset, as in Schmidt et al. (2010)
_STAY_S = (0.12, 0.15, 0.10, 0.35)      # mean durations of STATES in children
_LOW_BANDS = 1 / 6                      # of 25 to 800 Hz: the first and second sound are loudest below 150 Hz
_RATES_PER_MIN = (40.0, 220.0)


@dataclass(frozen=True)
class Segmentation:
    """States of one recording.

    Attributes:
        starts_s: `[n]`, when each state begins, in s, increasing.
        states: `[n]`, index into `STATES`, or `UNKNOWN`.
        end_s: when the last one ends.
    """

    starts_s: Floats
    states: NDArray[np.int64]
    end_s: float

    def onsets_s(self, state: str) -> Floats:
        """When the state begins, each time: `[times]`, in s."""
        return np.asarray(self.starts_s[self.states == STATES.index(state)])

    def at(self, times_s: Floats) -> NDArray[np.int64]:
        """State at each time `[times]`; `UNKNOWN` outside the recording."""
        which = np.searchsorted(self.starts_s, times_s, side="right") - 1
        inside = (which >= 0) & (times_s < self.end_s)
        return np.asarray(np.where(inside, self.states[np.maximum(which, 0)] if len(self.states) else UNKNOWN, UNKNOWN))

    @property
    def heart_rate_per_min(self) -> float | None:
        """Heart rate from the median interval between onsets of S1; `None` with fewer than three usable intervals."""
        beats_s = np.diff(self.onsets_s("S1"))
        low, high = (60 / rate for rate in reversed(_RATES_PER_MIN))
        whole = beats_s[(beats_s >= low) & (beats_s <= high)]
        return 60 / float(np.median(whole)) if len(whole) >= 3 else None


def decode(posteriors: NDArray[np.floating], rate_hz: float, first_s: float = 0.0) -> Segmentation:
    """The most probable path through the heart's cycle.

    Args:
        posteriors: `[t, 4 + classes]`, columns as in `heartml.models.heads.segment_features`, with systole of each
            class.
        rate_hz: rate of these frames.
        first_s: time of the middle of the first frame.
    """
    p = np.asarray(posteriors, np.float64)
    by_state = np.stack([p[:, S1], p[:, FIRST_SYSTOLE:].sum(1), p[:, S2], p[:, DIASTOLE]], axis=1) + 1e-4
    by_state /= by_state.sum(1, keepdims=True)
    path = _viterbi(np.log(by_state), np.log(_transitions(rate_hz)))
    changes = np.flatnonzero(np.diff(path)) + 1
    starts = np.concatenate([[0.0], [_crossing(by_state, path, int(i)) for i in changes]])
    begins_s = np.maximum(0.0, first_s + (starts - 0.5 * (starts == 0)) / rate_hz)
    return Segmentation(begins_s, path[np.concatenate([[0], changes])],
                        first_s + (len(p) - 0.5) / rate_hz)


def _crossing(p: Floats, path: NDArray[np.int64], i: int) -> float:
    """Position between frames `i - 1` and `i` at which the new state becomes more probable than the old one."""
    before, after = (float(p[k, path[i]] - p[k, path[i - 1]]) for k in (i - 1, i))
    return i - 0.5 if after <= before else i - 1 + min(1.0, max(0.0, -before / (after - before)))


def _transitions(rate_hz: float) -> Floats:
    """Transition probabilities `[4, 4]`: stay, or go to the next state; anything else is almost impossible."""
    leave = np.minimum(0.9, 1 / (np.array(_STAY_S) * rate_hz))
    onward = np.roll(np.eye(len(STATES)), 1, axis=1)
    return np.diag(1 - leave) + leave[:, None] * onward + 1e-9


def _viterbi(log_p: Floats, log_move: Floats) -> NDArray[np.int64]:
    score, back = log_p[0].copy(), np.zeros(log_p.shape, np.int64)
    for t in range(1, len(log_p)):
        reached = score[:, None] + log_move
        back[t] = reached.argmax(0)
        score = reached.max(0) + log_p[t]
    path = np.empty(len(log_p), np.int64)
    path[-1] = int(score.argmax())
    for t in range(len(log_p) - 1, 0, -1):
        path[t - 1] = back[t, path[t]]
    return path


def by_loudness(frames: NDArray[np.floating], rate_hz: float, first_s: float = 0.0) -> Segmentation:
    """The baseline: peaks of the low bands of log energies `[t, bands]` are taken for first and second heart sounds.

    Args:
        rate_hz: rate of the frames.
        first_s: time of the middle of the first frame.
    """
    from scipy.signal import find_peaks

    low = np.asarray(frames, np.float64)[:, : max(1, round(frames.shape[1] * _LOW_BANDS))].mean(1)
    smooth = np.convolve(low, np.ones(3) / 3, mode="same")
    apart = max(1, round(0.12 * rate_hz))
    peaks = find_peaks(smooth, distance=apart, prominence=0.5 * smooth.std())[0]
    half = 0.05 * rate_hz          # half a heart sound, in frames
    gaps = np.diff(peaks)
    if len(gaps) < 2:
        return Segmentation(np.array([first_s]), np.array([UNKNOWN]), first_s + len(low) / rate_hz)
    first = 0 if np.median(gaps[::2]) <= np.median(gaps[1::2]) else 1
    starts, states = [0.0], [UNKNOWN]
    for number, peak in enumerate(peaks):
        sound = STATES.index("S1" if number % 2 == first else "S2")
        starts += [max(starts[-1] + 0.1, float(peak) - half), float(peak) + half]
        states += [sound, (sound + 1) % len(STATES)]
    return Segmentation(first_s + np.array(starts) / rate_hz, np.array(states), first_s + len(low) / rate_hz)


def from_annotation(starts_s: Sequence[float], ends_s: Sequence[float], states: Sequence[str]) -> Segmentation:
    """The segmentation of one recording in a publisher's annotation `[rows]`, sorted by start; gaps are `UNKNOWN`."""
    code = {state: number for number, state in enumerate(STATES)}
    bounds: list[tuple[float, int]] = []
    following_s = [*starts_s[1:], float("inf")]
    for start, end, state, following in zip(starts_s, ends_s, states, following_s, strict=True):
        bounds.append((float(start), code.get(state, UNKNOWN)))
        if following > end + 1e-3:
            bounds.append((float(end), UNKNOWN))
    return Segmentation(np.array([b for b, _ in bounds]), np.array([s for _, s in bounds], np.int64),
                        float(max(ends_s, default=0.0)))


def measure(found: Segmentation, truth: Segmentation) -> dict[str, float]:
    """How well a segmentation agrees with an annotation, where there is an annotation.

    Returns:
        `frame_accuracy` (every 20 ms). `s1_hits`, `s1_found`, `s1_true`, and the same for `s2`: onsets that agree
        within 60 ms (each used once), onsets found, and onsets annotated. `heart_rate_error_per_min` (absolute; NaN
        where either has no heart rate).
    """
    times = np.arange(0, truth.end_s, 0.02)
    known = truth.at(times) != UNKNOWN
    right = found.at(times[known]) == truth.at(times[known])
    result = {"frame_accuracy": float(right.mean()) if known.any() else float("nan")}
    for state in ("S1", "S2"):
        onsets_s, true = found.onsets_s(state), truth.onsets_s(state)
        onsets_s = onsets_s[(truth.at(onsets_s) != UNKNOWN) | (truth.at(onsets_s + TOLERANCE_S) != UNKNOWN)]
        result |= {f"{state.lower()}_hits": _hits(onsets_s, true), f"{state.lower()}_found": len(onsets_s),
                   f"{state.lower()}_true": len(true)}
    rates = found.heart_rate_per_min, truth.heart_rate_per_min
    result["heart_rate_error_per_min"] = abs(rates[0] - rates[1]) if rates[0] and rates[1] else float("nan")
    return result


def _hits(found_s: Floats, true_s: Floats) -> int:
    """Number of pairs of onsets no further apart than the tolerance, each onset used once; both are sorted."""
    hits, i, j = 0, 0, 0
    while i < len(found_s) and j < len(true_s):
        if abs(found_s[i] - true_s[j]) <= TOLERANCE_S:
            hits, i, j = hits + 1, i + 1, j + 1
        elif found_s[i] < true_s[j]:
            i += 1
        else:
            j += 1
    return hits


def summary(measured: Sequence[Mapping[str, float]]) -> dict[str, float | None]:
    """Over many recordings: mean frame accuracy, F1 of all onsets, median and 90 % quantile of the rate's error."""
    if not measured:
        return {}
    accuracy = np.array([m["frame_accuracy"] for m in measured])
    errors = np.array([m["heart_rate_error_per_min"] for m in measured])
    result: dict[str, float | None] = {"recordings": len(measured), "frame_accuracy": _or_none(np.nanmean(accuracy))}
    for state in ("s1", "s2"):
        hits, found, true = (sum(m[f"{state}_{name}"] for m in measured) for name in ("hits", "found", "true"))
        result[f"{state}_f1"] = 2 * hits / (found + true) if found + true else None
    known = errors[~np.isnan(errors)]
    return result | {"heart_rate_told": len(known) / len(errors),
                     "heart_rate_error_median_per_min": float(np.median(known)) if len(known) else None,
                     "heart_rate_error_p90_per_min": float(np.quantile(known, 0.9)) if len(known) else None}


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
