"""The sound of a beating heart on the chest, before breath, room and sensor are added. Pure.

In: a `Heart` (a person's rhythm and valves), perhaps a `Murmur`, a generator. Out: `Beats` (times at which the valves
close, s) and signals [time], float64, at 4 kHz. The unit: the first heart sound at the tricuspid area has an RMS of 1.

Sources
    Rhythm: respiratory and slow (0.1 Hz) modulation of the RR interval as in McSharry et al. 2003, IEEE TBME 50:289.
    Systole: shortens linearly with heart rate in children (Spitaels et al. 1974, Circulation 49:1107; Wanderman et al.
        1981, Circulation 63:204); 395 ms - 1.32 ms/bpm +- 20 ms from S1 to S2 is our fit to CirCor's annotations.
    S1, S2: sums of short oscillations, one a valve, gliding in pitch (Xu et al. 2001, IEEE TBME 48:277); the model of
        a whole cycle in time follows Almasi et al. 2011, IEEE EMBC, p. 5686. A2 and P2 part in inspiration.
    Murmurs: timing and shape after Leatham 1958, Circulation 17:601; graded by loudness, described as in Oliveira et
        al. 2022, IEEE JBHI 26:2524 (CirCor).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SAMPLE_RATE_HZ = 4000
UNANNOTATED, S1, SYSTOLE, S2, DIASTOLE = range(5)          # codes of CirCor's .tsv
PITCH_HZ = {"Low": 105.0, "Medium": 180.0, "High": 310.0}
GRADE_DB = {"I/VI": -10.0, "II/VI": -4.5, "III/VI": 2.0}   # RMS in the murmur's time against S1, loudest location
TIMING = {                                                 # from, to, as shares of the phase between the two sounds
    "Holosystolic": (0.0, 1.0), "Early-systolic": (0.0, 0.5), "Mid-systolic": (0.15, 0.85), "Late-systolic": (0.5, 1.0),
    "Early-diastolic": (0.0, 0.45), "Holodiastolic": (0.0, 1.0), "Mid-diastolic": (0.25, 0.7),
}
_BANDWIDTH_OCTAVES = {"Harsh": 0.95, "Blowing": 0.5}


@dataclass(frozen=True)
class Heart:
    """One person's heart, whatever the auscultation location. Levels are in dB against S1; -inf: there is none."""

    rate_bpm: float
    variation: float            # coefficient of variation of the RR interval
    breath_hz: float
    systole_offset_s: float     # this person's S1-S2 interval against the regression
    s1_s: float
    s2_s: float
    s1_hz: float
    s2_hz: float
    snap: float                 # share of a valve's short, high partial in its amplitude
    split_s: float              # A2 to P2 at the end of expiration
    s3_db: float
    s4_db: float
    extrasystole_share: float


@dataclass(frozen=True)
class Murmur:
    """One murmur in CirCor's words."""

    timing: str
    shape: str
    grade: str
    pitch: str
    quality: str


@dataclass(frozen=True)
class Beats:
    """Cardiac cycles, each field [beats].

    Attributes:
        s1_s, s2_s: start of S1 and S2.
        s1_length_s, s2_length_s: length of S1 and S2.
        end_s: end of the cycle.
        breath: phase of breathing at S2 in radians (0 to pi: inspiration).
        strength: amplitude of the beat, about 1.
    """

    s1_s: Array
    s1_length_s: Array
    s2_s: Array
    s2_length_s: Array
    end_s: Array
    breath: Array
    strength: Array


