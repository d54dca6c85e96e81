"""The model: what is saved is what is used, a patient is predicted from its own recordings, no pickle anywhere."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support import tiny_models
from support.small_heads import HYPERPARAMETERS
from support.small_tuning import with_encoder

from heartml.core.system.hashing import sha256_folder
from heartml.models import encoders
from heartml.models.ensemble.candidate import CandidateSpec, Member
from heartml.models.ensemble.stacking import StackingView
from heartml.models.fitted_model import REFER, Model, ModelError, Predictions
from heartml.models.heads import HEADS, Targets

UNITS = ["b", "a", "b", "a", "c", "b"]
KINDS = ["murmur", "clean", "murmur", "clean", "noise", "clean"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.fit(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def waveforms() -> list[tuple[np.ndarray, int]]:
    feature_set = [tiny_models.draw_sound(kind, 100 + seed) for seed, kind in enumerate(KINDS)]
    return [(sound.floats, sound.sample_rate_hz) for sound in feature_set]


def same(one: Predictions, two: Predictions) -> None:
    assert one.unit_ids == two.unit_ids
    for name in ("probabilities", "calibrated", "decisions", "recording_probabilities"):
        np.testing.assert_allclose(getattr(one, name), getattr(two, name), atol=1e-12)


def test_probabilities_are_probabilities(folder: Path, waveforms) -> None:
    found = Model.load(folder).predict_audio(waveforms, UNITS)
    assert found.unit_ids == ("b", "a", "c")
    assert found.recording_probabilities.shape == (6, 3)
    for p in (found.probabilities, found.calibrated, found.recording_probabilities):
        np.testing.assert_allclose(p.sum(1), 1)
        assert (p >= 0).all()


def test_it_predicts_the_classes_it_was_fitted_to(folder: Path, waveforms) -> None:
    found = Model.load(folder).predict_audio(waveforms, [str(n) for n in range(6)])
    expected = ["Present", "Absent", "Present", "Absent", "Unknown", "Absent"]
    assert [found.classes[decision] for decision in found.decisions] == expected


def test_saving_and_loading_changes_nothing(folder: Path, waveforms, tmp_path: Path) -> None:
    model = Model.load(folder)
    (tmp_path / "again").mkdir()
    model.save(tmp_path / "again")
    assert sha256_folder(tmp_path / "again") == sha256_folder(folder)
    same(model.predict_audio(waveforms, UNITS), Model.load(tmp_path / "again").predict_audio(waveforms, UNITS))


def test_frames_and_audio_give_one_prediction(folder: Path, waveforms) -> None:
    model = Model.load(folder)
    spec = encoders.spec("logspec", tiny_models.PARAMS)
    loaded = encoders.load(spec)
    frames = [encoders.frames_of(loaded, spec, x, rate).astype(np.float32) for x, rate in waveforms]
    same(model.predict({"logspec": frames}, UNITS), model.predict_audio(waveforms, UNITS))


def test_what_is_not_sure_enough_is_referred_and_a_saved_model_says_the_same(
    folder: Path, waveforms, tmp_path: Path
) -> None:
    plain = Model.load(folder).predict_audio(waveforms, [str(n) for n in range(6)])
    assert plain.verdicts == plain.top_classes, "a model without a limit decides everything"
    limit = float(np.sort(plain.confidence)[3])
    (tmp_path / "careful").mkdir()
    replace(Model.load(folder), refer_below=limit).save(tmp_path / "careful")
    found = Model.load(tmp_path / "careful").predict_audio(waveforms, [str(n) for n in range(6)])
    assert [verdict == REFER for verdict in found.verdicts] == (plain.confidence < limit).tolist()
    assert found.verdicts.count(REFER) == 3
    assert found.top_classes == plain.top_classes
    same(found, plain)


def test_a_model_that_was_saved_before_there_was_a_limit_decides_everything(
    folder: Path, waveforms, tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path / "old")
    saved = json.loads((tmp_path / "old/model.json").read_text())
    del saved["refer_below"]
    (tmp_path / "old/model.json").write_text(json.dumps(saved))
    old = Model.load(tmp_path / "old")
    assert old.refer_below == 0
    assert REFER not in old.predict_audio(waveforms, UNITS).verdicts


def test_a_patient_is_judged_by_its_own_recordings_in_any_order(folder: Path, waveforms) -> None:
    model = Model.load(folder)
    whole = model.predict_audio(waveforms, UNITS)
    for unit_id, row in zip(whole.unit_ids, range(3), strict=True):
        own = [w for w, u in zip(waveforms, UNITS, strict=True) if u == unit_id]
        alone = model.predict_audio(own[::-1], [unit_id] * len(own))
        np.testing.assert_allclose(alone.probabilities[0], whole.probabilities[row], atol=1e-9)


def test_gain_does_not_change_the_decision(folder: Path, waveforms) -> None:
    model = Model.load(folder)
    quiet = [(0.1 * x, rate) for x, rate in waveforms]
    np.testing.assert_allclose(model.predict_audio(quiet, UNITS).probabilities,
                               model.predict_audio(waveforms, UNITS).probabilities, atol=0.02)


def test_only_plain_files_and_no_pickle(folder: Path) -> None:
    for file in folder.iterdir():
        assert file.suffix in {".json", ".safetensors", ".txt"}
        assert not file.read_bytes().startswith(b"\x80")
        assert b"\x80\x04\x95" not in file.read_bytes()[:64]
    saved = json.loads((folder / "model.json").read_text())
    assert str(folder) not in (folder / "model.json").read_text()
    assert {"assignment", "classes", "encoders", "members", "readings", "rule", "calibration"} <= set(saved)
    assert {"trial", "encoder", "pooling", "head"} <= set(saved["members"][0])


@pytest.mark.parametrize("name", sorted(set(HEADS) - {"describe"}))      # of that: test_describe.py
def test_every_head_survives_the_model_s_files(name: str, folder: Path, tmp_path: Path, waveforms) -> None:
    from heartml.core.system.parallel import single_thread

    single_thread()
    model = Model.load(folder)
    head, rng = HEADS[name](), np.random.default_rng(0)
    pooling = None if head.TAKES == "frames" else "moments"
    cases = rng.normal(size=(40, 3 * 48)) if pooling else [rng.normal(size=(90, 48)).astype(np.float32)] * 40
    targets = with_encoder(name, Targets(np.arange(40) % 3, 3, np.arange(40)), bands=48)
    fitted = head.fit(cases, targets, HYPERPARAMETERS[name], 0)
    member = Member(CandidateSpec("logspec", name, "recording", pooling, HYPERPARAMETERS[name]), (fitted, fitted))
    other = Model(model.assignment_name, {0: member}, model.ensemble, model.encoder_specs)
    (tmp_path / "model").mkdir()
    other.save(tmp_path / "model")
    same(other.predict_audio(waveforms, UNITS), Model.load(tmp_path / "model").predict_audio(waveforms, UNITS))


def test_members_about_units_are_asked_about_single_recordings_too(folder: Path, waveforms) -> None:
    model = Model.load(folder)
    fitted = HEADS["logistic"]().fit(np.random.default_rng(0).normal(size=(30, 9 * 48)),
                                     Targets(np.arange(30) % 3, 3, np.arange(30)), {"c": 1.0, "balance": 1.0}, 0)
    member = Member(CandidateSpec("logspec", "logistic", "unit", "moments", {}), (fitted,))
    direct, stack = StackingView((0,), "direct"), StackingView((0,), "stack")
    old = model.ensemble
    stackers = {direct: type(old.stackers[stack])(None)}
    model = Model(model.assignment_name, {0: member}, type(old)({direct: 1.0}, stackers, old.rule, old.calibration),
                  model.encoder_specs)
    found = model.predict_audio(waveforms, UNITS)
    assert found.probabilities.shape == (3, 3)
    np.testing.assert_allclose(found.recording_probabilities[4], found.probabilities[2])      # c has one recording


def test_what_is_no_model_is_refused_with_the_way_out(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model here"):
        Model.load(tmp_path)
    shutil.copytree(folder, tmp_path / "old")
    saved = json.loads((folder / "model.json").read_text())
    (tmp_path / "old" / "model.json").write_text(json.dumps({**saved, "format": 0}))
    with pytest.raises(ModelError, match="format 0"):
        Model.load(tmp_path / "old")
    with pytest.raises(ModelError, match="0 recordings"):
        Model.load(folder).predict({"logspec": []}, [])
