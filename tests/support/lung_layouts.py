"""Five collections of lungs, coughs and breath in miniature: publishers' names, folders and tables, noise for sound.

`BUILDERS` holds one builder for each data set; of what they write nothing is refused.
"""

import io
import json
from itertools import count
from pathlib import Path

import numpy as np
import soundfile
from support.publisher_files import beating_noise, wav_bytes

from heartml.data.simulation import lung_corpus

# ICBHI: recording -> breaths (crackles, wheezes); 101 has a second device, 104 both signs in different breaths
ICBHI = {
    "101_1b1_Al_sc_Meditron": ((0, 0), (0, 0)), "101_1b1_Pr_sc_Litt3200": ((0, 1), (0, 0)),
    "102_1b1_Ar_sc_Meditron": ((0, 0),), "104_1b1_Ar_mc_AKGC417L": ((1, 0), (0, 1), (0, 0)),
    "104_1b1_Ll_mc_AKGC417L": ((1, 0), (1, 0)), "121_1p1_Tc_sc_Meditron": ((0, 0), (1, 1)),
}
ICBHI_DIAGNOSES = {"101": "URTI", "102": "Healthy", "104": "COPD", "121": "Healthy"}
ICBHI_PERSONS = {"101": "3 F NA 19 99", "102": "0.75 F NA 9.8 73", "104": "70 F 28.47 NA NA", "121": "13 F NA 65 135"}
BREATH_S = 0.4


def icbhi(folder: Path, *, kaggle: bool = True) -> Path:
    """Write the layout of the copy on Kaggle, or of the publisher's archive, whose lists have tabs and other names."""
    sounds = folder / ("audio_and_txt_files" if kaggle else "ICBHI_final_database")
    sounds.mkdir(parents=True, exist_ok=True)
    for seed, (name, breaths) in enumerate(ICBHI.items(), 500):
        (sounds / f"{name}.wav").write_bytes(wav_bytes(beating_noise(seed, 1.3)))
        lines = [f"{n * BREATH_S:.3f}\t{(n + 1) * BREATH_S:.3f}\t{crackles}\t{wheezes}"
                 for n, (crackles, wheezes) in enumerate(breaths)]
        (sounds / f"{name}.txt").write_text("\n".join(lines) + "\n")
    between, names = (",", ("patient_diagnosis.csv", "demographic_info.txt")) if kaggle else (
        "\t", ("ICBHI_Challenge_diagnosis.txt", "ICBHI_Challenge_demographic_information.txt"))
    diagnoses = "".join(f"{patient}{between}{word}\n" for patient, word in ICBHI_DIAGNOSES.items())
    persons = "".join(f"{patient} {about}\n" for patient, about in ICBHI_PERSONS.items())
    (folder / names[0]).write_text(diagnoses)
    (folder / names[1]).write_text(persons if kaggle else persons.replace(" ", "\t"))
    return folder


# SPRSound: folder of the JSON file -> recordings (name, label, events)
SPRSOUND = {
    "BioCAS2022/train2022_json": [
        ("40001_3.4_1_p2_1", "Normal", ("Normal", "Normal")), ("40001_3.4_1_p1_2", "CAS", ("Wheeze", "Normal")),
        ("40002_10.5_0_p3_3", "DAS", ("Fine Crackle",)),
        ("40003_0.2_0_p4_4", "CAS & DAS", ("Wheeze+Crackle", "Rhonchi")),
    ],
    "BioCAS2022/test2022_json/inter_test_json": [("40004_7.1_1_p1_5", "Poor Quality", ())],
    "BioCAS2022/test2022_json/intra_test_json": [("40002_10.5_0_p4_6", "Normal", ("Normal",))],
}


def sprsound(folder: Path) -> Path:
    """Write the challenge of 2022: sounds in one folder a part, JSON files in others; times are text."""
    seeds = count(600)
    for place, recordings in SPRSOUND.items():
        sounds = folder / "BioCAS2022" / ("train2022_wav" if "train" in place else "test2022_wav")
        for each in (sounds, folder / place):
            each.mkdir(parents=True, exist_ok=True)
        for name, label, events in recordings:
            (sounds / f"{name}.wav").write_bytes(wav_bytes(beating_noise(next(seeds), 1.3)))
            said = [{"start": str(100 + 400 * n), "end": str(450 + 400 * n), "type": event}
                    for n, event in enumerate(events)]
            text = json.dumps({"record_annotation": label, "event_annotation": said})
            (folder / place / f"{name}.json").write_text(text)
    return folder


