"""What pre-training of the transformer leaves can be read by others, and goes on where it was left."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from scipy.io import wavfile
from support import tiny_vit
from torch.nn import functional

from heartml.core.stage import StageError
from heartml.models import encoders, heard
from heartml.models.encoders import weight_files
from heartml.models.encoders.m2d import M2d, shape_of
from heartml.training.pretraining import corpus, general
from heartml.training.pretraining.vit import outputs, train
from heartml.training.pretraining.vit import start as starts
from heartml.training.pretraining.vit.outputs import Facts
from heartml.training.pretraining.vit.train import Trained

HEARD = pd.DataFrame({"recording_id": ["a" * 64, "b" * 64], "group_id": ["x", "y"], "dataset": "clinic"})


@pytest.fixture(scope="module")
def made() -> Trained:
    vit, own = tiny_vit.vit(), tiny_vit.pretraining()
    start = starts.fresh(vit, own.seed)
    with torch.no_grad():
        for name, parameter in start.transformer.named_parameters():
            if parameter.ndim == 1:      # so that no norm and no bias can be left out unnoticed
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))))
    return Trained(start.transformer.eval(), (-5.5, 2.25), {"masked": [1.5]})


@pytest.fixture
def written(made: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEARTML_CACHE_DIR", str(tmp_path / "cache"))
    facts = Facts(starts.fresh(tiny_vit.vit(), 1).shape, heard.arrays(HEARD))
    return outputs.write(tmp_path / "out", made, facts, {"key": "k"}).parent


@pytest.mark.parametrize("name", [outputs.CHECKPOINT, outputs.WEIGHTS])
def test_a_checkpoint_written_here_is_read_by_kind_m2d_with_the_same_frames(made: Trained, written: Path, name: str
                                                                             ) -> None:
    assert shape_of(written.name) == {"input_size": (24, 64), "patch_size": (8, 8), "sample_rate_hz": 4000, "heads": 2}
    encoder = M2d.from_pretrained(written / name)
    wave = torch.randn(2, 4000, generator=torch.Generator().manual_seed(0)) * 0.1      # 101 frames: 64, and 37
    with torch.inference_mode():
        found = encoder.encode(wave)
        logs = torch.stack([torch.from_numpy(picture(one.numpy())) for one in wave])
        padded = functional.pad((logs + 5.5) / 2.25, (0, 3))[:, None]
        parts = [made.transformer(padded[..., first:last], 8)[-1].unflatten(1, (3, -1)).transpose(1, 2).flatten(2)
                 for first, last in ((0, 64), (64, 104))]
    torch.testing.assert_close(found, torch.cat(parts, dim=1), atol=1e-4, rtol=1e-4)
    assert (found.shape, encoder.frame_rate_hz) == ((2, 13, 24), 12.5)


def picture(wave: np.ndarray) -> np.ndarray:
    """Log-mel energies by another library's filters, `[24, frames]`."""
    from torchaudio.functional import melscale_fbanks

    window = np.pad(np.hanning(201)[:200], 100)
    padded = np.pad(wave, 200, mode="reflect")
    frames = np.stack([padded[first : first + 400] * window for first in range(0, len(wave) + 1, 40)])
    power = np.abs(np.fft.rfft(frames)) ** 2
    bank = melscale_fbanks(201, 25.0, 800.0, 24, 4000, norm="slaney", mel_scale="slaney").numpy()
    return np.log(power @ bank + np.finfo(np.float32).eps).T.astype(np.float32)


