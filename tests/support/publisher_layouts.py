"""BMD-HS, PhysioNet 2016, Yaseen 2018 and a clinic in miniature: publishers' layouts, the simulator's hearts.

The sounds are `heartml.data.simulation`'s (children's hearts, whatever the label says of adults); names, tables and
quirks
are the publishers'. `BUILDERS` holds one builder for each data set, those of `publishers` too; of what they write
nothing is refused.
"""

import hashlib
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import yaml
from support import lung_layouts, publisher_files
from support.publisher_files import wav_bytes

from heartml.data.simulation import visits
from heartml.data.simulation.children import draw_child
from heartml.data.simulation.physiology import SAMPLE_RATE_HZ, Murmur
from heartml.data.simulation.stethoscope import LOCATIONS

_SEED = 7
_SECONDS = 3.0
_SYSTOLIC = {"AS": Murmur("Mid-systolic", "Diamond", "III/VI", "Medium", "Harsh"),
             "MR": Murmur("Holosystolic", "Plateau", "III/VI", "Medium", "Blowing"),
             "MVP": Murmur("Late-systolic", "Crescendo", "II/VI", "Medium", "Blowing")}
_DIASTOLIC = {"AR": Murmur("Early-diastolic", "Decrescendo", "III/VI", "High", "Blowing"),
              "MS": Murmur("Mid-diastolic", "Plateau", "III/VI", "Low", "Harsh")}
_LOUDEST = {"AS": "aortic stenosis", "AR": "aortic stenosis"}


@cache
def draw_heart_sound(number: int, location: str = "MV", *, ill: tuple[str, ...] = (), take: int = 0) -> np.ndarray:
    """Samples int16 [time] at 4 kHz of child `number` with the diseases `ill`; another `take` is another recording."""
    healthy = replace(draw_child(_SEED, number), lesion=None, murmur=None, diastolic=None, murmur_db=-np.inf)
    child = replace(
        healthy, lesion=_LOUDEST.get(ill[0], "mitral regurgitation"), murmur_db=3.0,
        murmur=next((_SYSTOLIC[one] for one in ill if one in _SYSTOLIC), None),
        diastolic=next((_DIASTOLIC[one] for one in ill if one in _DIASTOLIC), None),
    ) if ill else healthy
    visit = visits.draw_visits(_SEED, child)[0]
    scene = visit.scenes.get(location) or next(iter(visit.scenes.values()))
    one = replace(visit, scenes={location: scene}, key=(*visit.key, take), poor=False)
    return visits.record(one, _SECONDS)[0].pcm


