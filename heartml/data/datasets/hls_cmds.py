"""HLS-CMDS: heart and lung sounds that a manikin replays, alone and mixed, through one digital stethoscope.

`HS.csv`, `LS.csv` and `Mix.csv` name the type and place of each recording in `HS/`, `LS/` and `Mix/`. Heart and lung
sounds are `<sex of the manikin>_<type>_<place>.wav`, for instance `F_ESM_LUSB.wav`. Where a row names another file than
there is, as `LS.csv` does with crackles (`M_G_LUA` is `M_CC_LUA.wav`), it is matched by manikin, type and place. A row
of `Mix.csv` names a mixture (`M0001`) and what it was mixed of (`H0001`, `L0001`).

A manikin is not a patient. Nobody's sex or person is known, and a sound of one type is the same sound at every place.
So each recording is a group of its own, the manikin is the source, and a score on this set says how well replayed
sounds are told apart, not lungs or hearts (docs/results.md). The types of what was mixed are right, their manikin and
place are not: the same samples stand there under several. Mixtures have labels of their own, which no task uses.
"""

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from heartml.core import tasks
from heartml.core.schema import label_column
from heartml.core.system import cells
from heartml.core.system.tables import Row
from heartml.core.system.text import short
from heartml.data.datasets import Layout, LayoutError, PublisherFolder, Remote, checksums, leaves_folder

NAME = "hls-cmds"
TITLE = "Heart and Lung Sounds Dataset Recorded from a Clinical Manikin using Digital Stethoscope (HLS-CMDS)"
CITATION = (
    "Torabi Y., Shirani S., Reilly J.P. Descriptor: Heart and Lung Sounds Dataset Recorded from a Clinical Manikin "
    "using Digital Stethoscope (HLS-CMDS). IEEE Data Descriptions (2025), doi:10.1109/IEEEDATA.2025.3566012"
)
CAUTION = ("Recordings of hls-cmds are of a manikin, which replays one sound of each type: a score on them says "
           "nothing about patients.")
LICENCE = "CC-BY-4.0"
PUBLISHER = "https://doi.org/10.17632/8972jxbpmp"
REMOTES: tuple[Remote, ...] = ()     # archives without checksums
TASKS = ("heart_sounds", "lung_sounds")
_HEART, _LUNG = (tasks.TASKS[name].label for name in TASKS)
LABELS: Mapping[str, tuple[str, ...]] = {
    **{label: tasks.LABELS[label] for label in (_HEART, _LUNG)},
    **{f"mixed_{label}": tasks.LABELS[label] for label in (_HEART, _LUNG)},
}

_LETTERS = {     # of a type in a file's name
    "Normal": "N", "Early Systolic Murmur": "ESM", "Mid Systolic Murmur": "MSM", "Late Systolic Murmur": "LSM",
    "Late Diastolic Murmur": "LDM", "Atrial Fibrillation": "AF", "AV Block": "AVB", "Tachycardia": "T", "S3": "S3",
    "S4": "S4", "Wheezing": "W", "Fine Crackles": "FC", "Coarse Crackles": "CC", "Rhonchi": "R", "Pleural Rub": "PR",
}
_PLACES = {      # as other collections call them; no valve is heard best at the costal margins, RC and LC
    "RUSB": "AV", "LUSB": "PV", "LLSB": "TV", "Apex": "MV", "RC": None, "LC": None, "RUA": "Ar upper",
    "LUA": "Al upper", "RMA": "Ar middle", "LMA": "Al middle", "RLA": "Ar lower", "LLA": "Al lower",
}
_SOURCES = {"F": "female manikin", "M": "male manikin"}
_TYPE_COLUMNS = {_HEART: "Heart Sound Type", _LUNG: "Lung Sound Type"}
_ID_COLUMNS = {_HEART: "Heart Sound ID", _LUNG: "Lung Sound ID"}
_MIXTURE_ID, _MIXTURE = "Mixed Sound ID", "mixture"
_ALONE = {"HS": _HEART, "LS": _LUNG}     # folder and table -> the label of its recordings
_MIXED = "Mix"


@dataclass(frozen=True)
class _Listed:
    """What a table says of one recording; `fault` is why it cannot be used (reason, detail)."""

    labels: Mapping[str, str]
    source: str = _MIXTURE
    location: str | None = None
    fault: tuple[str, str] | None = None


def read(folder: Path) -> Layout:
    """Read the layout of HLS-CMDS in `folder`; some of its three tables may be missing.

    Raises:
        LayoutError: none of them is there, or one lacks a column.
    """
    source = PublisherFolder(folder, NAME, checksums(folder / "SHA256SUMS.txt"))
    there = [part for part in (*_ALONE, _MIXED) if (folder / f"{part}.csv").is_file()]
    if not there:
        raise LayoutError(f"{folder}: no HS.csv, LS.csv or Mix.csv. Name the folder that holds them.")
    return source.layout([row for part in there for row in _recordings(source, part)], [], LABELS)


