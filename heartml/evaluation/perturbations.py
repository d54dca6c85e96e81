"""Ways to degrade a recording: noise, a narrow band, gain, clipping, a wrong clock. Pure: no files.

In: waveform float32 [time] at its own rate, a level in the perturbation's unit, a generator. Out: waveform float32
[time']. Speech, friction and the room are those of `heartml.data.simulation`. A perturbation draws the same noise for
every level, so that two levels differ in nothing else.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import scipy.fft
import scipy.signal
from numpy.typing import NDArray

from heartml.data.simulation import stethoscope
from heartml.data.simulation.physiology import SAMPLE_RATE_HZ, sample_times
from heartml.data.simulation.stethoscope import Scene

Floats = NDArray[np.float64]
Waveform = NDArray[np.float32]
Noise = Callable[[int, int, np.random.Generator], Floats]
Band = tuple[float, float]
Apply = Callable[[Waveform, int, float, np.random.Generator, Band], Waveform]

WINDOW_S = 0.5              # the signal power is the median over such windows, so that a knock does not count
ORDER = 4                   # of the band limits, Butterworth


@dataclass(frozen=True)
class Perturbation:
    """One way to degrade a recording.

    Attributes:
        title: its name on pages, stored in `robustness.json`.
        level_format: how a person reads a level, for `str.format`; `scale` times the level goes in.
        apply: (waveform [time], rate in Hz, level, generator, band in Hz) -> waveform [time']. The band is where the
            sounds of the organ are (`organs` in `params.yaml`): signal-to-noise ratios are measured there.
    """

    title: str
    level_format: str
    apply: Apply
    scale: float = 1.0

    def level_in_words(self, level: float) -> str:
        """`10 dB SNR`."""
        return self.level_format.format(self.scale * level)


def _added(noise: Noise) -> Apply:
    """Adds the noise at a signal-to-noise ratio in dB; an infinite ratio adds nothing."""
    def apply(waveform: Waveform, rate_hz: int, snr_db: float, rng: np.random.Generator, band_hz: Band) -> Waveform:
        drawn = noise(len(waveform), rate_hz, rng)
        power = float(np.mean(in_band(drawn, rate_hz, band_hz) ** 2))
        if power == 0 or np.isinf(snr_db):
            return waveform
        gain = np.sqrt(signal_power(waveform, rate_hz, band_hz) / power) * 10 ** (-snr_db / 20)
        return np.asarray(waveform + gain * drawn, np.float32)

    return apply


def signal_power(waveform: Waveform, rate_hz: int, band_hz: Band) -> float:
    """Median power of half-second windows in the band; the mean power where the recording is shorter."""
    power = in_band(waveform, rate_hz, band_hz) ** 2
    window = round(WINDOW_S * rate_hz)
    whole = len(power) // window
    return float(np.median(power[: whole * window].reshape(whole, window).mean(axis=1)) if whole else power.mean())


def in_band(waveform: NDArray[np.floating], rate_hz: int, band_hz: Band) -> Floats:
    """The part of a waveform [time] in the band, [time]."""
    def response(hz: Floats) -> Floats:
        return np.asarray((hz >= band_hz[0]) & (hz <= band_hz[1]), np.float64)

    return _filtered(waveform, rate_hz, response)


def _filtered(waveform: NDArray[np.floating], rate_hz: int, response: Callable[[Floats], Floats]) -> Floats:
    """Filter by an amplitude response over Hz, without phase; silence is added at the end, against wrapping around."""
    size = scipy.fft.next_fast_len(len(waveform) + rate_hz // 5, real=True)
    hz = np.maximum(np.fft.rfftfreq(size, 1 / rate_hz), 1e-3)
    spectrum = scipy.fft.rfft(waveform.astype(np.float64), size)
    return np.asarray(scipy.fft.irfft(spectrum * response(hz), size)[: len(waveform)])


def _white(samples: int, _: int, rng: np.random.Generator) -> Floats:
    return rng.normal(size=samples)


def _simulated(make: Callable[[Scene, Floats, np.random.Generator], Floats]) -> Noise:
    """Noise of the simulator through its sensor, at any rate; drawn again until it is not silent."""
    def noise(samples: int, rate_hz: int, rng: np.random.Generator) -> Floats:
        half_seconds = -(-2 * samples // rate_hz)          # a round number of samples at either rate
        time = sample_times(half_seconds / 2)
        drawn = np.zeros(len(time))
        while not drawn.any():
            drawn = make(_scene(rng), time, rng)
        recorded = stethoscope.apply_response(drawn, stethoscope.sensor_response(len(time)))
        if rate_hz != SAMPLE_RATE_HZ:
            recorded = np.asarray(scipy.signal.resample(recorded, -(-half_seconds * rate_hz // 2)))
        return recorded[:samples]

    return noise


def _scene(rng: np.random.Generator) -> Scene:
    """An ordinary clinic: somebody speaks half of the time, and the chest piece is rubbed twice a second."""
    return Scene(
        gain_db=0.0, chest_hz=230.0, noise_db=0.0, hiss_db=-13.5, breath_share=0.5,
        breath_hz=float(rng.uniform(0.2, 0.6)), breath_start=float(rng.uniform(0, 2 * np.pi)), hum_db=-24.0,
        voice_db=0.0, voice_hz=float(rng.uniform(110, 260)), voice_share=0.5, rubs_per_s=2.0, rub_db=0.0,
    )


def _lowpass(waveform: Waveform, rate_hz: int, corner_hz: float, _: np.random.Generator, __: Band) -> Waveform:
    """A sensor, or a thick shirt, that stops high frequencies."""
    def response(hz: Floats) -> Floats:
        return np.asarray(1 / np.sqrt(1 + (hz / corner_hz) ** (2 * ORDER)))

    return _filtered(waveform, rate_hz, response).astype(np.float32)


def _highpass(waveform: Waveform, rate_hz: int, corner_hz: float, _: np.random.Generator, __: Band) -> Waveform:
    """A microphone that does not record low frequencies, as a telephone's."""
    def response(hz: Floats) -> Floats:
        return np.asarray(1 / np.sqrt(1 + (corner_hz / hz) ** (2 * ORDER)))

    return _filtered(waveform, rate_hz, response).astype(np.float32)


def _gain(waveform: Waveform, _: int, gain_db: float, __: np.random.Generator, ___: Band) -> Waveform:
    return waveform * np.float32(10 ** (gain_db / 20))


def _clip(waveform: Waveform, _: int, share: float, __: np.random.Generator, ___: Band) -> Waveform:
    """An amplifier that overloads: the loudest `share` of the samples is cut to the level below them."""
    limit = np.quantile(np.abs(waveform), 1 - share, method="lower")
    return np.clip(waveform, -limit, limit)


def _clock(waveform: Waveform, _: int, share: float, __: np.random.Generator, ___: Band) -> Waveform:
    """A clock that is fast by `share`: a second has more samples than the rate says, so all seems slower."""
    samples = max(1, round(len(waveform) * (1 + share)))
    return waveform if samples == len(waveform) else np.asarray(scipy.signal.resample(waveform, samples), np.float32)


PERTURBATIONS: Mapping[str, Perturbation] = {
    "white_snr_db": Perturbation("White noise", "{:g} dB SNR", _added(_white)),
    "room_snr_db": Perturbation("Room and breath", "{:g} dB SNR", _added(_simulated(stethoscope.background))),
    "speech_snr_db": Perturbation("Speech", "{:g} dB SNR", _added(_simulated(stethoscope.voice))),
    "friction_snr_db": Perturbation("Friction", "{:g} dB SNR", _added(_simulated(stethoscope.friction))),
    "lowpass_hz": Perturbation("Nothing above", "{:g} Hz", _lowpass),
    "highpass_hz": Perturbation("Nothing below", "{:g} Hz", _highpass),
    "gain_db": Perturbation("Gain", "{:+g} dB", _gain),
    "clipped_share": Perturbation("Clipping", "{:g} % of the samples", _clip, 100.0),
    "clock_share": Perturbation("Clock", "{:+g} %", _clock, 100.0),
}
