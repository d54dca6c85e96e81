"""Simulated children and their hearts. In: a seed and the number of a child. Out: a `Child`.

Labels come in blocks of eighteen children (eleven Absent, five Present, two Unknown: 61, 28, 11 %), so that each class
has enough children in a small corpus. A label is not always true, as in a clinic: some murmurs are missed, some are
labelled where there is none, and Unknown means that the recordings were too poor to decide.

Sources: heart rate and breathing by age, Fleming et al. 2011, Lancet 377:1011, the rate raised by a tenth for children
who are awake and watched; height by age, WHO growth standards and reference 2006/2007, medians; ages, CirCor's table.
"""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from heartml.data.simulation.lesions import LESIONS, draw_diastolic, draw_murmur
from heartml.data.simulation.physiology import Heart, Murmur

NONE = "nan"
_BLOCK = ("Absent",) * 11 + ("Present",) * 5 + ("Unknown",) * 2
_AGE_GROUPS = {      # years; CirCor leaves the age of pregnant girls open
    "Neonate": (0.0, 0.08), "Infant": (0.08, 1.0), "Child": (1.5, 12.0), "Adolescent": (12.0, 18.0), NONE: (14.0, 20.0),
}
_AGE_SHARES = (0.01, 0.15, 0.69, 0.08, 0.07)
_AGE = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 15.0, 20.0)
_RATE_BPM = (130, 142, 135, 125, 112, 101, 94, 89, 85, 81, 76, 73)
_BREATHS_PER_MIN = (44, 42, 40, 37, 30, 24, 22, 20.5, 19.5, 19, 17.5, 16)
_HEIGHT_CM = (50, 60, 66, 75, 87, 103, 116, 128, 138, 150, 164, 170)
_BMI = (13.2, 16.3, 17, 16.8, 15.9, 15.4, 15.4, 15.8, 16.6, 17.7, 19.8, 21.5)


@dataclass(frozen=True)
class Child:
    """One child.

    Attributes:
        number: in the corpus, from 0.
        label: murmur label of the first visit: Present, Unknown or Absent.
        age_group: as CirCor writes it.
        heart: rhythm and valves.
        lesion: key of `LESIONS`, or `None`.
        murmur: the systolic murmur that is there, or `None`.
        murmur_db: how much louder or fainter it is than the mean of its grade; -inf where there is no lesion.
        diastolic: a diastolic murmur, or `None`.
        abnormal: whether the outcome is Abnormal.
    """

    number: int
    label: str
    age_group: str
    age_years: float
    sex: str
    height_cm: float
    weight_kg: float
    heart: Heart
    lesion: str | None
    murmur: Murmur | None
    murmur_db: float
    diastolic: Murmur | None
    abnormal: bool


def draw_child(seed: int, number: int) -> Child:
    """Draw child `number` of the corpus with this seed; the same for any number of children."""
    rng = np.random.default_rng([seed, 2, number])
    label = _labels(seed, number // len(_BLOCK))[number % len(_BLOCK)]
    group = str(rng.choice(list(_AGE_GROUPS), p=_AGE_SHARES))
    age = float(rng.uniform(*_AGE_GROUPS[group]))
    height = _by_age(age, _HEIGHT_CM) * np.exp(rng.normal(0, 0.05))
    bmi = _by_age(age, _BMI) * np.exp(rng.normal(0.03, 0.13))
    truth = rng.random()
    has_murmur = {"Present": truth > 0.04, "Absent": truth < 0.05, "Unknown": truth < 0.4}[label]
    lesion = str(rng.choice(list(LESIONS), p=[kind.share for kind in LESIONS.values()]))
    murmur = draw_murmur(LESIONS[lesion], rng)
    diastolic = draw_diastolic(LESIONS[lesion], rng)
    level_db = float(rng.normal(0, 2.5))
    if label != "Present":           # a murmur that the label misses is faint
        murmur, diastolic, level_db = replace(murmur, grade="I/VI"), None, level_db - 2
    abnormal = {"Present": LESIONS[lesion].abnormal, "Absent": 0.38, "Unknown": 0.65}[label]
    return Child(
        number, label, group, age, "Female" if group == NONE or rng.random() < 0.48 else "Male", float(height),
        float(bmi * (height / 100) ** 2), _draw_heart(age, rng), lesion if has_murmur else None,
        murmur if has_murmur or label == "Present" else None, level_db if has_murmur else -np.inf,
        diastolic if has_murmur else None, bool(rng.random() < abnormal),
    )


@cache
def _labels(seed: int, block: int) -> tuple[str, ...]:
    return tuple(map(str, np.random.default_rng([seed, 1, block]).permutation(_BLOCK)))


def _by_age(age_years: float, values: tuple[float, ...]) -> float:
    return float(np.interp(age_years, _AGE, values))


def _draw_heart(age: float, rng: np.random.Generator) -> Heart:
    rate = _by_age(age, _RATE_BPM) * 1.1 * np.exp(rng.normal(0, 0.13))
    small = np.clip((4 - age) / 4, 0, 1)
    return Heart(
        rate_bpm=float(np.clip(rate, 58, 175)),
        variation=float(np.exp(rng.normal(np.log(0.05 - 0.02 * small), 0.4))),
        breath_hz=_by_age(age, _BREATHS_PER_MIN) / 60 * float(np.exp(rng.normal(0, 0.12))),
        systole_offset_s=float(rng.normal(0, 0.018)),
        s1_s=float(np.clip(0.122 - 0.03 * small + rng.normal(0, 0.014), 0.06, 0.16)),
        s2_s=float(np.clip(0.105 - 0.02 * small + rng.normal(0, 0.014), 0.05, 0.15)),
        s1_hz=float((44 + 12 * small) * np.exp(rng.normal(0, 0.15))),
        s2_hz=float((63 + 14 * small) * np.exp(rng.normal(0, 0.15))),
        snap=float(np.exp(rng.normal(np.log(0.13), 0.6))),
        split_s=float(np.clip(rng.normal(0.018, 0.01), 0.004, 0.055)),
        s3_db=float(rng.normal(-12, 3)) if rng.random() < 0.2 else -np.inf,
        s4_db=float(rng.normal(-14, 3)) if rng.random() < 0.05 else -np.inf,
        extrasystole_share=0.08 if rng.random() < 0.04 else 0.0,
    )
