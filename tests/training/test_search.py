"""The search: the same bytes whatever the workers, and after any kill; nothing is scored on what it was fitted to."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support import search_project
from support.search_project import NAME, ROOT

from heartml.core import config, paths
from heartml.core.system.hashing import sha256_folder
from heartml.core.tasks import TASKS
from heartml.models.ensemble.candidate import CandidateSpec
from heartml.stages import search
from heartml.training import fold_fits, search_results, search_run, search_space, training_set
from heartml.training import study as trials

SEQUENCE = {"encoder": "logspec", "level": "recording", "pooling": None, "head": "sequence",
            "hyperparameters": {"dropout": 0.1, "rate": 0.005, "frame_weight": 1.0, "strength": 0.5}}
UNIT = {"encoder": "logspec", "level": "unit", "pooling": "statistics", "head": "logistic",
        "hyperparameters": {"c": 0.01, "balance": 1.0}}
SMALL = {"trials": 9, "network_trials": {"sequence": 1}, "batch": 3, "pruning_startup_trials": 4,
         "initial_trials": [SEQUENCE, UNIT],
         "heads": ["logistic", "svm_rbf", "sequence"], "tasks": {},
         "network_parameters": {"sequence": {"encoders": ["logspec"], "steps": 6, "batch": 8, "channels": 8}}}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose search ran once, on one worker, in this process."""
    root = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        search_project.write(root, **SMALL)
        search.run(NAME)
    return root


def table(root: Path) -> pd.DataFrame:
    return pd.read_parquet(root / paths.search(NAME) / "trials.parquet")


def test_the_plan_holds_every_number_once_and_no_more_sequence_trials_than_allowed() -> None:
    params = config.load(ROOT / "params.yaml").search
    for wanted in (1, 5, 16, 40):
        for sequences in (0, 1, 4):
            own = params.model_copy(update={"trials": wanted, "network_trials": {"sequence": sequences}})
            plan = [planned for batch in search_space.plan(own, ["logspec"]) for planned in batch]
            assert [planned.number for planned in plan] == list(range(wanted))
            assert sum(planned.network == "sequence" for planned in plan) <= sequences
            assert sum(planned.network == "sequence" for planned in plan) == sequences or wanted < 16
            assert all(planned.initial is None or planned.initial.encoder == "logspec" for planned in plan)


def test_every_network_head_has_as_many_trials_as_asked_and_no_more() -> None:
    params = config.load(ROOT / "params.yaml").search
    heads, encoders = [*params.heads, "resnet", "fcnn"], ["logspec", "amplitude"]
    for wanted in ({"sequence": 1, "resnet": 2, "fcnn": 1}, {"sequence": 0, "resnet": 3}, {"fcnn": 2}):
        own = params.model_copy(update={"heads": tuple(heads), "network_trials": wanted, "trials": 20})
        plan = [planned for batch in search_space.plan(own, encoders) for planned in batch]
        found = {head: sum(planned.network == head for planned in plan) for head in ("sequence", "resnet", "fcnn")}
        assert found == {"sequence": 0, "resnet": 0, "fcnn": 0} | wanted
        assert all(one.network == one.initial.head for one in plan if one.network and one.initial)
        assert len(plan) == 20


def test_a_head_that_would_take_too_long_leaves_the_search_and_is_named() -> None:
    params = config.load(ROOT / "params.yaml")
    most = params.search.most_recordings["svm_rbf"]

    def with_recordings(count: int) -> search_run.SearchRun:
        data: Any = SimpleNamespace(train_set=SimpleNamespace(recording_ids=range(count)))
        return search_run.SearchRun(data, NAME, params, Path())

    few, many = with_recordings(most), with_recordings(most + 1)
    assert few.search.heads == params.search.heads and few.left_out == ""
    assert set(params.search.heads) - set(many.search.heads) == {"svm_rbf"}
    assert many.left_out == f"svm_rbf left out: more than search.most_recordings ({most + 1:,})"
    plan = [planned for batch in search_space.plan(many.search, params.encoders) for planned in batch]
    assert len(plan) == params.search.trials
    assert all(one.initial is None or one.initial.head != "svm_rbf" for one in plan)
    pooled = {head: 10 for head in params.search.heads if head != "sequence"}
    with pytest.raises(search_space.SearchError, match="add logistic"):
        search_space.affordable(params.search.model_copy(update={"most_recordings": pooled}), 11)


def test_pooled_heads_never_draw_an_encoder_that_only_networks_use() -> None:
    params = config.load(ROOT / "params.yaml").search
    own = params.model_copy(update={"heads": (*params.heads, "fcnn")})
    search_space.check(own, ["logspec", "amplitude"])
    assert search_space.pooled_encoders(own, ["logspec", "amplitude"]) == ["logspec"]
    with pytest.raises(search_space.SearchError, match="nothing for encoder amplitude"):
        search_space.check(params, ["logspec", "amplitude"])


