"""The visits of a child: what is recorded where, under which noise, and what the clinic writes down.

In: a seed and a `Child`. Out: `Visit`s, each with a row of CirCor's table and its `Recording`s. Every child, visit and
recording has a random generator of its own. So child k does not depend on the number of children.
"""

from dataclasses import dataclass

import numpy as np

from heartml.data.simulation import physiology, stethoscope
from heartml.data.simulation.children import NONE, Child
from heartml.data.simulation.lesions import LESIONS
from heartml.data.simulation.physiology import Murmur
from heartml.data.simulation.stethoscope import Scene

COLUMNS = (
    "Patient ID", "Recording locations:", "Age", "Sex", "Height", "Weight", "Pregnancy status", "Murmur",
    "Murmur locations", "Most audible location",
    *(f"Systolic murmur {what}" for what in ("timing", "shape", "grading", "pitch", "quality")),
    *(f"Diastolic murmur {what}" for what in ("timing", "shape", "grading", "pitch", "quality")),
    "Outcome", "Campaign", "Additional ID",
)
MAX_CHILDREN = 40_000
_RETURNS_EVERY = 20                  # one child in twenty comes back in the second campaign under another id
_GROWTH_A_YEAR = 1.045
_IDS = 40_009                        # a prime: ids are a permutation of its residues


@dataclass(frozen=True)
class Visit:
    """A child recorded in one campaign under one id.

    Attributes:
        child: the child.
        patient_id: the id.
        campaign: CC2014 or CC2015.
        additional_id: the id of the child's other visit, or `None`.
        label: murmur label of this visit.
        poor: whether the recordings are noisy.
        scenes: location -> what surrounds the heart while it is recorded.
        key: seed of its recordings' generators.
    """

    child: Child
    patient_id: int
    campaign: str
    additional_id: int | None
    label: str
    poor: bool
    scenes: dict[str, Scene]
    key: tuple[int, ...]


@dataclass(frozen=True)
class Recording:
    """Samples (int16 [time], 4 kHz) and heart states: (start_s, end_s, code), without gaps."""

    name: str
    location: str
    pcm: stethoscope.Pcm
    states: list[tuple[float, float, int]]


def draw_visits(seed: int, child: Child) -> list[Visit]:
    """The visits of a child: one, or two with different ids that name each other as `Additional ID`."""
    base = (child.number * 7919 + seed * 104_729) % _IDS
    first, second = 50_000 + base, 9_990 + base
    rng = np.random.default_rng([seed, 3, child.number])
    if child.number % _RETURNS_EVERY != _RETURNS_EVERY - 7:
        campaign = "CC2014" if rng.random() < 0.39 else "CC2015"
        return [_visit(seed, child, first, campaign, None, child.label, rng)]
    truth = "Absent" if child.lesion is None else "Present"     # the second visit decides what was Unknown
    later = truth if child.label == "Unknown" else child.label
    return [
        _visit(seed, child, first, "CC2014", second, child.label, rng),
        _visit(seed, child, second, "CC2015", first, later, rng),
    ]


def _visit(
    seed: int, child: Child, patient_id: int, campaign: str, additional_id: int | None, label: str,
    rng: np.random.Generator,
) -> Visit:
    poor = label == "Unknown" or rng.random() < 0.1
    noise_db = rng.normal(-8.0, 2.5) if poor else rng.normal(-14.0, 3.5)
    gain_db = rng.normal(0, 2.5) + (1.0 if campaign == "CC2014" else 0.0)
    missing = str(rng.choice(["", *stethoscope.LOCATIONS], p=[0.9, 0.025, 0.025, 0.025, 0.025]))
    scenes = {
        location: _draw_scene(child, poor, float(noise_db), float(gain_db), rng) for location in stethoscope.LOCATIONS
    }
    scenes.pop(missing, None)
    return Visit(child, patient_id, campaign, additional_id, label, poor, scenes, (seed, 4, patient_id))


def _draw_scene(child: Child, poor: bool, noise_db: float, gain_db: float, rng: np.random.Generator) -> Scene:
    bmi = child.weight_kg / (child.height_cm / 100) ** 2
    cries = child.age_years < 4
    speaks = rng.random() < (0.45 if poor else 0.15)
    return Scene(
        gain_db=gain_db + float(rng.normal(0, 1.5)),
        chest_hz=float(230 * (16 / bmi) ** 0.7 * np.exp(rng.normal(0, 0.2))),
        noise_db=noise_db + float(rng.normal(0, 2.2)),
        hiss_db=float(rng.normal(-13.5, 4)),
        breath_share=float(rng.beta(0.8, 5.0)),
        breath_hz=child.heart.breath_hz,
        breath_start=float(rng.uniform(0, 2 * np.pi)),
        hum_db=float(rng.normal(-24, 4)) if rng.random() < 0.15 else -np.inf,
        voice_db=float(rng.normal(-2 if poor else -7, 4)) if speaks else -np.inf,
        voice_hz=float(rng.uniform(320, 480) if cries else rng.uniform(110, 260)),
        voice_share=float(rng.uniform(0.1, 0.6)),
        rubs_per_s=float(rng.gamma(1.0, 0.7 if poor else 0.25)),
        rub_db=float(rng.normal(8, 5)),
    )


