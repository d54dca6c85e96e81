"""A model is measured on a new source before it may judge its recordings."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from support import tiny_models
from support.input_checks import checks

from heartml.audio import sound_files
from heartml.audio.sound_files import write_flac
from heartml.cli import cli
from heartml.core import paths
from heartml.inference import source_validation, validated_sources
from heartml.inference.training_recordings import KnownRecordings
from heartml.models.applicability import words
from heartml.models.fitted_model import Model

ROOT = Path(__file__).parents[2]
CLASSES = tiny_models.CLASS_OF_SOUND["murmur"]
MODEL = Path("model")
LIMIT = "calibration_limit: 0.15"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, fitted: dict[str, Path]) -> Path:
    """A folder with a model that finds everything unlike its training, and 36 labelled recordings."""
    root = tmp_path_factory.mktemp("ward")
    (root / MODEL).mkdir()
    replace(Model.load(fitted["simulated-murmur"]), applicability=checks(0.001)).save(root / MODEL)
    rows = ["path,patient_id,label"]
    for n in range(36):
        kind = list(CLASSES)[n % 3]
        write_flac(root / f"{n}.flac", tiny_models.draw_sound(kind, 900 + n))
        rows.append(f"{n}.flac,p{n},{CLASSES[kind]}")
    (root / "ward.csv").write_text("\n".join(rows))
    return root


@pytest.fixture
def ward(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path / "ward")
    monkeypatch.chdir(tmp_path / "ward")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    text = (ROOT / "params.yaml").read_text()
    assert LIMIT in text
    paths.PARAMS.write_text(text.replace(LIMIT, "calibration_limit: 0.5"))      # this model is right and unsure
    return tmp_path / "ward"


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(cli, list(map(str, arguments)))


def accept(*names: str) -> None:
    text = paths.PARAMS.read_text()
    assert "accepted_sources: []" in text
    paths.PARAMS.write_text(text.replace("accepted_sources: []", f"accepted_sources: [{', '.join(names)}]"))


def test_a_source_is_refused_then_validated_then_accepted(ward: Path) -> None:
    before = json.loads(invoke("predict", "0.flac", "--model", MODEL, "--json").output)["answers"][0]
    assert (before["decision"], before["reasons"]) == ("refer", [words()["unlike"]])
    done = invoke("validate-source", "ward-3", "ward.csv", "--model", MODEL)
    assert done.exit_code == 0, done.output
    assert "ward-3: passed. To accept its recordings, add ward-3 to `predict.accepted_sources`" in done.output
    evidence = json.loads(Path("sources/ward-3.json").read_text())
    assert (evidence["units"], evidence["outside_before"], evidence["validated"]) == (36, 1.0, True)
    assert evidence["outside_after"] < 0.1 and evidence["scores"]["uar"]["low"] > 0.5
    accept("ward-3")
    after = json.loads(invoke("predict", "0.flac", "--model", MODEL, "--json").output)["answers"][0]
    assert (after["decision"], after["outside"]) == (before["leaning"], False)
    assert "It also accepts recordings of ward-3 (sources/)." in invoke("predict", "0.flac", "--model", MODEL).output
    assert invoke("score", "0.flac", "--model", MODEL, "--to", "out.parquet").exit_code == 0


def test_evidence_holds_for_one_model(ward: Path) -> None:
    assert invoke("validate-source", "ward-3", "ward.csv", "--model", MODEL).exit_code == 0
    accept("ward-3")
    replace(Model.load(MODEL), refer_below=0.1).save(MODEL)
    said = json.loads(invoke("predict", "0.flac", "--model", MODEL, "--json").output)
    assert said["answers"][0]["decision"] == "refer"
    assert any("ward-3 was validated for another model and is not accepted" in one for one in said["cautions"])


def test_a_source_without_evidence_or_with_bad_evidence_is_no_source(ward: Path) -> None:
    accept("ward-9")
    done = invoke("predict", "0.flac", "--model", MODEL)
    assert "there is no sources/ward-9.json: run `heartml validate-source ward-9 TABLE.csv`" in str(done.exception)
    table = Path("ward.csv").read_text().splitlines()
    wrong = [row.replace("Present", "x").replace("Absent", "Present").replace("x", "Absent") for row in table]
    Path("ward.csv").write_text("\n".join(wrong))
    done = invoke("validate-source", "ward-9", "ward.csv", "--model", MODEL)
    assert done.exit_code == 1
    assert "ward-9: not validated: " in done.output
    done = invoke("predict", "0.flac", "--model", MODEL)
    assert "accepted_sources names ward-9, which did not pass" in str(done.exception)


@pytest.mark.parametrize(("change", "words"), [
    (lambda rows: rows[:1] + [row.replace("Present", "maybe") for row in rows[1:]],
     "ward.csv, line 2: label 'maybe' is none of Present, Unknown, Absent"),
    (lambda rows: [row.rpartition(",")[0] for row in rows], "ward.csv: no column `label`"),
    (lambda rows: [row.replace("p1,", "p0,") for row in rows], "has two labels"),
])
def test_a_table_that_cannot_be_used_is_named(ward: Path, change, words: str) -> None:
    Path("ward.csv").write_text("\n".join(change(Path("ward.csv").read_text().splitlines())))
    assert words in str(invoke("validate-source", "ward-3", "ward.csv", "--model", MODEL).exception)
    assert not validated_sources.FOLDER.exists()


def test_recordings_of_the_training_are_no_evidence(ward: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    used = KnownRecordings(frozenset(sound_files.read(Path(f"{n}.flac")).recording_id for n in range(30)))
    monkeypatch.setattr(source_validation.training_recordings, "read", lambda folds: used)
    done = invoke("validate-source", "ward-3", "ward.csv", "--model", MODEL)
    assert done.exit_code == 1
    assert "0.flac: the model was trained or tested on it" in done.output
    assert "and 25 more, all in sources/ward-3.json" in done.output
    assert "6 of 36 recordings usable, 6 units" in done.output


def test_a_file_that_cannot_be_read_is_named(ward: Path) -> None:
    Path("5.flac").write_bytes(b"no sound")
    done = invoke("validate-source", "ward-3", "ward.csv", "--model", MODEL)
    assert "35 of 36 recordings usable" in done.output and "5.flac: " in done.output
    for sound in Path().glob("*.flac"):
        sound.unlink()
    done = invoke("validate-source", "ward-3", "ward.csv", "--model", MODEL)
    assert "none of its 36 recordings can be used: 0.flac: " in str(done.exception)


def test_a_confidence_that_is_off_is_not_accepted(ward: Path) -> None:
    paths.PARAMS.write_text(paths.PARAMS.read_text().replace("calibration_limit: 0.5", LIMIT))
    done = invoke("validate-source", "ward-3", "ward.csv", "--model", MODEL)
    assert done.exit_code == 1
    assert "its confidence cannot be trusted there: the calibration error is 0.2" in done.output


@pytest.mark.parametrize(("damage", "words"), [
    (lambda: Path("sources/ward-3.json").write_text("{}"), "sources/ward-3.json: damaged (KeyError)"),
    (lambda: Path("sources/ward-3.json").write_text("x{"), "sources/ward-3.json: damaged (JSONDecodeError)"),
    (lambda: Path("sources/ward-3.json").write_text("[]"), "sources/ward-3.json: damaged (TypeError)"),
    (lambda: Path("sources/ward-3.safetensors").write_bytes(b"other"), "sources/ward-3.safetensors: cannot be read"),
    (lambda: Path("sources/ward-3.safetensors").unlink(), "sources/ward-3.safetensors: cannot be read"),
])
def test_damaged_evidence_is_told_in_one_line(ward: Path, damage, words: str) -> None:
    assert invoke("validate-source", "ward-3", "ward.csv", "--model", MODEL).exit_code == 0
    accept("ward-3")
    damage()
    assert words in str(invoke("predict", "0.flac", "--model", MODEL).exception)


@pytest.mark.parametrize("names", [("../sources/ward-3",), ("ward-3", "ward-3")])
def test_an_accepted_source_is_a_name_and_stands_there_once(ward: Path, names: tuple[str, ...]) -> None:
    accept(*names)
    assert "is no name of a source" in str(invoke("predict", "0.flac", "--model", MODEL).exception)


def test_one_patient_is_no_source_and_leaves_what_passed(ward: Path) -> None:
    assert invoke("validate-source", "ward-3", "ward.csv", "--model", MODEL).exit_code == 0
    before = {file.name: file.read_bytes() for file in Path("sources").iterdir()}
    rows = Path("ward.csv").read_text().splitlines()
    Path("one.csv").write_text("\n".join(rows[:2]))
    done = invoke("validate-source", "ward-3", "one.csv", "--model", MODEL)
    assert "one.csv: 1 usable patients, at least 5 are needed" in str(done.exception)
    assert {file.name: file.read_bytes() for file in Path("sources").iterdir()} == before
    Path("two.csv").write_text("\n".join([*rows, rows[1].replace("Present", "Absent")]))
    done = invoke("validate-source", "ward-3", "two.csv", "--model", MODEL)
    assert "two.csv, line 38: '0.flac' has two labels, Present and Absent" in str(done.exception)


def test_few_recordings_are_no_evidence(ward: Path) -> None:
    Path("ward.csv").write_text("\n".join(Path("ward.csv").read_text().splitlines()[:10]))
    outcome = source_validation.run("ward-3", Path("ward.csv"), str(MODEL), None)
    assert "not validated" in source_validation.in_words(outcome)
    done = invoke("validate-source", "ward-3", "ward.csv", "--model", MODEL)
    assert done.exit_code == 1 and "fewer than two classes have 10 accepted units" in done.output


@pytest.mark.parametrize("name", ["Ward", "../x", "training", "a b"])
def test_a_name_is_a_plain_word(ward: Path, name: str) -> None:
    done = invoke("validate-source", name, "ward.csv", "--model", MODEL)
    assert "a source's name has small letters, digits and hyphens" in str(done.exception)
