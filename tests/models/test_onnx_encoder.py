"""ONNX files as encoders: from samples or log-mel bands, window by window, to vectors, frames or maps."""

from pathlib import Path

import numpy as np
import pytest
import torch
from support import tiny_checkpoints

from heartml.models.encoders.onnx import Onnx, OnnxParams
from heartml.models.encoders.weight_files import WeightsError

pytest.importorskip("onnx", reason="left out: onnx is not installed")
runtime = pytest.importorskip("onnxruntime", reason="left out: the extra `encoders` is not installed")
MEL = {"bands": 16, "size": 128, "hop": 80, "low_hz": 20, "high_hz": 4000, "mean": -3.0, "deviation": 2.0}


def sound(samples: int) -> torch.Tensor:
    return torch.randn(1, samples, generator=torch.Generator().manual_seed(0)) * 0.1


def run(file: Path, taken: np.ndarray) -> np.ndarray:
    return runtime.InferenceSession(str(file)).run(None, {"x": taken})[0]


def test_windows_of_samples_give_the_file_s_frames(tmp_path: Path) -> None:
    file = tiny_checkpoints.onnx(tmp_path / "net.onnx", 1600)
    encoder, wave = Onnx.from_pretrained(file, sample_rate_hz=8000, window_s=0.2), sound(4000)
    found = encoder.encode(wave)[0]
    assert (encoder.frame_rate_hz, encoder.dim, encoder.bands) == (40.0, 4, 1)
    assert found.shape == (8 + 8 + 4, 4) == (encoder.frames_in(4000), 4)
    padded = torch.nn.functional.pad(wave, (0, 800))
    for n, frames in ((0, 8), (1, 8), (2, 4)):
        own = run(file, padded[:, 1600 * n : 1600 * (n + 1)].numpy())[0]
        np.testing.assert_allclose(found[8 * n : 8 * n + frames], own[:frames], atol=1e-5)


def test_one_vector_is_one_frame_a_window(tmp_path: Path) -> None:
    encoder = Onnx.from_pretrained(tiny_checkpoints.onnx(tmp_path / "net.onnx", 1600, "vector"), sample_rate_hz=8000,
                                   window_s=0.2)
    assert (encoder.frame_rate_hz, encoder.dim) == (5.0, 32)
    assert encoder.encode(sound(1700)).shape == (1, 2, 32)


def test_log_mel_bands_go_in_and_the_bands_of_maps_are_stacked(tmp_path: Path) -> None:
    file, wave = tiny_checkpoints.onnx(tmp_path / "net.onnx", 16, "maps"), sound(1600)
    encoder = Onnx.from_pretrained(file, sample_rate_hz=8000, window_s=0.2, log_mel=MEL)
    assert (encoder.bands, encoder.dim, encoder.frame_rate_hz) == (4, 16, 50.0)
    bands = ((encoder.mel.power(wave) + 1e-6).log() + 3) / 2
    own = run(file, bands[:, None].numpy())[0]                        # [channels, bands, frames]
    np.testing.assert_allclose(encoder.encode(wave)[0], own.transpose(2, 1, 0).reshape(-1, 16), atol=1e-5)


def test_rate_and_window_are_asked_for_and_the_file_is_never_held(tmp_path: Path) -> None:
    plain = OnnxParams(weights="net.onnx", sha256="ab" * 32, redistribute=True)
    with pytest.raises(ValueError, match="sample_rate_hz, window_s: an ONNX file does not say it"):
        plain.resolved({})
    said = plain.resolved({"shape": {"sample_rate_hz": 8000, "window_s": 0.2, "log_mel": MEL, "output": None}})
    assert (said.rate_hz(), said.window_s, said.held) == (8000, 0.2, False)
    assert said.log_mel and said.log_mel.bands == 16


@pytest.mark.parametrize(("change", "words"), [
    ({"window_s": 0.3}, "does not take .1, 2400., window_s or log_mel does not fit it"),
    ({"output": "z"}, "output: 'z' is none of y"), ({"layers": (0,)}, "there is `last` alone"),
    ({"window_s": 1e-9}, "too few samples"),
])
def test_what_does_not_fit_the_file_is_named(tmp_path: Path, change: dict, words: str) -> None:
    file = tiny_checkpoints.onnx(tmp_path / "net.onnx", 1600)
    with pytest.raises(WeightsError, match=words):
        Onnx.from_pretrained(file, **{"sample_rate_hz": 8000, "window_s": 0.2, **change})


def test_a_damaged_file_and_one_with_data_beside_it_are_refused(tmp_path: Path) -> None:
    import onnx

    whole = tiny_checkpoints.onnx(tmp_path / "net.onnx", 1600)
    (tmp_path / "cut.onnx").write_bytes(whole.read_bytes()[:200])
    onnx.save(onnx.load(whole), tmp_path / "beside.onnx", save_as_external_data=True, location="weights.bin",
              size_threshold=0)
    for name in ("cut.onnx", "beside.onnx"):
        with pytest.raises(WeightsError, match=rf"{name}: no ONNX file that is complete in itself"):
            Onnx.from_pretrained(tmp_path / name, sample_rate_hz=8000, window_s=0.2)
