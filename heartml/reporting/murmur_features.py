"""One page about all features of a murmur: their classes, which of them are estimable, and scores beside baselines.

In: `metrics.json` of the murmur task and of its descriptors, where they were evaluated, and the counts of every class
in the data. Out: the text of the page. No stage writes it, because a stage may not read the outputs of other tasks. The
retraining flow writes it when the stages of all tasks are up to date.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from heartml.core import config, paths, schema, tasks
from heartml.core.tasks import GROUPS, Assignment
from heartml.evaluation.assessment import HELD_OUT, OUT_OF_FOLD, best_numbers
from heartml.reporting.task_report.tables import Table, TableLine, table

Json = Mapping[str, Any]
FEATURES = ("murmur", *GROUPS["descriptors"])
METRICS = ("macro_f1", "uar")
PARTS = {OUT_OF_FOLD: "floors_out_of_fold", HELD_OUT: "floors"}


@dataclass(frozen=True)
class FeatureSummary:
    """One feature: its classes with patients and groups, and its evaluation, if there is one.

    Attributes:
        counts: class -> patients and groups in all the data, in the task's order.
        estimable: the classes with enough groups.
        found: `metrics.json`, empty where nothing was evaluated.
        note: the reason for that, in words.
    """

    title: str
    counts: Mapping[str, tuple[int, int]]
    estimable: tuple[str, ...]
    found: Json
    note: str


def render(datasets: str, evaluations: Mapping[str, Json]) -> str:
    """The whole page as HTML.

    Args:
        datasets: as tasks name them: `circor`, or several joined with `+`.
        evaluations: full name of a task -> its `metrics.json`.
    """
    from heartml.reporting.environment import environment
    from heartml.reporting.task_report.headline import TITLES

    min_groups = config.load().validate_.min_class_groups
    features = gather(datasets, evaluations, min_groups)
    return environment().get_template("description.html.jinja").render(
        datasets=datasets, features=features, min_groups=min_groups, titles=TITLES,
        out_of_fold=scores(features, OUT_OF_FOLD), held_out=scores(features, HELD_OUT),
        estimable=sum(len(feature.estimable) > 1 for feature in features),
        confidence=next((100 * f.found["confidence"] for f in features if f.found), None),
    )


def gather(datasets: str, evaluations: Mapping[str, Json], min_groups: int) -> list[FeatureSummary]:
    """Every feature that the data have a label for, the murmur itself first."""
    recordings = pd.read_parquet(paths.RECORDINGS)
    groups = pd.read_parquet(paths.VALIDATION / "groups.parquet", columns=["recording_id", "group_id"])
    joined = recordings.drop(columns="group_id").merge(groups, on="recording_id", validate="1:1")
    named = [tasks.resolve(f"{datasets}-{name}") for name in FEATURES]
    return [_feature(assignment, joined, evaluations.get(assignment.name, {}), min_groups) for assignment in named
            if schema.label_column(assignment.task.label) in recordings]


def _feature(assignment: Assignment, recordings: pd.DataFrame, found: Json, min_groups: int) -> FeatureSummary:
    task, column = assignment.task, schema.label_column(assignment.task.label)
    own = recordings[recordings["dataset"].isin(assignment.datasets)]
    of_class = {name: own[own[column] == name] for name in task.classes}
    counts = {name: (rows["patient_id"].nunique(), rows["group_id"].nunique()) for name, rows in of_class.items()}
    estimable = tasks.estimable_classes(task, {name: n for name, (_, n) in counts.items()}, min_groups)
    note = "" if found else f"not evaluated: {assignment.name} is not among the trained tasks"
    if len(estimable) < 2:
        note = f"not estimable: fewer than two classes have {min_groups} groups"
    return FeatureSummary(task.name.replace("_", " ").capitalize(), counts, estimable, found, note)


def scores(features: Sequence[FeatureSummary], part: str) -> Table:
    """Macro F1 and mean recall of each feature on one part; the line below has the best baseline for each metric."""
    lines: list[tuple[str, str, tuple[str, ...], Json | None]] = []
    notes: dict[str, str] = {}
    for feature in features:
        found = feature.found
        if not found:
            lines.append((feature.title, "other", ("",), None))
            notes[feature.title] = feature.note
            continue
        counts, best = found["counts"][part], best_numbers(found[PARTS[part]], METRICS)
        lines.append((feature.title, "model", (f"{counts['units']} ({counts['groups']})",), found[part]))
        if best:
            lines.append((f"{feature.title}, best baseline", "baseline", ("",), best))
    made = table("Features", "Feature", ("Patients (groups)",), METRICS, lines, limits=(0.0, 1.0))
    rows = [TableLine(r.name, r.kind, r.facts, r.cells, notes.get(r.name, r.note)) for r in made.rows]
    return Table(made.caption, made.first, made.facts, made.columns, tuple(rows))
