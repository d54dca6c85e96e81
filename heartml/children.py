"""Who is recorded, what is wrong with their hearts, and what the clinic writes down. Pure: no files.

In: a seed and a child's number. Out: a `Child`, its `Visit`s (rows of CirCor's table) and their `Recording`s. Child k
is the same whatever the number of children: every child, visit and recording has a generator of its own.

Labels come in blocks of eighteen children (eleven Absent, five Present, two Unknown: 61, 28, 11 %), so that each class
has enough children in a small corpus. The truth behind a label is another matter, as in a clinic: some murmurs are
missed, some are imagined, and Unknown means that nobody could hear enough.

Sources
    Heart rate, breathing by age: Fleming et al. 2011, Lancet 377:1011, raised by a tenth for children who are awake.
    Height by age: WHO growth standards and reference 2006/2007, medians. Ages, missing values: CirCor's table.
    Murmurs by lesion, where they are loudest: Leatham 1958; Biancaniello 2005, Circulation 111:e20 (innocent murmurs);
        shares of timing, shape, grade, pitch, quality and outcome near those of CirCor (Oliveira et al. 2022).
"""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from heartml import physiology as body
from heartml import stethoscope as ear
from heartml.physiology import Heart, Murmur

COLUMNS = (
    "Patient ID", "Recording locations:", "Age", "Sex", "Height", "Weight", "Pregnancy status", "Murmur",
    "Murmur locations", "Most audible location",
    *(f"Systolic murmur {what}" for what in ("timing", "shape", "grading", "pitch", "quality")),
    *(f"Diastolic murmur {what}" for what in ("timing", "shape", "grading", "pitch", "quality")),
    "Outcome", "Campaign", "Additional ID",
)
NONE = "nan"
MAX_CHILDREN = 40_000
_BLOCK = ("Absent",) * 11 + ("Present",) * 5 + ("Unknown",) * 2
_RETURNS_EVERY = 20                  # one child in twenty comes back in the second campaign under another id
_IDS = 40_009                        # a prime: ids are a permutation of its residues
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
class Lesion:
    """A cause of a murmur: how often, how it sounds (choices with weights), and its level at each location in dB."""

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
    return dict(zip(ear.LOCATIONS, (av, pv, tv, mv), strict=True))


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


@dataclass(frozen=True)
class Child:
    """One child: body, heart, lesion (`None`: none), what the clinic says first."""

    number: int
    label: str
    age_group: str
    age_years: float
    sex: str
    height_cm: float
    weight_kg: float
    heart: Heart
    lesion: str | None
    murmur: Murmur | None        # what there is
    murmur_db: float             # louder or fainter than its grade's mean
    diastolic: Murmur | None
    abnormal: bool


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


def draw_child(seed: int, number: int) -> Child:
    """Child `number` of the corpus `seed`."""
    rng = np.random.default_rng([seed, 2, number])
    label = _labels(seed, number // len(_BLOCK))[number % len(_BLOCK)]
    group = str(rng.choice(list(_AGE_GROUPS), p=_AGE_SHARES))
    age = float(rng.uniform(*_AGE_GROUPS[group]))
    height = _by_age(age, _HEIGHT_CM) * np.exp(rng.normal(0, 0.05))
    bmi = _by_age(age, _BMI) * np.exp(rng.normal(0.03, 0.13))
    truth = rng.random()
    has_murmur = {"Present": truth > 0.04, "Absent": truth < 0.05, "Unknown": truth < 0.4}[label]
    lesion = str(rng.choice(list(LESIONS), p=[kind.share for kind in LESIONS.values()]))
    murmur = _draw_murmur(LESIONS[lesion], rng)
    diastolic = _draw_diastolic(LESIONS[lesion], rng)
    level_db = float(rng.normal(0, 2.5))
    if label != "Present":           # what is missed is faint
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
        s2_hz=float((58 + 14 * small) * np.exp(rng.normal(0, 0.15))),
        split_s=float(np.clip(rng.normal(0.018, 0.01), 0.004, 0.055)),
        s3_db=float(rng.normal(-12, 3)) if rng.random() < 0.2 else -np.inf,
        s4_db=float(rng.normal(-14, 3)) if rng.random() < 0.05 else -np.inf,
        extrasystole_share=0.08 if rng.random() < 0.04 else 0.0,
    )


def _draw_murmur(lesion: Lesion, rng: np.random.Generator) -> Murmur:
    return Murmur(
        _pick(lesion.timing, rng), _pick(lesion.shape, rng),
        str(rng.choice(list(body.GRADE_DB), p=lesion.grade)), str(rng.choice(list(body.PITCH_HZ), p=lesion.pitch)),
        _pick(lesion.quality, rng),
    )


def _draw_diastolic(lesion: Lesion, rng: np.random.Generator) -> Murmur | None:
    if lesion.diastolic is None or rng.random() < 0.5:
        return None
    return Murmur(lesion.diastolic, "Decrescendo", "I/VI", "Medium", "Blowing")


def _pick(weights: dict[str, float], rng: np.random.Generator) -> str:
    shares = np.array(list(weights.values()))
    return str(rng.choice(list(weights), p=shares / shares.sum()))


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
    noise_db = rng.normal(-7.5, 2.5) if poor else rng.normal(-14.0, 3.5)
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
        breath_share=float(rng.beta(1.5, 2.0)),
        breath_hz=child.heart.breath_hz,
        breath_start=float(rng.uniform(0, 2 * np.pi)),
        hum_db=float(rng.normal(-24, 4)) if rng.random() < 0.15 else -np.inf,
        voice_db=float(rng.normal(-2 if poor else -7, 4)) if speaks else -np.inf,
        voice_hz=float(rng.uniform(320, 480) if cries else rng.uniform(110, 260)),
        voice_share=float(rng.uniform(0.1, 0.6)),
        rubs_per_s=float(rng.gamma(1.0, 0.7 if poor else 0.25)),
        rub_db=float(rng.normal(5, 4)),
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
    described = _words(child.murmur if places else None, "VI") + _words(child.diastolic if places else None, "IV")
    values = (
        str(visit.patient_id), "+".join(visit.scenes), child.age_group, child.sex,
        NONE if pregnant else f"{child.height_cm:.0f}.0", NONE if pregnant else f"{child.weight_kg:.1f}", str(pregnant),
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
