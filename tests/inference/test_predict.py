"""Scoring: the answer is the model's, whatever the company; what cannot be scored says why and stops nobody else."""

import csv
import json
import os
import shutil
import subprocess
import sys
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result
from support import tiny_models

from heartml.audio import containers
from heartml.audio.sound_files import write_flac
from heartml.cli import cli
from heartml.core import config, paths
from heartml.inference import batch, inputs, model_lookup, predict
from heartml.inference.inputs import InputFile, InputsError
from heartml.inference.model_lookup import NoModel
from heartml.models.fitted_model import Model
from heartml.registry.version_cautions import CautionedModel

TASK = "simulated-murmur"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def ward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fitted: dict[str, Path]) -> Path:
    """A working folder with parameters, a model and `wards/`: two patients and a recording of nobody in particular."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(fitted[TASK], paths.model(TASK))
    said = {"2530_AV": "murmur", "2530_MV": "murmur", "9979_TV": "clean", "visit": "noise"}
    for seed, (name, kind) in enumerate(said.items()):
        write_flac(Path(f"wards/{name}.flac"), tiny_models.draw_sound(kind, 700 + seed))
    return tmp_path


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["predict", *map(str, arguments)])


def answers(*named: object, **options: str | None) -> dict[str, predict.UnitPrediction]:
    result = predict.run([Path(str(path)) for path in named], options.get("model"), options.get("task"))
    return {answer.unit_id: answer for answer in result.predictions}


def break_files(folder: Path) -> dict[str, str]:
    """Every kind of file that cannot be scored -> the reason that is given."""
    good = tiny_models.draw_sound("clean", 1).pcm
    wav = {"silent": good * 0, "short": good[:400], "stereo": np.stack([good, good[::-1]], 1), "empty": good[:0]}
    for name, samples in wav.items():
        soundfile.write(folder / f"{name}.wav", samples, 4000)
    soundfile.write(folder / "nan.wav", np.array([0.1, np.nan] * 4000), 4000, subtype="FLOAT")
    soundfile.write(folder / "truncated.wav", good, 4000)
    (folder / "truncated.wav").write_bytes((folder / "truncated.wav").read_bytes()[:9000])
    (folder / "not_audio.wav").write_text("no sound")
    return {name: name for name in ("silent", "short", "stereo", "empty", "nan", "truncated", "not_audio")}


def cells(path: str) -> list[list[str]]:
    with Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_the_answer_is_the_models(ward: Path) -> None:
    found = answers("wards")
    assert {unit: answer.decision for unit, answer in found.items()} == {
        "2530": "Present", "9979": "Absent", "wards/visit.flac": "Unknown"}
    sounds = [tiny_models.draw_sound("murmur", 700), tiny_models.draw_sound("murmur", 701)]
    said = Model.load(paths.model(TASK)).predict_audio([(s.floats, 4000) for s in sounds], ["x", "x"])
    assert list(found["2530"].probabilities.values()) == pytest.approx(said.probabilities[0].tolist(), abs=1e-12)
    assert found["2530"].confidence == pytest.approx(said.calibrated[0, said.decisions[0]])
    assert sum(found["2530"].calibrated.values()) == pytest.approx(1)


def test_company_order_and_blocks_do_not_change_an_answer(ward: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    together = answers("wards")
    alone = {**answers("wards/2530_MV.flac", "wards/2530_AV.flac"), **answers("wards/9979_TV.flac")}
    monkeypatch.setattr(predict, "AT_ONCE", 1)
    apart = answers("wards")
    for unit in ("2530", "9979"):
        assert alone[unit].probabilities == pytest.approx(together[unit].probabilities, abs=1e-12)
        assert apart[unit].probabilities == pytest.approx(together[unit].probabilities, abs=1e-12)


def test_the_form_of_a_file_does_not_change_an_answer(ward: Path) -> None:
    pcm = tiny_models.draw_sound("murmur", 3).pcm
    for name, values, subtype in (("a_AV.wav", pcm, "PCM_16"), ("b.wav", np.stack([pcm, pcm], 1), "PCM_16"),
                                  ("c.wav", pcm / 2**16, "FLOAT")):
        soundfile.write(name, values, 4000, subtype=subtype)
    first, second, third = (answers(name)[name].probabilities for name in ("a_AV.wav", "b.wav", "c.wav"))
    assert first == second
    assert third == pytest.approx(first, abs=1e-3)      # half as loud


def test_a_table_says_whose_recordings_they_are(ward: Path) -> None:
    table = "path;patient_id;location\nwards/2530_AV.flac;ann;AV\nwards/9979_TV.flac;ann;\nwards/visit.flac;bob;Phc\n"
    Path("visits.csv").write_text("\ufeff" + table, encoding="utf-8")
    found = answers("visits.csv")
    assert {unit: len(answer.recordings) for unit, answer in found.items()} == {"ann": 2, "bob": 1}
    assert [heard.item.location for heard in found["ann"].recordings] == ["AV", "TV"]


def test_patients_that_two_folders_number_alike_are_two() -> None:
    items = [inputs.from_name(Path(p)) for p in ("a/1_AV.wav", "a/1_MV.wav", "b/1_AV.wav", "b/2_AV.wav", "b/x.wav")]
    assert inputs.units(items, "patient") == ["a/1", "a/1", "b/1", "2", "b/x.wav"]
    assert inputs.units(items, "recording") == [str(item.path) for item in items]


def test_a_patient_whom_a_table_names_is_one_wherever_the_recordings_lie(tmp_path: Path) -> None:
    table = tmp_path / "visits.csv"
    table.write_text("path,patient_id\nAV/x.wav,ann\nMV/y.wav,ann\nMV/2530_AV.wav,\nMV/z.wav,2530\n")
    items = inputs.gather([table])
    assert inputs.units(items, "patient") == ["ann", "ann", str(tmp_path / "MV/2530"), str(table / "2530")]


def test_a_table_that_says_nothing_is_refused(ward: Path) -> None:
    for text, words in (("file,who\na.wav,1\n", "no column `path` among file, who"), ("path\n", "no rows"),
                        ("path\nwards/visit.flac\n\"\"\n", "line 3"), ("", "no column")):
        Path("t.csv").write_text(text)
        with pytest.raises(InputsError, match=words):
            inputs.gather([Path("t.csv")])
    Path("t.csv").write_bytes(b"path\n\xff\xfe\n")
    with pytest.raises(InputsError, match="not a table"):
        inputs.gather([Path("t.csv")])
    Path("bare").mkdir()
    with pytest.raises(InputsError, match="no sound files"):
        inputs.gather([Path("bare")])


def test_no_sound_file_of_a_folder_is_left_out_in_silence(tmp_path: Path) -> None:
    for ending in (*containers.SUFFIXES, ".txt", ".hea", ".pdf"):
        (tmp_path / f"visit{ending}").touch()
    (tmp_path / "._visit.wav").touch()
    assert {item.path.suffix for item in inputs.gather([tmp_path])} == set(containers.SUFFIXES)
    params = config.load(ROOT / "params.yaml")
    for ending in (".m4a", ".amr", ".3gp", ".wma", ".opus", ".dss"):
        recording, waveform = predict.read_recording(InputFile(tmp_path / f"visit{ending}"), params)
        assert waveform is None
        assert recording.fault is not None


def test_a_table_may_spell_a_name_in_the_other_unicode_form(tmp_path: Path) -> None:
    spelled = {form: unicodedata.normalize(form, "K\u00e4the.wav") for form in ("NFC", "NFD")}
    (tmp_path / spelled["NFD"]).touch()
    (tmp_path / "t.csv").write_text(f"path\n{spelled['NFC']}\ngone.wav\n", "utf-8")
    assert [item.path.name for item in inputs.gather([tmp_path / "t.csv"])] == [spelled["NFD"], "gone.wav"]


def test_a_file_that_is_named_twice_is_scored_once(ward: Path) -> None:
    assert len(inputs.gather([Path("wards"), Path("wards/visit.flac"), ward / "wards" / "visit.flac"])) == 4


def test_what_cannot_be_scored_says_why_and_stops_nobody_else(ward: Path) -> None:
    reasons = break_files(ward / "wards")
    done = invoke("wards", "gone.wav")
    assert done.exit_code == 1
    for name, reason in {**reasons, "gone": "missing"}.items():
        line = next(line for line in done.stderr.splitlines() if f"{name}.wav" in line)
        assert line.startswith("heartml: ")
        assert line.endswith(f"[{reason}]")
    assert "Present" in done.stdout
    told = json.loads(invoke("wards", "gone.wav", "--json").stdout)
    assert {entry["error"]["reason"] for entry in told["not_scored"]} == {*reasons.values(), "missing"}
    assert [answer["decision"] for answer in told["answers"]] == ["Present", "Absent", "Unknown"]


def test_a_patient_is_scored_by_the_recordings_that_are_left(ward: Path) -> None:
    before = answers("wards/2530_AV.flac")["2530"].probabilities
    Path("wards/2530_MV.flac").write_bytes(b"")
    left = answers("wards")["2530"]
    assert left.probabilities == pytest.approx(before, abs=1e-12)
    assert "1 of 2 recordings not usable" in left.warnings


def test_nothing_to_score_is_no_crash(ward: Path) -> None:
    done = invoke("gone.wav", "--csv", "out.csv")
    assert done.exit_code == 1
    assert "gone.wav: no such file" in done.stderr
    assert len(cells("out.csv")) == 2


def test_poor_signals_are_warned_of(ward: Path) -> None:
    samples = tiny_models.draw_sound("clean", 4).floats
    soundfile.write("dc.wav", samples * 0.2 + 0.4, 4000)
    soundfile.write("clipped.wav", np.clip(samples * 30, -0.98, 0.98), 4000)
    assert any("DC offset" in words for words in answers("dc.wav")["dc.wav"].warnings)
    assert any("clipped" in words for words in answers("clipped.wav")["clipped.wav"].warnings)


def test_no_cell_of_the_table_is_a_formula(ward: Path) -> None:
    names = ["=1+1.flac", "+1.flac", "-1.flac", "@SUM(A1).flac", "\t=1.flac", "\n=1.flac"]
    for name in names:
        shutil.copy("wards/visit.flac", name)
    Path("=bad.wav").write_text("x")
    invoke("--csv", "out.csv", "--", *names, "=bad.wav")
    rows = cells("out.csv")
    assert len(rows) == 1 + len(names) + 1
    assert rows[0][:3] == ["unit_id", "decision", "confidence"]
    for row in rows:
        assert len(row) == len(rows[0])
        assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) for cell in row)


def test_csv_json_and_folder_say_the_same(ward: Path) -> None:
    invoke("wards", "--csv", "out.csv")
    told = json.loads(invoke("wards", "--json").stdout)
    rows = [dict(zip(cells("out.csv")[0], row, strict=True)) for row in cells("out.csv")[1:]]
    assert [row["unit_id"] for row in rows] == [answer["unit_id"] for answer in told["answers"]]
    for row, answer in zip(rows, told["answers"], strict=True):
        assert row["decision"] == answer["decision"]
        assert float(row["c_Present"]) == pytest.approx(answer["calibrated"]["Present"], abs=1e-6)
        assert float(row["p_Absent"]) == pytest.approx(answer["probabilities"]["Absent"], abs=1e-6)


def test_an_unsure_decision_is_left_to_a_human_and_that_is_no_fault(ward: Path) -> None:
    before = answers("wards")
    surest = max(before.values(), key=lambda answer: answer.confidence)
    careful = replace(Model.load(paths.model(TASK)), refer_below=surest.confidence)
    shutil.rmtree(paths.model(TASK))
    paths.model(TASK).mkdir()
    careful.save(paths.model(TASK))
    done = invoke("wards", "--csv", "out.csv", "--json")
    assert done.exit_code == 0
    told = {answer["unit_id"]: answer for answer in json.loads(done.stdout)["answers"]}
    rows = {row[0]: dict(zip(cells("out.csv")[0], row, strict=True)) for row in cells("out.csv")[1:]}
    for unit, was in before.items():
        assert told[unit]["decision"] == ("refer" if unit != surest.unit_id else was.decision)
        assert (told[unit]["leaning"], told[unit]["confidence"]) == (was.decision, pytest.approx(was.confidence))
        assert (rows[unit]["decision"], rows[unit]["leaning"]) == (told[unit]["decision"], was.decision)
    shown = invoke("wards").stdout
    assert shown.count("refer (") == len(before) - 1


def test_a_name_cannot_write_on_the_terminal(ward: Path) -> None:
    for name in ("[red]x\x1b[2J.flac", "break\nme.flac", "[bold].flac"):
        shutil.copy("wards/visit.flac", name)
        Path(f"bad{name}").write_text("x")
        done = invoke(name, f"bad{name}")
        assert done.exit_code == 1
        assert "\x1b[2J" not in done.output
        assert "[red]x" in done.stdout or "red" not in name
        assert len(done.stderr.splitlines()) == 1


def test_it_says_which_model_answers_and_that_it_is_no_medical_device(ward: Path) -> None:
    shown = invoke("wards").stdout
    assert f"Model: artifacts/{TASK}/model, not registered as champion." in shown
    assert "Not a medical device" in shown
    assert "Not a medical device" in json.loads(invoke("wards", "--json").stdout)["notice"]
    assert "Not a medical device" in invoke("--help").stdout


def test_every_output_says_what_is_known_against_the_model_and_a_setting_forbids_it(ward: Path) -> None:
    words = f"artifacts/{TASK}/model: not registered, so the gate has not judged it"
    done = invoke("wards", "--csv", "out.csv")
    assert f"Caution\n  {words}" in done.stdout
    assert [said[: len(words)] for said in json.loads(invoke("wards", "--json").stdout)["cautions"]] == [words]
    header, *rows = cells("out.csv")
    assert all(row[header.index("cautions")].startswith(words) for row in rows)
    shutil.copytree(paths.model(TASK), "mine")
    named = json.loads(invoke("wards", "--model", "mine", "--json").stdout)
    assert named["cautions"] == ["mine: not registered, so the gate has not judged it; `heartml models` lists those "
                                 "that it has"]
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("cautioned_model: warn", "cautioned_model: refuse"))
    for attempt in (lambda: predict.run([Path("wards")], None, None), lambda: batch.plan(Path("wards"), None, None),
                    lambda: predict.run([Path("wards")], "mine", None)):
        with pytest.raises(CautionedModel, match="not registered"):
            attempt()


def test_recordings_are_units_where_the_task_says_so(ward: Path, fitted: dict[str, Path]) -> None:
    found = answers("wards", model=str(fitted["pascal-sounds"]))
    assert {Path(unit).stem: answer.decision for unit, answer in found.items()} == {
        "2530_AV": "murmur", "2530_MV": "murmur", "9979_TV": "normal", "visit": "artifact"}


def test_a_model_that_is_not_there_is_told_from_what_there_is(ward: Path, fitted: dict[str, Path]) -> None:
    with pytest.raises(NoModel, match="no model in it"):
        model_lookup.locate("wards", None, (TASK,))
    with pytest.raises(NoModel, match="heartml models"):
        model_lookup.locate(f"{TASK}@champion", None, (TASK,))
    with pytest.raises(NoModel, match="--task"):
        model_lookup.locate(None, None, (TASK, "pascal-sounds"))
    with pytest.raises(NoModel, match="heartml retrain"):
        model_lookup.locate(None, "pascal-sounds", (TASK,))
    with pytest.raises(NoModel, match="predicts pascal-sounds"):
        predict.run([Path("wards")], str(fitted["pascal-sounds"]), TASK)
    assert not (ward / ".heartml" / "mlflow.db").exists()      # looking for a champion makes no registry
    assert model_lookup.locate(None, TASK, (TASK, "pascal-sounds")).folder == paths.model(TASK)


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_a_unit_is_never_divided_between_blocks(size: int) -> None:
    units = [str(n) for n in np.random.default_rng(0).integers(0, 12, 60)]
    blocks = inputs.blocks(units, size)
    assert sorted(i for block in blocks for i in block) == list(range(60))
    holders = [{units[i] for i in block} for block in blocks]
    assert sum(map(len, holders)) == len(set(units))


def test_only_circor_like_names_name_a_patient() -> None:
    named = {"2530_AV.wav": ("2530", "AV"), "2530_Phc_2.wav": ("2530", "Phc"), "2530_XX.wav": (None, None),
             "normal__103_1305031931979_B.wav": (None, None), "AV.wav": (None, None)}
    for name, (patient, location) in named.items():
        assert inputs.from_name(Path(name)) == InputFile(Path(name), patient, location)


def test_a_prediction_loads_no_library_that_it_has_no_use_for(ward: Path) -> None:
    code = ("import sys\nfrom pathlib import Path\nfrom heartml.inference import output, predict\n"
            "output.show(predict.run([Path('wards')], None, None))\n"
            "print(*(m for m in ('pandas', 'sklearn', 'mlflow', 'optuna', 'lightgbm', 'prefect') if m in sys.modules))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.stdout.splitlines()[-1] == ""
