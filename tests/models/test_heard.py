"""No task is scored on a group that its encoder heard: planted groups are found, and refused with a way out."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from support import tiny_checkpoints

from heartml.core import config, paths, schema
from heartml.core.config import Params
from heartml.core.frame_store import Frames
from heartml.models import encoders, heard
from heartml.models.encoders import EncoderSpec, weight_files
from heartml.models.heard import HeardError

PARAMS = config.load(Path(__file__).parents[2] / "params.yaml")
IDS = [f"{number}" * 64 for number in range(6)]
HEARD = pd.DataFrame({"recording_id": [IDS[0], "f" * 64], "group_id": ["circor-1", "circor-9"], "dataset": "circor"})


def folds(groups: list[str], ids: list[str] = IDS) -> pd.DataFrame:
    """schema.FOLDS of one recording a group, in parts 0, 1, 2, test."""
    parts = (["0", "1", "2", "test"] * 2)[: len(groups)]
    return pd.DataFrame({"recording_id": ids[: len(groups)], "unit_id": groups, "group_id": groups, "label": "Present",
                         "part": parts}).astype("string")


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of weights that names what it heard, in a project of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEARTML_CACHE_DIR", str(tmp_path / "cache"))
    return tiny_checkpoints.heart(tmp_path / "heart.safetensors", HEARD)[0]


def section(file: Path) -> dict[str, str]:
    return {"weights": str(file), "sha256": weight_files.hash_of(file)}


def spec_of(file: Path) -> EncoderSpec:
    return encoders.spec_of_weights("heart", section(file), PARAMS)


def test_a_file_of_weights_names_recordings_and_groups_by_hash_alone(weights: Path) -> None:
    found = heard.of(section(weights))
    assert found.recordings == {IDS[0][:32], "f" * 32}
    assert found.groups == {heard.group_hash("circor-1"), heard.group_hash("circor-9")}
    assert b"circor-9" not in weights.read_bytes()


def test_a_group_counts_as_heard_by_its_name_or_by_one_of_its_recordings(weights: Path) -> None:
    found = heard.of(section(weights))
    assert found.heard_groups(folds(["a", "b"], IDS[2:])) == set()
    assert found.heard_groups(folds(["a", "circor-9"], IDS[2:])) == {"circor-9"}
    assert found.heard_groups(folds(["joined", "b"])) == {"joined"}, "the recording is known under any group"


@pytest.mark.parametrize("place", [0, 3])
def test_a_planted_group_is_refused_in_a_fold_and_in_the_held_out_part(weights: Path, place: int) -> None:
    groups = ["a", "b", "c", "d"]
    spec = {"ears": spec_of(weights).to_json()}
    heard.refuse("clinic-murmur", spec, folds(groups, IDS[2:]))
    groups[place] = "circor-9"
    with pytest.raises(HeardError, match=r"clinic-murmur: .* ears was trained on 1 of its 4 groups.*Take ears"):
        heard.refuse("clinic-murmur", spec, folds(groups, IDS[2:]))


def test_weights_are_found_in_the_cache_and_in_a_model(weights: Path, tmp_path: Path) -> None:
    named = section(weights)
    held = tmp_path / "model" / "weights" / f"{named['sha256']}.safetensors"
    held.parent.mkdir(parents=True)
    weights.rename(held)
    assert heard.of(named) == heard.Heard()
    assert heard.of(named, tmp_path / "model").groups
    kept = weight_files.converted(named["sha256"])
    kept.parent.mkdir(parents=True)
    held.rename(kept)
    assert heard.of(named).groups


def test_what_models_and_the_cache_keep_of_the_weights_still_says_what_was_heard(weights: Path) -> None:
    encoders.load(spec_of(weights))
    kept = weight_files.converted(weight_files.hash_of(weights))
    assert kept.exists()
    weights.unlink()
    assert heard.of({"weights": str(weights), "sha256": kept.stem}).groups


def test_other_files_name_nothing(tmp_path: Path) -> None:
    file, _ = tiny_checkpoints.byol_a(tmp_path / "byol.pth")
    assert heard.of(section(file)) == heard.Heard()
    assert heard.of({}) == heard.Heard()


def project(weights: Path) -> Params:
    return tiny_checkpoints.with_sections(PARAMS, {"ears": {"kind": "heart", **section(weights)}}).model_copy(
        update={"encoders": ("ears",)})


def write_folds(groups: list[str]) -> None:
    paths.folds("clinic-murmur").parent.mkdir(parents=True, exist_ok=True)
    folds(groups, IDS[2:]).to_parquet(paths.folds("clinic-murmur"))


def test_the_stage_features_refuses(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from heartml.stages import features

    monkeypatch.setattr(config, "load", lambda: project(weights))
    write_folds(["a", "b", "c", "circor-1"])
    with pytest.raises(HeardError, match="1 of its 4 groups"):
        features.run("clinic-murmur", "ears")


def test_the_search_refuses_frames_that_came_another_way(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from heartml.training import fold_fits, search_run, search_space

    frames = Frames(Path(), np.zeros((0, 1), np.float16), {}, {**spec_of(weights).to_json(), "kind": "heart"})
    data = SimpleNamespace(encoders={"ears": frames}, parent=None)
    monkeypatch.setattr(fold_fits, "training_data", lambda *_, **__: data)
    monkeypatch.setattr(search_space, "check", lambda *_: None)
    write_folds(["a", "b", "c", "circor-1"])
    with pytest.raises(HeardError, match="the encoder ears"):
        search_run.open_search("clinic-murmur", project(weights))


def test_the_evaluation_refuses_a_model_that_holds_such_weights(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from heartml.models.fitted_model import Model
    from heartml.stages import evaluate

    fitted = SimpleNamespace(encoder_specs={"ears": spec_of(weights).to_json()})
    monkeypatch.setattr(Model, "load", lambda _: fitted)
    table = folds(["a", "b", "c", "circor-1"], IDS[2:])
    with pytest.raises(HeardError, match="no score of them would be fair"):
        evaluate.predict("clinic-murmur", table[table["part"] == schema.TEST], table)


def test_groups_that_were_not_heard_can_be_kept(weights: Path) -> None:
    table = folds(["a", "circor-1", "c"], IDS[2:])
    assert list(heard.without_heard(table, [heard.of(section(weights)), heard.Heard()])["group_id"]) == ["a", "c"]
