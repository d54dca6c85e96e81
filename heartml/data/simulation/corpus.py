"""Write a corpus of simulated children in CirCor's layout (`heartml simulate DIR`).

In: number of children, seed, seconds. Out, in DIR: `training_data.csv` (one row an id), `training_data/<id>.txt`,
`<id>_<location>.wav` (4 kHz, 16 bit, mono), `.hea` (CRLF, as the publisher's), `.tsv` (start, end, heart state 0 to 4),
`RECORDS`, `LICENSE.txt`, `SHA256SUMS.txt`. The same arguments give the same bytes. Child k does not depend on the
number of children.

The model and its sources are in `heartml.data.simulation`: `physiology` (heart), `stethoscope` (location, noise,
sensor), `lesions`, `children`, `visits` (what is recorded and written down), `planted_faults`.

`heartml simulate DIR` in the root of the repository makes the demo corpus (its numbers: `simulate` in params.yaml).
"""

import csv
import io
import wave
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from heartml.core.system import files, hashing
from heartml.core.system.errors import HeartMLError
from heartml.core.system.progress import track
from heartml.data.simulation import planted_faults, visits
from heartml.data.simulation.children import draw_child
from heartml.data.simulation.physiology import SAMPLE_RATE_HZ
from heartml.data.simulation.planted_faults import Patient, PlantedFault
from heartml.data.simulation.stethoscope import Pcm
from heartml.data.simulation.visits import COLUMNS, MAX_CHILDREN, Recording

_FOLDER = "training_data"
_LICENCE = """\
Simulated phonocardiograms, made by `heartml simulate`. No child was recorded; ids and illnesses are invented.
Licence: Apache-2.0, as the program that made them (https://www.apache.org/licenses/LICENSE-2.0).
"""


class SimulateError(HeartMLError):
    """The corpus cannot be made with these arguments; the message says which ones are possible."""


@dataclass(frozen=True)
class Corpus:
    """The numbers of a corpus that was written: ids of patients, recordings, ids by murmur label, planted faults."""

    patients: int
    recordings: int
    labels: dict[str, int]
    faults: tuple[PlantedFault, ...]

    def lines(self) -> list[str]:
        """The lines that `heartml simulate` prints."""
        labels = ", ".join(f"{count} {label}" for label, count in sorted(self.labels.items()))
        head = f"{self.patients} ids, {self.recordings} recordings; murmur: {labels}"
        return [head, *(f"planted {fault.kind}: {fault.where}" for fault in self.faults)]


def run(folder: Path, *, count: int, seed: int, seconds: float, faults: bool) -> Corpus:
    """Write a corpus to `folder`, completely or not at all.

    Args:
        folder: new or empty.
        count: number of children; one in twenty has two ids.
        seed: another seed gives other children.
        seconds: mean length of a recording in s.
        faults: plant the faults of `planted_faults`.

    Raises:
        SimulateError: `folder` is not empty, or a number is out of its range.
    """
    check(folder, count, seed, seconds)
    if faults and count < planted_faults.AMONG:
        raise SimulateError(f"faults need {planted_faults.AMONG} children: --children {planted_faults.AMONG} or more, "
                            "or --no-faults")
    patients = _patients(count, seed, seconds)
    found: tuple[PlantedFault, ...] = ()
    if faults:
        changed, found = planted_faults.plant(list(islice(patients, _visits_among(seed))))
        patients = chain(changed, patients)
    with files.replacing_folder(folder) as temporary:
        return _write(temporary, track(patients, "simulate", count), found)


def check(folder: Path, count: int, seed: int, seconds: float) -> None:
    """Check the arguments of a corpus.

    Raises:
        SimulateError: `folder` is not empty, or a number is out of its range.
    """
    if not folder.name:
        raise SimulateError(f"{folder}: name a folder that is new, or an empty one that is not the one you are in")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SimulateError(f"{folder}: is not empty, and nothing is overwritten. Name a folder that is new or empty.")
    if not 1 <= count <= MAX_CHILDREN or seed < 0:
        raise SimulateError(f"--children {count}, --seed {seed}: 1 to {MAX_CHILDREN} children, a seed from 0 on")
    if not 1 <= seconds <= 600:
        raise SimulateError(f"--seconds {seconds:g}: a recording has 1 to 600 seconds")


