"""`heartml embed`: the frames of the pipeline or of the publisher's code under each file's name; broken files named."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner, Result
from support import tiny_checkpoints, tiny_models

from heartml.cli import cli
from heartml.core import config
from heartml.core.command import run
from heartml.inference import embedding
from heartml.inference.embedding import EmbeddingError
from heartml.models import encoders
from heartml.models.encoders.byol_a import ByolA
from heartml.models.encoders.weight_files import WeightsError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: params.yaml, two sounds, a broken one, a checkpoint of BYOL-A."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    for name, seed in (("one", 1), ("two", 2)):
        sound = tiny_models.draw_sound("murmur", seed, 2.0 + seed)
        soundfile.write(tmp_path / f"{name}.wav", sound.pcm, sound.sample_rate_hz)
    (tmp_path / "broken.wav").write_bytes((tmp_path / "one.wav").read_bytes()[:900])
    tiny_checkpoints.byol_a(tmp_path / "byol.pth")
    return tmp_path


def embed(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["embed", *arguments], catch_exceptions=False)


def test_a_folder_gives_frames_under_each_stem_and_a_broken_file_is_named(folder: Path) -> None:
    done = embed(".", "--encoder", "byol_a", "--weights", "byol.pth", "--to", "out.npz")
    assert done.exit_code == 0
    assert "broken.wav:" in done.stderr
    assert "out.npz: 2 files, 87 frames of 1 bands of 16, 12.5 a second" in done.stdout
    found = np.load("out.npz", allow_pickle=False)
    assert set(found) == {"one", "two", "frame_rate_hz"}
    assert found["frame_rate_hz"] == 12.5
    assert (found["one"].shape, found["two"].shape, found["one"].dtype) == ((37, 16), (50, 16), np.float32)


def test_a_kind_gets_the_sound_as_the_publisher_s_code_does(folder: Path) -> None:
    wave = np.random.default_rng(0).normal(size=20000).astype(np.float32) * 0.02
    soundfile.write("wave.wav", wave, 16000, subtype="PCM_24")
    embed("wave.wav", "--encoder", "byol_a", "--weights", "byol.pth", "--to", "out.npz")
    with torch.inference_mode():
        expected = ByolA.from_pretrained(Path("byol.pth")).encode(torch.from_numpy(wave)[None])[0]
    np.testing.assert_allclose(np.load("out.npz")["wave"], expected, atol=1e-4)
    embed("wave.wav", "--encoder", "byol_a", "--weights", "byol.pth", "--to", "other.npz", "--prepared")
    assert np.abs(np.load("other.npz")["wave"] - expected.numpy()).max() > 0.01


def test_a_name_gets_the_frames_of_the_pipeline(folder: Path) -> None:
    done = embed("one.wav", "--encoder", "logspec", "--to", "out.npz", "--json")
    assert json.loads(done.stdout)["frames"] == {"one": 148}
    spec, sound = encoders.spec("logspec", config.load()), tiny_models.draw_sound("murmur", 1, 3.0)
    own = encoders.frames_of(encoders.load(spec), spec, sound.floats, sound.sample_rate_hz)
    np.testing.assert_allclose(np.load("out.npz")["one"], own, atol=0.01)


def test_two_files_of_one_name_are_kept_apart_and_the_bytes_are_the_same_again(folder: Path) -> None:
    Path("other").mkdir()
    Path("other/one.wav").write_bytes(Path("two.wav").read_bytes())
    arguments = ("one.wav", "other/one.wav", "--encoder", "logspec", "--to")
    embed(*arguments, "a.npz")
    assert set(np.load("a.npz")) == {"one", "other/one", "frame_rate_hz"}
    embed(*arguments, "b.npz")
    assert Path("a.npz").read_bytes() == Path("b.npz").read_bytes()


def test_layers_can_be_chosen(folder: Path) -> None:
    file, _ = tiny_checkpoints.m2d(folder)
    spec = embedding.find("m2d", file, ["0", "last"], config.load())
    assert spec.pretrained and spec.pretrained.layers == (0, "last")
    assert encoders.load(spec).dim == 2 * 2 * 24


def test_a_key_that_the_file_does_not_say_can_be_set(folder: Path) -> None:
    file, _ = tiny_checkpoints.m2d(folder, name="plain")
    shape = ("--set", "input_size=[32, 64]", "--set", "patch_size=[16, 16]", "--set", "sample_rate_hz=16000")
    done = embed("one.wav", "--encoder", "m2d", "--weights", str(file), *shape, "--to", "out.npz", "--json")
    assert json.loads(done.stdout)["bands"] == 2
    assert embed("one.wav", "--encoder", "m2d", "--set", "input_size", "--to", "out.npz").exit_code == 2
    assert "no KEY=VALUE" in embed("one.wav", "--encoder", "m2d", "--set", "input_size", "--to", "out.npz").stderr


@pytest.mark.parametrize(("arguments", "words"), [
    (["broken.wav", "--encoder", "logspec"], "broken.wav: "),
    (["one.wav", "--encoder", "byol_a"], "name its file with --weights"),
    (["one.wav", "--encoder", "byol"], "no encoder 'byol'"),
    (["one.wav", "--encoder", "logspec", "--weights", "byol.pth"], "'logspec' is no kind of pre-trained encoder"),
    (["one.wav", "--encoder", "efficientat", "--weights", "byol.pth"], "byol.pth: does not fit an encoder of kind eff"),
    (["one.wav", "--encoder", "m2d", "--weights", "byol.pth"], "byol.pth: input_size, patch_size, sample_rate_hz: "),
    (["one.wav", "--encoder", "byol_a", "--weights", "one.wav"], "one.wav: cut short, or no file of weights"),
])
def test_what_cannot_be_is_one_line_and_nothing_is_written(
    folder: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["heartml", "embed", *arguments, "--to", "out.npz"])
    assert run(cli) == 1
    told = capsys.readouterr().err.strip()
    assert words in told
    assert "\n" not in told and not Path("out.npz").exists()


def test_errors_have_types_of_their_own(folder: Path) -> None:
    with pytest.raises(EmbeddingError):
        embedding.find("byol_a", None, [], config.load())
    with pytest.raises(WeightsError):
        embedding.find("amplitude", folder / "byol.pth", [], config.load())