def heard_at(visit: Visit) -> list[str]:
    """Locations at which the clinic hears the murmur: all from grade II on, else those where the noise permits."""
    child = visit.child
    if visit.label != "Present" or child.murmur is None:
        return []
    loudest = most_audible(visit)
    if child.murmur.grade != "I/VI":
        return list(visit.scenes)
    level_db = {place: murmur_db(visit, place) - scene.noise_db for place, scene in visit.scenes.items()}
    return [place for place in visit.scenes if place == loudest or level_db[place] > -3.0]


def most_audible(visit: Visit) -> str:
    """The recorded location at which the lesion is loudest."""
    return max(visit.scenes, key=lambda place: _radiation_db(visit.child, place))


def murmur_db(visit: Visit, location: str) -> float:
    """Level of the systolic murmur at a location in dB against S1; -inf where there is none."""
    if visit.child.murmur is None:
        return -np.inf
    return physiology.GRADE_DB[visit.child.murmur.grade] + visit.child.murmur_db + _radiation_db(visit.child, location)


def _radiation_db(child: Child, location: str) -> float:
    return LESIONS[child.lesion].level_db[location] if child.lesion else {"MV": 0.0}.get(location, -3.0)


def table_row(visit: Visit) -> dict[str, str]:
    """The visit's row of `training_data.csv`: `COLUMNS` -> text in CirCor's words."""
    child, places = visit.child, heard_at(visit)
    pregnant = child.age_group == NONE
    grown = _GROWTH_A_YEAR if visit.additional_id and visit.campaign == "CC2015" else 1.0
    height_cm, weight_kg = child.height_cm * grown, child.weight_kg * grown**2
    described = _words(child.murmur if places else None, "VI") + _words(child.diastolic if places else None, "IV")
    values = (
        str(visit.patient_id), "+".join(visit.scenes), child.age_group, child.sex,
        NONE if pregnant else f"{height_cm:.0f}.0", NONE if pregnant else f"{weight_kg:.1f}", str(pregnant),
        visit.label, "+".join(sorted(places)) or NONE, most_audible(visit) if places else NONE, *described,
        "Abnormal" if child.abnormal else "Normal", visit.campaign, str(visit.additional_id or NONE),
    )
    return dict(zip(COLUMNS, values, strict=True))


def _words(murmur: Murmur | None, scale: str) -> tuple[str, ...]:
    if murmur is None:
        return (NONE,) * 5
    return murmur.timing, murmur.shape, murmur.grade.replace("VI", scale), murmur.pitch, murmur.quality


def record(visit: Visit, seconds: float) -> list[Recording]:
    """The visit's recordings, one a location. Their length is `seconds`, up to a fifth shorter or longer."""
    return [_record(visit, location, scene, seconds) for location, scene in visit.scenes.items()]


def _record(visit: Visit, location: str, scene: Scene, seconds: float) -> Recording:
    child = visit.child
    rng = np.random.default_rng([*visit.key, stethoscope.LOCATIONS.index(location)])
    length = round(seconds * rng.uniform(0.8, 1.2), 2)
    time = physiology.sample_times(length)
    beats = physiology.draw_beats(child.heart, length, scene.breath_start, rng)
    gains = {valve: gain + float(rng.normal(0, 2.0)) for valve, gain in stethoscope.VALVE_GAIN_DB[location].items()}
    chest = stethoscope.chest_response(scene.chest_hz, len(time))
    sound = physiology.valve_sounds(child.heart, beats, gains, time, rng)
    for murmur in (child.murmur, child.diastolic):
        if murmur is not None and np.isfinite(child.murmur_db):
            level = 10 ** ((child.murmur_db + _radiation_db(child, location)) / 20)
            sound += level * physiology.murmur_sound(murmur, beats, chest, time, rng)
    pcm = stethoscope.record(sound, scene, rng)
    states = _annotated(physiology.states(beats, length), visit.poor, rng)
    return Recording(f"{visit.patient_id}_{location}", location, pcm, states)


def _annotated(
    states: list[tuple[float, float, int]], poor: bool, rng: np.random.Generator
) -> list[tuple[float, float, int]]:
    """The states that an annotator marks: often only some successive cycles, and few in a poor recording."""
    cycles = sum(code == physiology.S1 for *_, code in states)
    share = rng.uniform(0.2, 0.6) if poor else (1.0 if rng.random() < 0.4 else rng.uniform(0.4, 0.95))
    marked = min(cycles, max(4, round(share * cycles)))
    first = int(rng.integers(0, cycles - marked + 1))
    marks = [row for row in states if row[2] != physiology.UNANNOTATED][4 * first : 4 * (first + marked)]
    if not marks:
        return states
    edges = ((0.0, marks[0][0], physiology.UNANNOTATED), *marks, (marks[-1][1], states[-1][1], physiology.UNANNOTATED))
    return [row for row in edges if row[1] > row[0]]
