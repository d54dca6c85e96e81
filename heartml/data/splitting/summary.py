"""A split in words, for the log: the sizes of its parts, and warnings.

In: schema.FOLDS, one row a recording. Out: lines of text.
"""

import pandas as pd

from heartml.core import schema
from heartml.core.folds import TEST, count_crossing, fold_names
from heartml.core.tasks import Task


def session_warnings(folds: pd.DataFrame, recordings: pd.DataFrame) -> list[str]:
    """A warning where recordings of one session (one room, sensor and day) are in several parts.

    Args:
        folds: schema.FOLDS.
        recordings: recording_id, and `schema.SESSION` where sessions are known.

    >>> folds = pd.DataFrame({"recording_id": ["r1", "r2", "r3"], "part": ["0", "test", "test"]})
    >>> recordings = pd.DataFrame({"recording_id": ["r1", "r2", "r3"], "session_id": ["monday", "monday", "friday"]})
    >>> session_warnings(folds, recordings)
    ['warning: 1 of 2 sessions stand in several parts, with different people']
    """
    if schema.SESSION not in recordings:
        return []
    sessions = folds.merge(recordings[["recording_id", schema.SESSION]], on="recording_id")
    count, split = count_crossing(sessions, schema.SESSION)
    return [f"warning: {split} of {count} sessions stand in several parts, with different people"] if split else []


def describe(folds: pd.DataFrame, task: Task) -> str:
    """The number of units of each class in each part, and the number of its groups.

    For instance `Present/Unknown/Absent: test 16/6/62 in 77 groups, fold 0 13/5/49 in 64 groups, ...`.
    """
    words = []
    for part in [TEST, *fold_names(folds)]:
        own = folds[folds["part"] == part]
        counts = own.drop_duplicates("unit_id")["label"].value_counts()
        name = part if part == TEST else f"fold {part}"
        sizes = "/".join(str(counts.get(c, 0)) for c in task.classes)
        words.append(f"{name} {sizes} in {own['group_id'].nunique()} groups")
    return f"{'/'.join(task.classes)}: {', '.join(words)}"


def describe_context(folds: pd.DataFrame, parent: str) -> str:
    """The draw and its context in words, for the log.

    >>> table = pd.DataFrame({"recording_id": ["r1", "r2"], "unit_id": ["a", "b"], "label": ["Low", None],
    ...                       "part": ["0", "0"]})
    >>> describe_context(table, "circor-murmur")
    'parts as in circor-murmur, with 1 further recordings of 1 patients that a network may hear and nothing scores'
    """
    context = folds[folds["label"].isna()]
    return (f"parts as in {parent}, with {len(context)} further recordings of {context['unit_id'].nunique()} patients "
            "that a network may hear and nothing scores")


def describe_rare(labelled: pd.DataFrame, units: pd.DataFrame, task: Task) -> list[str]:
    """A line for each class of `labelled` that `units` lacks, since the task leaves rare classes out.

    Args:
        labelled: unit_id and label, of all units with a label.
        units: the same, without rare classes.
        task: the task.
    """
    left_out = labelled[~labelled["label"].isin(units["label"])]
    return [f"{label} left out: {rare['unit_id'].nunique()} {task.unit}s, too few to estimate"
            for label, rare in left_out.groupby("label")]


def missing_class_warnings(folds: pd.DataFrame, task: Task) -> list[str]:
    """A warning for each class that is missing from a part; none for a class that the task leaves out as rare."""
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
