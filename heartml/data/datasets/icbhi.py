"""ICBHI 2017, the Respiratory Sound Database: 126 people, crackles and wheezes marked in each breath.

A recording is `<patient>_<index>_<location>_<mode>_<device>.wav`, for instance `101_1b1_Al_sc_Meditron.wav`. The `.txt`
beside it has a line for each breath: start and end in s, crackles 0 or 1, wheezes 0 or 1. The diagnoses are a list of
patient and word, and so are age and sex; each lies in the folder or above it. The names of these lists differ between
the publisher's archive and the copy on Kaggle. Both are read.

Breaths are kept as annotations. A recording's label says what any of its breaths has.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from heartml.core import tasks
from heartml.core.schema import label_column
from heartml.core.system import cells
from heartml.core.system.cells import CellError
from heartml.data.datasets import (
    ANNOTATION_COLUMNS,
    Layout,
    LayoutError,
    PublisherFolder,
    Remote,
    checksums,
    side_files,
)

NAME = "icbhi"
TITLE = "ICBHI 2017 Respiratory Sound Database"
CITATION = (
    "Rocha B. M. et al. An open access database for the evaluation of respiratory sound classification algorithms. "
    "Physiological Measurement 40(3):035001 (2019), doi:10.1088/1361-6579/ab03ea"
)
LICENCE = "CC0-1.0"
PUBLISHER = "https://bhichallenge.med.auth.gr"
REMOTES: tuple[Remote, ...] = ()     # one archive behind a form, without checksums
TASKS = ("copd", "breath_sounds", "lung_disease")
LABELS: Mapping[str, tuple[str, ...]] = {name: tasks.TASKS[name].classes for name in TASKS}

_DIAGNOSES = ("patient_diagnosis.csv", "ICBHI_Challenge_diagnosis.txt")
_PERSONS = ("demographic_info.txt", "ICBHI_Challenge_demographic_information.txt")
_NAME_PATTERN = re.compile(r"(?P<id>\d+)_(?P<index>[^_]+)_(?P<place>Tc|Al|Ar|Pl|Pr|Ll|Lr)_(sc|mc)_(?P<device>\w+)")
_SOUNDS = {("0", "0"): "normal", ("1", "0"): "crackle", ("0", "1"): "wheeze", ("1", "1"): "crackle and wheeze"}
_LISTS = (*_DIAGNOSES, *_PERSONS, "ICBHI_challenge_train_test.txt", "filename_format.txt", "filename_differences.txt")


def read(folder: Path) -> Layout:
    """Read the recordings in `folder` and below it.

    Raises:
        LayoutError: there is no list of diagnoses.
    """
    source = PublisherFolder(folder, NAME, checksums(folder / "SHA256SUMS.txt"))
    diagnoses: dict[str, set[str]] = {}
    for line in _list(source, _DIAGNOSES):
        if len(line) > 1:
            diagnoses.setdefault(line[0], set()).add(" ".join(line[1:]))
    if not diagnoses:
        raise LayoutError(f"{folder}: no {' or '.join(_DIAGNOSES)}. Name the folder that holds it and the recordings.")
    persons = {line[0]: line[1:] for line in _list(source, _PERSONS)}
    files = [path for path in sorted(folder.rglob("*")) if _may_be_a_recording(path)]
    recordings, breaths = [], []
    for path in files:
        if (row := _recording(source, path, diagnoses, persons)) is not None:
            own = list(_breaths(source, path, str(row["patient_id"])))
            recordings.append({**row, label_column("breath_sounds"): any_of([sound for _, _, sound in own])})
            breaths += [dict(zip(ANNOTATION_COLUMNS, (row["source_file"], *breath), strict=True)) for breath in own]
    return source.layout(recordings, breaths, LABELS)


def any_of(sounds: Sequence[str]) -> str | None:
    """What a recording has when its breaths have `sounds`: crackles, wheezes, both, or neither in any of them.

    >>> any_of(["normal", "crackle", "wheeze"]), any_of(["normal"]), any_of([])
    ('crackle and wheeze', 'normal', None)
    """
    crackles, wheezes = ("1" if any(word in sound for sound in sounds) else "0" for word in ("crackle", "wheeze"))
    return _SOUNDS[crackles, wheezes] if sounds else None


def _list(source: PublisherFolder, names: Sequence[str]) -> list[list[str]]:
    """The fields of the first list of these names that is there."""
    path = next((source.root / name for name in names if (source.root / name).exists()), source.root / names[0])
    return side_files.fields(source, path)


def _may_be_a_recording(path: Path) -> bool:
    """Every file but the known lists and the `.txt` of breaths: one with a wrong extension must be seen, too."""
    known = path.name in (*_LISTS, "SHA256SUMS.txt") or path.suffix.lower() == ".txt"
    return path.is_file() and not known and not path.name.startswith(".")


def _recording(
    source: PublisherFolder, path: Path, diagnoses: Mapping[str, set[str]], persons: Mapping[str, Sequence[str]]
) -> dict[str, object] | None:
    """One row of the layout without its label of breaths, or `None` after it was refused."""
    relative, match = source.relative(path), _NAME_PATTERN.fullmatch(path.stem)
    if match is None or match["id"] not in diagnoses:
        detail = "the diagnoses have no row for it" if match else "the name is not patient_index_location_mode_device"
        source.refuse(relative, None, "missing_row", detail)
        return None
    patient_id, about = f"{NAME}-{match['id']}", persons.get(match["id"], ())
    said = sorted(diagnoses[match["id"]])
    if len(said) > 1:
        source.refuse(relative, patient_id, "contradiction", f"the diagnoses say {' and '.join(said)}")
        return None
    diagnosis = cells.choice(said[0], LABELS["lung_disease"]) or cells.present(said[0])
    try:
        age_group, sex = cells.age_group(about[0] if about else ""), cells.sex(about[1] if len(about) > 1 else "")
    except CellError as error:
        source.refuse(relative, patient_id, "unknown_value", f"the list of persons: {error}")
        return None
    return {
        "source_file": relative,
        "file_sha256": source.sums.get(relative),
        "patient_id": patient_id,
        "group": patient_id,
        "session": f"{patient_id}-{match['index']}",
        "source": match["device"],
        "location": match["place"],
        "age_group": age_group,
        "sex": sex,
        label_column("lung_disease"): diagnosis,
        label_column("copd"): diagnosis if diagnosis in LABELS["copd"] else None,
    }


def _breaths(source: PublisherFolder, audio: Path, patient_id: str) -> Iterator[tuple[float, float, str]]:
    """Start, end in s and sound of each breath; none where the list is missing or was refused."""
    path = audio.with_suffix(".txt")
    try:
        found = [_breath(*line) for line in side_files.fields(source, path)]
    except (TypeError, ValueError, KeyError) as error:
        detail = f"a line is not start, end, crackles 0 or 1, wheezes 0 or 1: {str(error)[:200]}"
        source.refuse(source.relative(path), patient_id, "unreadable", detail)
        return
    yield from found


def _breath(start: str, end: str, crackles: str, wheezes: str) -> tuple[float, float, str]:
    first, last = float(start), float(end)
    if not 0 <= first <= last < math.inf:
        raise ValueError(f"{start} to {end} s")
    return first, last, _SOUNDS[crackles, wheezes]
