"""BMD-HS (BUET Multi-disease Heart Sound): adults with up to four valve diseases at once, and healthy ones.

`train.csv` carries one row a patient (`patient_id,AS,AR,MR,MS,N,recording_1..8`), `train/` their recordings, sitting
and lying, at four locations (`MD_001_sup_Mit.wav`); `additional_metadata.csv` age, sex, smoking and where they live.
Rows and files are matched by the key (kind, number, posture, location), because `MD_085_sit_Tri` is on disk as
`MD_085_sit_Tri6_06.wav`. A row without labels (`N/A`) leaves its recordings unlabelled. Each disease has a label of
its own, since a patient can have several.

Healthy and ill patients already differ in level and offset of the signal, in age, smoking and town: the baselines in
the report show it. Smoking and town have no column here, so the metadata baseline does not use them.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from heartml.core.schema import label_column
from heartml.core.system import cells
from heartml.core.system.cells import CellError
from heartml.core.system.tables import Row
from heartml.core.system.text import short
from heartml.core.tasks import DISEASES
from heartml.data.datasets import Layout, LayoutError, PublisherFolder, Remote, checksums, leaves_folder

NAME = "bmdhs"
TITLE = "BUET Multi-disease Heart Sound Dataset (BMD-HS)"
CITATION = (
    "Ali S.N. et al. BUET Multi-disease Heart Sound Dataset: A Comprehensive Auscultation Dataset for Developing "
    "Computer-Aided Diagnostic Systems (2024), arXiv:2409.00724"
)
LICENCE = "see publisher"
PUBLISHER = "https://github.com/mHealthBuet/BMD-HS-Dataset"
REMOTES: tuple[Remote, ...] = ()     # a git repository without a list of checksums: clone it
TASKS = ("disease", *DISEASES)
LABELS: Mapping[str, tuple[str, ...]] = {
    "disease": ("Diseased", "Normal"), **dict.fromkeys(DISEASES, ("Present", "Absent")),
}

_TABLE, _FOLDER, _METADATA = "train.csv", "train", "additional_metadata.csv"
_COLUMNS = dict(zip(("AS", "AR", "MR", "MS"), DISEASES, strict=True))
_SEVERAL, _HEALTHY = "MD", "N"
_NEEDED = ("patient_id", *_COLUMNS, _HEALTHY, "recording_1")
_RECORDINGS = tuple(f"recording_{number}" for number in range(1, 9))
_ABOUT = ("patient_id", "Age", "Gender")
_LOCATIONS = {"Aor": "AV", "Pul": "PV", "Tri": "TV", "Mit": "MV"}
_SOURCE = "Dhaka"                    # everybody was recorded with one kind of stethoscope at one hospital
_PATTERN = re.compile(r"(?P<kind>AS|AR|MR|MS|MD|N)_(?P<number>\d+)_(?P<posture>sup|sit)_(?P<place>Aor|Pul|Tri|Mit)"
                      r"(?P<rest>[^A-Za-z].*)?")
_Key = tuple[str, ...]               # kind, number, posture, location


@dataclass
class _Patient:
    """A row of the table, the row of the metadata, and why neither may be used (reason, detail)."""

    name: str
    row: Row
    about: Mapping[str, str]
    fault: tuple[str, str] | None = None
    recordings: list[str] = field(default_factory=list)

    @property
    def marks(self) -> dict[str, bool]:
        """Column of a disease -> whether the patient has it; empty where the row is not filled in."""
        found = {column: cells.boolean(self.row[column]) for column in (*_COLUMNS, _HEALTHY)}
        return {column: mark for column, mark in found.items() if mark is not None}


def read(folder: Path) -> Layout:
    """Read the layout of BMD-HS in `folder`.

    Raises:
        LayoutError: `train.csv` or `train/` is missing, or the table has other columns.
    """
    source = PublisherFolder(folder, NAME, checksums(folder / "SHA256SUMS.txt"))
    patients = _patients(source)
    owners = {key: patient for patient in patients for name in patient.recordings if (key := _key(name))}
    listed = {name: patient for patient in patients for name in patient.recordings}
    files = sorted(path for path in (folder / _FOLDER).iterdir() if not path.name.startswith("."))
    exact = {key for path in files if path.stem in listed and (key := _key(path.stem))}
    recordings = [row for path in files if (row := _recording(source, path, owners, listed, exact))]
    _refuse_missing_files(source, listed, files)
    return source.layout(recordings, [], LABELS)


def _key(name: str) -> _Key | None:
    match = _PATTERN.fullmatch(name)
    return (match["kind"], match["number"], match["posture"], match["place"]) if match else None


def _patients(source: PublisherFolder) -> list[_Patient]:
    """Every patient in the table, with the reason why the row cannot be used where there is one."""
    if not (source.root / _TABLE).is_file() or not (source.root / _FOLDER).is_dir():
        raise LayoutError(f"{source.root}: no {_TABLE} with {_FOLDER}/ beside it. Name the folder that holds both.")
    if source.altered(source.root / _TABLE):
        raise LayoutError(f"{source.root / _TABLE}: not the file that SHA256SUMS.txt lists: copy it again")
    about = {row["patient_id"]: row for row in source.side_table(source.root / _METADATA, _ABOUT)}
    patients: dict[str, _Patient] = {}
    for row in source.table(source.root / _TABLE, (*_NEEDED, *_RECORDINGS), _NEEDED):
        if cells.is_missing(row["patient_id"]):
            source.refuse_line(source.root / _TABLE, row.line, "malformed", "the row has no patient_id")
            continue
        name = row["patient_id"].removeprefix("patient_")
        patient = _Patient(name, row, about.get(row["patient_id"], {}))
        named = [value for column, value in row.items() if column in _RECORDINGS and not cells.is_missing(value)]
        patient.recordings = list(_inside(source, patient, named))
        patient.fault = _fault(patient)
        if name in patients and patients[name].row != row:
            patient.fault = "contradiction", f"{_TABLE} has two different rows for {row['patient_id']}"
            patient.recordings += patients[name].recordings
        patients[name] = patient
    return list(patients.values())


def _inside(source: PublisherFolder, patient: _Patient, named: Iterable[str]) -> Iterable[str]:
    """The recordings that a row names, without extension; a name that leads out of the folder is refused."""
    for name in named:
        if leaves_folder(name) or "/" in name:
            source.refuse(f"{_FOLDER}/{name}", _id(patient), "outside", f"{_TABLE} names it, and it is a path")
        else:
            yield name.removesuffix(".wav")


def _id(patient: _Patient) -> str:
    return f"{NAME}-{patient.name}"


def _fault(patient: _Patient) -> tuple[str, str] | None:
    """Why a row cannot be used (reason, detail): a cell, or marks that contradict each other or the files' names."""
    marks, where = patient.marks, f"{_TABLE}, line {patient.row.line}"
    unclear = [c for c in (*_COLUMNS, _HEALTHY) if c not in marks and (marks or not cells.is_missing(patient.row[c]))]
    if unclear:
        return "unknown_label", f"{where}: {unclear[0]} is {short(patient.row[unclear[0]])}, not 0 or 1 (or all empty)"
    try:
        _described(patient)
    except CellError as error:
        return "unknown_value", f"{_METADATA}, {patient.row['patient_id']}: {error}"
    if not marks:
        return None
    ill = [column for column in _COLUMNS if marks[column]]
    if bool(ill) == marks[_HEALTHY]:
        return "contradiction", f"{_TABLE}: N is {int(marks[_HEALTHY])} with {' and '.join(ill) or 'no disease'}"
    kind = _SEVERAL if len(ill) > 1 else (*ill, _HEALTHY)[0]
    other = [name for name in patient.recordings if (key := _key(name)) and key[0] != kind]
    if other:
        return "contradiction", f"{_TABLE} says {' and '.join(ill) or 'healthy'}, the name says {other[0]}"
    return None


