"""Simulated people and their lungs (`heartml simulate --organ lungs`): two tables, and a file for each recording."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from heartml.core import tasks
from heartml.core.schema import label_column
from heartml.core.system import cells, untrusted
from heartml.core.system.cells import CellError
from heartml.core.system.tables import Row
from heartml.core.system.text import short
from heartml.data.datasets import Layout, LayoutError, PublisherFolder, Remote, checksums, leaves_folder

NAME = "simulated-lungs"
TITLE = "HeartML's simulated lungs"
CITATION = "Made by `heartml simulate --organ lungs`; the model and its sources are in heartml/data/simulation/"
LICENCE = "Apache-2.0"
PUBLISHER = "heartml simulate"
REMOTES: tuple[Remote, ...] = ()
TASKS = ("lung_sounds",)
_LABEL = tasks.TASKS[TASKS[0]].label
LABELS: Mapping[str, tuple[str, ...]] = {_LABEL: tasks.LABELS[_LABEL]}

_RECORDINGS, _BREATHS = "recordings.csv", "breaths.csv"
_COLUMNS = ("file", "patient", "place", "sound", "age", "sex")
_EVENTS = {"Normal": "normal", "Wheezing": "wheeze", "Fine Crackles": "fine crackle",
           "Coarse Crackles": "coarse crackle", "Rhonchi": "rhonchi"}     # of schema.BREATH_EVENTS; rubs are none


def read(folder: Path) -> Layout:
    """Read a simulated corpus of lungs; patient ids become `simulated-lungs-<id>`.

    Raises:
        LayoutError: the folder holds no such corpus.
    """
    if not (folder / _RECORDINGS).is_file():
        raise LayoutError(f"{folder}: no {_RECORDINGS}. Name the folder that `heartml simulate --organ lungs` wrote.")
    source = PublisherFolder(folder, NAME, checksums(folder / "SHA256SUMS.txt"))
    rows: dict[str, Row] = {}
    for row in source.table(folder / _RECORDINGS, _COLUMNS, _COLUMNS):
        if row["file"] in rows:
            source.refuse_line(folder / _RECORDINGS, row.line, "contradiction", f"{short(row['file'])} is there twice")
        rows.setdefault(row["file"], row)
    found = [made for row in rows.values() if (made := _recording(source, row)) is not None]
    named = {str(row["source_file"]) for row in found}
    return source.layout(found, _breaths(source, named), LABELS)


def _recording(source: PublisherFolder, row: Row) -> dict[str, object] | None:
    """One row of the layout, or `None` after it was refused."""
    file, where = row["file"], f"{_RECORDINGS}, line {row.line}"
    patient_id = f"{NAME}-{row['patient']}" if row["patient"] else None
    if leaves_folder(file):
        source.refuse(file, patient_id, "outside", f"{where}: it leads out of the folder")
    elif not untrusted.is_file(source.root / file):
        source.refuse(file, patient_id, "missing_file", f"{where} names it, but there is no such file")
    elif cells.choice(row["sound"], LABELS[_LABEL]) is None:
        source.refuse(file, patient_id, "unknown_label", f"{where}: sound is {short(row['sound'])}")
    elif patient_id is None:
        source.refuse(file, None, "malformed", f"{where}: the row has no patient")
    else:
        try:
            about = {"age_group": cells.age_group(row["age"]), "sex": cells.sex(row["sex"])}
        except CellError as error:
            source.refuse(file, patient_id, "unknown_value", f"{where}: {error}")
            return None
        return {"source_file": file, "file_sha256": source.sums.get(file), "patient_id": patient_id,
                "group": patient_id, "source": "simulated", "location": cells.present(row["place"]), **about,
                label_column(_LABEL): cells.choice(row["sound"], LABELS[_LABEL])}
    return None


def _breaths(source: PublisherFolder, named: set[str]) -> Iterator[dict[str, object]]:
    """Rows of the annotations: the breaths of the recordings, with what is heard in them."""
    for row in source.side_table(source.root / _BREATHS, ("file", "start_s", "end_s", "sound")):
        if row["file"] in named and row["sound"] in _EVENTS:
            try:
                times = {"start_s": float(row["start_s"]), "end_s": float(row["end_s"])}
            except ValueError:
                source.refuse_line(source.root / _BREATHS, row.line, "malformed", "its times are no numbers")
                continue
            yield {"source_file": row["file"], **times, "state": _EVENTS[row["sound"]]}