KAUH = ("1_Asthma,I E W,P L L,70,M", "2_N,N,A R U,25,F",
        "3_Heart Failure + COPD,E W,P R M,66,M", "4_pneumonia,I C,P L U,41,F")


def kauh(folder: Path, patients: tuple[str, ...] = KAUH) -> Path:
    """Write three recordings of each patient, one a filter; they differ, as filters and telephones make them differ."""
    sounds = folder / "Audio Files"
    sounds.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(patients, 700):
        for number, letter in enumerate("BDE"):
            (sounds / f"{letter}P{name}.wav").write_bytes(wav_bytes(beating_noise(3 * seed + number, 1.3)))
    return folder


COSWARA = {     # id -> date, age, sex, smoker, status
    "vK2bLRNzll": ("20200413", "27", "male", "n", "positive_mild"),
    "bjA2KpSxne": ("20200413", "41", "female", "y", "healthy"),
    "htQzROl26O": ("20200415", "38", "female", "False", "recovered_full"),
    "pW9mCAeWYi": ("20200415", "", "pnts", "", "healthy"),
}
COSWARA_KINDS = ("cough-heavy", "cough-shallow", "breathing-deep", "breathing-shallow", "vowel-a")


def coswara(folder: Path) -> Path:
    """Write the table, five recordings of each person, one a voice, and the qualities of one kind."""
    lines = ["id,a,record_date,covid_status,g,l_c,smoker"]
    seeds = count(800)
    for name, (date, age, sex, smoker, status) in COSWARA.items():
        lines.append(f"{name},{age},{date},{status},{sex},India,{smoker}")
        own = folder / "Extracted_data" / date / name
        own.mkdir(parents=True, exist_ok=True)
        for kind in COSWARA_KINDS:
            (own / f"{kind}.wav").write_bytes(wav_bytes(beating_noise(next(seeds), 1.3)))
    (folder / "combined_data.csv").write_text("\n".join(lines) + "\n")
    (folder / "annotations").mkdir(exist_ok=True)
    qualities = "".join(f"{name}_cough-heavy,{n % 3}\n" for n, name in enumerate(COSWARA))
    (folder / "annotations" / "cough-heavy_labels.csv").write_text("FILENAME, QUALITY\n" + qualities)
    return folder


COUGHVID = {    # uuid -> probability of a cough, age, sex, status
    "00039425-7f3a": ("0.9609", "15", "male", "healthy"), "0028b68c-aca4": ("0.8937", "28", "female", "COVID-19"),
    "0029d048-898a": ("0.9456", "35", "male", "symptomatic"), "0012c608-33d0": ("0.0482", "", "", ""),
    "0037f67c-0d6f": ("0.8109", "39", "other", "healthy"),
}


def coughvid(folder: Path, *, table: bool = True) -> Path:
    """Write recordings as OGG, with the table of all, or with a JSON file beside each."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = ["uuid,datetime,cough_detected,latitude,age,gender,respiratory_condition,status,quality_1"]
    for seed, (name, (detected, age, sex, status)) in enumerate(COUGHVID.items(), 900):
        (folder / f"{name}.ogg").write_bytes(_ogg(beating_noise(seed, 1.3)))
        rows.append(f"{name},2020-04-13T21:30:59+00:00,{detected},31.3,{age},{sex},False,{status},")
        said = {"cough_detected": detected, "age": age, "gender": sex, "status": status}
        if not table:
            (folder / f"{name}.json").write_text(json.dumps({key: value for key, value in said.items() if value}))
    if table:
        (folder / "metadata_compiled.csv").write_text("\n".join(rows) + "\n")
    return folder


def breath_or_wheeze(seed: int, *, wheezes: bool) -> np.ndarray:
    """Samples int16 [time] at 4 kHz of a noise, with a tone of 400 Hz where it wheezes."""
    pcm = beating_noise(seed, 1.3).astype(float)
    tone = 9000.0 * np.sin(2 * np.pi * 400 * np.arange(len(pcm)) / 4000)
    return np.clip(pcm * 0.6 + tone * wheezes, -32768, 32767).astype(np.int16)


def icbhi_cohort(folder: Path, patients: int = 20) -> Path:
    """The layout of the publisher's archive: every second patient has COPD and wheezes in the second of two breaths."""
    sounds = folder / "ICBHI_final_database"
    sounds.mkdir(parents=True, exist_ok=True)
    diagnoses = []
    for number in range(patients):
        ill = number % 2 == 0
        diagnoses.append(f"{200 + number}\t{'COPD' if ill else 'Healthy'}\n")
        for take in (1, 2):
            name = f"{200 + number}_{take}b1_Al_sc_Meditron"
            pcm = breath_or_wheeze(2000 + 2 * number + take, wheezes=ill)
            (sounds / f"{name}.wav").write_bytes(wav_bytes(pcm))
            (sounds / f"{name}.txt").write_text(f"0.0\t0.6\t{number % 4 // 2}\t0\n0.6\t1.2\t0\t{int(ill)}\n")
    (folder / "ICBHI_Challenge_diagnosis.txt").write_text("".join(diagnoses))
    return folder


