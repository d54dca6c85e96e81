"""From a decoded waveform to the input of an encoder: one sample rate, no DC offset, high-passed, one level."""

from functools import lru_cache
from math import gcd
from typing import Any

import numpy as np

from heartml.audio.sound_files import Waveform
from heartml.core.config import AudioParams

MOST_PHASES = 500      # outputs in a period of torchaudio's kernel
ROLLOFF = 0.99         # of the windowed sinc, as torchaudio has it


def prepare(waveform: Waveform, sample_rate_hz: int, params: AudioParams) -> Waveform:
    """The input of every encoder: [time] -> [time'] at `params.sample_rate_hz`, no DC offset, high-passed, level 1.

    The level is the median over half-second windows. So the sensor's gain does not change the result, and a knock on
    the sensor hardly does. Silence stays zero.
    """
    centred = waveform - waveform.mean(dtype=np.float64).astype(np.float32)
    resampled = resample(centred, sample_rate_hz, params)
    filtered = _highpass(resampled, params)
    level = _level(filtered, params.sample_rate_hz // 2)
    return filtered / np.float32(level) if level > 0 else filtered


def resample(waveform: Waveform, sample_rate_hz: int, params: AudioParams) -> Waveform:
    """[time] at `sample_rate_hz` -> [time'] at `params.sample_rate_hz`; nothing else is changed."""
    if sample_rate_hz == params.sample_rate_hz:
        return waveform
    if params.sample_rate_hz // gcd(sample_rate_hz, params.sample_rate_hz) > MOST_PHASES:
        return _resampled_by_block(waveform, sample_rate_hz, params)
    import torch

    return _resampler(sample_rate_hz, params)(torch.from_numpy(waveform)).numpy()  # type: ignore[no-any-return]


def _resampled_by_block(waveform: Waveform, sample_rate_hz: int, params: AudioParams) -> Waveform:
    """What `_resampler` gives, for rates that share no large divisor: 44101 Hz, for instance.

    torchaudio's kernel has a row for each output of a period, as long as the period: gigabytes. Here a row is as long
    as the window of its output.
    """
    divisor = gcd(sample_rate_hz, params.sample_rate_hz)
    old, new = sample_rate_hz // divisor, params.sample_rate_hz // divisor
    base = min(old, new) * ROLLOFF
    width = int(np.ceil(params.resample_filter_width * old / base))
    centre = np.arange(new) * old // new                                       # [new], of a period's outputs
    taps = centre[:, None] + np.arange(-width, width + 2)
    time = (taps / old - np.arange(new)[:, None] / new) * base
    time = np.clip(time, -params.resample_filter_width, params.resample_filter_width)
    kernel = np.sinc(time) * np.cos(time * np.pi / params.resample_filter_width / 2) ** 2 * base / old
    periods = len(waveform) // old + 1
    padded = np.pad(waveform.astype(np.float64), (width, periods * old + width + 2 - len(waveform)))
    found = [(padded[period * old + taps + width] * kernel).sum(axis=1) for period in range(periods)]
    return np.concatenate(found)[: -(-new * len(waveform) // old)].astype(np.float32)


@lru_cache(maxsize=16)
def _resampler(sample_rate_hz: int, params: AudioParams) -> Any:
    """torchaudio's windowed sinc. It is cached, because making its kernel costs more than resampling a recording."""
    from torchaudio.transforms import Resample

    return Resample(sample_rate_hz, params.sample_rate_hz, lowpass_filter_width=params.resample_filter_width)


def _highpass(waveform: Waveform, params: AudioParams) -> Waveform:
    """High-pass with a zero-phase Butterworth response of order 4, by FFT.

    Source: Proakis & Manolakis, Digital Signal Processing, 10.3.4. The ends are continued by odd reflection for a fifth
    of a second, which is four periods of 20 Hz.
    """
    import scipy.fft  # in float32 twice as fast as numpy's

    edge = params.sample_rate_hz // 5
    padded = np.pad(waveform, edge, mode="reflect", reflect_type="odd") if len(waveform) > 1 else np.pad(waveform, edge)
    size = -(-len(padded) // 4096) * 4096     # few different lengths, at which the FFT is fast
    filtered = scipy.fft.irfft(scipy.fft.rfft(padded, size) * _butterworth(size, params), size)
    return np.asarray(filtered[edge : edge + len(waveform)], np.float32)


@lru_cache(maxsize=64)
def _butterworth(size: int, params: AudioParams) -> Waveform:
    frequency_hz = np.fft.rfftfreq(size, 1 / params.sample_rate_hz)
    gain = np.zeros(len(frequency_hz), np.float32)
    gain[1:] = 1 / np.sqrt(1 + (params.highpass_hz / frequency_hz[1:]) ** 8)
    return gain


def _level(waveform: Waveform, window: int) -> float:
    """Root of the median over windows of the mean square.

    Where most windows are silent or none is whole, the root mean square of the whole waveform.
    """
    whole = len(waveform) // window
    power = np.square(waveform, dtype=np.float64)
    median = float(np.median(power[: whole * window].reshape(whole, window).mean(axis=1))) if whole else 0.0
    mean = float(power.mean()) if len(power) else 0.0
    return float(np.sqrt(median if median > mean * 1e-6 else mean))
