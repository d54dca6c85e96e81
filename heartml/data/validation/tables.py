"""The tables that expectations are checked against. Pure, except for `measure`, which reads one recording.

In: recordings (schema.RECORDINGS and label columns), the quality of each signal, pairs of near-duplicates. Out: a table
for each thing that is checked (signals, patients, pairs, classes ...), with the columns that let a person find a row.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields

import pandas as pd

from heartml.audio import near_duplicates, quality, sound_files
from heartml.audio.quality import Quality
from heartml.core import paths, schema
from heartml.core.config import Params
from heartml.core.task_definition import HEART
from heartml.core.tasks import LABELS, TASKS, Task
from heartml.data import organs, persons

NAME_COLUMNS = ("recording_id", "patient_id", "source_file")     # the columns by which a person finds a recording
OwnTasks = Mapping[str, tuple[Task, ...]]      # data set -> the tasks that it declares
NO_OWN_TASKS: OwnTasks = {}
ROUNDING_S = 0.1        # publishers round the times of heart states


@dataclass(frozen=True)
class Measured:
    """One recording as it is on disk: its quality, or the fault that prevents measuring it."""

    recording_id: str
    fault: str | None
    quality: Quality | None


def measure(recording_id: str) -> Measured:
    """Decode one recording of the data set, check its samples against its id, measure its quality.

    Nothing is raised: what is wrong with the file is in `fault`.
    """
    path = paths.audio(recording_id)
    try:
        samples = sound_files.read(path)
    except sound_files.AudioError as error:
        return Measured(recording_id, f"{error.reason}: {path.as_posix()}: {error.detail}", None)
    if samples.recording_id != recording_id:
        return Measured(recording_id, f"altered: its samples are those of {samples.recording_id[:12]}", None)
    return Measured(recording_id, None, quality.measure(samples.floats, samples.sample_rate_hz))


def signal_table(measured: Iterable[Measured]) -> pd.DataFrame:
    """One row a recording: recording_id, `fault` (null: readable), the fields of `Quality` (null with a fault)."""
    columns = [field.name for field in fields(Quality)]
    rows = [(m.recording_id, m.fault, *(asdict(m.quality).values() if m.quality else [None] * len(columns)))
            for m in measured]
    table = pd.DataFrame(rows, columns=["recording_id", "fault", *columns])
    return table.astype({"recording_id": "string", "fault": "string", **dict.fromkeys(columns, "float64")})


def joined_groups(recordings: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """The group of each recording after the groups of near-duplicates are joined.

    Args:
        recordings: recording_id (each once) and group_id.
        pairs: recording_id_a, recording_id_b.

    Returns:
        recording_id, group_id, in the order of recording_id. Joined groups have the smallest of their names.

    >>> recordings = pd.DataFrame({"recording_id": ["r1", "r2", "r3"], "group_id": ["c", "b", "a"]})
    >>> pairs = pd.DataFrame({"recording_id_a": ["r1"], "recording_id_b": ["r2"]})
    >>> joined_groups(recordings, pairs)["group_id"].tolist()
    ['b', 'b', 'a']
    """
    position = pd.Series(range(len(recordings)), index=recordings["recording_id"])
    edges = pd.DataFrame({side: pairs[f"recording_id_{name}"].map(position) for side, name in (("i", "a"), ("j", "b"))})
    joined = near_duplicates.merge_groups(list(recordings["group_id"].fillna("none")), edges)
    table = pd.DataFrame({"recording_id": recordings["recording_id"], "group_id": joined})
    return table.astype("string").sort_values("recording_id", ignore_index=True)


def pair_table(
    recordings: pd.DataFrame, pairs: pd.DataFrame, same_audio: float, own: OwnTasks = NO_OWN_TASKS
) -> pd.DataFrame:
    """One row a pair of near-duplicates: both recordings, the groups that it joins, labels that contradict each other.

    Args:
        recordings: schema.RECORDINGS and label columns, each recording once.
        pairs: recording_id_a, recording_id_b, correlation.
        same_audio: with at least this correlation two recordings are the same audio and cannot have two labels.

    Returns:
        `NAME_COLUMNS`, the same with the prefix `other_`, correlation, joins ("pascal-103 + pascal-146" where groups
        differ), contradiction (two labels, the same audio), ambiguity (two labels, nearly the same audio).
    """
    compared = _compared_labels(recordings, own)
    known = recordings[[*NAME_COLUMNS, "group_id", *compared]].copy()
    known["place"] = recordings["dataset"] + " " + recordings["source_file"] + " " + recordings["recording_id"]
    turned = pairs.rename(columns={"recording_id_a": "recording_id_b", "recording_id_b": "recording_id_a"})
    table = pd.concat([pairs, turned]).merge(known, left_on="recording_id_a", right_on="recording_id").merge(
        known.add_prefix("other_"), left_on="recording_id_b", right_on="other_recording_id"
    )
    table = table[table["place"] < table["other_place"]]         # each pair once, the first file first
    same = table["correlation"] >= same_audio
    words = _different_labels(table, compared)
    apart = table["group_id"] != table["other_group_id"]
    joins = (table["group_id"] + " + " + table["other_group_id"]).where(apart).astype("string")
    named = table[[*NAME_COLUMNS, *(f"other_{c}" for c in NAME_COLUMNS), "correlation"]]
    result = named.assign(joins=joins, contradiction=words.where(same), ambiguity=words.where(~same))
    return result.sort_values(["source_file", "other_source_file"], ignore_index=True)


def _compared_labels(recordings: pd.DataFrame, own: OwnTasks) -> list[str]:
    """Label columns that are about one recording, not only about its patient."""
    every = (*TASKS.values(), *(task for tasks in own.values() for task in tasks))
    names = {schema.label_column(task.recording_label or task.label) for task in every}
    return sorted(names & set(recordings))


def _different_labels(table: pd.DataFrame, columns: list[str]) -> "pd.Series[str]":
    """For each pair the labels that differ, as `label_sound: murmur / normal`; null where none does."""
    words = pd.Series(pd.NA, index=table.index, dtype="string")
    for column in columns:
        first, second = table[column], table[f"other_{column}"]
        differs = (first.notna() & second.notna() & (first != second)).fillna(False).astype(bool)
        words = words.where(~differs, column + ": " + first + " / " + second)
    return words


def patient_table(recordings: pd.DataFrame, own: OwnTasks = NO_OWN_TASKS) -> pd.DataFrame:
    """One row a patient: patient_id, dataset, number of recordings and groups, a source file, differing labels.

    A label of a task whose unit is the patient can have one value only: more are in words in `contradiction`. A label
    of a recording may differ within a patient: its values are in words in `several_labels`. Both are null otherwise.
    """
    known = recordings.dropna(subset=["patient_id"])
    table = known.groupby("patient_id").agg(
        dataset=("dataset", "first"), recordings=("recording_id", "size"), groups=("group_id", "nunique"),
        source_file=("source_file", "min"),
    )
    for column, unit in (("contradiction", "patient"), ("several_labels", "recording")):
        found = [_several_values(of, _label_columns_of(unit, own.get(str(dataset), ()), of))
                 for dataset, of in known.groupby("dataset")]
        table[column] = pd.concat(found).reindex(table.index) if found else pd.Series(dtype="string")
    return table.reset_index()


def _label_columns_of(unit: str, own: Iterable[Task], recordings: pd.DataFrame) -> list[str]:
    """The label columns of one data set's tasks, published and its own, whose unit is `unit`, sorted."""
    return sorted({schema.label_column(t.label) for t in (*TASKS.values(), *own) if t.unit == unit} & set(recordings))


