"""Laws of the evaluation: floors, classes, subgroups, leaks; on a small finished project."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support import finished_project

from heartml.core import config, paths
from heartml.core.config import EvaluateParams
from heartml.core.folds import FoldsError
from heartml.core.stage import StageError
from heartml.core.system import files
from heartml.core.tasks import TASKS
from heartml.evaluation import baselines, inputs
from heartml.evaluation.assessment import (
    HELD_OUT,
    OUT_OF_FOLD,
    PARTS,
    AssessedPart,
    AssessmentRules,
    assess,
    best_baseline,
    best_numbers,
    suspicions,
)
from heartml.evaluation.coarse_classes import join_classes
from heartml.evaluation.selective import referral
from heartml.metrics import METRICS, scores
from heartml.metrics.scores import (
    Scored,
    ScoresError,
    abstention,
    calibration,
    per_class,
    precision_recall,
    roc,
    subgroups,
)
from heartml.reporting import number_format
from heartml.reporting.task_report import cautions, headline
from heartml.stages import evaluate

TASK = TASKS["murmur"]
FAST = EvaluateParams(bootstrap=100, confidence=0.9, floors=("majority", "source", "metadata", "nuisance"),
                      confounded_auc=0.7)


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A project, its metrics, and every file of its evaluation."""
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("project")
        found = finished_project.evaluated(root, patch)
        folder = root / paths.evaluation(finished_project.TASK)
        yield found, contents(folder)


def scored(n=60, groups=30, seed=0, classes=TASK.classes):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % len(classes)
    p = finished_project.probabilities(labels, rng, 1.0) if len(classes) == 3 else rng.dirichlet([1] * len(classes), n)
    units = np.array([f"u{i}" for i in range(n)])
    group = np.array([f"g{i % groups}" for i in range(n)])
    return Scored(units, group, np.array(["0"] * n), labels, p.argmax(1), p, p, classes)


