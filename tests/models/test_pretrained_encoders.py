"""Pre-trained encoders give what their publishers' networks give; two checkpoints of one kind stand side by side."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from support import tiny_checkpoints
from torch.nn import functional

from flows.support import check_parameters
from heartml.core import config
from heartml.core.config import ParamsError
from heartml.models import encoders
from heartml.models.encoders import EncoderError, EncoderSpec, weight_files
from heartml.models.encoders.byol_a import ByolA
from heartml.models.encoders.efficientat import Efficientat
from heartml.models.encoders.m2d import M2d, shape_of
from heartml.models.encoders.weight_files import WeightsError

ROOT = Path(__file__).parents[2]
PARAMS = config.load(ROOT / "params.yaml")
GOLDEN = Path(os.environ.get("HEARTML_REAL_DATA") or ROOT.parent / "shared" / "datasets").parent / "encoders"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEARTML_CACHE_DIR", str(tmp_path / "cache"))


def waves(seconds: float, rate_hz: int, rows: int = 2) -> torch.Tensor:
    """Float32 `[rows, time]`: noise that swells and falls."""
    rng = np.random.default_rng(3)
    time_s = np.arange(round(seconds * rate_hz)) / rate_hz
    return torch.tensor(rng.normal(size=(rows, len(time_s))) * 0.1 * (1 + np.sin(7 * time_s)), dtype=torch.float32)


def test_the_mobile_net_is_torchvision_s_on_the_same_picture(tmp_path: Path) -> None:
    file, features = tiny_checkpoints.efficientat(tmp_path / "mn.pt")
    encoder = Efficientat.from_pretrained(file)
    wave = waves(4, encoder.sample_rate_hz)
    with torch.inference_mode():
        maps = features(encoder.spectrogram(wave)[:, None])     # [batch, channels, bands, frames]
        found = encoder.encode(wave)
    assert maps.abs().max() > 0.1
    assert found.shape == (2, maps.shape[3], 4 * maps.shape[1])
    for band in range(4):
        own = found.unflatten(2, (4, -1))[:, :, band]
        torch.testing.assert_close(own, maps[:, :, band].transpose(1, 2), atol=1e-4, rtol=1e-4)


def test_earlier_layers_are_read_too_and_those_of_one_resolution_together(tmp_path: Path) -> None:
    file, features = tiny_checkpoints.efficientat(tmp_path / "mn.pt")
    wave = waves(3, 32000)
    encoder = Efficientat.from_pretrained(file, layers=(11, 12))
    with torch.inference_mode():
        maps = features[:12](encoder.spectrogram(wave)[:, None])
        found = encoder.encode(wave)
    assert (encoder.bands, encoder.dim, encoder.frame_rate_hz) == (8, 8 * 32, 6.25)
    assert found.shape == (2, encoder.frames_in(96000), encoder.dim)
    torch.testing.assert_close(found.unflatten(2, (8, 32))[..., :16], maps.permute(0, 3, 2, 1), atol=1e-4, rtol=1e-4)
    with pytest.raises(WeightsError, match="differ in resolution"):
        Efficientat.from_pretrained(file, layers=(3, "last"))
    with pytest.raises(WeightsError, match="layers: there are 0 to 15 and last"):
        Efficientat.from_pretrained(file, layers=(17,))


@pytest.mark.parametrize(("name", "bands", "rate_hz"), [
    ("mn10_as_hop_5_mAP_475.pt", 4, 6.25), ("mn10_as_mels_64_mAP_461.pt", 2, 3.125),
    ("mn10_as_fc_s2211_mAP_466.pt", 16, 12.5), ("mn04_as_mAP_432.pt", 4, 3.125),
])
def test_hop_bands_and_strides_are_those_of_the_file_s_name(
    tmp_path: Path, name: str, bands: int, rate_hz: float
) -> None:
    file, features = tiny_checkpoints.efficientat(tmp_path / name)
    encoder, wave = Efficientat.from_pretrained(file), waves(2, 32000)
    assert (encoder.bands, encoder.frame_rate_hz) == (bands, rate_hz)
    with torch.inference_mode():
        found, maps = encoder.encode(wave), features(encoder.spectrogram(wave)[:, None])
    assert found.shape == (2, encoder.frames_in(64000), encoder.dim)
    if "_s2211" not in name:
        torch.testing.assert_close(found, maps.permute(0, 3, 2, 1).flatten(2), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("prefix", "head"), [("", False), ("backbone.", True), ("module.ar.runtime.backbone.", True)])
def test_m2d_is_the_transformer_of_timm_whatever_the_prefix(tmp_path: Path, prefix: str, head: bool) -> None:
    file, net = tiny_checkpoints.m2d(tmp_path, prefix, head)
    encoder = M2d.from_pretrained(file, layers=(0, "last"))
    wave = waves(2.0, 16000)                      # 201 frames: three chunks of 64, and 9
    picture = encoder.spectrogram(wave)
    with torch.inference_mode():
        found = encoder.encode(wave)
        whole = torch.cat([net.forward_features(picture[:, None, :, 64 * n : 64 * n + 64])[:, 1:].unflatten(
            1, (2, 4)).transpose(1, 2) for n in range(3)], dim=1)      # [batch, frames, bands, width]
    assert found.shape == (2, 3 * 4 + 1, 2 * 2 * 24) == (2, encoder.frames_in(32000), encoder.dim)
    last = found.unflatten(2, (2, 48))[..., 24:]
    torch.testing.assert_close(last[:, :12], whole, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(found.unflatten(2, (2, 48))[..., :24], last)


def test_the_rest_of_a_recording_has_the_first_positions_of_each_band(tmp_path: Path) -> None:
    file, net = tiny_checkpoints.m2d(tmp_path)
    encoder = M2d.from_pretrained(file)
    wave = waves(0.2, 16000)                      # 21 frames: two patches
    picture = functional.pad(encoder.spectrogram(wave), (0, 11))
    with torch.inference_mode():
        tokens = net.patch_embed.proj(picture[:, None]).flatten(2).transpose(1, 2)
        places = net.pos_embed[:, [1, 2, 5, 6]]   # of four columns a band
        first = (net.cls_token + net.pos_embed[:, :1]).expand(2, -1, -1)
        by_hand = net.norm(net.blocks(torch.cat([first, tokens + places], dim=1)))[:, 1:]
        found = encoder.encode(wave)
    torch.testing.assert_close(found, by_hand.unflatten(1, (2, 2)).transpose(1, 2).flatten(2), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("frames", "patches"), [
    (17, [2]), (64, [4]), (69, [4]), (70, [4]), (71, [4]), (80, [4]), (86, [4, 1]), (150, [4, 4, 1]),
])
def test_chunks_that_are_no_multiple_of_the_patch_leave_their_last_frames_out(
    tmp_path: Path, frames: int, patches: list[int]
) -> None:
    """As the publisher's runtime: padded to whole patches, cut every 70 frames, and half a patch is left out."""
    file, net = tiny_checkpoints.m2d(tmp_path, name="m2d_vit_tiny-32x70p16x16p16k-x")
    encoder = M2d.from_pretrained(file)
    wave = waves((frames - 1) / 100, 16000)
    picture = encoder.spectrogram(wave)
    assert picture.shape[2] == frames
    padded = functional.pad(picture, (0, -frames % 16))[:, None]
    expected = []
    with torch.inference_mode():
        for first in range(0, frames, 70):
            chunk = padded[..., first : min(first + 70, padded.shape[3])]
            columns = chunk.shape[3] // 16
            if columns:
                tokens = net.patch_embed.proj(chunk).flatten(2).transpose(1, 2)
                places = net.pos_embed[:, 1:].reshape(1, 2, 4, 24)[:, :, :columns].flatten(1, 2)
                first_token = (net.cls_token + net.pos_embed[:, :1]).expand(2, -1, -1)
                out = net.norm(net.blocks(torch.cat([first_token, tokens + places], dim=1)))[:, 1:]
                expected.append(out.reshape(2, 2, columns, 24).transpose(1, 2).flatten(2))
        found = encoder.encode(wave)
    assert [part.shape[1] for part in expected] == patches
    assert found.shape[1] == encoder.frames_in(wave.shape[1])
    torch.testing.assert_close(found, torch.cat(expected, dim=1), atol=1e-4, rtol=1e-4)


