"""Scores of a part: classes, coarse classes, subgroups, curves, calibration, and what is referred to a person."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from support.scored_units import FAST, TASK, draw_scored_units

from heartml.core.tasks import TASKS
from heartml.evaluation.assessment import PARTS, assess
from heartml.evaluation.coarse_classes import join_classes
from heartml.evaluation.parts import AssessedPart, AssessmentRules
from heartml.evaluation.selective import referral
from heartml.metrics import METRICS, scores
from heartml.metrics.scores import (
    LabelledPredictions,
    ScoresError,
    calibration_curve,
    coverage_curve,
    per_class,
    precision_recall_curves,
    roc_curves,
    subgroups,
)


def test_a_class_with_too_few_groups_is_not_a_number():
    few = draw_scored_units(60, groups=30)
    few = few.take((few.labels != 1) | (np.arange(60) < 20))
    found = per_class(few, 10, FAST, 0)
    assert found["Unknown"] == {"units": 7, "groups": 7, "estimable": False}
    assert found["Present"]["estimable"] and set(found["Present"]) >= {"recall", "precision", "auc"}


def test_ten_units_of_one_group_are_one_group():
    one = replace(draw_scored_units(60), groups=np.array(["g"] * 60))
    assert not any(entry["estimable"] for entry in per_class(one, 10, FAST, 0).values())


def test_subgroups_partition_the_units_and_keep_the_unknown():
    part = draw_scored_units(60)
    sex = ["Female"] * 40 + [None] * 12 + ["Male"] * 8
    found = subgroups(part, {"sex": sex}, TASK, 10, FAST, 0)["sex"]
    assert {value: entry["units"] for value, entry in found.items()} == {"Female": 40, "Male": 8, "not given": 12}
    assert not found["Male"]["estimable"] and "uar" not in found["Male"]
    alone = part.take(np.arange(60) < 40)
    assert found["Female"]["uar"]["value"] == METRICS["uar"].function(
        alone.labels, alone.probabilities, alone.decisions, alone.classes)


@pytest.mark.parametrize("task", [task for task in TASKS.values() if task.coarse_classes], ids=lambda task: task.name)
def test_a_view_has_every_class_once(task):
    for view in task.coarse_classes:
        assert sorted(one for joined in view.classes.values() for one in joined) == sorted(task.classes)


def test_a_view_joins_classes_and_changes_nothing_else():
    task = TASKS["sounds"]
    view, five = task.coarse_classes[0], draw_scored_units(classes=task.classes, seed=3)
    four = join_classes(five, view)
    name_of = {one: name for name, joined in view.classes.items() for one in joined}
    for numbers, joined in ((five.labels, four.labels), (five.decisions, four.decisions)):
        assert [name_of[task.classes[c]] for c in numbers] == [four.classes[c] for c in joined]
    assert four.probabilities.sum(axis=1) == pytest.approx(np.ones(len(four.labels)))
    extra = [task.classes.index(name) for name in view.classes["extra"]]
    assert four.probabilities[:, four.classes.index("extra")] == pytest.approx(five.probabilities[:, extra].sum(axis=1))
    assert (four.labels == four.decisions).mean() >= (five.labels == five.decisions).mean()


def test_a_task_with_a_view_is_scored_in_it_beside_the_floors():
    task = TASKS["sounds"]
    model, majority = (draw_scored_units(classes=task.classes, seed=seed) for seed in (0, 1))
    described = pd.DataFrame({"source": ["set_a"] * 60, "age_group": None, "sex": None})
    both = {part: AssessedPart(model, {"majority": majority}, described) for part in PARTS}
    found = assess(both, task,
                   AssessmentRules(FAST.model_copy(update={"baselines": ("majority",)}), 10,
                                   0))["views"]["four_classes"]
    for part in PARTS:
        seen = join_classes(both[part].scored, task.coarse_classes[0])
        assert found[part]["scores"]["accuracy"]["value"] == pytest.approx((seen.labels == seen.decisions).mean())
        assert set(found[part]["floors"]["majority"]) >= {"accuracy", "uar", "macro_auc"}
        assert found[part]["per_class"]["extra"]["units"] == (seen.labels == 1).sum()


def test_curves_equal_scikit_learn_and_start_and_end_where_they_must():
    from sklearn.metrics import auc, roc_auc_score

    part = draw_scored_units(150)
    curves, ends = roc_curves(part), precision_recall_curves(part)
    for c, name in enumerate(part.classes):
        curve = curves[curves["class"] == name]
        area = auc(curve["false_positive_rate"], curve["true_positive_rate"])
        assert area == pytest.approx(roc_auc_score(part.labels == c, part.probabilities[:, c]))
        recall = ends.loc[ends["class"] == name, "recall"]
        assert (recall.iloc[0], recall.iloc[-1]) == (0, 1)


def test_reliability_bins_add_up_to_the_calibration_error():
    others = draw_scored_units(150, seed=1).decisions       # not those of the likeliest class
    part = replace(draw_scored_units(150), decisions=others)
    after = calibration_curve(part).query("stage == 'after'")
    ece = (after["units"] * (after["confidence"] - after["accuracy"]).abs()).sum() / after["units"].sum()
    assert ece == pytest.approx(METRICS["ece"].function(part.labels, part.calibrated, part.decisions, part.classes))
    assert after["units"].sum() == 150


def test_abstaining_on_nothing_is_the_whole_part():
    part = draw_scored_units(150)
    last = coverage_curve(part, TASK, 10).iloc[-1]
    assert (last["coverage"], last["units"]) == (1, 150)
    assert last["accuracy"] == METRICS["accuracy"].function(
        part.labels, part.probabilities, part.decisions, part.classes)


def test_where_nothing_is_unsure_everything_is_decided():
    part = draw_scored_units(150, groups=60)
    found = referral(part, TASK, 0.0, 10, FAST, 0)
    assert found["referred"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert (found["units"], found["groups"], found["absent"]) == (150, 60, [])
    assert found["scores"]["uar"] == scores.task_scores(part, TASK, FAST, 0)["uar"]


def test_referring_everything_leaves_nothing_to_score():
    found = referral(draw_scored_units(150), TASK, 1.01, 10, FAST, 0)
    assert found["referred"]["value"] == 1 and found["units"] == 0 and not found["estimable"]
    assert "scores" not in found and found["absent"] == list(TASK.classes)
    assert all(of["referred"] == of["units"] for of in found["classes"].values())


def test_an_operating_point_lies_on_the_abstention_curve():
    part = draw_scored_units(200, groups=80)
    limit = float(np.sort(part.confidence)[60])      # 30 % lie below
    found, curve = referral(part, TASK, limit, 10, FAST, 0), coverage_curve(part, TASK, 10).set_index("coverage")
    assert found["referred"]["value"] == pytest.approx(0.3)
    assert found["referred"]["low"] < 0.3 < found["referred"]["high"]
    assert found["units"] == curve.loc[0.7, "units"] == 140
    assert found["scores"]["accuracy"]["value"] == pytest.approx(curve.loc[0.7, "accuracy"])
    assert sum(of["referred"] for of in found["classes"].values()) == 60


def test_a_label_outside_the_classes_is_named():
    table = pd.DataFrame({"unit_id": ["a"], "group_id": ["a"], "label": ["Loud"], "part": ["0"], "decision": ["Absent"],
                          **{f"{k}_{c}": [0.3] for k in "pc" for c in TASK.classes}})
    with pytest.raises(ScoresError, match="unit a: label 'Loud'"):
        LabelledPredictions.from_table(table, TASK.classes)
