"""Baselines: what a trivial predictor scores, and that it sees no label of the part that it predicts."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from support.scored_units import TASK, draw_labelled_recordings

from heartml.core.tasks import TASKS
from heartml.evaluation import baselines
from heartml.evaluation.assessment import (
    best_baseline,
    best_numbers,
)
from heartml.metrics import METRICS


def test_a_majority_floor_has_a_mean_recall_of_one_over_k():
    table, units = draw_labelled_recordings()
    p, decisions = baselines.predict("majority", table, units, TASK)
    assert METRICS["uar"].function(units["label"].to_numpy(), p, decisions, TASK.classes) == pytest.approx(1 / 3)
    assert np.allclose(p.sum(axis=1), 1)


@pytest.mark.parametrize(("floor", "knows"), [("source", "Present"), ("nuisance", "Unknown"), ("metadata", None)])
def test_a_floor_knows_what_its_columns_give_away_and_nothing_else(floor, knows):
    table, units = draw_labelled_recordings()
    p, _ = baselines.predict(floor, table, units, TASK)
    for c, name in enumerate(TASK.classes):
        auc = METRICS["macro_auc"].function((units["label"] == c).to_numpy(int), np.c_[1 - p[:, c], p[:, c]],
                                            np.zeros(len(units), int), ("rest", name))
        assert (auc > 0.95) if name == knows else (auc < 0.9)


@pytest.mark.parametrize("part", ["test", "1"])
@pytest.mark.parametrize("floor", baselines.BASELINES)
def test_no_floor_sees_the_labels_of_the_part_that_it_predicts(floor, part):
    table, units = draw_labelled_recordings()
    swapped = units.assign(label=np.where(units["part"] == part, (units["label"] + 1) % 3, units["label"]))
    here = (units["part"] == part).to_numpy()
    before, after = (baselines.predict(floor, table, u, TASK) for u in (units, swapped))
    assert np.array_equal(before[0][here], after[0][here])
    assert np.array_equal(before[1][here], after[1][here])


def test_what_a_task_predicts_is_no_metadata_of_it():
    table, units = draw_labelled_recordings()
    task = replace(TASKS["sex"], classes=("Female", "Male", "Other"))
    label = units.set_index("unit_id")["label"].map(dict(enumerate(task.classes)))
    known = table.assign(sex=table["unit_id"].map(label), age_group="20-29", location="cough")
    _, decisions = baselines.predict("metadata", known, units, task)
    assert (decisions == units["label"]).mean() < 0.9
    other = replace(task, label="smoker")
    _, decisions = baselines.predict("metadata", known, units, other)
    assert (decisions == units["label"]).all()


def test_held_out_labels_do_not_reach_any_fold():
    table, units = draw_labelled_recordings()
    swapped = units.assign(label=np.where(units["part"] == "test", (units["label"] + 1) % 3, units["label"]))
    rest = (units["part"] != "test").to_numpy()
    for floor in baselines.BASELINES:
        before, after = (baselines.predict(floor, table, u, TASK)[0] for u in (units, swapped))
        assert np.array_equal(before[rest], after[rest])


@pytest.mark.parametrize("metric", ["weighted_accuracy", "weighted_accuracy_and_uar", "uar", "accuracy"])
def test_a_floor_that_knows_nothing_is_no_worse_than_the_best_constant_answer(metric):
    task = replace(TASKS["murmur"], metric=metric)
    labels = np.repeat([0, 1, 2], [64, 25, 248])
    parts = np.array(["0", "1", "2", "test"])[np.arange(len(labels)) % 4]
    ids = [f"u{row}" for row in range(len(labels))]
    units = pd.DataFrame({"unit_id": ids, "label": labels, "part": parts})
    p, decisions = baselines.predict("source", pd.DataFrame({"unit_id": ids, "source": "clinic"}), units, task)
    always = [METRICS[metric].function(labels, p, np.full(len(labels), c), task.classes) for c in range(3)]
    assert METRICS[metric].function(labels, p, decisions, task.classes) >= max(always) - 1e-9


def test_a_floor_weighs_classes_as_the_metric_pays_for_them():
    """What tells a rare class apart only weakly decides for it where that class is paid five times as much."""
    rng, task = np.random.default_rng(0), replace(TASKS["murmur"], metric="weighted_accuracy")
    labels = np.repeat([0, 1, 2], [80, 30, 330])
    ids = [f"u{row}" for row in range(len(labels))]
    loud = rng.random(len(labels)) < np.array([0.6, 0.5, 0.25])[labels]
    table = pd.DataFrame({"unit_id": ids, "source": np.where(loud, "clinic", "school")})
    parts = np.array(["0", "1", "2", "test"])[rng.integers(0, 4, len(labels))]
    units = pd.DataFrame({"unit_id": ids, "label": labels, "part": parts})
    p, decisions = baselines.predict("source", table, units, task)
    likeliest = METRICS["weighted_accuracy"].function(labels, p, p.argmax(axis=1), task.classes)
    assert METRICS["weighted_accuracy"].function(labels, p, decisions, task.classes) > likeliest + 0.05


def test_each_metric_stands_beside_the_floor_that_is_best_at_it():
    beside = {"majority": {"uar": {"value": 0.33}, "accuracy": {"value": 0.74}},
              "source": {"uar": {"value": 0.52}, "accuracy": {"value": 0.50}}}
    assert best_numbers(beside, ["uar", "accuracy"]) == {"uar": {"value": 0.52}, "accuracy": {"value": 0.74}}


def test_the_best_floor_of_a_cost_is_the_cheapest():
    beside = {name: {"outcome_cost": {"value": value}} for name, value in (("majority", 9e3), ("source", 1e4))}
    assert best_baseline(beside, "outcome_cost") == "majority"