def test_byol_a_is_its_layers_one_after_the_other(tmp_path: Path) -> None:
    file, net = tiny_checkpoints.byol_a(tmp_path / "byol.pth")
    encoder = ByolA.from_pretrained(file)
    wave = waves(1.3, 16000)
    logs = (encoder.mel.power(wave) + torch.finfo(torch.float32).eps).log()
    with torch.inference_mode():
        maps = net["features"](((logs + 5.4919) / 5.0389)[:, None])
        by_hand = net["fc"](maps.permute(0, 3, 2, 1).flatten(2))
        found = encoder.encode(wave)
    assert found.shape == (2, encoder.frames_in(wave.shape[1]), 16)
    torch.testing.assert_close(found, by_hand, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("name", "expected"), [
    ("m2d_vit_base-80x608p16x16p16k-221006-mr7", ((80, 608), (16, 16), 16000, 12)),
    ("m2d_clap_vit_small-80x1001p16x8p32k-240128", ((80, 1001), (16, 8), 32000, 6)),
    ("msm_mae_vit_base-80x208p16x16", ((80, 208), (16, 16), 16000, 12)),
    ("m2d_vit_w128h4-48x608p16x8p4k", ((48, 608), (16, 8), 4000, 4)),
])
def test_the_folder_s_name_says_the_shape(name: str, expected: tuple[object, ...]) -> None:
    assert tuple((shape_of(f"weights/{name}/checkpoint-300.pth") or {}).values()) == expected


