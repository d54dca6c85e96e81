"""Causes of murmurs in children. In: a lesion and a generator. Out: a `Murmur`.

For each lesion the table says how common it is, how it sounds, where it is loudest, and whether it is an illness.

Sources: locations and timing, Leatham 1958, Circulation 17:601; innocent murmurs, Biancaniello 2005, Circulation
111:e20; shares of timing, shape, grade, pitch, quality and outcome near those of CirCor (Oliveira et al. 2022, IEEE
JBHI 26:2524).
"""

from dataclasses import dataclass

import numpy as np

from heartml.data.simulation import physiology
from heartml.data.simulation.physiology import Murmur
from heartml.data.simulation.stethoscope import LOCATIONS


@dataclass(frozen=True)
class Lesion:
    """A cause of a murmur.

    Attributes:
        share: among children with a lesion; all shares add up to 1.
        timing, shape, quality: choices with their weights, in CirCor's words.
        grade: weights of `GRADE_DB`'s grades.
        pitch: weights of `PITCH_HZ`'s pitches.
        level_db: by location, in dB against the loudest one.
        abnormal: probability that the outcome is Abnormal.
        diastolic: timing of a diastolic murmur that half of the children have, or `None`.
    """

    share: float
    timing: dict[str, float]
    shape: dict[str, float]
    grade: tuple[float, float, float]
    pitch: tuple[float, float, float]
    quality: dict[str, float]
    level_db: dict[str, float]
    abnormal: float = 0.93
    diastolic: str | None = None


def _at(av: float, pv: float, tv: float, mv: float) -> dict[str, float]:
    return dict(zip(LOCATIONS, (av, pv, tv, mv), strict=True))


_HOLO, _EARLY, _MID, _LATE = "Holosystolic", "Early-systolic", "Mid-systolic", "Late-systolic"
LESIONS = {
    "ventricular septal defect": Lesion(
        0.30, {_HOLO: 1}, {"Plateau": 0.9, "Crescendo": 0.02, "Decrescendo": 0.08}, (0.4, 0.2, 0.4), (0.35, 0.3, 0.35),
        {"Harsh": 0.9, "Blowing": 0.1}, _at(-6, -4, 0, -4)),
    "muscular septal defect": Lesion(
        0.12, {_EARLY: 1}, {"Decrescendo": 1}, (0.55, 0.25, 0.2), (0.3, 0.4, 0.3), {"Harsh": 0.7, "Blowing": 0.3},
        _at(-8, -6, 0, -4)),
    "mitral regurgitation": Lesion(
        0.17, {_HOLO: 1}, {"Plateau": 1}, (0.55, 0.25, 0.2), (0.5, 0.3, 0.2), {"Blowing": 1}, _at(-9, -8, -4, 0)),
    "tricuspid regurgitation": Lesion(
        0.07, {_HOLO: 1}, {"Plateau": 1}, (0.7, 0.2, 0.1), (0.7, 0.3, 0.0), {"Blowing": 1}, _at(-8, -6, 0, -5)),
    "innocent vibratory": Lesion(
        0.17, {_EARLY: 0.8, _MID: 0.2}, {"Plateau": 0.6, "Diamond": 0.4}, (0.9, 0.1, 0.0), (0.85, 0.15, 0.0),
        {"Blowing": 0.85, "Musical": 0.15}, _at(-6, -4, -1, 0), 0.45),
    "innocent pulmonary flow": Lesion(
        0.06, {_EARLY: 0.5, _MID: 0.5}, {"Diamond": 0.7, "Plateau": 0.3}, (0.95, 0.05, 0.0), (0.7, 0.3, 0.0),
        {"Blowing": 1}, _at(-4, 0, -5, -8), 0.45),
    "pulmonary stenosis": Lesion(
        0.05, {_MID: 0.6, _HOLO: 0.4}, {"Diamond": 1}, (0.2, 0.3, 0.5), (0.1, 0.4, 0.5), {"Harsh": 1},
        _at(-5, 0, -5, -9)),
    "aortic stenosis": Lesion(
        0.03, {_MID: 0.7, _HOLO: 0.3}, {"Diamond": 1}, (0.2, 0.3, 0.5), (0.1, 0.4, 0.5), {"Harsh": 1},
        _at(0, -3, -6, -4), diastolic="Early-diastolic"),
    "mitral valve prolapse": Lesion(
        0.02, {_LATE: 1}, {"Crescendo": 0.6, "Plateau": 0.4}, (0.8, 0.2, 0.0), (0.3, 0.5, 0.2), {"Blowing": 1},
        _at(-9, -8, -4, 0)),
    "arterial duct": Lesion(
        0.01, {_HOLO: 1}, {"Crescendo": 1}, (0.2, 0.4, 0.4), (0.3, 0.4, 0.3), {"Harsh": 1}, _at(-4, 0, -5, -8),
        diastolic="Holodiastolic"),
}


def draw_murmur(lesion: Lesion, rng: np.random.Generator) -> Murmur:
    """Draw the systolic murmur of a lesion."""
    return Murmur(
        _pick(lesion.timing, rng), _pick(lesion.shape, rng),
        str(rng.choice(list(physiology.GRADE_DB), p=lesion.grade)),
        str(rng.choice(list(physiology.PITCH_HZ), p=lesion.pitch)),
        _pick(lesion.quality, rng),
    )


def draw_diastolic(lesion: Lesion, rng: np.random.Generator) -> Murmur | None:
    """Draw the diastolic murmur of a lesion: half of the children have it, where the lesion has one."""
    if lesion.diastolic is None or rng.random() < 0.5:
        return None
    return Murmur(lesion.diastolic, "Decrescendo", "I/VI", "Medium", "Blowing")


def _pick(weights: dict[str, float], rng: np.random.Generator) -> str:
    shares = np.array(list(weights.values()))
    return str(rng.choice(list(weights), p=shares / shares.sum()))