def test_the_heads_that_a_search_stores_predict_what_it_wrote(tmp_path: Path, monkeypatch) -> None:
    training = {"encoders": ["logspec"], "steps": 3, "batch": 8}
    params = config.load(ROOT / "params.yaml").search
    initial = [{"encoder": "logspec", "level": "recording", "pooling": None, "head": "resnet",
                "hyperparameters": {"dropout": 0.1, "rate": 0.001, "strength": 0.5}}, UNIT]
    monkeypatch.chdir(tmp_path)
    search_project.write(tmp_path, **SMALL | {
        "trials": 3, "heads": ["logistic", "resnet", "fcnn"], "network_trials": {"resnet": 1, "fcnn": 1},
        "initial_trials": initial, "network_parameters": {
            "fcnn": {**params.network_parameters["fcnn"], **training},
            "resnet": {**params.network_parameters["resnet"], **training, "backbone": "test_resnet"}}})
    search.run(NAME)
    rows = table(tmp_path)
    assert list(rows["head"]) == ["resnet", "logistic", "fcnn"]
    data = fold_fits.training_data(NAME, ("logspec", "random_conv"), tmp_path)
    written = pd.read_parquet(paths.search(NAME) / "probabilities.parquet")
    assert [path.stem for path in (paths.search(NAME) / "noisy").iterdir()] == ["0"]      # none for fcnn
    noisy = fold_fits.read_prediction(paths.search(NAME) / "noisy" / "0.safetensors")
    for trial in (0, 2):
        spec = search_results.read_specs(paths.search(NAME))[trial]
        expected = written[written["trial"] == trial].set_index("recording_id").filter(like="p_")
        for fold, state in enumerate(search_results.stored_heads(paths.search(NAME), trial, 3)):
            here = data.train_set.parts == fold
            head = spec.head_module.load(state)
            prediction = data.predict_proba(head, spec, here)
            if trial == 0:
                np.testing.assert_allclose(data.predict_in_noise(head, spec, here).log_p,
                                           noisy.log_p[data.train_set.recordings_of(here)], atol=1e-6)
                assert not np.allclose(prediction.log_p, noisy.log_p[data.train_set.recordings_of(here)], atol=1e-3)
            ids = [data.train_set.recording_ids[row] for row in data.train_set.recordings_of(here)]
            np.testing.assert_allclose(np.exp(prediction.log_p), expected.loc[ids], atol=1e-6)


def test_every_enabled_initial_trial_is_tried_as_it_is(undisturbed: Path) -> None:
    first = table(undisturbed).iloc[:2].to_dict("records")
    for row, initial in zip(first, (SEQUENCE, UNIT), strict=True):
        assert (row["head"], row["encoder"], row["level"]) == (initial["head"], initial["encoder"], initial["level"])
        hyperparameters = json.loads(row["numbers"])
        assert {name: hyperparameters[name] for name in initial["hyperparameters"]} == initial["hyperparameters"]


def test_outputs_are_complete(undisturbed: Path) -> None:
    rows, folder = table(undisturbed), undisturbed / paths.search(NAME)
    assert list(rows["trial"]) == list(range(SMALL["trials"]))
    assert set(rows["state"]) <= {"COMPLETE", "PRUNED"}
    assert (rows["value"].isna() == (rows["state"] == "PRUNED")).all()
    probabilities = pd.read_parquet(folder / "probabilities.parquet")
    assert set(probabilities["trial"]) == set(rows.loc[rows["state"] == "COMPLETE", "trial"])
    folds = pd.read_parquet(undisturbed / paths.folds(NAME))
    known = folds[folds["part"] != "test"]
    for trial, part in probabilities.groupby("trial"):
        level = rows.set_index("trial").loc[trial, "level"]
        key = "recording_id" if level == "recording" else "unit_id"
        assert part[key].is_unique
        assert set(part[key]) == set(known[key])
    np.testing.assert_allclose(probabilities.filter(like="p_").sum(axis=1), 1)
    assert not list((undisturbed / paths.STATE / "search").iterdir())      # the unfinished work is gone


def test_the_held_out_part_is_never_predicted(undisturbed: Path) -> None:
    folds = pd.read_parquet(undisturbed / paths.folds(NAME))
    held_out = folds[folds["part"] == "test"]
    probabilities = pd.read_parquet(undisturbed / paths.search(NAME) / "probabilities.parquet")
    assert len(held_out)
    assert not set(probabilities["unit_id"]) & set(held_out["unit_id"])
    assert not set(probabilities["recording_id"].dropna()) & set(held_out["recording_id"])