def session_table(recordings: pd.DataFrame, groups: pd.DataFrame) -> pd.DataFrame:
    """One row a session: session_id, dataset, number of recordings and of groups after joining.

    It is empty where no data set tells sessions.
    """
    if schema.SESSION not in recordings:
        return pd.DataFrame(columns=[schema.SESSION, "dataset", "recordings", "groups"]).astype({"groups": "int64"})
    known = recordings.dropna(subset=[schema.SESSION]).drop(columns="group_id").merge(groups, on="recording_id")
    table = known.groupby(schema.SESSION).agg(
        dataset=("dataset", "first"), recordings=("recording_id", "size"), groups=("group_id", "nunique"))
    return table.reset_index()


def _several_values(known: pd.DataFrame, columns: list[str]) -> "pd.Series[str]":
    """patient_id -> `label_sound: extrastole, normal`, for patients with more than one value in a column."""
    found: dict[str, str] = {}
    for column in columns:
        values = known.dropna(subset=[column]).groupby("patient_id")[column].unique()
        found |= {str(p): f"{column}: {', '.join(sorted(v))}" for p, v in values.items() if len(v) > 1}
    return pd.Series(found, dtype="string")


def label_columns(recordings: pd.DataFrame) -> list[str]:
    """The columns that hold labels, in the order of their names."""
    return sorted(column for column in map(str, recordings) if column.startswith(schema.LABEL_PREFIX))


