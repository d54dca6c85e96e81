"""Simulated people and the sounds of their lungs. In: a seed and the number of a person. Out: `LungPatient`s.

A person has normal lungs or one kind of adventitious sound, which is heard at some places and not at the others. Age,
sex, breathing and the heart that beats beside the lung are those of the simulated children. Every person and recording
has a random generator of its own, so that person k does not depend on the number of people.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from heartml.data.simulation import breath, physiology, stethoscope
from heartml.data.simulation.breath import ADVENTITIOUS, NORMAL
from heartml.data.simulation.children import Child, draw_child
from heartml.data.simulation.stethoscope import Pcm, Scene

PLACES = ("Al upper", "Ar upper", "Pl lower", "Pr lower")      # anterior or posterior, left or right
KINDS = (NORMAL, *ADVENTITIOUS)
_HEART_DB = {"Al upper": -6.0, "Ar upper": -10.0, "Pl lower": -12.0, "Pr lower": -15.0}
_AT_THE_BASE = {"Fine Crackles": 0.9, "Pleural Rub": 0.8}      # chance that it is heard at a lower place
_ABOVE = {"Fine Crackles": 0.3, "Pleural Rub": 0.25}           # and at an upper one
_ANYWHERE = 0.7                                                # chance of the other kinds, at every place


@dataclass(frozen=True)
class LungPatient:
    """One person: `child` gives age, sex, breathing and heart; `kind` is heard at `heard_at`."""

    number: int
    child: Child
    kind: str
    heard_at: tuple[str, ...]


@dataclass(frozen=True)
class LungRecording:
    """Samples (int16 [time], 4 kHz), what is heard, and the breaths (start_s, end_s) that lie inside."""

    place: str
    sound: str
    pcm: Pcm
    breaths: tuple[tuple[float, float], ...]


def draw_patient(seed: int, number: int) -> LungPatient:
    """Draw person `number` of the corpus with this seed; the same for any number of people."""
    rng = np.random.default_rng([seed, 21, number])
    kind = _kinds(seed, number // len(KINDS))[number % len(KINDS)]
    heard_at = [place for place in PLACES if kind != NORMAL and rng.random() < _chance(kind, place)]
    if kind != NORMAL and not heard_at:
        heard_at = [str(rng.choice([place for place in PLACES if "lower" in place]))]
    return LungPatient(number, draw_child(seed, number), kind, tuple(heard_at))


def _chance(kind: str, place: str) -> float:
    return (_AT_THE_BASE if "lower" in place else _ABOVE).get(kind, _ANYWHERE)


@cache
def _kinds(seed: int, block: int) -> tuple[str, ...]:
    return tuple(map(str, np.random.default_rng([seed, 20, block]).permutation(KINDS)))


def record(seed: int, patient: LungPatient, seconds: float) -> list[LungRecording]:
    """The person's recordings, one a place. Their length is `seconds`, up to a fifth shorter or longer."""
    rng = np.random.default_rng([seed, 22, patient.number])
    gain_db, noise_db = float(rng.normal(0, 2.5)), float(rng.normal(-15.0, 3.5))
    corner_hz = float(130 * np.exp(rng.normal(0, 0.2)))
    level_db = float(rng.normal(0, 2.5))     # how loud this person's adventitious sound is
    own = (gain_db, noise_db, corner_hz, level_db)
    return [_record([seed, 23, patient.number, number], patient, place, seconds, own)
            for number, place in enumerate(PLACES)]


def _record(
    key: list[int], patient: LungPatient, place: str, seconds: float, own: tuple[float, float, float, float]
) -> LungRecording:
    rng = np.random.default_rng(key)
    gain_db, noise_db, corner_hz, level_db = own
    length = round(seconds * rng.uniform(0.8, 1.2), 2)
    time = physiology.sample_times(length)
    breaths = breath.draw_breaths(patient.child.heart.breath_hz, length, rng)
    sound = breath.vesicular(breaths, corner_hz, time, rng)
    if place in patient.heard_at:
        make, loud_db = ADVENTITIOUS[patient.kind]
        sound += _gain(loud_db + level_db + rng.normal(0, 1.5)) * make(breaths, time, rng)
    beats = physiology.draw_beats(patient.child.heart, length, 0.0, rng)
    gains = {valve: _HEART_DB[place] + rng.normal(0, 3.0) for valve in ("s1", "a2", "p2")}
    sound += physiology.valve_sounds(patient.child.heart, beats, gains, time, rng)
    pcm = stethoscope.record(sound, _scene(patient.child, gain_db, noise_db, rng), rng)
    inside = (breaths.start_s >= 0) & (breaths.end_s <= length)
    marked = zip(breaths.start_s[inside], breaths.end_s[inside], strict=True)
    heard = patient.kind if place in patient.heard_at else NORMAL
    return LungRecording(place, heard, pcm, tuple((float(start), float(end)) for start, end in marked))


def _scene(child: Child, gain_db: float, noise_db: float, rng: np.random.Generator) -> Scene:
    """What surrounds the lung; breath is no noise here."""
    speaks = rng.random() < 0.1
    return Scene(
        gain_db=gain_db + float(rng.normal(0, 1.5)), chest_hz=230.0, noise_db=noise_db + float(rng.normal(0, 2.0)),
        hiss_db=float(rng.normal(-13.5, 4)), breath_share=0.0, breath_hz=child.heart.breath_hz, breath_start=0.0,
        hum_db=float(rng.normal(-24, 4)) if rng.random() < 0.15 else -np.inf,
        voice_db=float(rng.normal(-9, 4)) if speaks else -np.inf,
        voice_hz=float(rng.uniform(320, 480) if child.age_years < 4 else rng.uniform(110, 260)),
        voice_share=float(rng.uniform(0.1, 0.4)), rubs_per_s=float(rng.gamma(1.0, 0.2)), rub_db=float(rng.normal(6, 4)),
    )


def _gain(level_db: float) -> float:
    return float(10 ** (level_db / 20))
