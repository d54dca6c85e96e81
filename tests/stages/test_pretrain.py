"""The stage `pretrain`: it hears what no task is scored on, and is no stage of DVC unless it is switched on."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file
from support.workspaces import ROOT

from heartml.core import config, paths
from heartml.core.config import Params
from heartml.core.stage import StageError
from heartml.models import heard
from heartml.models.encoders.heart import HeartTrunk
from heartml.stages import pretrain
from heartml.training.pretraining import network

SECONDS = 8.0


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """A project of 24 recordings of a clinic, which is a task, and 8 of another, which is none; two share a group."""
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(ROOT / "params.yaml", "params.yaml")
    found = config.load()
    assert found.pretrain
    small = found.pretrain.model_copy(update={"channels": 4, "steps": 25, "batch": 4, "simulated_children": 1})
    found = found.model_copy(update={"tasks": ("clinic-outcome",), "pretrain": small})
    monkeypatch.setattr(config, "load", lambda: found)
    monkeypatch.setattr(pretrain, "_frames", lambda table, _: [frames(str(i)) for i in table["recording_id"]])
    ids = [f"{number:02d}" * 32 for number in range(32)]
    dataset = ["clinic"] * 24 + ["other"] * 8
    table = pd.DataFrame({
        "source_file": ids, "recording_id": ids,
        "dataset": dataset, "source": "ward", "patient_id": ids, "group_id": ids,
        "seconds": SECONDS, "licence": "CC0-1.0", "label_outcome": ["Abnormal", "Normal"] * 16,
        "label_murmur": ["Present", "Absent", "Absent", "Present"] * 8})
    paths.VALIDATION.mkdir(parents=True)
    paths.DATA.mkdir()
    table.to_parquet(paths.RECORDINGS)
    groups = table[["recording_id", "group_id"]].copy()
    groups.loc[31, "group_id"] = ids[0]      # a near-duplicate of a recording of the clinic
    groups.to_parquet(paths.VALIDATION / "groups.parquet")
    marks = pd.DataFrame({"recording_id": np.repeat(ids, 4), "start_s": [0, 0.1, 0.3, 0.4] * 32,
                          "end_s": [0.1, 0.3, 0.4, 0.8] * 32, "state": ["S1", "systole", "S2", "diastole"] * 32})
    marks.to_parquet(paths.ANNOTATIONS)
    return found


def frames(recording_id: str) -> np.ndarray:
    return np.random.default_rng(int(recording_id[:2])).normal(size=(400, 48)).astype(np.float32)


def test_it_hears_what_no_task_is_scored_on_and_says_so(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    pretrain.run()
    folder = paths.pretrained("heart")
    tensors = load_file(folder / "heart.safetensors")
    assert set(network.PretrainingNetwork(HeartTrunk(48, 4), 4, 0.0, {}).trunk.state_dict()) <= set(tensors)
    assert tensors["heard.recordings.other"].shape == (7, 16), "the eighth shares a group with the clinic"
    assert "heard.recordings.clinic" not in tensors
    assert heard.group_hash("24" * 32) in {bytes(row.tolist()).hex() for row in tensors["heard.groups.other"]}
    assert not (paths.STATE / "pretrain").exists() or not list((paths.STATE / "pretrain").iterdir())
    before = (folder / "heart.safetensors").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(pretrain.fit, "train", lambda *_, **__: pytest.fail("trained twice"))
        pretrain.run()
    (folder / "pretraining.json").unlink()
    pretrain.run()
    assert (folder / "heart.safetensors").read_bytes() == before


def test_where_every_group_is_scored_there_is_nothing_to_hear(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    both = params.model_copy(update={"tasks": ("clinic+other-outcome",)})
    monkeypatch.setattr(config, "load", lambda: both)
    with pytest.raises(StageError, match="no recording may be heard"):
        pretrain.run()


def test_the_held_out_part_alone_can_be_left_out(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    assert params.pretrain
    own = params.pretrain.model_copy(update={"leave_out": "held_out"})
    monkeypatch.setattr(config, "load", lambda: params.model_copy(update={"pretrain": own}))
    pretrain.run()
    tensors = load_file(paths.pretrained("heart") / "heart.safetensors")
    count = len(tensors["heard.recordings.clinic"])
    assert 15 < count < 24, "the folds are heard, the held-out part is not"


def test_dvc_has_the_stage_only_where_it_is_switched_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dvc.repo import Repo

    def stages(text: str) -> list[str]:
        Path("params.yaml").write_text(text)
        with Repo(".") as repo:
            return [stage.addressing for stage in repo.index.stages]

    monkeypatch.chdir(tmp_path)
    Repo.init(".", no_scm=True).close()
    shutil.copyfile(ROOT / "dvc.yaml", "dvc.yaml")
    text = (ROOT / "params.yaml").read_text()
    assert not [name for name in stages(text) if name.startswith("pretrain")]
    assert "pretrain@heart" in stages(text.replace("  enabled: []", "  enabled: [heart]"))
