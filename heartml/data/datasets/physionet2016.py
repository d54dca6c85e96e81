"""PhysioNet/CinC Challenge 2016: single recordings of normal and abnormal hearts from six collections, a to f.

`training-a/` to `training-f/` each hold `REFERENCE.csv` (`a0001,1`: 1 abnormal, -1 normal), `RECORDS`,
`RECORDS-normal`, `RECORDS-abnormal`, `SHA256SUMS` and `a0001.wav` with `.hea` and `.dat` beside it.
`REFERENCE-SQI.csv` (`a0001,1,1`), where it is there, has the quality of the signal last: 1 good, 0 poor. Any subset of
the six is a valid folder. `validation/` repeats recordings of the others and is not read. The `.dat` of training-a
carries an electrocardiogram too; only the sound, the `.wav`, is.

The headers do not name persons. The publisher's appendix (`annotations/Online_Appendix_training_set.csv`, also written
`Online Appendix_training set.csv`) tells them where the folder has it. training-b has a `Subject ID`. In training-a
(`C45S1...`) and training-c (`id17...`) the original record's name begins with the subject. In training-e recordings
are pieces of a `# Raw record`; its numbers start anew for each of two cohorts, which the original name tells apart.
Persons in d and f, and all persons without the appendix, are unknown: each recording is then a group of its own, and
only near-duplicates are joined. Columns and patterns follow other people's programs that read the appendix; they were
not checked against the file itself.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from heartml.core.schema import PUBLISHER_QUALITY, label_column
from heartml.core.system import cells
from heartml.core.system.cells import CellError
from heartml.data.datasets import Layout, LayoutError, PublisherFolder, Remote, checksums, leaves_folder

NAME = "physionet2016"
TITLE = "PhysioNet/Computing in Cardiology Challenge 2016: Classification of Heart Sound Recordings 1.0.0"
CITATION = (
    "Liu C. et al. An open access database for the evaluation of heart sound algorithms. "
    "Physiological Measurement 37(12):2181 (2016), doi:10.1088/0967-3334/37/12/2181"
)
LICENCE = "ODC-By-1.0"
PUBLISHER = "https://physionet.org/content/challenge-2016/1.0.0/"
REMOTES = (Remote("https://physionet.org/files/challenge-2016/1.0.0/", "SHA256SUMS.txt"),)
TASKS = ("normal",)
LABELS: Mapping[str, tuple[str, ...]] = {"normal": ("Abnormal", "Normal")}

_PARTS = tuple(f"training-{letter}" for letter in "abcdef")
_REFERENCE, _QUALITY, _SUMS = "REFERENCE.csv", "REFERENCE-SQI.csv", "SHA256SUMS"
_QUALITIES = {"1": "good", "0": "poor"}
_CODES = {"1": "Abnormal", "-1": "Normal"}
_LISTS = {"RECORDS-abnormal": "Abnormal", "RECORDS-normal": "Normal"}
_APPENDICES = ("Online_Appendix_training_set.csv", "Online Appendix_training set.csv")
_SIDE_FILES = (".hea", ".dat", ".csv", ".txt", ".mat", "")
_SUBJECTS = {"training-a": re.compile(r"(C\d+)S\d", re.IGNORECASE), "training-c": re.compile(r"(id\d+)", re.IGNORECASE)}
_RECORD, _CLASS = "Challenge record name", "Class (-1=normal 1=abnormal)"
_APPENDIX_COLUMNS = (_RECORD, "Original record name", _CLASS, "Subject ID", "# Raw record", "Age (year)", "Gender")


def read(folder: Path) -> Layout:
    """Read the challenge's layout in `folder`.

    Raises:
        LayoutError: none of the six parts is there with its `REFERENCE.csv`.
    """
    parts = [part for part in _PARTS if (folder / part / _REFERENCE).is_file()]
    if not parts:
        raise LayoutError(f"{folder}: no training-a to training-f with {_REFERENCE} in it. Name the folder above.")
    source = PublisherFolder(folder, NAME, _sums(folder, parts))
    appendix = _appendix(source)
    recordings: list[dict[str, object]] = []
    for part in parts:
        labels, qualities = _reference_labels(source, part), _reference_qualities(source, part)
        files = sorted(path for path in (folder / part).iterdir() if _is_recording(path))
        recordings += [row for path in files if (row := _recording(source, path, labels, appendix, qualities))]
        _refuse_missing_files(source, part, labels, {path.stem for path in files})
    return source.layout(recordings, [], LABELS)


def _sums(folder: Path, parts: Iterable[str]) -> dict[str, str]:
    """Checksums of all parts: each part has a list, and the folder may have one for all."""
    own = {f"{part}/{name}": digest for part in parts for name, digest in checksums(folder / part / _SUMS).items()}
    return checksums(folder / "SHA256SUMS.txt") | own


def _is_recording(path: Path) -> bool:
    """Whether it is no known side file. So a recording with a wrong extension is seen, too."""
    return path.suffix.lower() not in _SIDE_FILES and not path.name.startswith((".", "RECORDS", "REFERENCE"))


def _reference_labels(source: PublisherFolder, part: str) -> dict[str, set[str]]:
    """Record -> its labels in `REFERENCE.csv` and in the lists of normal and abnormal records.

    More than one label is a contradiction.
    """
    folder, labels = source.root / part, dict[str, set[str]]()
    path = folder / _REFERENCE
    for row in source.side_table(path, (), ("name", "label")):
        name, label = row["name"], cells.present(row["label"]) or ""
        if name and leaves_folder(name):
            source.refuse(f"{part}/{name}", None, "outside", f"{_REFERENCE} names it, and it leads out of the folder")
        elif name:
            labels.setdefault(name, set()).add(_class_of(label) or label)
    for file, label in _LISTS.items():
        for name in source.text(folder / file, None).split():
            if name in labels:
                labels[name].add(label)
    return labels


def _class_of(code: str) -> str | None:
    """The class of 1 or -1, also written 1.0; `None` for another word."""
    return _CODES.get(cells.choice(code, _CODES) or "")


def _reference_qualities(source: PublisherFolder, part: str) -> dict[str, str | None]:
    """Record -> `good` or `poor`, as the publisher's experts say; empty where the part has no such file."""
    rows = source.side_table(source.root / part / _QUALITY, (), ("name", "label", "quality"))
    return {row["name"]: _QUALITIES.get(cells.choice(row["quality"], _QUALITIES) or "") for row in rows}


