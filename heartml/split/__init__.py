"""Stage `split`: a task's recordings become stratified, grouped folds and a held-out test part.

In: recordings (labels), the groups that validation joined over near-duplicates. Out: `folds.parquet` (schema.FOLDS).
A published split (a CSV of patient_id,part) takes the place of the draw for the test part. Where the task leaves rare
classes out (`Task.rare`), their units stand in no fold, and the log names them.
"""

import pandas as pd

from heartml.core import config, files, paths, schema
from heartml.core.config import SplitParams
from heartml.core.folds import TEST, check_folds, crossing, fold_names
from heartml.core.stage import StageError, stage
from heartml.core.tasks import Task, resolve
from heartml.split import draw
from heartml.split.published import read_published
from heartml.split.units import label_units, without_rare


def run(task_name: str) -> None:
    """Draw the folds of one task and write them."""
    params, assignment = config.load(), resolve(task_name)
    with stage("split", task=task_name) as log:
        recordings = pd.read_parquet(paths.RECORDINGS)
        groups = pd.read_parquet(paths.VALIDATION / "groups.parquet")
        labelled = label_units(recordings, groups, assignment)
        units = without_rare(labelled, assignment, params.validate_.min_class_groups)
        own = params.split.of(task_name)
        published = read_published(own.published) if own.published else None
        folds = assign_folds(units, own, params.seed, published)
        check_folds(folds, _owners(recordings, groups))
        files.write_parquet(paths.folds(task_name), schema.conform(folds, schema.FOLDS, "folds"))
        log.say(f"{len(recordings)} recordings in")
        log.say(f"{len(folds)} with a label for {task_name} out")
        for label, rare in labelled[~labelled["label"].isin(units["label"])].groupby("label"):
            log.say(f"{label} left out: {rare['unit_id'].nunique()} {assignment.task.unit}s, too few to estimate")
        if published is not None:
            left_out = units["unit_id"].nunique() - folds["unit_id"].nunique()
            log.say(f"published test part, {left_out} units left out because their group is held out")
        for words in [describe(folds, assignment.task), *thin_classes(folds, assignment.task),
                      *torn_sessions(folds, recordings)]:
            log.say(words)


def assign_folds(
    units: pd.DataFrame, params: SplitParams, seed: int, published: "pd.Series[str] | None" = None
) -> pd.DataFrame:
    """schema.FOLDS for the units of `label_units`; `published`: patient id -> train, validation or test.

    Raises:
        StageError: too few groups, or a patient that the published split does not know.
    """
    held_out = _draw_test(units, params, seed) if published is None else _published_test(units, published)
    return place(units, held_out, params, seed)


def place(units: pd.DataFrame, held_out: pd.DataFrame, params: SplitParams, seed: int) -> pd.DataFrame:
    """schema.FOLDS: the rows `held_out` as the test part, all of other groups in folds that are drawn.

    Raises:
        StageError: too few groups.
    """
    folds = [str(k) for k in range(params.folds)]
    others = units[~units["group_id"].isin(held_out["group_id"])]
    drawn = draw.draw(draw.group_table(others), dict.fromkeys(folds, 1 / params.folds), seed)
    placed = pd.concat([held_out.assign(part=TEST), others.assign(part=others["group_id"].map(drawn))]).sort_index()
    empty = [name for name in (*folds, TEST) if name not in set(placed["part"])]
    if empty:
        count = units["group_id"].nunique()
        raise StageError(f"{count} groups do not fill {len(folds)} folds and a test part (nothing in {empty[0]}): "
                         f"ingest more recordings, or lower `split.folds` in params.yaml.")
    return placed[list(schema.FOLDS)].astype("string")


def _draw_test(units: pd.DataFrame, params: SplitParams, seed: int) -> pd.DataFrame:
    """The held-out units: drawn before the folds, so that new data moves as few as possible in or out."""
    shares = {TEST: params.test_share, "rest": 1 - params.test_share}
    drawn = draw.draw(draw.group_table(units), shares, seed, held_out=TEST)
    return units[units["group_id"].map(drawn) == TEST]


def _published_test(units: pd.DataFrame, published: "pd.Series[str]") -> pd.DataFrame:
    """The held-out units of a published split; ids there may lack the data set's name."""
    own_id = units["patient_id"].str.partition("-")[2]
    part = units["patient_id"].map(published).fillna(own_id.map(published))
    if part.isna().any():
        lost = sorted(units.loc[part.isna(), "patient_id"].fillna("(no patient id)").unique())
        raise StageError(f"{len(lost)} patients are not in the published split: {', '.join(lost[:5])}. "
                         "Add them to the file (part `train`), or set `split.published` to null.")
    return units[part == TEST]


def _owners(recordings: pd.DataFrame, groups: pd.DataFrame) -> pd.DataFrame:
    """recording_id, and what must not cross parts: patients, and groups before and after joining."""
    before = recordings[["recording_id", "patient_id", "group_id"]]
    return before.merge(groups.rename(columns={"group_id": "joined_group_id"}), on="recording_id", validate="1:1")


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
