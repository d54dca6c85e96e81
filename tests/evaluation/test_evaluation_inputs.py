"""What an evaluation reads: leaks, predictions of other folds and recordings without measurements are refused."""

import numpy as np
import pandas as pd
import pytest
from support import finished_project

from heartml.core import config, paths
from heartml.core.folds import FoldsError
from heartml.core.stage import StageError
from heartml.core.system import files
from heartml.evaluation import inputs
from heartml.evaluation.assessment import (
    PARTS,
)
from heartml.stages import evaluate


def test_a_child_in_two_parts_stops_the_evaluation(tmp_path, monkeypatch):
    finished_project.write_project(tmp_path, monkeypatch, children=24, seconds=1.0)
    table = pd.read_parquet(paths.folds(finished_project.TASK))
    group = table.loc[table["part"] == "test", "group_id"].iloc[0]
    leaking = table.assign(group_id=table["group_id"].where(table["part"] != "0", group))
    files.write_parquet(paths.folds(finished_project.TASK), leaking)
    with pytest.raises(FoldsError, match=group):
        inputs.read_recordings(finished_project.TASK, config.load().validate_)


def test_near_identical_audio_in_two_parts_stops_the_evaluation(tmp_path, monkeypatch):
    finished_project.write_project(tmp_path, monkeypatch, children=24, seconds=1.0)
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
    finished_project.write_project(tmp_path, monkeypatch, children=24, seconds=1.0)
    table = pd.read_parquet(paths.out_of_fold(finished_project.TASK))
    files.write_parquet(paths.out_of_fold(finished_project.TASK), change(table))
    with pytest.raises(StageError, match=message):
        inputs.read_out_of_fold(finished_project.TASK,
                                inputs.read_recordings(finished_project.TASK, config.load().validate_))


def test_a_recording_that_was_not_measured_is_named(tmp_path, monkeypatch):
    finished_project.write_project(tmp_path, monkeypatch, children=24, seconds=1.0)
    signal = pd.read_parquet(paths.VALIDATION / "signal.parquet")
    files.write_parquet(paths.VALIDATION / "signal.parquet", signal.iloc[1:])
    with pytest.raises(StageError, match=f"{signal['recording_id'].iloc[0][:12]}.*measured by validate"):
        inputs.read_recordings(finished_project.TASK, config.load().validate_)


def test_a_session_on_both_sides_is_counted_and_scored_apart(tmp_path, monkeypatch):
    params = finished_project.write_project(tmp_path, monkeypatch, children=60, seconds=1.0)
    rows = inputs.read_recordings(finished_project.TASK, params.validate_)
    assert inputs.split_leaks(rows)["session_id"] == {"there": 0, "crossing": 0}
    assert inputs.split_leaks(rows)["patient_id"]["there"] > 50
    recordings = pd.read_parquet(paths.RECORDINGS)
    part = recordings["recording_id"].map(rows.set_index("recording_id")["part"])
    half = recordings["group_id"].map(lambda group: int(group.split("-")[1]) % 2 == 0)
    sessions = ("day " + part.astype(str)).where(half, "open day")
    files.write_parquet(paths.RECORDINGS, recordings.assign(session_id=sessions))
    rows = inputs.read_recordings(finished_project.TASK, params.validate_)
    found = inputs.split_leaks(rows)
    assert found["session_id"] == {"there": 6, "crossing": 1}
    assert {found[column]["crossing"] for column in found if column != "session_id"} == {0}
    predictions = finished_project.draw_predictions(rows[rows["part"] == "test"], np.random.default_rng(1), 3.0)
    metrics = evaluate.write_evaluation(finished_project.TASK, predictions, rows, params)
    for name in PARTS:
        by = metrics["subgroups"][name]["session"]
        assert set(by) == {"heard in training", "new"}
        assert sum(entry["units"] for entry in by.values()) == metrics["counts"][name]["units"]
    assert metrics["leaks"] == found


def test_one_bad_recording_marks_its_unit_and_no_other(tmp_path, monkeypatch):
    params = finished_project.write_project(tmp_path, monkeypatch, children=24, seconds=1.0)
    signal = pd.read_parquet(paths.VALIDATION / "signal.parquet")
    good = signal.assign(seconds=10.0, silent_share=0.0, clipped_share=0.0, peak=0.5, dc=0.0, bandwidth_hz=400.0,
                          contrast_db=20.0, heard_bandwidth_hz=500.0)
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
