"""CirCor DigiScope 1.0.3: children's heart sounds at up to five locations, with murmurs described and heart states.

`training_data.csv` has one row a patient. `training_data/` has a `.txt` for each patient, and `.wav`, `.hea`, `.tsv`
for each recording (`<id>_<location>[_<n>]`). Any subset of the patients is a valid folder. Lines may end with CRLF.
Labels come from the table and must agree with the patient's own `.txt`. The data set `simulated` has this layout too.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from heartml.core import tasks
from heartml.core.schema import label_column
from heartml.core.system import cells, untrusted
from heartml.core.system.cells import CellError
from heartml.core.system.tables import Row
from heartml.data.datasets import (
    ANNOTATION_COLUMNS,
    Layout,
    LayoutError,
    PublisherFolder,
    Remote,
    checksums,
    leaves_folder,
)

NAME = "circor"
TITLE = "The CirCor DigiScope Phonocardiogram Dataset 1.0.3"
CITATION = (
    "Oliveira J. et al. The CirCor DigiScope Dataset: From Murmur Detection to Murmur Classification. "
    "IEEE Journal of Biomedical and Health Informatics (2021), doi:10.1109/JBHI.2021.3137048; "
    "PhysioNet (2022), doi:10.13026/tshs-mw03"
)
LICENCE = "ODC-By-1.0"
PUBLISHER = "https://physionet.org/content/circor-heart-sound/1.0.3/"
REMOTES = (
    Remote("https://physionet.org/files/circor-heart-sound/1.0.3/", "SHA256SUMS.txt", ("training_data.csv", "RECORDS")),
)
TASKS = ("murmur", "outcome", *tasks.GROUPS["descriptors"])     # `heartml ingest` writes the first into params.yaml

_MURMUR = ("Present", "Unknown", "Absent")
LABELS: Mapping[str, tuple[str, ...]] = {
    "murmur": _MURMUR,
    "murmur_here": _MURMUR,
    "outcome": ("Abnormal", "Normal"),
    **{tasks.TASKS[name].label: tasks.TASKS[name].classes for name in tasks.GROUPS["descriptors"]},
}

_FOLDER = "training_data"
_TABLE = "training_data.csv"
_STATES = {"0": "unannotated", "1": "S1", "2": "systole", "3": "S2", "4": "diastole"}
_NAME_PATTERN = re.compile(r"(?P<id>[^_]+)_(?P<location>AV|PV|TV|MV|Phc)(_\d+)?")
_SIDE_FILES = (".txt", ".hea", ".tsv")
_NEEDED = ("Patient ID", "Murmur", "Outcome")
_COLUMNS = (*_NEEDED, "Age", "Sex", "Pregnancy status", "Murmur locations", "Most audible location", "Campaign",
            "Additional ID", *(name.replace("_", " ").capitalize() for name in LABELS if name.count("_") > 1))
_NOT_COMPARED = ("Height", "Weight")     # written with other numbers of digits here and there, and not used


@dataclass
class _Patient:
    """A row of the table, the recordings that the patient's own `.txt` lists, and why neither may be used.

    `fault` is (reason, detail) of the quarantine.
    """

    row: Row
    listed: list[str]
    fault: tuple[str, str] | None = None

    def value(self, key: str) -> str | None:
        """The cell of a column; None where it is missing."""
        return cells.present(self.row[key])


def read(folder: Path, dataset: str = NAME) -> Layout:
    """Read CirCor's layout in `folder`; patient ids become `<dataset>-<id>`.

    Raises:
        LayoutError: `training_data.csv` or `training_data/` is missing, or the table has no known columns.
    """
    source = PublisherFolder(folder, dataset, checksums(folder / "SHA256SUMS.txt"))
    patients = _patients(source)
    on_disk = _audio_files(folder / _FOLDER)
    recordings = [row for path in on_disk if (row := _recording(source, path, patients)) is not None]
    annotations = [state for row in recordings for state in _states(source, folder / str(row["source_file"]), row)]
    _refuse_missing_files(source, patients, {path.name for path in on_disk})
    return source.layout(recordings, annotations, LABELS, _same_person(patients, dataset))


def _audio_files(folder: Path) -> list[Path]:
    """Everything that is no known side file: a recording with a wrong extension must be seen, too."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() not in _SIDE_FILES and not p.name.startswith("."))


def _patients(source: PublisherFolder) -> dict[str, _Patient]:
    """Publisher's id -> patient; each row is checked against the patient's own `.txt`."""
    table = source.root / _TABLE
    if not table.is_file() or not (source.root / _FOLDER).is_dir():
        raise LayoutError(f"{source.root}: no {_TABLE} with {_FOLDER}/ beside it. Name the folder that holds both.")
    rows = source.table(table, _COLUMNS, _NEEDED)
    if source.altered(table):
        source.refuse(_TABLE, None, "checksum", "not the publisher's table; rows are held against each patient's .txt")
    patients: dict[str, _Patient] = {}
    for row in rows:
        patient, name = _Patient(row, []), _name(row["Patient ID"])
        if name is None:
            source.refuse_line(table, row.line, "malformed", "the row has no Patient ID")
            continue
        patient.fault = _fault(source, name, patient)
        if name in patients and patients[name].row != patient.row:
            patient.fault = "contradiction", f"{_TABLE} has two different rows for patient {name}"
        patients[name] = patient
    return patients


def _name(cell: str) -> str | None:
    """A patient's id as the names of files have it: without the `.0` of a table that a program wrote again."""
    name = cells.present(cell)
    return name and re.sub(r"(?<=[0-9])\.0+", "", name) if name and cells.whole(name) is not None else name