def test_a_checkpoint_of_another_shape_is_refused_and_nothing_of_it_is_kept(tmp_path: Path) -> None:
    file, _ = tiny_checkpoints.m2d(tmp_path, name="m2d_vit_tiny-32x128p16x16p16k-x")
    with pytest.raises(WeightsError, match=r"checkpoint-0.pth: does not fit an encoder of kind m2d: .* 8 positions"):
        M2d.from_pretrained(file)
    with pytest.raises(WeightsError, match=r"not fit an encoder of kind efficientat: no tensor 'features\.0\.0\.w"):
        Efficientat.from_pretrained(file)
    assert not list((tmp_path / "cache").rglob("*"))


def test_two_checkpoints_of_one_kind_stand_side_by_side(tmp_path: Path) -> None:
    found = {"small": tiny_checkpoints.byol_a(tmp_path / "a.pth", 8)[0],
             "large": tiny_checkpoints.byol_a(tmp_path / "b.pth", 12)[0]}
    params = tiny_checkpoints.with_sections(PARAMS, {name: {
        "kind": "byol_a", "weights": str(file), "sha256": weight_files.hash_of(file)} for name, file in found.items()})
    small, large = (encoders.spec(name, params) for name in found)
    assert (encoders.load(small).dim, encoders.load(large).dim) == (8, 12)
    assert encoders.fingerprint(small) != encoders.fingerprint(large)
    assert small.audio.sample_rate_hz == 16000
    saved = json.loads(json.dumps(small.to_json()))
    assert EncoderSpec.from_json(saved) == small
    assert (saved["name"], saved["kind"]) == ("small", "byol_a")
    assert "NTT" in saved["sections"]["byol_a"]["licence"]


def test_frames_do_not_depend_on_where_the_file_lies_or_whether_models_hold_it(tmp_path: Path) -> None:
    found = tiny_checkpoints.sections(tmp_path)
    moved = tmp_path / "moved.pt"
    moved.write_bytes(Path(found["efficientat"]["weights"]).read_bytes())
    changes = [{}, {"weights": str(moved), "hold": False}, {"layers": [10]}, {"level": 0.2}]
    prints = [encoders.fingerprint(encoders.spec("efficientat", tiny_checkpoints.with_sections(
        PARAMS, {"efficientat": {**found["efficientat"], **change}}))) for change in changes]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3


def test_a_recording_comes_at_the_rate_and_level_of_the_network(tmp_path: Path) -> None:
    sections = {"efficientat": {**tiny_checkpoints.sections(tmp_path)["efficientat"], "level": 0.05}}
    spec = encoders.spec("efficientat", tiny_checkpoints.with_sections(PARAMS, sections))
    tone = np.sin(2 * np.pi * 200 * np.arange(16000) / 4000).astype(np.float32)
    ready = encoders.prepared(spec, 30 * tone, 4000)
    assert ready.shape == (4 * 32000,)
    assert np.sqrt(np.mean(ready[8000:-8000] ** 2)) == pytest.approx(0.05, rel=0.01)