def _patients(count: int, seed: int, seconds: float) -> Iterator[Patient]:
    """Every visit of `count` children, as a row and its recordings."""
    for number in range(count):
        for visit in visits.draw_visits(seed, draw_child(seed, number)):
            yield Patient(visits.table_row(visit), tuple(visits.record(visit, seconds)))


def _visits_among(seed: int) -> int:
    """Number of visits of the first `planted_faults.AMONG` children."""
    return sum(len(visits.draw_visits(seed, draw_child(seed, k))) for k in range(planted_faults.AMONG))


def _write(folder: Path, patients: Iterable[Patient], faults: tuple[PlantedFault, ...]) -> Corpus:
    """Write the files of every patient, then the tables of all patients, into an empty folder."""
    (folder / _FOLDER).mkdir()
    rows, sums, count = [], {}, 0
    for patient in patients:
        rows.append(patient.row)
        count += len(patient.recordings)
        for name, published, on_disk in _patient_files(patient):
            sums[f"{_FOLDER}/{name}"] = hashing.sha256(published)
            if on_disk:
                (folder / _FOLDER / name).write_bytes(on_disk)
    records = sorted(name.removesuffix(".hea") for name in sums if name.endswith(".hea"))
    tables = {"training_data.csv": _table(rows), "RECORDS": _lines(records), "LICENSE.txt": _LICENCE.encode()}
    for name, content in tables.items():
        sums[name] = hashing.sha256(content)
        (folder / name).write_bytes(content)
    (folder / "SHA256SUMS.txt").write_bytes(_lines(f"{sums[name]} {name}" for name in sorted(sums)))
    return Corpus(len(rows), count, dict(Counter(row["Murmur"] for row in rows)), faults)


def _patient_files(patient: Patient) -> Iterator[tuple[str, bytes, bytes]]:
    """(name, bytes as published, bytes as they are on disk) of every file of one patient."""
    text = _text(patient)
    yield f"{patient.row['Patient ID']}.txt", text, text
    for recording in patient.recordings:
        name = recording.name
        published = patient.replaced.get(name) or wav_bytes(recording.pcm)
        yield f"{name}.wav", published, published[: round(len(published) * patient.arrived_share.get(name, 1.0))]
        for suffix, content in ((".hea", _header(recording)), (".tsv", _states(recording))):
            yield name + suffix, content, content


def wav_bytes(pcm: Pcm) -> bytes:
    """The bytes of a 4 kHz mono 16-bit WAV file with a 44-byte header. `pcm`: int16 [time]."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes(pcm.astype("<i2").tobytes())
    return buffer.getvalue()


def _text(patient: Patient) -> bytes:
    """The patient's own .txt: id, number and rate of the recordings, their files, then the row again."""
    row = patient.row | patient.text
    head = [f"{row['Patient ID']} {len(patient.recordings)} {SAMPLE_RATE_HZ}"]
    names = [f"{r.location} {r.name}.hea {r.name}.wav {r.name}.tsv" for r in patient.recordings]
    return _lines([*head, *names, *(f"#{column}: {row[column]}" for column in COLUMNS[2:])])


def _header(recording: Recording) -> bytes:
    """WFDB header; its lines end with CRLF, as the publisher's do."""
    name = recording.name
    first = f"{name} 1 {SAMPLE_RATE_HZ} {len(recording.pcm)}"
    return f"{first}\r\n{name}.wav 16+44 1 16 0 0 0 0 {recording.location}\r\n".encode()


def _states(recording: Recording) -> bytes:
    return _lines(f"{start:.10g}\t{end:.10g}\t{code}" for start, end, code in recording.states)


def _table(rows: list[dict[str, str]]) -> bytes:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(sorted(rows, key=lambda row: int(row["Patient ID"])))
    return buffer.getvalue().encode()


def _lines(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()
