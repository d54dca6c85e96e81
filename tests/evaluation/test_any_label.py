"""Where a case may have several labels, each is also scored among the cases that have any."""

import numpy as np
import pandas as pd
from support.scored_units import FAST

from heartml.core.tasks import TASKS
from heartml.evaluation.assessment import SUBGROUP_COLUMNS, describe_units
from heartml.evaluation.inputs import with_any_label
from heartml.metrics.scores import LabelledPredictions, subgroups
from heartml.reporting.model_card import sections
from heartml.reporting.task_report import tables

TASK = TASKS["aortic_stenosis"]


def patients() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Forty patients of two recordings: ten with stenosis, ten with another disease only, twenty healthy."""
    number = np.repeat(np.arange(40), 2)
    ids = [f"r{k}" for k in range(80)]
    own = np.where(number < 10, "Present", "Absent")
    recordings = pd.DataFrame({
        "recording_id": ids, "label_aortic_stenosis": own, "label_mitral_stenosis": "Absent",
        "label_mitral_regurgitation": np.where((number >= 10) & (number < 20), "Present", None),
    }).astype("string")
    names = [f"p{n}" for n in number]
    rows = pd.DataFrame({"recording_id": ids, "unit_id": names, "group_id": names, "label": own,
                         "part": "test", "source": "one", "age_group": "Adult", "sex": "Female"})
    return rows, recordings


def test_a_label_is_scored_among_those_who_have_any() -> None:
    rows, recordings = patients()
    units = describe_units(with_any_label(rows, recordings, TASK), TASK)
    assert units["any_label"].value_counts().to_dict() == {"any of the labels": 20, "none of the labels": 20}
    assert "any_label" in SUBGROUP_COLUMNS
    labels = (units["label"] == "Absent").to_numpy(int)
    ill = (units["any_label"] == "any of the labels").to_numpy()
    decisions = np.where(ill, 0, 1)        # a model that tells the ill from the healthy, and not their diseases
    ids = units.index.to_numpy(str)
    scored = LabelledPredictions(ids, ids, np.array(["test"] * 40), labels, decisions, np.eye(2)[decisions],
                                 np.eye(2)[decisions], TASK.classes)
    found = subgroups(scored, {"any_label": list(units["any_label"])}, TASK, 10, FAST, 0)["any_label"]
    assert found["any of the labels"]["uar"]["value"] == 0.5
    assert found["none of the labels"]["absent"] == ["Present"]
    everyone = subgroups(scored, {"all": ["x"] * 40}, TASK, 10, FAST, 0)["all"]["x"]
    assert everyone["uar"]["value"] > 0.8


def test_other_tasks_get_no_such_column() -> None:
    rows, recordings = patients()
    for name in ("disease", "valves", "murmur", "systolic_timing"):
        assert "any_label" not in with_any_label(rows, recordings, TASKS[name])
    alone = recordings[["recording_id", "label_aortic_stenosis"]]
    assert "any_label" not in with_any_label(rows, alone, TASK), "one label alone says nothing new"


def test_report_and_card_name_the_division_alike() -> None:
    assert tables._words("any_label") == sections.DIVISIONS["any_label"] == "Labels of the case"
