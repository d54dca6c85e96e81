"""Networks of the library `transformers` from local folders: the library's own values, frame by frame."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from support import tiny_checkpoints

from heartml.core import config
from heartml.models import encoders, held_weights
from heartml.models.encoders import pretrained, transformers, weight_files
from heartml.models.encoders.transformers import Transformers
from heartml.models.encoders.weight_files import WeightsError
from heartml.registry.signing import content

PARAMS = config.load(Path(__file__).parents[2] / "params.yaml")
library = pytest.importorskip("transformers", reason="left out: the extra `encoders` is not installed")


def wave(seconds: float, rate_hz: int) -> np.ndarray:
    return (np.random.default_rng(1).normal(size=round(seconds * rate_hz)) * 0.1).astype(np.float32)


def own_values(network: object, folder: Path, sound: np.ndarray, rate_hz: int) -> object:
    """What the library's own code gives for one window."""
    made = library.AutoFeatureExtractor.from_pretrained(folder)(sound, sampling_rate=rate_hz, return_tensors="pt")
    with torch.inference_mode():
        return network(**made, output_hidden_states=True)


@pytest.mark.parametrize("kind", ["wav2vec2", "hubert", "wavlm"])
def test_networks_on_the_waveform_give_the_library_s_values(kind: str, tmp_path: Path) -> None:
    folder, network = tiny_checkpoints.transformers(tmp_path / kind, kind)
    encoder, sound = Transformers.from_pretrained(folder, layers=(0, "last")), wave(1.7, 16000)
    found = encoder.encode(torch.from_numpy(sound)[None])[0]
    own = own_values(network, folder, sound, 16000)
    assert found.shape == (encoder.frames_in(len(sound)), 48)
    torch.testing.assert_close(found[:, 24:], own.last_hidden_state[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found[:, :24], own.hidden_states[1][0], atol=1e-4, rtol=1e-4)
    assert (encoder.bands, encoder.frame_rate_hz) == (1, 50.0)


def test_patches_are_stacked_by_band_and_windows_follow_each_other(tmp_path: Path) -> None:
    folder, network = tiny_checkpoints.transformers(tmp_path / "ast", "ast")
    encoder, sound = Transformers.from_pretrained(folder), wave(3.0, 16000)       # windows of 1.28 s
    found = encoder.encode(torch.from_numpy(sound)[None])[0]
    assert (encoder.bands, encoder.frame_rate_hz, encoder.dim) == (12, 10.0, 12 * 24)
    assert len(found) == encoder.frames_in(48000) == 12 + 12 + 5
    for first, frames in ((0, 12), (20480, 12), (40960, 5)):
        own = own_values(network, folder, sound[first : first + 20480], 16000).last_hidden_state[0, 2:]
        expected = own.reshape(12, 12, 24).transpose(0, 1).flatten(1)[:frames]    # the publisher's (f t) d -> t (f d)
        torch.testing.assert_close(found[first // 20480 * 12 :][:frames], expected, atol=1e-4, rtol=1e-4)


def test_the_encoder_of_whisper_is_read_without_its_decoder(tmp_path: Path) -> None:
    folder, network = tiny_checkpoints.transformers(tmp_path / "whisper", "whisper")
    encoder, sound = Transformers.from_pretrained(folder, layers=(1,)), wave(2.5, 16000)      # windows of 2 s
    found = encoder.encode(torch.from_numpy(sound)[None])[0]
    assert found.shape == (100 + 25, 24)
    own = own_values(network.get_encoder(), folder, sound[:32000], 16000).hidden_states[2][0]
    torch.testing.assert_close(found[:100], own, atol=1e-4, rtol=1e-4)


def test_the_bands_of_clap_are_kept(tmp_path: Path) -> None:
    folder, network = tiny_checkpoints.transformers(tmp_path / "clap", "clap")
    encoder, sound = Transformers.from_pretrained(folder), wave(4.0, 48000)
    found = encoder.encode(torch.from_numpy(sound)[None])[0]
    assert (encoder.bands, encoder.sample_rate_hz, encoder.frame_rate_hz) == (2, 48000, 3.2)
    own = own_values(network, folder, sound, 48000).last_hidden_state[0]           # [channels, bands, frames]
    torch.testing.assert_close(found, own.permute(2, 1, 0).flatten(1)[:13], atol=1e-4, rtol=1e-4)
    with pytest.raises(WeightsError, match="layers: there is `last` alone"):
        Transformers.from_pretrained(folder, layers=(0,))


def test_qwen_2_audio_does_not_look_behind_the_end_of_the_sound(tmp_path: Path) -> None:
    folder, network = tiny_checkpoints.transformers(tmp_path / "qwen", "qwen2_audio")
    encoder = Transformers.from_pretrained(folder)
    whole, part = wave(2.0, 16000), wave(2.0, 16000)[:16000]
    own = own_values(network, folder, whole, 16000).last_hidden_state[0]
    torch.testing.assert_close(encoder.encode(torch.from_numpy(whole)[None])[0], own, atol=1e-4, rtol=1e-4)
    assert encoder.encode(torch.from_numpy(part)[None]).shape == (1, 25, 24)
    assert encoder.frame_rate_hz == 25.0


def test_a_folder_that_lacks_something_is_named(tmp_path: Path) -> None:
    folder, _ = tiny_checkpoints.transformers(tmp_path / "ast", "ast")

    def broken(name: str) -> Path:
        return Path(shutil.copytree(folder, tmp_path / name))

    (first := broken("a") / "preprocessor_config.json").unlink()
    with pytest.raises(WeightsError, match=r"a: preprocessor_config\.json is missing or damaged"):
        Transformers.from_pretrained(first.parent)
    (second := broken("b") / "model.safetensors").rename(tmp_path / "b/pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"b: no model\.safetensors\. Other formats are not read"):
        Transformers.from_pretrained(second.parent)
    third = broken("c") / "model.safetensors"
    third.write_bytes(third.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="c: cannot be read as ASTModel"):
        Transformers.from_pretrained(third.parent)
    for name, change, words in (("d", {"model_type": "bert"}, "d: a network of type 'bert'; there are audio-spec"),
                                ("e", {"num_hidden_layers": 3}, "e: .* weights of ASTModel are missing"),
                                ("f", {"hidden_size": 30}, "f: cannot be read as ASTModel")):
        place = broken(name) / "config.json"
        place.write_text(json.dumps({**json.loads(place.read_text()), **change}))
        with pytest.raises(WeightsError, match=words):
            Transformers.from_pretrained(place.parent)
    with pytest.raises(WeightsError, match=f"its SHA-256 is .*, not {'0' * 64}"):
        Transformers.from_pretrained(folder, "0" * 64)


def test_a_model_holds_such_a_folder_and_nothing_in_it_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weight_files, "_OFFERED", {})
    folder, _ = tiny_checkpoints.transformers(tmp_path / "ast", "ast")
    (folder / "README.md").write_text("about it")
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    section = {"weights": str(folder), "sha256": weight_files.hash_of(folder), "redistribute": True}
    spec = encoders.spec("transformers", tiny_checkpoints.with_sections(PARAMS, {"transformers": section}))
    (tmp_path / "model").mkdir()
    saved = held_weights.save(tmp_path / "model", {"transformers": spec.to_json()})
    content.check(tmp_path / "model")
    own = encoders.load(spec).encode(torch.from_numpy(wave(1.0, 16000))[None])
    shutil.rmtree(folder)
    with pytest.raises(WeightsError, match="these weights are not here"):
        encoders.load(spec)
    held_weights.load(tmp_path / "model", saved)
    again = encoders.load(encoders.EncoderSpec.from_json(saved["transformers"]))
    torch.testing.assert_close(again.encode(torch.from_numpy(wave(1.0, 16000))[None]), own)
    assert encoders.libraries("transformers") == ("transformers",)


def test_the_library_is_asked_for_by_name() -> None:
    assert pretrained.library("transformers").__version__ == library.__version__
    assert set(transformers._NETWORKS) >= {"wav2vec2", "hubert", "wavlm", "whisper", "clap", "qwen2_audio"}
