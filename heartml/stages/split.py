"""Stage `split`: a task's recordings become stratified, grouped folds and a held-out test part.

In: recordings with labels, and the groups after validation joined near-duplicates. Out: `folds.parquet`
(schema.FOLDS). A published split (a CSV of patients, recordings or sources and their part) replaces the draw of the
test part. Where the task leaves rare classes out (`Task.rare`), their units are in no fold, and the log names them.
A task within another one (`Task.within`) has the other one's parts, see `heartml.data.splitting.within`.
"""

import pandas as pd

from heartml.core import config, paths, schema
from heartml.core.folds import check_folds, labelled
from heartml.core.stage import stage
from heartml.core.system import files
from heartml.core.tasks import resolve
from heartml.data.splitting.summary import (
    describe,
    describe_context,
    describe_rare,
    missing_class_warnings,
    session_warnings,
)
from heartml.data.splitting.task_draw import draw
from heartml.data.splitting.units import owners
from heartml.data.validation.blocked import refuse_blocked


def run(task_name: str) -> None:
    """Draw the folds of one task and write them.

    Raises:
        FoldsError: a group, a patient or near-duplicate audio would be in two parts.
        StageError: there are too few groups for the folds.
        NotFit: validation found errors in a data set of the task.
    """
    params, assignment = config.load(), resolve(task_name)
    with stage("split", task=task_name) as log:
        validation = files.read_json(paths.VALIDATION / "validation.json")
        refuse_blocked(task_name, assignment.datasets, validation, paths.VALIDATION / "index.html")
        recordings = pd.read_parquet(paths.RECORDINGS)
        groups = pd.read_parquet(paths.VALIDATION / "groups.parquet")
        drawn = draw(assignment, recordings, groups, params)
        check_folds(drawn.folds, owners(recordings, groups))
        folds = labelled(drawn.folds)
        files.write_parquet(paths.folds(task_name), schema.conform(drawn.folds, schema.FOLDS, "folds"))
        log.add(f"{len(recordings)} recordings in")
        log.add(f"{len(folds)} with a label for {task_name} out")
        for words in describe_rare(drawn.labelled, drawn.units, assignment.task):
            log.add(words)
        if drawn.parent is not None:
            log.add(describe_context(drawn.folds, drawn.parent))
        if drawn.published:
            left_out = drawn.units["unit_id"].nunique() - folds["unit_id"].nunique()
            log.add(f"published test part, {left_out} units left out because their group is held out")
        for words in [describe(folds, assignment.task), *missing_class_warnings(folds, assignment.task),
                      *session_warnings(folds, recordings)]:
            log.add(words)