def _fault(source: PublisherFolder, name: str, patient: _Patient) -> tuple[str, str] | None:
    """Why this patient's row cannot be used; `patient.listed` is filled from the `.txt`."""
    if leaves_folder(name) or "/" in name:
        return "outside", f"patient id {name!r} is a path"
    try:
        _described(patient)
    except CellError as error:
        return "unknown_value", f"{_TABLE}, line {patient.row.line}: {error}"
    path = source.root / _FOLDER / f"{name}.txt"
    if not untrusted.is_file(path):
        return None
    if source.altered(path):
        return "checksum", f"{path.name} is not the file that SHA256SUMS.txt lists"
    lines = source.text(path, None).splitlines()
    patient.listed = [line for line in lines[1:] if not line.startswith("#")]
    for line in lines:
        key, _, value = (part.strip() for part in line.removeprefix("#").partition(":"))
        if line.startswith("#") and key not in _NOT_COMPARED and not cells.same(patient.row.get(key, value), value):
            return "contradiction", f"{_TABLE} says {key} {patient.row[key]}, {path.name} says {value}"
    return None


def _recording(source: PublisherFolder, path: Path, patients: Mapping[str, _Patient]) -> dict[str, object] | None:
    """One row of the layout, or `None` after it was refused."""
    relative = source.relative(path)
    match = _NAME_PATTERN.fullmatch(path.stem)
    patient = patients.get(match["id"]) if match else None
    if match is None or patient is None:
        detail = f"{_TABLE} has no row for it" if match else "the name is not <id>_<location>"
        source.refuse(relative, None, "missing_row", detail)
        return None
    patient_id = f"{source.dataset}-{match['id']}"
    if patient.fault:
        source.refuse(relative, patient_id, *patient.fault)
        return None
    return {
        "source_file": relative,
        "file_sha256": source.sums.get(relative),
        "samples": _stated_samples(source.text(path.with_suffix(".hea"), patient_id)),
        "patient_id": patient_id,
        "group": patient_id,
        "source": patient.value("Campaign"),
        "location": match["location"],
        **_described(patient),
        **{label_column(name): value for name, value in _labels(patient, match["location"]).items()},
    }


def _described(patient: _Patient) -> dict[str, str | None]:
    """Age group and sex.

    Raises:
        CellError: one of them cannot be used.
    """
    return {"age_group": cells.age_group(patient.row["Age"]), "sex": cells.sex(patient.row["Sex"])}


def _labels(patient: _Patient, location: str) -> dict[str, str | None]:
    """Labels by name. `murmur_here` is about this location: a murmur is audible at `Murmur locations` only."""
    labels = {name: _label(patient, name) for name in LABELS if name != "murmur_here"}
    here, audible_at = labels["murmur"], patient.value("Murmur locations")
    if here == "Present":
        here = None if audible_at is None else "Present" if location in audible_at.split("+") else "Absent"
    return {**labels, "murmur_here": here}


def _label(patient: _Patient, name: str) -> str | None:
    """The label's class; a word that is none stays, and ingest refuses it by name."""
    value = patient.value(name.replace("_", " ").capitalize())
    return None if value is None else cells.choice(value, LABELS[name]) or value


def _stated_samples(header: str) -> int | None:
    """Number of samples that a WFDB header states in its first line: `<name> <signals> <rate> <samples>`."""
    words = header.split("\n", 1)[0].split()
    return cells.whole(words[3]) if len(words) > 3 else None


def _states(source: PublisherFolder, audio: Path, row: Mapping[str, object]) -> Iterator[dict[str, object]]:
    """Heart states of one recording: `start_s<TAB>end_s<TAB>0..4` a line."""
    path, patient_id = audio.with_suffix(".tsv"), str(row["patient_id"])
    lines = [line.split("\t") for line in source.text(path, patient_id).splitlines() if line]
    try:
        states = [(*_interval(start, end), _STATES[state.strip()]) for start, end, state in lines]
    except (ValueError, KeyError) as error:
        detail = f"a line is not start, end, state 0 to 4: {str(error)[:200]}"
        source.refuse(source.relative(path), patient_id, "unreadable", detail)
        return
    for state in states:
        yield dict(zip(ANNOTATION_COLUMNS, (row["source_file"], *state), strict=True))


def _interval(start: str, end: str) -> tuple[float, float]:
    first, last = float(start), float(end)
    if not 0 <= first <= last < math.inf:
        raise ValueError(f"{start} to {end} s")
    return first, last


def _refuse_missing_files(source: PublisherFolder, patients: Mapping[str, _Patient], on_disk: set[str]) -> None:
    """Refuse recordings that a patient's `.txt` lists and that are not in the folder, or would lie outside it."""
    for name, patient in patients.items():
        for line in patient.listed:
            audio = next((word for word in line.split()[1:] if Path(word).suffix.lower() not in _SIDE_FILES), None)
            if audio is None or audio in on_disk:
                continue
            out = leaves_folder(audio)
            detail = f"{name}.txt lists it, but {'it leads out of the folder' if out else 'there is no such file'}"
            reason = "outside" if out else "missing_file"
            source.refuse(f"{_FOLDER}/{audio}", f"{source.dataset}-{name}", reason, detail)


def _same_person(patients: Mapping[str, _Patient], dataset: str) -> set[frozenset[str]]:
    """Pairs of ids that the publisher says are one child in two campaigns (`Additional ID`)."""
    pairs = ((name, _name(patient.row["Additional ID"])) for name, patient in patients.items())
    return {frozenset((f"{dataset}-{a}", f"{dataset}-{b}")) for a, b in pairs if b is not None}
