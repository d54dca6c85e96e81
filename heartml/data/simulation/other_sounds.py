"""Sounds of a stethoscope that are no heart (or no lung), made up for models to learn what to refer. Pure.

In: a kind, a length in seconds, a generator. Out: float32 `[time]` at 4 kHz, full scale 1, through the simulator's
sensor where the sound comes through the air. The kinds are families: every draw has its own pitch, rhythm and level.

Sources
    Breath: power falls steadily above 75 to 100 Hz (Gavriely et al. 1981, J Appl Physiol 50:307), 10 to 40 breaths a
        minute. Wheezes are tones of 100 to 1000 Hz that last 80 ms or longer; crackles are shorter than 20 ms
        (Sovijaervi et al. 2000, Eur Respir Rev 10:597).
    Bowel: bursts of 10 to 200 ms between 100 and 600 Hz (Craine et al. 1999, Dig Dis Sci 44:2384).
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heartml.core.task_definition import HEART, Organ
from heartml.data.simulation import stethoscope
from heartml.data.simulation.physiology import SAMPLE_RATE_HZ, Array, sample_times, shaped_noise, spectrum_hz
from heartml.data.simulation.stethoscope import Scene

Maker = Callable[[Array, np.random.Generator], Array]


def make(kind: str, seconds: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """One sound of `OTHER_SOUNDS[kind]`: float32 `[time]` at 4 kHz, with the noise of a converter.

    >>> sound = make("hum", 2.0, np.random.default_rng(0))
    >>> len(sound), bool(np.abs(sound).max() <= 1)
    (8000, True)
    """
    time = sample_times(max(1, round(SAMPLE_RATE_HZ * seconds / 2)) * 2 / SAMPLE_RATE_HZ)    # an even number
    sound = OTHER_SOUNDS[kind](time, rng)
    loudest = float(np.abs(sound).max())
    level = 10 ** rng.uniform(-1.6, -0.1) if loudest > 0 else 0.0
    noise = 10 ** rng.uniform(-4.5, -2.5) * rng.normal(size=len(time))
    return np.clip(level * sound / max(loudest, 1e-12) + noise, -1, 1).astype(np.float32)


def of_no(organ: Organ) -> tuple[str, ...]:
    """The kinds that are not of this organ.

    >>> "breath" in of_no("heart"), "breath" in of_no("lung"), "hum" in of_no("lung")
    (True, False, True)
    """
    return tuple(kind for kind in OTHER_SOUNDS if organ == HEART or kind != "breath")


def _through_sensor(sound: Array) -> Array:
    return stethoscope.apply_response(sound, stethoscope.sensor_response(len(sound)))


def _silence(time: Array, rng: np.random.Generator) -> Array:
    """A sensor that touches nothing: its own noise, sometimes with a little rumble."""
    hz = np.maximum(spectrum_hz(len(time)), 1.0)
    rumble = shaped_noise(1 / np.sqrt(1 + (hz / rng.uniform(15, 60)) ** 4), rng)
    return np.asarray(rng.normal(size=len(time)) + rng.choice([0.0, 1.0, 3.0]) * rumble)


def _hum(time: Array, rng: np.random.Generator) -> Array:
    """Mains: 50 or 60 Hz and some of its harmonics, steady or slowly rising and falling."""
    first_hz = rng.choice([50.0, 60.0])
    sound = np.zeros(len(time))
    for harmonic in range(1, int(rng.integers(2, 10))):
        gain, phase = rng.uniform(0, 1) / harmonic**0.5, rng.uniform(0, 6.3)
        sound += gain * np.sin(2 * np.pi * harmonic * first_hz * time + phase)
    slow = 1 + rng.choice([0.0, 0.3]) * np.sin(2 * np.pi * rng.uniform(0.05, 0.5) * time)
    return np.asarray(sound * slow)


def _tones(time: Array, rng: np.random.Generator) -> Array:
    """One to three tones of a device: steady, gliding, or switched on and off by no heart's rhythm."""
    sound = np.zeros(len(time))
    for _ in range(int(rng.integers(1, 4))):
        glide = rng.choice([0.0, 0.05]) * np.sin(time * rng.uniform(0.2, 3))
        pitch_hz = np.exp(rng.uniform(np.log(60), np.log(900)) + glide)
        gate: Array = np.ones(len(time))
        if rng.random() < 0.5:
            wave = np.sin(2 * np.pi * rng.uniform(3.5, 9) * time + rng.uniform(0, 6.3))
            gate = (wave > rng.uniform(-0.5, 0.5)).astype(np.float64)
        sound += gate * rng.uniform(0.2, 1) * np.sin(2 * np.pi * np.cumsum(pitch_hz) / SAMPLE_RATE_HZ)
    return sound


def _noise(time: Array, rng: np.random.Generator) -> Array:
    """Steady noise of any colour, from brown to blue, perhaps through a band."""
    hz = np.maximum(spectrum_hz(len(time)), 5.0)
    response = hz ** rng.uniform(-1.5, 0.5)
    if rng.random() < 0.4:
        centre_hz = np.exp(rng.uniform(np.log(60), np.log(700)))
        response = response * np.exp(-0.5 * (np.log(hz / centre_hz) / rng.uniform(0.2, 1)) ** 2)
    return shaped_noise(response, rng)


