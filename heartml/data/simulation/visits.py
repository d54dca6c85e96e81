"""A child's visits: what is recorded where, under which noise, what the clinic hears and writes down.

In: a seed and a `Child`. Out: `Visit`s, each a row of CirCor's table and its `Recording`s. Child k is the same whatever
the number of children: every child, visit and recording has a generator of its own.
"""

from dataclasses import dataclass

import numpy as np

from heartml.data.simulation import physiology as body
from heartml.data.simulation import stethoscope as ear
from heartml.data.simulation.children import NONE, Child
from heartml.data.simulation.lesions import LESIONS
from heartml.data.simulation.physiology import Murmur

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
    """A child recorded in one campaign under one id, with a scene for each location that was recorded."""

    child: Child
    patient_id: int
    campaign: str
    additional_id: int | None
    label: str
    poor: bool
    scenes: dict[str, ear.Scene]
    key: tuple[int, ...]         # entropy of its recordings' generators


@dataclass(frozen=True)
class Recording:
    """int16 samples at 4 kHz, and the heart's states that tile them."""

    name: str
    location: str
    pcm: ear.Pcm
    states: list[tuple[float, float, int]]


def draw_visits(seed: int, child: Child) -> list[Visit]:
    """The child's visits: one, or two under different ids that name each other as `Additional ID`."""
    base = (child.number * 7919 + seed * 104_729) % _IDS
    first, second = 50_000 + base, 9_990 + base
    rng = np.random.default_rng([seed, 3, child.number])
    if child.number % _RETURNS_EVERY != _RETURNS_EVERY - 7:
        campaign = "CC2014" if rng.random() < 0.39 else "CC2015"
        return [_visit(seed, child, first, campaign, None, child.label, rng)]
    heard = "Absent" if child.lesion is None else "Present"     # what was Unknown is settled the second time
    later = heard if child.label == "Unknown" else child.label
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
    missing = str(rng.choice(["", *ear.LOCATIONS], p=[0.9, 0.025, 0.025, 0.025, 0.025]))
    scenes = {
        location: _draw_scene(child, poor, float(noise_db), float(gain_db), rng) for location in ear.LOCATIONS
    }
    scenes.pop(missing, None)
    return Visit(child, patient_id, campaign, additional_id, label, poor, scenes, (seed, 4, patient_id))


def _draw_scene(child: Child, poor: bool, noise_db: float, gain_db: float, rng: np.random.Generator) -> ear.Scene:
    bmi = child.weight_kg / (child.height_cm / 100) ** 2
    cries = child.age_years < 4
    speaks = rng.random() < (0.45 if poor else 0.15)
    return ear.Scene(
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
    """Locations at which the clinic says it hears the murmur: all of them from grade II, else where noise permits."""
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
    """Level of the systolic murmur at a location against S1, -inf where there is none."""
    if visit.child.murmur is None:
        return -np.inf
    return body.GRADE_DB[visit.child.murmur.grade] + visit.child.murmur_db + _radiation_db(visit.child, location)


def _radiation_db(child: Child, location: str) -> float:
    return LESIONS[child.lesion].level_db[location] if child.lesion else {"MV": 0.0}.get(location, -3.0)


def table_row(visit: Visit) -> dict[str, str]:
    """The visit's row of `training_data.csv`, in CirCor's columns and words."""
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
    """The visit's recordings, one a location, about `seconds` long (a fifth shorter to a fifth longer)."""
    return [_record(visit, location, scene, seconds) for location, scene in visit.scenes.items()]


def _record(visit: Visit, location: str, scene: ear.Scene, seconds: float) -> Recording:
    child = visit.child
    rng = np.random.default_rng([*visit.key, ear.LOCATIONS.index(location)])
    length = round(seconds * rng.uniform(0.8, 1.2), 2)
    time = body.clock(length)
    beats = body.draw_beats(child.heart, length, scene.breath_start, rng)
    gains = {valve: gain + float(rng.normal(0, 2.0)) for valve, gain in ear.VALVE_GAIN_DB[location].items()}
    chest = ear.chest_response(scene.chest_hz, len(time))
    sound = body.valve_sounds(child.heart, beats, gains, time, rng)
    for murmur in (child.murmur, child.diastolic):
        if murmur is not None and np.isfinite(child.murmur_db):
            level = 10 ** ((child.murmur_db + _radiation_db(child, location)) / 20)
            sound += level * body.murmur_sound(murmur, beats, chest, time, rng)
    pcm = ear.record(sound, scene, rng)
    states = _annotated(body.states(beats, length), visit.poor, rng)
    return Recording(f"{visit.patient_id}_{location}", location, pcm, states)


def _annotated(
    states: list[tuple[float, float, int]], poor: bool, rng: np.random.Generator
) -> list[tuple[float, float, int]]:
    """The states as an annotator leaves them: often only a run of cycles is marked, few in a poor recording."""
    cycles = sum(code == body.S1 for *_, code in states)
    share = rng.uniform(0.2, 0.6) if poor else (1.0 if rng.random() < 0.4 else rng.uniform(0.4, 0.95))
    kept = min(cycles, max(4, round(share * cycles)))
    first = int(rng.integers(0, cycles - kept + 1))
    marks = [row for row in states if row[2] != body.UNANNOTATED][4 * first : 4 * (first + kept)]
    if not marks:
        return states
    edges = ((0.0, marks[0][0], body.UNANNOTATED), *marks, (marks[-1][1], states[-1][1], body.UNANNOTATED))
    return [row for row in edges if row[1] > row[0]]