def test_two_workers_give_the_bytes_of_one(undisturbed: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    search_project.write(tmp_path, **SMALL | {"workers": 2})
    left_behind = tmp_path / paths.STATE / "search" / f"{NAME}-0123456789abcdef"
    left_behind.mkdir(parents=True)
    search.run(NAME)
    assert not left_behind.exists()
    assert sha256_folder(paths.search(NAME)) == sha256_folder(undisturbed / paths.search(NAME))


def killed_run(root: Path, when) -> None:
    """Start the stage in a process and kill it as soon as `when()` holds."""
    process = subprocess.Popen([sys.executable, "-m", "heartml", "search", "--task", NAME], cwd=root,
                               env={"PYTHONPATH": str(ROOT), "PATH": ""}, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not when():
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_a_search_killed_twice_ends_with_the_same_bytes(undisturbed: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    search_project.write(tmp_path, **SMALL)
    killed_run(tmp_path, lambda: len(list(tmp_path.glob(".heartml/search/*/*.safetensors"))) >= 2)
    killed_run(tmp_path, lambda: len(list(tmp_path.glob(".heartml/search/*/[45]-*.safetensors"))) >= 2)
    assert not paths.search(NAME).exists()
    search.run(NAME)
    assert sha256_folder(paths.search(NAME)) == sha256_folder(undisturbed / paths.search(NAME))


@pytest.mark.parametrize("told", [0, 1, 2])
def test_a_kill_between_asking_and_telling_changes_no_trial(tmp_path: Path, told: int) -> None:
    def outcome(spec: CandidateSpec) -> trials.TrialOutcome:
        return trials.TrialOutcome((0.5, 0.6), float(spec.hyperparameters["c"]) if "c" in spec.hyperparameters else 0.3)

    def whole_search(journal: Path, kill_at: int | None) -> list:
        params = config.load(ROOT / "params.yaml").search.model_copy(update={"trials": 20, "network_trials": {}})
        for number, batch in enumerate(search_space.plan(params, ["logspec", "random_conv"])):
            study = trials.open_study(journal, "study")
            if number == kill_at:      # as if killed: asked for, written down, `told` of them told
                asked = trials.ask(study, batch, params, TASKS["murmur"], ["logspec", "random_conv"], 1)
                for one in asked:
                    one.outcome = outcome(one.spec)
                if told:
                    for one in asked:
                        trials.store_outcome(one)
                trials.tell(study, asked[:told])
                with journal.open("ab") as file:
                    file.write(b'{"op_code":5,"cut short')
                journal.with_name(journal.name + ".lock").symlink_to(journal)
                study = trials.open_study(journal, "study")
            finished = {number for number, _, _ in trials.finished_trials(study)}
            left = [planned for planned in batch if planned.number not in finished]
            asked = trials.ask(study, left, params, TASKS["murmur"], ["logspec", "random_conv"], 1)
            for one in asked:
                one.outcome = one.outcome or outcome(one.spec)
            trials.tell(study, asked)
        return sorted(trials.finished_trials(study), key=lambda trial: trial[0])

    whole = whole_search(tmp_path / "whole" / "journal", None)
    assert len(whole) == 20
    assert len({repr(spec) for _, spec, _ in whole}) > 15
    assert whole_search(tmp_path / "killed" / "journal", 2) == whole


def fold_prediction(root: Path, fold: int, monkeypatch) -> np.ndarray:
    monkeypatch.chdir(root)
    spec = CandidateSpec("logspec", "logistic", "recording", "statistics", {"c": 0.1, "balance": 1.0})
    file = root / f"{fold}.safetensors"
    fold_fits.fit_fold(fold_fits.FoldFit(NAME, ("logspec", "random_conv"), root, spec, fold, 0, file))
    return fold_fits.read_prediction(file).log_p


def test_no_fold_is_predicted_by_a_fit_to_its_own_labels(undisturbed: Path, tmp_path: Path, monkeypatch) -> None:
    """The labels of fold 1 may change at will: predictions for fold 1 stay the same, those for fold 0 do not."""
    relabelled = tmp_path / "relabelled"
    shutil.copytree(undisturbed, relabelled)
    folds = pd.read_parquet(relabelled / paths.folds(NAME))
    recordings = pd.read_parquet(relabelled / paths.RECORDINGS)
    theirs = recordings["recording_id"].isin(folds.loc[folds["part"] == "1", "recording_id"])
    other = {"Present": "Absent", "Absent": "Unknown", "Unknown": "Present"}
    recordings.loc[theirs, "label_murmur_here"] = recordings.loc[theirs, "label_murmur_here"].map(other)
    recordings.to_parquet(relabelled / paths.RECORDINGS)
    for fold, same in ((1, True), (0, False)):
        predictions = [fold_prediction(root, fold, monkeypatch) for root in (undisturbed, relabelled)]
        assert np.allclose(*predictions) == same


def test_states_of_frames_lie_where_the_annotation_says() -> None:
    annotations = pd.DataFrame({"recording_id": "a", "start_s": [0.05, 0.15, 0.45], "end_s": [0.15, 0.35, 0.55],
                                "state": ["S1", "systole", "unannotated"]})
    found = training_set.states(["a", "b"], [9, 3], 10.0, [1.0, 0.5], annotations)      # frames at .1, .2, ... .9 s
    assert found[0].tolist() == [0, 1, 1, 4, 4, 4, 4, 4, 4]
    assert found[1].tolist() == [-1, -1, -1]
    assert training_set.states(["b"], [3], 10.0, [0.5], annotations) is None
    points = annotations.assign(end_s=annotations["start_s"])      # as PASCAL's: they tell the state of no frame
    assert training_set.states(["a", "b"], [9, 3], 10.0, [1.0, 0.5], points) is None


def test_a_database_in_place_of_the_journal_gives_the_same_bytes_even_on_another_machine(
    undisturbed: Path, tmp_path: Path, monkeypatch
) -> None:
    """The second project finds every trial finished in the shared storage, and only makes the fits."""
    monkeypatch.setenv("HEARTML_OPTUNA_STORAGE", f"sqlite:///{tmp_path / 'shared.db'}")
    for machine in ("first", "second"):
        root = tmp_path / machine
        root.mkdir()
        monkeypatch.chdir(root)
        search_project.write(root, **SMALL)
        search.run(NAME)
        assert sha256_folder(paths.search(NAME)) == sha256_folder(undisturbed / paths.search(NAME))


@pytest.mark.parametrize(("change", "words"), [
    ({"heads": ["logistic", "perceptron"]}, "search.heads: 'perceptron' is not known"),
    ({"heads": ["logistic", "fcnn"], "network_trials": {"fcnn": 1}, "network_parameters": {
        "fcnn": {"encoders": ["amplitude"], "steps": 3, "batch": 8, "training": {"noise_share": 0.0}}}},
     "search.heads: fcnn needs frames of amplitude"),
    ({"network_trials": {"logistic": 1}}, "search.network_trials: 'logistic' is not known, there are sequence"),
    ({"heads": ["sequence"]}, "at least one head that takes pooled vectors"),
    ({"poolings": {"logspec": ["moments"]}}, "search.poolings: nothing for encoder random_conv"),
    ({"poolings": {"logspec": ["median"], "random_conv": ["moments"]}}, "search.poolings.logspec: 'median'"),
    ({"initial_trials": [{**UNIT, "hyperparameters": {"C": 1.0}}]},
     r"initial_trials\[0\]: hyperparameters: 'C' is not known, there are c, balance"),
    ({"initial_trials": [{**UNIT, "hyperparameters": {"c": 9.0}}]},
     r"initial_trials\[0\]: hyperparameters: c 9 lies outside of 0.0001 to 1"),
    ({"initial_trials": [{**SEQUENCE, "pooling": "moments"}]},
     r"search.initial_trials\[0\]: head sequence takes frames"),
])
def test_parameters_that_name_nothing_are_refused(tmp_path: Path, monkeypatch, change: dict, words: str) -> None:
    monkeypatch.chdir(tmp_path)
    search_project.write(tmp_path, children=10, folds=2, **SMALL | change)
    with pytest.raises(search_space.SearchError, match=words):
        search.run(NAME)


def test_an_initial_trial_is_one_line() -> None:
    line = "encoder=logspec level=recording pooling=everything head=lightgbm trees=100 rate=8.0e-2"
    initial = config.InitialTrialParams.model_validate(line)
    assert initial == config.InitialTrialParams(encoder="logspec", level="recording", pooling="everything",
                                                head="lightgbm", hyperparameters={"trees": 100, "rate": 0.08})
    assert [type(value) for value in initial.hyperparameters.values()] == [int, float]
    assert config.InitialTrialParams.model_validate("encoder=logspec level=recording head=sequence").pooling is None


@pytest.mark.parametrize(("line", "words"), [
    ("encoder=logspec level", "'level' is no key=value"),
    ("encoder=logspec level=unit head=logistic c=high", "c=high is no number"),
    ("encoder=logspec level=child head=logistic", "'recording' or 'unit'"),
    ("level=unit head=logistic", "encoder"),
])
def test_an_initial_trial_that_cannot_be_read_is_refused(line: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        config.InitialTrialParams.model_validate(line)
