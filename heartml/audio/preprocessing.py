"""What an encoder of heart sounds hears: waveforms at one rate, without DC, high-passed, at one level."""

from functools import lru_cache
from typing import Any

import numpy as np

from heartml.audio.sound_files import Waveform
from heartml.core.config import AudioParams


def prepare(waveform: Waveform, sample_rate_hz: int, params: AudioParams) -> Waveform:
    """What every encoder hears: [time] -> [time'] at `params.sample_rate_hz`, without DC, high-passed, at one level.

    The level is the median over half-second windows: neither the sensor's gain nor a knock on it shows in the result.
    Silence stays zero.
    """
    centred = waveform - waveform.mean(dtype=np.float64).astype(np.float32)
    resampled = _resample(centred, sample_rate_hz, params)
    filtered = _highpass(resampled, params)
    level = _level(filtered, params.sample_rate_hz // 2)
    return filtered / np.float32(level) if level > 0 else filtered


def _resample(waveform: Waveform, sample_rate_hz: int, params: AudioParams) -> Waveform:
    if sample_rate_hz == params.sample_rate_hz:
        return waveform
    import torch

    return _resampler(sample_rate_hz, params)(torch.from_numpy(waveform)).numpy()  # type: ignore[no-any-return]


@lru_cache(maxsize=16)
def _resampler(sample_rate_hz: int, params: AudioParams) -> Any:
    """torchaudio's windowed sinc; its kernel costs more than a recording, so it is kept."""
    from torchaudio.transforms import Resample

    return Resample(sample_rate_hz, params.sample_rate_hz, lowpass_filter_width=params.resample_filter_width)


def _highpass(waveform: Waveform, params: AudioParams) -> Waveform:
    """Zero-phase Butterworth response of order 4 (Proakis & Manolakis, Digital Signal Processing, 10.3.4) by FFT.

    The ends are continued by odd reflection for a fifth of a second, four periods of 20 Hz.
    """
    import scipy.fft  # in float32 twice as fast as numpy's

    edge = params.sample_rate_hz // 5
    padded = np.pad(waveform, edge, mode="reflect", reflect_type="odd") if len(waveform) > 1 else np.pad(waveform, edge)
    size = -(-len(padded) // 4096) * 4096     # few lengths, and the FFT is fast at them
    filtered = scipy.fft.irfft(scipy.fft.rfft(padded, size) * _butterworth(size, params), size)
    return np.asarray(filtered[edge : edge + len(waveform)], np.float32)


@lru_cache(maxsize=64)
def _butterworth(size: int, params: AudioParams) -> Waveform:
    frequency_hz = np.fft.rfftfreq(size, 1 / params.sample_rate_hz)
    gain = np.zeros(len(frequency_hz), np.float32)
    gain[1:] = 1 / np.sqrt(1 + (params.highpass_hz / frequency_hz[1:]) ** 8)
    return gain


def _level(waveform: Waveform, window: int) -> float:
    """Median over windows of the root mean square; over everything where most windows are silent or none is whole."""
    whole = len(waveform) // window
    power = np.square(waveform, dtype=np.float64)
    median = float(np.median(power[: whole * window].reshape(whole, window).mean(axis=1))) if whole else 0.0
    mean = float(power.mean()) if len(power) else 0.0
    return float(np.sqrt(median if median > mean * 1e-6 else mean))
