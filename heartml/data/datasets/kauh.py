"""KAUH: lung sounds of 112 people in Jordan, each kept through three filters of one stethoscope.

A recording is `<filter>P<patient>_<diagnosis>,<sound>,<place>,<age>,<sex>.wav`, for instance
`BP1_Asthma,I E W,P L L,70,M.wav`. Filters are B (bell), D (diaphragm) and E (extended). Places are three letters:
anterior or posterior, left or right, upper, middle or lower. The three recordings of a patient are one sound, so the
patient is the group. The publisher's spreadsheet repeats what the names say, and is not read.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from heartml.audio.containers import SUFFIXES
from heartml.core import tasks
from heartml.core.schema import label_column
from heartml.core.system import cells
from heartml.core.system.cells import CellError
from heartml.data.datasets import Layout, LayoutError, PublisherFolder, Remote, checksums

NAME = "kauh"
TITLE = "A dataset of lung sounds recorded from the chest wall using an electronic stethoscope (KAUH)"
CITATION = (
    "Fraiwan M. et al. A dataset of lung sounds recorded from the chest wall using an electronic stethoscope. "
    "Data in Brief 35:106913 (2021), doi:10.1016/j.dib.2021.106913"
)
LICENCE = "CC-BY-4.0"
PUBLISHER = "https://data.mendeley.com/datasets/jwyy9np4gv/3"
REMOTES: tuple[Remote, ...] = ()     # one archive without checksums
TASKS = ("obstructive",)
_DENIED = {"no", "not", "non", "without", "never", "excluded"}
LABELS: Mapping[str, tuple[str, ...]] = {"obstructive": tasks.TASKS["obstructive"].classes}

_NAME_PATTERN = re.compile(r"(?P<filter>[BDE])P(?P<id>\d+)_(?P<diagnosis>[^,]*),(?P<sound>[^,]*),(?P<place>[^,]*),"
                           r" *(?P<age>[^,]*), *(?P<sex>[^,]*)")
_FILTERS = {"B": "bell", "D": "diaphragm", "E": "extended"}
_HEIGHTS = {"U": "upper", "M": "middle", "L": "lower"}


def read(folder: Path) -> Layout:
    """Read the recordings in `folder` and below it.

    Raises:
        LayoutError: no sound file there has a name of the publisher's form.
    """
    source = PublisherFolder(folder, NAME, checksums(folder / "SHA256SUMS.txt"))
    files = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES]
    if not any(_NAME_PATTERN.fullmatch(path.stem) for path in files):
        raise LayoutError(f"{folder}: no recording like `BP1_Asthma,I E W,P L L,70,M.wav`. Name the folder that holds "
                          "them.")
    recordings = [row for path in files if (row := _recording(source, path)) is not None]
    return source.layout(recordings, [], LABELS)


def obstruction(diagnosis: str) -> str | None:
    """The label of a diagnosis: asthma and COPD, also beside others, obstruct; N is healthy; others have no label.

    A diagnosis that is denied ("no asthma") has no label: what the person has instead is not said.

    >>> [obstruction(word) for word in ("Asthma", "Heart Failure + COPD", "N", "pneumonia", "No asthma")]
    ['Obstructive', 'Obstructive', 'Healthy', None, None]
    """
    named = [part.split() for part in re.split(r"[+,;/&]|\band\b", diagnosis.casefold())]
    if any({"asthma", "copd"} & set(words) and not _DENIED & set(words) for words in named):
        return "Obstructive"
    return "Healthy" if named == [["n"]] else None


def place(text: str) -> str | None:
    """The place on the chest, in the words of other collections of lung sounds; `None` where it is none.

    >>> place("P L L"), place("A R U"), place("P L")
    ('Pl lower', 'Ar upper', None)
    """
    letters = text.upper().split()
    if len(letters) != 3 or letters[0] not in "AP" or letters[1] not in "LR" or letters[2] not in _HEIGHTS:
        return None
    return f"{letters[0]}{letters[1].lower()} {_HEIGHTS[letters[2]]}"


def _recording(source: PublisherFolder, path: Path) -> dict[str, object] | None:
    """One row of the layout, or `None` after it was refused."""
    relative, match = source.relative(path), _NAME_PATTERN.fullmatch(path.stem)
    if match is None:
        detail = "the name is not filter and patient, diagnosis, sound, place, age, sex"
        source.refuse(relative, None, "missing_row", detail)
        return None
    patient_id = f"{NAME}-P{match['id']}"
    try:
        age_group, sex = cells.age_group(match["age"]), cells.sex(match["sex"])
    except CellError as error:
        source.refuse(relative, patient_id, "unknown_value", f"the name: {error}")
        return None
    return {
        "source_file": relative,
        "file_sha256": source.sums.get(relative),
        "patient_id": patient_id,
        "group": patient_id,
        "source": _FILTERS[match["filter"]],
        "location": place(match["place"]),
        "age_group": age_group,
        "sex": sex,
        label_column("obstructive"): obstruction(match["diagnosis"]),
    }
