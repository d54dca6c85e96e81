"""What MLflow's pages show of a version: its trials below its run, what won, scores of groups, pictures, words."""

import json

import numpy as np
import pandas as pd
from support.finished_project import TASK
from support.published_project import publish_model

from heartml.core import config, paths
from heartml.core.system import files
from heartml.core.system.files import read_json
from heartml.models.heads import HeadPrediction, HeadState
from heartml.models.heads.network_training import CURVE_STEPS
from heartml.registry import child_runs, tracking
from heartml.release import publish, run_children, run_pictures, run_record
from heartml.release.publish import NOTHING_NEW
from heartml.training import fold_fits


def runs_below(client, parent: str) -> list:
    found = client.search_runs([client.get_run(parent).info.experiment_id], max_results=1000)
    return [run for run in found if run.data.tags.get(child_runs.PARENT) == parent]


def write_probabilities() -> None:
    """Out-of-fold probabilities of trial 0, which is always right in fold 0 and always wrong in the others."""
    folds = pd.read_parquet(paths.folds(TASK))
    rest = folds[folds["part"] != "test"]
    classes = ["Present", "Unknown", "Absent"]
    right = np.array([classes.index(label) for label in rest["label"]])
    p = np.full((len(rest), 3), 0.1)
    p[np.arange(len(rest)), np.where(rest["part"] == "0", right, (right + 1) % 3)] = 0.8
    table = pd.DataFrame({"trial": 0, "recording_id": rest["recording_id"], "unit_id": rest["unit_id"],
                          **{f"p_{label}": p[:, k] for k, label in enumerate(classes)}})
    files.write_parquet(paths.search(TASK) / "probabilities.parquet", table)


def test_each_trial_and_encoder_is_a_run_below_that_of_the_version_and_only_once(project) -> None:
    write_probabilities()
    (paths.search(TASK) / "heads").mkdir()
    curves = {"curve.loss": np.array([1.5, 0.75, 0.5], np.float32), "curve.rate": np.array([3, 2, 1], np.float32),
              "curve.validation": np.array([1.25, 0.5], np.float32),
              "curve.validation_step": np.array([15, 30], np.float32)}
    fold_fits.write_result(paths.search(TASK) / "heads" / "0-2.safetensors", HeadPrediction(np.zeros((2, 3))), None,
                           HeadState({}, {}), curves)
    outcome, client = publish_model(), tracking.connect()
    below = runs_below(client, outcome.run_id or "")
    trials = pd.read_parquet(paths.search(TASK) / "trials.parquet").set_index("trial")
    stored = {int(run.data.tags["heartml.trial"]): run for run in below if run.data.tags["heartml.kind"] == "trial"}
    assert set(stored) == set(trials.index)
    metric = read_json(paths.evaluation(TASK) / "metrics.json")["metric"]
    for number, run in stored.items():
        row = trials.loc[number]
        assert run.info.status == "FINISHED"
        assert run.data.params["head"] == row["head"]
        assert run.data.tags["heartml.trial_state"] == row["state"].lower()
        assert run.data.metrics.get(metric) == (None if row["state"] == "PRUNED" else row["value"])
    curve = client.get_metric_history(stored[0].info.run_id, "macro_auc_of_fold")
    values = [point.value for point in sorted(curve, key=lambda point: point.step)]
    assert values[0] == 1
    assert max(values[1:]) < 0.5
    [fit] = runs_below(client, stored[0].info.run_id)
    assert (fit.data.tags["heartml.kind"], fit.data.params["left_out_fold"]) == ("network fit", "2")
    assert fit.data.metrics["macro_auc"] == values[2]
    loss = sorted(client.get_metric_history(fit.info.run_id, "loss"), key=lambda point: point.step)
    assert [(point.step, point.value) for point in loss] == [
        (CURVE_STEPS, 1.5), (2 * CURVE_STEPS, 0.75), (3 * CURVE_STEPS, 0.5)]
    assert fit.data.metrics["rate"] == 1
    validation = client.get_metric_history(fit.info.run_id, "validation_log_loss")
    assert sorted((point.step, point.value) for point in validation) == [(15, 1.25), (30, 0.5)]
    encoders = {run.info.run_name for run in below if run.data.tags["heartml.kind"] == "encoder"}
    assert encoders == {f"encoder {name}" for name in read_json(paths.model(TASK) / "model.json")["encoders"]}
    assert publish_model().state == NOTHING_NEW
    assert len(runs_below(client, outcome.run_id or "")) == len(below)