def recordings(n=200, seed=0):
    """One recording a unit; the source and the level know the label, age and sex do not."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, n, p=[0.3, 0.2, 0.5])
    table = pd.DataFrame({
        "unit_id": [f"u{i}" for i in range(n)], "group_id": [f"g{i // 2}" for i in range(n)],
        "part": [["test", "0", "1", "2"][i // 2 % 4] for i in range(n)],
        "source": np.where(labels == 0, "clinic", "school"), "location": "MV",
        "age_group": rng.choice(["Infant", "Child"], n), "sex": rng.choice(["Female", "Male"], n),
        "level_db": -30.0 + 10 * (labels == 1) + rng.normal(0, 1, n), "dc": 0.0,
        "seconds": rng.uniform(5, 20, n), "bandwidth_hz": 300.0, "clipped_share": 0.0,
    })
    return table, pd.DataFrame({"unit_id": table["unit_id"], "label": labels, "part": table["part"]})


def test_a_majority_floor_has_a_mean_recall_of_one_over_k():
    table, units = recordings()
    p, decisions = baselines.predict("majority", table, units, TASK)
    assert METRICS["uar"].function(units["label"].to_numpy(), p, decisions, TASK.classes) == pytest.approx(1 / 3)
    assert np.allclose(p.sum(axis=1), 1)


@pytest.mark.parametrize(("floor", "knows"), [("source", "Present"), ("nuisance", "Unknown"), ("metadata", None)])
def test_a_floor_knows_what_its_columns_give_away_and_nothing_else(floor, knows):
    table, units = recordings()
    p, _ = baselines.predict(floor, table, units, TASK)
    for c, name in enumerate(TASK.classes):
        auc = METRICS["macro_auc"].function((units["label"] == c).to_numpy(int), np.c_[1 - p[:, c], p[:, c]],
                                            np.zeros(len(units), int), ("rest", name))
        assert (auc > 0.95) if name == knows else (auc < 0.9)


@pytest.mark.parametrize("part", ["test", "1"])
@pytest.mark.parametrize("floor", baselines.BASELINES)
def test_no_floor_sees_the_labels_of_the_part_that_it_predicts(floor, part):
    table, units = recordings()
    swapped = units.assign(label=np.where(units["part"] == part, (units["label"] + 1) % 3, units["label"]))
    here = (units["part"] == part).to_numpy()
    before, after = (baselines.predict(floor, table, u, TASK) for u in (units, swapped))
    assert np.array_equal(before[0][here], after[0][here])
    assert np.array_equal(before[1][here], after[1][here])


def test_held_out_labels_do_not_reach_any_fold():
    table, units = recordings()
    swapped = units.assign(label=np.where(units["part"] == "test", (units["label"] + 1) % 3, units["label"]))
    rest = (units["part"] != "test").to_numpy()
    for floor in baselines.BASELINES:
        before, after = (baselines.predict(floor, table, u, TASK)[0] for u in (units, swapped))
        assert np.array_equal(before[rest], after[rest])


def test_a_class_that_a_floor_tells_apart_is_called_confounded():
    table, units = recordings()
    truth = scored(len(units), len(units))
    truth = replace(truth, labels=units["label"].to_numpy(), parts=units["part"].to_numpy(str))
    beside = {}
    for name in FAST.baselines:
        p, decisions = baselines.predict(name, table, units, TASK)
        beside[name] = replace(truth, probabilities=p, decisions=decisions)
    found = suspicions(AssessedPart(truth, beside, table.set_index("unit_id")), TASK, AssessmentRules(FAST, 10, 0))
    flagged = {(entry["class"], entry["floor"]) for entry in found["confounded"]}
    assert {("Present", "source"), ("Unknown", "nuisance")} <= flagged
    assert not {floor for _, floor in flagged} & {"metadata", "majority"}
    assert all("confounded" in entry["words"] for entry in found["confounded"])


@pytest.mark.parametrize(("planted", "floor"), [("source", "source"), ("sex", "metadata"), ("level_db", "nuisance")])
def test_a_label_that_its_company_gives_away_is_called_confounded(tmp_path, monkeypatch, planted, floor):
    """End to end: the metrics name class and floor, the page says so on its first screen with the floor's score."""
    params = finished_project.project(tmp_path, monkeypatch, children=80, seconds=1.0)
    recordings, signal = pd.read_parquet(paths.RECORDINGS), pd.read_parquet(paths.VALIDATION / "signal.parquet")
    rng = np.random.default_rng(0)
    ill = recordings["label_murmur"] == "Present"
    recordings = recordings.assign(source="one", sex="Female", age_group="Child", location="AV")
    signal = signal.assign(level_db=rng.normal(-30, 1, len(signal)), dc=0.0, seconds=10.0, bandwidth_hz=300.0,
                           clipped_share=0.0)
    if planted == "level_db":
        loud = signal["recording_id"].isin(recordings.loc[ill, "recording_id"])
        signal = signal.assign(level_db=signal["level_db"] + 9 * loud)
    else:
        recordings = recordings.assign(**{planted: np.where(ill, "Male", "Female")})
    files.write_parquet(paths.RECORDINGS, recordings)
    files.write_parquet(paths.VALIDATION / "signal.parquet", signal)
    rows = inputs.read_recordings(finished_project.TASK, params.validate_)
    predictions = finished_project.predict(rows[rows["part"] == "test"], np.random.default_rng(1), 3.0)
    found = evaluate.write_evaluation(finished_project.TASK, predictions, rows, params)
    assert {entry["floor"] for entry in found["confounded"]} == {floor}
    told = next(entry for entry in found["confounded"] if entry["class"] == "Present")
    assert told["auc"]["value"] > 0.95
    [words] = [words for words in cautions.warnings(found) if words.startswith("Confounded")]
    assert f"Present (AUC {number_format.figure(told['auc']['value'])}" in words
    assert found["floor_titles"][floor].lower() in words


def test_a_class_that_is_hardly_ever_found_is_named_on_the_first_screen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = finished_project.evaluated(tmp_path, monkeypatch, children=40, seconds=1.0)
    classes = found["per_class"]["out_of_fold"]
    for recall, named in (({"value": 0.05, "low": 0.0, "high": 0.2}, True),
                          ({"value": 0.3, "low": 0.1, "high": 0.5}, False),
                          ({"value": 0.0, "low": 0.0, "high": 0.0}, True),
                          ({"value": None, "low": None, "high": None}, False)):
        told = {**found, "per_class": {"out_of_fold": {**classes, "Present": {
            "estimable": True, "units": 20, "groups": 20, "recall": recall}}}}
        words = [line for line in cautions.warnings(told) if line.startswith("Hardly ever found")]
        assert bool(words and "Present" in words[0]) == named, recall
        assert not named or f"Present ({round(20 * recall['value'])} of 20 patients, cross-fitted)" in words[0]