def class_table(recordings: pd.DataFrame, groups: pd.DataFrame, own: OwnTasks = NO_OWN_TASKS) -> pd.DataFrame:
    """One row for each value of each label in each data set: number of recordings, patients and groups after joining.

    The classes of a task have a row even where no recording has them.

    Args:
        recordings: schema.RECORDINGS and label columns, each recording once.
        groups: recording_id and group_id after joining.
        own: the tasks that data sets declare.

    Returns:
        dataset, label, value, recordings, patients, groups.
    """
    known = recordings.drop(columns="group_id").merge(groups, on="recording_id", validate="1:1")
    rows = []
    for dataset, rows_of in known.groupby("dataset"):
        declared = {task.label: task.classes for task in own.get(str(dataset), ())}
        for column in (c for c in label_columns(rows_of) if rows_of[c].notna().any()):
            label = column.removeprefix(schema.LABEL_PREFIX)
            of_task = LABELS.get(label, declared.get(label, ()))
            for value in [*of_task, *sorted(set(rows_of[column].dropna()) - {*of_task})]:
                has = rows_of[rows_of[column] == value]
                rows.append((dataset, label, value, len(has), has["patient_id"].nunique(),
                             has["group_id"].nunique()))
    return pd.DataFrame(rows, columns=["dataset", "label", "value", "recordings", "patients", "groups"])


def classes_to_warn_of(classes: pd.DataFrame) -> pd.DataFrame:
    """The rows of `class_table` whose rare classes need a warning.

    A task that leaves rare classes out names them itself, so its labels are not among them.
    """
    left_out = {task.label for task in TASKS.values() if task.rare == "left out"}
    return classes[~classes["label"].isin(left_out)].reset_index(drop=True)


def suite_tables(
    recordings: pd.DataFrame, annotations: pd.DataFrame, quarantine: pd.DataFrame, signal: pd.DataFrame,
    pairs: pd.DataFrame, groups: pd.DataFrame, params: Params, own: OwnTasks = NO_OWN_TASKS,
) -> dict[str, pd.DataFrame]:
    """The table of each suite by the suite's name, and `labels`: every class of every label.

    `numbered` is there only where a recording without a person has a numbered neighbour, `breaths` only where breaths
    are marked, and `lung_signals`, of which `signals` then has none, only where recordings are about lungs.

    Args:
        recordings: schema.RECORDINGS and label columns.
        annotations: schema.ANNOTATIONS.
        quarantine: schema.QUARANTINE.
        signal: of `signal_table`.
        pairs: recording_id_a, recording_id_b, correlation.
        groups: of `joined_groups`.
        params: `ingest.duplicate_correlation` says which pairs are the same audio.
        own: the tasks that data sets declare.
    """
    unique = recordings.drop_duplicates("recording_id")
    labels = class_table(unique, groups, own)
    ends = annotations.merge(unique[[*NAME_COLUMNS, "seconds"]], on="recording_id", how="left")
    ends = ends.assign(recording_end_s=ends["seconds"] + ROUNDING_S).drop(columns="seconds")
    of_heart = schema.of_heart(ends)
    numbered = persons.numbered_runs(unique, groups)
    signals = unique[[*NAME_COLUMNS, "source"]].merge(signal, on="recording_id")
    declared = [task for tasks in own.values() for task in tasks]
    of_lungs = signals["recording_id"].isin(
        unique.loc[organs.of_recordings(unique, declared) != HEART, "recording_id"])
    return {
        "recordings": recordings,
        "annotations": of_heart.reset_index(drop=True),
        "signals": signals[~of_lungs].reset_index(drop=True),
        **({"lung_signals": signals[of_lungs].reset_index(drop=True)} if of_lungs.any() else {}),
        "pairs": pair_table(unique, pairs, params.ingest.duplicate_correlation, own),
        "patients": patient_table(recordings, own),
        "sessions": session_table(unique, groups),
        "labels": labels,
        "classes": classes_to_warn_of(labels),
        "quarantine": quarantine,
        **({"numbered": numbered} if len(numbered) else {}),
        **({"breaths": ends.drop(index=of_heart.index).reset_index(drop=True)} if len(of_heart) < len(ends) else {}),
    }