def resample(pcm: np.ndarray, rate_hz: int) -> np.ndarray:
    """The same sound at another rate."""
    spectrum = np.fft.rfft(pcm / 32768)
    count = round(len(pcm) * rate_hz / SAMPLE_RATE_HZ)
    moved = np.fft.irfft(spectrum[: count // 2 + 1], count) * count / len(pcm)
    return np.clip(np.round(moved * 32768), -32768, 32767).astype(np.int16)


def with_offset(pcm: np.ndarray, share: float) -> np.ndarray:
    """The sound around another level than zero, in shares of full scale."""
    return np.clip(pcm.astype(int) + round(share * 32768), -32768, 32767).astype(np.int16)


# BMD-HS

ILL = {1: ("AS", "AR", "MR", "MS"), 2: ("MR",), 5: ("AS",), 6: ("MS",), 16: ("AR",), 85: ("MR", "MS"), 28: ("AR", "MS")}
HEALTHY = (89, 90, 91, 92, 93, 94, 95)
_ANSWERS = ("AS", "AR", "MR", "MS")
_PLACES = {"Mit": "MV", "Tri": "TV", "Pul": "PV", "Aor": "AV"}
_POSTURES = ("sup", "sit")
NOT_IN_THE_TABLE = 22
RENAMED = ("MD_085_sit_Tri", "MD_085_sit_Tri6_06")
COPIES = [("N_089_sup_Mit", "N_089_sit_Mit"), ("N_090_sup_Aor", "N_090_sup_Pul"), ("AS_005_sit_Tri", "AS_005_sup_Tri"),
          ("MR_002_sup_Pul", "MR_002_sit_Pul"), ("MS_006_sup_Mit", "MS_006_sup_Aor")]      # first, copied to the second
OFFSET = 0.25


def bmdhs_names(number: int) -> list[str]:
    """The eight recordings of a patient, as the table names them."""
    ill = ILL.get(number, ())
    kind = "MD" if len(ill) > 1 or number == NOT_IN_THE_TABLE else (*ill, "N")[0]
    return [f"{kind}_{number:03d}_{posture}_{place}" for posture in _POSTURES for place in _PLACES]


def bmdhs(folder: Path, *, quirks: bool = False) -> Path:
    """Write the layout of BMD-HS; with `quirks`, everything that is wrong with the real one."""
    (folder / "train").mkdir(parents=True, exist_ok=True)
    patients = [*ILL, *HEALTHY, *([NOT_IN_THE_TABLE] if quirks else [])]
    sounds = {name: _bmdhs_sound(number, name) for number in patients for name in bmdhs_names(number)}
    if quirks:
        for number in HEALTHY:
            for name in bmdhs_names(number):
                sounds[name] = with_offset(sounds[name], OFFSET)
        sounds |= {copy: sounds[name] for name, copy in COPIES}
        sounds[RENAMED[1]] = sounds.pop(RENAMED[0])
    for name, pcm in sounds.items():
        (folder / "train" / f"{name}.wav").write_bytes(wav_bytes(pcm))
    bmdhs_tables(folder, {number: ILL.get(number, ()) for number in patients if number != NOT_IN_THE_TABLE})
    return folder


def _bmdhs_sound(number: int, name: str) -> np.ndarray:
    _, _, posture, place = name.split("_")
    return draw_heart_sound(number, _PLACES[place], ill=ILL.get(number, ()), take=_POSTURES.index(posture))


def bmdhs_tables(folder: Path, patients: dict[int, tuple[str, ...]]) -> None:
    """Write both tables; the healthy are young, from town, and do not smoke, as in the real ones."""
    head = ["patient_id", *_ANSWERS, "N", *(f"recording_{n}" for n in range(1, 9))]
    rows, about = [head], [["patient_id", "Age", "Gender", "Smoker", "Lives"]]
    for number, ill in patients.items():
        answers = [str(int(answer in ill)) for answer in _ANSWERS]
        rows.append([f"patient_{number:03d}", *answers, str(int(not ill)), *bmdhs_names(number)])
        sick = [f"{30 + 10 * (number % 3)}-{39 + 10 * (number % 3)}", "FM"[number % 2], str(number % 2), "R"]
        about.append([f"patient_{number:03d}", *(sick if ill else ["20-29", "MF"[number % 2], "0", "U"])])
    for name, table in (("train.csv", rows), ("additional_metadata.csv", about)):
        (folder / name).write_text("\n".join(",".join(row) for row in table) + "\n")


# PhysioNet 2016: record -> (1 abnormal or -1 normal, original name, subject, raw record, age, sex)

RECORDS_2016 = {
    "a0001": (1, "C45S1", "", "", "", ""), "a0002": (1, "C45S2b", "", "", "", ""),
    "a0003": (-1, "C7S1", "", "", "", ""),
    "b0001": (-1, "S34f1_data", "34.0", "", "25", "M"), "b0002": (-1, "S34f2.e4k_data", "34", "", "25", "M"),
    "b0003": (1, "S35f1_data", "35", "", "61.5", "F"),
    "c0001": (1, "id17_r1", "", "", "", ""), "c0002": (1, "id17_r2", "", "", "", ""),
    "d0001": (-1, "x1", "", "", "", ""), "d0002": (1, "x2", "", "", "", ""),
    "e00001": (-1, "e00014", "", "14.0", "24", "Male"), "e00002": (-1, "e00015", "", "14", "24", "Male"),
    "e00003": (1, "14", "", "14", "70", "Female"), "e00004": (-1, None, "", "", "", ""),     # not in the appendix
    "f0001": (-1, "y1", "", "", "", ""), "f0002": (1, "y2", "", "", "", ""),
}
_APPENDIX_COLUMNS = ("Challenge record name", "Database", "Original record name", "Diagnosis",
                     "Class (-1=normal 1=abnormal)", "Subject ID", "# Raw record", "Age (year)", "Gender")


def physionet2016(folder: Path, *, appendix: bool = True) -> Path:
    """Write the challenge's layout: six parts at 2 kHz with their lists, the repeated recordings, the appendix."""
    for seed, (name, (answer, *_)) in enumerate(RECORDS_2016.items()):
        part = folder / f"training-{name[0]}"
        part.mkdir(parents=True, exist_ok=True)
        pcm = resample(draw_heart_sound(200 + seed, ill=("MR",) if answer == 1 else ()), 2000)
        (part / f"{name}.wav").write_bytes(wav_bytes(pcm, 2000))
        (part / f"{name}.hea").write_text(f"{name} 1 2000 {len(pcm)}\n# {'Abnormal' if answer == 1 else 'Normal'}\n")
        (part / f"{name}.dat").write_bytes(pcm.tobytes())
    (folder / "validation").mkdir(exist_ok=True)
    (folder / "validation" / "a0001.wav").write_bytes((folder / "training-a" / "a0001.wav").read_bytes())
    (folder / "validation" / "REFERENCE.csv").write_text("a0001,1\n")
    physionet2016_lists(folder, {name: row[0] for name, row in RECORDS_2016.items()})
    if appendix:
        (folder / "annotations").mkdir(exist_ok=True)
        rows = [(name, f"training-{name[0]}", original, "", str(answer), subject, raw, age, sex)
                for name, (answer, original, subject, raw, age, sex) in RECORDS_2016.items() if original is not None]
        text = "\r\n".join(",".join(row) for row in [_APPENDIX_COLUMNS, *rows]) + "\r\n"
        (folder / "annotations" / "Online_Appendix_training_set.csv").write_text(text, encoding="utf-8-sig")
    return folder


def physionet2016_lists(folder: Path, answers: dict[str, int]) -> None:
    """Write the answers, the lists and the checksums of every part."""
    for part in sorted(folder.glob("training-?")):
        own = {name: answer for name, answer in answers.items() if name[0] == part.name[-1]}
        (part / "REFERENCE.csv").write_text("".join(f"{name},{answer}\n" for name, answer in own.items()))
        for file, kept in (("RECORDS", (1, -1)), ("RECORDS-abnormal", (1,)), ("RECORDS-normal", (-1,))):
            (part / file).write_text("".join(f"{name}\n" for name, answer in own.items() if answer in kept))
        sums = [f"{hashlib.sha256(p.read_bytes()).hexdigest()} {p.name}" for p in sorted(part.iterdir())
                if p.name != "SHA256SUMS"]
        (part / "SHA256SUMS").write_text("\n".join(sums) + "\n")


# Yaseen 2018

CLASSES_2018 = ("AS", "MR", "MS", "MVP", "N")


def yaseen(folder: Path, each: int = 3) -> Path:
    """Write the five folders, at 8 kHz; one is still called as its archive is."""
    for number, label in enumerate(CLASSES_2018):
        own = folder / (f"{label}_New_3주기" if label == "MR" else label)
        own.mkdir(parents=True, exist_ok=True)
        for k in range(1, each + 1):
            place = LOCATIONS[k % len(LOCATIONS)]
            pcm = draw_heart_sound(300 + 20 * number + k, place, ill=() if label == "N" else (label,))
            (own / f"New_{label}_{k:03d}.wav").write_bytes(wav_bytes(resample(pcm, 8000), 8000))
    return folder


# Any labelled collection

MAPPING = {
    "title": "Heart sounds of a clinic", "citation": "Personal communication (2026)", "licence": "CC-BY-4.0",
    "table": "recordings.csv",
    "columns": {"path": "file", "patient": "subject", "location": "site", "age": "years", "sex": "sex",
                "source": "device"},
    "values": {"location": {"apex": "MV", "tricuspid": "TV"}, "sex": {"f": "Female", "m": "Male"}},
    "labels": {"murmur": {"column": "murmur", "classes": {"yes": "Present", "no": "Absent"}}},
}


def generic(folder: Path, name: str = "generic", *, patients: int = 6, first: int = 400, **mapping: object) -> Path:
    """Write a clinic's CSV, its sounds at 8 kHz, and the mapping file `name`.yaml; every second patient is ill.

    Args:
        first: number of the first simulated child.
        mapping: what takes the place of keys of `MAPPING`.
    """
    (folder / "sounds").mkdir(parents=True, exist_ok=True)
    rows = [["file", "subject", "site", "years", "sex", "device", "murmur"]]
    for k in range(patients):
        ill = ("MR",) if k % 2 == 0 else ()
        for site, location in MAPPING["values"]["location"].items():
            file = f"sounds/{k}_{site}.wav"
            (folder / file).write_bytes(wav_bytes(resample(draw_heart_sound(first + k, location, ill=ill), 8000), 8000))
            rows.append([file, f"P{k}", site, str(30 + 7 * k % 60), "fm"[k % 2], "Littmann", "yes" if ill else "no"])
    (folder / "recordings.csv").write_text("\n".join(",".join(row) for row in rows) + "\n")
    (folder / f"{name}.yaml").write_text(yaml.safe_dump({**MAPPING, **mapping}, sort_keys=False))
    return folder


BUILDERS = {**publisher_files.BUILDERS, "bmdhs": bmdhs, "physionet2016": physionet2016, "yaseen": yaseen,
            **lung_layouts.BUILDERS, "generic": generic}
