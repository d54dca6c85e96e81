"""What a task is about: its organ, what that replaces in the parameters, and what older files mean without one."""

from pathlib import Path

import pandas as pd
import pytest
import yaml
from support.workspaces import ROOT

from heartml.core import config
from heartml.core.config import ParamsError
from heartml.core.task_definition import OFFICIAL, Declared, Task, differences
from heartml.core.tasks import TASKS, of_stored
from heartml.evaluation import probe
from heartml.models import encoders
from heartml.release import refresh

LUNGS = Task("rhonchi", "rhonchi", ("yes", "no"), "recording", "uar", OFFICIAL, organ="lung")


@pytest.fixture(scope="module")
def params() -> config.Params:
    return config.load(ROOT / "params.yaml")


def changed(tmp_path: Path, values: dict) -> Path:
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump(values))
    return file


def test_a_definition_that_names_no_organ_is_about_the_heart_and_keeps_its_keys() -> None:
    heart = Task("pedal", "pedal", ("click", "none"), "recording", "uar", OFFICIAL)
    assert "organ" not in heart.to_json()
    assert Task.from_json(heart.to_json()).organ == "heart"
    assert TASKS["murmur"].organ == "heart"


def test_the_organ_of_a_declared_task_is_stored_with_it() -> None:
    assert Declared.from_json(Declared(LUNGS).to_json()).task == LUNGS
    assert of_stored({"definition": LUNGS.to_json()}, "clinic-rhonchi").organ == "lung"
    assert "organ lung and heart" in differences(LUNGS, Task.from_json({**LUNGS.to_json(), "organ": "heart"}))


def test_hearts_have_the_parameters_as_they_stand(params: config.Params) -> None:
    assert params.for_organ("heart") == params


def test_lungs_hear_their_own_band_at_their_own_rate_under_the_same_names(params: config.Params) -> None:
    heart, lung = (encoders.spec("logspec", params.for_organ(organ)) for organ in ("heart", "lung"))
    assert (heart.audio, heart.sections["logspec"].high_hz) == (params.audio, 800)
    assert (lung.audio.sample_rate_hz, lung.sections["logspec"].high_hz) == (8000, 2500)
    assert encoders.fingerprint(heart) != encoders.fingerprint(lung)
    assert encoders.EncoderSpec.from_json(lung.to_json()) == lung


def test_parameters_without_organs_know_the_heart_alone(params: config.Params, tmp_path: Path) -> None:
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    heart = values.pop("organs")["heart"]
    older = config.load(changed(tmp_path, values))
    assert older.for_organ("heart") == older
    assert older.organ("heart").band_hz == tuple(heart["band_hz"])
    with pytest.raises(ParamsError, match=r"no section organs\.lung.*docs/settings\.md"):
        older.for_organ("lung")


@pytest.mark.parametrize(("change", "words"), [
    ({"band_hz": [900, 100]}, "band_hz: the first does not lie below the second"),
    ({"audio": {"rate": 8000}}, "Extra inputs are not permitted"),
    ({"robustness": {"conditions": {"lowpass": [1]}}}, "conditions"),
    ({"colour": "pink"}, "organs.lung.colour: Extra inputs"),
    ({"encoder_parameters": {"logspek": {"bands": 8}}}, "`encoder_parameters` has no logspek"),
])
def test_an_organ_that_replaces_what_is_not_there_is_refused(tmp_path: Path, change: dict, words: str) -> None:
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["organs"]["lung"] |= change
    with pytest.raises(ParamsError) as refused:
        config.load(changed(tmp_path, values))
    assert words in str(refused.value)


def test_encoders_are_probed_for_one_organ_at_a_time() -> None:
    assert probe._organ(["hls-cmds-lung_sounds"]) == "lung"
    with pytest.raises(probe.ProbeError, match="about heart and lung"):
        probe._organ(["circor-murmur", "hls-cmds-lung_sounds"])


def test_another_band_is_another_recipe_and_a_version_from_before_is_none(params: config.Params) -> None:
    few, more = (pd.DataFrame({"recording_id": ids, "part": "0"}) for ids in (["a"], ["a", "b"]))
    own = {"organs": {"lung": {"band_hz": [60, 2500]}}}
    assert refresh.policy("not_worse", own, {}, more, few).kind == "not_worse"
    assert refresh.policy("not_worse", own, own, more, few).kind == "not_worse"
    changed_band = refresh.policy("not_worse", own, {"organs": {"lung": {"band_hz": [60, 2000]}}}, more, few)
    assert changed_band.why == "no refresh: other parameters in `organs`"
