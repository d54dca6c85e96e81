"""The sound of breathing lungs on the chest, before heart, room and sensor are added. Pure.

In: a kind of adventitious sound, breaths, a generator. Out: `Breaths` and signals [time], float64, at 4 kHz. The unit:
inspiration of a normal breath has an RMS of 1.

Sources
    Normal breath: power falls steadily above 75 to 100 Hz, inspiration is louder than expiration (Gavriely et al. 1981,
        J Appl Physiol 50:307; Pasterkamp et al. 1997, Am J Respir Crit Care Med 156:974).
    Wheezes are sinusoids of 100 ms and longer, dominant from some 400 Hz on, rhonchi the same below 300 Hz (CORSA:
        Sovijaervi et al. 2000, Eur Respir Rev 10:597; ATS: from 400 Hz, and below 200 Hz).
    Crackles: initial deflection and first two cycles last 0.7 and 5 ms in fine ones, 1.5 and 10 ms in coarse ones (ATS,
        after Murphy et al. 1977, N Engl J Med 296:968; CORSA: fine below, coarse above 10 ms). Fine ones come late in
        inspiration, coarse ones early in it and in expiration, and are fewer (Pasterkamp et al. 1997). The wave is that
        of Kiyokawa et al. 2001, Chest 119:1886.
    Pleural rub: short bursts longer than 15 ms, below 350 Hz, in both phases (Bohadana et al. 2014, N Engl J Med
        370:744).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from heartml.data.simulation.physiology import SAMPLE_RATE_HZ, Array, shaped_noise, spectrum_hz

NORMAL = "Normal"
CRACKLES_MS = {"Fine Crackles": (0.7, 5.0), "Coarse Crackles": (1.5, 10.0)}     # initial deflection, two cycles
WHEEZE_HZ, RHONCHUS_HZ = (350.0, 900.0), (90.0, 190.0)
SHORTEST_S = 0.1            # of a wheeze or rhonchus
_EXPIRATION = 0.5           # amplitude, against inspiration
_RUB_S, _RUB_HZ = (0.018, 0.045), (80.0, 300.0)


@dataclass(frozen=True)
class Breaths:
    """Respiratory cycles, each field [breaths] in s: start of inspiration, of expiration, and its end."""

    start_s: Array
    turn_s: Array
    end_s: Array


def draw_breaths(breath_hz: float, seconds: float, rng: np.random.Generator) -> Breaths:
    """Breaths that cover a recording: the first begins before time 0, the last ends after it.

    Inspiration takes two fifths of a breath, a pause the end of it.
    """
    count = int(seconds * breath_hz * 1.6) + 4
    length_s = np.exp(rng.normal(0, 0.1, count)) / breath_hz
    start_s = np.cumsum(length_s) - length_s - rng.uniform(0, length_s[0])
    turn_s = start_s + length_s * np.clip(rng.normal(0.4, 0.03, count), 0.3, 0.5)
    inside = start_s < seconds
    return Breaths(start_s[inside], turn_s[inside], (start_s + length_s)[inside])


def vesicular(breaths: Breaths, corner_hz: float, time: Array, rng: np.random.Generator) -> Array:
    """The normal sound of breath [time]: noise that falls above `corner_hz` and swells with the flow of air."""
    hz = np.maximum(spectrum_hz(len(time)), 1.0)
    noise = shaped_noise(1 / (np.sqrt(1 + (70 / hz) ** 4) * (1 + (hz / corner_hz) ** 2)), rng)
    flow = _flow(breaths, time)
    swell = np.clip(flow, 0, None) + _EXPIRATION * np.clip(-flow, 0, None)
    return np.asarray(noise * swell / np.sqrt(np.mean(flow[flow > 0] ** 2) if (flow > 0).any() else 1.0))


def _flow(breaths: Breaths, time: Array) -> Array:
    """Flow of air [time]: up to 1 in inspiration, down to -1 in expiration, which fades into a pause."""
    at = np.clip(np.searchsorted(breaths.start_s, time, side="right") - 1, 0, None)
    start, turn, end = breaths.start_s[at], breaths.turn_s[at], breaths.end_s[at]
    inward = np.clip((time - start) / (turn - start), 0, 1)
    outward = np.clip((time - turn) / (0.8 * (end - turn)), 0, 1)
    return np.asarray(np.where(time < turn, np.sin(np.pi * inward), -np.sin(np.pi * outward**0.7)))


def wheezes(breaths: Breaths, time: Array, rng: np.random.Generator) -> Array:
    """Wheezes [time], in expiration, in half of the people in inspiration too."""
    return _tones(breaths, WHEEZE_HZ, (1.0, 0.12), (rng.random() < 0.5, True), time, rng)


def rhonchi(breaths: Breaths, time: Array, rng: np.random.Generator) -> Array:
    """Rhonchi [time]: low tones with many harmonics, in expiration and mostly in inspiration."""
    return _tones(breaths, RHONCHUS_HZ, (1.0, 0.6, 0.35, 0.2), (rng.random() < 0.8, True), time, rng)


def _tones(
    breaths: Breaths, band_hz: tuple[float, float], harmonics: tuple[float, ...], phases: tuple[bool, bool],
    time: Array, rng: np.random.Generator,
) -> Array:
    """A sinusoid with harmonics of the same pitch in each breath [time], which rises or falls a little while it lasts.

    Args:
        harmonics: their amplitudes.
        phases: whether there is one in inspiration, and in expiration.
    """
    out = np.zeros(len(time))
    own_hz = np.exp(rng.uniform(*np.log(band_hz)))
    for start, turn, end in zip(breaths.start_s, breaths.turn_s, breaths.end_s, strict=True):
        for here, first, last in ((phases[0], start, turn), (phases[1], turn, end)):
            length = max(SHORTEST_S, rng.uniform(0.35, 0.8) * (last - first))
            begin = first + rng.uniform(0.05, 0.2) * (last - first)
            if here and rng.random() < 0.9:
                _add_tone(out, begin, length, own_hz * np.exp(rng.normal(0, 0.04)), harmonics, time, rng)
    return out


def _add_tone(out: Array, begin_s: float, length_s: float, pitch_hz: float, harmonics: tuple[float, ...], time: Array,
              rng: np.random.Generator) -> None:
    first, last = np.searchsorted(time, (begin_s, begin_s + length_s))
    own = time[first:last] - begin_s
    phase = 2 * np.pi * pitch_hz * (own + rng.normal(0, 0.03) * own**2 / length_s)
    edge = np.clip(np.minimum(own, length_s - own) / 0.02, 0, 1)
    level = np.exp(rng.normal(0, 0.2))
    for number, amplitude in enumerate(harmonics, 1):
        out[first:last] += level * edge * amplitude * np.sin(number * phase + rng.uniform(0, 2 * np.pi))


def crackle(deflection_ms: float, two_cycles_ms: float, rate_hz: float = SAMPLE_RATE_HZ) -> Array:
    """The wave of one crackle [time], as Kiyokawa et al. give it: its peak is about one.

    >>> wave = crackle(1.5, 10.0)
    >>> len(wave), int((np.diff(np.sign(wave[1:-1])) != 0).sum())      # two cycles change their sign three times
    (40, 3)
    """
    t = np.arange(round(two_cycles_ms / 1000 * rate_hz)) / (two_cycles_ms / 1000 * rate_hz)
    power = np.log(0.25) / np.log(deflection_ms / two_cycles_ms)
    return np.asarray(np.sin(4 * np.pi * t**power) * 0.5 * (1 + np.cos(2 * np.pi * (np.sqrt(t) - 0.5))))


def crackles(kind: str, breaths: Breaths, time: Array, rng: np.random.Generator) -> Array:
    """Fine or coarse crackles [time] at the times in a breath at which they come; each differs a little in width."""
    fine = kind == "Fine Crackles"
    out = np.zeros(len(time))
    width = np.exp(rng.normal(0, 0.08))
    each = rng.uniform(8, 16) if fine else rng.uniform(3, 7)
    for start, turn, end in zip(breaths.start_s, breaths.turn_s, breaths.end_s, strict=True):
        for centre in _crackle_times(fine, (start, turn, end), each, rng):
            deflection_ms, two_cycles_ms = (ms * width * np.exp(rng.normal(0, 0.08)) for ms in CRACKLES_MS[kind])
            _put(out, centre, np.exp(rng.normal(0, 0.35)) * crackle(deflection_ms, two_cycles_ms))
    return out


def _crackle_times(fine: bool, breath: tuple[float, float, float], each: float, rng: np.random.Generator) -> Array:
    start, turn, end = breath
    inward = rng.poisson(each)
    if fine:
        return np.asarray(turn - np.abs(rng.normal(0, 0.22, inward)) * (turn - start))
    early = start + rng.uniform(0.05, 0.6, inward) * (turn - start)
    return np.concatenate([early, turn + rng.uniform(0.05, 0.5, rng.poisson(each / 2)) * (end - turn)])


def rub(breaths: Breaths, time: Array, rng: np.random.Generator) -> Array:
    """A pleural rub [time]: the same few grating bursts in each breath, turned round in expiration."""
    out = np.zeros(len(time))
    places, lengths = np.sort(rng.uniform(0.15, 0.9, rng.integers(4, 9))), rng.uniform(*_RUB_S, 9)
    for start, turn, end in zip(breaths.start_s, breaths.turn_s, breaths.end_s, strict=True):
        for first, last, along in ((start, turn, places), (turn, end, 1 - places)):
            for place, length in zip(along, lengths, strict=False):
                count = 2 * round(length * SAMPLE_RATE_HZ / 2)
                hz = spectrum_hz(count)
                noise = shaped_noise(((hz > _RUB_HZ[0]) & (hz < _RUB_HZ[1])).astype(np.float64), rng)
                burst = np.exp(rng.normal(0, 0.25)) * noise * np.hanning(count)
                _put(out, first + (place + rng.normal(0, 0.01)) * (last - first), burst)
    return out


def _put(out: Array, at_s: float, wave: Array) -> None:
    """Add a wave to `out` from a time on; what lies outside is lost."""
    first = round(at_s * SAMPLE_RATE_HZ)
    begin, end = max(0, first), min(len(out), first + len(wave))
    if begin < end:
        out[begin:end] += wave[begin - first : end - first]


Adventitious = Callable[[Breaths, Array, np.random.Generator], Array]
ADVENTITIOUS: Mapping[str, tuple[Adventitious, float]] = {     # sound, and its level in dB against normal breath
    "Wheezing": (wheezes, 3.0),
    "Fine Crackles": (lambda breaths, time, rng: crackles("Fine Crackles", breaths, time, rng), 12.0),
    "Coarse Crackles": (lambda breaths, time, rng: crackles("Coarse Crackles", breaths, time, rng), 12.0),
    "Rhonchi": (rhonchi, 2.0),
    "Pleural Rub": (rub, 9.0),
}