def test_the_run_says_what_won_and_what_was_used_and_how_groups_did(project) -> None:
    outcome, client, model = publish_model(), tracking.connect(), read_json(paths.model(TASK) / "model.json")
    run = client.get_run(outcome.run_id)
    members = [{key: value for key, value in run.data.params.items() if key.startswith(f"winner.{number}.")}
               for number in range(1, len(model["members"]) + 1)]
    assert [one[f"winner.{n}.head"] for n, one in enumerate(members, 1)] == [m["head"] for m in model["members"]]
    assert json.loads(run.data.params["winner.rule.biases"]) == model["rule"]["biases"]
    assert not any(name.startswith(("flow.", "monitor.", "encoder_parameters.byol", "search.network_parameters.fcnn"))
                   for name in run.data.params), "not used by this model"
    found = outcome.evaluation
    estimable = [(part, name) for part in ("held_out", "out_of_fold")
                 for name, numbers in found["per_class"][part].items() if numbers["estimable"]]
    assert estimable
    for part, name in estimable:
        assert run.data.metrics[f"class/{part}/{name}/recall"] == found["per_class"][part][name]["recall"]["value"]
    conditions = read_json(paths.robustness(TASK))["conditions"]
    assert run.data.metrics["robustness/lowpass_hz/200/uar"] == next(
        one["scores"]["uar"]["value"] for one in conditions if one["kind"] == "lowpass_hz")
    assert run.data.metrics["heart_states/network/s1_f1"] == 0.95


def test_the_pages_open_as_machine_learning_with_words_from_the_card_and_pictures(project, pictures) -> None:
    client = tracking.connect()
    client.create_experiment(TASK)                # as an older version of this project made it
    outcome = publish.publish(TASK, config.load(), {}, 1_700_000_000_000)
    run = client.get_run(outcome.run_id)
    assert client.get_experiment(run.info.experiment_id).tags["mlflow.experimentKind"] == "custom_model_development"
    assert run.info.start_time == 1_700_000_000_000
    note = run.data.tags["mlflow.note.content"]
    assert "Not a medical device" in note
    assert "Evaluated on 13 patients" in note
    assert "Status" not in note
    [version] = client.search_model_versions(f"name = '{TASK}'")
    assert version.description.startswith(outcome.reason[:100])
    assert note in version.description
    assert client.get_registered_model(TASK).description == note
    kept = {item.path for item in client.list_artifacts(outcome.run_id, "plots")}
    assert {f"plots/{name}.png" for name in ("confusion", "roc", "precision_recall", "calibration", "abstention",
                                             "robustness", "importance")} <= kept


def test_pictures_are_the_same_bytes_for_the_same_tables_and_follow_them(project, pictures) -> None:
    first = run_pictures.of(TASK)
    assert all(data.startswith(b"\x89PNG") for name, data in first.items() if name.endswith(".png"))
    assert run_pictures.of(TASK) == first
    table = paths.evaluation(TASK) / "plots" / "confusion.csv"
    table.write_text(table.read_text().replace("Absent,Absent", "Absent,Present"))
    again = run_pictures.of(TASK)
    assert {name for name in first if again[name] != first[name]} == {"plots/confusion.png"}
    table.unlink()
    assert "plots/confusion.png" not in run_pictures.of(TASK)


def test_where_there_was_no_search_there_is_nothing_below(project) -> None:
    (paths.search(TASK) / "trials.parquet").unlink()
    assert run_children.of(TASK) == []
    assert run_record.winner({}) == {}
