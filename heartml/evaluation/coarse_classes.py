"""A task scored with some of its classes joined. Labels, probabilities and decisions are joined; nothing is refitted.

In this way the model can be compared with published studies that do not separate these classes. It is still the same
model at the same operating point. In `metrics.json` the results are under the key `views`.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from heartml.core.tasks import CoarseClasses, Task
from heartml.evaluation.parts import AssessedPart, AssessmentRules
from heartml.metrics.scores import Floats, LabelledPredictions, metric_intervals, per_class, task_metrics, task_scores


def join_classes(scored: LabelledPredictions, view: CoarseClasses) -> LabelledPredictions:
    """The same units with the coarse classes of `view`: probabilities [n, k] are summed, labels and decisions mapped.

    Returns:
        Predictions of the same n units, probabilities [n, number of coarse classes].
    """
    names = tuple(view.classes)
    joined = [[scored.classes.index(one) for one in view.classes[name]] for name in names]
    new_of = np.empty(len(scored.classes), np.int64)
    for number, old in enumerate(joined):
        new_of[old] = number

    def summed(values: Floats) -> Floats:
        return np.stack([values[:, old].sum(axis=1) for old in joined], axis=1)

    return replace(scored, labels=new_of[scored.labels], decisions=new_of[scored.decisions], classes=names,
                   probabilities=summed(scored.probabilities), calibrated=summed(scored.calibrated))


def coarse_classes(parts: Mapping[str, AssessedPart], task: Task, rules: AssessmentRules) -> dict[str, Any]:
    """Name of a coarser task -> its title, its classes, and for each part what `_assess_coarse` returns."""
    return {view.name: {"title": view.title, "classes": list(view.classes),
                        **{name: _assess_coarse(part, view, task, rules) for name, part in parts.items()}}
            for view in task.coarse_classes}


def _assess_coarse(
    part: AssessedPart, view: CoarseClasses, task: Task, rules: AssessmentRules
) -> dict[str, Any]:
    """Counts, scores, baselines (`floors`) and scores by class, as for the task itself."""
    scored, params, seed = join_classes(part.scored, view), rules.params, rules.seed
    beside = {name: join_classes(baseline, view) for name, baseline in part.baselines.items()}
    return {
        "counts": scored.counts(), "scores": task_scores(scored, task, params, seed),
        "floors": {name: metric_intervals(task_metrics(task), other, other.probabilities, params, seed)
                   for name, other in beside.items()},
        "per_class": per_class(scored, rules.min_groups, params, seed),
    }