def test_a_class_with_too_few_groups_is_not_a_number():
    few = scored(60, groups=30)
    few = few.take((few.labels != 1) | (np.arange(60) < 20))
    found = per_class(few, 10, FAST, 0)
    assert found["Unknown"] == {"units": 7, "groups": 7, "estimable": False}
    assert found["Present"]["estimable"] and set(found["Present"]) >= {"recall", "precision", "auc"}


def test_ten_units_of_one_group_are_one_group():
    one = replace(scored(60), groups=np.array(["g"] * 60))
    assert not any(entry["estimable"] for entry in per_class(one, 10, FAST, 0).values())


def test_subgroups_partition_the_units_and_keep_the_unknown():
    part = scored(60)
    sex = ["Female"] * 40 + [None] * 12 + ["Male"] * 8
    found = subgroups(part, {"sex": sex}, TASK, 10, FAST, 0)["sex"]
    assert {value: entry["units"] for value, entry in found.items()} == {"Female": 40, "Male": 8, "not given": 12}
    assert not found["Male"]["estimable"] and "uar" not in found["Male"]
    alone = part.take(np.arange(60) < 40)
    assert found["Female"]["uar"]["value"] == METRICS["uar"].function(
        alone.labels, alone.probabilities, alone.decisions, alone.classes)


@pytest.mark.parametrize("task", [task for task in TASKS.values() if task.views], ids=lambda task: task.name)
def test_a_view_has_every_class_once(task):
    for view in task.views:
        assert sorted(one for joined in view.classes.values() for one in joined) == sorted(task.classes)


def test_a_view_joins_classes_and_changes_nothing_else():
    task = TASKS["sounds"]
    view, five = task.views[0], scored(classes=task.classes, seed=3)
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
    both = {part: AssessedPart(scored(classes=task.classes), {"majority": scored(classes=task.classes, seed=1)},
                       pd.DataFrame({"source": ["set_a"] * 60, "age_group": None, "sex": None})) for part in PARTS}
    found = assess(both, task,
                   AssessmentRules(FAST.model_copy(update={"baselines": ("majority",)}), 10,
                                   0))["views"]["four_classes"]
    for part in PARTS:
        seen = join_classes(both[part].scored, task.views[0])
        assert found[part]["scores"]["accuracy"]["value"] == pytest.approx((seen.labels == seen.decisions).mean())
        assert set(found[part]["floors"]["majority"]) >= {"accuracy", "uar", "macro_auc"}
        assert found[part]["per_class"]["extra"]["units"] == (seen.labels == 1).sum()


def test_curves_equal_scikit_learn_and_start_and_end_where_they_must():
    from sklearn.metrics import auc, roc_auc_score

    part = scored(150)
    curves, ends = roc(part), precision_recall(part)
    for c, name in enumerate(part.classes):
        curve = curves[curves["class"] == name]
        area = auc(curve["false_positive_rate"], curve["true_positive_rate"])
        assert area == pytest.approx(roc_auc_score(part.labels == c, part.probabilities[:, c]))
        recall = ends.loc[ends["class"] == name, "recall"]
        assert (recall.iloc[0], recall.iloc[-1]) == (0, 1)


def test_reliability_bins_add_up_to_the_calibration_error():
    part = replace(scored(150), decisions=scored(150, seed=1).decisions)       # not those of the likeliest class
    after = calibration(part).query("stage == 'after'")
    ece = (after["units"] * (after["confidence"] - after["accuracy"]).abs()).sum() / after["units"].sum()
    assert ece == pytest.approx(METRICS["ece"].function(part.labels, part.calibrated, part.decisions, part.classes))
    assert after["units"].sum() == 150


def test_abstaining_on_nothing_is_the_whole_part():
    part = scored(150)
    last = abstention(part, TASK, 10).iloc[-1]
    assert (last["coverage"], last["units"]) == (1, 150)
    assert last["accuracy"] == METRICS["accuracy"].function(
        part.labels, part.probabilities, part.decisions, part.classes)


