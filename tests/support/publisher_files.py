"""Small corpora in their publishers' layouts, with the quirks that the real ones have; one builder a data set."""

import csv
import hashlib
import io
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

RATE_HZ = 4000


def beating_noise(seed: int, seconds: float = 1.2) -> np.ndarray:
    """Samples int16 [time] of a beating noise like no other seed's."""
    rng = np.random.default_rng(seed)
    noise = np.convolve(rng.normal(0, 1, round(seconds * RATE_HZ)), np.hanning(40), "same")
    cycles = rng.uniform(0.4, 0.8) * np.arange(len(noise)) / RATE_HZ + rng.uniform()
    beats = 0.3 + np.abs(np.sin(2 * np.pi * cycles))
    return (noise * beats / np.abs(noise * beats).max() * 20000).astype(np.int16)


def wav_bytes(pcm: np.ndarray, rate_hz: int = RATE_HZ, *, before: bytes = b"", behind: bytes = b"") -> bytes:
    """A 16-bit mono WAV file; `before` and `behind` are chunks around the samples."""
    data = pcm.astype("<i2").tobytes()
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate_hz, rate_hz * 2, 2, 16)
    body = b"WAVE" + form + before + struct.pack("<4sI", b"data", len(data)) + data + behind
    return struct.pack("<4sI", b"RIFF", len(body)) + body


def list_chunk(text: bytes = b"a digital stethoscope\0") -> bytes:
    """The LIST chunk that set_b files carry."""
    info = b"INFO" + struct.pack("<4sI", b"ISFT", len(text)) + text
    return struct.pack("<4sI", b"LIST", len(info)) + info


@dataclass
class Child:
    """One patient of CirCor: labels as the table has them, recordings as `location -> seed`."""

    number: int
    murmur: str = "Absent"
    outcome: str = "Normal"
    heard_at: str = "nan"
    twin: str = "nan"
    campaign: str = "CC2015"
    recordings: dict[str, int] = field(default_factory=dict)

    def row(self) -> dict[str, str]:
        """The patient's row of the table."""
        present = self.murmur == "Present"
        described = {"timing": "Holosystolic", "shape": "Plateau", "grading": "I/VI", "pitch": "Low"}
        described |= {"quality": "Harsh"}
        return {
            "Patient ID": str(self.number),
            "Recording locations:": "+".join(name.split("_")[0] for name in self.recordings),
            "Age": "Child", "Sex": "Female", "Height": "98.0", "Weight": "nan", "Pregnancy status": "False",
            "Murmur": self.murmur, "Murmur locations": self.heard_at, "Most audible location": "nan",
            **{f"Systolic murmur {k}": v if present else "nan" for k, v in described.items()},
            **{f"Diastolic murmur {k}": "nan" for k in described},
            "Outcome": self.outcome, "Campaign": self.campaign, "Additional ID": self.twin,
        }


def children() -> list[Child]:
    """Six patients, five children: 36 and 49 are one in two campaigns; 50 has two recordings at one location."""
    return [
        Child(24, recordings={"AV": 1, "PV": 2}),
        Child(29, "Present", "Abnormal", "AV+MV", recordings={"AV": 3, "TV": 4, "MV": 5}),
        Child(36, twin="49", recordings={"AV": 6}),
        Child(49, twin="36", campaign="CC2014", recordings={"AV": 7, "Phc": 8}),
        Child(50, recordings={"AV": 9, "MV_1": 10, "MV_2": 11}),
        Child(61, "Unknown", "Abnormal", recordings={"MV": 12}),
    ]


def circor(folder: Path, patients: Iterable[Child] | None = None) -> Path:
    """Write CirCor's layout; text ends its lines with CRLF, the checksums also list patients that are not here."""
    patients = children() if patients is None else list(patients)
    written = folder / "training_data"
    written.mkdir(parents=True, exist_ok=True)
    for child in patients:
        lines = [f"{child.number} {len(child.recordings)} {RATE_HZ}"]
        for name, seed in child.recordings.items():
            stem = f"{child.number}_{name}"
            pcm = beating_noise(seed)
            (written / f"{stem}.wav").write_bytes(wav_bytes(pcm))
            header = f"{stem} 1 {RATE_HZ} {len(pcm)}\n{stem}.wav 16+44 1 16 0 0 0 0 {name}\n"
            states = "0\t0.1\t0\n0.1\t0.2\t1\n0.2\t0.5\t2\n0.5\t0.6\t3\n0.6\t1.1\t4\n"
            (written / f"{stem}.hea").write_bytes(header.replace("\n", "\r\n").encode())
            (written / f"{stem}.tsv").write_bytes(states.replace("\n", "\r\n").encode())
            lines.append(f"{name.split('_')[0]} {stem}.hea {stem}.wav {stem}.tsv")
        lines += [f"#{k}: {v}" for k, v in child.row().items() if k not in ("Patient ID", "Recording locations:")]
        (written / f"{child.number}.txt").write_bytes(("\r\n".join(lines) + "\r\n").encode())
    circor_table(folder, [child.row() for child in patients])
    write_checksums(folder)
    return folder