def test_timm_s_own_transformer_reads_the_publisher_s_format(made: Trained, written: Path) -> None:
    from timm.models.vision_transformer import VisionTransformer

    content = torch.load(written / outputs.CHECKPOINT, weights_only=True)
    assert content["args"] == {"model": "m2d_vit_w8h2", "sample_rate": 4000, "n_fft": 400, "window_size": 200,
                               "hop_size": 40, "n_mels": 24, "f_min": 25.0, "f_max": 800.0}
    net = VisionTransformer((24, 64), 8, 1, 0, "", 8, 1, 2).eval()
    own = {name: tensor for name, tensor in content["model"].items() if name in dict(net.named_parameters())}
    net.load_state_dict(own)
    assert {name.split(".")[0] for name in set(content["model"]) - set(own)} == {"heard", "norm_stats"}
    image = torch.randn(1, 1, 24, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(net.forward_features(image)[:, 1:], made.transformer(image, 8)[-1])


def test_both_files_say_what_was_heard_and_have_the_same_bytes_every_time(made: Trained, written: Path) -> None:
    section = {name: {"weights": str(written / name), "sha256": weight_files.hash_of(written / name)}
               for name in (outputs.CHECKPOINT, outputs.WEIGHTS)}
    M2d.from_pretrained(written / outputs.CHECKPOINT)      # the first use keeps it as safetensors
    for own in section.values():
        assert heard.of(own).heard_groups(HEARD) == {"x", "y"}
    again = outputs.write(written.parent.parent / "again", made, Facts(starts.fresh(tiny_vit.vit(), 1).shape,
                                                                       heard.arrays(HEARD)), {"key": "k"}).parent
    for name in (outputs.CHECKPOINT, outputs.WEIGHTS):
        assert (again / name).read_bytes() == (written / name).read_bytes()


def test_a_training_goes_on_from_a_file_and_remembers_what_that_heard(made: Trained, written: Path, tmp_path: Path
                                                                       ) -> None:
    start = starts.of_file(written / outputs.WEIGHTS)
    assert start.stats == (-5.5, 2.25)
    assert ({key: tuple(value) if isinstance(value, list) else value for key, value in start.shape.items()},
            start.width) == (shape_of(written.name), 8)
    assert all(torch.equal(a, b) for a, b in zip(start.transformer.state_dict().values(),
                                                 made.transformer.state_dict().values(), strict=True))
    own = tiny_vit.pretraining()
    done = train.train("supervised", start, tiny_vit.hearts(), own, tiny_vit.vit(supervised_steps=1), tmp_path / "c")
    assert done.stats == (-5.5, 2.25), "the scale is that of the file"
    assert not torch.equal(done.transformer.norm.weight, made.transformer.norm.weight)
    both = heard.united(start.heard, heard.arrays(HEARD.assign(group_id=["x", "z"])))
    assert {key: len(rows) for key, rows in both.items()} == {"heard.groups.clinic": 3, "heard.recordings.clinic": 2}


def test_pictures_are_those_that_the_encoder_sees(written: Path) -> None:
    """Waveforms are prepared as for every encoder, and brought to the level of its kind."""
    file = written / outputs.WEIGHTS
    section = {"weights": str(file), "sha256": weight_files.hash_of(file)}
    spec = encoders.spec_of_weights("m2d", section, tiny_vit.PARAMS)
    encoder = encoders.load(spec)
    assert isinstance(encoder, M2d)
    wave = np.random.default_rng(0).normal(0, 0.01, 44100).astype(np.float32)
    seen = encoder.log_mel(torch.from_numpy(encoders.prepared(spec, wave, 44100))[None])[0].T
    made = starts.LogMelPicture(starts.of_file(file), tiny_vit.PARAMS.audio)
    np.testing.assert_allclose(made(wave, 44100), seen.numpy(), atol=0.01)


def test_general_sound_is_drawn_by_hours_and_never_what_is_forbidden(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(6):
        (tmp_path / "deep").mkdir(exist_ok=True)
        wavfile.write(tmp_path / "deep" / f"{number}.wav", 8000, rng.integers(-999, 999, 16000).astype(np.int16))
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    (tmp_path / "text.txt").write_text("no sound")
    look = starts.LogMelPicture(starts.fresh(tiny_vit.vit(), 1), tiny_vit.PARAMS.audio)
    said: list[str] = []
    everything = general.read(tmp_path, 1.0, 1, look, (), said.append)
    assert [one.shape for one in everything.frames] == [(201, 24)] * 6
    assert len(said) == 1
    assert "broken.wav" in said[0]
    held_out = set(everything.table["recording_id"][:2])
    some = general.read(tmp_path, 4 / 3600, 1, look, held_out, said.append)
    assert len(some.table) == 2, "four seconds"
    assert some.forbidden == 2
    assert not held_out & set(some.table["recording_id"])
    hearts = corpus.build(tiny_vit.NOTHING, [], tiny_vit.ANNOTATIONS, look, simulated_children=1, seed=5,
                          general=some.frames)
    assert (hearts.general.sum(), hearts.simulated[-2:].sum()) == (2, 0)
    assert all((classes == -1).all() for classes in hearts.classes[-2:])
    with pytest.raises(StageError, match="no sound file that can be read and may be heard"):
        general.read(tmp_path / "deep", 1.0, 1, look, set(everything.table["recording_id"]), said.append)


def test_a_file_whose_folder_does_not_say_the_shape_is_refused(written: Path, tmp_path: Path) -> None:
    file = (written / outputs.WEIGHTS).rename(tmp_path / "plain.safetensors")
    with pytest.raises(ValueError, match="input_size, patch_size, sample_rate_hz: write it here"):
        starts.of_file(file)
    assert "pos_embed" in load_file(file)
