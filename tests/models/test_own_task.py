"""A model carries the task that a collection declares: it predicts where nothing else knows the task."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support import tiny_models
from support.scored_units import FAST, draw_scored_units

from heartml.core import paths, tasks
from heartml.core.system.files import read_json, write_json
from heartml.core.task_definition import OFFICIAL, Declared
from heartml.core.tasks import Task, TaskError
from heartml.evaluation import assessment
from heartml.evaluation.parts import AssessedPart, AssessmentRules
from heartml.evaluation.plot_tables import read_plot, write_plots
from heartml.export.statement import facts
from heartml.inference.model_lookup import LocatedModel
from heartml.metrics.class_gains import class_gains
from heartml.metrics.scores import LabelledPredictions
from heartml.models.ensemble.decision_rule import Rule
from heartml.models.fitted_model import Model
from heartml.reporting.task_report import charts, tables

SEVEN = ("none", "click", "1", "2", "Clic mésosystolique, |tardif|", "N/A", "<b>=1+1")
KINDS = [("1", "2"), SEVEN[:3], SEVEN]


def declare(classes: tuple[str, ...], absent: tuple[str, ...] = ()) -> Task:
    """A project in the working folder whose data set `clinic` declares `pedal`."""
    task = Task("pedal", "pedal", classes, "recording", "uar", OFFICIAL, None, classes[-1])
    write_json(paths.declared_tasks("clinic"), {"pedal": Declared(task, absent).to_json()})
    return task


@pytest.mark.parametrize("classes", KINDS, ids=len)
def test_a_model_predicts_in_a_folder_that_does_not_know_its_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, classes: tuple[str, ...]
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    task = declare(classes)
    folder = tiny_models.fit(tmp_path / "model", "clinic-pedal")
    declare((*classes, "later"))
    sound = tiny_models.draw_sound("murmur", 99)
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(TaskError):
        tasks.resolve("clinic-pedal")
    model = Model.load(folder)
    assert model.task == task
    found = model.predict_audio([(sound.floats, sound.sample_rate_hz)], ["one"])
    assert found.classes == classes
    assert found.probabilities.shape == (1, len(classes))
    again = tmp_path / "again"
    again.mkdir()
    model.save(again)
    assert (again / "model.json").read_bytes() == (folder / "model.json").read_bytes()
    known = facts(LocatedModel(folder, "a folder", None, None, ()), model, tiny_models.PARAMS)
    assert (known["title"], known["classes"], known["positive"]) == ("pedal", list(classes), classes[-1])
    assert known["own_classes"] is True


def test_models_of_published_tasks_are_stored_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tiny_models.fit(tmp_path / "model", "pascal-sounds")
    assert "definition" not in read_json(folder / "model.json")
    assert Model.load(folder).task is tasks.TASKS["sounds"]
    older = {"classes": ["x"]}
    assert tasks.of_stored(older, "circor-murmur") is tasks.TASKS["murmur"]


@pytest.mark.parametrize("classes", KINDS, ids=len)
def test_everything_that_is_reported_takes_any_classes(tmp_path: Path, classes: tuple[str, ...]) -> None:
    task = Task("pedal", "pedal", classes, "recording", "accuracy_and_uar", OFFICIAL, None, classes[0])
    scored = {part: draw_scored_units(n=70, groups=35, seed=seed, classes=classes)
              for seed, part in enumerate(assessment.PARTS)}
    units = {part: describe(of) for part, of in scored.items()}
    rules = AssessmentRules(FAST.model_copy(update={"baselines": ()}), 3, 0, 0.4)
    found = assessment.assess({part: AssessedPart(of, {}, units[part]) for part, of in scored.items()}, task, rules)
    assert tasks.of_stored(found, "nowhere-pedal") == task
    assert set(found["per_class"]["held_out"]) == set(classes)
    write_plots(tmp_path / "plots", scored, task, 3)
    assert {*read_plot(tmp_path / "plots" / "confusion.csv")["actual"]} == set(classes)
    assert [name for name, _ in charts.roc(read_plot(tmp_path / "plots" / "roc.csv"), classes).legend] == list(classes)
    assert [row.name for row in tables.classes({**found, "left_out": {}}, "held_out").rows] == list(classes)


def describe(scored: LabelledPredictions) -> pd.DataFrame:
    """What `describe_units` gives for drawn units."""
    return pd.DataFrame({"group_id": scored.groups, "label": [scored.classes[k] for k in scored.labels], "part": "0",
                         "source": "a", "age_group": None, "sex": None}, index=scored.unit_ids)


@pytest.mark.parametrize("metric", ["uar", "accuracy", "macro_f1", "accuracy_and_uar"])
def test_a_decision_rule_is_fitted_for_every_metric_and_seven_classes(metric: str) -> None:
    rng = np.random.default_rng(0)
    labels = np.resize([0, 0, 0, 1, 2, 3, 4, 5, 6], 180)
    log_p = np.log(rng.dirichlet(np.ones(7), 180) * 0.5 + 0.5 * np.eye(7)[labels])
    rule = Rule.fit(log_p, labels, class_gains(metric, labels, SEVEN), temperature=0.2, ridge=0.01)
    assert (rule.predict(log_p) == labels).mean() > 0.6