def _bursts(time: Array, rng: np.random.Generator, *, per_s: float, length_s: tuple[float, float],
            band_hz: tuple[float, float], spread: float = 0.7) -> Array:
    """Bursts of damped oscillation at random times."""
    sound = np.zeros(len(time))
    for _ in range(max(1, rng.poisson(per_s * time[-1]))):
        start_s = rng.uniform(0, time[-1])
        length = np.exp(rng.uniform(*np.log(length_s)))
        first, last = np.searchsorted(time, (start_s, start_s + 6 * length))
        own = time[first:last] - start_s
        pitch_hz = np.exp(rng.uniform(*np.log(band_hz)))
        wave = np.sin(2 * np.pi * pitch_hz * own + rng.uniform(0, 6.3)) * np.exp(-own / length)
        sound[first:last] += np.exp(rng.normal(0, spread)) * wave
    return sound


def _clicks(time: Array, rng: np.random.Generator) -> Array:
    """Clicks and knocks: at random times, or with the even step of a machine."""
    if rng.random() < 0.6:
        return _bursts(time, rng, per_s=np.exp(rng.uniform(np.log(0.4), np.log(12))), length_s=(0.001, 0.03),
                       band_hz=(60, 1500), spread=rng.uniform(0, 0.8))
    step_s, length_s = np.exp(rng.uniform(np.log(0.08), np.log(2.5))), np.exp(rng.uniform(np.log(0.001), np.log(0.02)))
    since = np.mod(time + rng.uniform(0, step_s), step_s)
    pitch_hz = np.exp(rng.uniform(np.log(60), np.log(1500)))
    return np.asarray(np.sin(2 * np.pi * pitch_hz * since) * np.exp(-since / length_s))


def _speech(time: Array, rng: np.random.Generator) -> Array:
    """Somebody speaks, or an infant cries, and no heart is under it."""
    scene = _scene(rng, voice_share=float(rng.uniform(0.4, 0.95)))
    room = 10 ** rng.uniform(-2.5, -0.7)
    return stethoscope.voice(scene, time, rng) + room * stethoscope.background(scene, time, rng)


def _rubbing(time: Array, rng: np.random.Generator) -> Array:
    """The chest piece is moved over cloth or skin."""
    scene = _scene(rng, rubs_per_s=float(np.exp(rng.uniform(np.log(1), np.log(8)))))
    found = stethoscope.friction(scene, time, rng)
    return found if found.any() else _silence(time, rng)


def _breath(time: Array, rng: np.random.Generator) -> Array:
    """Lungs far from the heart: breaths, with wheezes or crackles in some."""
    hz = np.maximum(spectrum_hz(len(time)), 1.0)
    corner_hz = rng.uniform(80, 400)
    rustle = shaped_noise(1 / (np.sqrt(1 + (rng.uniform(40, 90) / hz) ** 4) * (1 + (hz / corner_hz) ** 2)), rng)
    phase = 2 * np.pi * rng.uniform(10, 40) / 60 * time + rng.uniform(0, 6.3)
    swell = np.clip(np.sin(phase), 0, None) + rng.uniform(0.2, 0.9) * np.clip(-np.sin(phase + 0.4), 0, None)
    sound = (swell + rng.uniform(0, 0.3)) * rustle
    if rng.random() < 0.35:
        pitch_hz = rng.uniform(100, 800) * (1 + 0.03 * np.sin(phase))
        wheeze = np.sin(2 * np.pi * np.cumsum(pitch_hz) / SAMPLE_RATE_HZ)
        sound += rng.uniform(0.5, 2) * np.clip(-np.sin(phase), 0, None) * wheeze
    if rng.random() < 0.35:
        crackles = _bursts(time, rng, per_s=rng.uniform(3, 20), length_s=(0.001, 0.006), band_hz=(150, 900))
        sound += rng.uniform(0.5, 3) * np.clip(np.sin(phase), 0, None) * crackles
    return sound


def _bowel(time: Array, rng: np.random.Generator) -> Array:
    """A stethoscope on the belly: gurgles and single bursts."""
    sound = _bursts(time, rng, per_s=rng.uniform(0.3, 4), length_s=(0.01, 0.1), band_hz=(100, 600), spread=1.0)
    return sound + 10 ** rng.uniform(-2.5, -1) * _noise(time, rng)


def _scene(rng: np.random.Generator, **changed: Any) -> Scene:
    values: dict[str, Any] = {
        "gain_db": 0.0, "chest_hz": 230.0, "noise_db": 0.0, "hiss_db": float(rng.uniform(-25, -5)),
        "breath_share": float(rng.uniform(0, 0.5)), "breath_hz": float(rng.uniform(0.2, 0.6)),
        "breath_start": float(rng.uniform(0, 6.3)), "hum_db": float(rng.uniform(-40, -10)), "voice_db": 0.0,
        "voice_hz": float(np.exp(rng.uniform(np.log(90), np.log(450)))), "voice_share": 0.5, "rubs_per_s": 2.0,
        "rub_db": 0.0,
    }
    return Scene(**{**values, **changed})


OTHER_SOUNDS: Mapping[str, Maker] = {
    "silence": _silence,
    "hum": _hum,
    "tones": lambda time, rng: _through_sensor(_tones(time, rng)),
    "noise": lambda time, rng: _through_sensor(_noise(time, rng)),
    "clicks": lambda time, rng: _through_sensor(_clicks(time, rng)),
    "speech": lambda time, rng: _through_sensor(_speech(time, rng)),
    "rubbing": lambda time, rng: _through_sensor(_rubbing(time, rng)),
    "breath": lambda time, rng: _through_sensor(_breath(time, rng)),
    "bowel": lambda time, rng: _through_sensor(_bowel(time, rng)),
}
