"""A band of a recording at another sample rate, by its spectrum."""

from math import gcd

import numpy as np
import numpy.typing as npt
import scipy.fft

Floats = npt.NDArray[np.float32]
Complexes = npt.NDArray[np.complex64]


def spectrum(waveform: Floats, rate_hz: int, out_hz: int) -> tuple[Complexes, float]:
    """Spectrum of a recording [time], zero-padded to a whole number of output samples, and its bin width in Hz."""
    unit = rate_hz // gcd(rate_hz, out_hz)
    length = unit * int(scipy.fft.next_fast_len(len(waveform) // unit + 1))
    return scipy.fft.rfft(np.asarray(waveform, np.float32), length), rate_hz / length


def band_limited(waveform: Floats, rate_hz: int, out_hz: int, band_hz: tuple[float, float]) -> Floats:
    """[time] at `rate_hz` -> [time'] at `out_hz`, of the frequencies in `band_hz` alone."""
    found, bin_hz = spectrum(waveform, rate_hz, out_hz)
    band = np.zeros(round(out_hz / bin_hz) // 2 + 1, np.complex64)
    low, high = (min(round(f / bin_hz), len(found), len(band)) for f in band_hz)
    band[low:high] = found[low:high]
    signal = scipy.fft.irfft(band, round(out_hz / bin_hz))[: max(1, len(waveform) * out_hz // rate_hz)]
    return np.asarray(signal * (out_hz / rate_hz), np.float32)      # the two transforms have different lengths