def test_where_nothing_is_unsure_everything_is_decided():
    part = scored(150, groups=60)
    found = referral(part, TASK, 0.0, 10, FAST, 0)
    assert found["referred"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert (found["units"], found["groups"], found["absent"]) == (150, 60, [])
    assert found["scores"]["uar"] == scores.scores(part, TASK, FAST, 0)["uar"]


def test_referring_everything_leaves_nothing_to_score():
    found = referral(scored(150), TASK, 1.01, 10, FAST, 0)
    assert found["referred"]["value"] == 1 and found["units"] == 0 and not found["estimable"]
    assert "scores" not in found and found["absent"] == list(TASK.classes)
    assert all(of["referred"] == of["units"] for of in found["classes"].values())


def test_an_operating_point_lies_on_the_abstention_curve():
    part = scored(200, groups=80)
    limit = float(np.sort(part.confidence)[60])      # 30 % lie below
    found, curve = referral(part, TASK, limit, 10, FAST, 0), abstention(part, TASK, 10).set_index("coverage")
    assert found["referred"]["value"] == pytest.approx(0.3)
    assert found["referred"]["low"] < 0.3 < found["referred"]["high"]
    assert found["units"] == curve.loc[0.7, "units"] == 140
    assert found["scores"]["accuracy"]["value"] == pytest.approx(curve.loc[0.7, "accuracy"])
    assert sum(of["referred"] for of in found["classes"].values()) == 60


def test_a_label_outside_the_classes_is_named():
    table = pd.DataFrame({"unit_id": ["a"], "group_id": ["a"], "label": ["Loud"], "part": ["0"], "decision": ["Absent"],
                          **{f"{k}_{c}": [0.3] for k in "pc" for c in TASK.classes}})
    with pytest.raises(ScoresError, match="unit a: label 'Loud'"):
        Scored.of(table, TASK.classes)


@pytest.mark.parametrize(("of_sources", "named"), [((0.6, 0.69), True), ((0.6, 0.71), False), ((0.6,), False)])
def test_where_every_source_scores_below_the_whole_the_page_says_what_that_means(done, of_sources, named):
    found, _ = done
    metric = found["metric"]

    def entry(value):
        return {"estimable": True, "absent": ["Unknown"] if value == 0.6 else [], metric: {"value": value}}

    sources = {f"clinic {value}": entry(value) for value in of_sources} | {"few": {**entry(0.9), "estimable": False}}
    told = {**found, "per_source": {OUT_OF_FOLD: sources, HELD_OUT: {}},
            OUT_OF_FOLD: {**found[OUT_OF_FOLD], metric: {"value": 0.7, "low": 0.6, "high": 0.8}}}
    words = [line for line in cautions.warnings(told) if line.startswith("Every source alone")]
    assert len(words) == named
    assert not named or "cross-fitted 0.70, but 0.60 in clinic 0.6 and 0.69 in clinic 0.69. " in words[0]
    assert not named or words[0].endswith("telling the sources apart: clinic 0.6 has no Unknown.")


def test_a_cost_is_below_the_whole_where_it_is_higher(done):
    found, _ = done
    sources = {name: {"estimable": True, "outcome_cost": {"value": value}} for name, value in (("a", 9e3), ("b", 8e3))}
    for whole, all_worse in ((7e3, True), (8.5e3, False)):
        told = {**found, "metric": "outcome_cost", "per_source": {HELD_OUT: sources},
                HELD_OUT: {"outcome_cost": {"value": whole}}}
        assert bool(cautions.below_the_whole(told, HELD_OUT)) == all_worse


@pytest.mark.parametrize(("low", "named"), [(-0.01, True), (0.01, False), (None, True)])
def test_a_lead_over_a_floor_that_may_be_nothing_is_named(done, low, named):
    found, _ = done
    clear = {name: {"value": 0.3, "low": 0.2, "high": 0.4} for name in found["floor_order"]}
    unclear = {**clear, "source": {"value": 0.09, "low": low, "high": 0.2}}
    told = {**found, "against_floors": {HELD_OUT: unclear, OUT_OF_FOLD: clear}}
    words = [line for line in cautions.warnings(told) if line.startswith("No clear lead")]
    assert len(words) == named and headline.above_baselines(told) != named
    assert not named or found["floor_titles"]["source"].lower() in words[0]
    assert not named or found["floor_titles"]["nuisance"].lower() not in words[0]


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


def test_the_evaluation_says_everything_of_both_parts(done):
    found, written = done
    assert json.loads(written["metrics.json"]) == json.loads(files.canonical_json(found))
    for part in PARTS:
        value = found[part]["uar"]
        assert value["low"] <= value["value"] <= value["high"]
        assert found["counts"][part]["groups"] >= 10
        assert found["best_floor"][part] in found["floors"]
        assert set(found["subgroups"][part]) == {"age_group", "sex", "signal"}
        assert np.sum(found["confusion"][part]) == found["counts"][part]["units"]
    assert found["floors"].keys() == found["floors_out_of_fold"].keys() == set(FAST.baselines)
    assert set(found["locations"]) <= {"AV", "PV", "TV", "MV"}
    assert "ece_before" in found[HELD_OUT]


def test_the_summary_holds_values_of_the_metrics(done):
    found, written = done
    summary = json.loads(written["summary.json"])
    assert summary["held_out.uar"] == found[HELD_OUT]["uar"]["value"]
    assert summary["out_of_fold.macro_auc"] == found[OUT_OF_FOLD]["macro_auc"]["value"]
    for metric in ("uar", "macro_auc", "accuracy"):
        assert summary[f"best_floor.{metric}"] == max(floor[metric]["value"] for floor in found["floors"].values())


def test_predictions_are_the_held_out_units_once(done, tmp_path):
    _, written = done
    (tmp_path / "p.parquet").write_bytes(written["predictions.parquet"])
    table = pd.read_parquet(tmp_path / "p.parquet")
    assert set(table["part"]) == {"test"} and table["unit_id"].is_unique
    assert {"decision", "label", "group_id", "p_Present", "c_Absent"} <= set(table)


def test_the_same_inputs_give_the_same_bytes(done, tmp_path, monkeypatch):
    _, written = done
    finished_project.evaluated(tmp_path, monkeypatch)
    folder = paths.evaluation(finished_project.TASK)
    assert contents(folder) == written


def test_order_of_rows_does_not_change_a_number(tmp_path, monkeypatch):
    params = finished_project.project(tmp_path, monkeypatch, children=40, seconds=1.0)
    rows = inputs.read_recordings(finished_project.TASK, params.validate_)
    rules = AssessmentRules(FAST, params.validate_.min_class_groups, 0)
    table = inputs.read_out_of_fold(finished_project.TASK, rows)

    def judged(order):
        shuffled = table.iloc[order].reset_index(drop=True)
        parts = evaluate.parts_of({HELD_OUT: shuffled, OUT_OF_FOLD: shuffled}, rows, TASK, FAST.baselines)
        return files.canonical_json(assess(parts, TASK, rules))

    first, second = judged(np.arange(len(table))), judged(np.random.default_rng(0).permutation(len(table)))
    numbers = [np.array([float(x) for x in _numbers(json.loads(text))]) for text in (first, second)]
    assert np.allclose(*numbers, atol=1e-9)


def _numbers(value):
    if isinstance(value, dict):
        return [n for key in sorted(value) for n in _numbers(value[key])]
    if isinstance(value, list):
        return [n for item in value for n in _numbers(item)]
    return [value] if isinstance(value, (int, float)) and not isinstance(value, bool) else []


def test_a_child_in_two_parts_stops_the_evaluation(tmp_path, monkeypatch):
    finished_project.project(tmp_path, monkeypatch, children=24, seconds=1.0)
    table = pd.read_parquet(paths.folds(finished_project.TASK))
    group = table.loc[table["part"] == "test", "group_id"].iloc[0]
    leaking = table.assign(group_id=table["group_id"].where(table["part"] != "0", group))
    files.write_parquet(paths.folds(finished_project.TASK), leaking)
    with pytest.raises(FoldsError, match=group):
        inputs.read_recordings(finished_project.TASK, config.load().validate_)


def test_near_identical_audio_in_two_parts_stops_the_evaluation(tmp_path, monkeypatch):
    finished_project.project(tmp_path, monkeypatch, children=24, seconds=1.0)
    groups = pd.read_parquet(paths.VALIDATION / "groups.parquet")
    files.write_parquet(paths.VALIDATION / "groups.parquet", groups.assign(group_id="all one"))
    with pytest.raises(FoldsError, match="all one"):
        inputs.read_recordings(finished_project.TASK, config.load().validate_)


@pytest.mark.parametrize(("change", "message"), [
    (lambda table: table.iloc[1:], "not once in folds and once in out_of_fold"),
    (lambda table: pd.concat([table, table.iloc[:1]]), "not once in folds and once in out_of_fold"),
    (lambda table: table.assign(label="Absent"), "label, group or fold differs"),
    (lambda table: table.assign(part="7"), "label, group or fold differs"),
])
def test_out_of_fold_predictions_of_other_folds_are_refused(tmp_path, monkeypatch, change, message):
    finished_project.project(tmp_path, monkeypatch, children=24, seconds=1.0)
    table = pd.read_parquet(paths.out_of_fold(finished_project.TASK))
    files.write_parquet(paths.out_of_fold(finished_project.TASK), change(table))
    with pytest.raises(StageError, match=message):
        inputs.read_out_of_fold(finished_project.TASK,
                                inputs.read_recordings(finished_project.TASK, config.load().validate_))


def test_a_recording_that_was_not_measured_is_named(tmp_path, monkeypatch):
    finished_project.project(tmp_path, monkeypatch, children=24, seconds=1.0)
    signal = pd.read_parquet(paths.VALIDATION / "signal.parquet")
    files.write_parquet(paths.VALIDATION / "signal.parquet", signal.iloc[1:])
    with pytest.raises(StageError, match=f"{signal['recording_id'].iloc[0][:12]}.*measured by validate"):
        inputs.read_recordings(finished_project.TASK, config.load().validate_)


def test_a_session_on_both_sides_is_counted_and_scored_apart(tmp_path, monkeypatch):
    params = finished_project.project(tmp_path, monkeypatch, children=60, seconds=1.0)
    rows = inputs.read_recordings(finished_project.TASK, params.validate_)
    assert inputs.leaks(rows)["session_id"] == {"there": 0, "crossing": 0}
    assert inputs.leaks(rows)["patient_id"]["there"] > 50
    recordings = pd.read_parquet(paths.RECORDINGS)
    part = recordings["recording_id"].map(rows.set_index("recording_id")["part"])
    half = recordings["group_id"].map(lambda group: int(group.split("-")[1]) % 2 == 0)
    sessions = ("day " + part.astype(str)).where(half, "open day")
    files.write_parquet(paths.RECORDINGS, recordings.assign(session_id=sessions))
    rows = inputs.read_recordings(finished_project.TASK, params.validate_)
    found = inputs.leaks(rows)
    assert found["session_id"] == {"there": 6, "crossing": 1}
    assert {found[column]["crossing"] for column in found if column != "session_id"} == {0}
    predictions = finished_project.predict(rows[rows["part"] == "test"], np.random.default_rng(1), 3.0)
    metrics = evaluate.write_evaluation(finished_project.TASK, predictions, rows, params)
    for name in PARTS:
        by = metrics["subgroups"][name]["session"]
        assert set(by) == {"heard in training", "new"}
        assert sum(entry["units"] for entry in by.values()) == metrics["counts"][name]["units"]
    assert metrics["leaks"] == found


def test_one_bad_recording_marks_its_unit_and_no_other(tmp_path, monkeypatch):
    params = finished_project.project(tmp_path, monkeypatch, children=24, seconds=1.0)
    signal = pd.read_parquet(paths.VALIDATION / "signal.parquet")
    good = signal.assign(seconds=10.0, silent_share=0.0, clipped_share=0.0, peak=0.5, dc=0.0, bandwidth_hz=400.0,
                          contrast_db=20.0)
    files.write_parquet(paths.VALIDATION / "signal.parquet", good)
    rows = inputs.read_recordings(finished_project.TASK, params.validate_)
    assert set(rows["signal"]) == {"no warnings"}
    several = rows["unit_id"].value_counts().index[0]
    bad = rows.loc[rows["unit_id"] == several, "recording_id"].iloc[0]
    worse = good.assign(clipped_share=good["clipped_share"].where(good["recording_id"] != bad, 0.9))
    files.write_parquet(paths.VALIDATION / "signal.parquet", worse)
    rows = inputs.read_recordings(finished_project.TASK, params.validate_)
    assert set(rows.loc[rows["signal"] == "with warnings", "unit_id"]) == {several}
    assert (rows.loc[rows["unit_id"] == several, "signal"] == "with warnings").all()
