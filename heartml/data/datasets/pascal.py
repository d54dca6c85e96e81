"""PASCAL Classifying Heart Sounds Challenge 2011: a phone app's recordings (set_a), a digital stethoscope's (set_b).

`set_a.csv` and `set_b.csv` (`dataset,fname,label,sublabel`) are beside the folders `set_a/` and `set_b/`. The names in
`set_b.csv` are not those on disk: rows and files are matched by the key (label, noisy or not,
patient_timestamp_location). Files called `unlabelledtest` are taken without a label. set_a names no patients, so its
recordings are grouped by calendar day.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from heartml.core.schema import label_column
from heartml.core.system import cells
from heartml.core.system.text import short
from heartml.data.datasets import (
    ANNOTATION_COLUMNS,
    Layout,
    LayoutError,
    PublisherFolder,
    Remote,
    checksums,
    leaves_folder,
)

NAME = "pascal"
TITLE = "PASCAL Classifying Heart Sounds Challenge 2011"
CITATION = (
    "Bentley P., Nordehn G., Coimbra M., Mannor S. The PASCAL Classifying Heart Sounds Challenge 2011 (CHSC2011). "
    "http://www.peterjbentley.com/heartchallenge/index.html"
)
LICENCE = "CC0-1.0"
PUBLISHER = "http://www.peterjbentley.com/heartchallenge/"
REMOTES: tuple[Remote, ...] = ()     # nobody offers this layout file by file with checksums: download it by hand
TASKS = ("sounds",)
LABELS: Mapping[str, tuple[str, ...]] = {"sound": ("artifact", "extrahls", "extrastole", "murmur", "normal")}

_SETS = ("set_a", "set_b")
_UNLABELLED = "unlabelledtest"
_TIMING = "set_a_timing.csv"
_TIMING_RATE_HZ = 44_100
_PATTERN = re.compile(r"(?P<words>(?:[A-Za-z]+_+)+)(?P<tail>\d.*)")
_Key = tuple[str, str, bool, str]


@dataclass(frozen=True)
class _Name:
    """What a file's name says, on disk or in a table: `murmur_noisymurmur_171_1307971016233_F.wav`."""

    part: str        # set_a, set_b
    label: str       # the name's first word
    noisy: bool
    tail: str        # 171_1307971016233_F, or 201104021355

    @property
    def key(self) -> _Key:
        return self.part, self.label, self.noisy, self.tail

    @property
    def patient_id(self) -> str | None:
        return f"{NAME}-{self.tail.split('_')[0]}" if self.part == "set_b" else None

    @property
    def session(self) -> str | None:
        """The day and the device. set_a's names are clock times, set_b's hold milliseconds since 1970 (UTC)."""
        if self.part == "set_a":
            return f"{NAME}-{self.part}-{self.tail[:8]}"
        stamp = next((word for word in self.tail.split("_")[1:] if re.fullmatch("[0-9]{13}", word)), None)
        return stamp and f"{NAME}-{self.part}-{datetime.fromtimestamp(int(stamp) / 1000, UTC):%Y%m%d}"

    @property
    def group(self) -> str:
        """The patient, or the day. (Some time stamps of set_a lack digits of the time, but none of the day.)"""
        return self.patient_id or f"{NAME}-day-{self.tail[:8]}"


def read(folder: Path) -> Layout:
    """Read the PASCAL layout in `folder`.

    Raises:
        LayoutError: neither set is in the folder with its table.
    """
    source = PublisherFolder(folder, NAME)
    parts = [part for part in _SETS if (folder / part).is_dir() and (folder / f"{part}.csv").is_file()]
    if not parts:
        raise LayoutError(f"{folder}: neither set_a/ with set_a.csv nor set_b/ with set_b.csv. Name the folder above.")
    rows: dict[_Key, set[str]] = {}
    for part in parts:
        _read_table(source, part, rows)
    sums = checksums(folder / "PCM_SHA256SUMS.txt")
    recordings = [row for path in _audio_files(folder, parts) if (row := _recording(source, path, rows, sums))]
    _refuse_missing_files(source, rows, recordings)
    return source.layout(recordings, _heart_sounds(source, {str(row["source_file"]) for row in recordings}), LABELS)


