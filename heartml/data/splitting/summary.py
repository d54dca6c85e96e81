"""What a split came to, in words for the log: sizes of the parts, and warnings."""

import pandas as pd

from heartml.core import schema
from heartml.core.folds import TEST, crossing, fold_names
from heartml.core.tasks import Task


def torn_sessions(folds: pd.DataFrame, recordings: pd.DataFrame) -> list[str]:
    """A warning where recordings of one session stand in several parts: one room, sensor and day."""
    if schema.SESSION not in recordings:
        return []
    there, torn = crossing(folds.merge(recordings[["recording_id", schema.SESSION]], on="recording_id"), schema.SESSION)
    return [f"warning: {torn} of {there} sessions stand in several parts, with different people"] if torn else []


def describe(folds: pd.DataFrame, task: Task) -> str:
    """`Present/Unknown/Absent: test 16/6/62 in 77 groups, fold 0 13/5/49 in 64 groups, ...`, counting units."""
    words = []
    for part in [TEST, *fold_names(folds)]:
        own = folds[folds["part"] == part]
        counts = own.drop_duplicates("unit_id")["label"].value_counts()
        name = part if part == TEST else f"fold {part}"
        sizes = "/".join(str(counts.get(c, 0)) for c in task.classes)
        words.append(f"{name} {sizes} in {own['group_id'].nunique()} groups")
    return f"{'/'.join(task.classes)}: {', '.join(words)}"


def thin_classes(folds: pd.DataFrame, task: Task) -> list[str]:
    """A warning for each class that is missing from a part."""
    warnings = []
    for name in task.classes:
        if task.rare == "left out" and not (folds["label"] == name).any():
            continue
        present = set(folds.loc[folds["label"] == name, "part"])
        absent = [part for part in [TEST, *fold_names(folds)] if part not in present]
        if absent:
            groups = folds.loc[folds["label"] == name, "group_id"].nunique()
            warnings.append(f"warning: no {name} in {', '.join(absent)}: it has {groups} groups in all")
    return warnings
