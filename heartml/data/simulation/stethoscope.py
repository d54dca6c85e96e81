"""From the heart to the samples: auscultation location, chest, breath, voices, friction, room, sensor. Pure.

In: signals [time] of `heartml.data.simulation.physiology` (S1 at the tricuspid area has RMS one), a `Scene`, a
generator. Out: int16 [time].

Sources
    Locations: S1 is loudest at the apex and the tricuspid area, S2 at the base, P2 hardly beyond the pulmonary area.
    Chest: 12 dB an octave for S1 above some 100 Hz (Durand et al. 1990, Med Biol Eng Comput 28:269, in dogs); that
        thick chests damp more is our assumption.
    Breath: power falls steadily above 75 to 100 Hz, inspiration louder than expiration (Gavriely et al. 1981, J Appl
        Physiol 50:307; Pasterkamp et al. 1997, Am J Respir Crit Care Med 156:974).
    Levels: the noise between the sounds lies 6 to 12 dB under S1 in half of CirCor's recordings (measured there).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heartml.data.simulation.physiology import SAMPLE_RATE_HZ, Array, shaped_noise, spectrum_hz

Pcm = NDArray[np.int16]

LOCATIONS = ("AV", "PV", "TV", "MV")
VALVE_GAIN_DB = {
    "AV": {"s1": -3.5, "a2": 0.0, "p2": -8.0},
    "PV": {"s1": -2.5, "a2": -0.5, "p2": -4.0},
    "TV": {"s1": 0.0, "a2": -3.5, "p2": -8.0},
    "MV": {"s1": 0.5, "a2": -4.5, "p2": -13.0},
}
_QUANTUM = 16            # 12 significant bits in a 16-bit file, as a converter of a stethoscope of that time has
_FULL_SCALE = 32767
_S1_LEVEL = 0.022        # RMS of S1 against full scale at gain one
_SYLLABLE_HZ = 4.0
_MAINS_HZ = 60.0         # Brazil, where CirCor was recorded


@dataclass(frozen=True)
class Scene:
    """What surrounds the heart while one recording is made. Levels are in dB against S1; -inf: there is none."""

    gain_db: float           # of the recording: pressure on the chest, volume set
    chest_hz: float          # corner above which the chest damps
    noise_db: float          # room and breath together
    hiss_db: float           # of the room, against its rumble at 32 Hz
    breath_share: float      # of the noise's power
    breath_hz: float
    breath_start: float      # phase, radians
    hum_db: float
    voice_db: float
    voice_hz: float          # fundamental frequency: an adult speaks, an infant cries
    voice_share: float       # of the time
    rubs_per_s: float
    rub_db: float


def chest_response(corner_hz: float, count: int) -> Array:
    """Amplitude response [count // 2 + 1] of the chest wall: it falls by 12 dB an octave above its corner."""
    return 1 / (1 + (spectrum_hz(count) / corner_hz) ** 2)


def apply_response(signal: Array, response: Array) -> Array:
    """`signal` [time], filtered with an amplitude response [time // 2 + 1] of zero phase."""
    return np.fft.irfft(np.fft.rfft(signal) * response, len(signal))


def background(scene: Scene, time: Array, rng: np.random.Generator) -> Array:
    """Room and breath [time] at the scene's level: a steady hiss, and a rustle that rises with each breath."""
    hz = np.maximum(spectrum_hz(len(time)), 1.0)
    room = shaped_noise(np.sqrt((32 / hz) ** 1.6 + _gain(scene.hiss_db) ** 2) / np.sqrt(1 + (25 / hz) ** 4), rng)
    rustle = shaped_noise(1 / (np.sqrt(1 + (90 / hz) ** 4) * (1 + (hz / 150) ** 2)), rng)
    phase = 2 * np.pi * scene.breath_hz * time + scene.breath_start
    swell = np.clip(np.sin(phase), 0, None) + 0.45 * np.clip(-np.sin(phase + 0.4), 0, None)
    swell /= np.sqrt(np.mean(swell**2))
    mix = np.sqrt(1 - scene.breath_share) * room + np.sqrt(scene.breath_share) * swell * rustle
    hum = np.sin(2 * np.pi * _MAINS_HZ * time + rng.uniform(0, 2 * np.pi))
    return np.asarray(_gain(scene.noise_db) * mix + _gain(scene.hum_db) * hum)


def voice(scene: Scene, time: Array, rng: np.random.Generator) -> Array:
    """Speech or crying [time] in the chest piece: harmonics of a varying pitch, in syllables, with pauses."""
    if not np.isfinite(scene.voice_db) or scene.voice_share <= 0:
        return np.zeros(len(time))
    pitch_hz = scene.voice_hz * np.exp(0.15 * _wander(len(time), 1.5, rng))
    phase = 2 * np.pi * np.cumsum(pitch_hz) / SAMPLE_RATE_HZ
    harmonics = range(1, max(2, int(1500 / scene.voice_hz)) + 1)
    tone = np.sum([np.sin(k * phase + rng.uniform(0, 6.28)) / k for k in harmonics], axis=0)
    syllables = np.clip(0.6 + _wander(len(time), _SYLLABLE_HZ, rng), 0, None)
    level = _wander(len(time), 0.35, rng)
    talking = 1 / (1 + np.exp(-8 * (level - np.quantile(level, 1 - scene.voice_share))))
    spoken = tone * syllables * talking
    rms = np.sqrt(np.mean(spoken**2) / max(np.mean(talking**2), 1e-9))
    return np.asarray(_gain(scene.voice_db) * spoken / max(float(rms), 1e-9))


def friction(scene: Scene, time: Array, rng: np.random.Generator) -> Array:
    """Rubs, clicks and the thump when the chest piece is put on [time]: short bursts of coloured noise."""
    count = rng.poisson(scene.rubs_per_s * len(time) / SAMPLE_RATE_HZ)
    out = np.zeros(len(time))
    if not count:
        return out
    hz = np.maximum(spectrum_hz(len(time)), 1.0)
    noise = shaped_noise(1 / np.sqrt(1 + (hz / rng.uniform(80, 900)) ** 2), rng)
    length_s = np.exp(rng.uniform(np.log(0.006), np.log(0.25), count))
    centre_s = rng.uniform(0, time[-1], count)
    level = _gain(scene.rub_db) * np.exp(rng.normal(0, 0.6, count))
    for length, centre, loud in zip(length_s, centre_s, level, strict=True):
        first, last = np.searchsorted(time, (centre - 3 * length, centre + 3 * length))
        window = np.exp(-0.5 * ((time[first:last] - centre) / length) ** 2)
        out[first:last] += loud * window * noise[first:last]
    return out


def _wander(count: int, rate_hz: float, rng: np.random.Generator) -> Array:
    """A slow random signal [count] with an RMS of 1 and frequencies up to about `rate_hz`."""
    return shaped_noise(np.exp(-0.5 * (spectrum_hz(count) / rate_hz) ** 2), rng)


def sensor_response(count: int) -> Array:
    """Amplitude response [count // 2 + 1] of a 4 kHz stethoscope: from 20 Hz, falling from 900 Hz, 0 at 1.9 kHz."""
    hz = np.maximum(spectrum_hz(count), 1e-3)
    low_cut = 1 / np.sqrt(1 + (20 / hz) ** 4)
    tilt = 1 / np.sqrt(1 + (hz / 900) ** 2)
    anti_alias = 1 / np.sqrt(1 + (hz / 1500) ** 16)
    return low_cut * tilt * anti_alias


def record(heart: Array, scene: Scene, rng: np.random.Generator) -> Pcm:
    """The samples that the stethoscope stores, int16 [time].

    They are the sum of heart, background, voice and friction, filtered by the sensor and quantised.

    Args:
        heart: [time], at 4 kHz.
        scene: what surrounds it.
        rng: random generator.
    """
    time = np.arange(len(heart)) / SAMPLE_RATE_HZ
    air = heart + background(scene, time, rng) + voice(scene, time, rng) + friction(scene, time, rng)
    level = _S1_LEVEL * _gain(scene.gain_db)
    return quantise(level * apply_response(air, sensor_response(len(air))) + rng.normal(0, 2e-4, len(air)))


def quantise(signal: Array) -> Pcm:
    """A signal of full scale 1 as int16 [time], in steps of the converter; louder samples are clipped."""
    steps = np.round(signal * _FULL_SCALE / _QUANTUM) * _QUANTUM
    return np.clip(steps, -32768, 32752).astype(np.int16)


def _gain(level_db: float) -> float:
    return float(10 ** (level_db / 20))