def _audio_files(folder: Path, parts: list[str]) -> list[Path]:
    return sorted(p for part in parts for p in (folder / part).iterdir() if not p.name.startswith("."))


def _parse(part: str, file_name: str) -> _Name | None:
    """The parts of a file's name; `None` where it has another form."""
    match = _PATTERN.fullmatch(Path(file_name).stem)
    if match is None:
        return None
    words = [re.sub(r"^[AB](training|(?=unlabelled))", "", word) for word in match["words"].split("_")]
    words = [word for word in words if word]
    if not words:
        return None
    return _Name(part, words[0], any(word.startswith("noisy") for word in words[1:]), match["tail"])


def _read_table(source: PublisherFolder, part: str, rows: dict[_Key, set[str]]) -> None:
    """Add to `rows`: key -> the labels that the table gives it (more than one is a contradiction)."""
    for row in source.table(source.root / f"{part}.csv", ("fname", "label"), ("fname", "label")):
        file_name, label = row["fname"], cells.present(row["label"]) or ""
        label = cells.choice(label, LABELS["sound"]) or label
        if leaves_folder(file_name):
            source.refuse(file_name, None, "outside", f"{part}.csv names it, and it leads out of the folder")
            continue
        name = _parse(part, file_name)
        if name is None:
            source.refuse(file_name or f"{part}.csv", None, "missing_file", f"{part}.csv names it: no such form")
            continue
        rows.setdefault(name.key, set()).add(label)


def _recording(
    source: PublisherFolder, path: Path, rows: Mapping[_Key, set[str]], sums: Mapping[str, str]
) -> dict[str, object] | None:
    """One row of the layout, or `None` after it was refused."""
    relative = source.relative(path)
    name = _parse(path.parent.name, path.name)
    if name is None:
        source.refuse(relative, None, "missing_row", "the name is not <label>_<number>: no row can be its own")
        return None
    labels = rows.get(name.key, {""} if name.label == _UNLABELLED else set())
    if not labels:
        source.refuse(relative, name.patient_id, "missing_row", f"{name.part}.csv has no row for it")
        return None
    label = min(labels)
    named = name.label if name.label in LABELS["sound"] else label
    if len(labels) > 1 or (label and label != named):
        detail = f"{name.part}.csv says {', '.join(sorted(labels))}, the name says {name.label}"
        source.refuse(relative, name.patient_id, "contradiction", detail)
        return None
    return {
        "source_file": relative,
        "pcm_sha256": sums.get(relative),
        "patient_id": name.patient_id,
        "group": name.group,
        "session": name.session,
        "source": name.part,
        label_column("sound"): label or None,
    }


def _refuse_missing_files(
    source: PublisherFolder, rows: Mapping[_Key, set[str]], recordings: list[dict[str, object]]
) -> None:
    """Refuse the rows that no file on disk belongs to."""
    seen = {str(row["source_file"]) for row in recordings} | {str(row["source_file"]) for row in source.refused}
    found = {name.key for file in seen if (name := _parse(file.split("/")[0], file))}
    for part, label, noisy, tail in sorted(rows.keys() - found):
        file = f"{part}/{label}_{f'noisy{label}' if noisy else ''}_{tail}.wav"
        source.refuse(file, None, "missing_file", f"{part}.csv has a row for it, but there is no such file")


def _heart_sounds(source: PublisherFolder, known: set[str]) -> Iterator[dict[str, object]]:
    """The times of S1 and S2 in some normal recordings of set_a. They are points, so `start_s` equals `end_s`."""
    path = source.root / _TIMING
    for row in source.side_table(path, ("fname", "sound", "location")):
        file, sound, location = row["fname"], cells.choice(row["sound"], ("S1", "S2")), cells.whole(row["location"])
        if file not in known:
            continue
        if sound is None or location is None or location < 0:
            detail = f"{short(row['sound'])} at {short(row['location'])} is not S1 or S2 at a whole number of samples"
            source.refuse_line(path, row.line, "unknown_value", detail)
            continue
        at_s = location / _TIMING_RATE_HZ
        yield dict(zip(ANNOTATION_COLUMNS, (file, at_s, at_s, sound), strict=True))
