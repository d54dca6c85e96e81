"""Models that answer together: who is asked about a murmur, where the model comes from, and what is handed out."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from support import tiny_models

from heartml.audio.sound_files import write_flac
from heartml.cli import cli
from heartml.core import paths
from heartml.inference import batch, model_lookup, model_set, predict
from heartml.inference.model_lookup import LocatedModel
from heartml.models import encoders
from heartml.models.fitted_model import Model

ROOT = Path(__file__).parents[2]
MURMUR = "simulated-murmur"
DESCRIBED = ("simulated-systolic_grading", "simulated-systolic_timing", "simulated-diastolic_timing")


@pytest.fixture(scope="session")
def descriptors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Models under the names of three descriptors; what they tell apart does not matter here."""
    root = tmp_path_factory.mktemp("descriptors")
    return {name: tiny_models.fit(root / name, name) for name in DESCRIBED}


@pytest.fixture
def ward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fitted: dict[str, Path]) -> Path:
    """A working folder with a murmur model, and a patient with a murmur at MV beside one without."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(fitted[MURMUR], paths.model(MURMUR))
    said = {"2530_AV": "clean", "2530_MV": "murmur", "2530_TV": "murmur", "9979_TV": "clean"}
    for seed, (name, kind) in enumerate(said.items()):
        write_flac(Path(f"wards/{name}.flac"), tiny_models.draw_sound(kind, 700 + seed))
    return tmp_path


@pytest.fixture
def told(ward: Path, descriptors: dict[str, Path]) -> Path:
    """The same with descriptors beside the murmur model."""
    for name, folder in descriptors.items():
        shutil.copytree(folder, paths.model(name))
    return ward


def answers() -> dict[str, predict.UnitPrediction]:
    return {answer.unit_id: answer for answer in predict.run([Path("wards")], None, MURMUR).predictions}


def test_a_murmur_is_described_and_its_absence_is_not(told: Path) -> None:
    found = answers()
    assert (found["2530"].decision, found["9979"].decision) == ("Present", "Absent")
    assert found["9979"].description is None
    said = found["2530"].description
    assert said is not None
    assert [one.name for one in said.features] == ["systolic_timing", "systolic_grading"], "in a clinician's order"
    assert said.phrase.startswith("systolic, ")


def test_a_feature_is_what_its_own_model_says_of_the_patient(told: Path) -> None:
    described = answers()["2530"].description
    assert described is not None
    kinds = ("clean", "murmur", "murmur")
    heard = [(tiny_models.draw_sound(kind, 700 + seed).floats, tiny_models.RATE_HZ) for seed, kind in enumerate(kinds)]
    for one in described.features:
        model = Model.load(paths.model(f"simulated-{one.name}"))
        alone = model.predict_audio(heard, ["2530"] * 3)
        assert one.decision == alone.classes[alone.decisions[0]]
        assert one.confidence == pytest.approx(alone.calibrated[0, alone.decisions[0]], abs=1e-12)


def test_without_descriptors_only_the_place_can_be_said(ward: Path) -> None:
    said = answers()["2530"].description
    assert said is not None
    assert said.features == ()
    assert said.phrase in ("", "loudest at MV", "loudest at TV")


def test_recordings_are_turned_into_frames_once_however_many_models_are_asked(
    told: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, frames_of = [], encoders.frames_of

    def count(*arguments: object) -> object:
        made.append(arguments)
        return frames_of(*arguments)

    monkeypatch.setattr(encoders, "frames_of", count)
    answers()
    assert len(made) == 4


def test_nobody_without_a_murmur_makes_a_descriptor_load(told: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Path] = []
    load = Model.load

    def note(folder: Path) -> Model:
        loaded.append(folder)
        return load(folder)

    monkeypatch.setattr(Model, "load", note)
    predict.run([Path("wards/9979_TV.flac")], None, MURMUR)
    assert loaded == [paths.model(MURMUR)]
    predict.run([Path("wards")], None, MURMUR)
    assert len(loaded) == 4


def test_beside_a_registered_model_nobody_speaks_whom_the_gate_did_not_promote(told: Path) -> None:
    champion = LocatedModel(paths.model(MURMUR), "simulated-murmur version 3, the champion", MURMUR, "3")
    assert model_lookup.companion_models(champion, DESCRIBED) == []
    assert model_set.load(champion).descriptors == ()
    unregistered = LocatedModel(paths.model(MURMUR), "a folder", None, None)
    found = model_lookup.companion_models(unregistered, [*DESCRIBED, "simulated-systolic_pitch"])
    assert [one.name for one in found] == [*DESCRIBED]


def test_what_is_known_against_a_descriptor_is_said_with_the_murmur_model(told: Path) -> None:
    result = predict.run([Path("wards/9979_TV.flac")], None, MURMUR)
    assert [line.partition(":")[0] for line in result.cautions] == [
        str(paths.model(name)) for name in (MURMUR, "simulated-systolic_timing", "simulated-systolic_grading")]


def test_a_reply_that_was_cached_before_there_were_cautions_is_asked_for_again(told: Path) -> None:
    whole = {"folder": str(paths.model(MURMUR)), "stored": "x", "run_id": "0", "consent": "", "version": "1"}
    assert model_lookup._if_usable(whole) is None
    assert model_lookup._if_usable({**whole, "cautions": []}) is None, "nor before it named the training data"
    assert model_lookup._if_usable({**whole, "cautions": [], "folds": ""}) is None, "nor before nobody was named"
    now = {**whole, "cautions": [], "public_cautions": [], "folds": ""}
    assert model_lookup._if_usable(now) == now


def test_another_task_has_no_descriptors(told: Path, fitted: dict[str, Path]) -> None:
    found = model_set.load(LocatedModel(fitted["pascal-sounds"], "a folder", None, None))
    assert found.descriptors == ()
    assert not found.finds_murmurs


def test_what_is_unsure_is_not_said_but_handed_out(told: Path) -> None:
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("least_confidence: 0.6", "least_confidence: 1.0"))
    said = answers()["2530"].description
    assert said is not None
    assert said.reported == ()
    assert len(said.features) == 2


def test_table_json_and_csv_say_the_same_phrase(told: Path) -> None:
    def invoke(*options: str) -> str:
        done = CliRunner().invoke(cli, ["predict", "wards", "--task", MURMUR, *options])
        assert done.exit_code == 0, done.output
        return done.stdout

    description = answers()["2530"].description
    assert description is not None
    assert f"2530: {description.phrase_with_confidence}" in invoke("--csv", "out.csv")
    by_unit = {one["unit_id"]: one["description"] for one in json.loads(invoke("--json"))["answers"]}
    assert by_unit["9979"] is None
    assert by_unit["2530"]["phrase"] == description.phrase
    assert [one["name"] for one in by_unit["2530"]["features"]] == ["systolic_timing", "systolic_grading"]
    for one in by_unit["2530"]["features"]:
        assert sum(one["calibrated"].values()) == pytest.approx(1)
        assert one["said"] == (one["confidence"] >= 0.6)
        assert "not registered" in one["model"]
    with Path("out.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["unit_id"]: row for row in csv.DictReader(file)}
    assert (rows["2530"]["description"], rows["9979"]["description"]) == (description.phrase_with_confidence, "")


def test_scoring_for_a_schedule_describes_too_and_notices_another_descriptor(told: Path) -> None:
    batch.run(Path("wards"), Path("scores.parquet"), None, MURMUR)
    work, rows = batch.plan(Path("wards"), None, MURMUR), pd.read_parquet("scores.parquet")
    found = rows.groupby("unit_id")["description"].unique()
    description = answers()["2530"].description
    assert description is not None
    assert list(found["2530"]) == [description.phrase_with_confidence]
    assert list(found["9979"]) == [""]
    assert rows["description"].notna().all()
    shutil.rmtree(paths.model("simulated-systolic_timing"))
    assert batch.plan(Path("wards"), None, MURMUR).key != work.key


@pytest.mark.parametrize("decision", [0, 1, 2])
def test_only_the_positive_class_is_described(
    told: Path, decision: int
) -> None:
    models = model_set.load(model_lookup.locate(None, MURMUR, (MURMUR,)))
    said = models.model.predict_audio([(tiny_models.draw_sound("murmur", 1).floats, tiny_models.RATE_HZ)], ["x"])
    forced = type(said)(**{**vars(said), "decisions": np.array([decision])})
    assert models.murmur_rows(forced) == ([0] if said.classes[decision] == "Present" else [])
