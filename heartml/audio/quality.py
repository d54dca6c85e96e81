"""Signal quality of one recording: a waveform arrives; level, DC offset, clipping, bandwidth, warnings leave.

Used by validation (every recording), the report (its worst errors) and prediction (its warnings). Pure.
"""

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from heartml.core.config import ValidateParams
from heartml.core.task_definition import HEART, Organ

if TYPE_CHECKING:
    import pandas as pd

FRAME_S = 0.05
LOUD = 0.9                  # of full scale; a peak below it is no clipping
RUMBLE_HZ = 20              # below it no heart sound is heard, but footsteps, breath and the hand on the sensor
AT_RAIL = 0.999             # of the peak; samples above it count as clipped
_FLOOR = 1e-10              # power, -100 dBFS


@dataclass(frozen=True)
class Quality:
    """Signal quality of one recording; amplitudes as shares of full scale.

    Attributes:
        seconds: length.
        peak: largest absolute sample.
        level_db: RMS without DC, dB below full scale.
        dc: mean of the samples.
        clipped_share: share of clipped samples.
        bandwidth_hz: 99 % of the energy is below it (without DC).
        silent_share: share of 50 ms frames below -80 dBFS.
        contrast_db: 90th less 10th percentile of the frames' level: how far heart sounds (or breath)
            rise above what is between.
        heard_bandwidth_hz: 99.9 % of the energy above RUMBLE_HZ is below it. Rumble decides where 99 % of all energy
            is, and heart sounds alone may have 99 % below 100 Hz; a sensor that is muffled leaves nothing above.
    """

    seconds: float
    peak: float
    level_db: float
    dc: float
    clipped_share: float
    bandwidth_hz: float
    silent_share: float
    contrast_db: float
    heard_bandwidth_hz: float

    @classmethod
    def from_table(cls, measured: "pd.DataFrame") -> list[Self]:
        """The rows of a table that has a column for each measure."""
        names = [field.name for field in fields(cls)]
        return [cls(**dict(zip(names, row, strict=True))) for row in measured[names].itertuples(index=False)]


def measure(waveform: npt.NDArray[np.float32], sample_rate_hz: int) -> Quality:
    """Measure samples [time] in [-1, 1].

    An empty recording has zeros, a level of -100 dB and a silent share of 1.

    >>> second = np.arange(4000) / 4000
    >>> found = measure(np.sin(2 * np.pi * 100 * second).astype(np.float32), 4000)      # a tone of 100 Hz
    >>> round(found.level_db, 2), found.bandwidth_hz, found.silent_share      # power 1/2 is -3.01 dB
    (-3.01, 100.0, 0.0)
    """
    if not len(waveform):
        return Quality(0.0, 0.0, -100.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0)
    dc = float(np.mean(waveform, dtype=np.float64))
    centred = np.asarray(waveform - np.float32(dc), np.float32)
    power, above_rumble = _spectrum(centred, sample_rate_hz)
    frames_db = _frame_levels_db(centred, sample_rate_hz)
    low, high = np.percentile(frames_db, [10, 90])
    return Quality(
        seconds=len(waveform) / sample_rate_hz,
        peak=float(np.abs(waveform).max()),
        level_db=_decibels(float(np.mean(np.square(centred, dtype=np.float64)))),
        dc=dc,
        clipped_share=_clipped_share(waveform),
        bandwidth_hz=_reached_hz(power, 0.99, sample_rate_hz),
        silent_share=float(np.mean(frames_db < -80)),
        contrast_db=float(high - low),
        heard_bandwidth_hz=_reached_hz(power * above_rumble, 0.999, sample_rate_hz),
    )


def warnings(quality: Quality, params: ValidateParams, organ: Organ = HEART) -> dict[str, str]:
    """Warnings for people, the worst first: a word for a table -> a sentence; empty for a good recording.

    Args:
        params: the limits for this organ, see `Params.for_organ`.
        organ: what is heard.
    """
    rules = [
        (quality.silent_share >= 0.5, "silent", f"{quality.silent_share:.0%} of it is silent"),
        (quality.seconds < params.short_seconds, "short", f"only {quality.seconds:.2f} s long"),
        (quality.clipped_share > params.clipped_share, "clipped",
         f"{quality.clipped_share:.1%} of the samples are clipped"),
        (quality.peak < params.quiet_peak, "quiet", f"very quiet: the peak is {quality.peak:.3f} of full scale"),
        (abs(quality.dc) > params.dc_offset, "offset", f"DC offset of {quality.dc:+.2f} of full scale"),
        (quality.heard_bandwidth_hz < params.bandwidth_hz, "muffled",
         f"muffled: above {quality.heard_bandwidth_hz:.0f} Hz there is next to nothing"),
        (quality.contrast_db < params.contrast_db, f"no {organ} sounds",
         f"no {organ} sounds stand out: loud and quiet moments differ by {quality.contrast_db:.1f} dB"),
    ]
    return {word: sentence for applies, word, sentence in rules if applies}


def _decibels(power: float) -> float:
    return float(10 * np.log10(max(power, _FLOOR)))


def _frame_levels_db(centred: npt.NDArray[np.float32], sample_rate_hz: int) -> npt.NDArray[np.float64]:
    """Levels in dB of the whole frames of FRAME_S: [frames]; one frame where the recording is shorter than that."""
    size = min(len(centred), max(1, int(FRAME_S * sample_rate_hz)))
    frames = centred[: len(centred) // size * size].reshape(-1, size)
    return np.asarray(10 * np.log10(np.maximum(np.mean(np.square(frames), axis=1, dtype=np.float64), _FLOOR)))


def _clipped_share(waveform: npt.NDArray[np.float32]) -> float:
    """Share of samples at the recording's own peak, if that is at least LOUD (8-bit samples end at 0.992)."""
    size = np.abs(waveform)
    peak = size.max()
    return float(np.mean(size >= AT_RAIL * peak)) if peak >= LOUD else 0.0


def _spectrum(
    centred: npt.NDArray[np.float32], sample_rate_hz: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Power [frequencies] from 0 Hz to half the rate, and which of them lie above the rumble."""
    power = np.abs(np.fft.rfft(centred, fast_length(len(centred)))) ** 2
    return power, np.linspace(0, sample_rate_hz / 2, len(power)) >= RUMBLE_HZ


def fast_length(length: int) -> int:
    """The smallest number from `length` on that only 2, 3 and 5 divide: a Fourier transform of it is quick.

    SciPy's `next_fast_len(length, real=True)` is the same; importing it takes longer than predicting for a recording.

    >>> fast_length(7), fast_length(4001), fast_length(92_001)
    (8, 4050, 92160)
    """
    best = _with_twos(1, length)
    fives = 1
    while fives < best:
        odd = fives
        while odd < best:
            best = min(best, _with_twos(odd, length))
            odd *= 3
        fives *= 5
    return best


def _with_twos(odd: int, length: int) -> int:
    """`odd` times the smallest power of two that reaches `length`."""
    return odd << max(0, (-(-length // odd) - 1).bit_length())


def _reached_hz(power: npt.NDArray[np.float32], share: float, sample_rate_hz: int) -> float:
    """The frequency up to which this share of the energy is; 0 for silence."""
    total = np.cumsum(power, dtype=np.float64)
    if total[-1] <= _FLOOR:
        return 0.0
    return float(np.searchsorted(total, share * total[-1]) * sample_rate_hz / 2 / max(1, len(power) - 1))
