"""The stage `pretrain` with a transformer: what it hears, what it writes, and what it says when it cannot."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from safetensors.torch import load_file
from scipy.io import wavfile
from support import tiny_vit
from support.workspaces import ROOT

from heartml.cli.encoders import pretrain as command
from heartml.core import config, paths
from heartml.core.config import Params
from heartml.core.stage import StageError
from heartml.core.system.files import read_json
from heartml.models import heard
from heartml.models.encoders import weight_files
from heartml.models.heard import HeardError
from heartml.stages import pretrain

NAME = "m2d_vit_w8h2-24x64p8x8p4k"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """12 recordings of a clinic, which is a task, and 4 of another, which is none; one of these is the clinic's too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEARTML_CACHE_DIR", str(tmp_path / "cache"))
    shutil.copyfile(ROOT / "params.yaml", "params.yaml")
    own = tiny_vit.pretraining(simulated_children=1, vit=tiny_vit.vit(
        masked=tiny_vit.vit().masked.model_copy(update={"steps": 4}), supervised_steps=4))
    found = config.load().model_copy(update={"tasks": ("clinic-outcome",), "pretrain": own})
    monkeypatch.setattr(config, "load", lambda: found)
    monkeypatch.setattr(pretrain, "_pictures", lambda table, _: [frames(str(i)) for i in table["recording_id"]])
    ids = [f"{number:02d}" * 32 for number in range(16)]
    table = pd.DataFrame({
        "recording_id": ids, "dataset": ["clinic"] * 12 + ["other"] * 4, "source": "ward", "patient_id": ids,
        "group_id": ids, "source_file": ids,
        "seconds": 8.0, "licence": "CC0-1.0", "label_outcome": ["Abnormal", "Normal"] * 8})
    paths.VALIDATION.mkdir(parents=True)
    paths.DATA.mkdir()
    table.to_parquet(paths.RECORDINGS)
    groups = table[["recording_id", "group_id"]].copy()
    groups.loc[15, "group_id"] = ids[0]
    groups.to_parquet(paths.VALIDATION / "groups.parquet")
    tiny_vit.ANNOTATIONS.to_parquet(paths.ANNOTATIONS)
    return found


def frames(recording_id: str) -> np.ndarray:
    return np.random.default_rng(int(recording_id[:2])).normal(-6, 2, (200, 24)).astype(np.float16)


def test_it_hears_what_no_task_is_scored_on_and_no_task_is_scored_on_it(project: Params, tmp_path: Path,
                                                                        capfd: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    for name in "abc":
        wavfile.write(Path(tmp_path, f"{name}.wav"), 8000, rng.integers(-999, 999, 16000).astype(np.int16))
    pretrain.run("masked", general_sound=tmp_path)
    said = capfd.readouterr().err
    assert "3 recordings of 3 groups, 4 simulated ones and 3 general sounds in, 12 groups left out" in said
    folder = paths.pretrained("masked")
    file = folder / NAME / "checkpoint.safetensors"
    tensors = load_file(file)
    assert {name: len(rows) for name, rows in tensors.items() if name.startswith("heard.")} == {
        "heard.groups.general": 3, "heard.groups.other": 3, "heard.recordings.general": 3, "heard.recordings.other": 3}
    assert (folder / "snapshots" / "2" / NAME / "checkpoint.safetensors").exists()
    assert (folder / NAME / "checkpoint.pth").exists()
    facts = read_json(folder / "pretraining.json")
    assert facts["heard"]["general"]["recordings"] == 3
    assert (facts["parameters"]["method"], facts["parameters"]["steps"]) == ("masked", 4)
    assert not list((paths.STATE / "pretrain").iterdir())
    spec = {"name": "ears", "kind": "m2d", "sections": {"m2d": {"weights": str(file),
                                                                "sha256": weight_files.hash_of(file)}}}
    recordings = pd.read_parquet(paths.RECORDINGS)
    heard.refuse("clinic-outcome", {"ears": spec}, recordings[:12])
    with pytest.raises(HeardError, match="the encoder ears was trained on 3 of its 4 groups"):
        heard.refuse("other-outcome", {"ears": spec}, recordings[12:])


def test_what_is_done_is_not_done_again_and_labels_go_on_from_it(project: Params, monkeypatch: pytest.MonkeyPatch
                                                                 ) -> None:
    pretrain.run("masked")
    file = paths.pretrained("masked") / NAME / "checkpoint.safetensors"
    before = file.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(pretrain.vit_train, "train", lambda *_, **__: pytest.fail("trained twice"))
        pretrain.run("masked")
    pretrain.run("supervised", str(file))
    facts = read_json(paths.pretrained("supervised") / "pretraining.json")
    assert facts["parameters"]["start_from"] == weight_files.hash_of(file)
    taught = load_file(paths.pretrained("supervised") / NAME / "checkpoint.safetensors")
    assert len(taught["heard.recordings.other"]) == 3
    assert file.read_bytes() == before


def test_one_line_says_what_is_wrong(project: Params, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plain = tmp_path / "plain.safetensors"
    pretrain.run("masked")
    shutil.copyfile(paths.pretrained("masked") / NAME / "checkpoint.safetensors", plain)
    with pytest.raises(StageError, match=r"--start-from .*plain.safetensors: input_size, patch_size, sample_rate"):
        pretrain.run("masked", str(plain))
    with pytest.raises(weight_files.WeightsError, match="no such file of weights"):
        pretrain.run("masked", "nowhere.safetensors")
    done = CliRunner().invoke(command, ["--general", str(tmp_path)])
    assert done.exit_code == 2
    assert "--general: the heart encoder learns from labels" in done.output
    assert project.pretrain
    old = project.model_copy(update={"pretrain": project.pretrain.model_copy(update={"vit": None})})
    monkeypatch.setattr(config, "load", lambda: old)
    with pytest.raises(StageError, match=r"no section `pretrain\.vit`"):
        pretrain.run("masked")