def _recordings(source: PublisherFolder, part: str) -> Iterator[dict[str, object]]:
    """The rows of the layout for one table and its folder; what cannot be used is refused."""
    folder = source.root / part
    files = {path.stem: path for path in sorted(folder.iterdir()) if path.name[:1] != "."} if folder.is_dir() else {}
    listed = _of_mixtures(source) if part == _MIXED else _of_sounds(source, part, files)
    for stem, path in files.items():
        relative, row = source.relative(path), listed.get(stem)
        if row is None:
            source.refuse(relative, None, "missing_row", f"no row of {part}.csv names it")
        elif row.fault:
            source.refuse(relative, None, *row.fault)
        else:
            yield {"source_file": relative, "file_sha256": source.sums.get(relative), "group": f"{NAME}-{part}-{stem}",
                   "source": row.source, "location": row.location,
                   **{label_column(name): value for name, value in row.labels.items()}}
    for stem in sorted(set(listed) - set(files)):
        outside = leaves_folder(stem) or "/" in stem
        source.refuse(f"{part}/{stem}.wav", None, *(("outside", f"{part}.csv names it, and it is a path") if outside
                      else ("missing_file", f"{part}.csv names it, but there is no such file")))


def _of_sounds(source: PublisherFolder, part: str, files: Container[str]) -> dict[str, _Listed]:
    """Name of a file without its ending -> what the table of heart or of lung sounds says.

    Args:
        files: the names that there are.
    """
    label = _ALONE[part]
    type_column, id_column = _TYPE_COLUMNS[label], _ID_COLUMNS[label]
    path = source.root / f"{part}.csv"
    needed = ("Gender", "Location", type_column, id_column)
    found: dict[str, _Listed] = {}
    for row in source.table(path, needed, needed):
        sort, fault = _type(row, label, path)
        manikin, place = cells.choice(row["Gender"], _SOURCES), cells.choice(row["Location"], _PLACES)
        if manikin is None or place is None:
            wrong = "Gender" if manikin is None else "Location"
            fault = fault or ("unknown_value", f"{_where(path, row)}: {wrong} is {short(row[wrong])}")
        if fault or sort is None or manikin is None or place is None:
            found[row[id_column]] = _Listed({}, fault=fault)
        else:
            stem = "_".join((manikin, _LETTERS[sort], "A" if place == "Apex" else place))
            own = row[id_column]
            if own in files and own != stem:      # the row and the name say different places
                stem, place, fault = own, "", _contradiction(own, sort, _where(path, row))
            found[stem] = _Listed({label: sort}, _SOURCES[manikin], _PLACES.get(place), fault)
    return found


def _contradiction(stem: str, sort: str, where: str) -> tuple[str, str] | None:
    """The fault of a file whose name has the letters of another type than its row (reason, detail)."""
    if f"_{_LETTERS[sort]}_" in stem:
        return None
    return "contradiction", f"{where}: it says {sort}, and the name of {short(stem)} another type"


def _of_mixtures(source: PublisherFolder) -> dict[str, _Listed]:
    """Name of a file without its ending -> what the table of mixtures says: of mixtures, and of what they were made."""
    path = source.root / f"{_MIXED}.csv"
    needed = (*_TYPE_COLUMNS.values(), *_ID_COLUMNS.values(), _MIXTURE_ID)
    found: dict[str, _Listed] = {}
    for row in source.table(path, needed, needed):
        types = {label: _type(row, label, path) for label in _TYPE_COLUMNS}
        faults = [fault for _, fault in types.values() if fault]
        known = {label: sort for label, (sort, _) in types.items() if sort}
        of_row = {row[_ID_COLUMNS[label]]: _Listed({label: sort}) for label, sort in known.items()}
        of_row[row[_MIXTURE_ID]] = _Listed({f"mixed_{label}": sort for label, sort in known.items()})
        for stem, listed in of_row.items():
            twice = stem in found and found[stem] != listed
            fault = faults[0] if faults else None
            if twice:
                fault = "contradiction", f"{_where(path, row)}: another row says something else of {short(stem)}"
            found[stem] = _Listed({}, fault=fault) if fault else listed
    return found


def _type(row: Row, label: str, path: Path) -> tuple[str | None, tuple[str, str] | None]:
    """The type of a heart or lung sound in a row, or why it has none (reason, detail)."""
    cell = row[_TYPE_COLUMNS[label]]
    found = cells.choice(cell, LABELS[label])
    if found is None:
        return None, ("unknown_label", f"{_where(path, row)}: {_TYPE_COLUMNS[label]} is {short(cell)}, which is none "
                      f"of {', '.join(LABELS[label])}")
    return found, None


def _where(path: Path, row: Row) -> str:
    return f"{path.name}, line {row.line}"