def _ogg(pcm: np.ndarray) -> bytes:
    written = io.BytesIO()
    soundfile.write(written, pcm, 8000, format="OGG")
    return written.getvalue()


# HLS-CMDS: as in the real files, LS.csv calls crackles G and C, one id has a space, and Mix.csv names samples twice
HLS_HEARTS = (("F", "Normal", "N", "RC"), ("M", "S3", "S3", "Apex"), ("F", "Early Systolic Murmur", "ESM", "LUSB"),
              ("M", "Normal", "N", "LLSB"), ("F", "S3", "S3", "LUSB"))
HLS_LUNGS = (("F", "Normal", "N", "LUA"), ("M", "Wheezing", "W", "LMA"), ("M", "Coarse Crackles", "CC", "RLA"),
             ("F", "Fine Crackles", "FC", "RUA"), ("M", "Normal", "N", "RMA"))
HLS_MIXED = (("F", "S3", "Wheezing", "LUA"), ("M", "S3", "Normal", "RC"))
_IN_THE_TABLE = {"CC": "G", "FC": "C"}


def hls_cmds(folder: Path) -> Path:
    """Write both kinds of sounds and two mixtures; the heart of the second is that of the first."""
    seeds = count(1000)
    for part, kind, rows in (("HS", "Heart", HLS_HEARTS), ("LS", "Lung", HLS_LUNGS)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        lines = [f"Gender,{kind} Sound Type,Location,{kind} Sound ID"]
        for sex, sort, letters, place in rows:
            short = "A" if place == "Apex" else place
            space = " " if letters == "W" else ""
            lines.append(f"{sex},{sort},{place},{space}{sex}_{_IN_THE_TABLE.get(letters, letters)}_{short}")
            sound = wav_bytes(beating_noise(next(seeds), 1.3))
            (folder / part / f"{sex}_{letters}_{short}.wav").write_bytes(sound)
        (folder / f"{part}.csv").write_text("\n".join(lines))
    (folder / "Mix").mkdir(exist_ok=True)
    lines = ["Gender,Heart Sound Type,Lung Sound Type,Location,Heart Sound ID,Lung Sound ID,Mixed Sound ID"]
    for number, (sex, heart, lung, place) in enumerate(HLS_MIXED, 1):
        names = [f"{letter}{number:04d}" for letter in "HLM"]
        lines.append(",".join((sex, heart, lung, place, *names)))
        for name, seed in zip(names, (1100, 1101 + number, 1201 + number), strict=True):
            (folder / "Mix" / f"{name}.wav").write_bytes(wav_bytes(beating_noise(seed, 1.3)))
    (folder / "Mix.csv").write_text("\r\n".join(lines) + "\r\n")
    return folder


def simulated_lungs(folder: Path) -> Path:
    """Write what `heartml simulate --organ lungs` does."""
    lung_corpus.run(folder, count=4, seed=1, seconds=6.0)
    return folder


BUILDERS = {"icbhi": icbhi, "sprsound": sprsound, "kauh": kauh, "coswara": coswara, "coughvid": coughvid,
            "hls-cmds": hls_cmds, "simulated-lungs": simulated_lungs}
