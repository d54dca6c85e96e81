"""SPRSound: lung sounds of children in Shanghai, with a label of each recording and events within it.

A recording is `<patient>_<age>_<sex>_<location>_<number>.wav`, for instance `65058931_3.4_1_p2_1086.wav`. Sex 0 is
male. Locations p1 to p4 are left posterior, left lateral, right posterior, right lateral. A `.json` of the same name
says `record_annotation` and has `event_annotation`: start and end in ms, and a type. Sounds and JSON files lie in
folders of their own, for instance `train2022_wav/`, `train2022_json/`, `test2022_json/inter_test_json/`.

The part of a challenge that a recording belongs to is its source: `train2022`, `test2022-inter` (children who are not
in training), `test2022-intra` (children who are), `test2023`. It is read from the folders of the JSON file.
"""

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

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

NAME = "sprsound"
TITLE = "SPRSound: SJTU Paediatric Respiratory Sound Database"
CITATION = (
    "Zhang Q. et al. SPRSound: Open-Source SJTU Paediatric Respiratory Sound Database. IEEE Transactions on Biomedical "
    "Circuits and Systems 16(5):867-881 (2022), doi:10.1109/TBCAS.2022.3204910"
)
LICENCE = "see the publisher's LICENSE"
PUBLISHER = "https://github.com/SJTU-YONGFU-RESEARCH-GRP/SPRSound"
REMOTES: tuple[Remote, ...] = ()     # a repository without checksums
TASKS = ("adventitious",)
LABELS: Mapping[str, tuple[str, ...]] = {"adventitious": tasks.TASKS["adventitious"].classes}

_NAME_PATTERN = re.compile(r"(?P<id>\d+)_(?P<age>[\d.]+)_(?P<sex>[01])_p(?P<place>[1-4])_(?P<number>\d+)")
_PLACES = {"1": "Pl", "2": "Ll", "3": "Pr", "4": "Lr"}
_SEXES = {"0": "Male", "1": "Female"}
_RECORD_KEYS = ("record_annotation", "recording_annotation")
_EVENTS = {"normal": "normal", "rhonchi": "rhonchi", "wheeze": "wheeze", "stridor": "stridor",
           "coarse crackle": "coarse crackle", "fine crackle": "fine crackle", "wheeze+crackle": "crackle and wheeze"}
_TEST_KINDS = ("inter", "intra")


def read(folder: Path) -> Layout:
    """Read the recordings in `folder` and below it, each with the JSON file of its name.

    Raises:
        LayoutError: no JSON file has the name of a recording.
    """
    source = PublisherFolder(folder, NAME, checksums(folder / "SHA256SUMS.txt"))
    found = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    texts: dict[str, list[Path]] = {}
    for path in found:
        if path.suffix == ".json" and _NAME_PATTERN.fullmatch(path.stem):
            texts.setdefault(path.stem, []).append(path)
    if not texts:
        raise LayoutError(f"{folder}: no JSON file named patient_age_sex_location_number. Name the folder that holds "
                          "the JSON files and the recordings.")
    recordings, events = [], []
    for path in (path for path in found if path.parent.name.endswith("wav") or path.suffix.lower() == ".wav"):
        text, said = _text_of(source, path, texts.get(path.stem, ()))
        if (row := _recording(source, path, text, said)) is not None and text is not None:
            recordings.append(row)
            events += list(_events(source, text, row, said))
    return source.layout(recordings, events, LABELS)


def _text_of(source: PublisherFolder, path: Path, texts: Sequence[Path]) -> tuple[Path | None, Mapping[str, Any]]:
    """The JSON file of a recording and what it says; of several (each challenge has its own) the nearest with a label.

    Nearest is the one that shares most folders with the recording. Where two say different labels, what is returned is
    empty, and the recording is refused.
    """
    patient = f"{NAME}-{path.stem.split('_')[0]}"
    near = sorted(texts, key=lambda one: (-len(Path(os.path.commonpath([one, path])).parts), str(one)))
    said = {one: side_files.json_object(source, one, patient) for one in near}
    labels = {one: _label(own) for one, own in said.items() if _label(own)}
    if len(set(labels.values())) > 1:
        detail = " and ".join(f"{source.relative(one)} says {label}" for one, label in labels.items())
        source.refuse(source.relative(path), patient, "contradiction", detail)
        return near[0], {}
    text = next(iter(labels), near[0] if near else None)
    return text, {} if text is None else said[text]


def _label(said: Mapping[str, Any]) -> str:
    return str(next((said[key] for key in _RECORD_KEYS if key in said), ""))


def part_of(path: Path) -> str:
    """The part of a challenge that the folders of a JSON file name.

    >>> part_of(Path("BioCAS2022/test2022_json/inter_test_json/x.json")), part_of(Path("train2022_json/x.json"))
    ('test2022-inter', 'train2022')
    >>> part_of(Path("Classification/valid_classification_json/2022/intra_test_json/x.json"))
    'test2022-intra'
    >>> part_of(Path("sounds/x.json"))
    'not told'
    """
    words = "/".join(path.parts[:-1])
    part = "train" if "train" in words else "test" if "test" in words or "valid" in words else ""
    years = re.findall(r"20\d\d", words)
    kind = next((f"-{word}" for word in _TEST_KINDS if f"{word}_test" in words), "")
    return f"{part}{years[-1] if years else ''}{kind}" if part else "not told"


def _recording(
    source: PublisherFolder, path: Path, text: Path | None, said: Mapping[str, Any]
) -> dict[str, object] | None:
    """One row of the layout, or `None` after it was refused."""
    relative, match = source.relative(path), _NAME_PATTERN.fullmatch(path.stem)
    if match is None or text is None or not said:
        detail = ("the name is not patient_age_sex_location_number" if match is None else
                  "there is no JSON file of its name" if text is None else f"{source.relative(text)} cannot be used")
        source.refuse(relative, None, "missing_row", detail)
        return None
    patient_id = f"{NAME}-{match['id']}"
    label = _label(said)
    try:
        age_group = cells.age_group(match["age"])
    except CellError as error:
        source.refuse(relative, patient_id, "unknown_value", f"the name: {error}")
        return None
    return {
        "source_file": relative,
        "file_sha256": source.sums.get(relative),
        "patient_id": patient_id,
        "group": patient_id,
        "source": part_of(text.relative_to(source.root)),
        "location": _PLACES[match["place"]],
        "age_group": age_group,
        "sex": _SEXES[match["sex"]],
        label_column("adventitious"): cells.choice(label, LABELS["adventitious"]) or cells.present(label),
    }


def _events(
    source: PublisherFolder, path: Path, row: Mapping[str, object], said: Mapping[str, Any]
) -> Iterator[dict[str, object]]:
    """The events of one recording as annotations; none after the file was refused."""
    try:
        found = [_event(**event) for event in said.get("event_annotation", ())]
    except (TypeError, ValueError, KeyError) as error:
        detail = f"an event is not start, end in ms and a known type: {str(error)[:200]}"
        source.refuse(source.relative(path), str(row["patient_id"]), "unreadable", detail)
        return
    for event in found:
        yield dict(zip(ANNOTATION_COLUMNS, (row["source_file"], *event), strict=True))


def _event(start: object, end: object, type: object) -> tuple[float, float, str]:  # noqa: A002 - the publisher's key
    first, last = float(str(start)) / 1000, float(str(end)) / 1000
    if not 0 <= first <= last < math.inf:
        raise ValueError(f"{start} to {end} ms")
    return first, last, _EVENTS[str(type).strip().casefold()]
