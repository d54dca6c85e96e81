"""All tasks of a collection answered at once; and what is said of recordings that a model was trained on."""

import csv
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result
from support import tiny_models
from support.workspaces import ROOT

from heartml.audio import sound_files
from heartml.audio.sound_files import write_flac
from heartml.cli import cli
from heartml.core import config, paths, tasks
from heartml.core.system import files
from heartml.inference import data_recordings, predict, several_output, several_tasks, training_recordings
from heartml.inference.data_recordings import DataRecording
from heartml.inference.model_lookup import NoModel
from heartml.models import encoders
from heartml.models.fitted_model import Model

FIRST, SECOND, THIRD, FOURTH = TASKS = several_tasks.asked("bmdhs-diseases", ())
SOUNDS = {"p1_a": "murmur", "p1_b": "murmur", "p2_a": "clean", "visit": "clean"}


@pytest.fixture(scope="module")
def fitted_disease(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.fit(tmp_path_factory.mktemp("disease") / "model", FIRST)


@pytest.fixture
def clinic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fitted_disease: Path) -> Iterator[Path]:
    """A folder with models of two diseases (of four tasks), a table of two patients and one more recording."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    config.set_tasks(TASKS)
    for name in (FIRST, THIRD):
        shutil.copytree(fitted_disease, paths.model(name))
        own = files.read_json(paths.model(name) / "model.json")
        files.write_json(paths.model(name) / "model.json",
                         {**own, "assignment": name, "task": name.rpartition("-")[2]})
    for seed, (name, kind) in enumerate(SOUNDS.items()):
        write_flac(Path(f"{name}.flac"), tiny_models.draw_sound(kind, 700 + seed))
    Path("visits.csv").write_text("path,patient_id\np1_a.flac,p1\np1_b.flac,p1\np2_a.flac,p2\nbroken.wav,p3\n")
    Path("broken.wav").write_text("no sound")
    yield tmp_path


def cells(row: str) -> list[str]:
    """The cells of one row of a printed table, which are two spaces or more apart."""
    return re.split(r"\s{2,}", row.strip())


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["predict", *map(str, arguments)])


def test_one_table_has_every_trained_task_and_says_what_a_single_one_says(clinic: Path) -> None:
    done = invoke("visits.csv", "--csv", "out.csv")
    assert done.exit_code == 1, "one file cannot be scored"
    assert done.stderr.count("broken.wav") == 1
    header = next(line for line in done.stdout.splitlines() if FIRST in line)
    assert THIRD in header
    for words in (f"{SECOND}: no champion in the registry and no", f"{FOURTH}: no champion", "Not a medical device"):
        assert words in done.stdout
    told = json.loads(invoke("visits.csv", "--json").stdout)
    assert [one["task"] for one in told["tasks"]] == [FIRST, THIRD]
    with Path("out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["unit_id"] for row in rows] == ["p1", "p2", "p3"]
    for task, one in zip((FIRST, THIRD), told["tasks"], strict=True):
        alone = json.loads(invoke("visits.csv", "--task", task, "--json").stdout)
        assert alone == one
        for row, answer in zip(rows, one["answers"], strict=False):
            assert row[f"{task} decision"] == answer["decision"]
            assert float(row[f"{task} confidence"]) == pytest.approx(answer["confidence"], abs=1e-6)
    assert "broken.wav" in rows[2]["error"] and rows[2][f"{FIRST} decision"] == ""
    assert "not registered" in rows[0]["cautions"]


def test_a_decision_that_is_left_to_a_human_says_why_for_its_own_task(clinic: Path) -> None:
    replace(Model.load(paths.model(FIRST)), refer_below=1.0).save(paths.model(FIRST))
    done = invoke("visit.flac", "--csv", "out.csv")
    with Path("out.csv").open(newline="") as file:
        [row] = csv.DictReader(file)
    assert (row[f"{FIRST} decision"], row[f"{THIRD} reasons"]) == ("refer", "")
    assert row[f"{FIRST} reasons"] and f"visit.flac, {FIRST}: {row[f'{FIRST} reasons']}" in done.stdout


def test_warnings_are_those_of_each_organ(clinic: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = files.read_json(paths.model(THIRD) / "model.json")
    definition = {**tasks.resolve(THIRD).task.to_json(), "organ": "lung"}
    files.write_json(paths.model(THIRD) / "model.json", {**own, "definition": definition})
    asked, whole = [], predict.read_recording
    monkeypatch.setattr(predict, "read_recording", lambda item, params, organ: asked.append(organ) or whole(
        item, params, organ))
    done = invoke("visit.flac")
    assert done.exit_code == 0, done.output
    assert sorted(asked) == ["heart", "lung"]


def test_no_cell_is_a_formula(clinic: Path) -> None:
    Path("visits.csv").write_text("path,patient_id\n=1.flac,=2+3\nbroken.wav,@p3\n")
    shutil.copyfile("visit.flac", "=1.flac")
    invoke("visits.csv", "--csv", "out.csv")
    with Path("out.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert [row[0] for row in rows] == ["'=2+3", "'@p3"] and len({len(row) for row in (header, *rows)}) == 1
    assert not any(cell.startswith(("=", "+", "-", "@")) for row in rows for cell in row)


def test_frames_are_made_once_for_all_tasks(clinic: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, frames_of = [], encoders.frames_of
    monkeypatch.setattr(encoders, "frames_of", lambda *given: made.append(1) or frames_of(*given))
    several_tasks.run([Path("visits.csv")], TASKS)
    assert len(made) == 3


def test_a_collection_or_a_group_is_asked_for_by_its_name_and_a_single_task_as_before(clinic: Path) -> None:
    for named in ("bmdhs", "bmdhs-diseases"):
        assert [one["task"] for one in json.loads(invoke("visit.flac", "--task", named, "--json").stdout)["tasks"]] == [
            FIRST, THIRD]
    config.set_tasks((*TASKS, "pascal-sounds"))
    done = invoke("visit.flac")
    assert done.exit_code == 1 and "choose one with --task" in str(done.exception)
    assert several_tasks.asked(None, ["simulated-murmur", "simulated-systolic_timing", "simulated-outcome"]) == (
        "simulated-murmur", "simulated-outcome"), "descriptors describe the murmurs that are found"
    assert list(several_output.rows(several_tasks.run([Path("visit.flac")], (FIRST,)).results)) == ["visit.flac"]
    with pytest.raises(NoModel, match=f"{SECOND}: no champion.*; {FOURTH}: no champion"):
        several_tasks.run([Path("visit.flac")], (SECOND, FOURTH))


def test_recordings_that_a_model_was_trained_or_tested_on_are_named(clinic: Path) -> None:
    ids = [sound_files.read(Path(f"{name}.flac")).recording_id for name in SOUNDS]
    files.write_parquet(paths.folds(FIRST), pd.DataFrame({"recording_id": ids[:3], "part": ["0", "test", "test"]}))
    done = invoke(*(f"{name}.flac" for name in SOUNDS), "--task", FIRST, "--csv", "out.csv")
    assert "Training data\n  1 of 4 recordings, trained: the model was trained on them" in done.stdout
    assert "  2 of 4 recordings, held out: the model was tested on them" in done.stdout
    shown = [cells(row)[-1] for row in done.stdout.splitlines() if ".flac" in row]
    assert shown[:3] == ["trained", "held out", "held out"]
    several = invoke("p1_a.flac", "visit.flac").stdout
    assert f"{FIRST}: 1 of 2 recordings (p1_a.flac): the model was trained on them" in several
    with Path("out.csv").open(newline="") as file:
        assert [row["used_for"] for row in csv.DictReader(file)] == ["trained", "held out", "held out", ""]
    told = json.loads(invoke("p1_a.flac", "visit.flac", "--json").stdout)["tasks"]
    assert [[r["used_for"] for one in task["answers"] for r in one["recordings"]] for task in told] == [
        ["trained", None], [None, None]], "each model has its own training data"
    assert "Training data" not in invoke("visit.flac", "--task", FIRST).stdout
    assert training_recordings.read(paths.folds(FIRST)).held_out == {*ids[1:3]}
    assert training_recordings.read(paths.folds(SECOND)) == training_recordings.NOTHING_KNOWN


def test_a_recording_of_the_data_has_its_old_name_and_its_label_beside_the_answer(clinic: Path) -> None:
    key = sound_files.read(Path("p1_a.flac")).recording_id
    table = {"recording_id": [key, "0" * 64], "source_file": ["ward/Ward 7.wav", "ward/other.wav"],
             "patient_id": ["bmdhs-p1", "bmdhs-p2"], "label_aortic_stenosis": ["Absent", None]}
    files.write_parquet(paths.RECORDINGS, pd.DataFrame(table))
    shutil.copy("p1_a.flac", f"{key}.flac")
    row = next(row for row in invoke(f"{key}.flac", "visit.flac", "--task", FIRST).stdout.splitlines() if "Ward" in row)
    assert cells(row)[0] == "Ward 7.wav" and cells(row)[4] == "Absent"
    told = json.loads(invoke(f"{key}.flac", "visit.flac", "--task", FIRST, "--json").stdout)["answers"]
    assert [one["known_label"] for one in told] == ["Absent", None]
    assert [one["recordings"][0]["source_file"] for one in told] == ["ward/Ward 7.wav", None]
    assert "Ward 7.wav" in invoke(f"{key}.flac", "--task", "bmdhs").stdout, "with several tasks too"
    assert key not in invoke(f"{key}.flac").stdout
    [known] = data_recordings.read({key, "1" * 64}, "elsewhere-unheard").values()
    assert known == DataRecording("ward/Ward 7.wav", "bmdhs-p1", None), "a task that this project does not know"


def test_what_could_not_be_scored_is_said_before_what_to_know(clinic: Path) -> None:
    done = invoke("broken.wav", "visit.flac", "--task", FIRST)
    assert done.output.index("visit.flac") < done.output.index("broken.wav") < done.output.index("Model:")
