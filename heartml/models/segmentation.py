"""Heart states over time: S1, systole, S2, diastole, from what a network says of every frame, or from loudness.

Frame posteriors become one path through the heart's cycle (Viterbi over a hidden Markov model whose states follow each
other as in Schmidt et al., Segmentation of heart sound recordings by a duration-dependent hidden Markov model, 2010).
That a publisher left a stretch without annotation says nothing about the heart: it beats there as well. `by_loudness`
is the baseline: peaks of the low bands, told apart by systole being the shorter interval. `measure` holds either
against a publisher's annotation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heartml.core.schema import STATES
from heartml.models.heads.segment_features import DIASTOLE, FIRST_SYSTOLE, S1, S2

Floats = NDArray[np.float64]
UNKNOWN = len(STATES)                   # no state can be told
TOLERANCE_S = 0.06                      # of an onset: that of Schmidt et al. (2010)
_STAY_S = (0.12, 0.15, 0.10, 0.35)      # mean durations of STATES in children
_LOW_BANDS = 1 / 6                      # of 25 to 800 Hz: the first and second sound are loudest below 150 Hz
_RATES_PER_MIN = (40.0, 220.0)


@dataclass(frozen=True)
class Segmentation:
    """States of one recording.

    Attributes:
        starts_s: `[n]`, where each state begins, increasing.
        states: `[n]`, index into `STATES`, or `UNKNOWN`.
        end_s: where the last one ends.
    """

    starts_s: Floats
    states: NDArray[np.int64]
    end_s: float

    def onsets_s(self, state: str) -> Floats:
        """Where a state begins: `[times]`."""
        return np.asarray(self.starts_s[self.states == STATES.index(state)])

    def at(self, times_s: Floats) -> NDArray[np.int64]:
        """State at each time, `UNKNOWN` outside: `[times]`."""
        which = np.searchsorted(self.starts_s, times_s, side="right") - 1
        inside = (which >= 0) & (times_s < self.end_s)
        return np.asarray(np.where(inside, self.states[np.maximum(which, 0)] if len(self.states) else UNKNOWN, UNKNOWN))

    @property
    def heart_rate_per_min(self) -> float | None:
        """From the median interval between onsets of S1 that are a cycle apart; `None` where fewer than three are."""
        beats_s = np.diff(self.onsets_s("S1"))
        low, high = (60 / rate for rate in reversed(_RATES_PER_MIN))
        whole = beats_s[(beats_s >= low) & (beats_s <= high)]
        return 60 / float(np.median(whole)) if len(whole) >= 3 else None


def decode(posteriors: NDArray[np.floating], rate_hz: float, first_s: float = 0.0) -> Segmentation:
    """The likeliest path through the cycle.

    Args:
        posteriors: `[t, 4 + classes]`, columns as in `heartml.models.heads.segment_features`: systole is told by class.
        rate_hz: of these frames; `first_s`: the middle of the first one.
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
    """Where between frames `i - 1` and `i` the new state becomes likelier than the old one, in frames."""
    before, after = (float(p[k, path[i]] - p[k, path[i - 1]]) for k in (i - 1, i))
    return i - 0.5 if after <= before else i - 1 + min(1.0, max(0.0, -before / (after - before)))


def _transitions(rate_hz: float) -> Floats:
    """`[4, 4]`: stay, or go on in the cycle; anything else next to never."""
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
    """Peaks of the low bands as first and second feature_set: `[t, bands]` log energies; what learning must beat."""
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


def of_annotation(starts_s: Sequence[float], ends_s: Sequence[float], states: Sequence[str]) -> Segmentation:
    """A publisher's annotation of one recording, gaps as `UNKNOWN`; rows by start."""
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
    """How well a segmentation agrees with an annotation, over what is annotated.

    Returns:
        `frame_accuracy` (every 20 ms), `s1_*` and `s2_*` counts `hits`, `found`, `true` of onsets within 60 ms (one to
        one), `heart_rate_error_per_min` (absolute; NaN where either has none).
    """
    times = np.arange(0, truth.end_s, 0.02)
    known = truth.at(times) != UNKNOWN
    right = found.at(times[known]) == truth.at(times[known])
    result = {"frame_accuracy": float(right.mean()) if known.any() else float("nan")}
    for state in ("S1", "S2"):
        said, true = found.onsets_s(state), truth.onsets_s(state)
        said = said[(truth.at(said) != UNKNOWN) | (truth.at(said + TOLERANCE_S) != UNKNOWN)]
        result |= {f"{state.lower()}_hits": _hits(said, true), f"{state.lower()}_found": len(said),
                   f"{state.lower()}_true": len(true)}
    rates = found.heart_rate_per_min, truth.heart_rate_per_min
    result["heart_rate_error_per_min"] = abs(rates[0] - rates[1]) if rates[0] and rates[1] else float("nan")
    return result


def _hits(found_s: Floats, true_s: Floats) -> int:
    """Pairs of onsets no further apart than the tolerance, each used once; both sorted."""
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
    """Of many recordings: mean frame accuracy, F1 of all onsets, median and 90 % quantile of the rate's error."""
    if not measured:
        return {}
    accuracy = np.array([m["frame_accuracy"] for m in measured])
    errors = np.array([m["heart_rate_error_per_min"] for m in measured])
    result: dict[str, float | None] = {"recordings": len(measured), "frame_accuracy": _or_none(np.nanmean(accuracy))}
    for state in ("s1", "s2"):
        hits, said, true = (sum(m[f"{state}_{name}"] for m in measured) for name in ("hits", "found", "true"))
        result[f"{state}_f1"] = 2 * hits / (said + true) if said + true else None
    told = errors[~np.isnan(errors)]
    return result | {"heart_rate_told": len(told) / len(errors),
                     "heart_rate_error_median_per_min": float(np.median(told)) if len(told) else None,
                     "heart_rate_error_p90_per_min": float(np.quantile(told, 0.9)) if len(told) else None}


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
