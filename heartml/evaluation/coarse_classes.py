"""Coarser views of a task: classes joined, probabilities and decisions joined with them. Nothing is fitted again.

A published study that tells fewer classes apart is compared on its own terms in this way, at the operating point of the
one model that serves.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from heartml.core.tasks import CoarseClasses, Task
from heartml.metrics.scores import Floats, Scored, intervals, per_class, scores, task_metrics

if TYPE_CHECKING:
    from heartml.evaluation.assessment import AssessedPart, AssessmentRules


def join_classes(scored: Scored, view: CoarseClasses) -> Scored:
    """The same units with the view's classes: probabilities [n, k] are summed, labels and decisions renamed."""
    names = tuple(view.classes)
    joined = [[scored.classes.index(one) for one in view.classes[name]] for name in names]
    new_of = np.empty(len(scored.classes), np.int64)
    for number, old in enumerate(joined):
        new_of[old] = number

    def summed(values: Floats) -> Floats:
        return np.stack([values[:, old].sum(axis=1) for old in joined], axis=1)

    return replace(scored, labels=new_of[scored.labels], decisions=new_of[scored.decisions], classes=names,
                   probabilities=summed(scored.probabilities), calibrated=summed(scored.calibrated))


def coarse_classes(parts: Mapping[str, "AssessedPart"], task: Task, rules: "AssessmentRules") -> dict[str, Any]:
    """view -> its title, its classes, and for each part counts, scores, floors and classes, as for the task itself."""
    return {view.name: {"title": view.title, "classes": list(view.classes),
                        **{name: _seen(part, view, task, rules) for name, part in parts.items()}}
            for view in task.views}


def _seen(part: "AssessedPart", view: CoarseClasses, task: Task, rules: "AssessmentRules") -> dict[str, Any]:
    scored, params, seed = join_classes(part.scored, view), rules.params, rules.seed
    floors = {name: join_classes(floor, view) for name, floor in part.floors.items()}
    return {
        "counts": scored.counts(), "scores": scores(scored, task, params, seed),
        "floors": {name: intervals(task_metrics(task), f, f.probabilities, params, seed) for name, f in floors.items()},
        "per_class": per_class(scored, rules.min_groups, params, seed),
    }