def _appendix(source: PublisherFolder) -> dict[str, dict[str, str]]:
    """Record -> the appendix's row; empty where there is none."""
    for name in _APPENDICES:
        path = source.root / "annotations" / name
        rows = source.side_table(path, _APPENDIX_COLUMNS)
        if rows:
            return {row[_RECORD]: row for row in rows}
    return {}


def _recording(
    source: PublisherFolder, path: Path, labels: Mapping[str, set[str]], appendix: Mapping[str, Mapping[str, str]],
    qualities: Mapping[str, str | None],
) -> dict[str, object] | None:
    """One row of the layout, or `None` after it was refused."""
    relative, part = source.relative(path), path.parent.name
    found, about = labels.get(path.stem), appendix.get(path.stem, {})
    subject = _subject(part, about)
    patient_id = f"{NAME}-{part[-1]}-{subject}" if subject else None
    if not found:
        source.refuse(relative, patient_id, "missing_row", f"{_REFERENCE} has no row for it")
        return None
    found = found | {label for label in [_class_of(about.get(_CLASS, ""))] if label}
    if len(found) > 1:
        source.refuse(relative, patient_id, "contradiction", f"its lists say {' and '.join(sorted(found))}")
        return None
    try:
        age_group, sex = cells.age_group(about.get("Age (year)", "")), cells.sex(about.get("Gender", ""))
    except CellError as error:
        source.refuse(relative, patient_id, "unknown_value", f"the appendix: {error}")
        return None
    return {
        "source_file": relative,
        "file_sha256": source.sums.get(relative),
        "patient_id": patient_id,
        "group": patient_id or f"{NAME}-{path.stem}",
        "source": part,
        "age_group": age_group,
        "sex": sex,
        PUBLISHER_QUALITY: qualities.get(path.stem),
        label_column("normal"): next(iter(found)) or None,
    }


def _subject(part: str, about: Mapping[str, str]) -> str | None:
    """The person within a part, where the appendix tells; its numbers are written as `14` or as `14.0`."""
    original, given = about.get("Original record name", ""), _whole(about.get("Subject ID", ""))
    if given:
        return f"S{given}"
    if part in _SUBJECTS:
        match = _SUBJECTS[part].match(original)
        return match[1].upper() if match else None
    raw = _whole(about.get("# Raw record", ""))
    if part == "training-e" and raw and original:
        return f"{'patient' if original.isdigit() else 'healthy'}{raw}"
    return None


def _whole(text: str) -> str:
    """`14`, also of `14.0`; empty where it is no number."""
    number = cells.whole(text)
    return "" if number is None or number < 0 else str(number)


def _refuse_missing_files(source: PublisherFolder, part: str, labels: Mapping[str, set[str]], there: set[str]) -> None:
    """Refuse the rows that no file on disk belongs to."""
    for name in sorted(labels.keys() - there):
        detail = f"{_REFERENCE} has a row for it, but there is no such file"
        source.refuse(f"{part}/{name}.wav", None, "missing_file", detail)