def _recording(
    source: PublisherFolder, path: Path, owners: Mapping[_Key, _Patient], listed: Mapping[str, _Patient],
    exact: set[_Key],
) -> dict[str, object] | None:
    """One row of the layout, or `None` after it was refused."""
    relative, key = source.relative(path), _key(path.stem)
    patient = listed.get(path.stem) or (owners.get(key) if key and key not in exact else None)
    if patient is None:
        detail = "no row names it" if key else "the name is not <kind>_<number>_<sup|sit>_<location>"
        source.refuse(relative, None, "missing_row", f"{_TABLE}: {detail}")
        return None
    if patient.fault:
        source.refuse(relative, _id(patient), *patient.fault)
        return None
    return {
        "source_file": relative,
        "file_sha256": source.sums.get(relative),
        "patient_id": _id(patient),
        "group": _id(patient),
        "source": _SOURCE,
        "location": _LOCATIONS[key[3]] if key else None,
        **_described(patient),
        **{label_column(name): value for name, value in _labels(patient).items()},
    }


def _described(patient: _Patient) -> dict[str, str | None]:
    """Age group and sex.

    Raises:
        CellError: one of them cannot be used.
    """
    return {"age_group": cells.age_group(patient.about.get("Age", "")),
            "sex": cells.sex(patient.about.get("Gender", ""))}


def _labels(patient: _Patient) -> dict[str, str | None]:
    marks = patient.marks
    if not marks:
        return dict.fromkeys(LABELS)
    each = {name: "Present" if marks[column] else "Absent" for column, name in _COLUMNS.items()}
    return {"disease": "Normal" if marks[_HEALTHY] else "Diseased", **each}


def _refuse_missing_files(source: PublisherFolder, listed: Mapping[str, _Patient], files: Iterable[Path]) -> None:
    """Refuse recordings that a row names and that no file has, neither under this name nor with a longer one."""
    there = {path.stem for path in files}
    found = {key for name in there if (key := _key(name))}
    for name, patient in listed.items():
        if name not in there and _key(name) not in found:
            detail = f"{_TABLE} names it, but there is no such file"
            source.refuse(f"{_FOLDER}/{name}.wav", _id(patient), "missing_file", detail)