def sample_times(seconds: float) -> Array:
    """The times of the samples [time] in s."""
    return np.arange(round(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ


def draw_beats(heart: Heart, seconds: float, breath_start: float, rng: np.random.Generator) -> Beats:
    """Draw cycles that cover a recording: the first starts before time 0, the last ends after `seconds`.

    Args:
        heart: whose beats.
        seconds: length of the recording.
        breath_start: phase of breathing at time 0 in radians.
        rng: random generator.
    """
    count = int(seconds * heart.rate_bpm / 60 * 1.6) + 6
    intervals = _intervals(heart, count, breath_start, rng)
    start = np.cumsum(intervals) - intervals - rng.uniform(0, intervals[0])
    premature = intervals < 0.75 * 60 / heart.rate_bpm
    previous = np.concatenate(([60 / heart.rate_bpm], intervals[:-1]))
    systole = 0.395 - 0.00132 * 60 / previous + heart.systole_offset_s + rng.normal(0, 0.004, count)
    systole = np.clip(systole, heart.s1_s + 0.06, intervals - heart.s2_s - 0.06)
    inside = start < seconds
    s2 = start + systole
    wobble = 1 + rng.normal(0, 0.04, (2, count))
    strength = np.exp(rng.normal(0, 0.09, count)) * np.where(premature, 0.75, 1.0)
    breath = 2 * np.pi * heart.breath_hz * s2 + breath_start
    columns = (start, heart.s1_s * wobble[0], s2, heart.s2_s * wobble[1], start + intervals, breath, strength)
    return Beats(*(column[inside] for column in columns))


def _intervals(heart: Heart, count: int, breath_start: float, rng: np.random.Generator) -> Array:
    """RR intervals [count] in seconds: shorter in inspiration, wandering slowly, now and then an extrasystole."""
    mean = 60 / heart.rate_bpm
    times = mean * np.arange(count)
    respiratory = -np.sin(2 * np.pi * heart.breath_hz * times + breath_start)
    slow = np.sin(2 * np.pi * 0.1 * times + rng.uniform(0, 2 * np.pi))
    wander = (respiratory + 0.7 * slow) / np.sqrt(0.5 * (1 + 0.7**2)) * 0.9 + 0.45 * rng.normal(size=count)
    intervals = mean * np.exp(heart.variation * wander)
    early = np.flatnonzero(rng.random(count) < heart.extrasystole_share)
    early = early[early < count - 1]
    intervals[early] *= 0.62
    intervals[early + 1] *= 1.35     # the compensatory pause
    return np.asarray(np.maximum(intervals, 0.3))


def states(beats: Beats, seconds: float) -> list[tuple[float, float, int]]:
    """The heart states of a recording: (start_s, end_s, code) without gaps.

    Parts of a cycle at the start and at the end are unannotated.
    """
    whole = np.flatnonzero((beats.s1_s >= 0) & (beats.end_s <= seconds))
    if not len(whole):
        return [(0.0, seconds, UNANNOTATED)]
    starts = (beats.s1_s, beats.s1_s + beats.s1_length_s, beats.s2_s, beats.s2_s + beats.s2_length_s)
    edges = np.stack([column[whole] for column in starts], axis=1).ravel()
    ends = np.round(np.concatenate(([0.0], edges, [beats.end_s[whole[-1]], seconds])), 6).tolist()
    codes = [UNANNOTATED, *([S1, SYSTOLE, S2, DIASTOLE] * len(whole)), UNANNOTATED]
    return [(a, b, code) for a, b, code in zip(ends[:-1], ends[1:], codes, strict=True) if b > a]


def valve_sounds(heart: Heart, beats: Beats, gain_db: dict[str, float], time: Array, rng: np.random.Generator) -> Array:
    """The heart sounds at one location [time].

    These are S1 (mitral and tricuspid), S2 (aortic and pulmonary, split by the breath), S3 and S4.

    Args:
        heart: rhythm and valves.
        beats: of `draw_beats`.
        gain_db: the location's gain for `s1`, `a2` and `p2`.
        time: of `sample_times`.
        rng: random generator.
    """
    out = np.zeros(len(time) + SAMPLE_RATE_HZ)   # a second of room behind the end
    split = heart.split_s + 0.022 * np.clip(np.sin(beats.breath), 0, None)
    s1, s2, width = beats.s1_s, beats.s2_s, heart.s1_s
    loud = beats.strength
    _add(out, s1 + 0.30 * width, heart.s1_hz, 0.13 * width, loud * _gain(gain_db["s1"]), heart.snap, rng)
    _add(out, s1 + 0.55 * width, 1.25 * heart.s1_hz, 0.12 * width, loud * _gain(gain_db["s1"] - 2.5), heart.snap, rng)
    a2 = s2 + 0.30 * heart.s2_s
    _add(out, a2, heart.s2_hz, 0.12 * heart.s2_s, loud * _gain(gain_db["a2"]), heart.snap, rng)
    _add(out, a2 + split, 0.9 * heart.s2_hz, 0.12 * heart.s2_s, loud * _gain(gain_db["p2"]), heart.snap, rng)
    if np.isfinite(heart.s3_db):
        third = a2 + 0.13
        _add(out, third, 38.0, 0.018, loud * _gain(heart.s3_db) * (third < beats.end_s - 0.06), 0.0, rng)
    if np.isfinite(heart.s4_db):
        _add(out, beats.end_s - 0.09, 42.0, 0.016, loud * _gain(heart.s4_db), 0.0, rng)
    return out[: len(time)]


def _add(
    out: Array, centre_s: Array, pitch_hz: float, width_s: float, amplitude: Array, snap: float,
    rng: np.random.Generator,
) -> None:
    """Add one valve's oscillation for every beat to `out`: a main partial, and shorter, higher and fainter ones."""
    for ratio, level, narrow in ((1.0, 1.0, 1.0), (2.3, 0.42, 0.6), (4.6, 0.13, 0.4), (8.5, snap, 0.14)):
        sigma = width_s * narrow
        reach = round(4 * sigma * SAMPLE_RATE_HZ)
        first = np.round(centre_s * SAMPLE_RATE_HZ).astype(int) - reach
        index = first[:, None] + np.arange(2 * reach + 1)
        t = index / SAMPLE_RATE_HZ - centre_s[:, None]
        hz = pitch_hz * ratio * (1 + rng.normal(0, 0.03, (len(centre_s), 1)))
        phase = rng.uniform(0, 2 * np.pi) + rng.normal(0, 0.25, (len(centre_s), 1))
        peak = 1.9 * level * amplitude[:, None]      # 1.9: RMS of one over S1's length
        wave = peak * np.exp(-0.5 * (t / sigma) ** 2) * np.cos(2 * np.pi * hz * (t - 1.5 * t**2) + phase)
        inside = (index >= 0) & (index < len(out))
        np.add.at(out, index[inside], wave[inside])


def _gain(level_db: float) -> float:
    return float(10 ** (level_db / 20))


def shaped_noise(response: Array, rng: np.random.Generator) -> Array:
    """Gaussian noise [time] with an RMS of 1. `response` is its amplitude at the frequencies of `spectrum_hz`."""
    count = 2 * (len(response) - 1)
    noise = np.fft.irfft(np.fft.rfft(rng.normal(size=count)) * response, count)
    rms = float(np.sqrt(np.mean(noise**2)))
    return noise / rms if rms else noise


def spectrum_hz(count: int) -> Array:
    """Frequencies in Hz, [count // 2 + 1], of the spectrum of `count` samples."""
    return np.asarray(np.fft.rfftfreq(count, 1 / SAMPLE_RATE_HZ), dtype=np.float64)


def murmur_envelope(murmur: Murmur, beats: Beats, time: Array) -> Array:
    """Amplitude [time] of a murmur: its shape within its part of every systole (or diastole), 0 elsewhere.

    The mean square is 1 over the time in which it sounds, so that only the grade sets the energy.
    """
    diastolic = murmur.timing.endswith("diastolic")
    start = beats.s2_s + 0.6 * beats.s2_length_s if diastolic else beats.s1_s + 0.6 * beats.s1_length_s
    stop = beats.end_s if diastolic else beats.s2_s
    low, high = TIMING[murmur.timing]
    beat = np.clip(np.searchsorted(beats.s1_s, time, side="right") - 1, 0, None)
    within = (time - start[beat]) / np.maximum(stop - start, 1e-3)[beat]
    u = (within - low) / (high - low)
    sounding = (u > 0) & (u < 1)
    u = np.clip(u, 0, 1)
    edge = np.clip(np.minimum(u, 1 - u) / 0.12, 0, 1)
    shape = {
        "Plateau": np.ones_like(u), "Decrescendo": 1 - 0.9 * u, "Crescendo": 0.1 + 0.9 * u,
        "Diamond": 1 - 0.9 * np.abs(2 * u - 1),
    }[murmur.shape]
    envelope = np.where(sounding, shape * edge, 0.0)
    power = float(np.mean(envelope[sounding] ** 2)) if sounding.any() else 1.0
    return np.asarray(envelope * beats.strength[beat] / np.sqrt(power))


def murmur_carrier(murmur: Murmur, transfer: Array, count: int, rng: np.random.Generator) -> Array:
    """The sound of a murmur [count] with an RMS of 1: noise in a band, or tones where it is musical.

    `transfer` is the amplitude response of the chest at the frequencies of `spectrum_hz`.
    """
    hz = spectrum_hz(count)
    pitch_hz = PITCH_HZ[murmur.pitch] * 2 ** rng.normal(0, 0.12)
    if murmur.quality == "Musical":
        response = sum(level * np.exp(-0.5 * ((hz - k * pitch_hz) / (4.0 * k)) ** 2) for k, level in ((1, 1), (2, 0.4)))
    else:
        octaves = np.log2(np.maximum(hz, 1) / pitch_hz)
        response = np.exp(-0.5 * (octaves / _BANDWIDTH_OCTAVES[murmur.quality]) ** 2)
    return shaped_noise(response * transfer, rng)


def murmur_sound(murmur: Murmur, beats: Beats, transfer: Array, time: Array, rng: np.random.Generator) -> Array:
    """A murmur [time] at its loudest location; its level against S1 is that of its grade."""
    carrier = murmur_carrier(murmur, transfer, len(time), rng)
    return _gain(GRADE_DB[murmur.grade]) * murmur_envelope(murmur, beats, time) * carrier