def circor_table(folder: Path, rows: list[dict[str, str]]) -> None:
    """Write `training_data.csv`."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(rows)
    (folder / "training_data.csv").write_bytes(text.getvalue().encode())


def write_checksums(folder: Path) -> None:
    """Write the checksums of what lies in `training_data/` now, and of a patient who is not here."""
    paths = sorted((folder / "training_data").iterdir())
    lines = [f"{hashlib.sha256(p.read_bytes()).hexdigest()} training_data/{p.name}" for p in paths]
    lines += [f"{'0' * 64} training_data/99999.txt", f"{'0' * 64} training_data/99999_AV.wav"]
    (folder / "SHA256SUMS.txt").write_text("\n".join(lines) + "\n")
    (folder / "RECORDS").write_text("training_data/99999_AV\n")


SET_A = {      # file on disk -> label, in the words of set_a.csv; two time stamps are short
    "artifact__201012172012": "artifact", "extrahls__201101070953": "extrahls", "murmur__201101051104": "murmur",
    "normal__201101051538": "normal", "Aunlabelledtest__2011040239": "", "Aunlabelledtest__20110501548": "",
}
SET_B = {      # file on disk -> (name in set_b.csv, label)
    "extrastole__127_1306764300147_C2": ("Btraining_extrastole_127_1306764300147_C2", "extrastole"),
    "murmur__112_1306243000964_A": ("Btraining_murmur_112_1306243000964_A", "murmur"),
    "murmur_noisymurmur_171_1307971016233_F": ("Btraining_murmur_Btraining_noisymurmur_171_1307971016233_F", "murmur"),
    "normal__103_1305031931979_D31": ("Btraining_normal_103_1305031931979_D31", "normal"),
    "normal_noisynormal_101_1305030823364_B_1":
        ("Btraining_normal_Btraining_noisynormal_101_1305030823364_B_1", "normal"),
    "normal__127_1306764300147_B": ("Btraining_normal_127_1306764300147_B", "normal"),
    "Bunlabelledtest__103_1305031931979_C": ("Bunlabelledtest_103_1305031931979_C", ""),
}


def pascal(folder: Path) -> Path:
    """Write the PASCAL layout; set_a.csv has no rows for unlabelled files, set_b files carry LIST chunks."""
    for part in ("set_a", "set_b"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    sums = []
    for seed, name in enumerate([*SET_A, *SET_B], 100):
        pcm, part = beating_noise(seed), "set_a" if name in SET_A else "set_b"
        chunk = list_chunk() if part == "set_b" else b""
        data = wav_bytes(pcm, before=chunk) if seed % 2 else wav_bytes(pcm, behind=chunk)
        (folder / part / f"{name}.wav").write_bytes(data)
        sums.append(f"{hashlib.sha256(pcm.astype('<i2').tobytes()).hexdigest()}  {part}/{name}.wav")
    (folder / "PCM_SHA256SUMS.txt").write_text("\n".join(sums) + "\n")
    pascal_tables(folder)
    return folder


def pascal_tables(folder: Path) -> None:
    """Write both tables and the places of S1 and S2."""
    head = "dataset,fname,label,sublabel"
    a = [f"a,set_a/{name}.wav,{label}," for name, label in SET_A.items() if label]
    b = [f"b,set_b/{name}.wav,{label},{'noisy' + label if 'noisy' in name else ''}" for name, label in SET_B.values()]
    timing = ["fname,cycle,sound,location", "set_a/normal__201101051538.wav,1,S1,10021",
              "set_a/normal__201101051538.wav,1,S2,20759", "set_a/normal__gone.wav,1,S1,1"]
    for name, lines in (("set_a", [head, *a]), ("set_b", [head, *b]), ("set_a_timing", timing)):
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")


BUILDERS = {"simulated": circor, "circor": circor, "pascal": pascal}
