"""The cases of a benchmark's task: a publisher's folder in, recordings or breaths with their labels out."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from heartml.audio import entry_checks, sound_files
from heartml.core.system.errors import HeartMLError
from heartml.data import datasets
from heartml.data.datasets import Layout, LayoutError
from heartml.evaluation.protocols.opera.tasks import BenchmarkTask, labels_of

_SHORTEST_BREATH_S = 0.2       # shorter ones have no frame of some encoders


class LeftOutError(HeartMLError):
    """A task cannot be done with what is in the folder; the message says why."""


@dataclass(frozen=True)
class Case:
    """One thing to tell: a recording, or a breath within it.

    Attributes:
        path: of the file.
        source_file: its name in the publisher's layout.
        recording_id: hash of its samples.
        span_s: start and end of the breath; `None` for the whole recording.
        label: a class of the task.
        group: the person, or the recording where persons are unknown.
    """

    path: Path
    source_file: str
    recording_id: str
    span_s: tuple[float, float] | None
    label: str
    group: str

    @property
    def name(self) -> str:
        """An id of the case: the recording's, and the breath's start and end in ms."""
        span = "" if self.span_s is None else "-" + "-".join(f"{1000 * edge:.0f}" for edge in self.span_s)
        return self.recording_id + span


def place_of(task: BenchmarkTask, folder: Path) -> Path:
    """The folder of the task's collection: in `folder`, or in `folder/datasets` as the benchmark's code has it.

    Raises:
        LeftOutError: there is none.
    """
    places = [root / name for root in (folder, folder / "datasets") for name in task.folders]
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        raise LeftOutError(f"no folder {task.folders[0]}/ in {folder}")
    return found


def read(task: BenchmarkTask, place: Path) -> tuple[list[Case], dict[str, int]]:
    """The labelled cases of a collection in a fixed order, and how many files were refused for each reason.

    Raises:
        LeftOutError: the folder has another layout, or no case.
    """
    try:
        layout = datasets.load(task.dataset).read(place)
    except LayoutError as error:
        raise LeftOutError(str(error)) from None
    wanted = _breaths(task, layout) if task.per_breath else _recordings(task, layout)
    reasons = Counter(str(reason) for reason in layout.refused["reason"])
    found, known = [], dict[str, tuple[str, float]]()
    for file, label, group, listed_s in wanted:
        if file not in known:
            recording_id, seconds, reason = _facts(place, place / file)
            known[file] = recording_id, seconds
            reasons.update([reason] if reason else [])
        recording_id, seconds = known[file]
        span_s = listed_s and (listed_s[0], min(listed_s[1], seconds))     # a list may go on after the sound's end
        if recording_id and span_s is not None and span_s[1] - span_s[0] < _SHORTEST_BREATH_S:
            reasons["breath after the end of the sound"] += 1
        elif recording_id:
            found.append(Case(place / file, file, recording_id, span_s, label, group))
    unique = _without_contradictions(found, reasons)
    if not unique:
        raise LeftOutError(f"{place}: no recording has a label for it ({dict(reasons) or 'none refused'})")
    return unique, dict(sorted((+reasons).items()))


def _without_contradictions(found: Sequence[Case], reasons: Counter[str]) -> list[Case]:
    """Each sound once; one that is there with two labels or of two persons is left out, and counted in `reasons`."""
    said: dict[str, set[tuple[str, str]]] = {}
    for case in found:
        said.setdefault(case.name, set()).add((case.label, case.group))
    reasons.update({"one sound with two labels or persons": sum(len(one) > 1 for one in said.values())})
    return list({case.name: case for case in found if len(said[case.name]) == 1}.values())


Wanted = list[tuple[str, str, str, tuple[float, float] | None]]      # source file, label, group, span


def _recordings(task: BenchmarkTask, layout: Layout) -> Wanted:
    table = layout.recordings.assign(label=labels_of(task, layout.recordings))
    table = table[table["label"].isin(task.classes)]
    return [(file, label, group, None)
            for file, label, group in table[["source_file", "label", "group"]].itertuples(index=False)]


def _breaths(task: BenchmarkTask, layout: Layout) -> Wanted:
    own = layout.annotations.merge(layout.recordings[["source_file", "group"]], on="source_file")
    own = own[own["state"].isin(task.classes) & (own["end_s"] - own["start_s"] >= _SHORTEST_BREATH_S)]
    columns = own[["source_file", "state", "group", "start_s", "end_s"]]
    return [(file, label, group, (start, end)) for file, label, group, start, end in columns.itertuples(index=False)]


def _facts(root: Path, path: Path) -> tuple[str, float, str]:
    """Hash of the samples and their length in s, or why the file cannot be used."""
    if fault := entry_checks.path_fault(root, path):
        return "", 0.0, fault.reason
    try:
        sound = sound_files.read(path)
        return sound.recording_id, sound.seconds, ""
    except sound_files.AudioError as error:
        return "", 0.0, error.reason


def table(kept: Sequence[Case], parts: Mapping[Case, str]) -> pd.DataFrame:
    """recording_id, unit_id, group_id, label, source and part of the cases."""
    rows = [(case.recording_id, case.name, case.group, case.label, "", parts.get(case)) for case in kept]
    columns = ["recording_id", "unit_id", "group_id", "label", "source", "part"]
    return pd.DataFrame(rows, columns=columns).astype({"recording_id": "string", "group_id": "string"})
