"""Stage `split`: a task's recordings become stratified, grouped folds and a held-out test part.

In: recordings (labels), the groups that validation joined over near-duplicates. Out: `folds.parquet` (schema.FOLDS).
A published split (a CSV of patient_id,part) takes the place of the draw for the test part. Where the task leaves rare
classes out (`Task.rare`), their units stand in no fold, and the log names them.
"""

import pandas as pd

from heartml.core import config, paths, schema
from heartml.core.folds import check_folds
from heartml.core.stage import stage
from heartml.core.system import files
from heartml.core.tasks import resolve
from heartml.data.splitting.assign import assign_folds
from heartml.data.splitting.published import read_published
from heartml.data.splitting.summary import describe, thin_classes, torn_sessions
from heartml.data.splitting.units import label_units, without_rare


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


def _owners(recordings: pd.DataFrame, groups: pd.DataFrame) -> pd.DataFrame:
    """recording_id, and what must not cross parts: patients, and groups before and after joining."""
    before = recordings[["recording_id", "patient_id", "group_id"]]
    return before.merge(groups.rename(columns={"group_id": "joined_group_id"}), on="recording_id", validate="1:1")


