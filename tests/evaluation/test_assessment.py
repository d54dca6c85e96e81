"""Laws of the evaluation: floors, classes, subgroups, leaks; on a small finished project."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support import finished_project
from support.scored_units import FAST, TASK, draw_labelled_recordings, draw_scored_units

from heartml.core import paths
from heartml.core.system import files
from heartml.evaluation import baselines, inputs
from heartml.evaluation.assessment import HELD_OUT, OUT_OF_FOLD, PARTS, assess, assessed_parts, confounded_classes
from heartml.evaluation.parts import AssessedPart, AssessmentRules
from heartml.reporting import number_format
from heartml.reporting.task_report import cautions, headline
from heartml.stages import evaluate


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A project, its metrics, and every file of its evaluation."""
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("project")
        found = finished_project.write_evaluated_project(root, patch)
        folder = root / paths.evaluation(finished_project.TASK)
        yield found, contents(folder)


def test_a_class_that_a_floor_tells_apart_is_called_confounded():
    table, units = draw_labelled_recordings()
    truth = draw_scored_units(len(units), len(units))
    truth = replace(truth, labels=units["label"].to_numpy(), parts=units["part"].to_numpy(str))
    beside = {}
    for name in FAST.baselines:
        p, decisions = baselines.predict(name, table, units, TASK)
        beside[name] = replace(truth, probabilities=p, decisions=decisions)
    part = AssessedPart(truth, beside, table.set_index("unit_id"))
    found = confounded_classes(part, TASK, AssessmentRules(FAST, 10, 0))
    flagged = {(entry["class"], entry["floor"]) for entry in found["confounded"]}
    assert {("Present", "source"), ("Unknown", "nuisance")} <= flagged
    assert not {floor for _, floor in flagged} & {"metadata", "majority"}
    assert all("confounded" in entry["words"] for entry in found["confounded"])


@pytest.mark.parametrize(("planted", "floor"), [("source", "source"), ("sex", "metadata"), ("level_db", "nuisance")])
def test_a_label_that_its_company_gives_away_is_called_confounded(tmp_path, monkeypatch, planted, floor):
    """End to end: the metrics name class and floor, the page says so on its first screen with the floor's score."""
    params = finished_project.write_project(tmp_path, monkeypatch, children=80, seconds=1.0)
    recordings, signal = pd.read_parquet(paths.RECORDINGS), pd.read_parquet(paths.VALIDATION / "signal.parquet")
    rng = np.random.default_rng(0)
    ill = recordings["label_murmur"] == "Present"
    recordings = recordings.assign(source="one", sex="Female", age_group="Child", location="AV")
    signal = signal.assign(level_db=rng.normal(-30, 1, len(signal)), dc=0.0, seconds=10.0, bandwidth_hz=300.0,
                           heard_bandwidth_hz=500.0,
                           clipped_share=0.0)
    if planted == "level_db":
        loud = signal["recording_id"].isin(recordings.loc[ill, "recording_id"])
        signal = signal.assign(level_db=signal["level_db"] + 9 * loud)
    else:
        recordings = recordings.assign(**{planted: np.where(ill, "Male", "Female")})
    files.write_parquet(paths.RECORDINGS, recordings)
    files.write_parquet(paths.VALIDATION / "signal.parquet", signal)
    rows = inputs.read_recordings(finished_project.TASK, params.validate_)
    predictions = finished_project.draw_predictions(rows[rows["part"] == "test"], np.random.default_rng(1), 3.0)
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
    found = finished_project.write_evaluated_project(tmp_path, monkeypatch, children=40, seconds=1.0)
    classes = found["per_class"]["out_of_fold"]
    for recall, named in (({"value": 0.05, "low": 0.0, "high": 0.2}, True),
                          ({"value": 0.3, "low": 0.1, "high": 0.5}, False),
                          ({"value": 0.0, "low": 0.0, "high": 0.0}, True),
                          ({"value": None, "low": None, "high": None}, False)):
        told = {**found, "per_class": {"out_of_fold": {**classes, "Present": {
            "estimable": True, "units": 20, "groups": 20, "recall": recall}}}}
        words = [line for line in cautions.warnings(told) if line.startswith("Hardly ever found")]
        assert bool(words and "Present" in words[0]) == named, recall
        assert not named or f"Present ({round(20 * recall['value'])} of 20 patients, out of fold)" in words[0]


@pytest.mark.parametrize(("of_sources", "named"), [((0.6, 0.69), True), ((0.6, 0.71), False), ((0.6,), False)])
def test_where_every_source_scores_below_the_whole_the_page_says_what_that_means(done, of_sources, named):
    found, _ = done
    metric = found["metric"]

    def entry(value):
        return {"estimable": True, "absent": ["Unknown"] if value == 0.6 else [], metric: {"value": value}}

    sources = {f"clinic {value}": entry(value) for value in of_sources} | {"few": {**entry(0.9), "estimable": False}}
    told = {**found, "per_source": {OUT_OF_FOLD: sources, HELD_OUT: {}}, "mean_over_sources": {},
            OUT_OF_FOLD: {**found[OUT_OF_FOLD], metric: {"value": 0.7, "low": 0.6, "high": 0.8}}}
    words = [line for line in cautions.warnings(told) if line.startswith("Each source alone")]
    assert len(words) == named
    assert not named or "out of fold 0.70, but 0.60 in clinic 0.6 and 0.69 in clinic 0.69. " in words[0]
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
    words = [line for line in cautions.warnings(told) if line.startswith("Not clearly better")]
    assert len(words) == named and headline.above_baselines(told) != named
    assert not named or found["floor_titles"]["source"].lower() in words[0]
    assert not named or found["floor_titles"]["nuisance"].lower() not in words[0]


def test_the_evaluation_says_everything_of_both_parts(done):
    found, written = done
    assert json.loads(written["metrics.json"]) == json.loads(files.canonical_json(found))
    for part in PARTS:
        value = found[part]["uar"]
        assert value["low"] <= value["value"] <= value["high"]
        assert found["counts"][part]["groups"] >= 10
        assert found["best_floor"][part] in found["floors"]
        assert bool(found["mean_over_sources"][part]) == (len(cautions.source_scores(found, part)) > 1)
        assert set(found["subgroups"][part]) == {"age_group", "sex", "signal"}
        assert np.sum(found["confusion"][part]) == found["counts"][part]["units"]
    assert found["persons"]["recordings"] > 100 and found["persons"]["unknown"] == 0
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
    finished_project.write_evaluated_project(tmp_path, monkeypatch)
    folder = paths.evaluation(finished_project.TASK)
    assert contents(folder) == written


def test_order_of_rows_does_not_change_a_number(tmp_path, monkeypatch):
    params = finished_project.write_project(tmp_path, monkeypatch, children=40, seconds=1.0)
    rows = inputs.read_recordings(finished_project.TASK, params.validate_)
    rules = AssessmentRules(FAST, params.validate_.min_class_groups, 0)
    table = inputs.read_out_of_fold(finished_project.TASK, rows)

    def judged(order):
        shuffled = table.iloc[order].reset_index(drop=True)
        parts = assessed_parts({HELD_OUT: shuffled, OUT_OF_FOLD: shuffled}, rows, TASK, FAST.baselines)
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
