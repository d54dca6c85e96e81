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
from heartml.core.tasks import Assignment, parent_of, resolve
from heartml.data.splitting import within
from heartml.data.splitting.assign import assign_folds
from heartml.data.splitting.published import read_published
from heartml.data.splitting.summary import describe, describe_rare, missing_class_warnings, session_warnings
from heartml.data.splitting.units import label_units, owners, without_rare
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
        every = label_units(recordings, groups, assignment)
        units = without_rare(every, assignment, params.validate_.min_class_groups)
        parent = _parent(assignment, units, recordings, groups)
        own = params.split.for_task(task_name if parent is None else parent[0].name)
        published = read_published(own.published) if own.published else None
        if parent is None:
            whole = assign_folds(units, own, params.seed, published)
        else:
            whole = within.assign_within(units, parent[1], own, params.seed, published)
        check_folds(whole, owners(recordings, groups))
        folds = labelled(whole)
        files.write_parquet(paths.folds(task_name), schema.conform(whole, schema.FOLDS, "folds"))
        log.add(f"{len(recordings)} recordings in")
        log.add(f"{len(folds)} with a label for {task_name} out")
        for words in describe_rare(every, units, assignment.task):
            log.add(words)
        if parent is not None:
            log.add(within.describe_context(whole, parent[0].name))
        if published is not None:
            left_out = units["unit_id"].nunique() - folds["unit_id"].nunique()
            log.add(f"published test part, {left_out} units left out because their group is held out")
        for words in [describe(folds, assignment.task), *missing_class_warnings(folds, assignment.task),
                      *session_warnings(folds, recordings)]:
            log.add(words)


def _parent(assignment: Assignment, units: pd.DataFrame, recordings: pd.DataFrame, groups: pd.DataFrame
            ) -> tuple[Assignment, pd.DataFrame] | None:
    """The task whose parts this one takes, and its units; `None` where it has none, or that lacks some of `units`."""
    parent = parent_of(assignment)
    if parent is None or schema.label_column(parent.task.label) not in recordings:
        return None
    found = label_units(recordings, groups, parent)
    return (parent, found) if within.covers(found, units) else None
