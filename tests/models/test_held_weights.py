"""A model holds its encoder's weights or names them; without them it is not loaded. What is forbidden stays out."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import tiny_checkpoints, tiny_models

from heartml.core.system.hashing import sha256_file, sha256_folder
from heartml.models import encoders, held_weights
from heartml.models.encoders import weight_files
from heartml.models.encoders.weight_files import WeightsError
from heartml.models.fitted_model import Model
from heartml.registry.signing import content

UNITS = ["a", "b", "c"]


@pytest.fixture(scope="module")
def waveforms() -> list[tuple[np.ndarray, int]]:
    sounds = [tiny_models.draw_sound(kind, 300 + seed) for seed, kind in enumerate(("murmur", "clean", "noise"))]
    return [(sound.floats, sound.sample_rate_hz) for sound in sounds]


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the publisher's file `mn.pt` and a model that holds it, `model`."""
    root = tmp_path_factory.mktemp("held")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEARTML_CACHE_DIR", str(root / "cache"))
        fit(root, root / "model")
    return root


def fit(root: Path, target: Path, **change: Any) -> Path:
    """Fit a small model on the frames of a tiny checkpoint, `root/mn.pt`."""
    file, _ = tiny_checkpoints.efficientat(root / "mn.pt")
    section = {"kind": "efficientat", "weights": str(file), "sha256": sha256_file(file), **change}
    return tiny_models.fit(target, encoder="ear", params=tiny_checkpoints.with_sections(tiny_models.PARAMS,
                                                                                      {"ear": section}))


@pytest.fixture
def copy(held: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the model on a machine that has neither the publisher's file nor a cache."""
    monkeypatch.setenv("HEARTML_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(weight_files, "_OFFERED", {})
    encoders._load_once.cache_clear()
    shutil.copytree(held / "model", tmp_path / "model")
    saved = json.loads((tmp_path / "model/model.json").read_text())
    saved["encoders"]["ear"]["sections"]["efficientat"]["weights"] = "weights/gone.pt"
    (tmp_path / "model/model.json").write_text(json.dumps(saved))
    return tmp_path / "model"


def edit(model: Path, **change: Any) -> None:
    """Change keys of the encoder's spec in `model.json`; `None` removes one."""
    saved = json.loads((model / "model.json").read_text())
    spec = {**saved["encoders"]["ear"], **change}
    saved["encoders"]["ear"] = {key: value for key, value in spec.items() if value is not None}
    (model / "model.json").write_text(json.dumps(saved))


def test_a_model_that_holds_its_weights_predicts_anywhere(
    held: Path, copy: Path, waveforms, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = Model.load(copy).predict_audio(waveforms, UNITS)
    assert not (tmp_path / "cache").exists(), "what a model holds is not copied"
    encoders._load_once.cache_clear()
    monkeypatch.setattr(weight_files, "_OFFERED", {})
    monkeypatch.setenv("HEARTML_CACHE_DIR", str(held / "cache"))
    at_home = Model.load(held / "model").predict_audio(waveforms, UNITS)
    np.testing.assert_array_equal(found.probabilities, at_home.probabilities)
    assert found.verdicts == ["Present", "Absent", "Unknown"]


def test_what_a_model_holds_is_text_and_safetensors_and_is_saved_again_as_it_was(held: Path, tmp_path: Path) -> None:
    content.check(held / "model")
    digest = sha256_file(held / "mn.pt")
    assert [path.name for path in (held / "model/weights").iterdir()] == [f"{digest}.safetensors"]
    (tmp_path / "again").mkdir()
    Model.load(held / "model").save(tmp_path / "again")
    assert sha256_folder(tmp_path / "again") == sha256_folder(held / "model")


def test_other_weights_in_the_folder_are_refused(copy: Path) -> None:
    file = next((copy / "weights").iterdir())
    file.write_bytes(file.read_bytes()[:-4] + b"\0\1\2\3")
    with pytest.raises(WeightsError, match=r"safetensors: not the weights that the model was saved with"):
        Model.load(copy)
    file.unlink()
    with pytest.raises(WeightsError, match="not the weights that the model was saved with"):
        Model.load(copy)


def test_a_model_that_names_its_weights_is_refused_without_them_and_works_with_them(
    held: Path, copy: Path, waveforms
) -> None:
    shutil.rmtree(copy / "weights")
    edit(copy, held=None)
    with pytest.raises(WeightsError, match=r"gone\.pt: these weights are not here \(SHA-256 [0-9a-f]{64}\)"):
        Model.load(copy)
    digest = sha256_file(held / "mn.pt")
    weight_files.keep(digest, weight_files.tensors_of(held / "mn.pt"))
    assert Model.load(copy).predict_audio(waveforms, UNITS).verdicts == ["Present", "Absent", "Unknown"]


def test_the_hash_in_a_model_cannot_lead_to_another_folder(copy: Path) -> None:
    saved = json.loads((copy / "model.json").read_text())
    saved["encoders"]["ear"]["sections"]["efficientat"]["sha256"] = "../../../etc/passwd"
    (copy / "model.json").write_text(json.dumps(saved))
    with pytest.raises(WeightsError, match="is no SHA-256"):
        Model.load(copy)


@pytest.mark.parametrize("forbid", ["hold", "section", "afterwards"])
def test_what_must_not_be_passed_on_or_shall_not_be_held_stays_out(
    held: Path, forbid: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEARTML_CACHE_DIR", str(tmp_path / "cache"))
    model = Model.load(held / "model")
    spec = dict(model.encoder_specs["ear"])
    own = dict(spec["sections"]["efficientat"])
    own |= {"hold": {"hold": False}, "section": {"redistribute": False}}.get(forbid, {})
    if forbid == "afterwards":
        shutil.copy(held / "mn.pt", tmp_path)
        own["weights"] = str(tmp_path / "mn.pt")
        (tmp_path / "mn.dvc").write_text("meta: {redistribute: false}\nouts:\n- {path: mn.pt}\n")
    specs = {"ear": {**spec, "sections": {"efficientat": own}}}
    target = tmp_path / "model"
    target.mkdir()
    Model(model.assignment_name, model.members, model.ensemble, specs).save(target)
    assert not (target / "weights").exists()
    stored = json.loads((target / "model.json").read_text())["encoders"]["ear"]
    assert "held" not in stored
    assert stored["sections"]["efficientat"]["sha256"] == own["sha256"]


def test_lineage_card_and_audit_are_told_of_each_file(held: Path) -> None:
    specs = json.loads((held / "model/model.json").read_text())["encoders"]
    digest = sha256_file(held / "mn.pt")
    assert held_weights.facts({**specs, "logspec": {"name": "logspec", "sections": {"logspec": {"bands": 48}}}}) == [{
        "encoder": "ear", "kind": "efficientat", "weights": str(held / "mn.pt"), "sha256": digest, "licence": "MIT",
        "citation": specs["ear"]["sections"]["efficientat"]["citation"], "redistribute": True,
        "held": sha256_file(held / "model/weights" / f"{digest}.safetensors")}]
    held_weights.check(held / "model", specs)