@pytest.mark.parametrize(("name", "values", "error", "words"), [
    ("ear", {"kind": "efficientatt"}, EncoderError, "no encoder 'efficientatt'"),
    ("logspec", {"kind": "byol_a"}, ParamsError, "logspec is a kind itself"),
    ("../ear", {"kind": "byol_a"}, ParamsError, "'../ear' is no name"),
    ("ear", {"kind": "byol_a", "weights": "w.pth", "sha256": "abc"}, ParamsError, "encoder_parameters.ear.sha256"),
    ("ear", {"kind": "m2d", "weights": "w.pth", "sha256": "0" * 64}, WeightsError,
     "encoder_parameters.ear: w.pth: no such file of weights"),
])
def test_a_declaration_that_cannot_be_is_named(
    name: str, values: dict, error: type[Exception], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=words):
        encoders.spec(name, tiny_checkpoints.with_sections(PARAMS, {name: values}))


def test_m2d_without_a_telling_name_says_which_keys_it_needs(tmp_path: Path) -> None:
    file, _ = tiny_checkpoints.m2d(tmp_path, name="mine")
    section = {"weights": str(file), "sha256": weight_files.hash_of(file)}
    with pytest.raises(ParamsError, match=r"encoder_parameters.m2d: input_size, patch_size, sample_rate_hz: write"):
        encoders.spec("m2d", tiny_checkpoints.with_sections(PARAMS, {"m2d": section}))
    shape = {"input_size": (32, 64), "patch_size": (16, 16), "sample_rate_hz": 16000}
    spec = encoders.spec("m2d", tiny_checkpoints.with_sections(PARAMS, {"m2d": {**section, **shape}}))
    assert encoders.load(spec).frame_rate_hz == 6.25


def test_declared_encoders_pass_the_check_before_a_retraining(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "params.yaml").read_text()
    declared = "encoder_parameters:\n  ear: {kind: byol_a, weights: none.pth, sha256: " + "ab" * 32 + "}\n"
    (tmp_path / "params.yaml").write_text(text.replace("\nencoder_parameters:  ", f"\n{declared}  #"))
    check_parameters.check_families(check_parameters.read())      # declared and not used: no file is needed
    (tmp_path / "params.yaml").write_text((tmp_path / "params.yaml").read_text().replace(
        "encoders: [logspec", "encoders: [ear, logspec"))
    with pytest.raises(WeightsError, match=r"none\.pth: no such file"):
        check_parameters.check_families(check_parameters.read())
    misspelt = declared.replace("byol_a", "byol")
    (tmp_path / "params.yaml").write_text(text.replace("\nencoder_parameters:  ", f"\n{misspelt}  #"))
    with pytest.raises(ParamsError, match=r"encoder_parameters.ear.kind: 'byol' is none of .*Did you mean"):
        check_parameters.read()


@pytest.mark.real
@pytest.mark.parametrize(("folder", "file", "kind"), [
    ("efficientat_mn04_as", "mn04_as_mAP_432.pt", Efficientat),
    ("m2d_vit_tiny-80x608p16x16p16k-random", "checkpoint-0.pth", M2d),
    ("byol_a_d128-random", "AudioNTT2020-BYOLA-64x96d128.pth", ByolA),
])
def test_the_publishers_own_frames_within_1e_4(folder: str, file: str, kind: type) -> None:
    if not (GOLDEN / folder).is_dir():
        pytest.skip(f"left out: the checkpoints are not here (no {GOLDEN / folder})")
    encoder, golden = kind.from_pretrained(GOLDEN / folder / file), np.load(GOLDEN / folder / "golden.npz")
    lengths = [key.removeprefix("wave_") for key in golden if key.startswith("wave_")]
    assert len(lengths) >= 3
    for length in lengths:
        wave = golden[f"wave_{length}"]
        with torch.inference_mode():
            found = encoder.encode(torch.from_numpy(wave)[None])[0].numpy()
        if f"frames_{length}" in golden:
            expected = golden[f"frames_{length}"]
        else:
            expected = golden[f"maps_{length}"].transpose(2, 1, 0).reshape(found.shape)
        assert found.shape == expected.shape == (encoder.frames_in(len(wave)), encoder.dim)
        np.testing.assert_allclose(found, expected, atol=1e-4)
