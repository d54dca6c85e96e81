"""What a model says of recordings that it cannot judge: `refer` with the reason, in every kind of output."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile
from support import tiny_models
from support.input_checks import checks

from heartml.inference import output, predict, serving
from heartml.inference.inputs import InputFile
from heartml.inference.model_lookup import LocatedModel
from heartml.inference.model_set import ModelSet
from heartml.models.applicability import words
from heartml.models.fitted_model import Model

UNLIKE = words()["unlike"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model.load(tiny_models.fit(tmp_path_factory.mktemp("tiny") / "model"))


@pytest.fixture(scope="module")
def outside(plain: Model) -> Model:
    return replace(plain, applicability=checks(0.001))


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("sounds")
    for name, seconds in (("a", 3.0), ("b", 1.0)):
        samples = tiny_models.draw_sound("clean", 5, seconds)
        soundfile.write(folder / f"{name}.wav", samples.pcm, samples.sample_rate_hz)
    return [folder / "a.wav", folder / "b.wav"]


def answer(model: Model, files: list[Path], patient: str | None = None) -> predict.PredictResult:
    items = [InputFile(path, patient, None) for path in files]
    located = LocatedModel(Path("model"), "the folder model", None, None)
    return predict.predict_files(items, ModelSet(model, ()), located, tiny_models.PARAMS)


def test_a_model_without_checks_answers_as_before(plain: Model, sounds: list[Path]) -> None:
    found = answer(plain, sounds)
    assert [(one.decision, one.reasons, one.outside) for one in found.predictions] == [
        (one.top_class, (), False) for one in found.predictions]


def test_a_model_that_accepts_a_recording_gives_the_same_answer(plain: Model, sounds: list[Path]) -> None:
    first, second = answer(plain, sounds[:1]).predictions[0], answer(replace(plain, applicability=checks(1e6)),
                                                                      sounds[:1]).predictions[0]
    assert (first.decision, first.calibrated, second.outside) == (second.decision, second.calibrated, False)


def test_text_shows_the_reason_and_no_number(
    outside: Model, sounds: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    output.show(answer(outside, sounds))
    shown = capsys.readouterr().out
    row = next(line for line in shown.splitlines() if line.strip().startswith("a.wav"))
    assert row.split() == ["a.wav", "refer", "-", "-", "-"]
    assert f"a.wav: {UNLIKE}" in shown
    assert "b.wav: too short to judge: 1.00 s, at least 1.50 s" in shown
    assert "%" not in row


def test_json_and_csv_hold_the_reason_beside_every_number(outside: Model, sounds: list[Path], tmp_path: Path) -> None:
    found = answer(outside, sounds)
    first = json.loads(output.as_json(found))["answers"][0]
    assert (first["decision"], first["reasons"], first["outside"]) == ("refer", [UNLIKE], True)
    assert first["recordings"][0]["findings"][0]["check"] == "unlike"
    output.write_csv(found, tmp_path / "out.csv")
    rows = list(csv.DictReader((tmp_path / "out.csv").open()))
    assert [row["decision"] for row in rows] == ["refer", "refer"]
    assert rows[0]["reasons"] == UNLIKE and float(rows[0]["confidence"]) > 0


def test_a_served_model_says_it_too(outside: Model, tmp_path: Path) -> None:
    outside.save(tmp_path)
    table = serving.predict_table(Model.load(tmp_path), tiny_models.PARAMS, serving.example())
    assert set(table["decision"]) == {"refer"}
    assert all(UNLIKE in reasons for reasons in table["reasons"])


def test_half_of_a_patients_recordings_decide(plain: Model, sounds: list[Path]) -> None:
    short = replace(plain, applicability=checks(1e6))      # only the recording of one second is outside
    [one] = answer(short, [sounds[0], sounds[0], sounds[1]], "p1").predictions
    assert (one.outside, one.reasons) == (False, ())
    assert any(warning.startswith("b.wav: too short to judge") for warning in one.warnings)
    [two] = answer(short, sounds, "p1").predictions
    assert two.outside and two.decision == "refer"


def test_storing_keeps_the_checks_and_the_bytes(outside: Model, plain: Model, tmp_path: Path) -> None:
    for name, model in (("first", outside), ("again", outside), ("plain", plain)):
        (tmp_path / name).mkdir()
        model.save(tmp_path / name)
    read = [{file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("first", "again")]
    assert read[0] == read[1]
    assert "applicability" not in json.loads((tmp_path / "plain/model.json").read_text())
    assert Model.load(tmp_path / "plain").applicability is None
